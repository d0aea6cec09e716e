"""Pace, windows and pauses per limiter key, shared by all workers.

A reservation never answers no: it answers when the slot is (GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm).
The job sleeps until then and comes back with its reservation. A pause moves every slot that lies in it, and what waited
returns one by one behind it, not all at once.

Where the other side counts calls of a fixed window and lets them come in a burst, `reserve_window` counts as it does.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import func, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import EPOCH, MICROSECOND, Clock, from_micros, micros
from store.database import Database, advisory_lock
from store.dialect import upsert
from store.tables import budgets

RETURN_INTERVAL = timedelta(milliseconds=20)  # between those that come back after a pause of an unpaced scope
FIRST_PAUSE = timedelta(seconds=1)  # one refusal among many sends may mean one message only
AT_ONCE = timedelta(seconds=2)  # a refusal so soon after a pause says that it was too short
LONGEST_PAUSE = timedelta(minutes=1)  # without a time named by the other side: how late an outage's end is noticed
PROBE = timedelta(seconds=30)  # after a refused credential one goes first, and the others wait for how it fares
LATE = timedelta(seconds=5)  # a slot of a paced scope that was missed by more is lost, or a crowd would use old ones
LONGEST_RESET = timedelta(days=31)  # a month's quota; what says later is misread
MATERIAL = 0.05  # a smaller change of pace is not worth a write
UNPACED = timedelta()
NEVER = 0  # microseconds; a row that was never paused


class PausedFor(StrEnum):
    """`limit`: the other side asked for a pause. `outage`: it does not work. `auth`: it refused our credential."""

    LIMIT = "limit"
    OUTAGE = "outage"
    AUTH = "auth"


@dataclass(frozen=True, slots=True)
class Slot:
    """`at` is when to send; at or before now is go. `paused_for` and `detail` say why, if the scope is paused.

    `troubled`: there was a pause since the last success, so that a success is news for `succeeded`.
    """

    at: datetime
    paused_for: PausedFor | None = None
    detail: str = ""
    troubled: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """What a scope is used for.

    `used` of `limit` are used in the window that ends at `resets_at`, None between windows. `limit`, `per` and
    `remaining` are None where no limit is known. Where jobs wait in line, the window is that of the last of them.
    `next_slot_at` is None if the next one may go now. `paused_for`, `paused_until` and `detail` are those of a pause
    that lasts.
    """

    scope: str
    limit: int | None
    per: timedelta | None
    used: int
    remaining: int | None
    resets_at: datetime | None
    next_slot_at: datetime | None
    paused_for: PausedFor | None
    paused_until: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class _Wish:
    """The arguments of `reserve`."""

    interval: timedelta | None = None
    burst: int = 1
    reserved: datetime | None = None
    late: timedelta = LATE
    cost: int = 1
    limit: int | None = None
    per: timedelta | None = None


class Budgets:
    """Queries on budgets."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def reserve(
        self,
        scope: str,
        *,
        interval: timedelta | None = None,
        burst: int = 1,
        reserved: datetime | None = None,
        late: timedelta = LATE,
        cost: int = 1,
        limit: int | None = None,
        per: timedelta | None = None,
    ) -> Slot:
        """When to send.

        Args:
            scope: the limiter key.
            interval: the least mean time between sends; None is unpaced, and costs one read unless there is a pause, a
                pace that `observe` set, or a limit to record the use of.
            burst: how many may go at once after a rest.
            reserved: the slot that an earlier call gave. It holds unless a pause moved it, or it was missed.
            late: how much a slot of a paced scope may be missed by; more for who missed one before, or workers that are
                always late would never send.
            cost: how many sends it is worth; one that is worth more than `burst` is let go, and paid for afterwards.
            limit: what the other side allows, for `uses`; it decides nothing.
            per: the window of `limit`.
        """
        async with self._database.read() as connection:
            row = await _find(connection, scope)
        return await self._reserve(scope, row, _Wish(interval, burst, reserved, late, cost, limit, per))

    async def reserve_unpaced(self, scopes: Sequence[str], reserved: Mapping[str, datetime]) -> dict[str, Slot]:
        """`reserve` for several unpaced scopes, which cost one read together as long as none is paused."""
        async with self._database.read() as connection:
            found = await connection.execute(select(budgets).where(budgets.c.scope.in_(scopes)))
            rows = {row["scope"]: row for row in found.mappings()}
        return {
            scope: await self._reserve(scope, rows.get(scope), _Wish(reserved=reserved.get(scope))) for scope in scopes
        }

    async def _reserve(self, scope: str, row: RowMapping | None, wish: _Wish) -> Slot:
        now = self._clock.now()
        troubled = row is not None and row["failures"] > 0
        paced = wish.interval is not None or _pace(row, now) is not None
        missed = paced and wish.reserved is not None and wish.reserved < now - wish.late
        if (
            row is not None
            and wish.reserved is not None
            and not missed
            and micros(wish.reserved) >= row["blocked_until"]
        ):
            return Slot(max(wish.reserved, now), troubled=troubled)
        if not paced and wish.limit is None and (row is None or row["next_slot_at"] <= micros(now)):
            return Slot(now, troubled=troubled)
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:budget:{scope}")
            row = await _find(connection, scope)
            at, next_slot = _slot(row, now, wish)
            used = _counted(row, max(at, now), wish.cost, wish.limit, wish.per)
            await _save(connection, scope, row, next_slot_at=micros(next_slot), aligned=None, **used)
        if row is not None and row["blocked_until"] > micros(now):
            return Slot(max(at, now), PausedFor(row["blocked_for"]), row["detail"] or "", troubled=row["failures"] > 0)
        return Slot(max(at, now), troubled=troubled)

    async def charge(self, scope: str, interval: timedelta, cost: int) -> None:
        """What a send cost beyond what was reserved for it: the next slot is `cost` intervals later.

        Below 0 it cost less: the next slot is earlier, but not before now. The pace that `observe` set counts, too.
        """
        if not cost:
            return
        now = self._clock.now()
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:budget:{scope}")
            row = await _find(connection, scope)
            next_slot = _charged(row, now, interval, cost)
            used = _counted(row, now, cost, None, None)
            await _save(connection, scope, row, next_slot_at=micros(next_slot), **used)

    async def reserve_window(self, scope: str, *, limit: int, per: timedelta, aligned: bool, cost: int = 1) -> Slot:
        """Go now, if the window has room, and be counted; else when to ask again.

        A slot that is not now is no reservation. A call that costs more than `limit` goes in a window of its own.

        Args:
            scope: the limiter key.
            limit: calls in a window; they may come at once.
            per: the window's length.
            aligned: windows begin at multiples of `per` since 1970 UTC, such as at midnight; else with the first call
                after the window before.
            cost: how many calls it is worth.
        """
        async with self._database.read() as connection:
            row = await _find(connection, scope)
        full = self._full(row, limit, per, aligned=aligned, cost=cost)
        if full is not None:
            return full
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:budget:{scope}")
            row = await _find(connection, scope)
            now = self._clock.now()
            if row is not None and row["blocked_until"] > micros(now):
                at = max(row["blocked_until"], row["next_slot_at"])
                await _save(connection, scope, row, next_slot_at=at + RETURN_INTERVAL // MICROSECOND)
                detail = row["detail"] or ""
                return Slot(from_micros(at), PausedFor(row["blocked_for"]), detail, troubled=row["failures"] > 0)
            full = self._full(row, limit, per, aligned=aligned, cost=cost)
            if full is not None:
                return full
            began, used = _window(row, now, per, aligned=aligned)
            await _save(
                connection,
                scope,
                row,
                call_limit=limit,
                per=per // MICROSECOND,
                aligned=aligned,
                window_started_at=micros(began),
                used=used + cost,
                last_used_at=micros(now),
            )
        return Slot(now, troubled=row is not None and row["failures"] > 0)

    def _full(self, row: RowMapping | None, limit: int, per: timedelta, *, aligned: bool, cost: int) -> Slot | None:
        """When to ask again, if there is no pause and the window has no room."""
        now = self._clock.now()
        began, used = _window(row, now, per, aligned=aligned)
        if row is None or row["blocked_until"] > micros(now) or not used or used + cost <= limit:
            return None
        return Slot(began + per, detail=f"{used} of {limit} calls used", troubled=row["failures"] > 0)

    async def observe(
        self,
        scope: str,
        *,
        remaining: int,
        resets_at: datetime,
        limit: int | None = None,
        interval: timedelta | None = None,
    ) -> None:
        """What the other side says: so many are left until `resets_at`. One read, unless it changes something.

        With none left there is no slot before `resets_at`. With fewer left than `interval` would use until then, slots
        are as far apart as makes them last; a scope of `reserve_window` is not slowed, its window counts as full as it
        is said to be.

        Args:
            scope: the limiter key.
            remaining: calls, or points where costs are points.
            resets_at: when there are `limit` again; taken for at most 31 days from now, and for nothing if it is past.
            limit: what the other side allows.
            interval: the pace that `reserve` is called with.
        """
        now = self._clock.now()
        seen = _Seen(remaining, min(resets_at, now + LONGEST_RESET), limit, interval or UNPACED)
        if seen.resets_at <= now:
            return
        async with self._database.read() as connection:
            row = await _find(connection, scope)
        if not _learned(row, now, seen):
            return
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:budget:{scope}")
            row = await _find(connection, scope)
            learned = _learned(row, now, seen)
            if learned:
                await _save(connection, scope, row, **learned)

    async def pause(self, scope: str, why: PausedFor, *, asked: timedelta | None = None, detail: str = "") -> datetime:
        """Move all slots of `scope` behind a pause; when it ends.

        Without `asked`, or where that is no time at all, it doubles from 1 s to 1 min with every pause since the last
        success; where the pause before has only just ended, it is at least so long. Refusals of requests that were sent
        before a pause began do not lengthen it.
        """
        now = self._clock.now()
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:budget:{scope}")
            row = await _find(connection, scope)
            failures = row["failures"] if row else 0
            running = row is not None and row["blocked_until"] > micros(now)
            blocked_until = max(micros(_paused_until(row, now, asked)), row["blocked_until"] if row else NEVER)
            if running and row is not None and row["blocked_for"] == PausedFor.AUTH:
                why, detail = PausedFor.AUTH, row["detail"]
            await _save(
                connection,
                scope,
                row,
                next_slot_at=max(blocked_until, row["next_slot_at"] if row else NEVER),
                blocked_until=blocked_until,
                blocked_for=why.value,
                detail=detail[:500],
                failures=failures if running else failures + 1,
            )
        return from_micros(blocked_until)

    async def succeeded(self, scope: str) -> None:
        """Forget failures of a troubled scope: the next pause is short again."""
        async with self._database.write() as connection:
            await connection.execute(
                update(budgets)
                .where(budgets.c.scope == scope, budgets.c.blocked_until <= micros(self._clock.now()))
                .values(failures=0)
            )

    async def paused(self) -> dict[str, Slot]:
        """Every scope that is paused now."""
        query = select(budgets).where(budgets.c.blocked_until > micros(self._clock.now()))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return {
            row["scope"]: Slot(from_micros(row["blocked_until"]), PausedFor(row["blocked_for"]), row["detail"] or "")
            for row in rows
        }

    async def uses(self, prefix: str | None = None, *, limit: int = 1_000) -> list[Use]:
        """Scopes that begin with `prefix`, None is all, by name; at most `limit` of them."""
        query = select(budgets).order_by(budgets.c.scope).limit(limit)
        if prefix:
            query = query.where(func.substr(budgets.c.scope, 1, len(prefix)) == prefix)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        now = self._clock.now()
        return [_use(row, now) for row in rows]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The arguments of `observe`."""

    remaining: int
    resets_at: datetime
    limit: int | None
    interval: timedelta


def spread(until: datetime, over: timedelta) -> datetime:
    """`until` and up to `over` later, so that those who were told the same time do not all come at once."""
    return until + over * random.random()  # noqa: S311 - no secret


async def _find(connection: AsyncConnection, scope: str) -> RowMapping | None:
    return (await connection.execute(select(budgets).where(budgets.c.scope == scope))).mappings().first()


async def _save(connection: AsyncConnection, scope: str, row: RowMapping | None, **values: object) -> None:
    if row is not None:
        await connection.execute(update(budgets).where(budgets.c.scope == scope).values(**values))
        return
    fresh = {"next_slot_at": NEVER, "blocked_until": NEVER, "failures": 0} | values
    await connection.execute(upsert(connection.dialect)(budgets).values(scope=scope, **fresh))


def _pace(row: RowMapping | None, now: datetime) -> timedelta | None:
    """What `observe` slowed the scope down to, as long as that is in force."""
    if row is None or row["pace"] is None or row["pace_until"] <= micros(now):
        return None
    return MICROSECOND * int(row["pace"])


def _slot(row: RowMapping | None, now: datetime, wish: _Wish) -> tuple[datetime, datetime]:
    """When it may go, and the next one's slot."""
    paused = row is not None and row["blocked_until"] > micros(now)
    step = wish.interval
    if step is None:
        step = RETURN_INTERVAL if row is not None and row["next_slot_at"] > micros(now) else UNPACED
    pace = _pace(row, now)
    burst = 1 if pace is not None else wish.burst
    next_slot = from_micros(row["next_slot_at"]) if row else now - step * burst
    # after a pause there is no burst: the first one finds out whether it is over
    earliest = from_micros(row["blocked_until"]) if row and paused else now - step * (burst - 1)
    slot = max(next_slot, earliest)
    after = slot + step * wish.cost
    if row is not None and pace is not None:
        after = max(after, min(slot + pace * wish.cost, from_micros(row["pace_until"])))
    if row is not None and paused and row["blocked_for"] == PausedFor.AUTH and slot <= earliest:
        after = max(after, slot + PROBE)
    # as many slots as it costs must have come, or a burst of dear ones would be larger than one of cheap ones
    return slot + step * (min(wish.cost, burst) - 1), after


def _paused_until(row: RowMapping | None, now: datetime, asked: timedelta | None) -> datetime:
    named = asked if asked is not None and asked > timedelta() else None
    if row is not None and row["blocked_until"] > micros(now):
        return from_micros(row["blocked_until"]) if named is None else now + named
    failures = row["failures"] if row else 0
    doubled: timedelta = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))
    if named is None:
        return now + doubled
    again = row is not None and failures > 0 and now - from_micros(row["blocked_until"]) <= AT_ONCE
    return now + (max(named, doubled) if again else named)


