"""The ledger of effects: claimed before, settled after, so that a repeated activity does nothing twice.

A claimed, unsettled row found later means that a process died in between: maybe done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import JsonValue
from sqlalchemy import and_, delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database
from store.tables import effects

KEEP = timedelta(days=30)


class ClaimStatus(StrEnum):
    """NEW: do it now. SETTLED: it was done, see the outcome. UNSETTLED: maybe done."""

    NEW = "new"
    SETTLED = "settled"
    UNSETTLED = "unsettled"


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer for one target. `outcome` is what was settled; `claimed_at` is when it was first claimed."""

    target: str
    status: ClaimStatus
    outcome: JsonValue = None
    claimed_at: datetime | None = field(default=None, compare=False)


class Effects:
    """Queries on effects."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, first_run_id: str, step: str, target: str) -> Claim:
        """Claim one effect."""
        return (await self.claim_many(first_run_id, step, [target]))[0]

    async def claim_many(self, first_run_id: str, step: str, targets: Sequence[str]) -> list[Claim]:
        """Claim effects of one step: one claim per target, in the order given; of two that race, one gets NEW.

        A target that is named twice is claimed once, or its effect would be NEW twice.
        """
        once = list(dict.fromkeys(targets))
        claims: list[Claim] = []
        for start in range(0, len(once), MAX_ROWS_PER_WRITE):
            claims += await self._claim_batch(first_run_id, step, once[start : start + MAX_ROWS_PER_WRITE])
        return claims

    async def _claim_batch(self, first_run_id: str, step: str, targets: Sequence[str]) -> list[Claim]:
        engine = self._database.ledger
        upsert = sqlite.insert(effects) if engine.dialect.name == "sqlite" else postgresql.insert(effects)
        now = micros(self._clock.now())
        rows = [
            {"first_run_id": first_run_id, "step": step, "target": target, "state": "claimed", "claimed_at": now}
            for target in sorted(targets)  # one order for all, or two batches could deadlock
        ]
        mine = and_(effects.c.first_run_id == first_run_id, effects.c.step == step)
        async with self._database.ledger_write() as connection:
            made = await connection.execute(upsert.values(rows).on_conflict_do_nothing().returning(effects.c.target))
            new = set(made.scalars())
            known = {}
            if len(new) < len(targets):
                query = select(effects.c.target, effects.c.state, effects.c.outcome, effects.c.claimed_at).where(
                    mine, effects.c.target.in_(set(targets) - new)
                )
                known = {row.target: row for row in await connection.execute(query)}
        claims = []
        for target in targets:
            if target in new:
                claims.append(Claim(target, ClaimStatus.NEW))
            else:
                row = known[target]
                status = ClaimStatus.SETTLED if row.state == "settled" else ClaimStatus.UNSETTLED
                claims.append(Claim(target, status, row.outcome, from_micros(row.claimed_at)))
        return claims

    async def find(self, first_run_id: str, step: str, target: str) -> Claim | None:
        """The claim on one effect, without claiming it."""
        query = select(effects.c.state, effects.c.outcome, effects.c.claimed_at).where(
            effects.c.first_run_id == first_run_id, effects.c.step == step, effects.c.target == target
        )
        async with self._database.ledger_read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        status = ClaimStatus.SETTLED if row.state == "settled" else ClaimStatus.UNSETTLED
        return Claim(target, status, row.outcome, from_micros(row.claimed_at))

    async def settle(self, first_run_id: str, step: str, target: str, outcome: JsonValue) -> None:
        """Note how one effect ended."""
        await self.settle_many(first_run_id, step, {target: outcome})

    async def settle_many(self, first_run_id: str, step: str, outcomes: Mapping[str, JsonValue]) -> None:
        """Note how effects of one step ended; `outcomes` by target."""
        items = sorted(outcomes.items())
        now = micros(self._clock.now())
        for start in range(0, len(items), MAX_ROWS_PER_WRITE):
            async with self._database.ledger_write() as connection:
                for target, outcome in items[start : start + MAX_ROWS_PER_WRITE]:
                    await connection.execute(
                        update(effects)
                        .where(
                            tuple_(effects.c.first_run_id, effects.c.step, effects.c.target)
                            == tuple_(first_run_id, step, target)
                        )
                        .values(state="settled", outcome=outcome, settled_at=now)
                    )

    async def release(self, first_run_id: str, step: str, target: str) -> None:
        """Take a claim back: it is certain that nothing was done. A settled effect stays."""
        async with self._database.ledger_write() as connection:
            await connection.execute(
                delete(effects).where(
                    effects.c.first_run_id == first_run_id,
                    effects.c.step == step,
                    effects.c.target == target,
                    effects.c.state == "claimed",
                )
            )

    async def purge(self, older_than: timedelta = KEEP, limit: int = MAX_ROWS_PER_WRITE) -> int:
        """Delete at most `limit` that were claimed `older_than` ago or earlier; how many."""
        keys = (effects.c.first_run_id, effects.c.step, effects.c.target)
        old = select(*keys).where(effects.c.claimed_at <= micros(self._clock.now() - older_than)).limit(limit)
        async with self._database.ledger_write() as connection:
            done = await connection.execute(delete(effects).where(tuple_(*keys).in_(old)))
        return done.rowcount
