"""The notification job: decide -> wait out quiet hours -> merge -> one send per target, with fallback."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field, JsonValue

from contracts.payloads.job import JobRef, JobRequest
from contracts.payloads.model import Fact, Order, StepOrder


class ChannelName(StrEnum):
    """How somebody can be reached."""

    EMAIL = "email"
    SLACK = "slack"
    FCM = "fcm"
    APNS = "apns"
    WEB_PUSH = "web_push"
    WEBHOOK = "webhook"


class Route(StrEnum):
    """What a sender asks for: a channel, or `push`, which is every device of the person."""

    EMAIL = "email"
    SLACK = "slack"
    PUSH = "push"
    FCM = "fcm"
    APNS = "apns"
    WEB_PUSH = "web_push"
    WEBHOOK = "webhook"

    @property
    def channels(self) -> frozenset[ChannelName]:
        """The channels it stands for."""
        if self is Route.PUSH:
            return frozenset({ChannelName.FCM, ChannelName.APNS, ChannelName.WEB_PUSH})
        return frozenset({ChannelName(self.value)})


class TargetOutcome(StrEnum):
    """How one target ended.

    `maybe_sent`: the process or the connection died between sending and the answer, and the policy is to leave it.
    `dropped`: the vendor says the address is dead. `failed`: the vendor or our configuration refused for good.
    """

    SENT = "sent"
    MAYBE_SENT = "maybe_sent"
    DROPPED = "dropped"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    MUTED = "muted"

    @property
    def reached(self) -> bool:
        """No fallback is needed."""
        return self in {TargetOutcome.SENT, TargetOutcome.MAYBE_SENT}


def notification_workflow_id(tenant: str, job_id: UUID) -> str:
    """What must be said once is known by its dedupe key before this id is made."""
    return f"notification:{tenant}:{job_id}"


class Decide(StepOrder):
    """Who is to be reached how, by what is in the store now."""

    job: JobRef


class TargetResult(Fact):
    """One target. `target` is a reference; `attempts` counts requests to the vendor."""

    target: str
    channel: ChannelName
    outcome: TargetOutcome
    vendor_id: str | None = None
    attempts: int = 0
    code: str | None = None


class PlannedTarget(Fact):
    """One target, by reference."""

    target: str
    channel: ChannelName


class RoutePlan(Fact):
    """The targets of one route."""

    route: Route
    targets: tuple[PlannedTarget, ...]


class Decided(Fact):
    """`routes` in order of preference; with `every` all of them, otherwise the first that reaches somebody.

    `was_deferred`: quiet hours were waited out, so others may have to be merged. `carried`: another message carries
    this one already. `left_out`: targets that preferences or suppression excluded.
    """

    routes: tuple[RoutePlan, ...] = ()
    every: bool = False
    was_deferred: bool = False
    carried: bool = False
    expired: bool = False
    left_out: tuple[TargetResult, ...] = ()


class SoFar(Order):
    """What a run hands to the next one when it continues as new.

    `places` is where its sends stand, `done` are those that ended, `failure` is type and text of the first that failed
    for good. `started_at` is when the first run began.
    """

    started_at: datetime
    decided: Decided | None = None
    merged: tuple[UUID, ...] = ()
    places: dict[str, JsonValue] = Field(default_factory=dict)
    done: tuple[TargetResult, ...] = ()
    failure: tuple[str, str] | None = None


class NotificationRequest(JobRequest):
    """Recipient, content and preferences stay in the store under the job's id."""

    expires_at: datetime
    so_far: SoFar | None = None


class ClaimDeferred(StepOrder):
    """Take all messages that waited for the same person, or learn who took this one."""

    job: JobRef
    routes: tuple[RoutePlan, ...]


class DeferredClaimed(Fact):
    """`merged_into` is the job that carried this one's message; `merged` are those whose messages this one carries.

    `again`: the job that carried it reached nobody, so it is for this one to decide anew.
    """

    merged_into: UUID | None = None
    merged: tuple[UUID, ...] = ()
    again: bool = False


class Send(StepOrder):
    """One message to one target: one effect."""

    job: JobRef
    target: str
    channel: ChannelName
    has_fallback: bool = False


Outcome = Literal["sent", "partly_sent", "merged", "expired", "suppressed", "undeliverable"]


class NotificationResult(Fact):
    """How it ended.

    `partly_sent`: somebody was reached, and another target was refused or expired. `suppressed`: preferences or
    suppressions left nobody. `undeliverable`: no target is left to try.
    """

    outcome: Outcome
    targets: tuple[TargetResult, ...] = ()
    merged_into: UUID | None = None
    merged: tuple[UUID, ...] = ()
