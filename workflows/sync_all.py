"""Every quarter of an hour each connection is synced once, spread over the window and not all at its beginning."""

from datetime import timedelta
from uuid import UUID

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.scheduled import ScheduledActivities
    from activities.sync_all import SyncAllActivities
    from contracts.catalogue import SYNC_ALL
    from contracts.payloads.job import JobRef
    from contracts.payloads.scheduled import OF_NO_TENANT, BeginRun
    from contracts.payloads.sync import SetLimits, StartSyncs, SyncAllRequest, SyncAllResult
    from workflows.step import Job


@workflow.defn(name=SYNC_ALL.name)
class SyncAllWorkflow:
    """set limits -> start the syncs of each slice of the window when its time has come."""

    @workflow.init
    def __init__(self, request: SyncAllRequest) -> None:
        self._request = request
        self._ref = JobRef(job_id=UUID(workflow.info().first_execution_run_id), tenant=OF_NO_TENANT)
        self._job = Job(SYNC_ALL, self._ref)

    @workflow.run
    async def run(self, request: SyncAllRequest) -> SyncAllResult:  # noqa: ARG002 - __init__ has it
        """Ends when all are started, and does not wait for them."""
        return await self._job.run(self._start_all())

    async def _start_all(self) -> SyncAllResult:
        info = workflow.info()
        await self._job.step(
            ScheduledActivities.begin,
            BeginRun(
                job=self._ref,
                type=SYNC_ALL.name,
                workflow_id=info.workflow_id,
                first_run_id=info.first_execution_run_id,
            ),
        )
        await self._job.step(SyncAllActivities.set_limits, SetLimits(job=self._ref))
        began, slices = workflow.now(), self._request.slices
        window = timedelta(seconds=self._request.window_seconds)
        started = running = 0
        for number in range(slices):
            due = began + window * number / slices
            if due > workflow.now():
                await workflow.sleep(due - workflow.now(), summary=f"until slice {number + 1} of {slices}")
            order = StartSyncs(job=self._ref, number=number, of=slices)
            slice_ = await self._job.step(SyncAllActivities.start_syncs, order, key=f"{number + 1} of {slices}")
            started += slice_.started
            running += slice_.running
        return SyncAllResult(started=started, running=running)
