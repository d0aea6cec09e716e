"""What SQLite and PostgreSQL say differently."""

from typing import Any

from sqlalchemy import JSON, ColumnElement, Dialect, FromClause, String, bindparam, cast, func
from sqlalchemy.dialects import postgresql, sqlite


def upsert(dialect: Dialect) -> type[sqlite.Insert] | type[postgresql.Insert]:
    """The dialect's INSERT that knows ON CONFLICT."""
    return sqlite.Insert if dialect.name == "sqlite" else postgresql.Insert


class JsonRows:
    """Rows in one parameter, the text of a JSON list of lists: one statement and one parameter, however many rows.

    A statement's parameters are a good part of what it costs, and SQLite's driver waits for the interpreter after each
    row that it is given.
    """

    def __init__(self, dialect: Dialect, parameter: str) -> None:
        self._sqlite = dialect.name == "sqlite"
        if self._sqlite:
            self.rows: FromClause = func.json_each(bindparam(parameter, type_=String)).table_valued(
                "value", name="rows"
            )
        else:
            given = cast(bindparam(parameter, type_=String), postgresql.JSONB)
            self.rows = func.jsonb_array_elements(given).table_valued("value", name="rows")

    def text(self, position: int) -> ColumnElement[str]:
        """A row's text at a position, from 0."""
        if self._sqlite:
            return func.json_extract(self.rows.c.value, f"$[{position}]", type_=String)
        return func.jsonb_extract_path_text(self.rows.c.value, str(position), type_=String)

    def json(self, position: int) -> ColumnElement[Any]:
        """The JSON value that a row has, as its text, at a position."""
        return self.text(position) if self._sqlite else cast(self.text(position), JSON)
