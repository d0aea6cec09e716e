"""What a job waits for, and until when: one look at its workflow, its running steps, its queues and the store."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, PendingActivityState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import WorkflowExecutionDescription, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from contracts.catalogue import BROADCAST, SYNC, job_type
from contracts.payloads.job import JobState, ParkedStep, Waiting
from contracts.payloads.sync import vendor_queue
from runtime import queue_limits
from runtime.queue_limits import QueueLimit
from starter.job_state import CLOSED_AS, look_at
from starter.queue_rate import in_words
from starter.services import Services
from store.jobs import Job

log = structlog.get_logger(__name__)

ANSWERS_WITHIN = timedelta(seconds=2)
POLLS_EVERY = timedelta(seconds=70)  # a worker that waits for a task asks again after 60 s at the latest
NEWEST_EVENTS = 200  # of a history, in which a timer that runs is looked for
STOPPED = 0.0
VENDOR_QUEUE = vendor_queue("")
AN_OPERATOR = "an operator"
AT_WORK = "its own work"


@dataclass(frozen=True, slots=True)
class Wait:
    """A thing that the job waits for. `step` is None where it is not one step's wait; `until` is None if unknown."""

    step: str | None
    what: str
    until: datetime | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """`sentence` is for the reader at 3 a.m."""

    job: Job
    waits: tuple[Wait, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class _Queue:
    """A task queue as it is. `polled`: a worker asked for tasks in the last minute."""

    name: str
    polled: bool
    waiting: int
    limited_now: bool
    limit: QueueLimit


async def why(services: Services, job: Job) -> Why:
    """What the job waits for. Every call has a short timeout; what does not answer is named."""
    if job.state.closed:
        return _closed(job)
    handle = services.temporal.get_workflow_handle(job.workflow_id)
    try:
        description = await handle.describe(rpc_timeout=ANSWERS_WITHIN)
    except RPCError as error:
        return await _without_temporal(services, job, error)
    if description.status in CLOSED_AS:
        seen = (await look_at(services, job)).job
        if seen.state.closed:
            return _closed(seen)
        ended = Wait(None, "its record", detail="its run has ended, and the store does not know how yet")
        return Why(job, (ended,), "Its run has just ended, and how is being recorded: ask again in a moment.")
    return await _Look(services, job, description).told()


class _Look:
    """One look at an open run."""

    def __init__(self, services: Services, job: Job, description: WorkflowExecutionDescription) -> None:
        self._services = services
        self._job = job
        self._raw = description.raw_description
        self._queue = description.task_queue
        self._handle = services.temporal.get_workflow_handle(job.workflow_id)
        self._now = services.clock.now()

    async def told(self) -> Why:
        paused = await _paused(self._services, self._job)
        held_up = await self._of_workers()
        waiting: list[Waiting] = []
        parked: list[ParkedStep] = []
        if not held_up:
            answers = await asyncio.gather(
                self._query("waiting", list[Waiting]), self._query("parked", list[ParkedStep])
            )
            if None in answers:
                held_up = [Wait(None, f"a worker of the queue {self._queue}, which did not answer within 2 s")]
            waiting, parked = (answer or [] for answer in answers)
        waits = [self._of_parked(each) for each in parked]
        if not waits:
            waits += _held(self._job, paused)
        waits += [Wait(each.step, each.waiting_for, each.until) for each in waiting]
        waits += held_up
        waits += await self._activities()
        if not waits:
            waits += await self._timers()
        return Why(self._job, tuple(waits), self._sentence(waits))

    async def _query(self, name: str, kind: Any) -> Any:
        """The answer; none of its kind where the workflow does not know the question, None where nobody answers."""
        try:
            return await self._handle.query(name, result_type=kind, rpc_timeout=ANSWERS_WITHIN)
        except WorkflowQueryFailedError as error:
            log.info("query.unknown", query=name, job_id=str(self._job.job_id), error=str(error))
            return []
        except RPCError as error:
            log.info("query.unanswered", query=name, job_id=str(self._job.job_id), status=error.status.name)
            return None

    def _of_parked(self, parked: ParkedStep) -> Wait:
        until = None
        with suppress(KeyError):
            until = parked.parked_at + job_type(self._job.type).keep.failed
        return Wait(parked.step, AN_OPERATOR, until, _decided(self._job, f"{parked.cause}: {parked.error}"))

    async def _of_workers(self) -> list[Wait]:
        """Why the workflow's own code cannot answer; nothing if it can."""
        queue = await self._look_at_queue(self._queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
        if queue is not None and not queue.polled:
            return [Wait(None, f"a worker of the queue {self._queue}", detail="none asks for work: start one")]
        task = self._raw.pending_workflow_task
        if task.attempt > 1:
            detail = f"attempt {task.attempt}; the Web UI has the error, and a deploy or a rollback mends it"
            return [Wait(None, "its workflow's code, which fails", detail=detail)]
        return []

    async def _activities(self) -> list[Wait]:
        pending = list(self._raw.pending_activities)
        queued = {self._queue_of(each) for each in pending if self._is_queued(each)}
        looks = await asyncio.gather(
            *(self._look_at_queue(name, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY) for name in sorted(queued))
        )
        queues = dict(zip(sorted(queued), looks, strict=True))
        return [self._of_activity(each, queues) for each in pending]

    def _queue_of(self, pending: PendingActivityInfo) -> str:
        return pending.activity_options.task_queue.name or self._queue

    def _next_attempt(self, pending: PendingActivityInfo) -> datetime | None:
        if not pending.HasField("next_attempt_schedule_time"):
            return None
        at = pending.next_attempt_schedule_time.ToDatetime(UTC)
        return at if at > self._now else None

    def _is_queued(self, pending: PendingActivityInfo) -> bool:
        scheduled = pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        return scheduled and self._next_attempt(pending) is None

    def _of_activity(self, pending: PendingActivityInfo, queues: dict[str, _Queue | None]) -> Wait:
        step = pending.activity_type.name.partition(".")[2] or pending.activity_type.name
        last_error = pending.last_failure.message
        match pending.state:
            case PendingActivityState.PENDING_ACTIVITY_STATE_STARTED:
                since = pending.last_started_time.ToDatetime(UTC)
                detail = f"attempt {pending.attempt}, at work since {_clock(since)}"
                return Wait(step, AT_WORK, detail=_joined(detail, last_error))
            case PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED:
                return Wait(step, "its stop, which was asked for")
            case (
                PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED
                | PendingActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED
            ):
                return Wait(step, AN_OPERATOR, detail="it was paused; `temporal activity unpause` lets it go on")
        next_attempt = self._next_attempt(pending)
        if next_attempt is not None:
            return Wait(step, f"its attempt {pending.attempt}", next_attempt, last_error or None)
        name = self._queue_of(pending)
        return _in_line(step, name, queues.get(name))

    async def _look_at_queue(self, name: str, kind: TaskQueueType.ValueType) -> _Queue | None:
        client = self._services.temporal
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind, report_stats=True
        )
        try:
            found: DescribeTaskQueueResponse = await client.workflow_service.describe_task_queue(
                request, timeout=ANSWERS_WITHIN
            )
            async with asyncio.timeout(ANSWERS_WITHIN.total_seconds()):
                limit = await queue_limits.read(client, name)
        except (RPCError, TimeoutError) as error:
            log.info("queue.not_described", queue=name, error=str(error) or "no answer")
            return None
        return _Queue(
            name=name,
            polled=any(self._now - each.last_access_time.ToDatetime(UTC) < POLLS_EVERY for each in found.pollers),
            waiting=found.stats.approximate_backlog_count,
            limited_now=found.stats.rate_limiting_active,
            limit=limit,
        )

    async def _timers(self) -> list[Wait]:
        """Timers that run, from the newest events: a workflow can sleep without being a step's wait."""
        client = self._services.temporal
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=client.namespace, execution=self._raw.workflow_execution_info.execution
        )
        request.maximum_page_size = NEWEST_EVENTS
        try:
            page = await client.workflow_service.get_workflow_execution_history_reverse(request, timeout=ANSWERS_WITHIN)
        except RPCError as error:
            log.info("history.unanswered", job_id=str(self._job.job_id), status=error.status.name)
            return []
        over: set[int] = set()
        waits = []
        for event in page.history.events:
            match event.event_type:
                case EventType.EVENT_TYPE_TIMER_FIRED:
                    over.add(event.timer_fired_event_attributes.started_event_id)
                case EventType.EVENT_TYPE_TIMER_CANCELED:
                    over.add(event.timer_canceled_event_attributes.started_event_id)
                case EventType.EVENT_TYPE_TIMER_STARTED if event.event_id not in over:
                    lasts = event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
                    until = event.event_time.ToDatetime(UTC) + lasts
                    summary = await self._decoded(event.user_metadata.summary)
                    waits.append(Wait(None, "its time", until, summary or None))
        return waits[::-1]

    async def _decoded(self, summary: Payload) -> str:
        if not summary.ByteSize():
            return ""
        (text,) = await self._services.temporal.data_converter.decode([summary], [str])
        return str(text)

    def _sentence(self, waits: Sequence[Wait]) -> str:
        if not waits:
            return "It runs, and waits for nothing that can be seen from outside: ask again in a moment."
        first = waits[0]
        more = f" It waits for {_counted(len(waits) - 1, 'other thing')} too." if len(waits) > 1 else ""
        return _one(first, self._now) + more


