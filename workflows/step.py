"""One step, done right, once. Every activity call of every workflow goes through `Job.step`.

    done          the result
    wait until    a durable timer, then again; no attempt is burnt, the job's deadline bounds it
    interrupted   a deploy: again at once, at the place it had reached
    lost worker   again at once, at the last heartbeat's place, MAX_LOST_WORKERS times at most
    exhausted     unexpected errors used up the attempts, or the error is final: park or fail, by the catalogue

Parking shows the dead letter in search attributes and in the Web UI, and waits for the update `resolve`.
"""

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar, cast

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    TimeoutError,  # noqa: A004 - Temporal's is the only one meant in this file
    TimeoutType,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from pydantic import JsonValue, ValidationError

    from activities.job import JobActivities
    from contracts.catalogue import MAX_LOST_WORKERS, WORKER_SHUTDOWN, JobType, Step, WhenExhausted
    from contracts.errors import FailureKind, code_of, kind_of
    from contracts.payloads.job import (
        Heartbeat,
        Interrupted,
        JobRef,
        JobState,
        ParkedStep,
        RecordJob,
        Resolve,
        Resolved,
        Waiting,
        WaitUntil,
    )
    from contracts.payloads.model import Fact, StepOrder
    from contracts.search_attributes import CAUSE, JOB_STATUS


LOCAL_RETRY_THRESHOLD = timedelta(seconds=1)  # a longer wait is a durable timer and holds no workflow task
DEADLINE = "deadline"  # the type of an ApplicationError: a wait would end past the job's deadline
FactT = TypeVar("FactT", bound=Fact)
OrderT = TypeVar("OrderT", bound=StepOrder)


@dataclass(frozen=True, slots=True)
class _Lost:
    """The worker went away; `errors` unexpected errors came before that."""

    errors: int
    place: JsonValue
    cause: BaseException


@dataclass(frozen=True, slots=True)
class _Failed:
    """Attempts used up, or a final error."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class Address:
    """Where an activity runs besides the job's own queue; the server shares that queue out by fairness key."""

    queue: str
    fairness_key: str


