"""Rows that were synced from third parties, and how far each resource of a connection is.

A page may be saved again: rows are told apart by their contents, and the place is saved with the last of its rows, so
what a killed process had not saved is asked for again.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic import JsonValue
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    Insert,
    Row,
    Select,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_micros, micros
from store.connections import NoSuchConnection, lock_rows
from store.database import MAX_ROWS_PER_WRITE, Database
from store.dialect import JsonRows, upsert
from store.tables import connections, sync_left_out, sync_places, synced_rows

PAUSE = timedelta(milliseconds=20)  # between bulk writes, so that the API's own inserts get their turn
KEY = ("connection_id", "resource", "row_id")
Place = dict[str, JsonValue]  # where a resource stands: the sync's own


@dataclass(frozen=True, slots=True)
class SyncedRow:
    """A row as the vendor gives it.

    `row_id` is unique within the resource of a connection. `vendor_updated_at` is the vendor's text, a time or a
    number. `deleted`: the vendor says that it is gone, and `data` may be less than it was.
    """

    row_id: str
    data: Mapping[str, JsonValue]
    parent_id: str | None = None
    vendor_updated_at: str | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as it is kept. A deleted one has the data that it had last.

    `first_seen_at` is when it came, or came back after it was deleted. `changed_at` is when we saw it change.
    """

    row_id: str
    data: dict[str, JsonValue]
    parent_id: str | None
    vendor_updated_at: str | None
    deleted_at: datetime | None
    first_seen_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows of a page, each counted once."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.deleted + other.deleted,
        )


@dataclass(frozen=True, slots=True)
class Held:
    """How many rows of a resource there are, and how many were deleted by the vendor."""

    live: int
    deleted: int


