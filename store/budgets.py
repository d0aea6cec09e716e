"""Pace and pauses per limiter key, shared by all workers.

A reservation never answers no: it answers when the slot is (GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm).
The job sleeps until then and comes back with its reservation. A pause moves every slot that lies in it, and what waited
returns one by one behind it, not all at once.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_micros, micros
from store.database import Database, advisory_lock
from store.dialect import upsert
from store.tables import budgets

RETURN_INTERVAL = timedelta(milliseconds=20)  # between those that come back after a pause of an unpaced scope
FIRST_PAUSE = timedelta(seconds=1)  # one refusal among many sends may mean one message only
LONGEST_PAUSE = timedelta(minutes=1)  # without a time named by the other side: how late an outage's end is noticed
PROBE = timedelta(seconds=30)  # after a refused credential one goes first, and the others wait for how it fares
LATE = timedelta(seconds=5)  # a slot of a paced scope that was missed by more is lost, or a crowd would use old ones
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
    ) -> Slot:
        """When to send.

        Args:
            scope: the limiter key.
            interval: the least mean time between sends; None is unpaced, and costs one read unless there is a pause.
            burst: how many may go at once after a rest.
            reserved: the slot that an earlier call gave. It holds unless a pause moved it, or it was missed.
            late: how much a slot of a paced scope may be missed by; more for who missed one before, or workers that are
                always late would never send.
        """
        async with self._database.read() as connection:
            row = await _find(connection, scope)
        return await self._reserve(scope, row, interval, burst, reserved, late)

    async def reserve_unpaced(self, scopes: Sequence[str], reserved: Mapping[str, datetime]) -> dict[str, Slot]:
        """`reserve` for several unpaced scopes, which cost one read together as long as none is paused."""
        async with self._database.read() as connection:
            found = await connection.execute(select(budgets).where(budgets.c.scope.in_(scopes)))
            rows = {row["scope"]: row for row in found.mappings()}
        return {
            scope: await self._reserve(scope, rows.get(scope), None, 1, reserved.get(scope), LATE) for scope in scopes
        }

    async def _reserve(
        self,
        scope: str,
        row: RowMapping | None,
        interval: timedelta | None,
        burst: int,
        reserved: datetime | None,
        late: timedelta,
    ) -> Slot:
        now = self._clock.now()
        troubled = row is not None and row["failures"] > 0
        missed = interval is not None and reserved is not None and reserved < now - late
        if row is not None and reserved is not None and not missed and micros(reserved) >= row["blocked_until"]:
            return Slot(max(reserved, now), troubled=troubled)
        if interval is None and (row is None or row["next_slot_at"] <= micros(now)):
            return Slot(now, troubled=troubled)
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:budget:{scope}")
            row = await _find(connection, scope)
            step = interval or RETURN_INTERVAL
            next_slot = from_micros(row["next_slot_at"]) if row else now - step * burst
            paused = row is not None and row["blocked_until"] > micros(now)
            # after a pause there is no burst: the first one finds out whether it is over
            earliest = from_micros(row["blocked_until"]) if row and paused else now - step * (burst - 1)
            slot = max(next_slot, earliest)
            if row is not None and paused and row["blocked_for"] == PausedFor.AUTH and slot <= earliest:
                step = PROBE
            await _save(connection, scope, row, next_slot_at=micros(slot + step))
        if row is not None and paused:
            return Slot(max(slot, now), PausedFor(row["blocked_for"]), row["detail"] or "", troubled=True)
        return Slot(max(slot, now), troubled=troubled)

    async def pause(self, scope: str, why: PausedFor, *, asked: timedelta | None = None, detail: str = "") -> datetime:
        """Move all slots of `scope` behind a pause; when it ends.

        Without `asked` it doubles from 1 s to 1 min with every pause since the last success. Refusals of requests that
        were sent before a pause began do not lengthen it.
        """
        now = self._clock.now()
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:budget:{scope}")
            row = await _find(connection, scope)
            failures = row["failures"] if row else 0
            running = row is not None and row["blocked_until"] > micros(now)
            if asked is not None:
                until = now + asked
            elif running and row is not None:
                until = from_micros(row["blocked_until"])
            else:
                until = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))
            blocked_until = max(micros(until), row["blocked_until"] if row else NEVER)
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