class Job:
    """The running job: its steps, its parked ones, its record in the store.

    Made in `@workflow.init`, because `resolve` may arrive before the first line of `run`.
    """

    def __init__(
        self,
        job_type: JobType,
        ref: JobRef,
        *,
        deadline: datetime | None = None,
        started_at: datetime | None = None,
        places: Mapping[str, JsonValue] | None = None,
        continue_at: Callable[[dict[str, JsonValue]], NoReturn] | None = None,
        cancellation: workflow.ActivityCancellationType = workflow.ActivityCancellationType.TRY_CANCEL,
    ) -> None:
        """Made once per run.

        Args:
            job_type: its row of the catalogue.
            ref: of the job.
            deadline: no wait may end at or after it.
            started_at: of the first run, where this one continues it.
            places: where its steps stood when the run before continued as new.
            continue_at: continues as new with such places, where a long history asks for it. Called in a wait, while
                no activity runs and nothing is parked.
            cancellation: whether a cancelled job ends at once or when its activities have.
        """
        self._type = job_type
        self._ref = ref
        self._deadline = deadline
        self._started_at = started_at
        self._carried = dict(places or {})
        self._continue_at = continue_at
        self._cancellation = cancellation
        self._places: dict[str, JsonValue] = {}
        self._running = 0
        self._waits: dict[str, WaitUntil] = {}
        self.so_far: Fact | None = None  # recorded as the result of a job that fails
        self._parked: dict[str, tuple[ParkedStep, StepOrder]] = {}
        self._decisions: dict[str, Resolve] = {}
        workflow.set_update_handler("resolve", self._resolve, validator=self._check_resolve)
        workflow.set_query_handler("parked", self._list_parked)
        workflow.set_query_handler("waiting", self._list_waits)

    @property
    def started_at(self) -> datetime:
        """When the job's first run began."""
        return self._started_at or workflow.info().start_time

    async def run(self, story: Awaitable[FactT]) -> FactT:
        """Await the workflow's own steps and record how they ended.

        A bug in workflow code is no failure of the job: it holds the workflow task, visible as
        TemporalReportedProblems, until a deploy mends it.
        """
        try:
            result = await story
        except asyncio.CancelledError:
            await self._record(JobState.CANCELLED)
            raise
        except FailureError as error:
            if is_cancelled_exception(error):
                await self._record(JobState.CANCELLED)
            else:
                so_far = self.so_far.model_dump(mode="json") if self.so_far else None
                await self._record(JobState.FAILED, cause=code_of(error), error=error.message, result=so_far)
            raise
        await self._record(JobState.DONE, result=result.model_dump(mode="json"))
        return result

    async def step(
        self,
        activity: Callable[[Any, OrderT], Awaitable[FactT | WaitUntil | Interrupted]],
        order: OrderT,
        *,
        key: str | None = None,
        slots: asyncio.Semaphore | None = None,
        parks: bool = True,
        at: Address | None = None,
    ) -> FactT:
        """Run one activity under its catalogue row until it is done.

        Args:
            activity: the method, such as `FileActivities.verify`; its name is the row's name.
            order: its one argument.
            key: names this call where a step runs more than once in a job, such as `page 3`.
            slots: bounds how many calls run at once; a waiting or parked call holds none.
            parks: false where the workflow knows another way when this one fails for good.
            at: the queue of the activity, and whose share of it it takes, where these are not the job's.

        Raises:
            ApplicationError: failed for good, and the job type does not park, or an operator discarded it.
        """
        row = self._type.step(activity.__name__)
        label = f"{row.name} {key}" if key else row.name
        order = _resuming(order, self._carried.pop(label, None))
        errors = lost = 0
        while True:
            async with slots or nullcontext():
                outcome = await self._execute(activity, order, row, label, errors, at)
            match outcome:
                case WaitUntil():
                    order = _resuming(order, outcome.place)
                    self._places[label] = order.resume
                    await self._wait(label, outcome)
                case Interrupted():
                    order = _resuming(order, outcome.place)
                case _Lost() if lost < MAX_LOST_WORKERS:
                    lost += 1
                    errors += outcome.errors
                    order = _resuming(order, outcome.place)
                case _Lost() | _Failed() if not parks:
                    raise self._final(label, outcome.cause) from outcome.cause
                case _Lost() | _Failed():
                    order = await self._give_up(label, order, outcome.cause)
                    errors = lost = 0
                case result:
                    return cast("FactT", result)

    async def show_paused(self, cause: str, words: str) -> None:
        """Show that the job waits for an operator, in search attributes, current details and the store."""
        workflow.upsert_search_attributes([JOB_STATUS.value_set(JobState.PARKED.value), CAUSE.value_set(cause)])
        workflow.set_current_details(words)
        await self._record(JobState.PARKED, cause=cause, error=words)

    async def show_running(self) -> None:
        """Take back what `show_paused` showed."""
        workflow.upsert_search_attributes([JOB_STATUS.value_unset(), CAUSE.value_unset()])
        workflow.set_current_details("")
        await self._record(JobState.RUNNING)

    async def _execute(
        self,
        activity: Callable[..., Awaitable[Any]],
        order: StepOrder,
        row: Step,
        label: str,
        errors: int,
        at: Address | None,
    ) -> Fact | _Lost | _Failed:
        options: dict[str, Any] = {
            "summary": label,
            "start_to_close_timeout": row.start_to_close,
            "schedule_to_close_timeout": row.schedule_to_close,
            "retry_policy": row.policy(errors),
        }
        if at is not None:
            options |= {"task_queue": at.queue, "priority": Priority(fairness_key=at.fairness_key[:64])}
        self._running += 1
        try:
            if row.local:
                running = workflow.execute_local_activity_method(
                    activity, order, local_retry_threshold=LOCAL_RETRY_THRESHOLD, **options
                )
            else:
                running = workflow.execute_activity_method(
                    activity,
                    order,
                    heartbeat_timeout=row.heartbeat,
                    # A step that does not heartbeat never hears of it, and its result would take the cancel's place.
                    cancellation_type=self._cancellation
                    if row.heartbeat
                    else workflow.ActivityCancellationType.TRY_CANCEL,
                    **options,
                )
            return cast("Fact", await running)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return _judge(error, row)
        except ApplicationError as error:
            if not row.local:
                raise
            return _Failed(error)  # a local activity's own error comes without an ActivityError around it
        finally:
            self._running -= 1

    async def _wait(self, label: str, wait: WaitUntil) -> None:
        if self._deadline and wait.until >= self._deadline:
            message = (
                f"{label} would have to wait for {wait.waiting_for} until {wait.until:%H:%M:%S} UTC, past its deadline"
            )
            raise ApplicationError(message, wait.place, type=DEADLINE, non_retryable=True)
        if self._continue_at and workflow.info().is_continue_as_new_suggested() and not (self._running or self._parked):
            self._continue_at(self._places)
        summary = f"waiting for {wait.waiting_for} until {wait.until:%Y-%m-%d %H:%M:%S} UTC"
        workflow.set_current_details(f"{label}: {summary}")
        self._waits[label] = wait
        try:
            await workflow.sleep(max(wait.until - workflow.now(), timedelta()), summary=summary)
        finally:
            del self._waits[label]
        workflow.set_current_details("")

    async def _give_up(self, label: str, order: OrderT, cause: BaseException) -> OrderT:
        """Park until an operator decides, and return the order to retry; or fail the job."""
        message = _words(cause)
        kind = kind_of(cause)
        final = self._final(label, cause)
        if kind is FailureKind.INVALID_INPUT or self._type.when_exhausted is not WhenExhausted.PARK:
            raise final from cause
        dead_letter = ParkedStep(
            step=label,
            cause=f"{label.partition(' ')[0]}:{code_of(cause)}",
            error=message,
            parked_at=workflow.now(),
        )
        self._parked[label] = (dead_letter, order)
        await self._show_parked()
        try:
            await workflow.wait_condition(lambda: label in self._decisions, timeout=self._type.keep.failed)
        except builtins.TimeoutError:
            note = f"; nobody resolved it within {self._type.keep.failed.days} days"
            raise ApplicationError(final.message + note, kind.value, type=code_of(cause), non_retryable=True) from cause
        finally:
            del self._parked[label]
        decision = self._decisions.pop(label)
        if decision.action == "discard":
            note = f"discarded by an operator ({decision.reason or 'no reason given'}) after: "
            raise ApplicationError(note + final.message, kind.value, type=code_of(cause), non_retryable=True) from cause
        await self._show_parked()
        return order.model_validate(order.model_dump() | decision.correction | {"resume": None})

    @staticmethod
    def _final(label: str, cause: BaseException) -> ApplicationError:
        return ApplicationError(
            f"{label}: {_words(cause)}", kind_of(cause).value, type=code_of(cause), non_retryable=True
        )

    async def _show_parked(self) -> None:
        """Bring search attributes, current details and the store in line with what is parked now."""
        parked = [dead_letter for dead_letter, _ in self._parked.values()]
        if not parked:
            workflow.upsert_search_attributes([JOB_STATUS.value_unset(), CAUSE.value_unset()])
            workflow.set_current_details("")
            await self._record(JobState.RUNNING)
            return
        first = parked[0]
        workflow.upsert_search_attributes([JOB_STATUS.value_set(JobState.PARKED.value), CAUSE.value_set(first.cause)])
        lines = [f"- **{each.step}** since {each.parked_at:%Y-%m-%d %H:%M:%S} UTC: {each.error}" for each in parked]
        workflow.set_current_details(
            "Parked as a dead letter; the update `resolve` retries or discards.\n" + "\n".join(lines)
        )
        await self._record(JobState.PARKED, cause=first.cause, error=f"{first.step}: {first.error}")

    def _list_waits(self) -> list[Waiting]:
        return [
            Waiting(step=label, waiting_for=wait.waiting_for, until=wait.until) for label, wait in self._waits.items()
        ]

    def _list_parked(self) -> list[ParkedStep]:
        return [dead_letter for dead_letter, _ in self._parked.values()]

    def _addressed(self, decision: Resolve) -> list[str]:
        waiting = [label for label in self._parked if label not in self._decisions]
        return [label for label in waiting if decision.step in {None, label}]

    def _check_resolve(self, decision: Resolve) -> None:
        labels = self._addressed(decision)
        if not labels:
            parked = ", ".join(self._parked) or "nothing"
            wanted = f"step {decision.step!r}" if decision.step else "any step"
            message = f"{wanted} is not parked in this job; parked is: {parked}"
            raise ApplicationError(message, type="not_parked")
        if not decision.correction:
            return
        if len(labels) > 1:
            message = f"a correction is for one step: name one of {', '.join(labels)}"
            raise ApplicationError(message, type="ambiguous_correction")
        _, order = self._parked[labels[0]]
        unknown = set(decision.correction) - set(type(order).model_fields)
        if unknown or "job" in decision.correction:
            fields = ", ".join(name for name in type(order).model_fields if name not in {"job", "resume"})
            message = f"{labels[0]} can be corrected in: {fields}; not in: {', '.join(sorted(unknown | {'job'}))}"
            raise ApplicationError(message, type="invalid_correction")
        try:
            order.model_validate(order.model_dump() | decision.correction)
        except ValidationError as error:
            raise ApplicationError(f"{labels[0]}: {error}", type="invalid_correction") from error

    def _resolve(self, decision: Resolve) -> Resolved:
        labels = self._addressed(decision)
        self._decisions.update(dict.fromkeys(labels, decision))
        return Resolved(steps=tuple(labels))

    async def _record(
        self, state: JobState, *, cause: str | None = None, error: str | None = None, result: JsonValue = None
    ) -> None:
        info = workflow.info()
        order = RecordJob(
            job=self._ref,
            state=state,
            first_run_id=info.first_execution_run_id,
            started_at=self.started_at,
            at=workflow.now(),
            cause=cause,
            error=error,
            result=result,
        )
        await self.step(JobActivities.record, order, key=state.value)


