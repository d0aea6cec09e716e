"""Broadcasts, and what became of their recipients; the recipients themselves are in store/recipients.py."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.payloads.notification import Route, TargetOutcome
from runtime.clock import Clock, from_micros, micros
from store.database import Database, advisory_lock
from store.dialect import upsert
from store.tables import broadcast_chunks, broadcasts, jobs


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What is said to whom; see store/notifications.py for the words. `paused` is why, or None."""

    broadcast_id: UUID
    tenant: str
    set_id: str
    total: int
    category: str
    routes: tuple[Route, ...]
    created_at: datetime
    expires_at: datetime
    urgent: bool = False
    mandatory: bool = False
    every: bool = False
    resend: bool = True
    template: str | None = None
    content: Mapping[str, JsonValue] | None = None
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    paused: str | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """Recipients so far by outcome (see contracts/payloads/broadcast.py). `since` counts those of lately."""

    counts: Counter[str]
    since: int

    @property
    def done(self) -> int:
        """All of them."""
        return self.counts.total()


class Broadcasts:
    """Queries on broadcasts."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, connection: AsyncConnection, new: Broadcast) -> None:
        """Store within the transaction that stores its job."""
        await connection.execute(
            insert(broadcasts).values(
                broadcast_id=str(new.broadcast_id),
                tenant=new.tenant,
                set_id=new.set_id,
                total=new.total,
                category=new.category,
                urgent=new.urgent,
                mandatory=new.mandatory,
                routes=[route.value for route in new.routes],
                every=new.every,
                resend=new.resend,
                template=new.template,
                content=dict(new.content) if new.content is not None else None,
                data=dict(new.data),
                created_at=micros(new.created_at),
                expires_at=micros(new.expires_at),
            )
        )

    async def get(self, tenant: str | None, broadcast_id: UUID) -> Broadcast | None:
        """The broadcast, unless it is another tenant's; `tenant` None is any."""
        query = select(broadcasts).where(broadcasts.c.broadcast_id == str(broadcast_id))
        if tenant is not None:
            query = query.where(broadcasts.c.tenant == tenant)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _broadcast(row) if row else None

    async def record_chunk(
        self, broadcast_id: UUID, first_line: int, counts: Mapping[str, int], *, began: datetime
    ) -> None:
        """Note what an execution that `began` then made of a chunk.

        It replaces what earlier executions said, and says nothing once a later one did: it was given up by then.
        """
        mine = {"broadcast_id": str(broadcast_id), "first_line": first_line, "at": micros(began)}
        before = [broadcast_chunks.c[name] == mine[name] for name in ("broadcast_id", "first_line")]
        # Nothing is counted as none sent, so that an execution of before finds who came after it.
        counted = counts or {TargetOutcome.SENT.value: 0}
        rows = [mine | {"outcome": outcome, "recipients": count} for outcome, count in counted.items()]
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:chunk:{broadcast_id}:{first_line}")
            latest = (await connection.execute(select(func.max(broadcast_chunks.c.at)).where(*before))).scalar()
            if latest is None or latest <= micros(began):
                await connection.execute(delete(broadcast_chunks).where(*before))
                await connection.execute(insert(broadcast_chunks), rows)

    async def record_outcome(self, broadcast_id: UUID, first_line: int, outcome: str, count: int) -> None:
        """Note one more outcome of a chunk; repeated, it replaces itself."""
        key = {"broadcast_id": str(broadcast_id), "first_line": first_line, "outcome": outcome}
        values = {"recipients": count, "at": micros(self._clock.now())}
        async with self._database.write() as connection:
            row = upsert(connection.dialect)(broadcast_chunks).values(**key, **values)
            await connection.execute(row.on_conflict_do_update(index_elements=list(key), set_=values))

    async def reached(self, broadcast_id: UUID, *, since: datetime) -> Reached:
        """Recipients over all chunks so far; those of chunks that began at or after `since` also for themselves."""
        number, at = broadcast_chunks.c.recipients, broadcast_chunks.c.at
        query = (
            select(
                broadcast_chunks.c.outcome,
                func.sum(number).label("recipients"),
                func.sum(number).filter(at >= micros(since)).label("lately"),
            )
            .where(broadcast_chunks.c.broadcast_id == str(broadcast_id))
            .group_by(broadcast_chunks.c.outcome)
            .having(func.sum(number) > 0)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        counts = Counter({row["outcome"]: int(row["recipients"]) for row in rows})
        return Reached(counts, sum(int(row["lately"] or 0) for row in rows))

    async def note_pause(self, broadcast_id: UUID, why: str | None) -> None:
        """Note why it is paused, or that it is not."""
        async with self._database.write() as connection:
            await connection.execute(
                update(broadcasts).where(broadcasts.c.broadcast_id == str(broadcast_id)).values(paused=why)
            )

    async def unfinished(self, tenant: str) -> list[UUID]:
        """Those whose jobs are open, oldest first."""
        query = (
            select(broadcasts.c.broadcast_id)
            .join(jobs, jobs.c.job_id == broadcasts.c.broadcast_id)
            .where(broadcasts.c.tenant == tenant, jobs.c.finished_at.is_(None))
            .order_by(broadcasts.c.created_at)
        )
        async with self._database.read() as connection:
            return [UUID(each) for each in (await connection.execute(query)).scalars()]


def _broadcast(row: RowMapping) -> Broadcast:
    values: dict[str, Any] = {**row}
    values["broadcast_id"] = UUID(row["broadcast_id"])
    values["routes"] = tuple(Route(each) for each in row["routes"])
    for name in ("created_at", "expires_at"):
        values[name] = from_micros(row[name])
    return Broadcast(**values)
