"""Connections. SQLite: write transactions begin immediate, one at a time per process; PostgreSQL by URL."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

BUSY_TIMEOUT_MS = 5_000
CONNECT_TIMEOUT_S = 5.0  # asyncpg's own is 60 s, longer than anyone waits for an answer
MAX_ROWS_PER_WRITE = 200  # a longer write transaction makes the API's inserts wait
WRITES = "holdfast_writes"  # an execution option

# Of a SQLite or PostgreSQL that cannot work now, as opposed to one that refuses a wrong statement.
SQLITE_OUT_OF_REACH = frozenset(
    {5, 6, 8, 10, 13, 14}
)  # busy, locked, read-only, I/O, full: https://sqlite.org/rescode.html
SQLSTATE_OUT_OF_REACH = ("08", "53", "57P")  # https://www.postgresql.org/docs/current/errcodes-appendix.html

T = TypeVar("T")


class DatabaseUnavailable(Exception):
    """The store does not answer; the message says where it was looked for."""


class NeedsMigration(DatabaseUnavailable):
    """The store's tables are older than this program; run `holdfast bootstrap`."""


class Database:
    """Two engines: `main`, and `ledger` for effects. They may be the same PostgreSQL database."""

    def __init__(self, main: AsyncEngine, ledger: AsyncEngine) -> None:
        self.main = main
        self.ledger = ledger
        self._locks = {id(main): asyncio.Lock(), id(ledger): asyncio.Lock()}
        self._ledger_file = _LedgerFile(ledger.url) if ledger is not main and ledger.dialect.name == "sqlite" else None

    @classmethod
    def open(cls, url: str, ledger_url: str | None = None) -> "Database":
        """Connect lazily to `sqlite:///path` or `postgresql://…`; a SQLite file's folder is made.

        Args:
            url: of the main tables.
            ledger_url: of the effects; without it a file beside the SQLite file, or the same PostgreSQL database.
        """
        main = _engine(
            url, synchronous="NORMAL"
        )  # a killed process loses nothing; a power cut may lose the last moment
        if ledger_url is None and main.dialect.name == "sqlite":
            ledger_url = f"{url.removesuffix('.db')}.ledger.db"
        if ledger_url is None or ledger_url == url:
            return cls(main, main)
        # A claim that a power cut takes back is an effect done twice: one fsync a commit.
        return cls(main, _engine(ledger_url, synchronous="FULL"))

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.main.dialect.name

    @asynccontextmanager
    async def write(self, engine: AsyncEngine | None = None) -> AsyncIterator[AsyncConnection]:
        """One write transaction on the main tables: committed at the end of the block, or rolled back.

        In SQLite a second writer of this process waits here, in order, instead of polling the file's lock; one inside
        another would wait for itself.

        Raises:
            DatabaseUnavailable: cannot connect, lost the connection, or the file stayed locked for 5 s.
            NeedsMigration: a table is missing.
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
        """Reads of the main tables, each statement for itself: one thread hop less than in a transaction.

        Raises:
            DatabaseUnavailable: cannot connect, or lost the connection.
            NeedsMigration: a table is missing.
        """
        async with _transaction(engine or self.main, writes=False) as connection:
            yield connection

    async def ledger_write(self, work: Callable[[Connection], T]) -> T:
        """One write transaction on the effects: committed when `work` returns, rolled back if it raises.

        In SQLite all of it is one hop to a thread. With a hop for each statement the file would be locked for as long
        as the event loop has other things to do, and another process would poll for it.

        Raises:
            DatabaseUnavailable, NeedsMigration: as `write`.
        """
        if self._ledger_file is None:
            async with self.write(self.ledger) as connection:
                return await connection.run_sync(work)
        async with self._locks[id(self.ledger)]:
            return await self._ledger_file.write(work)

    def ledger_read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """`read` on the effects."""
        return self.read(self.ledger)

    async def ping(self) -> None:
        """Answer if both stores do and their tables are of this version.

        Raises:
            DatabaseUnavailable: one does not answer.
            NeedsMigration: run `holdfast bootstrap`.
        """
        from store.migrate import pending

        behind = await pending(self)
        if behind:
            msg = f"the store lacks the migrations {', '.join(behind)}: run `holdfast bootstrap`"
            raise NeedsMigration(msg)

    async def close(self) -> None:
        """Close every connection."""
        await self.main.dispose()
        if self.ledger is not self.main:
            await self.ledger.dispose()
        if self._ledger_file is not None:
            await self._ledger_file.close()


class _LedgerFile:
    """A SQLite file and the one thread that writes to it."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url.set(drivername="sqlite+pysqlite"), hide_parameters=True)
        _tune(self._engine, "FULL", pause=time.sleep)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with _explained(self._engine.url) as begun, self._engine.connect() as connection:
            connection.execution_options(**{WRITES: True})
            with connection.begin():
                begun()
                return work(connection)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=False)