def _resuming(order: OrderT, place: JsonValue) -> OrderT:
    return order if place is None else order.model_copy(update={"resume": place})


def _judge(error: ActivityError, row: Step) -> Interrupted | _Lost | _Failed:
    cause = error.cause or error
    if isinstance(cause, ApplicationError) and cause.type == WORKER_SHUTDOWN:
        return Interrupted()
    lost_by = TimeoutType.HEARTBEAT if row.heartbeat else TimeoutType.START_TO_CLOSE
    if isinstance(cause, TimeoutError) and cause.type == lost_by:
        beats = [Heartbeat.model_validate(beat) for beat in cause.last_heartbeat_details]
        errors = beats[0].attempt - 1 if beats else 0
        return _Lost(errors, beats[0].place if beats else None, cause)
    if isinstance(cause, TimeoutError) and isinstance(cause.cause, ApplicationError):
        return _Failed(cause.cause)  # time ran out between attempts: what went wrong in them says more
    return _Failed(cause)


def _words(cause: BaseException) -> str:
    """One sentence for the reader at 3 a.m."""
    if isinstance(cause, TimeoutError):
        limits = {
            TimeoutType.HEARTBEAT: "its worker went away (no heartbeat)",
            TimeoutType.START_TO_CLOSE: "one attempt took longer than its start-to-close timeout",
            TimeoutType.SCHEDULE_TO_START: "no worker took it in time: does one run, or is its queue stopped?",
            TimeoutType.SCHEDULE_TO_CLOSE: "no worker finished it within its schedule-to-close timeout",
        }
        return limits.get(cause.type or TimeoutType.START_TO_CLOSE, cause.message)
    return cause.message if isinstance(cause, FailureError) else str(cause)
