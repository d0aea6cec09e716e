"""Errors as RFC 9457 problem documents: https://www.rfc-editor.org/rfc/rfc9457."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from temporalio.service import RPCError

from starter.request_model import in_words
from store.database import DatabaseUnavailable

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5


class ProblemDocument(BaseModel):
    """`code` is stable and meant for programs; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    trace_id: str | None = None
    errors: list[dict[str, Any]] | None = None


class Problem(HTTPException):
    """An answer that is an error. FastAPI lets an HTTPException through from where it reads the body."""

    def __init__(self, status: int, code: str, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.code = code


def answer(problem: Problem) -> JSONResponse:
    """As a response, where no exception handler is at work."""
    headers = dict(problem.headers) if problem.headers else None
    return _answer(problem.status_code, problem.code, problem.detail, headers=headers)


def temporal_unavailable(method: str) -> Problem:
    """503: nothing that was sent is lost, but nothing was started either."""
    again = "send the same request again."
    if method == "POST":
        again = (
            "what you sent is kept, and its job is not started. Send the same request again with the same "
            "Idempotency-Key: it starts that job."
        )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return Problem(503, "temporal_unavailable", f"The Temporal service does not answer: {again}", headers=headers)


def _answer(
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    context = trace.get_current_span().get_span_context()
    document = ProblemDocument(
        type=f"urn:holdfast:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        trace_id=f"{context.trace_id:032x}" if context.is_valid else None,
        errors=errors,
    )
    return JSONResponse(
        document.model_dump(exclude_none=True), status_code=status, media_type=MEDIA_TYPE, headers=headers
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(each["loc"] == ("body",) for each in found) and not _is_json(request):
            needed = "Send the body as JSON, with the header `Content-Type: application/json`."
            return answer(Problem(415, "not_json", needed))
        errors = in_words(found)
        detail = "; ".join(f"{each['field']}: {each['problem']}" for each in errors)
        return _answer(422, "invalid_request", detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        detail = _why_unreadable(error.__cause__) or str(error.detail)
        return _answer(error.status_code, code, detail, headers=dict(error.headers or {}))

    @app.exception_handler(RPCError)
    async def _temporal(request: Request, error: RPCError) -> JSONResponse:
        log.warning("temporal.unavailable", path=request.url.path, error=str(error), status=error.status.name)
        return answer(temporal_unavailable(request.method))

    @app.exception_handler(DatabaseUnavailable)
    async def _store(request: Request, error: DatabaseUnavailable) -> JSONResponse:
        log.warning("store.unavailable", path=request.url.path, error=str(error))
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return _answer(503, "store_unavailable", "The store does not answer; try again.", headers=headers)

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> JSONResponse:
        log.error("request.failed", path=request.url.path, exc_info=error)
        detail = "This is a fault of ours and is in our log under this trace_id. Sending it again may help."
        return _answer(500, "internal_error", detail)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _why_unreadable(cause: BaseException | None) -> str | None:
    """FastAPI says only that there was an error."""
    if isinstance(cause, UnicodeDecodeError):
        return f"The body is not UTF-8 at byte {cause.start}: JSON is sent in UTF-8."
    if isinstance(cause, RecursionError):
        return "The JSON is nested too deep."
    if isinstance(cause, ValueError) and "digits" in str(cause):
        return "A number in the body has more digits than are read (4,300)."
    return None
