"""One message to one target: one effect. Shared by everything that sends.

pace        wait for the slot that store/budgets.py gives; a paused scope is a wait, never an attempt
claim       in the ledger of effects, before anything leaves
send        the channel judges the vendor's answer
settle      what came of it; a claim that is found unsettled later means that a process died in between
"""

import asyncio
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import structlog
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from activities.adapters.channels.channel import (
    AfterLostReply,
    CancelledBeforeSending,
    Channel,
    Message,
    Outcome,
    Scope,
    Target,
    Verdict,
)
from contracts.errors import FailureKind, failure
from contracts.payloads.job import WaitUntil
from contracts.payloads.notification import ChannelName, TargetOutcome, TargetResult
from runtime.clock import Clock
from store.budgets import LATE, Budgets, PausedFor, Slot, spread
from store.database import DatabaseUnavailable
from store.effects import Claim, ClaimStatus, Effects
from store.people import People, StoredTarget
from store.suppressions import Reason, Suppressions, TooManyDrops

log = structlog.get_logger(__name__)

SOON = timedelta(milliseconds=50)  # a slot this near is waited out here; a durable timer costs more
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=5)  # for one message whose vendor names no time: how late an outage's end is noticed
PATIENT_AFTER = 5  # waits for a paused scope, after which they grow like those for a refusal
BEHIND = timedelta(seconds=5)  # who was refused comes back behind those who wait: it may be refused for itself
LEASE = timedelta(seconds=30)  # within it the owner of a claim may still be sending, cut off from Temporal
AUTH_PAUSE = timedelta(minutes=5)  # how often a refused credential is tried again; each try parks one job
SETTLE_AGAIN_SECONDS = (0.1, 0.5, 2.0)  # a sent message that is not settled might be sent again
MAIL_ADDRESS = re.compile(r"[^\s<>\"'();,]+@[^\s<>\"'();,]+")
MAX_UNKNOWN = 3  # sends of a message whose reply was lost each time, where the channel shows each one


