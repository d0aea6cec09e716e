"""Many messages at once: as activities/delivery.py, with sends side by side and the ledger written in batches.

The ledger has the same keys as the notification job that a recipient's message becomes if it is handed over, so what is
sent here is not sent again there. At a kill, a process has at most IN_FLIGHT effects of each of its chunks claimed, and
as many sent and not yet settled as came within one batch of store/effect_batches.py.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from pydantic import JsonValue

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
from activities.delivery import AUTH_PAUSE, LEASE, SOON
from activities.templates import TemplateBroken, TemplateDataError, UnknownTemplate
from contracts.payloads.notification import ChannelName, TargetOutcome, TargetResult
from runtime.clock import Clock
from store.budgets import Budgets, PausedFor, Slot
from store.effect_batches import EffectBatches
from store.effects import Claim, ClaimStatus, EffectKey, Effects
from store.people import People, StoredTarget
from store.suppressions import Reason, Suppressions, TooManyDrops

log = structlog.get_logger(__name__)

IN_FLIGHT = 32  # of one chunk
AT_ONCE = 96  # of one process; its connections to a vendor are 100
CLAIM_BATCH = 16
ROUNDS = 2  # how often what was refused for a moment, or whose reply was lost, is sent before it becomes a job
BETWEEN_ROUNDS = timedelta(seconds=1)
LOOK_AGAIN_SECONDS = 1.0  # how late a pause by another process is noticed
CROWD = 8  # of one execution: that many wait together for a paused scope; fewer become jobs, which wait alone
OUTAGE = 16  # refusals of a scope in a row without a success: it is the vendor and not the messages
HOPELESS = 32  # refusals of one cause, and most of what was tried: it is ours to mend
SHORT_WAIT = timedelta(seconds=2)  # of a vendor that names a time; a longer one pauses the scope for all
FRESH_SECONDS = (LEASE - timedelta(seconds=22)).total_seconds()  # of a claim: its lease covers a request, 20 s at most
NOT_RENDERED = (TemplateDataError, UnknownTemplate, TemplateBroken)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message to one target.

    `line` says whose it is, `key` is that of its effect, under the job that it becomes if it is handed over. `message`
    is made when it is sent. `resend`: the policy after a reply was lost.
    """

    line: int
    key: EffectKey
    target: StoredTarget
    message: Callable[[], Message]
    resend: bool


@dataclass(slots=True)
class Tally:
    """What became of the parcels.

    `outcomes` by effect. `later` are lines whose messages another job has to go on with, `refused` those that vendor or
    template refuse, `failures` how many by cause. `wait` is until when, and for what, the rest has to wait;
    `everybody`: for something that others wait for too. `stopped_by` is the cause that ended it early. `unfinished`:
    not all were tried.
    """

    outcomes: dict[EffectKey, TargetOutcome] = field(default_factory=dict)
    later: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    wait: tuple[datetime, str] | None = None
    everybody: bool = False
    stopped_by: str = ""
    unfinished: bool = False

    def must_wait(self, until: datetime, what: str, *, everybody: bool) -> None:
        """Note a wait; the earliest one counts, as the rest is looked at again then."""
        self.unfinished = True
        self.everybody = self.everybody or everybody
        if self.wait is None or until < self.wait[0]:
            self.wait = (until, what)


class BulkDelivery:
    """Sends through the configured channels. One per process: its sends share the batches of the ledger."""

    def __init__(
        self,
        *,
        step: str,
        channels: Mapping[ChannelName, Channel],
        effects: Effects,
        budgets: Budgets,
        suppressions: Suppressions,
        people: People,
        clock: Clock,
    ) -> None:
        self.channels = channels
        self.effects = effects
        self.batches = EffectBatches(effects, step)
        self.budgets = budgets
        self.suppressions = suppressions
        self.people = people
        self.clock = clock
        self.step = step
        self.at_once = asyncio.Semaphore(AT_ONCE)

    @property
    def configured(self) -> frozenset[ChannelName]:
        """The channels there are."""
        return frozenset(self.channels)

    async def send(self, parcels: Sequence[Parcel], tally: Tally, *, go_on: Callable[[], bool]) -> None:
        """Send what was not sent yet, until nothing is left, something stops it, or `go_on` says no.

        `tally` is complete for what was tried, even if this raises. Cancelled, it begins nothing more, and ends when
        what is under way has.

        Raises:
            DatabaseUnavailable: the store does not answer.
        """
        # What an earlier execution did is read first, or one that is cut short each time would never come further.
        for key, claim in (await self._begun(parcels)).items():
            ended = _outcome(claim)
            if ended is not None:
                tally.outcomes[key] = ended
        await _Run(self, tally, go_on).play([each for each in parcels if each.key not in tally.outcomes])

    async def known(self, parcels: Sequence[Parcel]) -> dict[EffectKey, TargetOutcome]:
        """What came of those that were begun; MAYBE_SENT where that is open."""
        found = await self._begun(parcels)
        return {key: _outcome(claim) or TargetOutcome.MAYBE_SENT for key, claim in found.items()}

    async def _begun(self, parcels: Sequence[Parcel]) -> dict[EffectKey, Claim]:
        if not parcels:
            return {}
        keys = {each.key for each in parcels}  # of one chunk, whose lines lie side by side in the ledger
        ids = [each.first_run_id for each in keys]
        found = await self.effects.find_between(self.step, min(ids), max(ids))
        return {key: claim for key, claim in found.items() if key in keys}


