"""/v1/broadcasts: one message to many; how far it is, pause, resume, cancel."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Body, Depends, Query, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from opentelemetry import trace
from structlog.contextvars import bind_contextvars
from temporalio.service import RPCError

from activities.templates import TemplateBroken, TemplateDataError, UnknownTemplate
from contracts.catalogue import BROADCAST
from starter.api.access import AuthenticatedCaller, Caller, Right
from starter.api.broadcast_views import (
    BroadcastAccepted,
    BroadcastPage,
    BroadcastView,
    accepted_view,
    broadcast_view,
)
from starter.api.files import IdempotencyKey
from starter.api.problems import Problem, temporal_unavailable
from starter.api.recipient_body import LINES, NDJSON, body_lines, media_type, refused, validated, whole_body
from starter.broadcast_request import EXAMPLE, AudienceBroadcastBody, BroadcastBody, PauseBody
from starter.broadcast_state import BroadcastState, state_of
from starter.cancel_job import cancel_job
from starter.job_state import LiveJob, look_at
from starter.pause_broadcast import NotRunning, NoWorkerAnswers, pause_broadcast, resume_broadcast
from starter.recipient_intake import RecipientsRefused, Report
from starter.services import Services
from starter.submit_broadcast import (
    InvalidBroadcast,
    SubmittedBroadcast,
    submit_to_audience,
    submit_to_lines,
)
from store.jobs import InvalidCursor, Job
from store.submissions import IdempotencyConflict

router = APIRouter(prefix="/v1/broadcasts", tags=["broadcasts"])

MAX_MESSAGE_BYTES = 1024 * 1024  # as any other body
EVENT_SECONDS = 1.0  # at least, between two events of a listener
LOOK_SECONDS = 2.0  # at Temporal, per listener: for what the job's own record does not say
KEEP_ALIVE_SECONDS = 15.0  # proxies close a silent connection after 30 to 60 s
EXAMPLE_BODY = f"{BroadcastBody(**EXAMPLE).model_dump_json(exclude_unset=True)}\n{LINES['example']}"
SEND_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            NDJSON: {
                "schema": {
                    "type": "string",
                    "description": "The message on the first line, then a line per recipient.",
                },
                "example": EXAMPLE_BODY,
            },
            "application/json": {
                "schema": {"type": "object", "description": "The message, and `audience`."},
                "example": EXAMPLE | {"audience": "beta-testers"},
            },
        },
    }
}


async def _visible(request: Request, caller: AuthenticatedCaller, broadcast_id: UUID) -> Job:
    caller.need(Right.SEE_JOBS)
    services: Services = request.app.state.services
    job = await services.jobs.get(caller.scope, broadcast_id)
    if job is None or job.type != BROADCAST.name:
        raise Problem(404, "broadcast_not_found", f"There is no broadcast {broadcast_id} that this key may see.")
    bind_contextvars(job_id=str(job.job_id))
    return job


# A dependency, because a stream has answered 200 before its generator could say 404.
VisibleBroadcast = Annotated[Job, Depends(_visible)]


@router.post("", status_code=202, summary="Send to many", openapi_extra=SEND_BODY, response_model=BroadcastAccepted)
async def send_broadcast(
    request: Request,
    caller: AuthenticatedCaller,
    afterwards: BackgroundTasks,
    idempotency_key: IdempotencyKey = None,
    strict: Annotated[bool, Query(description="Refuse all for one bad line.")] = False,  # noqa: FBT002 - a query parameter
) -> BroadcastAccepted | JSONResponse:
    """One message to the recipients in the body (`application/x-ndjson`, streamed), or to a saved audience (JSON).

    NDJSON: the first line is the message, every further one a recipient: a person's id as a JSON text,
    `{"person": …, "data": {…}}` or `{"channel": …, "address": …, "data": {…}}`. Bad lines are left out and reported,
    and who is named twice is sent to once.
    """
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    tenant, trace_id = caller.own_tenant(), _trace_id()
    keys: dict[str, Any] = {"idempotency_key": idempotency_key, "trace_id": trace_id}
    kind = media_type(request)
    with _told():
        if kind == "application/json":
            message = validated(AudienceBroadcastBody, await whole_body(request), "body")
            submitted = await submit_to_audience(services, tenant, message, **keys)
        elif kind == NDJSON:
            async with body_lines(request) as lines:
                first = await lines.first(MAX_MESSAGE_BYTES)
                if first is None:
                    raise Problem(413, "too_large", f"The message is larger than {MAX_MESSAGE_BYTES // 1024:,} KiB.")
                body = validated(BroadcastBody, first, "message")
                try:
                    submitted = await submit_to_lines(services, tenant, body, lines, strict=strict, **keys)
                except RecipientsRefused as error:
                    return refused(error, caller)
        else:
            detail = (
                f"Send `Content-Type: {NDJSON}` for a message and its recipients, or application/json with `audience`."
            )
            raise Problem(415, "not_ndjson", detail)
    return _accepted(services, caller, submitted, afterwards)


def _trace_id() -> str | None:
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else None


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except IdempotencyConflict as error:
        raise Problem(409, "idempotency_conflict", str(error)) from error
    except UnknownTemplate as error:
        raise Problem(422, "unknown_template", str(error)) from error
    except TemplateDataError as error:
        raise Problem(422, "template_data_missing", str(error)) from error
    except TemplateBroken as error:
        detail = f"A template cannot be used; nothing was sent. Tell whoever keeps the templates: {error}"
        raise Problem(500, "template_broken", detail) from error
    except InvalidBroadcast as error:
        raise Problem(422, "invalid_broadcast", str(error)) from error


def _accepted(
    services: Services, caller: Caller, submitted: SubmittedBroadcast, afterwards: BackgroundTasks
) -> BroadcastAccepted:
    job = submitted.job
    if submitted.first_run_id:
        afterwards.add_task(services.jobs.started, job.job_id, submitted.first_run_id)
    bind_contextvars(job_id=str(job.job_id))
    return accepted_view(
        services.settings,
        services.temporal.namespace,
        job,
        caller,
        submitted.report,
        deduplicated=submitted.deduplicated,
    )


@router.get("", summary="List broadcasts")
async def list_broadcasts(
    request: Request,
    caller: AuthenticatedCaller,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> BroadcastPage:
    """Newest first, from the store: an open one's state is as of its last record."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_JOBS)
    try:
        jobs, following = await services.jobs.list(caller.scope, type=BROADCAST.name, limit=limit, after=after)
    except InvalidCursor as error:
        raise Problem(422, "invalid_cursor", "`after` is not a `next` of ours; start without it.") from error
    states = [await state_of(services, LiveJob(job, live=False)) for job in jobs]
    return BroadcastPage(broadcasts=[_view(services, state) for state in states if state is not None], next=following)


