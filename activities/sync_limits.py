"""When a page may be asked for: the budgets that the store keeps, and the pauses that vendors ask for.

The rates of queues and of their fairness keys are the Temporal server's (runtime/queue_limits.py). A scope is a text:
`sync:<vendor>` rests while the vendor does not work, `sync:<vendor>:<connection>` while it throttles that connection,
and below them each budget has one.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import JsonValue, TypeAdapter

from activities.connectors.spec import Budget, Connector, Holder, Judgement, KeptBy, Meaning, Observed, Resource
from activities.connectors.spec import Settings as ConnectionSettings
from contracts.payloads.job import WaitUntil
from runtime.clock import Clock
from store.budgets import Budgets, PausedFor, Slot

log = structlog.get_logger(__name__)

SOON = timedelta(seconds=1)  # a shorter wait is not worth a trip through the server
BEHIND = timedelta(milliseconds=50)  # a vendor's second begins a little after ours
ROWS = 100  # of a page, where its size is not known
AWAY = frozenset({"connection", "http_502", "http_503", "http_504"})  # other failures may be of one account only
SLOTS: TypeAdapter[dict[str, datetime]] = TypeAdapter(dict[str, datetime])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for what, and how many rows the page may have."""

    connector: Connector
    resource: Resource
    connection_id: str
    settings: ConnectionSettings
    expected: int = ROWS

    @property
    def vendor(self) -> str:
        """The scope of all connections."""
        return f"sync:{self.connector.name}"

    @property
    def account(self) -> str:
        """The scope of this connection."""
        return f"{self.vendor}:{self.connection_id}"

    def scope(self, budget: Budget) -> str:
        """The budget's."""
        return f"{self.vendor if budget.holder is Holder.APP else self.account}:{budget.name}"

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Those that this request uses, with the limits of this connection's plan."""
        return tuple(each.having(self.settings.limits) for each in self.connector.budgets_of(self.resource))

    @property
    def paced(self) -> dict[str, Budget]:
        """Those that the store keeps, by scope. A queue has the same limit for all connections, and none's own plan."""
        return {
            self.scope(each): each
            for each in self.budgets
            if each.kept_by is KeptBy.STORE or (each.holder is Holder.CONNECTION and each.name in self.settings.limits)
        }

    def shares(self, scope: str) -> bool:
        """Whether other connections, which may be other tenants', have the scope too."""
        return scope != self.account and not scope.startswith(f"{self.account}:")

    def rests(self, budget: str) -> tuple[str, ...]:
        """The scopes that rest when the vendor says that a budget, or one it does not name, is used up."""
        named = [self.scope(each) for each in self.budgets if each.name == budget]
        own = [self.scope(each) for each in self.resource.budgets if each.kept_by is KeptBy.STORE]
        return tuple(named or ([] if budget else own) or [self.account])


def page_size(resource: Resource) -> int:
    """How many rows a full page has."""
    size = getattr(resource.paging, "size", None)
    return size if isinstance(size, int) and size > 0 else ROWS