class _Run:
    """One call of `BulkDelivery.send`."""

    def __init__(self, bulk: BulkDelivery, tally: Tally, go_on: Callable[[], bool]) -> None:
        self._bulk = bulk
        self._go_on = go_on
        self._tally = tally
        self._again: list[Parcel] = []
        self._put_back: set[EffectKey] = set()  # as what they are sent over pauses for all
        self._crowds: dict[str, set[EffectKey]] = {}
        self._taken_at: dict[EffectKey, float] = {}
        self._tries: Counter[EffectKey] = Counter()
        self._reply_lost: set[EffectKey] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room: asyncio.Future[None] | None = None
        self._room_for = 0
        self._settling: list[asyncio.Future[None]] = []
        self._refused_in_a_row: Counter[str] = Counter()
        self._troubled: set[str] = set()
        self._slots: dict[str, Slot] = {}
        self._looked_at = float("-inf")
        self._drops_guarded = False
        self._error: BaseException | None = None

    async def play(self, parcels: Sequence[Parcel]) -> None:
        """Send, and what was refused for a moment once more."""
        left = list(parcels)
        try:
            for round_number in range(ROUNDS):
                if round_number:
                    await asyncio.sleep(BETWEEN_ROUNDS.total_seconds())
                await self._round(left)
                left, self._again = self._again, []
                if not left or self._tally.stopped_by or not self._go_on():
                    break
        finally:
            await self._land()
        # Who was tried and takes longer than this may last would do so the next time too.
        tried = [each for each in left if self._tries[each.key] and each.key not in self._put_back]
        self._tally.later |= {each.line for each in tried}
        self._tally.unfinished = self._tally.unfinished or len(tried) < len(left)

    async def _round(self, parcels: Sequence[Parcel]) -> None:
        for start in range(0, len(parcels), CLAIM_BATCH):
            await self._until_in_flight(IN_FLIGHT - CLAIM_BATCH)
            if self._tally.stopped_by or not self._go_on():
                self._again += parcels[start:]
                return
            batch = await self._admitted(parcels[start : start + CLAIM_BATCH])
            if not batch:
                continue
            asked_at = time.monotonic()
            claims = await self._bulk.batches.claim([each.key for each in batch])
            self._taken_at |= {
                each.key: asked_at for each, claim in zip(batch, claims, strict=True) if claim.status is ClaimStatus.NEW
            }
            for parcel, claim in zip(batch, claims, strict=True):
                task = asyncio.create_task(self._one(parcel, claim))
                self._tasks.add(task)  # the loop itself forgets it
                task.add_done_callback(self._ended)
        await self._until_in_flight(0)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
        if self._room is not None and len(self._tasks) <= self._room_for and not self._room.done():
            self._room.set_result(None)

    async def _until_in_flight(self, number: int) -> None:
        if len(self._tasks) > number:
            self._room, self._room_for = asyncio.get_running_loop().create_future(), number
            await self._room
        if self._error is not None:
            raise self._error

    async def _land(self) -> None:
        """What is under way ends, and everything that is known is settled."""
        while self._tasks:
            self._room, self._room_for = asyncio.get_running_loop().create_future(), 0
            await self._room
        await asyncio.gather(*self._settling)

    async def _admitted(self, batch: Sequence[Parcel]) -> list[Parcel]:
        """Those that may go now. Of the others, a crowd waits together, and a few become jobs."""
        scopes = {each.key: self._bulk.channels[each.target.channel].scopes(_target(each.target)) for each in batch}
        await self._look({scope for each in scopes.values() for scope in each if not scope.interval})
        now = self._bulk.clock.now()
        held: dict[Scope, list[Parcel]] = {}
        admitted = []
        for parcel in batch:
            late = await self._late(scopes[parcel.key], now)
            if late is None:
                admitted.append(parcel)
            else:
                held.setdefault(late, []).append(parcel)
        for scope, waiting in held.items():
            crowd = self._crowds.setdefault(scope.key, set())
            crowd.update(each.key for each in waiting)
            if scope.interval or len(crowd) < CROWD:
                self._tally.later |= {each.line for each in waiting}
                continue
            slot = self._slots[scope.key]
            why = f"{scope.label}, paused ({slot.detail})" if slot.detail else scope.label
            self._tally.must_wait(slot.at, why, everybody=True)
        return admitted

    async def _look(self, scopes: set[Scope]) -> None:
        """At the pauses there are, now and then."""
        if time.monotonic() - self._looked_at > LOOK_AGAIN_SECONDS:
            self._slots = {}
            self._looked_at = time.monotonic()
        new = sorted({each.key for each in scopes} - self._slots.keys())
        if new:
            self._slots |= await self._bulk.budgets.reserve_unpaced(new, {})
            self._troubled |= {key for key in new if self._slots[key].troubled}

    async def _late(self, scopes: tuple[Scope, ...], now: datetime) -> Scope | None:
        """The first that has no slot now."""
        for scope in scopes:
            slot = self._slots.get(scope.key)
            if scope.interval:
                slot = await self._bulk.budgets.reserve(scope.key, interval=scope.interval, burst=scope.burst)
            if slot is not None and slot.at - now > SOON:
                return scope
        return None

    async def _one(self, parcel: Parcel, claim: Claim) -> None:
        known = _outcome(claim)
        if known is not None:
            self._tally.outcomes[parcel.key] = known
            return
        channel = self._bulk.channels[parcel.target.channel]
        try:
            message = parcel.message()
        except NOT_RENDERED as error:
            await self._release(parcel, claim)
            self._refuse(parcel, f"template: {type(error).__name__}", str(error))
            return
        theirs = claim.status is ClaimStatus.UNSETTLED and parcel.key not in self._reply_lost
        if theirs and not await self._of_the_dead(channel, parcel, message, claim):
            return
        outcome = None
        try:
            async with self._bulk.at_once:
                if time.monotonic() - self._taken_at[parcel.key] < FRESH_SECONDS:
                    self._tries[parcel.key] += 1
                    outcome = await channel.send(_target(parcel.target), message, now=self._bulk.clock.now())
        except CancelledBeforeSending:
            await self._release(parcel, claim)
            raise
        if outcome is None:  # another could take it over while it is sent
            await self._release(parcel, claim)
            self._again.append(parcel)
            return
        await self._judge(channel, parcel, message, outcome, claim)

    async def _of_the_dead(self, channel: Channel, parcel: Parcel, message: Message, claim: Claim) -> bool:
        """Whether what another execution began, and did not end, is this one's to send now."""
        assert claim.taken_at is not None
        assert claim.claimed_at is not None
        leased_until = claim.taken_at + LEASE
        if self._bulk.clock.now() < leased_until:
            self._tally.must_wait(leased_until, "the outcome of sends that a lost worker began", everybody=False)
            return False
        if claim.taken_at > claim.claimed_at:  # begun twice, and never ended: its job tries on
            self._tally.later.add(parcel.line)
            return False
        self._reply_lost.add(parcel.key)
        if not await self._may_repeat(channel, parcel, message, claim.claimed_at):
            return False
        self._taken_at[parcel.key] = time.monotonic()
        if await self._bulk.effects.take_over(parcel.key.first_run_id, self._bulk.step, claim) is None:
            until = self._bulk.clock.now() + LEASE
            self._tally.must_wait(until, "another worker, which sends it now", everybody=False)
            return False
        return True

    async def _may_repeat(self, channel: Channel, parcel: Parcel, message: Message, since: datetime) -> bool:
        if channel.after_lost_reply is AfterLostReply.RESEND:
            return True
        if channel.after_lost_reply is AfterLostReply.CHECK:
            found = await channel.find(_target(parcel.target), message, since=since)
            if found is not None and found.verdict is Verdict.SENT:
                self._settle(parcel, TargetOutcome.SENT, vendor_id=found.vendor_id, code="found_after_lost_reply")
                return False
            if found is not None:
                return True
        if not parcel.resend:
            self._settle(parcel, TargetOutcome.MAYBE_SENT, code="reply_lost")
        return parcel.resend

    async def _judge(self, channel: Channel, parcel: Parcel, message: Message, outcome: Outcome, claim: Claim) -> None:
        if outcome.moved_to is not None and outcome.verdict is not Verdict.DROP_TARGET:
            await self._bulk.people.move_target(parcel.target, outcome.moved_to)
        match outcome.verdict:
            case Verdict.SENT:
                self._settle(parcel, TargetOutcome.SENT, vendor_id=outcome.vendor_id)
                await self._succeeded(channel, parcel)
            case Verdict.DROP_TARGET:
                await self._drop(parcel, outcome)
                lost = parcel.key in self._reply_lost
                self._settle(parcel, TargetOutcome.MAYBE_SENT if lost else TargetOutcome.DROPPED, code=outcome.code)
            case Verdict.MAYBE_SENT:
                self._reply_lost.add(parcel.key)
                if await self._may_repeat(channel, parcel, message, claim.claimed_at or self._bulk.clock.now()):
                    self._once_more(parcel)
            case Verdict.RETRY:
                await self._release(parcel, claim)
                await self._refused_for_now(parcel, outcome)
            case Verdict.AUTH:
                await self._release(parcel, claim)
                if outcome.scope:
                    await self._bulk.budgets.pause(outcome.scope, PausedFor.AUTH, asked=AUTH_PAUSE, detail=outcome.code)
                self._refuse(parcel, outcome.code, outcome.detail)
                self._tally.stopped_by = f"{channel.name.value}: {outcome.code}"
            case Verdict.FIX_OURS:
                await self._release(parcel, claim)
                self._refuse(parcel, outcome.code, outcome.detail)

    async def _succeeded(self, channel: Channel, parcel: Parcel) -> None:
        if not (self._refused_in_a_row or self._troubled):
            return
        for scope in channel.scopes(_target(parcel.target)):
            self._refused_in_a_row.pop(scope.key, None)
            if scope.key in self._troubled:
                self._troubled.discard(scope.key)
                await self._bulk.budgets.succeeded(scope.key)

    def _once_more(self, parcel: Parcel) -> None:
        if self._tries[parcel.key] < ROUNDS:
            self._again.append(parcel)
        else:
            self._tally.later.add(parcel.line)

    async def _refused_for_now(self, parcel: Parcel, outcome: Outcome) -> None:
        asked = outcome.retry_after
        if outcome.scope is None:
            if asked is None:
                self._once_more(parcel)
            else:
                self._tally.later.add(parcel.line)  # of this target alone, and not soon
            return
        self._refused_in_a_row[outcome.scope] += 1
        limited = asked is not None and asked > SHORT_WAIT
        if limited or self._refused_in_a_row[outcome.scope] >= OUTAGE:
            why = PausedFor.LIMIT if limited else PausedFor.OUTAGE
            detail = f"{parcel.target.channel.value}: {outcome.code}"
            await self._bulk.budgets.pause(outcome.scope, why, asked=asked if limited else None, detail=detail)
            self._looked_at = float("-inf")
            self._put_back.add(parcel.key)
            self._again.append(parcel)
        else:
            self._once_more(parcel)

    def _refuse(self, parcel: Parcel, code: str, detail: str) -> None:
        cause = f"{parcel.target.channel.value}: {code}"
        self._tally.failures[cause] += 1
        self._tally.refused.add(parcel.line)
        log.info("message.refused", line=parcel.line, cause=cause, detail=detail[:200])
        tried = len(self._tally.outcomes) + self._tally.failures.total()
        if HOPELESS <= self._tally.failures[cause] > tried // 2:
            self._tally.stopped_by = cause

    async def _drop(self, parcel: Parcel, outcome: Outcome) -> None:
        target = parcel.target
        if self._drops_guarded or (outcome.dead_since is not None and target.registered_at > outcome.dead_since):
            return
        reason = Reason.BOUNCED if target.channel is ChannelName.EMAIL else Reason.DEAD
        try:
            await self._bulk.suppressions.add(
                target.tenant,
                target.channel,
                target.address,
                reason,
                detail=outcome.code,
                dead_since=outcome.dead_since,
                guarded=True,
            )
        except TooManyDrops as guard:
            self._drops_guarded = True
            log.error("drops.guarded", channel=target.channel.value, reason=str(guard))  # noqa: TRY400 - says it all

    async def _release(self, parcel: Parcel, claim: Claim) -> None:
        """Nothing was sent: take the claim back, unless an earlier reply was lost, or that would be forgotten."""
        if claim.status is ClaimStatus.NEW:
            run_id, target = parcel.key
            await self._bulk.effects.release(run_id, self._bulk.step, target, owner=claim.owner)

    def _settle(
        self, parcel: Parcel, outcome: TargetOutcome, *, vendor_id: str | None = None, code: str | None = None
    ) -> None:
        self._tally.outcomes[parcel.key] = outcome
        settled: dict[str, JsonValue] = {
            "target": parcel.target.target_id,
            "channel": parcel.target.channel.value,
            "outcome": outcome.value,
            "vendor_id": vendor_id,
            "attempts": self._tries[parcel.key],
            "code": code,
        }
        self._settling.append(self._bulk.batches.settle(parcel.key, settled))


def _outcome(claim: Claim) -> TargetOutcome | None:
    """How it ended, or None."""
    if claim.status is not ClaimStatus.SETTLED:
        return None
    return TargetResult.model_validate(claim.outcome).outcome


def _target(stored: StoredTarget) -> Target:
    return Target(
        channel=stored.channel, address=stored.address, registered_at=stored.registered_at, details=stored.details
    )
