"""What a job does now: the store's row, and for an open job what Temporal knows beyond it."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, FailureError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode

from contracts.errors import code_of
from contracts.payloads.job import JobRef, JobState, RecordJob
from starter.services import Services
from store.jobs import Job

log = structlog.get_logger(__name__)

DESCRIBE_TIMEOUT = timedelta(seconds=2)

CLOSED_AS = {
    WorkflowExecutionStatus.COMPLETED: JobState.DONE,
    WorkflowExecutionStatus.FAILED: JobState.FAILED,
    WorkflowExecutionStatus.TIMED_OUT: JobState.FAILED,
    WorkflowExecutionStatus.TERMINATED: JobState.FAILED,
    WorkflowExecutionStatus.CANCELED: JobState.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step that is scheduled, running or waits for its next attempt. `error` is that of the attempt before."""

    step: str
    attempt: int
    running: bool
    error: str | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True)
class LiveJob:
    """`live` is false if Temporal did not answer or no longer has the run, and so only the store speaks."""

    job: Job
    live: bool
    pending: tuple[PendingStep, ...] = field(default=())


async def look_at(services: Services, job: Job) -> LiveJob:
    """The job as it is now.

    A run that Temporal closed without the job's own record (terminated, timed out, or its last step not yet recorded)
    is written to the store here, so that no job looks open for ever.
    """
    if job.state.closed:
        return LiveJob(job, live=True)
    handle = services.temporal.get_workflow_handle(job.workflow_id, first_execution_run_id=job.first_run_id)
    try:
        description = await handle.describe(rpc_timeout=DESCRIBE_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            log.warning("temporal.unavailable", job_id=str(job.job_id), error=str(error))
        return LiveJob(job, live=False)
    if description.status in CLOSED_AS and _same_job(description, job):
        return LiveJob(await _close(services, job, description), live=True)
    return LiveJob(job, live=True, pending=_pending(description))


def _same_job(description: WorkflowExecutionDescription, job: Job) -> bool:
    return job.first_run_id == description.raw_description.workflow_execution_info.first_run_id


async def _close(services: Services, job: Job, description: WorkflowExecutionDescription) -> Job:
    state = CLOSED_AS[description.status or WorkflowExecutionStatus.FAILED]
    cause = error = None
    result: Any = None
    try:
        result = await services.temporal.get_workflow_handle(job.workflow_id, run_id=description.run_id).result(
            rpc_timeout=DESCRIBE_TIMEOUT
        )
    except WorkflowFailureError as failure:
        root = failure.cause.cause if isinstance(failure.cause, ActivityError) else failure.cause
        cause = "terminated" if isinstance(root, TerminatedError) else code_of(root)
        error = root.message if isinstance(root, FailureError) else str(root)
    except RPCError as problem:
        log.warning("job.result_unavailable", job_id=str(job.job_id), error=str(problem))
        return job
    record = RecordJob(
        job=JobRef(job_id=job.job_id, tenant=job.tenant),
        state=state,
        first_run_id=job.first_run_id or description.run_id or "",
        started_at=description.start_time,
        at=description.close_time or services.clock.now(),
        cause=cause if state is JobState.FAILED else None,
        error=error if state is JobState.FAILED else None,
        result=result,
    )
    await services.jobs.record(record)
    return await services.jobs.get(job.tenant, job.job_id) or replace(job, state=state)


def _pending(description: WorkflowExecutionDescription) -> tuple[PendingStep, ...]:
    steps = []
    for pending in description.raw_description.pending_activities:
        next_at = pending.next_attempt_schedule_time
        steps.append(
            PendingStep(
                step=pending.activity_type.name.partition(".")[2],
                attempt=pending.attempt,
                running=pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
                error=pending.last_failure.message or None,
                next_attempt_at=next_at.ToDatetime(UTC) if pending.HasField("next_attempt_schedule_time") else None,
            )
        )
    return tuple(steps)
