"""Asking a job to stop."""

from temporalio.service import RPCError, RPCStatusCode

from contracts.payloads.job import JobRef, JobState, RecordJob
from starter.services import Services
from store.jobs import Job


async def cancel_job(services: Services, job: Job) -> None:
    """Running work is stopped within seconds. A closed job stays as it is; one that never started is closed here.

    Raises:
        RPCError: Temporal does not answer.
    """
    if job.state.closed:
        return
    handle = services.temporal.get_workflow_handle(job.workflow_id, first_execution_run_id=job.first_run_id)
    try:
        await handle.cancel()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        await _close_unstarted(services, job)


async def _close_unstarted(services: Services, job: Job) -> None:
    """A job that was stored but whose start Temporal never got."""
    if job.state is not JobState.SUBMITTED:
        return
    now = services.clock.now()
    ref = JobRef(job_id=job.job_id, tenant=job.tenant)
    await services.jobs.record(
        RecordJob(job=ref, state=JobState.CANCELLED, first_run_id="", started_at=job.submitted_at, at=now)
    )
