"""The first step of every job that a schedule starts: its row. Safe to repeat: a run has one row."""

from temporalio import activity

from contracts.payloads.job import JobState
from contracts.payloads.scheduled import BeginRun, RunBegun
from store.database import Database
from store.jobs import Jobs, NewJob

CLOSED = frozenset(state for state in JobState if state.closed)


class ScheduledActivities:
    """Collaborators are injected by worker.py."""

    def __init__(self, *, database: Database, jobs: Jobs) -> None:
        self._database = database
        self._jobs = jobs

    @activity.defn(name="scheduled.begin")
    async def begin(self, order: BeginRun) -> RunBegun:
        """Store the run's row; a backfilled run has the workflow id of one that ended, and a row of its own."""
        ref = order.job
        if await self._jobs.get(ref.tenant, ref.job_id) is not None:
            return RunBegun(stored=False)
        new = NewJob(ref.job_id, ref.tenant, order.type, order.workflow_id)
        async with self._database.write() as connection:
            _, stored = await self._jobs.submit(connection, new, again_after=CLOSED)
        await self._jobs.started(ref.job_id, order.first_run_id)
        return RunBegun(stored=stored)
