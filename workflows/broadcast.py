"""A broadcast reaches each recipient once, or says why not; it waits for no one recipient, and no one waits for it.

Recipients stay in the store. When one cause refuses too many it pauses, and goes on where it was.
"""

import asyncio
import builtins
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.broadcast import BroadcastActivities
    from contracts.catalogue import BROADCAST
    from contracts.errors import code_of
    from contracts.payloads.broadcast import (
        HANDED_OVER,
        BroadcastProgress,
        BroadcastRequest,
        BroadcastResult,
        ChunkSent,
        Cursor,
        HandOver,
        NotePause,
        PauseBroadcast,
        Paused,
        PlanChunks,
        SendChunk,
    )
    from workflows.step import Job

AT_ONCE = 4  # chunks
PLANNED = 16  # chunks a plan asks for
TOO_MANY = 500  # failures of one cause, or
TOO_LARGE_A_SHARE = 0.02  # of the recipients so far
ENOUGH_TO_JUDGE = 500  # recipients
MAX_CAUSE_CHARACTERS = 200  # of a search attribute


@dataclass(slots=True)
class _Chunk:
    """`due`: not before that."""

    first_line: int
    last_line: int
    due: datetime | None = None


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
        self._chunks = [_Chunk(first, last) for first, last in cursor.again]
        self._running: list[asyncio.Task[None]] = []
        self._counts: Counter[str] = Counter(cursor.counts)
        self._failures: Counter[str] = Counter(cursor.failures)
        self._paused = cursor.paused
        self._accepted = set(cursor.accepted)
        self._waiting: tuple[datetime, str] | None = None
        self._job = Job(
            BROADCAST, request.job, cancellation=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        )

    @workflow.run
    async def run(self, request: BroadcastRequest) -> BroadcastResult:  # noqa: ARG002 - __init__ has it
        """Ends when every recipient was tried."""
        return await self._job.run(self._broadcast())

    @workflow.update
    def pause(self, wish: PauseBroadcast) -> BroadcastProgress:
        """Begin no further chunk; those that run end within seconds."""
        self._paused = self._paused or Paused(words=wish.reason or "paused")
        return self.progress()

    @workflow.update
    def resume(self) -> BroadcastProgress:
        """Go on; what was refused is tried again, and becomes jobs if it is refused again for the same cause."""
        if self._paused and self._paused.cause:
            self._accepted.add(self._paused.cause)
        self._paused = None
        return self.progress()

    @workflow.query
    def progress(self) -> BroadcastProgress:
        """Recipients so far, without those of the chunks that run."""
        return BroadcastProgress(
            total=self._request.total,
            done=self._counts.total(),
            counts=dict(self._counts),
            paused=self._paused.words if self._paused else "",
        )

    async def _broadcast(self) -> BroadcastResult:
        try:
            while not (self._planned_all and not self._chunks and not self._running):
                await self._begin_chunks()
                if self._running:
                    await self._until_one_ended()
                elif self._paused:
                    await self._until_resumed()
                else:
                    await self._until_due()
                if workflow.info().is_continue_as_new_suggested():
                    while self._running:  # a run ends between chunks
                        await self._until_one_ended()
                    self._continue_as_new()
        except BaseException as error:
            if not is_cancelled_exception(error):
                raise
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            raise
        return BroadcastResult(counts=dict(self._counts), failures=dict(self._failures))

    async def _begin_chunks(self) -> None:
        while len(self._running) < AT_ONCE and not self._paused:
            chunk = await self._next_chunk()
            if chunk is None:
                return
            self._running.append(asyncio.create_task(self._send(chunk)))

    async def _next_chunk(self) -> _Chunk | None:
        now = workflow.now()
        if self._waiting and now < self._waiting[0]:
            return None
        self._waiting = None
        due = next((chunk for chunk in self._chunks if chunk.due is None or chunk.due <= now), None)
        if due is None and not self._planned_all:
            await self._plan()
            due = next((chunk for chunk in self._chunks if chunk.due is None), None)
        if due is not None:
            self._chunks.remove(due)
        return due

    async def _plan(self) -> None:
        order = PlanChunks(job=self._request.job, from_line=self._next_line, chunks=PLANNED)
        try:
            planned = await self._job.step(BroadcastActivities.plan, order, key=f"from {self._next_line}")
        except ApplicationError as error:
            self._pause_for(code_of(error), error.message)
            return
        self._chunks += [_Chunk(first, last) for first, last in planned.chunks]
        self._planned_all = len(planned.chunks) < PLANNED
        if planned.chunks:
            self._next_line = planned.chunks[-1][1] + 1

    async def _until_one_ended(self) -> None:
        ended, self._running = await workflow.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()

    async def _send(self, chunk: _Chunk) -> None:
        """One chunk; it is put back if it is to be sent again."""
        order = SendChunk(job=self._request.job, first_line=chunk.first_line, last_line=chunk.last_line)
        key = f"{chunk.first_line}-{chunk.last_line}"
        try:
            sent = await self._job.step(BroadcastActivities.send_chunk, order, key=key)
            if not self._finished(chunk, sent):
                self._chunks.append(chunk)
                return
            if sent.hand_over:
                over = HandOver(job=self._request.job, first_line=chunk.first_line, lines=sent.hand_over)
                await self._job.step(BroadcastActivities.hand_over, over, key=key)
        except ApplicationError as error:
            self._pause_for(code_of(error), error.message)
            self._chunks.append(chunk)
            return
        self._counts.update(sent.counts)
        if sent.hand_over:
            self._counts[HANDED_OVER] += len(sent.hand_over)

    def _finished(self, chunk: _Chunk, sent: ChunkSent) -> bool:
        """Whether what was refused may go on as jobs, and nothing else is left to do."""
        if sent.stopped_by:
            self._pause_for(sent.stopped_by, f"refused: {sent.stopped_by}")
        chunk.due = None
        if sent.wait_until is not None and not sent.everybody:
            chunk.due = sent.wait_until
        elif sent.wait_until is not None:
            self._waiting = (sent.wait_until, sent.waiting_for)
        if sent.unfinished:
            return False
        failures = self._failures + Counter(sent.failures)
        so_far = self._counts.total() + sum(sent.counts.values()) + len(sent.hand_over)
        for cause in sorted(each for each in sent.failures if _shown(each) not in self._accepted):
            count = failures[cause]
            if count > TOO_MANY or (so_far >= ENOUGH_TO_JUDGE and count > TOO_LARGE_A_SHARE * so_far):
                self._pause_for(cause, f"{count:,} of {so_far:,} recipients refused: {cause}")
                return False
        self._failures = failures
        return True

    def _pause_for(self, cause: str, words: str) -> None:
        if self._paused is None or not self._paused.cause:
            self._paused = Paused(words=words, cause=_shown(cause))

    async def _until_resumed(self) -> None:
        paused = self._paused
        assert paused is not None
        await self._note(paused.words)
        if paused.cause:
            await self._job.show_paused(
                paused.cause,
                f"Paused, because {paused.words}. The update `resume` goes on and tries them again; who is refused for "
                "this cause then becomes a job.",
            )
        else:
            workflow.set_current_details(f"Paused: {paused.words}. The update `resume` goes on.")
        await workflow.wait_condition(lambda: self._paused is None)
        self._failures.clear()
        if paused.cause:
            await self._job.show_running()
        workflow.set_current_details("")
        await self._note("")

    async def _note(self, why: str) -> None:
        try:
            await self._job.step(BroadcastActivities.note, NotePause(job=self._request.job, why=why))
        except ApplicationError as error:
            workflow.logger.warning("broadcast.not_noted", extra={"reason": error.message})

    async def _until_due(self) -> None:
        """Nothing can be sent now: until something can, or somebody pauses."""
        waits = [self._waiting] if self._waiting else []
        waits += [(chunk.due, "the outcome of sends that a lost worker began") for chunk in self._chunks if chunk.due]
        if not waits:
            return
        until, what = self._waiting or min(waits)
        summary = f"waiting for {what} until {until:%Y-%m-%d %H:%M:%S} UTC"
        workflow.set_current_details(summary)
        with suppress(builtins.TimeoutError):
            await workflow.wait_condition(
                lambda: self._paused is not None,
                timeout=max(until - workflow.now(), timedelta()),
                timeout_summary=summary,
            )
        workflow.set_current_details("")

    def _continue_as_new(self) -> None:
        cursor = Cursor(
            next_line=self._next_line,
            planned_all=self._planned_all,
            again=tuple((chunk.first_line, chunk.last_line) for chunk in self._chunks),
            counts=dict(self._counts),
            failures=dict(self._failures),
            paused=self._paused,
            accepted=tuple(sorted(self._accepted)),
        )
        workflow.continue_as_new(self._request.model_copy(update={"cursor": cursor}))


def _shown(cause: str) -> str:
    """As a search attribute holds it."""
    return cause[:MAX_CAUSE_CHARACTERS]