def _charged(row: RowMapping | None, now: datetime, interval: timedelta, cost: int) -> datetime:
    """The next slot, after what a send cost besides what was reserved for it."""
    pace = _pace(row, now)
    if row is None:
        return now + interval * max(cost, 0)
    next_slot = from_micros(row["next_slot_at"])
    if cost < 0:
        earliest = max(now, from_micros(row["blocked_until"]))
        return max(next_slot + max(interval, pace or UNPACED) * cost, min(next_slot, earliest))
    begins = max(next_slot, now)
    charged = begins + interval * cost
    return charged if pace is None else max(charged, min(begins + pace * cost, from_micros(row["pace_until"])))


def _counted(
    row: RowMapping | None, at: datetime, cost: int, limit: int | None, per: timedelta | None
) -> dict[str, int | None]:
    """The columns that say what a scope is used for, after a use at `at`. Windows begin with a use."""
    values: dict[str, int | None] = {"last_used_at": micros(at)}
    if limit is not None:
        values["call_limit"] = limit
    window = per // MICROSECOND if per is not None else row["per"] if row else None
    if window is None:
        return values
    values["per"] = window
    began = row["window_started_at"] if row else None
    if began is None or micros(at) >= began + window:
        return values | ({"window_started_at": micros(at), "used": cost} if cost > 0 else {})
    return values | {"used": max((row["used"] if row else 0) + cost, 0)}


