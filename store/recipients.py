"""Sets of recipients and audiences. A set is written once and never changed, so a running broadcast may read it.

An audience is a name of a set; saving it again gives the name to another set.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database
from store.dialect import upsert
from store.tables import audiences, broadcasts, recipient_sets, recipients


@dataclass(frozen=True, slots=True)
class Recipient:
    """One line of a set: a person, or a registered address (`target_id`). `data` is added to the broadcast's."""

    line: int
    person: str | None = None
    target_id: str | None = None
    data: Mapping[str, JsonValue] | None = None

    @property
    def who(self) -> str:
        """The same for the same recipient."""
        return f"person:{self.person}" if self.person is not None else f"target:{self.target_id}"


@dataclass(frozen=True, slots=True)
class RecipientSet:
    """`total` recipients, None while it is being written. `report`: what was found wrong while it was taken in."""

    set_id: str
    tenant: str
    total: int | None
    report: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audience:
    """A set of recipients with a name."""

    tenant: str
    name: str
    set_id: str
    total: int
    created_at: datetime


class Recipients:
    """Queries on sets of recipients and audiences."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, connection: AsyncConnection, tenant: str, set_id: str) -> None:
        """A new, empty set; `complete` makes it one that can be used."""
        await connection.execute(
            insert(recipient_sets).values(set_id=set_id, tenant=tenant, created_at=micros(self._clock.now()))
        )

    async def add(self, connection: AsyncConnection, set_id: str, batch: Sequence[Recipient]) -> list[int]:
        """Add at most MAX_ROWS_PER_WRITE; the lines whose recipient is in the set already."""
        assert len(batch) <= MAX_ROWS_PER_WRITE
        if not batch:
            return []
        rows = [
            {
                "set_id": set_id,
                "line": each.line,
                "who": each.who,
                "person": each.person,
                "target_id": each.target_id,
                "data": dict(each.data) if each.data else None,
            }
            for each in batch
        ]
        row = upsert(connection.dialect)(recipients).on_conflict_do_nothing().returning(recipients.c.line)
        made = set((await connection.execute(row, rows)).scalars())
        return [each.line for each in batch if each.line not in made]

    async def complete(
        self, connection: AsyncConnection, set_id: str, total: int, report: Mapping[str, JsonValue]
    ) -> None:
        """All recipients are in it."""
        await connection.execute(
            update(recipient_sets).where(recipient_sets.c.set_id == set_id).values(total=total, report=dict(report))
        )

    async def get(self, tenant: str, set_id: str, connection: AsyncConnection | None = None) -> RecipientSet | None:
        """The set, unless it is another tenant's."""
        if connection is None:
            async with self._database.read() as own:
                return await self.get(tenant, set_id, own)
        query = select(recipient_sets).where(recipient_sets.c.set_id == set_id, recipient_sets.c.tenant == tenant)
        row = (await connection.execute(query)).mappings().first()
        return RecipientSet(row["set_id"], row["tenant"], row["total"], row["report"] or {}) if row else None

    async def drop(self, set_id: str) -> int:
        """Delete at most MAX_ROWS_PER_WRITE recipients of a set, and in the end the set; how many. Zero: it is gone."""
        lines = select(recipients.c.line).where(recipients.c.set_id == set_id).limit(MAX_ROWS_PER_WRITE)
        async with self._database.write() as connection:
            done = await connection.execute(
                delete(recipients).where(recipients.c.set_id == set_id, recipients.c.line.in_(lines))
            )
            if not done.rowcount:
                await connection.execute(delete(recipient_sets).where(recipient_sets.c.set_id == set_id))
        return done.rowcount

    async def used(self, set_id: str) -> bool:
        """Whether a broadcast or an audience reads the set."""
        counts = [
            select(func.count()).select_from(table).where(table.c.set_id == set_id) for table in (broadcasts, audiences)
        ]
        async with self._database.read() as connection:
            return any([(await connection.execute(count)).scalar() for count in counts])

    async def between(self, set_id: str, first_line: int, last_line: int) -> list[Recipient]:
        """Those lines of the set that there are, in order."""
        return await self._select(set_id, recipients.c.line.between(first_line, last_line))

    async def of_lines(self, set_id: str, lines: Iterable[int]) -> list[Recipient]:
        """These lines of the set, in order."""
        return await self._select(set_id, recipients.c.line.in_(list(lines)))

    async def _select(self, set_id: str, wanted: ColumnElement[bool]) -> list[Recipient]:
        columns = (recipients.c.line, recipients.c.person, recipients.c.target_id, recipients.c.data)
        query = select(*columns).where(recipients.c.set_id == set_id, wanted).order_by(recipients.c.line)
        async with self._database.read() as connection:
            return [Recipient(*row) for row in await connection.execute(query)]

    async def bounds(self, set_id: str, from_line: int, size: int, chunks: int) -> list[tuple[int, int]]:
        """First and last line of the next `chunks` chunks of `size` recipients, from `from_line` on."""
        query = (
            select(recipients.c.line)
            .where(recipients.c.set_id == set_id, recipients.c.line >= from_line)
            .order_by(recipients.c.line)
            .limit(size * chunks)
        )
        async with self._database.read() as connection:
            lines = list((await connection.execute(query)).scalars())
        pieces = [lines[start : start + size] for start in range(0, len(lines), size)]
        return [(piece[0], piece[-1]) for piece in pieces]

    async def save_audience(self, tenant: str, name: str, set_id: str) -> str | None:
        """Give a set a name; the set that had it before, or None."""
        mine = (audiences.c.tenant == tenant, audiences.c.name == name)
        values = {"set_id": set_id, "created_at": micros(self._clock.now())}
        async with self._database.write() as connection:
            before = (await connection.execute(select(audiences.c.set_id).where(*mine))).scalar()
            row = upsert(connection.dialect)(audiences).values(tenant=tenant, name=name, **values)
            await connection.execute(row.on_conflict_do_update(index_elements=["tenant", "name"], set_=values))
        return before

    async def audience(self, tenant: str, name: str, connection: AsyncConnection | None = None) -> Audience | None:
        """The audience, or None."""
        if connection is None:
            async with self._database.read() as own:
                return await self.audience(tenant, name, own)
        return next(iter(await self._audiences(connection, tenant, audiences.c.name == name)), None)

    async def audiences(self, tenant: str) -> list[Audience]:
        """By name."""
        async with self._database.read() as connection:
            return await self._audiences(connection, tenant)

    async def remove_audience(self, tenant: str, name: str) -> str | None:
        """Forget the name; the set that had it, or None if there was none."""
        mine = (audiences.c.tenant == tenant, audiences.c.name == name)
        async with self._database.write() as connection:
            gone = await connection.execute(delete(audiences).where(*mine).returning(audiences.c.set_id))
            return gone.scalar()

    async def _audiences(
        self, connection: AsyncConnection, tenant: str, *wanted: ColumnElement[bool]
    ) -> list[Audience]:
        query = (
            select(audiences, recipient_sets.c.total)
            .join(recipient_sets, recipient_sets.c.set_id == audiences.c.set_id)
            .where(audiences.c.tenant == tenant, *wanted)
            .order_by(audiences.c.name)
        )
        rows: Any = (await connection.execute(query)).mappings().all()
        return [Audience(**{**row, "created_at": from_micros(row["created_at"])}) for row in rows]
