"""Connections. SQLite: write transactions begin immediate, one at a time per process; PostgreSQL by URL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

BUSY_TIMEOUT_MS = 5_000
MAX_ROWS_PER_WRITE = 200  # a longer write transaction makes the API's inserts wait
WRITES = "holdfast_writes"  # an execution option


class DatabaseUnavailable(Exception):
    """The store does not answer; the message says where it was looked for."""


class NeedsMigration(Exception):
    """The store's tables are older than this program; run `holdfast bootstrap`."""


class Database:
    """Two engines: `main`, and `ledger` for effects. They may be the same PostgreSQL database."""

    def __init__(self, main: AsyncEngine, ledger: AsyncEngine) -> None:
        self.main = main
        self.ledger = ledger
        self._locks = {id(main): asyncio.Lock(), id(ledger): asyncio.Lock()}

    @classmethod
    def open(cls, url: str, ledger_url: str | None = None) -> "Database":
        """Connect lazily to `sqlite:///path` or `postgresql://…`; a SQLite file's folder is made.

        Args:
            url: of the main tables.
            ledger_url: of the effects; without it a file beside the SQLite file, or the same PostgreSQL database.
        """
        main = _engine(url)
        if ledger_url is None and main.dialect.name == "sqlite":
            ledger_url = f"{url.removesuffix('.db')}.ledger.db"
        return cls(main, main if ledger_url in {None, url} else _engine(ledger_url or url))

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.main.dialect.name

    @asynccontextmanager
    async def write(self, engine: AsyncEngine | None = None) -> AsyncIterator[AsyncConnection]:
        """One write transaction on the main tables: committed at the end of the block, or rolled back.

        In SQLite a second writer of this process waits here, in order, instead of polling the file's lock.

        Raises:
            DatabaseUnavailable: cannot connect, or the file stayed locked for 5 s.
        """
        engine = engine or self.main
        if engine.dialect.name == "sqlite":
            async with self._locks[id(engine)], _transaction(engine, writes=True) as connection:
                yield connection
        else:
            async with _transaction(engine, writes=True) as connection:
                yield connection

    @asynccontextmanager
    async def read(self, engine: AsyncEngine | None = None) -> AsyncIterator[AsyncConnection]:
        """One consistent view of the main tables.

        Raises:
            DatabaseUnavailable: cannot connect.
        """
        async with _transaction(engine or self.main, writes=False) as connection:
            yield connection

    async def ping(self) -> None:
        """Answer if both stores do and their tables are of this version.

        Raises:
            DatabaseUnavailable: one does not answer.
            NeedsMigration: run `holdfast bootstrap`.
        """
        from store.migrate import pending  # noqa: PLC0415 - migrate imports this module

        behind = await pending(self)
        if behind:
            msg = f"the store lacks the migrations {', '.join(behind)}: run `holdfast bootstrap`"
            raise NeedsMigration(msg)

    async def close(self) -> None:
        """Close every connection."""
        await self.main.dispose()
        if self.ledger is not self.main:
            await self.ledger.dispose()


@asynccontextmanager
async def _transaction(engine: AsyncEngine, *, writes: bool) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.connect() as connection:
            await connection.execution_options(**{WRITES: writes})
            async with connection.begin():
                yield connection
    except (OperationalError, OSError) as error:
        msg = f"the store at {engine.url.render_as_string(hide_password=True)} does not answer: {error}"
        raise DatabaseUnavailable(msg) from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        msg = f"the connection to {engine.url.render_as_string(hide_password=True)} was lost: {error}"
        raise DatabaseUnavailable(msg) from error


def _engine(url: str) -> AsyncEngine:
    parsed = make_url(url)
    if parsed.drivername.startswith("postgres"):
        return create_async_engine(
            parsed.set(drivername="postgresql+asyncpg"), pool_size=10, max_overflow=10, pool_pre_ping=True
        )
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        msg = f"HOLDFAST_DATABASE_URL must be sqlite:///<path> or postgresql://…, not {parsed.drivername}"
        raise ValueError(msg)
    Path(parsed.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(parsed.set(drivername="sqlite+aiosqlite"), pool_size=5, max_overflow=10)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection has no type
    connection.isolation_level = None  # the driver must not begin by itself: _begin does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing; a power cut may lose the last moment
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Any) -> None:  # noqa: ANN401 - a sync Connection
    # A deferred transaction that turns into a writer is refused at once, without the busy timeout.
    immediate = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


async def advisory_lock(connection: AsyncConnection, name: str) -> None:
    """In PostgreSQL, one transaction at a time per name; in SQLite, a write transaction is alone already."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
