"""The place to read and change every guarantee: one row per job type, and under it one row per step.

A step's registered activity is `<job type>.<step>`, so each row is found by the activity's name. Vendor rates are not
here but in the connector.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from temporalio.common import RetryPolicy

HEARTBEAT = timedelta(seconds=10)  # any step that may exceed 5 s; a killed worker is noticed after this
MAX_LOST_WORKERS = 10  # executions of one step that ended with their worker, before the step counts as exhausted

# What the server must not retry by itself: a lost worker and a deploy are not attempts, so the workflow runs the step
# again at once instead of waiting for the back-off.
# https://github.com/temporalio/temporal/blob/main/service/history/workflow/retry.go (TimeoutFailureTypePrefix)
WORKER_SHUTDOWN = "WorkerShutdown"
LOST_HEARTBEAT = "TemporalTimeout:Heartbeat"
LOST_WITHOUT_HEARTBEAT = "TemporalTimeout:StartToClose"


class Priority(Enum):
    """Temporal priority keys: lower runs first."""

    INTERACTIVE = 1
    FILES = 2
    DEFAULT = 3
    BULK = 5


class WhenExhausted(Enum):
    """PARK waits for an operator; FAIL ends the job, and redrive starts it again; PAUSE stops a broadcast."""

    PARK = "park"
    FAIL = "fail"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` counts executions that ended in an unexpected error. The n-th wait is `first * factor ** (n - 1)`."""

    attempts: int
    first: timedelta
    factor: float = 2.0
    ceiling: timedelta = timedelta(hours=1)

    def wait_after(self, errors: int) -> timedelta:
        """How long after the `errors`-th error (counted from 1) the next attempt starts."""
        return min(self.ceiling, self.first * self.factor ** (errors - 1))


def exponential(attempts: int, first_seconds: float) -> Retry:
    """Doubling waits."""
    return Retry(attempts=attempts, first=timedelta(seconds=first_seconds))


