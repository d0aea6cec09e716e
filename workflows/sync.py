"""A connection's resources come into the store page by page, at the pace that the vendor allows.

Where each resource stands is in the store, so a job that failed, or a connection that was frozen, goes on from there.
"""

from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.sync import SyncActivities
    from contracts.catalogue import SYNC
    from contracts.errors import FailureKind, code_of, kind_of
    from contracts.payloads.sync import (
        BeginSync,
        FinishSync,
        PullPage,
        ResourceCounts,
        SyncProgress,
        SyncRequest,
        SyncResult,
        SyncSoFar,
        vendor_queue,
    )
    from workflows.step import Address, Job

MAX_WORDS = 500  # characters of one resource's failure


@workflow.defn(name=SYNC.name)
class SyncWorkflow:
    """begin -> each resource: pull its pages one after the other -> finish.

    A resource that fails does not keep the others from their turn; the job fails at its end. Refused credentials do.
    """

    @workflow.init
    def __init__(self, request: SyncRequest) -> None:
        so_far = request.so_far
        self._request = request
        self._counts = dict(so_far.counts) if so_far else dict[str, ResourceCounts]()
        self._left = so_far.left if so_far else None
        self._failed = dict(so_far.failed) if so_far else dict[str, str]()
        self._causes = set(so_far.causes) if so_far else set[str]()
        self._vendor = Address(vendor_queue(request.provider), request.connection_id)
        self._job = Job(
            SYNC,
            request.job,
            started_at=so_far.started_at if so_far else None,
            continue_at=lambda _places: self._continue_as_new(),  # they hold slots only, which may be lost
        )

    @workflow.run
    async def run(self, request: SyncRequest) -> SyncResult:  # noqa: ARG002 - __init__ has it
        """Ends when every resource was listed to its end."""
        return await self._job.run(self._sync())

    @workflow.query
    def progress(self) -> SyncProgress:
        """What came so far."""
        return SyncProgress(counts=self._counts, left=self._left or ())

    async def _sync(self) -> SyncResult:
        ref, connection_id = self._request.job, self._request.connection_id
        if self._left is None:
            begun = await self._job.step(SyncActivities.begin, BeginSync(job=ref, connection_id=connection_id))
            self._left = begun.resources
        while self._left:
            await self._pull(self._left[0])
            self._left = self._left[1:]
        await self._job.step(
            SyncActivities.finish, FinishSync(job=ref, connection_id=connection_id, synced=not self._failed)
        )
        return self._ended()

    async def _pull(self, resource: str) -> None:
        """All pages of a resource."""
        order = PullPage(
            job=self._request.job,
            connection_id=self._request.connection_id,
            provider=self._request.provider,
            resource=resource,
            full=self._request.full,
        )
        try:
            finished = False
            while not finished:
                pages = self._counts.get(resource, ResourceCounts()).pages
                key = f"{resource} {pages + 1}"
                pulled = await self._job.step(SyncActivities.pull_page, order, key=key, at=self._vendor)
                self._counts[resource] = pulled.counts
                finished = pulled.finished
                if pulled.refused:
                    self._failed.setdefault(resource, pulled.refused[:MAX_WORDS])
                    self._causes.add(pulled.cause)
                if not finished and workflow.info().is_continue_as_new_suggested():
                    self._continue_as_new()
        except ApplicationError as error:
            self._failed[resource] = error.message[:MAX_WORDS]
            self._causes.add(code_of(error))
            if kind_of(error) is FailureKind.AUTH:
                self._job.so_far = SyncResult(counts=self._counts)
                raise

    def _continue_as_new(self) -> NoReturn:
        so_far = SyncSoFar(
            started_at=self._job.started_at,
            left=self._left or (),
            counts=self._counts,
            failed=self._failed,
            causes=tuple(sorted(self._causes)),
        )
        workflow.continue_as_new(self._request.model_copy(update={"so_far": so_far}))

    def _ended(self) -> SyncResult:
        result = SyncResult(counts=self._counts)
        if not self._failed:
            return result
        self._job.so_far = result
        words = "; ".join(f"{resource}: {words}" for resource, words in self._failed.items())
        raise ApplicationError(
            f"{len(self._failed)} of {len(self._counts.keys() | self._failed.keys())} resources failed: {words}",
            type=next(iter(self._causes)) if len(self._causes) == 1 else "several_causes",
            non_retryable=True,
        )
