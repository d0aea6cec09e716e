"""No more of a body is read than a request may have, whoever sends it: before authentication and before parsing.

Starlette's own limit answers in plain text where Content-Length says too much, so it is not used.
"""

from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starter.api.problems import Problem, answer

MAX_BODY_BYTES = 1024 * 1024
# These have limits of their own, HOLDFAST_MAX_UPLOAD_BYTES and HOLDFAST_MAX_RECIPIENTS, and hold no body in memory.
STREAMED = {("POST", "/v1/files"), ("POST", "/v1/broadcasts")}
STREAMED_BELOW = (("PUT", "/v1/audiences/"),)


class BodyLimit:
    """Plain ASGI, outside everything that reads: 413 above the limit, 400 for a NUL in path or query."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what is declared too long, and cut what becomes so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"\0" in unquote_to_bytes(scope["query_string"]):
            refused = Problem(400, "invalid_request", "The address contains a NUL character (%00): leave it out.")
            await answer(refused)(scope, receive, send)
            return
        if _streamed(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit_bytes:
            await answer(self._too_large())(scope, receive, send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit_bytes:
                raise self._too_large()
            return message

        await self._app(scope, limited, send)

    def _too_large(self) -> Problem:
        kibibytes = self._limit_bytes // 1024
        return Problem(
            413, "too_large", f"The body is larger than {kibibytes:,} KiB. Upload files with POST /v1/files."
        )


def _streamed(method: str, path: str) -> bool:
    return (method, path) in STREAMED or any(
        method == each and path.startswith(below) for each, below in STREAMED_BELOW
    )
