"""A broadcast reaches each recipient once, or says why not; it waits for no one recipient, and no one waits for it.

Recipients stay in the store. When one cause refuses too many it pauses, and goes on where it was.
"""

import asyncio
from collections import Counter, deque
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.broadcast import BroadcastActivities
    from contracts.catalogue import BROADCAST
    from contracts.errors import code_of
    from contracts.payloads.broadcast import (
        BroadcastProgress,
        BroadcastRequest,
        BroadcastResult,
        ChunkSent,
        Cursor,
        HandOver,
        PauseBroadcast,
        PlanChunks,
        SendChunk,
    )
    from workflows.step import DEADLINE, Job

AT_ONCE = 4  # chunks
PLANNED = 16  # chunks a plan asks for
TOO_MANY = 500  # failures of one cause, or
TOO_LARGE_A_SHARE = 0.02  # of the recipients so far
ENOUGH_TO_JUDGE = 500  # recipients
Bounds = tuple[int, int]


def workflow_id(tenant: str, job_id: UUID) -> str:
    """Asking twice with one Idempotency-Key gives one id."""
    return f"broadcast:{tenant}:{job_id}"


@workflow.defn(name=BROADCAST.name)
class BroadcastWorkflow:
    """plan -> send chunks side by side -> hand over what failed; pause, resume and cancel at any time."""

    @workflow.init
    def __init__(self, request: BroadcastRequest) -> None:
        self._request = request
        cursor = request.cursor
        self._next_line = cursor.next_line
        self._planned_all = cursor.planned_all
        self._chunks: deque[Bounds] = deque(cursor.again)
        self._counts: Counter[str] = Counter(cursor.counts)
        self._failures: Counter[str] = Counter(cursor.failures)
        self._paused = cursor.paused
        self._paused_by_cause = False
        self._words = ""
        self._job = Job(BROADCAST, request.job, deadline=request.expires_at)

    @workflow.run
    async def run(self, request: BroadcastRequest) -> BroadcastResult:  # noqa: ARG002 - __init__ has it
        """Ends when every recipient was tried."""
        return await self._job.run(self._broadcast())

    @workflow.update
    def pause(self, wish: PauseBroadcast) -> BroadcastProgress:
        """Begin no further chunk; the one that runs ends within 15 s."""
        self._paused = self._paused or wish.reason or "paused"
        return self.progress()

    @workflow.update
    def resume(self) -> BroadcastProgress:
        """Go on; what was refused is tried again."""
        self._paused = ""
        return self.progress()

    @workflow.query
    def progress(self) -> BroadcastProgress:
        """Recipients so far."""
        return BroadcastProgress(
            total=self._request.total, done=self._counts.total(), counts=dict(self._counts), paused=self._paused
        )

    async def _broadcast(self) -> BroadcastResult:
        running: list[asyncio.Task[Bounds | None]] = []
        while True:
            if self._paused and not running:
                await self._wait_for_resume()
            while len(running) < AT_ONCE and not self._paused and (bounds := await self._next_chunk()):
                running.append(asyncio.create_task(self._send(bounds)))
            if running:
                ended, running = await workflow.wait(running, return_when=asyncio.FIRST_COMPLETED)
                self._chunks.extend(bounds for bounds in (task.result() for task in ended) if bounds is not None)
            elif not self._paused:
                break
            if workflow.info().is_continue_as_new_suggested():
                unfinished = await asyncio.gather(*running)  # a run ends between chunks
                self._chunks.extend(bounds for bounds in unfinished if bounds is not None)
                self._continue_as_new()
        return BroadcastResult(counts=dict(self._counts), failures=dict(self._failures))

    async def _next_chunk(self) -> Bounds | None:
        if not self._chunks and not self._planned_all:
            order = PlanChunks(job=self._request.job, from_line=self._next_line, chunks=PLANNED)
            planned = await self._job.step(BroadcastActivities.plan, order)
            self._chunks.extend(planned.chunks)
            self._planned_all = len(planned.chunks) < PLANNED
            if planned.chunks:
                self._next_line = planned.chunks[-1][1] + 1
        return self._chunks.popleft() if self._chunks else None

    async def _send(self, bounds: Bounds) -> Bounds | None:
        """One chunk; its bounds if it is to be sent again."""
        order = SendChunk(job=self._request.job, first_line=bounds[0], last_line=bounds[1])
        key = f"{bounds[0]}-{bounds[1]}"
        try:
            sent = await self._job.step(BroadcastActivities.send_chunk, order, key=key)
            if sent.hand_over and not sent.unfinished:
                over = HandOver(job=self._request.job, lines=sent.hand_over)
                await self._job.step(BroadcastActivities.hand_over, over, key=key)
        except ApplicationError as error:
            if error.type == DEADLINE:
                self._counts["expired"] += bounds[1] - bounds[0] + 1
                return None
            self._pause_for(code_of(error), error.message)
            return bounds
        self._judge(sent)
        if sent.unfinished:
            return bounds
        self._counts.update(sent.counts)
        return None

    def _judge(self, sent: ChunkSent) -> None:
        if sent.stopped_by:
            self._pause_for(sent.stopped_by, f"refused: {sent.stopped_by}")
            return
        self._failures.update(sent.failures)
        so_far = self._counts.total() + sum(sent.counts.values())
        for cause, count in sorted(self._failures.items()):
            if count > TOO_MANY or (so_far >= ENOUGH_TO_JUDGE and count > TOO_LARGE_A_SHARE * so_far):
                self._pause_for(cause, f"{count} of {so_far} recipients refused: {cause}")

    def _pause_for(self, cause: str, words: str) -> None:
        if not self._paused:
            self._paused, self._paused_by_cause = cause, True
            self._words = words

    async def _wait_for_resume(self) -> None:
        if self._paused_by_cause:
            await self._job.show_paused(self._paused[:200], self._words)
        else:
            workflow.set_current_details(f"Paused: {self._paused}")
        await workflow.wait_condition(lambda: not self._paused)
        if self._paused_by_cause:
            self._paused_by_cause = False
            self._failures.clear()
            await self._job.show_running()
        workflow.set_current_details("")

    def _continue_as_new(self) -> None:
        cursor = Cursor(
            next_line=self._next_line,
            planned_all=self._planned_all,
            again=tuple(self._chunks),
            counts=dict(self._counts),
            failures=dict(self._failures),
            paused=self._paused,
        )
        workflow.continue_as_new(self._request.model_copy(update={"cursor": cursor}))
