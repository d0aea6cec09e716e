import asyncio
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, text

from store.database import Database
from store.migrate import HISTORIES, migrate, pending, version_table
from store.tables import LEDGER, MAIN
from tests.store.conftest import migrated
from tests.store.test_database import ROOT

MAIN_HISTORY = [
    "0001_first",
    "0002_page_text_by_content",
    "0003_notifications",
    "0004_broadcasts",
    "0005_events",
    "0006_connections",
]
EVERYTHING = [*MAIN_HISTORY, "0001_effects", "0002_owner"]
SINCE_0003 = (
    *("people", "targets", "preferences", "suppressions", "notifications", "budgets"),
    *("recipient_sets", "recipients", "audiences", "broadcasts", "broadcast_chunks"),
    *("events", "digest_settings", "digests"),
    *("connections", "sync_places", "sync_left_out", "synced_rows"),
)
MIGRATE = """
import asyncio, json, sys
from store.database import Database
from store.migrate import migrate

async def main(url):
    database = Database.open(url)
    print(json.dumps(await migrate(database)))
    await database.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def url(empty_url: str) -> str:
    """Of a migrated database of this test's own, because tests here change tables."""
    migrated(empty_url)
    return empty_url


@pytest.mark.asyncio
async def test_applies_every_revision_once(empty_url: str) -> None:
    database = Database.open(empty_url)
    assert await pending(database) == EVERYTHING
    assert await migrate(database) == EVERYTHING
    assert await migrate(database) == []
    assert await pending(database) == []
    await database.close()


def _differences(connection: Connection, metadata: MetaData, history: str) -> list[Any]:
    ours = {"page_text"} | {version_table(each) for each in HISTORIES} | set(MAIN.tables) | set(LEDGER.tables)

    def compared(_item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
        known_elsewhere = reflected and other is None and (name in ours or (name or "").startswith("page_text_"))
        return not (kind == "table" and known_elsewhere)

    options = {"compare_type": True, "include_object": compared, "version_table": version_table(history)}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


@pytest.mark.asyncio
async def test_migrated_tables_are_those_of_the_metadata(database: Database) -> None:
    async with database.read() as connection:
        assert await connection.run_sync(_differences, MAIN, "main") == []
    async with database.ledger_read() as connection:
        assert await connection.run_sync(_differences, LEDGER, "ledger") == []


@pytest.mark.asyncio
async def test_the_comparison_sees_a_difference(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("ALTER TABLE jobs ADD COLUMN surplus TEXT"))
        await connection.execute(text("DROP INDEX jobs_by_type"))
        await connection.execute(text("CREATE TABLE forgotten (id TEXT)"))
        found = await connection.run_sync(_differences, MAIN, "main")
    assert len(found) == 3


@pytest.mark.asyncio
async def test_processes_that_migrate_at_once_apply_each_revision_once(empty_url: str) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    applied: list[str] = []
    for process in started:
        out, errors = await asyncio.to_thread(process.communicate, timeout=50)
        assert process.returncode == 0, errors
        applied += json.loads(out)
    assert sorted(applied) == sorted(EVERYTHING)


@pytest.mark.asyncio
async def test_connections_that_migrate_at_once_apply_each_revision_once(empty_url: str) -> None:
    databases = [Database.open(empty_url) for _ in range(6)]
    applied = await asyncio.gather(*(migrate(database) for database in databases))
    assert sorted(sum(applied, [])) == sorted(EVERYTHING)
    await asyncio.gather(*(database.close() for database in databases))


@pytest.mark.asyncio
async def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    database = Database.open(empty_url)
    async with database.write() as connection:
        await connection.execute(text("CREATE TABLE api_keys (key_id TEXT)"))  # the last table of 0001_first
    with pytest.raises(Exception, match="already exists"):
        await migrate(database)
    async with database.read() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == ["api_keys"]
    await database.close()


@pytest.mark.asyncio
async def test_a_release_runs_on_the_tables_of_a_later_one(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version_main SET version_num = '0099_later'"))
    await database.ping()
    assert await migrate(database) == []


def test_text_that_was_published_before_is_found_after_0002(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/store.db")

    async def migrate_from_the_first() -> None:
        await migrate(database)
        async with database.write() as connection:
            for statement in (
                *(f"DROP TABLE {name}" for name in SINCE_0003),
                "DROP TABLE page_text",
                (
                    "CREATE VIRTUAL TABLE page_text "
                    "USING fts5(text, content_id UNINDEXED, page UNINDEXED, tenant UNINDEXED)"
                ),
                "INSERT INTO page_text (text, content_id, page, tenant) VALUES ('Total', 'some-content', 3, 'acme')",
                "UPDATE alembic_version_main SET version_num = '0001_first'",
            ):
                await connection.execute(text(statement))
        assert await migrate(database) == MAIN_HISTORY[1:]
        await database.close()

    asyncio.run(migrate_from_the_first())
    query = "SELECT text, content_id, page, tenant FROM page_text WHERE page_text MATCH 'content_id : \"some-content\"'"
    connection = sqlite3.connect(tmp_path / "store.db")
    assert connection.execute(query).fetchall() == [("Total", "some-content", 3, "acme")]
    connection.close()


def test_the_scripts_lie_beside_the_module_where_a_wheel_puts_them() -> None:
    versions = [path.name for path in (ROOT / "store/migrations").glob("*/versions/*.py")]
    assert sorted(versions) == [f"{revision}.py" for revision in sorted(EVERYTHING)]