class Place(BaseModel):
    """Where a delivery stands between two executions; travels as the order's `resume`.

    `attempts` counts requests, `unknown` lost replies, `waits` executions that ended in one. `soft_bounce` is the code
    of a full mailbox. `paused` are the scopes this message has paused, `slots` those it was given; both by `hidden`
    keys. `owner` is its own last claim. `known` is a result that the store did not take yet, `unsent` a claim that it
    did not give back yet.
    """

    model_config = ConfigDict(extra="ignore")

    attempts: int = 0
    unknown: int = 0
    waits: int = 0
    soft_bounce: str = ""
    paused: list[str] = Field(default_factory=list)
    slots: dict[str, datetime] = Field(default_factory=dict)
    owner: str = ""
    known: TargetResult | None = None
    unsent: bool = False

    def kept(self, without: AbstractSet[str] = frozenset()) -> JsonValue:
        """As it travels."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude=set(without))


def hidden(scope: str) -> str:
    """A limiter key may name a recipient, and a place travels through Temporal."""
    return sha256(scope.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Effect:
    """What to deliver, under which name in the ledger. `resend`: the policy after a reply was lost."""

    run_id: str
    step: str
    target_id: str
    target: StoredTarget
    message: Message
    resend: bool
    has_fallback: bool


@dataclass(frozen=True, slots=True)
class _Admitted:
    """It may go now. `troubled` are scopes that had a pause since their last success."""

    troubled: frozenset[str]


class Delivery:
    """Sends through the configured channels."""

    def __init__(
        self,
        *,
        channels: Mapping[ChannelName, Channel],
        effects: Effects,
        budgets: Budgets,
        suppressions: Suppressions,
        people: People,
        clock: Clock,
    ) -> None:
        self._channels = channels
        self._effects = effects
        self._budgets = budgets
        self._suppressions = suppressions
        self._people = people
        self._clock = clock

    @property
    def configured(self) -> frozenset[ChannelName]:
        """The channels there are."""
        return frozenset(self._channels)

    async def known(self, run_id: str, step: str, target_id: str, channel: ChannelName) -> TargetResult | None:
        """What an earlier execution did: its result, MAYBE_SENT where that is open, None where nothing was done."""
        found = await self._effects.find(run_id, step, target_id)
        if found is None:
            return None
        if found.status is ClaimStatus.SETTLED:
            return TargetResult.model_validate(found.outcome)
        return TargetResult(target=target_id, channel=channel, outcome=TargetOutcome.MAYBE_SENT, code="reply_lost")

    async def begun(self, run_id: str, step: str) -> list[TargetOutcome | None]:
        """How the sends of a step that were begun ended, None for those whose end is open."""
        return [
            TargetResult.model_validate(each.outcome).outcome if each.status is ClaimStatus.SETTLED else None
            for each in await self._effects.of_run(run_id, step)
        ]

    async def take_up(self, run_id: str, step: str, target_id: str, place: Place) -> TargetResult | None:
        """Tell the store what it did not take before; the result, where that was one."""
        if place.known is not None:
            await self._effects.settle(run_id, step, target_id, place.known.model_dump(mode="json"))
            return place.known
        if place.unsent:
            await self._effects.release(run_id, step, target_id, owner=place.owner)
            place.unsent = False
        return None

    async def deliver(self, effect: Effect, place: Place) -> TargetResult | WaitUntil:
        """Send unless it was sent; a wait is to be repeated with its `place`.

        Raises:
            ApplicationError: AUTH or REJECTED, where no other channel can take over. Nothing was sent.
        """
        channel = self._channels[effect.target.channel]
        target = _target(effect.target)
        admitted = await self._admit(channel.scopes(target), effect, place)
        if not isinstance(admitted, _Admitted):
            # A lost worker may have finished it: what is done must not wait, nor be told as failed.
            done = await self._effects.find(effect.run_id, effect.step, effect.target_id)
            settled = done is not None and done.status is ClaimStatus.SETTLED
            return TargetResult.model_validate(done.outcome) if done and settled else admitted
        claim = await self._effects.claim(effect.run_id, effect.step, effect.target_id)
        if claim.status is ClaimStatus.SETTLED:
            return TargetResult.model_validate(claim.outcome)
        place.owner, before = claim.owner, place.owner
        if claim.status is ClaimStatus.UNSETTLED:
            open_or_done = await self._after_lost_reply(channel, target, effect, claim, place, mine=before)
            if open_or_done is not None:
                return open_or_done
        new = claim.status is ClaimStatus.NEW
        place.attempts += 1
        place.slots = {}  # used
        try:
            outcome = await channel.send(target, effect.message, now=self._clock.now())
        except CancelledBeforeSending:
            if new:
                with suppress(DatabaseUnavailable):
                    await self._release(effect, place)
            raise
        return await self._conclude(channel, effect, outcome, place, admitted.troubled, new=new)

    async def _admit(
        self, scopes: tuple[Scope, ...], effect: Effect, place: Place
    ) -> _Admitted | TargetResult | WaitUntil:
        """Whether it can go now, or why not."""
        reserved = {each.key: place.slots[hidden(each.key)] for each in scopes if hidden(each.key) in place.slots}
        slots = await self._budgets.reserve_unpaced([each.key for each in scopes if not each.interval], reserved)
        for scope in scopes:
            if scope.interval:
                slots[scope.key] = await self._budgets.reserve(
                    scope.key,
                    interval=scope.interval,
                    burst=scope.burst,
                    reserved=reserved.get(scope.key),
                    late=LATE * (1 + place.waits),
                )
        now = self._clock.now()
        key, latest = max(slots.items(), key=lambda each: each[1].at)
        if effect.has_fallback and any(slot.paused_for is PausedFor.AUTH for slot in slots.values()):
            return _result(effect, _given_up(place), place, code="credential_refused")
        if latest.at - now <= SOON:
            await asyncio.sleep(max(0.0, (latest.at - now).total_seconds()))
            return _Admitted(frozenset(scope for scope, slot in slots.items() if slot.troubled))
        place.slots = {hidden(scope): slot.at for scope, slot in slots.items()}
        label = next(each.label for each in scopes if each.key == key)
        until = latest.at
        if latest.paused_for is not None and place.waits >= PATIENT_AFTER:
            until, place.slots = max(until, now + _growing(place.waits - PATIENT_AFTER)), {}
        return await self._wait(effect, until, _why(label, latest), place)

    async def _after_lost_reply(
        self, channel: Channel, target: Target, effect: Effect, claim: Claim, place: Place, *, mine: str
    ) -> TargetResult | WaitUntil | None:
        """The result if it must not be sent again, a wait if another worker may be at it, None to send."""
        assert claim.claimed_at is not None
        assert claim.taken_at is not None
        leased_until = claim.taken_at + LEASE
        if claim.owner != mine and self._clock.now() < leased_until:
            reason = "the outcome of a send that a lost worker began"
            return await self._wait(effect, leased_until, reason, place)
        place.unknown = max(1, place.unknown)  # more where a reply was lost again; a crash leaves no count
        log.warning("reply.lost", channel=channel.name.value, effect=effect.message.effect_id, unknown=place.unknown)
        absent = channel.after_lost_reply is AfterLostReply.RESEND
        if channel.after_lost_reply is AfterLostReply.CHECK:
            found = await channel.find(target, effect.message, since=claim.claimed_at)
            if found is not None and found.verdict is Verdict.SENT:
                return await self._settle(
                    effect, TargetOutcome.SENT, place, code="found_after_lost_reply", vendor_id=found.vendor_id
                )
            absent = found is not None
        if not absent and not (effect.resend and place.unknown <= MAX_UNKNOWN):
            return await self._settle(effect, TargetOutcome.MAYBE_SENT, place, code="reply_lost")
        owner = await self._effects.take_over(effect.run_id, effect.step, claim)
        if owner is None:
            return await self._wait(effect, self._clock.now() + LEASE, "another worker, which sends it now", place)
        place.owner = owner
        return None

    async def _conclude(
        self,
        channel: Channel,
        effect: Effect,
        outcome: Outcome,
        place: Place,
        troubled: frozenset[str],
        *,
        new: bool,
    ) -> TargetResult | WaitUntil:
        log.info(
            "message.judged",
            channel=channel.name.value,
            effect=effect.message.effect_id,
            verdict=outcome.verdict.value,
            code=outcome.code,
        )
        if outcome.moved_to is not None and outcome.verdict is not Verdict.DROP_TARGET:
            await self._people.move_target(effect.target, outcome.moved_to)
        match outcome.verdict:
            case Verdict.SENT:
                result = await self._settle(effect, TargetOutcome.SENT, place, vendor_id=outcome.vendor_id)
                await self._news(troubled)
                return result
            case Verdict.DROP_TARGET:
                await self._drop(effect, outcome)
                dropped = TargetOutcome.MAYBE_SENT if place.unknown else TargetOutcome.DROPPED
                return await self._settle(effect, dropped, place, code=outcome.code)
            case Verdict.RETRY if outcome.at_most is None or place.attempts < outcome.at_most:
                return await self._retry(channel, effect, outcome, place, troubled, new=new)
            case Verdict.MAYBE_SENT:
                place.unknown += 1
                reason = f"{channel.name.value}: the reply was lost ({outcome.code}); to be checked or sent again"
                return await self._wait(effect, self._clock.now() + _growing(place.unknown - 1), reason, place)
        if outcome.verdict is Verdict.AUTH and outcome.scope:
            detail = _said(outcome, effect.target)
            await self._budgets.pause(outcome.scope, PausedFor.AUTH, asked=AUTH_PAUSE, detail=detail)
        if effect.has_fallback:
            return await self._settle(effect, _given_up(place), place, code=outcome.code)
        if new:
            await self._release(effect, place)
        detail = _impersonal(outcome.detail or outcome.code, effect.target)
        kind = FailureKind.AUTH if outcome.verdict is Verdict.AUTH else FailureKind.REJECTED
        raise failure(kind, outcome.code, f"{channel.name.value}: {detail}")

    async def _retry(
        self,
        channel: Channel,
        effect: Effect,
        outcome: Outcome,
        place: Place,
        troubled: frozenset[str],
        *,
        new: bool,
    ) -> WaitUntil:
        """Nothing was sent: take the claim back, and wait with everybody else of the scope."""
        if new:
            await self._release(effect, place)
        if outcome.soft_bounce:
            place.soft_bounce = outcome.code
        now, asked = self._clock.now(), outcome.retry_after
        said = _said(outcome, effect.target)
        reason = f"{channel.name.value}: {said}"
        own = now + _growing(place.attempts - 1)
        # If others went through since it paused the scope, it is this message that is refused, and it waits alone.
        alone = outcome.scope is None or (hidden(outcome.scope) in place.paused and outcome.scope not in troubled)
        if outcome.scope is None or alone:
            return await self._wait(effect, spread(now + asked if asked else own, SOON), reason, place)
        place.paused = sorted({*place.paused, hidden(outcome.scope)})
        why = PausedFor.LIMIT if asked is not None else PausedFor.OUTAGE
        until = await self._budgets.pause(outcome.scope, why, asked=asked, detail=said)
        return await self._wait(effect, max(until + BEHIND, own), reason, place)

    async def _news(self, troubled: frozenset[str]) -> None:
        """A success after a pause. It is sent and settled, so an error here must not repeat it."""
        try:
            for scope in sorted(troubled):
                await self._budgets.succeeded(scope)
        except DatabaseUnavailable as error:
            log.warning("budget.not_updated", reason=str(error))

    async def _drop(self, effect: Effect, outcome: Outcome) -> None:
        target = effect.target
        if outcome.dead_since is not None and target.registered_at > outcome.dead_since:
            log.info("target.kept", channel=target.channel.value, target=target.target_id, why="registered since")
            return
        reason = Reason.BOUNCED if target.channel is ChannelName.EMAIL else Reason.DEAD
        try:
            await self._suppressions.add(
                target.tenant,
                target.channel,
                target.address,
                reason,
                detail=outcome.code,
                dead_since=outcome.dead_since,
                guarded=True,
            )
        except TooManyDrops as guard:
            log.error("drops.guarded", channel=target.channel.value, reason=str(guard))  # noqa: TRY400 - says it all

    async def _wait(self, effect: Effect, until: datetime, reason: str, place: Place) -> WaitUntil:
        """The wait. One that ends in the message's expiry is its end: a mailbox that stayed full is counted then."""
        place.waits += 1
        if place.soft_bounce and until >= effect.message.expires_at:
            target = effect.target
            await self._suppressions.add(
                target.tenant, target.channel, target.address, Reason.MAILBOX_FULL, detail=place.soft_bounce
            )
        return wait(until, reason, place)

    async def _release(self, effect: Effect, place: Place) -> None:
        place.unsent = True
        await self._effects.release(effect.run_id, effect.step, effect.target_id, owner=place.owner)
        place.unsent = False

    async def _settle(
        self,
        effect: Effect,
        outcome: TargetOutcome,
        place: Place,
        *,
        code: str | None = None,
        vendor_id: str | None = None,
    ) -> TargetResult:
        result = _result(effect, outcome, place, code=code, vendor_id=vendor_id)
        settled: JsonValue = result.model_dump(mode="json")
        place.known = result
        for pause in SETTLE_AGAIN_SECONDS:
            try:
                await self._effects.settle(effect.run_id, effect.step, effect.target_id, settled)
            except DatabaseUnavailable as error:
                log.warning("effect.not_settled", effect=effect.message.effect_id, reason=str(error))
                await asyncio.sleep(pause)
            else:
                return result
        await self._effects.settle(effect.run_id, effect.step, effect.target_id, settled)
        return result