def _one(wait: Wait, now: datetime) -> str:
    who = f"Step {wait.step}" if wait.step else "It"
    if wait.what == AT_WORK:
        return f"{who} is at work: {wait.detail}."
    told = f"{who} waits for {wait.what}"
    if wait.until is not None:
        told += f" until {_clock(wait.until)} ({_away(wait.until - now)})"
    if wait.detail:
        told += f": {wait.detail.rstrip('.')}"
    return f"{told}."


def _in_line(step: str, name: str, queue: _Queue | None) -> Wait:
    if queue is None:
        return Wait(step, f"the queue {name}", detail="Temporal did not say more about it")
    vendor = name.removeprefix(VENDOR_QUEUE) if name.startswith(VENDOR_QUEUE) else None
    if queue.limit.per_second == STOPPED:
        goes_on = f"`holdfast queues limit {vendor} default` lets it go on" if vendor else "set its limit again"
        return Wait(step, f"the queue {name}, which is stopped", detail=goes_on)
    if not queue.polled:
        return Wait(step, f"a worker of the queue {name}", detail="none asks for work: start one")
    limit = _limit(queue.limit)
    line = f"{_counted(queue.waiting, 'task')} in line" if queue.waiting else ""
    if limit and (queue.limited_now or vendor):
        return Wait(step, f"a slot of the queue {name}", detail=_joined(limit, line))
    return Wait(step, f"a free worker of the queue {name}", detail=line or None)