@asynccontextmanager
async def _transaction(engine: AsyncEngine, *, writes: bool) -> AsyncIterator[AsyncConnection]:
    with _explained(engine.url) as begun:
        async with engine.connect() as connection:
            await connection.execution_options(**{WRITES: writes})
            async with connection.begin():
                begun()
                yield connection


@contextmanager
def _explained(url: URL) -> Iterator[Callable[[], None]]:
    """Errors of the store as those of this module; what is given is called once the transaction has begun."""
    began = False

    def begun() -> None:
        nonlocal began
        began = True

    try:
        yield begun
    except (SQLAlchemyError, OSError) as error:
        if began and _lacks_table(error):
            msg = f"the store lacks a table or column: run `holdfast bootstrap` ({error})"
            raise NeedsMigration(msg) from error
        if began and not _out_of_reach(error):
            raise  # the block's own
        msg = f"the store at {url.render_as_string(hide_password=True)} does not answer: {error}"
        raise DatabaseUnavailable(msg) from error


def _out_of_reach(error: Exception) -> bool:
    if not isinstance(error, DBAPIError):
        return isinstance(error, ConnectionError)
    sqlite_code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # without the extended part
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return (
        error.connection_invalidated or sqlite_code in SQLITE_OUT_OF_REACH or sqlstate.startswith(SQLSTATE_OUT_OF_REACH)
    )


def _lacks_table(error: Exception) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    undefined = {"42P01", "42703"}  # table, column
    return getattr(error.orig, "sqlstate", None) in undefined or str(error.orig).startswith(
        ("no such table", "no such col")
    )


def _engine(url: str, *, synchronous: str) -> AsyncEngine:
    parsed = make_url(url)
    if parsed.drivername.startswith("postgres"):
        return create_async_engine(
            parsed.set(drivername="postgresql+asyncpg"),
            hide_parameters=True,  # an error's text goes to Temporal and to logs, and addresses must not
            pool_size=10,
            max_overflow=10,
            pool_pre_ping=True,
            connect_args={"timeout": CONNECT_TIMEOUT_S},
        )
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        msg = f"HOLDFAST_DATABASE_URL must be sqlite:///<path> or postgresql://…, not {parsed.drivername}"
        raise ValueError(msg)
    Path(parsed.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        parsed.set(drivername="sqlite+aiosqlite"), hide_parameters=True, pool_size=5, max_overflow=10
    )
    _tune(engine.sync_engine, synchronous, pause=lambda seconds: await_only(asyncio.sleep(seconds)))
    return engine


def _tune(engine: Engine, synchronous: str, *, pause: Callable[[float], None]) -> None:
    event.listen(engine, "connect", partial(_set_pragmas, synchronous=synchronous, pause=pause))
    event.listen(engine, "begin", _begin)


def _set_pragmas(connection: Any, _record: object, *, synchronous: str, pause: Callable[[float], None]) -> None:
    connection.isolation_level = None  # the driver must not begin by itself: _begin does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _switch_to_wal(cursor, pause)
    cursor.execute(f"PRAGMA synchronous = {synchronous}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _switch_to_wal(cursor: Any, pause: Callable[[float], None]) -> None:
    # A first switch of a file refuses at once when another connection is there; it does not wait for the busy timeout.
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return
        pause(0.01)


def _begin(connection: Any) -> None:
    # Immediate: a deferred one that turns into a writer is refused at once, without the busy timeout.
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


async def advisory_lock(connection: AsyncConnection, name: str) -> None:
    """In PostgreSQL, one transaction at a time per name; in SQLite, a write transaction is alone already."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