def is_away(judgement: Judgement) -> bool:
    """Whether no connection gets an answer of the vendor."""
    return judgement.meaning is Meaning.OVERLOADED and judgement.code in AWAY


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may go now. `troubled` are scopes to which a success is news."""

    troubled: frozenset[str]


class Limits:
    """Queries and changes of budgets, for pages."""

    def __init__(self, budgets: Budgets, clock: Clock) -> None:
        self._budgets = budgets
        self._clock = clock

    async def admit(self, caller: Caller, place: JsonValue) -> Admitted | WaitUntil:
        """Whether it may go; `place` has the slots that an earlier wait was for."""
        reserved = SLOTS.validate_python((place or {}).get("slots", {})) if isinstance(place, Mapping) else {}
        slots = await self._budgets.reserve_unpaced([caller.vendor, caller.account], reserved)
        # a connection that rests takes no slots from others
        paced = {} if max(each.at for each in slots.values()) - self._clock.now() > SOON else caller.paced
        for scope, budget in paced.items():
            slots[scope] = await self._budgets.reserve(
                scope,
                interval=budget.interval,
                reserved=reserved.get(scope),
                cost=_cost(budget, caller.expected),
                limit=budget.limit,
                per=budget.per,
            )
        scope, latest = max(slots.items(), key=lambda each: each[1].at)
        now = self._clock.now()
        if latest.at - now > SOON:
            held = reserved | {name: slot.at for name, slot in slots.items()}
            return WaitUntil(
                until=latest.at, waiting_for=self._why(caller, scope, latest), place={"slots": _told(held)}
            )
        if latest.at > now:
            await asyncio.sleep((latest.at - now).total_seconds())
        return Admitted(frozenset(scope for scope, slot in slots.items() if slot.troubled))

    async def went_well(
        self, caller: Caller, admitted: Admitted, rows: int, observed: tuple[Observed, ...], rest: timedelta | None
    ) -> None:
        """A page came: settle what it cost, and heed what its headers say.

        Args:
            caller: whose page.
            admitted: by `admit`.
            rows: that it had.
            observed: by its headers.
            rest: that the vendor wishes for.
        """
        await self.settle(caller, rows)
        await self.heed(caller, observed)
        for scope in sorted(admitted.troubled):
            await self._budgets.succeeded(scope)
        if rest is not None and rest > timedelta():
            await self._budgets.pause(caller.account, PausedFor.LIMIT, asked=rest, detail="asked to be asked less")

    async def settle(self, caller: Caller, rows: int) -> None:
        """Pay what an admitted page cost besides what was expected, or give back what it did not cost."""
        for scope, budget in caller.paced.items():
            await self._budgets.charge(scope, budget.interval, _cost(budget, rows) - _cost(budget, caller.expected))

    async def heed(self, caller: Caller, observed: tuple[Observed, ...]) -> None:
        """What headers say of budgets: other clients of the same account use them too."""
        known = {each.name: each for each in caller.budgets}
        for each in observed:
            named = known.get(each.budget)
            pace = named if each.budget else next(iter(known.values()), None)
            await self._budgets.observe(
                caller.scope(named) if named else caller.account,
                remaining=each.remaining,
                resets_at=each.resets_at,
                limit=each.limit,
                interval=pace.interval if pace else None,
            )

    async def refused(self, caller: Caller, judgement: Judgement) -> WaitUntil:
        """Everybody of the scope rests; when to come back."""
        throttled = judgement.meaning is Meaning.THROTTLED
        if throttled:
            scopes = caller.rests(judgement.budget)
        else:
            scopes = (caller.vendor if is_away(judgement) else caller.account,)
        why = PausedFor.LIMIT if throttled else PausedFor.OUTAGE
        detail = f"{judgement.code}: {judgement.detail}" if judgement.detail else judgement.code
        name = caller.connector.name
        log.warning(
            "vendor.refused", vendor=name, scopes=scopes, why=why.value, code=judgement.code, detail=judgement.detail
        )
        ends = []
        for scope in scopes:
            told = judgement.code if caller.shares(scope) else detail  # the words may be about one tenant's data
            ends.append(await self._budgets.pause(scope, why, asked=judgement.wait, detail=told))
        words = f"{name}, which asks for a pause ({detail})" if throttled else f"{name}, which does not work ({detail})"
        return WaitUntil(until=max(ends) + BEHIND, waiting_for=words[:300])

    @staticmethod
    def _why(caller: Caller, scope: str, slot: Slot) -> str:
        name = caller.connector.name
        if slot.paused_for is not None:
            what = "which does not work" if slot.paused_for is PausedFor.OUTAGE else "which asks for a pause"
            return f"{name}, {what} ({slot.detail})"[:300]
        budget = caller.paced.get(scope)
        if budget is None:
            return f"a slot of {name}"
        return f"a slot of {name}'s {budget.name} ({budget.limit:,} per {_span(budget.per)})"


def _cost(budget: Budget, rows: int) -> int:
    return budget.points(rows) if budget.points else 1


def _told(slots: dict[str, datetime]) -> JsonValue:
    told: JsonValue = SLOTS.dump_python(slots, mode="json")
    return told


def _span(per: timedelta) -> str:
    named = {60: "minute", 3600: "hour", 86400: "day"}
    seconds = per.total_seconds()
    return named.get(int(seconds), f"{seconds:g} s") if seconds == int(seconds) else f"{seconds:g} s"