def wait(until: datetime, reason: str, place: Place) -> WaitUntil:
    """A wait that comes back with `place`; the reason is at most 300 characters."""
    return WaitUntil(until=until, waiting_for=reason[:300], place=place.kept())


def _given_up(place: Place) -> TargetOutcome:
    """A message whose reply was lost before may have arrived, whatever was answered later."""
    return TargetOutcome.MAYBE_SENT if place.unknown else TargetOutcome.FAILED


def _result(
    effect: Effect, outcome: TargetOutcome, place: Place, *, code: str | None = None, vendor_id: str | None = None
) -> TargetResult:
    return TargetResult(
        target=effect.target_id,
        channel=effect.target.channel,
        outcome=outcome,
        vendor_id=vendor_id,
        attempts=place.attempts,
        code=code,
    )


def _impersonal(text: str, target: StoredTarget) -> str:
    """What a vendor said, without the address: it goes into Temporal's history and to operators."""
    return MAIL_ADDRESS.sub("<address>", text.replace(target.address, "<address>"))


def _said(outcome: Outcome, target: StoredTarget) -> str:
    """Code and words, once each."""
    whole = outcome.detail if outcome.code in outcome.detail else f"{outcome.code} {outcome.detail}"
    return _impersonal(whole, target).strip()


def _target(stored: StoredTarget) -> Target:
    return Target(
        channel=stored.channel, address=stored.address, registered_at=stored.registered_at, details=stored.details
    )


def _why(label: str, slot: Slot) -> str:
    if slot.paused_for is None:
        return f"a slot of {label}"
    return f"{label}, paused ({slot.paused_for.value}{f': {slot.detail}' if slot.detail else ''})"


def _growing(before: int) -> timedelta:
    grown: timedelta = FIRST_WAIT * 2 ** min(max(before, 0), 10)
    return min(LONGEST_WAIT, grown)
