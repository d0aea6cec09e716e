"""Daily digests: what each tenant wishes, and which days are done.

A digest covers what was received after the one before it and up to its own `until`, so each event is in one digest.
"""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CTE, func, literal, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.payloads.job import JobState
from runtime.clock import Clock, from_micros, micros
from store.database import Database
from store.dialect import upsert
from store.tables import broadcasts, digest_settings, digests, events, jobs, recipients

DEFAULT_ZONE = "America/New_York"
DEFAULT_AT = "08:00"


@dataclass(frozen=True, slots=True)
class DigestSettings:
    """When a tenant's digest goes out: at the wall-clock time `at` in `zone` (IANA)."""

    enabled: bool = True
    zone: str = DEFAULT_ZONE
    at: str = DEFAULT_AT


@dataclass(frozen=True, slots=True)
class Digest:
    """A day that is done. `until` is the last moment it covers; `broadcast_id` is None where nobody had anything."""

    tenant: str
    day: date
    until: datetime
    broadcast_id: UUID | None
    people: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tenant with events that no digest covers; `oldest` is when the first of them was received."""

    tenant: str
    settings: DigestSettings
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Unsent:
    """A digest whose broadcast was stored and not started."""

    digest: Digest
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Written:
    """How far a set of recipients is: its last line, and who that is."""

    line: int = 0
    person: str | None = None


class Digests:
    """Queries on digests and their settings."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def settings(self, tenant: str) -> DigestSettings:
        """What the tenant wishes; the defaults where it said nothing."""
        query = select(digest_settings).where(digest_settings.c.tenant == tenant)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return DigestSettings(row["enabled"], row["zone"], row["at"]) if row else DigestSettings()

    async def set(self, tenant: str, wishes: DigestSettings) -> None:
        """Replace them."""
        values = {"enabled": wishes.enabled, "zone": wishes.zone, "at": wishes.at}
        async with self._database.write() as connection:
            row = upsert(connection.dialect)(digest_settings).values(tenant=tenant, **values)
            await connection.execute(row.on_conflict_do_update(index_elements=["tenant"], set_=values))

    async def waiting(self, *, beyond: str, limit: int) -> tuple[list[Waiting], str | None]:
        """Those of the next `limit` tenants after `beyond` that wish a digest and have something for it, by name.

        The second value is what to go on beyond, None at the end.
        """
        among = _tenants(beyond, limit)
        covered = select(func.max(digests.c.until)).where(digests.c.tenant == among.c.tenant)
        oldest = (
            select(func.min(events.c.received_at))
            .where(
                events.c.tenant == among.c.tenant,
                events.c.received_at > func.coalesce(covered.correlate(among).scalar_subquery(), -1),
            )
            .correlate(among)
            .scalar_subquery()
        )
        query = (
            select(
                among.c.tenant, oldest.label("oldest"), *(digest_settings.c[name] for name in ("enabled", "zone", "at"))
            )
            .join(digest_settings, digest_settings.c.tenant == among.c.tenant, isouter=True)
            .where(among.c.tenant.is_not(None))
            .order_by(among.c.tenant)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        found = [_waiting(row) for row in rows if row["oldest"] is not None and row["enabled"] is not False]
        return found, rows[-1]["tenant"] if len(rows) == limit else None

    async def unsent(self, now: datetime) -> list[Unsent]:
        """Those whose broadcast is stored, not started, and not expired: their run was stopped in between."""
        query = (
            select(digests, broadcasts.c.expires_at)
            .join(broadcasts, broadcasts.c.broadcast_id == digests.c.broadcast_id)
            .join(jobs, jobs.c.job_id == digests.c.broadcast_id)
            .where(jobs.c.state == JobState.SUBMITTED.value, broadcasts.c.expires_at > micros(now))
            .order_by(digests.c.tenant)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [Unsent(_digest(row), from_micros(row["expires_at"])) for row in rows]

    async def get(self, tenant: str, day: date) -> Digest | None:
        """The digest of that day, if it is done."""
        query = select(digests).where(digests.c.tenant == tenant, digests.c.day == day.isoformat())
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _digest(row) if row else None

    async def covered(self, tenant: str) -> datetime | None:
        """Up to when events are in a digest; None if there was none yet."""
        query = select(func.max(digests.c.until)).where(digests.c.tenant == tenant)
        async with self._database.read() as connection:
            until = (await connection.execute(query)).scalar()
        return None if until is None else from_micros(until)

    async def add(
        self,
        connection: AsyncConnection,
        *,
        tenant: str,
        day: date,
        until: datetime,
        broadcast_id: UUID | None,
        people: int,
    ) -> bool:
        """Mark the day as done, within the transaction that stores its broadcast; false if it was done already."""
        row = upsert(connection.dialect)(digests).values(
            tenant=tenant,
            day=day.isoformat(),
            until=micros(until),
            broadcast_id=str(broadcast_id) if broadcast_id else None,
            people=people,
            created_at=micros(self._clock.now()),
        )
        made = await connection.execute(row.on_conflict_do_nothing().returning(digests.c.day))
        return made.scalar() is not None

    async def written(self, set_id: str) -> Written:
        """How far the set is that another attempt, or another worker, may have begun."""
        mine = recipients.c.set_id == set_id
        last = select(recipients.c.line, recipients.c.person).where(mine).order_by(recipients.c.line.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(last)).first()
        return Written(row[0], row[1]) if row else Written()

    async def size(self, connection: AsyncConnection, set_id: str) -> int:
        """How many recipients the set has."""
        query = select(func.count()).select_from(recipients).where(recipients.c.set_id == set_id)
        return int((await connection.execute(query)).scalar_one())


def _tenants(beyond: str, limit: int) -> CTE:
    """The next tenants that ever had an event, each found by one look into the index; the last may be NULL.

    https://wiki.postgresql.org/wiki/Loose_indexscan
    """
    first = select(func.min(events.c.tenant).label("tenant"), literal(1).label("number")).where(
        events.c.tenant > beyond
    )
    found = first.cte("among", recursive=True)
    following = select(func.min(events.c.tenant)).where(events.c.tenant > found.c.tenant).scalar_subquery()
    another = select(following, found.c.number + 1).where(found.c.tenant.is_not(None), found.c.number < limit)
    return found.union_all(another)


def _waiting(row: RowMapping) -> Waiting:
    wishes = DigestSettings() if row["zone"] is None else DigestSettings(row["enabled"], row["zone"], row["at"])
    return Waiting(row["tenant"], wishes, from_micros(row["oldest"]))


def _digest(row: RowMapping) -> Digest:
    return Digest(
        tenant=row["tenant"],
        day=date.fromisoformat(row["day"]),
        until=from_micros(row["until"]),
        broadcast_id=UUID(row["broadcast_id"]) if row["broadcast_id"] else None,
        people=row["people"],
        created_at=from_micros(row["created_at"]),
    )
