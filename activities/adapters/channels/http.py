"""HTTP for the channels: httpx on aiohttp's transport, which takes a tenth of the CPU of httpx's own.

What matters in an error is whether the request may have gone out.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from activities.adapters.channels.channel import Outcome, Verdict

CONNECT_SECONDS = 5.0
OVERALL_SECONDS = 20.0
CONNECTIONS = 100  # per process and channel; as many as the queue's activities at once
MAX_BODY_BYTES = 64 * 1024  # more of an answer is never read

# httpx-aiohttp reports a connection that was lost after the request as ConnectTimeout, so its cause decides.
NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientProxyConnectionError,
    aiohttp.InvalidURL,
    asyncio.CancelledError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers with names in lower case, and the beginning of the body."""

    status: int
    headers: dict[str, str]
    body: bytes


def client(connector: Callable[[], aiohttp.BaseConnector] | None = None) -> httpx.AsyncClient:
    """A client that follows no redirect and reads no proxy from the environment."""
    session: aiohttp.ClientSession | None = None

    def opened() -> aiohttp.ClientSession:
        # Here and not above, because aiohttp wants the running loop. A host name is looked up by the system.
        nonlocal session
        if session is None or session.closed:
            made = connector() if connector else aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=30)
            session = aiohttp.ClientSession(connector=made, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True)
        return session

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=opened),
        timeout=httpx.Timeout(OVERALL_SECONDS, connect=CONNECT_SECONDS),
        follow_redirects=False,
        trust_env=False,
    )


async def exchange(http: httpx.AsyncClient, request: httpx.Request, *, scope: str) -> Answer | Outcome:
    """Send; the answer, or what it means that there is none. `scope` waits if nothing went out."""
    try:
        async with asyncio.timeout(OVERALL_SECONDS):
            response = await http.send(request, stream=True)
            try:
                body = await _beginning(response)
            finally:
                await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        detail = f"{request.url.host}: {type(error).__name__} {error}"[:500]
        if _not_sent(error):
            return Outcome(Verdict.RETRY, "connection", detail, scope=scope)
        return Outcome(Verdict.MAYBE_SENT, "reply_lost", detail)
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


def _not_sent(error: Exception) -> bool:
    if isinstance(error.__cause__, aiohttp.ClientError):
        return isinstance(error.__cause__, NOT_SENT)
    return isinstance(
        error,
        (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL),
    )


async def _beginning(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= MAX_BODY_BYTES:
            break
    return body[:MAX_BODY_BYTES]
