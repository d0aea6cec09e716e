"""Once a day, at their tenant's local time, people hear what happened; each day of each tenant once.

A tenant that fails does not hold up the others: the run goes on, fails at its end, and the next one tries again.
"""

import asyncio
from uuid import UUID

from temporalio import workflow
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import (
    ApplicationError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.daily_digest import DailyDigestActivities
    from activities.scheduled import ScheduledActivities
    from contracts.catalogue import BROADCAST, DAILY_DIGEST
    from contracts.errors import code_of
    from contracts.payloads.broadcast import BroadcastRequest
    from contracts.payloads.daily_digest import (
        CollectDigest,
        DailyDigestRequest,
        DailyDigestResult,
        DueTenant,
        NoteStarted,
        PickTenants,
        SoFar,
        broadcast_id_of,
    )
    from contracts.payloads.job import JobRef
    from contracts.payloads.scheduled import OF_NO_TENANT, BeginRun
    from contracts.search_attributes import JOB_TYPE, TENANT
    from workflows.broadcast import BroadcastWorkflow, workflow_id
    from workflows.step import Job

AT_ONCE = 4  # tenants: half of the queue's activities of one worker, so that broadcasts go on meanwhile
SHOWN = 10  # failed tenants in the words of a failed run
MAX_WORDS = 300  # characters of one
JOB_ID_MEMO = "job_id"


@workflow.defn(name=DAILY_DIGEST.name)
class DailyDigestWorkflow:
    """pick who is due -> collect each tenant's events -> start its broadcast and leave it to itself."""

    @workflow.init
    def __init__(self, request: DailyDigestRequest) -> None:
        so_far = request.so_far
        self._beyond = so_far.beyond if so_far else ""
        self._tenants = so_far.tenants if so_far else 0
        self._people = so_far.people if so_far else 0
        self._failed = dict(so_far.failed) if so_far else {}
        self._causes = set(so_far.causes) if so_far else set[str]()
        self._ref = JobRef(job_id=UUID(workflow.info().first_execution_run_id), tenant=OF_NO_TENANT)
        self._job = Job(DAILY_DIGEST, self._ref, started_at=so_far.started_at if so_far else None)

    @workflow.run
    async def run(self, request: DailyDigestRequest) -> DailyDigestResult:  # noqa: ARG002 - __init__ has it
        """Ends when every digest that is due is on its way, and does not wait for them to arrive."""
        return await self._job.run(self._digest())

    async def _digest(self) -> DailyDigestResult:
        info = workflow.info()
        await self._job.step(
            ScheduledActivities.begin,
            BeginRun(
                job=self._ref,
                type=DAILY_DIGEST.name,
                workflow_id=info.workflow_id,
                first_run_id=info.first_execution_run_id,
            ),
        )
        slots = asyncio.Semaphore(AT_ONCE)
        beyond: str | None = self._beyond
        while beyond is not None:
            order = PickTenants(job=self._ref, beyond=beyond)
            picked = await self._job.step(
                DailyDigestActivities.pick_tenants, order, key=f"beyond {beyond}" if beyond else None
            )
            await asyncio.gather(*(self._serve(due, slots) for due in picked.due))
            beyond = picked.beyond
            if beyond is not None and workflow.info().is_continue_as_new_suggested():
                self._continue_as_new(beyond)
        return self._ended()

    def _continue_as_new(self, beyond: str) -> None:
        so_far = SoFar(
            started_at=self._job.started_at,
            beyond=beyond,
            tenants=self._tenants,
            people=self._people,
            failed=self._failed,
            causes=tuple(sorted(self._causes)),
        )
        workflow.continue_as_new(DailyDigestRequest(so_far=so_far))

    async def _serve(self, due: DueTenant, slots: asyncio.Semaphore) -> None:
        """One tenant's day."""
        broadcast = JobRef(job_id=broadcast_id_of(due.tenant, due.day), tenant=due.tenant)
        order = CollectDigest(
            job=self._ref,
            due=due,
            broadcast_id=broadcast.job_id,
            workflow_id=workflow_id(due.tenant, broadcast.job_id),
        )
        try:
            key = f"{due.tenant} {due.day.isoformat()}"
            collected = await self._job.step(DailyDigestActivities.collect, order, key=key, slots=slots)
            if collected.people:
                await self._start(broadcast, due, collected.people)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            self._failed[due.tenant] = error.message[:MAX_WORDS]
            self._causes.add(code_of(error))
        else:
            self._tenants += 1
            self._people += collected.people

    async def _start(self, broadcast: JobRef, due: DueTenant, people: int) -> None:
        """Start the broadcast, unless it runs or ran."""
        try:
            started = await workflow.start_child_workflow(
                BroadcastWorkflow.run,
                BroadcastRequest(job=broadcast, total=people, expires_at=due.next_at),
                id=workflow_id(due.tenant, broadcast.job_id),
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                priority=Priority(priority_key=BROADCAST.priority.value, fairness_key=due.tenant[:64]),
                search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(TENANT, due.tenant), SearchAttributePair(JOB_TYPE, BROADCAST.name)]
                ),
                memo={JOB_ID_MEMO: str(broadcast.job_id)},
                static_summary=f"daily digest of {due.day.isoformat()}",
            )
        except WorkflowAlreadyStartedError:
            return
        noted = NoteStarted(broadcast=broadcast, first_run_id=started.first_execution_run_id or "")
        await self._job.step(DailyDigestActivities.note_started, noted, key=due.tenant)

    def _ended(self) -> DailyDigestResult:
        result = DailyDigestResult(tenants=self._tenants, people=self._people, failed=len(self._failed))
        if not self._failed:
            return result
        self._job.so_far = result
        shown = sorted(self._failed.items())[:SHOWN]
        words = "; ".join(f"{tenant}: {words}" for tenant, words in shown)
        left = len(self._failed) - len(shown)
        due = self._tenants + len(self._failed)
        message = f"{len(self._failed)} of {due} tenants failed, and the next run tries them again: {words}"
        raise ApplicationError(
            message + (f"; and {left} more" if left else ""),
            type=next(iter(self._causes)) if len(self._causes) == 1 else "several_causes",
            non_retryable=True,
        )
