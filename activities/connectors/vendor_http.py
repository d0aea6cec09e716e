"""The HTTP client for third-party APIs: httpx on aiohttp's transport, which takes a tenth of its own one's CPU."""

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

CONNECTIONS = 100  # of a process, to all vendors
TIMEOUT = httpx.Timeout(60.0, connect=5.0, pool=10.0)  # seconds; a page of a large file takes Figma tens of them


def vendor_http() -> httpx.AsyncClient:
    """Follows no redirect and keeps no cookies: the engine decides, and accounts must not mix."""
    session: aiohttp.ClientSession | None = None

    def opened() -> aiohttp.ClientSession:
        nonlocal session  # here and not above: aiohttp wants the running loop
        if session is None or session.closed:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=30)
            session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        return session

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=opened),
        timeout=TIMEOUT,
        follow_redirects=False,
        trust_env=False,
        headers={"user-agent": "holdfast", "accept": "application/json"},
    )
