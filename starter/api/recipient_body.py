"""Bodies of a line per recipient: `application/x-ndjson`, streamed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from starter.api.access import Caller, Right
from starter.api.body_limit import MAX_BODY_BYTES
from starter.api.problems import MEDIA_TYPE, Problem, answer
from starter.body_lines import BodyLines
from starter.recipient_intake import BadLines, Duplicates, RecipientsRefused, Report, TooManyRecipients, why_no_json

NDJSON = "application/x-ndjson"
DRAINED_BYTES = 64 * 1024 * 1024  # of a refused body, or the client is still writing when we answer, and never reads it
RECIPIENTS = """"user-17"
{"person": "user-18", "data": {"excerpt": "Ada asks you"}}
{"channel": "email", "address": "ada@example.com"}
"""
LINES: dict[str, Any] = {"schema": {"type": "string", "description": "A line per recipient."}, "example": RECIPIENTS}

Model = TypeVar("Model", bound=BaseModel)


def media_type(request: Request) -> str:
    """Without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def body_lines(request: Request) -> AsyncIterator[BodyLines]:
    """The body's lines. What stops before their end reads on, up to a limit, so that the client hears the answer.

    Raises:
        Problem: 400 for a body that ends early, 413 for too many lines.
    """
    blocks = request.stream()
    try:
        yield BodyLines(blocks)
    except ClientDisconnect as error:
        detail = "The body ended early; nothing of it was kept. Send it again."
        raise Problem(400, "incomplete", detail) from error
    except TooManyRecipients as error:
        await _drain(blocks)
        raise Problem(413, "too_many_recipients", f"Nothing was kept: {error}.") from error
    except Exception:
        await _drain(blocks)
        raise


async def _drain(blocks: AsyncIterator[bytes]) -> None:
    read = 0
    try:
        async for block in blocks:
            read += len(block)
            if read > DRAINED_BYTES:
                return
    except ClientDisconnect:
        return


async def whole_body(request: Request) -> bytes:
    """A body that is no stream of lines, up to the limit of all others.

    Raises:
        Problem: 413.
    """
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY_BYTES:
            raise Problem(413, "too_large", f"The body is larger than {MAX_BODY_BYTES // 1024:,} KiB.")
    return bytes(body)


def validated(model: type[Model], raw: bytes, place: str) -> Model:
    """What these bytes say.

    Raises:
        RequestValidationError: something else than `model`; `place` is where, in words.
    """
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        unreadable = why_no_json(error, raw.replace(b"\n", b" "))
        if unreadable is not None:
            raise RequestValidationError([{"type": "unreadable", "loc": (place,), "msg": unreadable}]) from error
        found: list[Any] = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([each | {"loc": (place, *each["loc"])} for each in found]) from error


def refused(error: RecipientsRefused, caller: Caller) -> JSONResponse:
    """422 with the bad lines in `report`."""
    told = answer(Problem(422, "recipients_refused", f"Nothing was kept: {error}."))
    document = json.loads(bytes(told.body)) | {"report": {"bad": report_for(caller, error.report)[1].model_dump()}}
    return JSONResponse(document, status_code=422, media_type=MEDIA_TYPE)


def report_for(caller: Caller, report: Report) -> tuple[Duplicates, BadLines]:
    """The report as this caller may see it: what is wrong with a line can quote it."""
    if caller.may(Right.SEE_CONTENTS):
        return report.duplicates, report.bad
    return report.duplicates, BadLines(count=report.bad.count)
