"""Many messages of one step: as `Delivery`, with the ledger written in batches and sends side by side.

At a kill at most CONCURRENCY effects are claimed and under way, and one settle batch is sent and not yet settled.
"""

import asyncio
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
from contracts.payloads.notification import ChannelName, TargetOutcome
from runtime.clock import Clock
from store.budgets import Budgets, PausedFor
from store.effects import Claim, ClaimStatus, Effects
from store.people import StoredTarget
from store.suppressions import Reason, Suppressions, TooManyDrops

log = structlog.get_logger(__name__)

CONCURRENCY = 64
CLAIM_BATCH = 32
SETTLE_BATCH = 64  # rows, or
SETTLE_SECONDS = 0.02
ROUNDS = 2  # how often what was refused for a moment, or whose reply was lost, is sent before it becomes a job
BETWEEN_ROUNDS = timedelta(seconds=1)
OUTAGE = 16  # refusals in a row without a success: it is the vendor and not the messages
HOPELESS = 32  # refusals of one cause before anything was sent: it is ours to mend
SHORT_WAIT = timedelta(seconds=2)  # of a vendor that names a time; a longer one is a durable timer


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message to one target. `line` says whose it is. `message` is made when it is sent."""

    line: int
    target: StoredTarget
    message: Callable[[], Message]
    resend: bool


@dataclass(slots=True)
class Tally:
    """What became of the parcels.

    `outcomes` by target. `later` are lines whose messages another job has to go on with, `refused` those that vendor or
    template refuse, `failures` how many by cause. `wait` is until when, and for what, the rest has to wait;
    `stopped_by` the cause that ended it early; `unfinished`: not all were tried.
    """

    outcomes: dict[str, TargetOutcome] = field(default_factory=dict)
    later: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    wait: tuple[datetime, str] | None = None
    stopped_by: str = ""
    unfinished: bool = False

    @property
    def stopped(self) -> bool:
        """Nothing more is begun."""
        return bool(self.wait or self.stopped_by or self.unfinished)


class BulkDelivery:
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

    async def send(self, run_id: str, step: str, parcels: Sequence[Parcel], *, go_on: Callable[[], bool]) -> Tally:
        """Send what was not sent yet, until nothing is left, something stops it, or `go_on` says no."""
        run = _Run(self, run_id, step, go_on)
        await run.play(parcels)
        return run.tally


class _Run:
    """One call of `BulkDelivery.send`."""

    def __init__(self, bulk: BulkDelivery, run_id: str, step: str, go_on: Callable[[], bool]) -> None:
        self._channels = bulk._channels  # noqa: SLF001 - the same thing, for the length of a call
        self._effects = bulk._effects  # noqa: SLF001
        self._budgets = bulk._budgets  # noqa: SLF001
        self._suppressions = bulk._suppressions  # noqa: SLF001
        self._clock = bulk._clock  # noqa: SLF001
        self._run_id = run_id
        self._step = step
        self._go_on = go_on
        self.tally = Tally()
        self._again: list[Parcel] = []
        self._tries: Counter[str] = Counter()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._settled: dict[str, JsonValue] = {}
        self._settling: asyncio.Task[None] | None = None
        self._refused_in_a_row = 0
        self._sent = 0
        self._troubled: set[str] = set()
        self._error: BaseException | None = None

    async def play(self, parcels: Sequence[Parcel]) -> None:
        left = list(parcels)
        try:
            while left and not self.tally.stopped:
                await self._round(left)
                left, self._again = self._again, []
                if left and not self.tally.stopped:
                    await asyncio.sleep(BETWEEN_ROUNDS.total_seconds())
        finally:
            await self._land()
        self.tally.unfinished = self.tally.unfinished or bool(self.tally.wait) or bool(left)

    async def _round(self, parcels: Sequence[Parcel]) -> None:
        for start in range(0, len(parcels), CLAIM_BATCH):
            while len(self._in_flight) > CONCURRENCY - CLAIM_BATCH:
                await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            if not self._go_on():
                self.tally.unfinished = True
            batch = await self._admitted(parcels[start : start + CLAIM_BATCH])
            if self.tally.stopped:
                self._again += parcels[start:]
                break
            for parcel, claim in zip(batch, await self._claim(batch), strict=True):
                task = asyncio.create_task(self._one(parcel, claim))
                self._in_flight.add(task)
                task.add_done_callback(self._ended)
            self._raise()
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        self._raise()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    async def _admitted(self, batch: Sequence[Parcel]) -> list[Parcel]:
        """Those that may go now; a paced scope that has no slot now is another job's."""
        unpaced: set[str] = set()
        labels: dict[str, str] = {}
        paced: dict[str, list[tuple[Parcel, Scope]]] = {}
        for parcel in batch:
            for scope in self._channels[parcel.target.channel].scopes(_target(parcel.target)):
                labels[scope.key] = scope.label
                if scope.interval:
                    paced.setdefault(parcel.target.target_id, []).append((parcel, scope))
                else:
                    unpaced.add(scope.key)
        slots = await self._budgets.reserve_unpaced(sorted(unpaced), {})
        now = self._clock.now()
        self._troubled |= {key for key, slot in slots.items() if slot.troubled}
        key, latest = max(slots.items(), key=lambda each: each[1].at)
        if latest.at - now > SOON:
            self.tally.wait = (latest.at, f"{labels[key]}, paused: {latest.detail}" if latest.detail else labels[key])
            return []
        late: set[str] = set()
        for target_id, pairs in paced.items():
            for _, scope in pairs:
                slot = await self._budgets.reserve(scope.key, interval=scope.interval, burst=scope.burst)
                if slot.at - now > SOON:
                    late.add(target_id)
        self.tally.later |= {parcel.line for parcel in batch if parcel.target.target_id in late}
        return [parcel for parcel in batch if parcel.target.target_id not in late]

    async def _claim(self, batch: Sequence[Parcel]) -> list[Claim]:
        return await self._effects.claim_many(self._run_id, self._step, [each.target.target_id for each in batch])

    async def _one(self, parcel: Parcel, claim: Claim) -> None:
        target_id = parcel.target.target_id
        if claim.status is ClaimStatus.SETTLED:
            said = claim.outcome if isinstance(claim.outcome, dict) else {}
            self.tally.outcomes[target_id] = TargetOutcome(str(said.get("outcome", "sent")))
            return
        channel = self._channels[parcel.target.channel]
        message = parcel.message()
        owner: str | None = claim.owner
        if claim.status is ClaimStatus.UNSETTLED and not self._tries[target_id]:
            owner = await self._of_the_dead(channel, parcel, message, claim)
            if owner is None:
                return
        self._tries[target_id] += 1
        try:
            outcome = await channel.send(_target(parcel.target), message, now=self._clock.now())
        except CancelledBeforeSending:
            await self._release(parcel, owner)
            raise
        await self._judge(channel, parcel, message, outcome, claim, owner)

    async def _of_the_dead(self, channel: Channel, parcel: Parcel, message: Message, claim: Claim) -> str | None:
        """The new owner of what a lost worker began, or None where it is not to be sent now."""
        assert claim.taken_at is not None
        assert claim.claimed_at is not None
        leased_until = claim.taken_at + LEASE
        if self._clock.now() < leased_until:
            self.tally.wait = (leased_until, "the outcome of sends that a lost worker began")
            return None
        if not await self._may_repeat(channel, parcel, message, claim.claimed_at):
            return None
        return await self._effects.take_over(self._run_id, self._step, claim)

    async def _may_repeat(self, channel: Channel, parcel: Parcel, message: Message, since: datetime) -> bool:
        if channel.after_lost_reply is AfterLostReply.RESEND:
            return True
        if channel.after_lost_reply is AfterLostReply.CHECK:
            found = await channel.find(_target(parcel.target), message, since=since)
            if found is not None and found.verdict is Verdict.SENT:
                await self._settle(parcel, TargetOutcome.SENT, found.vendor_id)
                return False
            if found is not None:
                return True
        if not parcel.resend:
            await self._settle(parcel, TargetOutcome.MAYBE_SENT, None)
        return parcel.resend

    async def _judge(
        self,
        channel: Channel,
        parcel: Parcel,
        message: Message,
        outcome: Outcome,
        claim: Claim,
        owner: str | None,
    ) -> None:
        match outcome.verdict:
            case Verdict.SENT:
                self._sent += 1
                self._refused_in_a_row = 0
                await self._settle(parcel, TargetOutcome.SENT, outcome.vendor_id)
                if self._troubled and outcome.verdict is Verdict.SENT:
                    troubled, self._troubled = self._troubled, set()
                    for scope in sorted(troubled):
                        await self._budgets.succeeded(scope)
            case Verdict.DROP_TARGET:
                await self._drop(parcel, outcome)
                await self._settle(parcel, TargetOutcome.DROPPED, None)
            case Verdict.MAYBE_SENT:
                if await self._may_repeat(channel, parcel, message, claim.claimed_at or self._clock.now()):
                    self._once_more(parcel)
            case Verdict.RETRY:
                await self._release(parcel, owner)
                await self._refused(parcel, outcome)
            case _:
                await self._release(parcel, owner)
                await self._final(parcel, outcome)

    def _once_more(self, parcel: Parcel) -> None:
        if self._tries[parcel.target.target_id] < ROUNDS:
            self._again.append(parcel)
        else:
            self.tally.later.add(parcel.line)

    async def _refused(self, parcel: Parcel, outcome: Outcome) -> None:
        self._refused_in_a_row += 1
        asked = outcome.retry_after
        limited = asked is not None and asked > SHORT_WAIT
        if outcome.scope is not None and (limited or self._refused_in_a_row >= OUTAGE):
            why = PausedFor.LIMIT if limited else PausedFor.OUTAGE
            until = await self._budgets.pause(outcome.scope, why, asked=asked if limited else None, detail=outcome.code)
            self.tally.wait = (until, f"{parcel.target.channel.value}: {outcome.code}")
            self._again.append(parcel)
            return
        if outcome.scope is None and asked is not None:
            self.tally.later.add(parcel.line)  # of this target alone, and not soon
        else:
            self._once_more(parcel)

    async def _final(self, parcel: Parcel, outcome: Outcome) -> None:
        cause = f"{parcel.target.channel.value}: {outcome.code}"
        self.tally.failures[cause] += 1
        self.tally.refused.add(parcel.line)
        log.info("message.refused", line=parcel.line, code=outcome.code, verdict=outcome.verdict.value)
        if outcome.verdict is Verdict.AUTH:
            if outcome.scope:
                await self._budgets.pause(outcome.scope, PausedFor.AUTH, asked=AUTH_PAUSE, detail=outcome.code)
            self.tally.stopped_by = cause
        elif not self._sent and self.tally.failures[cause] >= HOPELESS:
            self.tally.stopped_by = cause

    async def _drop(self, parcel: Parcel, outcome: Outcome) -> None:
        target = parcel.target
        if outcome.dead_since is not None and target.registered_at > outcome.dead_since:
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

    async def _release(self, parcel: Parcel, owner: str | None) -> None:
        # A claim whose reply was lost once stays, or that would be forgotten.
        if owner is not None and self._tries[parcel.target.target_id] == 1:
            await self._effects.release(self._run_id, self._step, parcel.target.target_id, owner=owner)

    async def _settle(self, parcel: Parcel, outcome: TargetOutcome, vendor_id: str | None) -> None:
        said: dict[str, JsonValue] = {"outcome": outcome.value}
        if vendor_id:
            said["vendor_id"] = vendor_id
        self.tally.outcomes[parcel.target.target_id] = outcome
        self._settled[parcel.target.target_id] = said
        if len(self._settled) >= SETTLE_BATCH:
            await self._flush()
        elif self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._flush_soon())

    async def _flush_soon(self) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        await self._flush()

    async def _flush(self) -> None:
        batch, self._settled = self._settled, {}
        if batch:
            await self._effects.settle_many(self._run_id, self._step, batch)

    async def _land(self) -> None:
        """What is under way ends, and everything that is known is settled."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        if self._settling is not None:
            await asyncio.gather(self._settling, return_exceptions=True)
        await self._flush()


def _target(stored: StoredTarget) -> Target:
    return Target(
        channel=stored.channel, address=stored.address, registered_at=stored.registered_at, details=stored.details
    )
