"""HTTP for the channels: httpx on aiohttp's transport, which takes a tenth of the CPU of httpx's own.

What matters in a failure is whether the request may have gone out.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from activities.adapters.channels.channel import CancelledBeforeSending, Outcome, Verdict

CONNECT_SECONDS = 5.0
POOL_SECONDS = 10.0  # for a connection to become free; well before the end, or it would begin what it cannot finish
OVERALL_SECONDS = 20.0
CONNECTIONS = 100  # per process and channel; as many as the queue's activities at once
MAX_BODY_BYTES = 1024 * 1024  # more of an answer is never read; Slack echoes the message
TIMEOUT = httpx.Timeout(OVERALL_SECONDS, connect=CONNECT_SECONDS, pool=POOL_SECONDS)
HEADERS = (
    ("accept", "*/*"),
    ("accept-encoding", "identity"),  # a small answer must not unpack into a large one
    ("user-agent", "holdfast"),
)


@dataclass(slots=True)
class _Departure:
    """Whether the request's head has left, after which the other side may act on it."""

    happened: bool = False


_departure: ContextVar[_Departure] = ContextVar("departure")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers with names in lower case, and the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Requests straight to a transport of httpx: no redirect is followed, no cookie kept, no proxy read.

    A client around it does nothing of that either when it is told not to, and takes half of the time of a request.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport

    def request(self, method: str, url: str, *, params: Any = None, headers: Any = None, **body: Any) -> httpx.Request:
        """Build one; `body` is `content` or `json`.

        Raises:
            httpx.InvalidURL, ValueError, TypeError: it cannot be made of these.
        """
        extensions = {"timeout": TIMEOUT.as_dict(), "trace": _trace}
        made = httpx.Request(
            method,
            _parsed(url),
            params=params,
            headers=[*HEADERS, *dict(headers or {}).items()],
            extensions=extensions,
            **body,
        )
        if not made.url.host:
            msg = f"{url!r} names no host"
            raise ValueError(msg)
        return made

    async def aclose(self) -> None:
        """Close connections."""
        await self.transport.aclose()


@lru_cache(maxsize=1_000)
def _parsed(url: str) -> httpx.URL:
    parsed = httpx.URL(url)
    parsed.host.encode("idna")
    return parsed


def client(connector: Callable[[], aiohttp.BaseConnector] | None = None) -> Wire:
    """Connections of HTTP/1.1."""
    session: aiohttp.ClientSession | None = None

    def opened() -> aiohttp.ClientSession:
        # Here and not above, because aiohttp wants the running loop. A host name is looked up by the system.
        nonlocal session
        if session is None or session.closed:
            made = connector() if connector else aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=30)
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_left)
            session = aiohttp.ClientSession(
                connector=made, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trace_configs=[trace]
            )
        return session

    return Wire(AiohttpTransport(client=opened))


async def exchange(
    http: Wire,
    url: str,
    *,
    scope: str,
    method: str = "POST",
    **request: Any,
) -> Answer | Outcome:
    """Send once; the answer, or what it means that there is none.

    Args:
        http: whose connections to use.
        url: of the vendor or of a customer.
        scope: the limiter key that waits if nothing went out.
        method: of the request.
        request: `content`, `json`, `params` and `headers` as httpx takes them.

    Raises:
        CancelledBeforeSending: cancelled, and nothing went out.
    """
    try:
        made = http.request(method, url, **request)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        return Outcome(Verdict.FIX_OURS, "request", f"this request cannot be made: {error}")
    departure = _Departure()
    token = _departure.set(departure)
    try:
        async with asyncio.timeout(OVERALL_SECONDS):
            response = await http.transport.handle_async_request(made)
            try:
                return Answer(response.status_code, _headers(response), await _beginning(response))
            finally:
                await response.aclose()
    except asyncio.CancelledError as cancelled:
        if departure.happened:
            raise
        raise CancelledBeforeSending from cancelled
    except Exception as error:  # noqa: BLE001 - whatever a server can make a client raise, it means one of two things
        detail = f"{made.url.host}: {type(error).__name__} {error}"
        if departure.happened:
            return Outcome(Verdict.MAYBE_SENT, "reply_lost", detail)
        return Outcome(Verdict.RETRY, "connection", detail, scope=scope)
    finally:
        _departure.reset(token)


async def _beginning(response: httpx.Response) -> bytes:
    """What can be read of the body. The status is known, so a body that breaks off is judged as far as it came."""
    body = b""
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= MAX_BODY_BYTES:
                break
    except (httpx.HTTPError, TimeoutError):
        pass
    return body[:MAX_BODY_BYTES]


def _headers(response: httpx.Response) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in response.headers.multi_items():
        found.setdefault(name.lower(), value)  # of a header that is there twice, the first
    return found


async def _left(*_of_the_trace: object) -> None:
    _departure.get().happened = True


async def _trace(event: str, _info: object) -> None:
    """Httpcore's events: https://www.encode.io/httpcore/extensions/#trace."""
    if event.endswith("send_request_headers.started"):
        _departure.get().happened = True
