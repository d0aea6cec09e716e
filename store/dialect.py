"""What SQLite and PostgreSQL say differently."""

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite


def upsert(dialect: Dialect) -> type[sqlite.Insert] | type[postgresql.Insert]:
    """The dialect's INSERT that knows ON CONFLICT."""
    return sqlite.Insert if dialect.name == "sqlite" else postgresql.Insert
