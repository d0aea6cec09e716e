"""Activity events: what happened to whom, as the product reported it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select

from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database
from store.dialect import upsert
from store.tables import events

PAUSE = timedelta(milliseconds=20)  # between bulk writes, so that the API's own inserts get their turn


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `event_id` is the tenant's, or made here; `at` is when it happened, None for now."""

    event_id: str
    person: str
    kind: str
    title: str
    text: str | None = None
    url: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """How many were stored now, and how many were known already."""

    stored: int
    known: int


@dataclass(frozen=True, slots=True)
class Window:
    """Events received after `after` (None: ever) and at or before `until`."""

    after: datetime | None
    until: datetime


@dataclass(frozen=True, slots=True)
class Heard:
    """A person's newest events of a window, newest first, and how many there are in all."""

    person: str
    newest: tuple[Event, ...]
    count: int


class Events:
    """Queries on events."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, tenant: str, reported: Sequence[Event]) -> Received:
        """Store those that are not known, MAX_ROWS_PER_WRITE a transaction.

        The time of receipt is taken within the transaction, so that little passes until others see the rows. When it
        fails halfway, what was stored before stays; the same ids again store the rest.
        """
        stored = 0
        for start in range(0, len(reported), MAX_ROWS_PER_WRITE):
            if start:
                await asyncio.sleep(PAUSE.total_seconds())
            stored += await self._add(tenant, reported[start : start + MAX_ROWS_PER_WRITE])
        return Received(stored, len(reported) - stored)

    async def _add(self, tenant: str, batch: Sequence[Event]) -> int:
        async with self._database.write() as connection:
            now = micros(self._clock.now())
            rows = [
                {
                    "tenant": tenant,
                    "event_id": each.event_id,
                    "person": each.person,
                    "kind": each.kind,
                    "title": each.title,
                    "text": each.text,
                    "url": each.url,
                    "at": micros(each.at) if each.at else now,
                    "received_at": now,
                }
                for each in sorted(batch, key=lambda each: each.event_id)  # two requests in two orders would deadlock
            ]
            row = upsert(connection.dialect)(events).on_conflict_do_nothing().returning(events.c.event_id)
            return len((await connection.execute(row, rows)).scalars().all())

    async def heard(self, tenant: str, window: Window, *, beyond: str | None, persons: int, newest: int) -> list[Heard]:
        """The next persons, in the order of their ids, that have events of the window.

        Args:
            tenant: whose.
            window: which events count.
            beyond: persons after this one; None is from the first on.
            persons: at most so many.
            newest: of each, at most so many events.
        """
        named = _within(select(events.c.person).distinct(), tenant, window)
        if beyond is not None:
            named = named.where(events.c.person > beyond)
        async with self._database.read() as connection:
            who = (await connection.execute(named.order_by(events.c.person).limit(persons))).scalars().all()
            if not who:
                return []
            newness = (events.c.at.desc(), events.c.event_id)
            rank = func.row_number().over(partition_by=events.c.person, order_by=newness).label("rank")
            count = func.count().over(partition_by=events.c.person).label("count")
            ranked = _within(select(*events.c, rank, count), tenant, window).where(events.c.person.in_(who)).subquery()
            query = select(ranked).where(ranked.c.rank <= newest).order_by(ranked.c.person, ranked.c.rank)
            rows = (await connection.execute(query)).mappings().all()
        found: dict[str, list[Any]] = {}
        for row in rows:
            found.setdefault(row["person"], []).append(row)
        return [Heard(person, tuple(_event(each) for each in mine), mine[0]["count"]) for person, mine in found.items()]


def _within(query: Select[Any], tenant: str, window: Window) -> Select[Any]:
    query = query.where(events.c.tenant == tenant, events.c.received_at <= micros(window.until))
    return query if window.after is None else query.where(events.c.received_at > micros(window.after))


def _event(row: Any) -> Event:
    names = ("event_id", "person", "kind", "title", "text", "url")
    return Event(**{name: row[name] for name in names}, at=from_micros(row["at"]))
