"""What every job has: its reference, its state, its record, and the answers a step can give besides its result."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field, JsonValue, field_validator

from contracts.payloads.model import Fact, Order, StepOrder


class JobState(StrEnum):
    """`submitted` is stored but not yet started; `parked` is a dead letter that waits for `resolve`."""

    SUBMITTED = "submitted"
    RUNNING = "running"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def closed(self) -> bool:
        """No run will change it any more."""
        return self in {JobState.DONE, JobState.FAILED, JobState.CANCELLED}


class JobRef(Order):
    """Names a job without saying anything about a person. `job_id` is the public id (UUIDv7)."""

    job_id: UUID
    tenant: str


class JobRequest(Order):
    """Input of every job's workflow."""

    job: JobRef


class RecordJob(StepOrder):
    """A job's state for the store. `result` holds references and counts only."""

    job: JobRef
    state: JobState
    first_run_id: str
    started_at: datetime
    at: datetime
    cause: str | None = None
    error: str | None = None
    result: JsonValue = None


class JobRecorded(Fact):
    """`changed` is false if the store held this state already."""

    changed: bool


class WaitUntil(Fact):
    """Not now: run the step again at `until`. No attempt is burnt. `waiting_for` is shown in the Web UI.

    With a `place` the step runs again with it as its order's `resume`.
    """

    outcome: Literal["wait_until"] = "wait_until"
    until: datetime
    waiting_for: str
    place: JsonValue = None


class Waiting(Fact):
    """A step that waits now, for what and until when."""

    step: str
    waiting_for: str
    until: datetime


class Interrupted(Fact):
    """Stopped by a deploy. The step runs again at once with `place` as its order's `resume`."""

    outcome: Literal["interrupted"] = "interrupted"
    place: JsonValue = None


class Heartbeat(Fact):
    """What a running step reports. `attempt` tells how many unexpected errors a lost worker's step had before."""

    attempt: int
    place: JsonValue = None


class Resolve(Order):
    """An operator's decision on a parked step.

    `step` names one parked step (`ParkedStep.step`); without it the decision is for all of them. `correction` replaces
    fields of that one step's order and is validated against it before anything runs.
    """

    action: Literal["retry", "discard"]
    step: str | None = None
    correction: dict[str, JsonValue] = Field(default_factory=dict)
    reason: str = ""

    @field_validator("reason")
    @classmethod
    def _short(cls, reason: str) -> str:
        return reason[:500]  # characters; it is kept in history and in the audit


class Resolved(Fact):
    """The parked steps the decision reached."""

    steps: tuple[str, ...]


class ParkedStep(Fact):
    """A step that waits for `resolve`. `cause` groups dead letters; `error` is for a reader."""

    step: str
    cause: str
    error: str
    parked_at: datetime
