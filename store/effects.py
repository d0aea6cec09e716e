"""The ledger of effects: claimed before, settled after, so that a repeated activity does nothing twice.

A claimed, unsettled row found later means that a process died in between: maybe done. Or it is still at it: a claim has
an owner, and who takes it over takes it from that owner, so that of two one does.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Row, and_, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database
from store.dialect import upsert
from store.tables import effects

KEEP = timedelta(days=30)


class ClaimStatus(StrEnum):
    """NEW: do it now. SETTLED: it was done, see the outcome. UNSETTLED: maybe done."""

    NEW = "new"
    SETTLED = "settled"
    UNSETTLED = "unsettled"


class EffectKey(NamedTuple):
    """An effect of a step: who does it, and to what."""

    first_run_id: str
    target: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer for one target.

    `outcome` is what was settled. `claimed_at` is when it was first claimed, `taken_at` when `owner` did so. Claims of
    one transaction have one owner.
    """

    target: str
    status: ClaimStatus
    outcome: JsonValue = None
    claimed_at: datetime | None = field(default=None, compare=False)
    taken_at: datetime | None = field(default=None, compare=False)
    owner: str = field(default="", compare=False)


class Effects:
    """Queries on effects."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, first_run_id: str, step: str, target: str) -> Claim:
        """Claim one effect; of two that race, one gets NEW."""
        return (await self.claim_many(step, [EffectKey(first_run_id, target)]))[0]

    async def claim_many(self, step: str, keys: Sequence[EffectKey]) -> list[Claim]:
        """Claim effects of one step: one claim per effect, in the order given.

        An effect that is named twice is claimed once, or it would be NEW twice.
        """
        once = list(dict.fromkeys(keys))
        claims: list[Claim] = []
        for start in range(0, len(once), MAX_ROWS_PER_WRITE):
            claims += await self.write(step, {}, once[start : start + MAX_ROWS_PER_WRITE])
        return claims

    async def settle(self, first_run_id: str, step: str, target: str, outcome: JsonValue) -> None:
        """Note how one effect ended."""
        await self.write(step, {EffectKey(first_run_id, target): outcome}, [])

    async def write(self, step: str, ended: Mapping[EffectKey, JsonValue], wanted: Sequence[EffectKey]) -> list[Claim]:
        """Note how some effects of a step ended and claim others, in one transaction.

        At most MAX_ROWS_PER_WRITE together, no `wanted` one twice; one claim for each of these.
        """
        assert len(ended) + len(wanted) <= MAX_ROWS_PER_WRITE
        async with self._database.ledger_write() as connection:
            if ended:
                await self._settle(connection, step, ended)
            return await self._claim(connection, step, wanted) if wanted else []

    async def _settle(self, connection: AsyncConnection, step: str, ended: Mapping[EffectKey, JsonValue]) -> None:
        now = micros(self._clock.now())
        rows = [
            {
                "first_run_id": key.first_run_id,
                "step": step,
                "target": key.target,
                "state": "settled",
                "outcome": outcome,
                "claimed_at": now,
                "settled_at": now,
            }
            for key, outcome in sorted(ended.items(), key=lambda each: each[0])
        ]
        row = upsert(connection.dialect)(effects)
        await connection.execute(
            row.on_conflict_do_update(
                index_elements=["first_run_id", "step", "target"],
                set_={name: row.excluded[name] for name in ("state", "outcome", "settled_at")},
                where=effects.c.state != "settled",
            ),
            rows,
        )

    async def _claim(self, connection: AsyncConnection, step: str, wanted: Sequence[EffectKey]) -> list[Claim]:
        now = micros(self._clock.now())
        owner = uuid.uuid4().hex
        rows = [
            {
                "first_run_id": key.first_run_id,
                "step": step,
                "target": key.target,
                "state": "claimed",
                "claimed_at": now,
                "owner": owner,
                "taken_at": now,
            }
            for key in sorted(wanted)  # one order for all, or two batches could deadlock
        ]
        row = upsert(connection.dialect)(effects).on_conflict_do_nothing()
        made = await connection.execute(row.returning(effects.c.first_run_id, effects.c.target), rows)
        new = {EffectKey(*each) for each in made}
        known: dict[EffectKey, Claim] = {}
        if len(new) < len(wanted):
            pair = tuple_(effects.c.first_run_id, effects.c.target)
            query = select(effects).where(effects.c.step == step, pair.in_([key for key in wanted if key not in new]))
            for found in await connection.execute(query):
                known[EffectKey(found.first_run_id, found.target)] = _claim(found)
        at = from_micros(now)
        return [
            Claim(key.target, ClaimStatus.NEW, claimed_at=at, taken_at=at, owner=owner) if key in new else known[key]
            for key in wanted
        ]

    async def find(self, first_run_id: str, step: str, target: str) -> Claim | None:
        """The claim on one effect, without claiming it."""
        query = select(effects).where(_one(first_run_id, step, target))
        async with self._database.ledger_read() as connection:
            row = (await connection.execute(query)).first()
        return _claim(row) if row else None

    async def find_many(self, step: str, keys: Sequence[EffectKey]) -> dict[EffectKey, Claim]:
        """The claims there are on effects of a step, without claiming any."""
        found: dict[EffectKey, Claim] = {}
        pair = tuple_(effects.c.first_run_id, effects.c.target)
        async with self._database.ledger_read() as connection:
            for start in range(0, len(keys), MAX_ROWS_PER_WRITE):
                query = select(effects).where(
                    effects.c.step == step, pair.in_(keys[start : start + MAX_ROWS_PER_WRITE])
                )
                for row in await connection.execute(query):
                    found[EffectKey(row.first_run_id, row.target)] = _claim(row)
        return found

    async def of_run(self, first_run_id: str, step: str) -> list[Claim]:
        """All claims of one step of a run."""
        query = select(effects).where(effects.c.first_run_id == first_run_id, effects.c.step == step)
        async with self._database.ledger_read() as connection:
            return [_claim(row) for row in await connection.execute(query)]

    async def take_over(self, first_run_id: str, step: str, found: Claim) -> str | None:
        """Own an unsettled claim in the place of the owner it was found with; None if somebody else was faster."""
        owner = uuid.uuid4().hex
        before = effects.c.owner == found.owner if found.owner else effects.c.owner.is_(None)
        async with self._database.ledger_write() as connection:
            done = await connection.execute(
                update(effects)
                .where(_one(first_run_id, step, found.target), effects.c.state == "claimed", before)
                .values(owner=owner, taken_at=micros(self._clock.now()))
            )
        return owner if done.rowcount else None

    async def release(self, first_run_id: str, step: str, target: str, *, owner: str) -> None:
        """Take a claim back: it is certain that nothing was done. A settled effect and another's claim stay."""
        async with self._database.ledger_write() as connection:
            await connection.execute(
                delete(effects).where(
                    _one(first_run_id, step, target), effects.c.state == "claimed", effects.c.owner == owner
                )
            )

    async def purge(self, older_than: timedelta = KEEP, limit: int = MAX_ROWS_PER_WRITE) -> int:
        """Delete at most `limit` that were claimed `older_than` ago or earlier; how many."""
        keys = (effects.c.first_run_id, effects.c.step, effects.c.target)
        old = select(*keys).where(effects.c.claimed_at <= micros(self._clock.now() - older_than)).limit(limit)
        async with self._database.ledger_write() as connection:
            done = await connection.execute(delete(effects).where(tuple_(*keys).in_(old)))
        return done.rowcount


def _one(first_run_id: str, step: str, target: str) -> ColumnElement[bool]:
    return and_(effects.c.first_run_id == first_run_id, effects.c.step == step, effects.c.target == target)


def _claim(row: Row[Any]) -> Claim:
    return Claim(
        row.target,
        ClaimStatus.SETTLED if row.state == "settled" else ClaimStatus.UNSETTLED,
        row.outcome,
        claimed_at=from_micros(row.claimed_at),
        taken_at=from_micros(row.taken_at or row.claimed_at),
        owner=row.owner or "",
    )
