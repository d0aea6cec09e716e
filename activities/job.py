"""The step every job has: its state goes to the store. Safe to repeat: the same state twice is one."""

from temporalio import activity

from contracts.payloads.job import JobRecorded, RecordJob
from store.jobs import Jobs


class JobActivities:
    """Registered on every queue that runs workflows."""

    def __init__(self, *, jobs: Jobs) -> None:
        self._jobs = jobs

    @activity.defn(name="job.record")
    async def record(self, order: RecordJob) -> JobRecorded:
        """Write the job's state."""
        return JobRecorded(changed=await self._jobs.record(order))
