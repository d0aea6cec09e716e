"""Connections: a tenant's accounts at third parties, with their credentials sealed (store/sealed.py)."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import ColumnElement, and_, delete, func, select, tuple_, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database, advisory_lock
from store.dialect import upsert
from store.ids import new_id
from store.jobs import InvalidCursor
from store.sealed import Sealing
from store.tables import connections, sync_left_out, sync_places, synced_rows

NEVER = -1  # microseconds; before every time
DELETING = "it is being deleted"
PUBLIC = [column for column in connections.c if column.name != "credentials"]


class DuplicateConnection(Exception):
    """The tenant has a connection of this provider and account name."""


class NoSuchConnection(Exception):
    """No connection has this id, or it was deleted."""


class ConnectionState(StrEnum):
    """`frozen`: not synced until its credentials are renewed."""

    ACTIVE = "active"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Connection:
    """A row without its credentials, which `Connections.credentials` gives.

    `account` is the customer's name for it, `settings` are the connector's and hold no secret. `reason` says why it is
    frozen.
    """

    connection_id: str
    tenant: str
    provider: str
    account: str
    settings: dict[str, JsonValue]
    credentials_version: int
    state: ConnectionState
    reason: str | None
    frozen_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_synced_at: datetime | None
    last_job_id: UUID | None


class Connections:
    """Queries on connections. A tenant of None is any."""

    def __init__(self, database: Database, clock: Clock, sealing: Sealing) -> None:
        self._database = database
        self._clock = clock
        self._sealing = sealing

    async def create(
        self,
        tenant: str,
        provider: str,
        account: str,
        *,
        settings: dict[str, JsonValue],
        credentials: dict[str, JsonValue],
    ) -> Connection:
        """A new, active connection.

        Raises:
            DuplicateConnection: there is one of this name.
        """
        connection_id = str(new_id())
        now = micros(self._clock.now())
        values = {
            "connection_id": connection_id,
            "tenant": tenant,
            "provider": provider,
            "account": account,
            "settings": settings,
            "credentials": self._sealing.seal(tenant, connection_id, credentials),
            "credentials_version": 1,
            "state": ConnectionState.ACTIVE.value,
            "created_at": now,
            "updated_at": now,
        }
        async with self._database.write() as connection:
            row = upsert(connection.dialect)(connections).values(values)
            row = row.on_conflict_do_nothing(index_elements=["tenant", "provider", "account"])
            made = (await connection.execute(row.returning(*PUBLIC))).mappings().first()
        if made is None:
            raise DuplicateConnection(f"{tenant} has a connection to {provider} named {account!r} already")
        return _connection(made)

    async def get(self, tenant: str | None, connection_id: str) -> Connection | None:
        """The connection, unless it is another tenant's."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(*PUBLIC).where(_one(tenant, connection_id)))).mappings().first()
        return _connection(row) if row else None

    async def credentials(self, of: Connection) -> tuple[dict[str, JsonValue], int]:
        """As they are now, and their version, which may be later than that of `of`.

        Raises:
            NoSuchConnection: it was deleted.
            CannotUnseal: they cannot be read; the message says what to do.
        """
        query = select(connections.c.credentials, connections.c.credentials_version)
        async with self._database.read() as connection:
            row = (await connection.execute(query.where(_one(of.tenant, of.connection_id)))).first()
        if row is None:
            raise NoSuchConnection(of.connection_id)
        return self._sealing.unseal(of.tenant, of.connection_id, row.credentials), row.credentials_version

    async def freeze(self, tenant: str | None, connection_id: str, reason: str, *, version: int | None = None) -> bool:
        """Sync it no more until it is renewed; true if this call did it, so that it is told once.

        Args:
            tenant: whose it must be.
            connection_id: which.
            reason: in words, for the customer.
            version: of the credentials that were refused; others than these, renewed meanwhile, are not frozen.
        """
        wanted = [_one(tenant, connection_id), connections.c.state == ConnectionState.ACTIVE.value]
        if version is not None:
            wanted.append(connections.c.credentials_version == version)
        now = micros(self._clock.now())
        values = {"state": ConnectionState.FROZEN.value, "reason": reason, "frozen_at": now, "updated_at": now}
        async with self._database.write() as connection:
            return (await connection.execute(update(connections).where(*wanted).values(values))).rowcount > 0

    async def unfreeze(self, tenant: str | None, connection_id: str, reason: str) -> bool:
        """Make it active again, if it is frozen for this reason; whether this call did it."""
        values = {
            "state": ConnectionState.ACTIVE.value,
            "reason": None,
            "frozen_at": None,
            "updated_at": micros(self._clock.now()),
        }
        wanted = (
            _one(tenant, connection_id),
            connections.c.state == ConnectionState.FROZEN.value,
            connections.c.reason == reason,
        )
        async with self._database.write() as connection:
            return (await connection.execute(update(connections).where(*wanted).values(values))).rowcount > 0

    async def renew(
        self, tenant: str | None, connection_id: str, credentials: dict[str, JsonValue]
    ) -> Connection | None:
        """Give it new credentials and make it active; None if there is no such connection."""
        found = await self.get(tenant, connection_id)
        if found is None:
            return None
        values = {
            "credentials": self._sealing.seal(found.tenant, connection_id, credentials),
            "credentials_version": connections.c.credentials_version + 1,
            "state": ConnectionState.ACTIVE.value,
            "reason": None,
            "frozen_at": None,
            "updated_at": micros(self._clock.now()),
        }
        statement = update(connections).where(_one(tenant, connection_id)).values(values).returning(*PUBLIC)
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return _connection(row) if row else None

    async def replace_credentials(
        self, tenant: str, connection_id: str, expected_version: int, new: dict[str, JsonValue]
    ) -> bool:
        """Store refreshed credentials, unless they were replaced since `expected_version`; whether this call did."""
        values = {
            "credentials": self._sealing.seal(tenant, connection_id, new),
            "credentials_version": expected_version + 1,
            "updated_at": micros(self._clock.now()),
        }
        wanted = (_one(tenant, connection_id), connections.c.credentials_version == expected_version)
        async with self._database.write() as connection:
            return (await connection.execute(update(connections).where(*wanted).values(values))).rowcount > 0

    async def note_synced(self, tenant: str | None, connection_id: str, job_id: UUID) -> bool:
        """Note that a job has just synced all of it; false if there is no such connection."""
        values = {"last_synced_at": micros(self._clock.now()), "last_job_id": str(job_id)}
        async with self._database.write() as connection:
            done = await connection.execute(update(connections).where(_one(tenant, connection_id)).values(values))
        return done.rowcount > 0

    async def delete(self, tenant: str | None, connection_id: str) -> bool:
        """Delete at most MAX_ROWS_PER_WRITE of its rows, and in the end its places and itself; whether more is left.

        From the first call on it is frozen. Pages saved meanwhile are deleted too, and refused afterwards.
        """
        mine = synced_rows.c.connection_id == connection_id
        keys = (synced_rows.c.resource, synced_rows.c.row_id)
        some = select(*keys).where(mine).limit(MAX_ROWS_PER_WRITE)
        now = micros(self._clock.now())
        frozen = {"state": ConnectionState.FROZEN.value, "reason": DELETING, "frozen_at": now, "updated_at": now}
        async with self._database.write() as connection:
            await lock_rows(connection, connection_id)
            statement = update(connections).where(_one(tenant, connection_id)).values(frozen)
            if not (await connection.execute(statement)).rowcount:
                return False
            gone = await connection.execute(delete(synced_rows).where(mine, tuple_(*keys).in_(some)))
            if gone.rowcount == MAX_ROWS_PER_WRITE:
                return True
            for table in (sync_places, sync_left_out):
                await connection.execute(delete(table).where(table.c.connection_id == connection_id))
            await connection.execute(delete(connections).where(_one(tenant, connection_id)))
        return False

    async def count_active(self, provider: str) -> int:
        """Over all tenants."""
        query = select(func.count()).select_from(connections)
        query = query.where(connections.c.provider == provider, connections.c.state == ConnectionState.ACTIVE.value)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def list(
        self,
        tenant: str | None,
        *,
        provider: str | None = None,
        state: ConnectionState | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Connection], str | None]:
        """Newest first, and the cursor of the next page or None.

        Args:
            tenant: whose.
            provider: None is all.
            state: None is both.
            after: the cursor that the page before returned.
            limit: of the page.

        Raises:
            InvalidCursor: `after` is something else.
        """
        key = tuple_(connections.c.created_at, connections.c.connection_id)
        wanted = [
            connections.c.tenant == tenant if tenant is not None else None,
            connections.c.provider == provider if provider is not None else None,
            connections.c.state == state.value if state is not None else None,
            key < tuple_(*_read_cursor(after)) if after is not None else None,
        ]
        query = select(*PUBLIC).where(*(each for each in wanted if each is not None))
        query = query.order_by(connections.c.created_at.desc(), connections.c.connection_id.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        page = [_connection(row) for row in rows[:limit]]
        return page, _cursor(page[-1].created_at, page[-1]) if len(rows) > limit else None


async def lock_rows(connection: AsyncConnection, connection_id: str) -> None:
    """One at a time changes the synced rows of a connection, within the caller's write transaction."""
    await advisory_lock(connection, f"holdfast:synced:{connection_id}")


def _one(tenant: str | None, connection_id: str) -> ColumnElement[bool]:
    mine = connections.c.connection_id == connection_id
    return mine if tenant is None else and_(mine, connections.c.tenant == tenant)


def _connection(row: RowMapping) -> Connection:
    values: dict[str, Any] = {**row}
    for name in ("frozen_at", "created_at", "updated_at", "last_synced_at"):
        values[name] = None if values[name] is None else from_micros(values[name])
    values["state"] = ConnectionState(values["state"])
    values["last_job_id"] = UUID(values["last_job_id"]) if values["last_job_id"] else None
    return Connection(**values)


def _cursor(at: datetime | None, last: Connection) -> str:
    position = f"{NEVER if at is None else micros(at)}:{last.connection_id}"
    return urlsafe_b64encode(position.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        at, _, connection_id = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
        position = int(at), str(UUID(connection_id))
    except (ValueError, binascii.Error) as error:
        raise InvalidCursor(cursor) from error
    if not NEVER <= position[0] < 2**63:  # a BIGINT column's
        raise InvalidCursor(cursor)
    return position
