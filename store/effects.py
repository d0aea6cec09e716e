"""The ledger of effects: claimed before, settled after, so that a repeated activity does nothing twice.

A claimed, unsettled row found later means that a process died in between: maybe done. Or it is still at it: a claim has
an owner, and who takes it over takes it from that owner, so that of two one does.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from pydantic import JsonValue
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    literal,
    select,
    true,
    tuple_,
    update,
)

from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database
from store.dialect import JsonRows, upsert
from store.tables import effects

KEEP = timedelta(days=30)
CLAIM_TRIES = 3


class ClaimStatus(StrEnum):
    """NEW: do it now. SETTLED: it was done, see the outcome. UNSETTLED: maybe done."""

    NEW = "new"
    SETTLED = "settled"
    UNSETTLED = "unsettled"


class ClaimsContended(Exception):
    """Some effects could neither be claimed nor found; the text says how many, and what to do. None was claimed."""


class _JustReleased(Exception):
    """PostgreSQL: an effect was neither free nor found, because its owner released it in between."""


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
        """Claim one effect; of two that race, one gets NEW.

        Raises:
            ClaimsContended: as `write`.
        """
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

        Raises:
            ClaimsContended: others claim and release the same ones all the time. Nothing was written.
        """
        assert len(ended) + len(wanted) <= MAX_ROWS_PER_WRITE
        now = micros(self._clock.now())

        def work(connection: Connection) -> list[Claim]:
            if ended:
                _settle(connection, step, ended, now)
            return _claim_all(connection, step, wanted, now) if wanted else []

        for _ in range(CLAIM_TRIES):
            with suppress(_JustReleased):
                return await self._database.ledger_write(work)
        msg = f"effects of the step {step!r} are claimed and released by others all the time: try again later"
        raise ClaimsContended(msg)

    async def find(self, first_run_id: str, step: str, target: str) -> Claim | None:
        """The claim on one effect, without claiming it."""
        query = select(effects).where(_one(first_run_id, step, target))
        async with self._database.ledger_read() as connection:
            row = (await connection.execute(query)).first()
        return _claim(row) if row else None

    async def find_between(self, step: str, first: str, last: str) -> dict[EffectKey, Claim]:
        """The claims there are on effects of a step by runs with ids from `first` to `last`, without claiming any."""
        query = select(effects).where(effects.c.first_run_id.between(first, last), effects.c.step == step)
        async with self._database.ledger_read() as connection:
            rows = await connection.execute(query)
            return {EffectKey(row.first_run_id, row.target): _claim(row) for row in rows}

    async def of_run(self, first_run_id: str, step: str) -> list[Claim]:
        """All claims of one step of a run."""
        query = select(effects).where(effects.c.first_run_id == first_run_id, effects.c.step == step)
        async with self._database.ledger_read() as connection:
            return [_claim(row) for row in await connection.execute(query)]

    async def take_over(self, first_run_id: str, step: str, found: Claim) -> str | None:
        """Own an unsettled claim in the place of the owner it was found with; None if somebody else was faster."""
        owner = uuid.uuid4().hex
        before = effects.c.owner == found.owner if found.owner else effects.c.owner.is_(None)
        statement = (
            update(effects)
            .where(_one(first_run_id, step, found.target), effects.c.state == "claimed", before)
            .values(owner=owner, taken_at=micros(self._clock.now()))
        )
        taken = await self._database.ledger_write(lambda connection: connection.execute(statement).rowcount)
        return owner if taken else None

    async def release(self, first_run_id: str, step: str, target: str, *, owner: str) -> None:
        """Take a claim back: it is certain that nothing was done. A settled effect and another's claim stay."""
        statement = delete(effects).where(
            _one(first_run_id, step, target), effects.c.state == "claimed", effects.c.owner == owner
        )
        await self._database.ledger_write(lambda connection: connection.execute(statement))

    async def purge(self, older_than: timedelta = KEEP, limit: int = MAX_ROWS_PER_WRITE) -> int:
        """Delete at most `limit` that were claimed `older_than` ago or earlier; how many."""
        keys = (effects.c.first_run_id, effects.c.step, effects.c.target)
        old = select(*keys).where(effects.c.claimed_at <= micros(self._clock.now() - older_than)).limit(limit)
        statement = delete(effects).where(tuple_(*keys).in_(old))
        return await self._database.ledger_write(lambda connection: connection.execute(statement).rowcount)


def _settle(connection: Connection, step: str, ended: Mapping[EffectKey, JsonValue], now: int) -> None:
    rows = [[*key, json.dumps(outcome)] for key, outcome in sorted(ended.items(), key=itemgetter(0))]
    connection.execute(_settling(connection.dialect), {"rows": json.dumps(rows), "step": step, "now": now})


def _claim_all(connection: Connection, step: str, wanted: Sequence[EffectKey], now: int) -> list[Claim]:
    owner, at = uuid.uuid4().hex, from_micros(now)
    rows = json.dumps(sorted(wanted))  # one order for all, or two batches could deadlock
    given = {"rows": rows, "step": step, "now": now, "owner": owner}
    new = [Claim(key.target, ClaimStatus.NEW, claimed_at=at, taken_at=at, owner=owner) for key in wanted]
    if connection.execute(_claiming(connection.dialect), given).rowcount == len(wanted):
        return new
    pair = tuple_(effects.c.first_run_id, effects.c.target)
    found = {
        EffectKey(row.first_run_id, row.target): row
        for row in connection.execute(select(effects).where(effects.c.step == step, pair.in_(wanted)))
    }
    if len(found) < len(wanted):
        raise _JustReleased  # and begin anew: to insert it now would be out of the order
    return [mine if found[key].owner == owner else _claim(found[key]) for key, mine in zip(wanted, new, strict=True)]


@lru_cache(maxsize=4)
def _settling(dialect: Dialect) -> Insert:
    given = JsonRows(dialect, "rows")
    now = bindparam("now", type_=BigInteger)
    values: dict[str, ColumnElement[Any]] = {
        "first_run_id": given.text(0),
        "step": bindparam("step", type_=Text),
        "target": given.text(1),
        "state": literal("settled"),
        "outcome": given.json(2),
        "claimed_at": now,
        "settled_at": now,
    }
    row = upsert(dialect)(effects)
    return row.from_select(list(values), _each(given, values)).on_conflict_do_update(
        index_elements=["first_run_id", "step", "target"],
        set_={name: row.excluded[name] for name in ("state", "outcome", "settled_at")},
        where=effects.c.state != "settled",
    )


@lru_cache(maxsize=4)
def _claiming(dialect: Dialect) -> Insert:
    given = JsonRows(dialect, "rows")
    now = bindparam("now", type_=BigInteger)
    values: dict[str, ColumnElement[Any]] = {
        "first_run_id": given.text(0),
        "step": bindparam("step", type_=Text),
        "target": given.text(1),
        "state": literal("claimed"),
        "claimed_at": now,
        "owner": bindparam("owner", type_=Text),
        "taken_at": now,
    }
    return upsert(dialect)(effects).from_select(list(values), _each(given, values)).on_conflict_do_nothing()


def _each(given: JsonRows, values: Mapping[str, ColumnElement[Any]]) -> Select[Any]:
    # Without a WHERE, SQLite would read ON CONFLICT as a join's ON: https://sqlite.org/lang_upsert.html#parsing_ambiguity
    return select(*values.values()).select_from(given.rows).where(true())


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
