"""Migrations by Alembic, driven from here: two histories, each with its own version table.

A new revision is a file in store/migrations/<history>/versions. Migrations expand first and contract a release later,
so that the release before runs on the new tables.
"""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database, advisory_lock

HISTORIES = ("main", "ledger")


def _scripts(history: str) -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations" / history))


def version_table(history: str) -> str:
    """Where a history keeps its revision."""
    return f"alembic_version_{history}"


def _missing(connection: Connection, history: str) -> list[str]:
    context = MigrationContext.configure(connection, opts={"version_table": version_table(history)})
    ordered = [revision.revision for revision in _scripts(history).walk_revisions()][::-1]
    heads = context.get_current_heads()
    if not heads:
        return ordered
    if heads[0] not in ordered:
        return []  # migrated by a later release, whose tables this one can use: see above
    return ordered[ordered.index(heads[0]) + 1 :]


def _upgrade(connection: Connection, history: str) -> list[str]:
    missing = _missing(connection, history)
    if missing:
        scripts = _scripts(history)
        with EnvironmentContext(
            Config(),
            scripts,
            fn=lambda revision, _context: scripts._upgrade_revs("head", revision),  # noqa: SLF001 - alembic.command needs an env.py
        ) as environment:
            environment.configure(connection=connection, version_table=version_table(history))
            environment.run_migrations()
    return missing


async def pending(database: Database) -> list[str]:
    """The revisions that `migrate` would apply, oldest first.

    Raises:
        DatabaseUnavailable: the store does not answer.
    """
    behind: list[str] = []
    for history, engine in zip(HISTORIES, (database.main, database.ledger), strict=True):
        async with database.read(engine) as connection:
            behind += await connection.run_sync(_missing, history)
    return behind


async def migrate(database: Database) -> list[str]:
    """Apply what is missing, all or nothing per history, one process at a time; the revisions applied.

    Raises:
        DatabaseUnavailable: the store does not answer.
    """
    applied: list[str] = []
    for history, engine in zip(HISTORIES, (database.main, database.ledger), strict=True):
        async with database.write(engine) as connection:
            await _lock(connection, history)
            applied += await connection.run_sync(_upgrade, history)
    return applied


async def _lock(connection: AsyncConnection, history: str) -> None:
    await advisory_lock(connection, f"holdfast:migrate:{history}")
