"""Pausing a broadcast and letting it go on: updates of its workflow."""

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from contracts.payloads.broadcast import BroadcastProgress, PauseBroadcast
from contracts.payloads.job import JobState
from starter.services import Services
from store.jobs import Job
from workflows.broadcast import BroadcastWorkflow

UPDATE_TIMEOUT = timedelta(seconds=5)  # a worker answers within milliseconds


class NotRunning(Exception):
    """The broadcast has ended, or never began; the text says which, and what can be done."""


class NoWorkerAnswers(Exception):
    """Temporal has the wish and no worker took it: when one is back it may still be done. Ask again then."""


async def pause_broadcast(services: Services, job: Job, reason: str) -> None:
    """Begin no further chunk; those that run end within seconds. One that is paused stays as it is.

    Raises:
        NotRunning: it has ended, or Temporal never got it.
        NoWorkerAnswers: no worker runs.
        RPCError: Temporal does not answer.
    """
    handle = _running(services, job)
    wish = PauseBroadcast(reason=reason)
    await _updated(services, job, handle.execute_update(BroadcastWorkflow.pause, wish, rpc_timeout=UPDATE_TIMEOUT))


async def resume_broadcast(services: Services, job: Job) -> None:
    """Go on, and try again what was refused. One that is not paused stays as it is. Raises as `pause_broadcast`."""
    handle = _running(services, job)
    await _updated(services, job, handle.execute_update(BroadcastWorkflow.resume, rpc_timeout=UPDATE_TIMEOUT))


def _running(services: Services, job: Job) -> WorkflowHandle[Any, Any]:
    if job.state.closed:
        raise NotRunning(f"the broadcast has ended ({job.state.value}), so nothing is left to pause or resume")
    return services.temporal.get_workflow_handle(job.workflow_id, first_execution_run_id=job.first_run_id)


async def _updated(services: Services, job: Job, update: Awaitable[BroadcastProgress]) -> None:
    try:
        progress = await update
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        raise NoWorkerAnswers(NoWorkerAnswers.__doc__) from error
    except WorkflowUpdateFailedError as error:
        raise NotRunning(f"the broadcast refused, as it was just ending: {error.cause}") from error
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        if job.state is JobState.SUBMITTED:
            again = "send the same request again with its Idempotency-Key, or cancel it"
            raise NotRunning(f"the broadcast was stored while Temporal was away and has not begun: {again}") from error
        raise NotRunning("the broadcast has just ended, so nothing is left to pause or resume") from error
    await services.broadcasts.note_pause(
        job.job_id, progress.paused or None
    )  # at once: the workflow's own note is later
