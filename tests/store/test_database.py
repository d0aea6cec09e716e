import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from runtime.clock import FixedClock
from store.database import Database, DatabaseUnavailable, NeedsMigration
from store.jobs import Jobs
from tests.store.conftest import submit

ROOT = Path(__file__).parents[2]
WRITER = """
import asyncio, sys
from runtime.clock import SystemClock
from store.database import Database
from store.jobs import Jobs
from tests.store.conftest import submit

async def main(url, name):
    database = Database.open(url)
    jobs = Jobs(database, SystemClock())
    async def writer(number):
        for at in range(40):
            await submit(database, jobs, f"{name}:{number}:{at}")
    await asyncio.gather(*(writer(number) for number in range(5)))
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.asyncio
async def test_answers_a_ping_when_migrated(database: Database, dialect: str) -> None:
    await database.ping()
    assert database.dialect == dialect


@pytest.mark.asyncio
async def test_says_how_to_migrate_when_behind(empty_url: str, clock: FixedClock) -> None:
    database = Database.open(empty_url)
    with pytest.raises(NeedsMigration, match=r"0001_first.*0001_effects.*`holdfast bootstrap`"):
        await database.ping()
    with pytest.raises(NeedsMigration, match="`holdfast bootstrap`"):
        await Jobs(database, clock).list(None)
    await database.close()


@pytest.mark.asyncio
async def test_says_where_it_looked_when_nothing_answers() -> None:
    database = Database.open("postgresql://someone:secret@127.0.0.1:1/holdfast")
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1/holdfast") as refused:
        await database.ping()
    assert "secret" not in str(refused.value)
    await database.close()


@pytest.mark.asyncio
async def test_a_database_that_does_not_exist_is_unavailable(database: Database, url: str) -> None:
    if database.dialect == "sqlite":
        (Path(url.removeprefix("sqlite:///")).parent / "folder.db").mkdir()
        missing = url.replace("store.db", "folder.db")
    else:
        missing = url.replace("/test_", "/missing_")
    elsewhere = Database.open(missing)
    with pytest.raises(DatabaseUnavailable):
        await elsewhere.ping()
    await elsewhere.close()
    await asyncio.sleep(0.1)  # aiosqlite's thread for the refused file still reports to this loop


def test_refuses_an_url_of_another_database() -> None:
    with pytest.raises(ValueError, match="HOLDFAST_DATABASE_URL"):
        Database.open("mysql://localhost/holdfast")


@pytest.mark.asyncio
async def test_an_error_of_the_callers_own_passes_through_and_rolls_back(database: Database, jobs: Jobs) -> None:
    with pytest.raises(FileNotFoundError):
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM alembic_version_main"))
            raise FileNotFoundError
    with pytest.raises(DBAPIError) as refused:
        async with database.read() as connection:
            await connection.execute(text("SELEC 1"))
    assert not isinstance(refused.value, DatabaseUnavailable)
    await database.ping()


@pytest.mark.asyncio
async def test_a_cancelled_writer_leaves_nothing_and_lets_the_next_one_in(database: Database, jobs: Jobs) -> None:
    inside = asyncio.Event()

    async def forget() -> None:
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM alembic_version_main"))
            inside.set()
            await asyncio.sleep(60)

    writer = asyncio.create_task(forget())
    await inside.wait()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    async with asyncio.timeout(2):
        await submit(database, jobs, "after")
    await database.ping()


@pytest.mark.asyncio
async def test_readers_do_not_wait_for_a_writer(database: Database, jobs: Jobs) -> None:
    await submit(database, jobs, "before")
    async with database.write() as connection:
        await connection.execute(text("UPDATE jobs SET stage = 'seen by nobody yet'"))
        async with asyncio.timeout(1):
            found, _next = await jobs.list(None)
        assert [job.stage for job in found] == [None]


@pytest.mark.asyncio
async def test_sqlite_is_set_up_as_designed(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/deep/down/store.db")
    expected = {"journal_mode": "wal", "busy_timeout": 5000, "foreign_keys": 1}
    for transaction, synchronous in ((database.read, 1), (database.ledger_read, 2)):  # NORMAL, FULL
        async with transaction() as connection:
            for pragma, value in (expected | {"synchronous": synchronous}).items():
                assert (await connection.execute(text(f"PRAGMA {pragma}"))).scalar() == value
    await database.close()
    assert (tmp_path / "deep/down/store.ledger.db").exists()


@pytest.mark.asyncio
async def test_a_sqlite_writer_holds_the_lock_from_its_first_statement(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    database = Database.open(f"sqlite:///{path}")
    async with database.write() as connection:
        await connection.execute(text("SELECT 1"))
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN")
        other.close()
    async with database.read() as connection:
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.close()
    await database.close()


@pytest.mark.asyncio
async def test_a_sqlite_file_that_stays_locked_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.database.BUSY_TIMEOUT_MS", 100)
    path = tmp_path / "store.db"
    database = Database.open(f"sqlite:///{path}")
    async with database.read() as connection:
        await connection.execute(text("SELECT 1"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="locked"):
        async with database.write():
            pass
    other.close()
    async with database.write():
        pass
    await database.close()


@pytest.mark.asyncio
async def test_ten_writers_in_two_processes_are_never_refused(database: Database, url: str, jobs: Jobs) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, name], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    for writer in writers:
        _out, errors = await asyncio.to_thread(writer.communicate, timeout=50)
        assert writer.returncode == 0, errors
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM jobs"))).scalar() == 400
