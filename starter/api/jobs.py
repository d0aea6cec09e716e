"""/v1/jobs: state, list, events, why, cancel."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from contracts.catalogue import JOB_TYPES
from contracts.payloads.job import JobState
from starter.api.access import AuthenticatedCaller, Caller, Right
from starter.api.problems import Problem
from starter.api.views import JobPage, JobView, WhyView, job_view, why_view
from starter.cancel_job import cancel_job as stop
from starter.job_state import LiveJob, look_at
from starter.services import Services
from starter.why import why
from store.jobs import InvalidCursor, Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_SECONDS = 0.25  # of the store, per listener
LOOK_SECONDS = 2.0  # at Temporal, per listener: for what the job's own record does not say
KEEP_ALIVE_SECONDS = 15.0  # proxies close a silent connection after 30 to 60 s


async def _visible_job(request: Request, caller: AuthenticatedCaller, job_id: UUID) -> Job:
    return await _find(request.app.state.services, caller, job_id)


# A dependency, because a stream has answered 200 before its generator could say 404.
VisibleJob = Annotated[Job, Depends(_visible_job)]


@router.get("", summary="List jobs")
async def list_jobs(
    request: Request,
    caller: AuthenticatedCaller,
    type: Annotated[str | None, Query(examples=["file"])] = None,  # noqa: A002 - the query parameter's name
    state: JobState | None = None,
    tenant: Annotated[str | None, Query(description="For keys of all tenants.")] = None,
    since: Annotated[datetime | None, Query(description="Submitted at or after; RFC 3339 with offset.")] = None,
    until: Annotated[datetime | None, Query(description="Submitted before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> JobPage:
    """Newest first, from the store: an open job's state is as of its last record."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_JOBS)
    if tenant and caller.scope not in {None, tenant}:
        raise Problem(403, "forbidden", f"This key sees only the jobs of {caller.scope!r}.")
    if type and type not in (known := [row.name for row in JOB_TYPES]):
        raise Problem(422, "unknown_job_type", f"There is no job type {type!r}; known are {', '.join(known)}.")
    for name, moment in (("since", since), ("until", until)):
        if moment and moment.tzinfo is None:
            raise Problem(422, "invalid_request", f"{name}: say the offset, such as {moment.isoformat()}Z.")
    try:
        jobs, following = await services.jobs.list(
            tenant or caller.scope, type=type, state=state, since=since, until=until, limit=limit, after=after
        )
    except InvalidCursor as error:
        raise Problem(422, "invalid_cursor", "`after` is not a `next` of ours; start without it.") from error
    return JobPage(jobs=[_view(services, LiveJob(job, live=False)) for job in jobs], next=following)


@router.get("/{job_id}", summary="A job's state, progress, result and error")
async def get_job(request: Request, caller: AuthenticatedCaller, job_id: UUID) -> JobView:
    """What the job does now, with what Temporal knows of its running steps."""
    services: Services = request.app.state.services
    return _view(services, await look_at(services, await _find(services, caller, job_id)))


@router.get(
    "/{job_id}/events",  # noqa: FAST003 - the dependency takes job_id
    summary="A job's changes as server-sent events",
    response_class=EventSourceResponse,
)
async def watch_job(request: Request, job: VisibleJob) -> AsyncIterator[ServerSentEvent]:
    """An event named by the state at each change, its data the job; the stream ends when the job is closed."""
    services: Services = request.app.state.services
    clock = asyncio.get_running_loop().time
    number = 0
    sent: JobView | None = None
    said_at = looked_at = 0.0
    while True:
        if clock() - looked_at >= LOOK_SECONDS:
            live, looked_at = await look_at(services, job), clock()
        else:
            row = await services.jobs.get(job.tenant, job.job_id) or job
            live = LiveJob(row, live=live.live or row.state.closed, pending=() if row.state.closed else live.pending)
        view = _view(services, live)
        if view != sent:
            number += 1
            yield ServerSentEvent(data=view, event=view.state.value, id=str(number))
            sent, said_at = view, clock()
        elif clock() - said_at >= KEEP_ALIVE_SECONDS:
            yield ServerSentEvent(comment="still here")
            said_at = clock()
        if view.state.closed:
            return
        await asyncio.sleep(POLL_SECONDS)


@router.get("/{job_id}/why", summary="What a job waits for")
async def why_job(request: Request, caller: AuthenticatedCaller, job_id: UUID) -> WhyView:
    """What it waits for and until when: a limit, quiet hours, a worker, an operator. `sentence` says it in words."""
    services: Services = request.app.state.services
    return why_view(await why(services, await _find(services, caller, job_id)))


@router.delete("/{job_id}", status_code=202, summary="Cancel a job")
async def cancel_job(request: Request, caller: AuthenticatedCaller, job_id: UUID) -> JobView:
    """Ask the job to stop; running work is stopped within seconds. A closed job stays as it is."""
    services: Services = request.app.state.services
    caller.need(Right.CANCEL)
    job = await _find(services, caller, job_id)
    await stop(services, job)
    return _view(services, await look_at(services, await _find(services, caller, job_id)))


def _view(services: Services, live: LiveJob) -> JobView:
    return job_view(services.settings, services.temporal.namespace, live)


async def _find(services: Services, caller: Caller, job_id: UUID) -> Job:
    caller.need(Right.SEE_JOBS)
    job = await services.jobs.get(caller.scope, job_id)
    if job is None:
        raise Problem(404, "job_not_found", f"There is no job {job_id} that this key may see.")
    return job
