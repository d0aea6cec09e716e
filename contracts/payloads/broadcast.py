"""The broadcast job: chunks of a set of recipients, each sent by one activity; what fails becomes notification jobs."""

from datetime import datetime

from pydantic import Field

from contracts.payloads.job import JobRef, JobRequest
from contracts.payloads.model import Fact, Order, StepOrder

UNDELIVERABLE = "undeliverable"  # outcome of a recipient who has no address for any of the channels
HANDED_OVER = "handed_over"  # outcome of a recipient whose message became a notification job


class Paused(Order):
    """`words` say why; `cause` is what refused too many recipients, empty where a person wished it."""

    words: str
    cause: str = ""


class Cursor(Order):
    """Where a run stands: what it hands to the next one when it continues as new.

    `next_line` is the first line that no chunk has been planned for. `again` are chunks planned but not done, as pairs
    of first and last line. `counts` are recipients by outcome, `failures` refusals by cause since the last pause.
    `accepted` are causes for which it paused and was resumed: for these it does not pause again.
    """

    next_line: int = 1
    planned_all: bool = False
    again: tuple[tuple[int, int], ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    failures: dict[str, int] = Field(default_factory=dict)
    paused: Paused | None = None
    accepted: tuple[str, ...] = ()


class BroadcastRequest(JobRequest):
    """Message and recipients stay in the store under the job's id. `total` recipients."""

    total: int
    expires_at: datetime
    cursor: Cursor = Field(default_factory=Cursor)


class PlanChunks(StepOrder):
    """The bounds of the next `chunks` chunks from `from_line` on."""

    job: JobRef
    from_line: int
    chunks: int


class ChunksPlanned(Fact):
    """First and last line of each; fewer than asked for means that no recipient is left after them."""

    chunks: tuple[tuple[int, int], ...]


class SendChunk(StepOrder):
    """Send to the recipients from `first_line` to `last_line`."""

    job: JobRef
    first_line: int
    last_line: int


class ChunkSent(Fact):
    """What became of a chunk's recipients.

    `counts` by outcome: those of TargetOutcome and UNDELIVERABLE; recipients whose outcome is open are in none.
    `hand_over` are the lines whose recipients go on as notification jobs, among them those that vendor or template
    refuse; `failures` counts these by cause.

    `unfinished`: some were not tried or have to wait, so the chunk is to be sent again; what is done is not repeated.
    `wait_until` and `waiting_for` say when that makes sense; `everybody`: other chunks would have to wait too.
    `stopped_by` is the cause that made it stop, empty where only its time was over.
    """

    counts: dict[str, int]
    hand_over: tuple[int, ...] = ()
    failures: dict[str, int] = Field(default_factory=dict)
    unfinished: bool = False
    wait_until: datetime | None = None
    waiting_for: str = ""
    everybody: bool = False
    stopped_by: str = ""


class HandOver(StepOrder):
    """Start a notification job for the recipient of each of these lines of the chunk that begins at `first_line`."""

    job: JobRef
    first_line: int
    lines: tuple[int, ...]


class HandedOver(Fact):
    """How many were started now; those that were started before are not counted."""

    started: int


class NotePause(StepOrder):
    """Store why the broadcast is paused; empty: it is not."""

    job: JobRef
    why: str


class PauseNoted(Fact):
    """It is stored."""


class PauseBroadcast(Order):
    """An operator's or the sender's wish. `reason` is shown."""

    reason: str = Field(default="", max_length=500)


class BroadcastProgress(Fact):
    """`paused` is why, or empty. `done` recipients of `total`, by outcome in `counts`."""

    total: int
    done: int
    counts: dict[str, int]
    paused: str = ""


class BroadcastResult(Fact):
    """Recipients by outcome; those handed over have notification jobs of their own."""

    counts: dict[str, int]
    failures: dict[str, int] = Field(default_factory=dict)
