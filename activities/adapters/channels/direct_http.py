"""HTTP to a vendor at an address of our choice: pyreqwest, which takes a quarter of the CPU of httpx for a request.

It does not tell when a request leaves, so a cancelled one may have left, where http.py knows. And it does not look at
the addresses it dials: not for what customers name (public_addresses.py).
"""

from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ClientClosedError, DetailedPyreqwestError, PoolTimeoutError, PyreqwestError

from activities.adapters.channels.channel import Outcome, Verdict
from activities.adapters.channels.http import CONNECT_SECONDS, CONNECTIONS, OVERALL_SECONDS, POOL_SECONDS, Answer

IDLE = timedelta(seconds=30)
# Its ConnectError and ConnectTimeoutError also mean a reply that never came; of the causes it gives, this one says that
# there was no connection: https://docs.rs/hyper-util/latest/hyper_util/client/legacy/struct.Error.html
NO_CONNECTION = "client error (Connect)"


class DirectHttp:
    """Connections of HTTP/1.1: no redirect is followed, no cookie kept, no proxy read."""

    def __init__(self) -> None:
        self._client: Client | None = None

    async def post(self, url: str, *, scope: str, content: bytes, headers: dict[str, str]) -> Answer | Outcome:
        """Send once; the answer, or what it means that there is none. `scope` waits if nothing went out."""
        if self._client is None:
            self._client = _client()
        try:
            response = await self._client.post(url).headers(headers).body_bytes(content).build().send()
            return Answer(response.status, response.headers, bytes(await response.bytes()))
        except ValueError as error:
            return Outcome(Verdict.FIX_OURS, "request", f"this request cannot be made: {error}")
        except PyreqwestError as error:
            causes = _causes(error)
            detail = f"{type(error).__name__}: {causes}"
            if isinstance(error, PoolTimeoutError | ClientClosedError) or NO_CONNECTION in causes:
                return Outcome(Verdict.RETRY, "connection", detail, scope=scope)
            return Outcome(Verdict.MAYBE_SENT, "reply_lost", detail)

    async def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def _client() -> Client:
    return (
        ClientBuilder()
        .http1_only()
        .no_proxy()
        .follow_redirects(enable=False)
        .user_agent("holdfast")
        .max_connections(CONNECTIONS)
        .pool_max_idle_per_host(CONNECTIONS)
        .pool_idle_timeout(IDLE)
        .pool_timeout(timedelta(seconds=POOL_SECONDS))
        .connect_timeout(timedelta(seconds=CONNECT_SECONDS))
        .timeout(timedelta(seconds=OVERALL_SECONDS))
        .build()
    )


def _causes(error: PyreqwestError) -> str:
    found = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return ": ".join(each["message"] for each in found or []) or str(error)
