"""One message to one target: one effect. Shared by everything that sends.

pace        wait for the slot that store/budgets.py gives; a paused scope is a wait, never an attempt
claim       in the ledger of effects, before anything leaves
send        the channel judges the vendor's answer
settle      what came of it; a claim that is found unsettled later means that a process died in between
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from activities.adapters.channels.channel import AfterLostReply, Channel, Message, Outcome, Scope, Target, Verdict
from contracts.errors import FailureKind, failure
from contracts.payloads.job import WaitUntil
from contracts.payloads.notification import ChannelName, TargetOutcome, TargetResult
from runtime.clock import Clock
from store.budgets import LONGEST_PAUSE, Budgets, PausedFor, spread
from store.effects import Claim, ClaimStatus, Effects
from store.people import StoredTarget
from store.suppressions import Reason, Suppressions, TooManyDrops

log = structlog.get_logger(__name__)

SOON = timedelta(milliseconds=50)  # a slot this near is waited out here; a durable timer costs more
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=15)  # for one target whose vendor names no time
AUTH_PAUSE = timedelta(minutes=5)  # how often a refused credential is tried again; each try parks one job
MAIL_ADDRESS = re.compile(r"[^\s<>\"'();,]+@[^\s<>\"'();,]+")
MAX_UNKNOWN = 3  # sends of a message whose reply was lost each time, where the channel shows each one


class Place(BaseModel):
    """Where a delivery stands between two executions; travels as the order's `resume`."""

    model_config = ConfigDict(extra="ignore")

    attempts: int = 0
    unknown: int = 0
    counted: bool = False
    slots: dict[str, datetime] = Field(default_factory=dict)


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