def _window(row: RowMapping | None, now: datetime, per: timedelta, *, aligned: bool) -> tuple[datetime, int]:
    """When the window of `reserve_window` that has `now` in it began, and how many of it are used."""
    known = row is not None and row["window_started_at"] is not None
    if aligned:
        began = now - (now - EPOCH) % per
        return began, row["used"] if row and known and row["window_started_at"] >= micros(began) else 0
    if row is None or not known or micros(now) >= row["window_started_at"] + per // MICROSECOND:
        return now, 0
    return from_micros(row["window_started_at"]), row["used"]


def _learned(row: RowMapping | None, now: datetime, seen: _Seen) -> dict[str, object]:
    """The columns that an observation changes; none if it is no news."""
    if seen.remaining <= 0:
        return _emptied(row, now, seen)
    if row is not None and row["aligned"] is not None:
        return _synchronised(row, now, seen)
    needed = (seen.resets_at - now) / seen.remaining
    pace = _pace(row, now)
    if needed <= seen.interval * (1 + MATERIAL):
        return {} if pace is None else {"pace": None, "pace_until": None}
    if row is not None and pace is not None:
        moved = abs(from_micros(row["pace_until"]) - seen.resets_at)
        if abs(needed - pace) <= pace * MATERIAL and moved <= (seen.resets_at - now) * MATERIAL:
            return {}
    learned = {"pace": needed // MICROSECOND + 1, "pace_until": micros(seen.resets_at)}
    return learned | _said(row, now, seen)


def _emptied(row: RowMapping | None, now: datetime, seen: _Seen) -> dict[str, object]:
    until = micros(seen.resets_at)
    if row is not None and row["blocked_until"] >= until:
        return {}
    learned: dict[str, object] = {"blocked_until": until, "next_slot_at": max(until, row["next_slot_at"] if row else 0)}
    if row is None or row["blocked_until"] <= micros(now) or row["blocked_for"] != PausedFor.AUTH:
        of = "" if seen.limit is None else f" of {seen.limit}"
        detail = f"none{of} left until {seen.resets_at:%d %b %H:%M:%S} UTC"
        learned |= {"blocked_for": PausedFor.LIMIT.value, "detail": detail}
    return learned | _said(row, now, seen)


def _synchronised(row: RowMapping, now: datetime, seen: _Seen) -> dict[str, object]:
    """Others call there too, so that more of the window is used than we know of."""
    per, limit = MICROSECOND * int(row["per"]), int(row["call_limit"])
    began, used = _window(row, now, per, aligned=row["aligned"])
    if seen.remaining >= (limit - used) * (1 - MATERIAL):
        return {}
    return {"window_started_at": micros(began), "used": limit - seen.remaining} | _said(row, now, seen)


def _said(row: RowMapping | None, now: datetime, seen: _Seen) -> dict[str, object]:
    """The window as the other side counts it; `reserve_window` knows its own limit, and when an aligned one begins."""
    windowed = row is not None and row["aligned"] is not None
    told: dict[str, object] = {} if windowed or seen.limit is None else {"call_limit": seen.limit}
    limit = row["call_limit"] if row is not None and (windowed or seen.limit is None) else seen.limit
    if row is None or row["per"] is None or limit is None or row["aligned"]:
        return told
    began = seen.resets_at - MICROSECOND * int(row["per"])
    if began > now:
        return told
    return told | {"window_started_at": micros(began), "used": max(limit - seen.remaining, 0)}


def _use(row: RowMapping, now: datetime) -> Use:
    at = micros(now)
    per = None if row["per"] is None else MICROSECOND * int(row["per"])
    used, resets_at = 0, None
    if per is not None and row["window_started_at"] is not None:
        if row["aligned"] is None:
            ends, used = from_micros(row["window_started_at"]) + per, row["used"]
        else:
            began, used = _window(row, now, per, aligned=row["aligned"])
            ends = began + per
        used = used if ends > now else 0
        resets_at = ends if used else None
    limit = row["call_limit"]
    paused = row["blocked_until"] > at
    next_slot = max(row["next_slot_at"], row["blocked_until"])
    if row["aligned"] is not None:  # its slots are the windows; the column only parts those who wait for a pause to end
        next_slot = row["blocked_until"]
        if resets_at is not None and used >= limit:
            next_slot = max(next_slot, micros(resets_at))
    return Use(
        scope=row["scope"],
        limit=limit,
        per=per,
        used=used,
        remaining=None if limit is None else max(limit - used, 0),
        resets_at=resets_at,
        next_slot_at=from_micros(next_slot) if next_slot > at else None,
        paused_for=PausedFor(row["blocked_for"]) if paused else None,
        paused_until=from_micros(row["blocked_until"]) if paused else None,
        detail=(row["detail"] or "") if paused else "",
    )
