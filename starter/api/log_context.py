"""One log line per request, and none of its keys leak into the next."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import clear_contextvars

log = structlog.get_logger(__name__)

QUIET = {"/healthz", "/readyz"}


class LogContext:
    """Plain ASGI, because Starlette's BaseHTTPMiddleware buffers and breaks streams and context variables."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time the request and log how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clear_contextvars()
        began = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if scope["path"] not in QUIET:
                log.info(
                    "request.answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round((time.perf_counter() - began) * 1000, 1),
                )