class Delivery:
    """Sends through the configured channels."""

    def __init__(
        self,
        *,
        channels: Mapping[ChannelName, Channel],
        effects: Effects,
        budgets: Budgets,
        suppressions: Suppressions,
        clock: Clock,
    ) -> None:
        self._channels = channels
        self._effects = effects
        self._budgets = budgets
        self._suppressions = suppressions
        self._clock = clock

    @property
    def configured(self) -> frozenset[ChannelName]:
        """The channels there are."""
        return frozenset(self._channels)

    async def deliver(self, effect: Effect, place: Place) -> TargetResult | WaitUntil:
        """Send unless it was sent; a wait is to be repeated with its `place`.

        Raises:
            ApplicationError: AUTH or REJECTED, where no other channel can take over. Nothing was sent.
        """
        channel = self._channels[effect.target.channel]
        target = _target(effect.target)
        admitted = await self._admit(channel.scopes(target), effect, place)
        if not isinstance(admitted, tuple):
            # A lost worker may have finished it: what is done must not wait, nor be told as failed.
            known = await self._effects.find(effect.run_id, effect.step, effect.target_id)
            if known is not None and known.status is ClaimStatus.SETTLED:
                return TargetResult.model_validate(known.outcome)
            return admitted
        claim = await self._effects.claim(effect.run_id, effect.step, effect.target_id)
        match claim.status:
            case ClaimStatus.SETTLED:
                return TargetResult.model_validate(claim.outcome)
            case ClaimStatus.UNSETTLED:
                lost = await self._after_lost_reply(channel, target, effect, claim, place)
                if lost is not None:
                    return lost
        place.attempts += 1
        outcome = await channel.send(target, effect.message, now=self._clock.now())
        return await self._conclude(channel, effect, outcome, place, admitted, new=claim.status is ClaimStatus.NEW)

    async def _admit(
        self, scopes: tuple[Scope, ...], effect: Effect, place: Place
    ) -> tuple[str, ...] | TargetResult | WaitUntil:
        """The scopes for which a success is news, or why it cannot go now."""
        slots = await self._budgets.reserve_unpaced([each.key for each in scopes if not each.interval], place.slots)
        for scope in scopes:
            if scope.interval:
                slots[scope.key] = await self._budgets.reserve(
                    scope.key, interval=scope.interval, burst=scope.burst, reserved=place.slots.get(scope.key)
                )
        now = self._clock.now()
        key, latest = max(slots.items(), key=lambda each: each[1].at)
        if effect.has_fallback and any(slot.paused_for is PausedFor.AUTH for slot in slots.values()):
            return _result(effect, TargetOutcome.FAILED, place, code="credential_refused")
        place.slots = {scope: slot.at for scope, slot in slots.items()}
        if latest.at - now <= SOON:
            return tuple(scope for scope, slot in slots.items() if slot.troubled)
        return _wait(latest.at, _why(key, latest.paused_for, latest.detail), place)

    async def _after_lost_reply(
        self, channel: Channel, target: Target, effect: Effect, claim: Claim, place: Place
    ) -> TargetResult | None:
        """The result if it must not be sent again; None to send."""
        place.unknown = max(1, place.unknown)  # more where a reply was lost again; a crash leaves no count
        log.warning("reply.lost", channel=channel.name.value, effect=effect.message.effect_id, unknown=place.unknown)
        if channel.after_lost_reply is AfterLostReply.RESEND:
            return None
        if channel.after_lost_reply is AfterLostReply.CHECK and claim.claimed_at is not None:
            found = await channel.find(target, effect.message, since=claim.claimed_at)
            if found is not None:
                return await self._settle(
                    effect, TargetOutcome.SENT, place, code="found_after_lost_reply", vendor_id=found.vendor_id
                )
        if effect.resend and place.unknown <= MAX_UNKNOWN:
            return None
        return await self._settle(effect, TargetOutcome.MAYBE_SENT, place, code="reply_lost")

    async def _conclude(
        self,
        channel: Channel,
        effect: Effect,
        outcome: Outcome,
        place: Place,
        troubled: tuple[str, ...],
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
        match outcome.verdict:
            case Verdict.SENT:
                for scope in troubled:
                    await self._budgets.succeeded(scope)
                return await self._settle(effect, TargetOutcome.SENT, place, vendor_id=outcome.vendor_id)
            case Verdict.DROP_TARGET:
                await self._drop(effect, outcome)
                return await self._settle(effect, TargetOutcome.DROPPED, place, code=outcome.code)
            case Verdict.RETRY:
                return await self._retry(effect, outcome, place, new=new)
            case Verdict.MAYBE_SENT:
                place.unknown += 1
                reason = f"{channel.name.value}: the reply was lost ({outcome.code}); to be checked or sent again"
                return _wait(self._clock.now() + _growing(place.unknown - 1), reason, place)
        if outcome.verdict is Verdict.AUTH and outcome.scope:
            detail = _impersonal(f"{outcome.code} {outcome.detail}", effect.target)
            await self._budgets.pause(outcome.scope, PausedFor.AUTH, asked=AUTH_PAUSE, detail=detail)
        if effect.has_fallback:
            return await self._settle(effect, TargetOutcome.FAILED, place, code=outcome.code)
        if new:
            await self._effects.release(effect.run_id, effect.step, effect.target_id)
        detail = _impersonal(outcome.detail or outcome.code, effect.target)
        kind = FailureKind.AUTH if outcome.verdict is Verdict.AUTH else FailureKind.REJECTED
        raise failure(kind, outcome.code, f"{channel.name.value}: {detail}")

    async def _retry(self, effect: Effect, outcome: Outcome, place: Place, *, new: bool) -> WaitUntil:
        """Nothing was sent: take the claim back, and wait with everybody else of the scope."""
        if new:
            await self._effects.release(effect.run_id, effect.step, effect.target_id)
        if outcome.soft_bounce and not place.counted:
            place.counted = True
            await self._suppressions.add(
                effect.target.tenant,
                effect.target.channel,
                effect.target.address,
                Reason.MAILBOX_FULL,
                detail=outcome.code,
            )
        said = _impersonal(f"{outcome.code} {outcome.detail}", effect.target).strip()
        reason = f"{effect.target.channel.value}: {said}"
        if outcome.scope is None:
            place.slots.clear()
            until = self._clock.now() + (outcome.retry_after or _growing(place.attempts - 1))
            return _wait(spread(until, SOON), reason, place)
        why = PausedFor.LIMIT if outcome.retry_after is not None else PausedFor.OUTAGE
        await self._budgets.pause(outcome.scope, why, asked=outcome.retry_after, detail=said)
        slot = await self._budgets.reserve(outcome.scope)
        place.slots = {outcome.scope: slot.at}
        # A message that is refused by itself must not pause everybody again and again.
        own = self._clock.now() + min(LONGEST_PAUSE, _growing(place.attempts - 1))
        return _wait(max(slot.at, own), reason, place)

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
            )
        except TooManyDrops as guard:
            log.error("drops.guarded", channel=target.channel.value, reason=str(guard))  # noqa: TRY400 - says it all

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
        await self._effects.settle(effect.run_id, effect.step, effect.target_id, settled)
        return result


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


def _target(stored: StoredTarget) -> Target:
    return Target(
        channel=stored.channel, address=stored.address, registered_at=stored.registered_at, details=stored.details
    )


def _why(scope: str, paused_for: PausedFor | None, detail: str) -> str:
    if paused_for is None:
        return f"a slot of {scope}"
    return f"{scope}, paused ({paused_for.value}: {detail})" if detail else f"{scope}, paused ({paused_for.value})"


def _growing(before: int) -> timedelta:
    wait: timedelta = FIRST_WAIT * 2 ** min(max(before, 0), 10)
    return min(LONGEST_WAIT, wait)


def _wait(until: datetime, reason: str, place: Place) -> WaitUntil:
    return WaitUntil(until=until, waiting_for=reason[:300], place=place.model_dump(mode="json", exclude_defaults=True))