class Synced:
    """Queries on synced rows. A connection id is taken as given: whose it is, the caller has checked."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def place(self, connection_id: str, resource: str) -> Place | None:
        """How far it is; None where nothing was saved."""
        query = select(sync_places).where(
            sync_places.c.connection_id == connection_id, sync_places.c.resource == resource
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return row.place if row else None

    async def save_page(
        self,
        connection_id: str,
        resource: str,
        rows: Sequence[SyncedRow],
        place: Place | Callable[[Counts], Place],
        *,
        pass_id: str | None,
    ) -> Counts:
        """Store rows, MAX_ROWS_PER_WRITE a transaction, and with the last of them the place.

        A row that is there twice counts once, and the last one holds. One that the vendor updated before the stored one
        changes nothing. A deleted one that comes back is updated, and live.

        Args:
            connection_id: whose rows.
            resource: which of its lists.
            rows: of the page; none saves the place alone.
            place: where to go on; a function is given the counts of the page.
            pass_id: the full pass that saw these rows, for `sweep`; None in an incremental sync.

        Raises:
            NoSuchConnection: it was deleted, and what belongs to it must not come back.
        """
        once = sorted(_once(rows).values(), key=lambda each: each.row_id)
        counts = Counts()
        for start in range(0, max(len(once), 1), MAX_ROWS_PER_WRITE):
            if start:
                await asyncio.sleep(PAUSE.total_seconds())
            batch = once[start : start + MAX_ROWS_PER_WRITE]
            async with self._database.write() as connection:
                await lock_rows(connection, connection_id)
                counts += await self._save(connection, connection_id, resource, batch, pass_id)
                if start + MAX_ROWS_PER_WRITE >= len(once):
                    there = place(counts) if callable(place) else place
                    await self._save_place(connection, connection_id, resource, there)
        return counts

    async def _save(
        self,
        connection: AsyncConnection,
        connection_id: str,
        resource: str,
        batch: Sequence[SyncedRow],
        pass_id: str | None,
    ) -> Counts:
        given: dict[str, Any] = {"whose": connection_id, "which": resource, "seen_by": pass_id}
        ids = json.dumps([[row.row_id] for row in batch])
        found = (await connection.execute(_finding(connection.dialect), given | {"rows": ids})).all()
        if not found:
            raise NoSuchConnection(connection_id)
        before: dict[str, Row[Any]] = {row.row_id: row for row in found}
        fates = {"created": 0, "updated": 0, "unchanged": 0, "deleted": 0}
        changed: list[list[str | None]] = []
        seen: list[list[str]] = []
        for row in batch:
            data = json.dumps(row.data, sort_keys=True, separators=(",", ":"))
            content_hash = hashlib.sha256(data.encode()).hexdigest()
            known = before.get(row.row_id)
            fate = _fate(row, content_hash, known)
            fates[fate] += 1
            if fate != "unchanged":
                gone = "1" if row.deleted else None
                changed.append([row.row_id, row.parent_id, content_hash, row.vendor_updated_at, data, gone])
            elif known is not None and pass_id is not None and known.seen_pass != pass_id:
                seen.append([row.row_id])
        if changed:
            now = micros(self._clock.now())
            statement = _saving(connection.dialect)
            await connection.execute(statement, given | {"rows": json.dumps(changed), "now": now})
        if seen:
            await connection.execute(_seeing(connection.dialect), given | {"rows": json.dumps(seen)})
        return Counts(**fates)

    async def _save_place(self, connection: AsyncConnection, connection_id: str, resource: str, place: Place) -> None:
        values = {"place": place, "updated_at": micros(self._clock.now())}
        row = upsert(connection.dialect)(sync_places).values(connection_id=connection_id, resource=resource, **values)
        await connection.execute(row.on_conflict_do_update(index_elements=["connection_id", "resource"], set_=values))

    async def sweep(
        self,
        connection_id: str,
        resource: str,
        *,
        pass_id: str,
        parent_id: str | None = None,
        limit: int = MAX_ROWS_PER_WRITE,
    ) -> int:
        """Mark live rows as deleted that a full pass has not seen; how many. Fewer than `limit`: there are no more.

        Args:
            connection_id: whose rows.
            resource: which of its lists.
            pass_id: of a pass that ended.
            parent_id: only children of this one; None is all rows of the resource.
            limit: at most MAX_ROWS_PER_WRITE.
        """
        assert limit <= MAX_ROWS_PER_WRITE
        wanted: list[ColumnElement[bool]] = [
            _of(connection_id, resource),
            _LIVE,
            synced_rows.c.seen_pass.is_distinct_from(pass_id),
        ]
        if parent_id is not None:
            wanted.append(synced_rows.c.parent_id == parent_id)
        missing = select(synced_rows.c.row_id).where(*wanted).limit(limit)
        now = micros(self._clock.now())
        statement = update(synced_rows).where(_of(connection_id, resource), synced_rows.c.row_id.in_(missing))
        async with self._database.write() as connection:
            await lock_rows(connection, connection_id)
            return (await connection.execute(statement.values(deleted_at=now, changed_at=now))).rowcount

    async def parents(
        self,
        connection_id: str,
        resource: str,
        *,
        after: str | None,
        changed_since: datetime | None = None,
        left_out_of: str = "",
        limit: int = MAX_ROWS_PER_WRITE,
    ) -> list[StoredRow]:
        """Live rows in the order of their ids, for walking their children.

        Args:
            connection_id: whose rows.
            resource: the parents'.
            after: the last id of the page before; None is from the first on.
            changed_since: only those that we saw change at or after it, or that are left out.
            left_out_of: of which resource.
            limit: of the page.
        """
        wanted: list[ColumnElement[bool]] = [_LIVE]
        if changed_since is not None:
            left_out = _left_out(connection_id, left_out_of, synced_rows.c.row_id)
            wanted.append(or_(synced_rows.c.changed_at >= micros(changed_since), left_out.exists()))
        found = await self._page(connection_id, resource, after, limit, wanted)
        return [_stored(row) for row in found]

    async def row(self, connection_id: str, resource: str, row_id: str) -> StoredRow | None:
        """One row, deleted or not."""
        query = select(synced_rows).where(_of(connection_id, resource), synced_rows.c.row_id == row_id)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).first()
        return _stored(found) if found else None

    async def leave_out(self, connection_id: str, resource: str, parents: Sequence[str]) -> None:
        """Note parents whose children a pass did not list."""
        rows = [{"connection_id": connection_id, "resource": resource, "parent_id": each} for each in parents]
        async with self._database.write() as connection:
            known = select(connections.c.connection_id).where(connections.c.connection_id == connection_id)
            if (await connection.execute(known)).first() is None:
                raise NoSuchConnection(connection_id)
            await connection.execute(upsert(connection.dialect)(sync_left_out).on_conflict_do_nothing(), rows)

    async def is_left_out(self, connection_id: str, resource: str, parent_id: str) -> bool:
        """Whether a pass did not list this parent's children, and none has since."""
        async with self._database.read() as connection:
            found = await connection.execute(_left_out(connection_id, resource, literal(parent_id)))
            return found.first() is not None

    async def take_in(self, connection_id: str, resource: str, parent_id: str) -> None:
        """All children of a parent that was left out were listed."""
        mine = sync_left_out.c
        wanted = (mine.connection_id == connection_id, mine.resource == resource, mine.parent_id == parent_id)
        async with self._database.write() as connection:
            await connection.execute(delete(sync_left_out).where(*wanted))

    async def sweep_orphans(
        self, connection_id: str, resource: str, parents: str, *, limit: int = MAX_ROWS_PER_WRITE
    ) -> int:
        """Mark live rows as deleted whose parents, of the resource `parents`, were deleted; how many, as `sweep`."""
        assert limit <= MAX_ROWS_PER_WRITE
        parent = synced_rows.alias("parent")
        orphans = (
            select(synced_rows.c.row_id)
            .join(
                parent,
                and_(
                    parent.c.connection_id == synced_rows.c.connection_id,
                    parent.c.resource == parents,
                    parent.c.row_id == synced_rows.c.parent_id,
                    parent.c.deleted_at.is_not(None),
                ),
            )
            .where(_of(connection_id, resource), _LIVE)
            .limit(limit)
        )
        async with self._database.read() as connection:
            if (await connection.execute(orphans.limit(1))).first() is None:
                return 0  # to look for them takes half a second where there are 300,000 children: not with the lock
        now = micros(self._clock.now())
        statement = update(synced_rows).where(_of(connection_id, resource), synced_rows.c.row_id.in_(orphans))
        async with self._database.write() as connection:
            await lock_rows(connection, connection_id)
            return (await connection.execute(statement.values(deleted_at=now, changed_at=now))).rowcount

    async def rows(
        self, connection_id: str, resource: str, *, after: str | None = None, limit: int = 50
    ) -> list[StoredRow]:
        """Rows in the order of their ids, deleted ones too, behind the id `after`."""
        return [_stored(row) for row in await self._page(connection_id, resource, after, limit, [])]

    async def _page(
        self, connection_id: str, resource: str, after: str | None, limit: int, wanted: Iterable[ColumnElement[bool]]
    ) -> Sequence[Row[Any]]:
        query = select(synced_rows).where(_of(connection_id, resource), *wanted)
        if after is not None:
            query = query.where(synced_rows.c.row_id > after)
        async with self._database.read() as connection:
            return (await connection.execute(query.order_by(synced_rows.c.row_id).limit(limit))).all()

    async def counts(self, connection_id: str) -> dict[str, Held]:
        """By resource; one without rows is not there."""
        query = (
            select(
                synced_rows.c.resource,
                func.count().filter(_LIVE).label("live"),
                func.count(synced_rows.c.deleted_at).label("deleted"),
            )
            .where(synced_rows.c.connection_id == connection_id)
            .group_by(synced_rows.c.resource)
        )
        async with self._database.read() as connection:
            return {row.resource: Held(row.live, row.deleted) for row in await connection.execute(query)}