def _limit(limit: QueueLimit) -> str:
    said = []
    if limit.per_second is not None:
        said.append(f"limited to {in_words(limit.per_second)}" + (" by an operator" if limit.by_operator else ""))
    if limit.per_key is not None:
        said.append(f"each connection to {in_words(limit.per_key)}")
    return ", ".join(said)


async def _paused(services: Services, job: Job) -> str | None:
    if job.type != BROADCAST.name:
        return None
    found = await services.broadcasts.get(job.tenant, job.job_id)
    return (found.paused or None) if found else None


async def _without_temporal(services: Services, job: Job, error: RPCError) -> Why:
    """What the store alone says."""
    if error.status is RPCStatusCode.NOT_FOUND and job.state is JobState.SUBMITTED:
        return Why(
            job, (Wait(None, "its start", detail=_starts(job)),), f"It is stored and not started: {_starts(job)}."
        )
    if error.status is RPCStatusCode.NOT_FOUND:
        gone = "Temporal has its run no more, so nothing will happen: it was deleted, or Temporal's data was replaced"
        return Why(job, (Wait(None, "nothing", detail=gone),), f"{gone}.")
    log.warning("temporal.unavailable", job_id=str(job.job_id), status=error.status.name)
    away = Wait(None, "Temporal", detail="it does not answer, so only the store speaks")
    if job.state is JobState.SUBMITTED:
        words = f"It is stored and not started, and Temporal does not answer: {_starts(job)}."
        return Why(job, (away, Wait(None, "its start", detail=_starts(job))), words)
    held = _held(job, await _paused(services, job))
    if not held:
        return Why(job, (away,), "Temporal does not answer, so what it waits for is not known; it was running.")
    words = f"Temporal does not answer; by the last record: {_one(held[0], services.clock.now())}"
    return Why(job, (away, *held), words)


def _held(job: Job, paused: str | None) -> list[Wait]:
    """What an operator is waited for by the job's record, where its workflow does not say."""
    said = ((job.error or job.cause) if job.state is JobState.PARKED else None) or paused
    return [Wait(None, AN_OPERATOR, detail=_decided(job, said))] if said else []


def _decided(job: Job, said: str) -> str:
    if job.type == BROADCAST.name:
        return f"{said.rstrip('.')}; `holdfast broadcasts resume {job.job_id}` lets it go on"
    return f"{said.rstrip('.')}; `holdfast jobs resolve {job.job_id} retry` (or discard) decides"


def _starts(job: Job) -> str:
    if job.type == SYNC.name:
        return "the schedule starts it within a quarter of an hour, or ask for the sync again"
    return "send the same request again with its Idempotency-Key, or cancel it"


def _closed(job: Job) -> Why:
    at = f" at {_clock(job.finished_at)}" if job.finished_at else ""
    because = f": {(job.error or job.cause or '').rstrip('.')}" if job.error or job.cause else ""
    return Why(job, (), f"It ended{at}, {job.state.value}{because}. It waits for nothing.")


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _away(left: timedelta) -> str:
    seconds = max(0, round(left.total_seconds()))
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    if days:
        return f"in {days} d {hours} h"
    if hours:
        return f"in {hours} h {minutes} min"
    return f"in {minutes} min {seconds % 60} s" if minutes else f"in {seconds} s"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _joined(*parts: str) -> str:
    return "; ".join(each for each in parts if each)