@router.get("/{broadcast_id}", summary="A broadcast's progress")  # noqa: FAST003 - the dependency takes broadcast_id
async def get_broadcast(request: Request, caller: AuthenticatedCaller, job: VisibleBroadcast) -> BroadcastView:
    """How far it is, how fast, when it will be done, and what was left out of its recipients."""
    services: Services = request.app.state.services
    state = await _state(services, await look_at(services, job))
    found = await services.recipients.get(job.tenant, state.broadcast.set_id)
    return _view(services, state, caller, Report.model_validate(found.report if found else {}))


@router.post("/{broadcast_id}/pause", summary="Pause a broadcast")  # noqa: FAST003 - the dependency takes broadcast_id
async def pause(
    request: Request,
    caller: AuthenticatedCaller,
    job: VisibleBroadcast,
    wish: Annotated[PauseBody | None, Body()] = None,
) -> BroadcastView:
    """Begin nothing more; what is being sent ends within seconds. It stays paused until `resume`, or expires."""
    return await _steered(request, caller, job, wish or PauseBody())


@router.post("/{broadcast_id}/resume", summary="Let a broadcast go on")  # noqa: FAST003 - the dependency takes broadcast_id
async def resume(request: Request, caller: AuthenticatedCaller, job: VisibleBroadcast) -> BroadcastView:
    """Go on where it was, also after it paused by itself; what was refused is tried again."""
    return await _steered(request, caller, job, None)


@router.post("/{broadcast_id}/cancel", status_code=202, summary="Cancel a broadcast")  # noqa: FAST003 - the dependency takes broadcast_id
async def cancel(request: Request, caller: AuthenticatedCaller, job: VisibleBroadcast) -> BroadcastView:
    """End it; what is being sent ends within seconds. One that has ended stays as it is."""
    services: Services = request.app.state.services
    caller.need(Right.CANCEL)
    try:
        await cancel_job(services, job)
    except RPCError as error:
        raise temporal_unavailable("DELETE") from error  # nothing was kept of a wish
    return await _now(services, job)


@router.get(
    "/{broadcast_id}/events",  # noqa: FAST003 - the dependency takes broadcast_id
    summary="A broadcast's progress as server-sent events",
    response_class=EventSourceResponse,
)
async def watch_broadcast(request: Request, job: VisibleBroadcast) -> AsyncIterator[ServerSentEvent]:
    """`progress` at each change, at most one a second, its data the broadcast; `end` when it has ended, and no more."""
    services: Services = request.app.state.services
    clock = asyncio.get_running_loop().time
    number = 0
    sent: object = None
    said_at = looked_at = float("-inf")
    while True:
        if clock() - looked_at >= LOOK_SECONDS:
            live, looked_at = await look_at(services, job), clock()
        else:
            row = await services.jobs.get(job.tenant, job.job_id) or job
            live = LiveJob(row, live=live.live or row.state.closed)
        state = await _state(services, live)
        closed = state.live.job.state.closed
        if closed or state.changed != sent:
            number += 1
            yield ServerSentEvent(data=_view(services, state), event="end" if closed else "progress", id=str(number))
            sent, said_at = state.changed, clock()
        elif clock() - said_at >= KEEP_ALIVE_SECONDS:
            yield ServerSentEvent(comment="still here")
            said_at = clock()
        if closed:
            return
        await asyncio.sleep(EVENT_SECONDS)


async def _steered(request: Request, caller: Caller, job: Job, wish: PauseBody | None) -> BroadcastView:
    services: Services = request.app.state.services
    caller.need(Right.CANCEL)
    try:
        if wish is not None:
            await pause_broadcast(services, job, wish.reason)
        else:
            await resume_broadcast(services, job)
    except NotRunning as error:
        raise Problem(409, "not_running", f"Nothing was changed: {error}.") from error
    except NoWorkerAnswers as error:
        raise Problem(503, "no_worker", str(error), headers={"Retry-After": "5"}) from error
    except RPCError as error:
        raise temporal_unavailable("DELETE") from error  # nothing was kept of a wish
    return await _now(services, job)


async def _now(services: Services, job: Job) -> BroadcastView:
    row = await services.jobs.get(job.tenant, job.job_id) or job
    return _view(services, await _state(services, await look_at(services, row)))


async def _state(services: Services, live: LiveJob) -> BroadcastState:
    state = await state_of(services, live)
    assert state is not None, "stored with its job"
    return state


def _view(
    services: Services, state: BroadcastState, caller: Caller | None = None, report: Report | None = None
) -> BroadcastView:
    return broadcast_view(services.settings, services.temporal.namespace, state, caller, report)