_LIVE = synced_rows.c.deleted_at.is_(None)


def _left_out(connection_id: str, resource: str, parent_id: ColumnElement[str]) -> Select[Any]:
    mine = sync_left_out.c
    return select(mine.parent_id).where(
        mine.connection_id == connection_id, mine.resource == resource, mine.parent_id == parent_id
    )


def _of(connection_id: str, resource: str) -> ColumnElement[bool]:
    return and_(synced_rows.c.connection_id == connection_id, synced_rows.c.resource == resource)


def _once(rows: Iterable[SyncedRow]) -> dict[str, SyncedRow]:
    newest: dict[str, SyncedRow] = {}
    for row in rows:
        before = newest.get(row.row_id)
        if before is None or not _older(row.vendor_updated_at, before.vendor_updated_at):
            newest[row.row_id] = row
    return newest


def _fate(row: SyncedRow, content_hash: str, before: Row[Any] | None) -> str:
    """The name in `Counts`."""
    if before is None:
        return "deleted" if row.deleted else "created"
    if _older(row.vendor_updated_at, before.vendor_updated_at):
        return "unchanged"
    was_deleted = before.deleted_at is not None
    if row.deleted:
        return "unchanged" if was_deleted else "deleted"
    newer = row.vendor_updated_at is not None and row.vendor_updated_at != before.vendor_updated_at
    same = (content_hash, row.parent_id) == (before.content_hash, before.parent_id)
    return "updated" if was_deleted or newer or not same else "unchanged"


