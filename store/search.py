"""Full-text search over a tenant's pages: SQLite FTS5 (https://sqlite.org/fts5.html) or PostgreSQL."""

import re
from dataclasses import dataclass

from sqlalchemy import text

from store.database import Database

MARKS = ("«", "»")
TERM = re.compile(r'(-?)(?:"([^"]*)"|(\S+))')
WORD = re.compile(r"\w+")


class InvalidQuery(ValueError):
    """Nothing to look for; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that matches; the matches in `snippet` stand between « and »."""

    file_id: str
    filename: str
    page: int
    snippet: str


@dataclass(frozen=True, slots=True)
class _Term:
    words: tuple[str, ...]  # in this order, next to each other
    prefix: bool  # the last word may go on
    excluded: bool


def _parse(query: str) -> list[_Term]:
    """Words, "phrases", prefix* and -without. Punctuation separates words, so nothing typed is a syntax error."""
    terms = []
    for minus, phrase, bare in TERM.findall(query):
        words = tuple(word.lower() for word in WORD.findall(phrase or bare))
        if words:
            terms.append(_Term(words, prefix=bare.endswith("*"), excluded=bool(minus)))
    if not any(not term.excluded for term in terms):
        msg = "Write at least one word to look for; -word only takes pages away."
        raise InvalidQuery(msg)
    return terms


def _fts5(terms: list[_Term]) -> str:
    def one(term: _Term) -> str:
        return '"' + " ".join(term.words) + '"' + ("*" if term.prefix else "")

    wanted = " AND ".join(one(term) for term in terms if not term.excluded)
    return " NOT ".join([f"({wanted})", *(one(term) for term in terms if term.excluded)])


def _tsquery(terms: list[_Term]) -> str:
    def one(term: _Term) -> str:
        quoted = [f"'{word}'" for word in term.words]
        return "(" + " <-> ".join(quoted) + (":*" if term.prefix else "") + ")"

    return " & ".join(("!" if term.excluded else "") + one(term) for term in terms)


SQLITE = """
    SELECT f.file_id, f.filename, CAST(t.page AS INTEGER) AS page,
           snippet(page_text, 0, '«', '»', '…', 24) AS snippet
    FROM page_text t JOIN files f ON f.content_id = t.content_id AND f.tenant = t.tenant
    WHERE page_text MATCH :query AND t.tenant = :tenant
    ORDER BY rank, f.uploaded_at DESC, f.file_id, t.page LIMIT :limit OFFSET :offset
"""
POSTGRESQL = """
    SELECT f.file_id, f.filename, t.page,
           ts_headline('simple', t.text, q, 'StartSel=«, StopSel=», MaxWords=24, MinWords=12, MaxFragments=1') AS snippet
    FROM page_text t JOIN files f ON f.content_id = t.content_id AND f.tenant = t.tenant,
         to_tsquery('simple', :query) q
    WHERE t.found @@ q AND t.tenant = :tenant
    ORDER BY ts_rank(t.found, q) DESC, f.uploaded_at DESC, f.file_id, t.page LIMIT :limit OFFSET :offset
"""


class Search:
    """Queries on page_text."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def files(self, tenant: str, query: str, *, limit: int = 20, offset: int = 0) -> list[Hit]:
        """Pages of the tenant's files that have all words, best first.

        Args:
            tenant: whose files.
            query: words, "phrases", prefix* and -without; case and, in SQLite, accents do not matter.
            limit: at most so many pages.
            offset: pages to skip.

        Raises:
            InvalidQuery: no word to look for.
        """
        terms = _parse(query)
        sqlite = self._database.dialect == "sqlite"
        arguments = {
            "query": _fts5(terms) if sqlite else _tsquery(terms),
            "tenant": tenant,
            "limit": limit,
            "offset": offset,
        }
        async with self._database.read() as connection:
            rows = (await connection.execute(text(SQLITE if sqlite else POSTGRESQL), arguments)).all()
        return [Hit(row.file_id, row.filename, row.page, row.snippet) for row in rows]