def fixed(attempts: int, seconds: float) -> Retry:
    """Equal waits."""
    return Retry(attempts=attempts, first=timedelta(seconds=seconds), factor=1.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One activity call. `start_to_close` is one attempt; `schedule_to_close` is all of them with their waits.

    `heartbeat` is None where an attempt never takes 5 s. `retry` is None where the job type's applies. A `local` step
    runs as a local activity, within the workflow task: a third of the server's work, for steps of milliseconds that
    may run twice. Its waits of a second and more are durable timers like any other.
    """

    name: str
    start_to_close: timedelta
    schedule_to_close: timedelta
    heartbeat: timedelta | None = None
    retry: Retry | None = None
    local: bool = False

    def policy(self, errors_before: int = 0) -> RetryPolicy:
        """Temporal's form, for a step that had `errors_before` errors before it was interrupted.

        A step that heartbeats and still runs out of `start_to_close` hangs: that is an attempt.
        """
        assert self.retry is not None, f"{self.name}: take rows from JobType.step"
        lost = LOST_HEARTBEAT if self.heartbeat else LOST_WITHOUT_HEARTBEAT
        return RetryPolicy(
            maximum_attempts=max(1, self.retry.attempts - errors_before),
            initial_interval=self.retry.wait_after(errors_before + 1),
            backoff_coefficient=self.retry.factor,
            maximum_interval=self.retry.ceiling,
            non_retryable_error_types=(WORKER_SHUTDOWN, lost),
        )


@dataclass(frozen=True, slots=True)
class Keep:
    """How long closed executions are kept: newest per tenant (and four times that overall), or by age."""

    failed: timedelta
    completed_newest: int | None = None
    completed_age: timedelta | None = None

    @property
    def completed_newest_overall(self) -> int | None:
        """Over all tenants together."""
        return None if self.completed_newest is None else 4 * self.completed_newest


@dataclass(frozen=True, slots=True)
class JobType:
    """A workflow and its guarantees. `name` is also the registered workflow type."""

    name: str
    queue: str
    retry: Retry
    keep: Keep
    when_exhausted: WhenExhausted
    steps: tuple[Step, ...]
    priority: Priority = Priority.DEFAULT
    records_locally: bool = False

    def step(self, name: str) -> Step:
        """The row, with the job type's retry filled in.

        Raises:
            KeyError: no such row; the message names the rows there are.
        """
        for row in (*self.steps, replace(RECORD, local=self.records_locally)):
            if row.name == name:
                return row if row.retry else replace(row, retry=self.retry)
        msg = f"{self.name} has no step {name!r}; the catalogue has {[row.name for row in self.steps]}"
        raise KeyError(msg)


def quick(name: str, retry: Retry | None = None, *, local: bool = False) -> Step:
    """A database read or write, or one short request: never 5 s."""
    return Step(name, timedelta(seconds=5), timedelta(minutes=30), retry=retry, local=local)


def slow(name: str, minutes: float, overall: timedelta = timedelta(hours=2), retry: Retry | None = None) -> Step:
    """Work that heartbeats; one attempt takes at most `minutes`."""
    return Step(name, timedelta(minutes=minutes), overall, heartbeat=HEARTBEAT, retry=retry)


# Every job type records its state with this step. The store being away must not fail a job whose work is done.
RECORD = Step(
    "record",
    start_to_close=timedelta(seconds=10),
    schedule_to_close=timedelta(days=1),
    retry=Retry(attempts=1_000, first=timedelta(seconds=1), ceiling=timedelta(minutes=1)),
)

DAYS_14 = timedelta(days=14)

NOTIFICATION = JobType(
    "notification",
    queue="notifications",
    retry=exponential(3, first_seconds=5),
    keep=Keep(completed_newest=5_000, failed=timedelta(days=7)),
    when_exhausted=WhenExhausted.PARK,
    steps=(
        quick("decide", local=True),
        quick("claim_deferred", local=True),
        slow("send", minutes=2, overall=timedelta(hours=24)),
    ),
    records_locally=True,
)
BROADCAST = JobType(
    "broadcast",
    queue="notifications-bulk",
    retry=NOTIFICATION.retry,
    keep=Keep(completed_newest=100, failed=DAYS_14),
    when_exhausted=WhenExhausted.PAUSE,
    steps=(
        # As RECORD: the store or Temporal being away is waited for, and pauses or fails no broadcast.
        replace(RECORD, name="plan"),
        slow("send_chunk", minutes=10, overall=timedelta(hours=24)),
        slow("hand_over", minutes=5, overall=timedelta(days=1), retry=RECORD.retry),
        replace(RECORD, name="note"),
    ),
    priority=Priority.BULK,
)
DAILY_DIGEST = JobType(
    "daily_digest",
    queue="notifications-bulk",
    retry=NOTIFICATION.retry,
    keep=Keep(completed_newest=100, failed=timedelta(days=7)),
    when_exhausted=WhenExhausted.FAIL,
    steps=(
        quick("begin", local=True),
        quick("pick_tenants"),
        slow("collect", minutes=10),
        quick("note_started", local=True),
    ),
    priority=Priority.BULK,
)
SYNC = JobType(
    "sync",
    queue="integrations",
    retry=exponential(5, first_seconds=60),
    keep=Keep(completed_newest=2_000, failed=DAYS_14),
    when_exhausted=WhenExhausted.FAIL,
    steps=(
        quick("begin", local=True),
        # schedule_to_close holds the wait in the vendor's queue, which an operator may stop for days
        slow("pull_page", minutes=3, overall=timedelta(days=31)),
        slow("finish", minutes=10),
    ),
)
SYNC_ALL = JobType(
    "sync_all",
    queue="integrations",
    retry=exponential(5, first_seconds=60),
    keep=Keep(completed_newest=200, failed=DAYS_14),
    when_exhausted=WhenExhausted.FAIL,
    steps=(quick("begin", local=True), slow("set_limits", minutes=5), slow("start_syncs", minutes=5)),
)
REPORT = JobType(
    "report",
    queue="reports",
    retry=fixed(2, seconds=30),
    keep=Keep(completed_age=timedelta(days=1), failed=DAYS_14),
    when_exhausted=WhenExhausted.PARK,
    steps=(slow("collect", minutes=5), slow("render", minutes=15), slow("store", minutes=5), quick("deliver")),
)
WEEKLY_USAGE = JobType(
    "weekly_usage",
    queue="reports",
    retry=REPORT.retry,
    keep=Keep(completed_age=timedelta(days=10), failed=DAYS_14),
    when_exhausted=WhenExhausted.FAIL,
    steps=(slow("aggregate", minutes=10), quick("list_tenants"), slow("start_reports", minutes=5)),
)
FILE = JobType(
    "file",
    queue="files",
    retry=exponential(3, first_seconds=10),
    keep=Keep(completed_newest=1_000, failed=DAYS_14),
    when_exhausted=WhenExhausted.PARK,
    steps=(
        slow("verify", minutes=2),
        slow("make_thumbnails", minutes=2),
        # schedule_to_close holds the wait for a CPU slot behind other files' pages
        slow("read_page", minutes=30, overall=timedelta(hours=24)),
        slow("publish_text", minutes=2),
    ),
    priority=Priority.FILES,
)
ERASE = JobType(
    "erase",
    queue="maintenance",
    retry=exponential(5, first_seconds=10),
    keep=Keep(completed_age=timedelta(days=30), failed=timedelta(days=30)),
    when_exhausted=WhenExhausted.PARK,
    steps=(quick("find"), slow("erase_batch", minutes=10), quick("certify")),
)
EXPORT = replace(
    ERASE, name="export", steps=(quick("find"), slow("collect_batch", minutes=10), slow("pack", minutes=10))
)
CLEANUP = JobType(
    "cleanup",
    queue="maintenance",
    retry=exponential(5, first_seconds=10),
    keep=Keep(completed_newest=200, failed=DAYS_14),
    when_exhausted=WhenExhausted.FAIL,
    steps=(slow("delete_sessions", minutes=10),),
)
RETENTION = replace(
    CLEANUP,
    name="retention",
    steps=(
        slow("aggregate", minutes=10),
        slow("delete_executions", minutes=30),
        slow("delete_rows", minutes=30),
        slow("delete_blobs", minutes=30),
    ),
)
REDRIVE = replace(CLEANUP, name="redrive", steps=(slow("count", minutes=5), slow("retry_batch", minutes=10)))

JOB_TYPES = (
    NOTIFICATION,
    BROADCAST,
    DAILY_DIGEST,
    SYNC,
    SYNC_ALL,
    REPORT,
    WEEKLY_USAGE,
    FILE,
    ERASE,
    EXPORT,
    CLEANUP,
    RETENTION,
    REDRIVE,
)


@dataclass(frozen=True, slots=True)
class Queue:
    """A Temporal task queue. `activities_at_once` bounds one worker process.

    A vendor's queue has activities only: the pages of its API.
    """

    name: str
    activities_at_once: int
    vendor: bool = False


QUEUES = (
    Queue("notifications", activities_at_once=100),
    Queue("notifications-bulk", activities_at_once=8),
    Queue("integrations", activities_at_once=20),
    Queue("reports", activities_at_once=8),
    Queue("files", activities_at_once=16),  # most of them wait for a CPU slot; see runtime/cpu_pool.py
    Queue("maintenance", activities_at_once=4),
)

# The namespace keeps every history until the retention job has judged it: the longest line above, and a day.
NAMESPACE_RETENTION = timedelta(days=31)


def job_type(name: str) -> JobType:
    """The row of a registered workflow type.

    Raises:
        KeyError: unknown; the message names the known ones.
    """
    for row in JOB_TYPES:
        if row.name == name:
            return row
    msg = f"unknown job type {name!r}; known are {', '.join(row.name for row in JOB_TYPES)}"
    raise KeyError(msg)


def steps() -> Iterator[tuple[JobType, Step]]:
    """Every row of the table."""
    for row in JOB_TYPES:
        for step in row.steps:
            yield row, row.step(step.name)