def _older(one: str | None, other: str | None) -> bool:
    """Whether the first is a time before the second; not if there is no telling."""
    if one is None or other is None or one == other:
        return False
    first, second = _moment(one), _moment(other)
    if isinstance(first, float) and isinstance(second, float):
        return first < second
    return isinstance(first, datetime) and isinstance(second, datetime) and first < second


def _moment(text: str) -> float | datetime | None:
    try:
        return float(text)  # seconds, milliseconds or a version
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _stored(row: Row[Any]) -> StoredRow:
    return StoredRow(
        row_id=row.row_id,
        data=row.data,
        parent_id=row.parent_id,
        vendor_updated_at=row.vendor_updated_at,
        deleted_at=None if row.deleted_at is None else from_micros(row.deleted_at),
        first_seen_at=from_micros(row.first_seen_at),
        changed_at=from_micros(row.changed_at),
    )


def _stated(name: str) -> ColumnElement[Any]:
    return bindparam(name, type_=Text)


@lru_cache(maxsize=4)
def _finding(dialect: Dialect) -> Select[Any]:
    """What is kept of the given ids: one row of nulls if nothing is, none at all if the connection is gone."""
    kept = and_(synced_rows.c.connection_id == connections.c.connection_id, *_given(dialect))
    names = ("row_id", "content_hash", "parent_id", "vendor_updated_at", "seen_pass", "deleted_at")
    return (
        select(*(synced_rows.c[name] for name in names))
        .select_from(connections.outerjoin(synced_rows, kept))
        .where(connections.c.connection_id == _stated("whose"))
    )


def _given(dialect: Dialect) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    given = JsonRows(dialect, "rows")
    ids = select(given.text(0)).select_from(given.rows).scalar_subquery()
    # An array is looked up id by id. A subquery PostgreSQL may join with all rows, as it cannot tell how many it gives.
    among = synced_rows.c.row_id.in_(ids) if dialect.name == "sqlite" else synced_rows.c.row_id == any_(func.array(ids))
    return synced_rows.c.resource == _stated("which"), among


@lru_cache(maxsize=4)
def _saving(dialect: Dialect) -> Insert:
    """A deleted row keeps the data that it had: the vendor may say no more than its id."""
    given = JsonRows(dialect, "rows")
    now = bindparam("now", type_=BigInteger)
    values: dict[str, ColumnElement[Any]] = {
        "connection_id": _stated("whose"),
        "resource": _stated("which"),
        "row_id": given.text(0),
        "parent_id": given.text(1),
        "content_hash": given.text(2),
        "vendor_updated_at": given.text(3),
        "data": given.json(4),
        "seen_pass": _stated("seen_by"),
        "deleted_at": case((given.text(5).is_not(None), now), else_=literal(None, BigInteger)),
        "first_seen_at": now,
        "changed_at": now,
    }
    row = upsert(dialect)(synced_rows)
    new = row.excluded
    told: dict[str, ColumnElement[Any]] = {name: new[name] for name in ("deleted_at", "changed_at")}
    back = and_(synced_rows.c.deleted_at.is_not(None), new.deleted_at.is_(None))  # what hangs on it was deleted too
    told["first_seen_at"] = case((back, new.first_seen_at), else_=synced_rows.c.first_seen_at)
    known = {name: func.coalesce(new[name], synced_rows.c[name]) for name in ("vendor_updated_at", "seen_pass")}
    live = {
        name: case((new.deleted_at.is_(None), new[name]), else_=synced_rows.c[name])
        for name in ("data", "content_hash", "parent_id")
    }
    # Without a WHERE, SQLite would read ON CONFLICT as a join's ON: https://sqlite.org/lang_upsert.html#parsing_ambiguity
    each = select(*values.values()).select_from(given.rows).where(true())
    return row.from_select(list(values), each).on_conflict_do_update(
        index_elements=list(KEY), set_={**told, **known, **live}
    )


@lru_cache(maxsize=4)
def _seeing(dialect: Dialect) -> Update:
    mine = synced_rows.c.connection_id == _stated("whose")
    return update(synced_rows).where(mine, *_given(dialect)).values(seen_pass=_stated("seen_by"))
