"""Full-text search over a tenant's pages: SQLite FTS5 (https://sqlite.org/fts5.html) or PostgreSQL.

Both index the words that `words_of` gives, so that both find the same. Left to themselves they do not: PostgreSQL's
parser takes a date for signed numbers and an address for one word, and keeps accents
(https://www.postgresql.org/docs/current/textsearch-parsers.html).
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import select as sql_select
from sqlalchemy import text, tuple_

from store.database import Database
from store.tables import pages

MAX_QUERY_WORDS = 100  # FTS5 and tsquery both refuse very long ones
SNIPPET_WORDS = 24
WORDS_BEFORE = 4  # of a snippet's first match

TERM = re.compile(r'(-?)(?:"([^"]*)"|(\S+))')
# A longer run is several words; PostgreSQL refuses those of more than 2,046 bytes. Combining accents belong to a word.
RAW_WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f]){1,255}")
WORD = re.compile(r"[^\W_]+")
MARKS_IN_TEXT = str.maketrans("«»", '""')  # only ours are marks


class InvalidQuery(ValueError):
    """Nothing to look for, or too much; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that matches; the matches in `snippet` stand between « and ». The better, the higher is `rank`.

    Ranks compare within one search only: SQLite's are BM25, PostgreSQL's ts_rank.
    """

    file_id: str
    filename: str
    page: int
    snippet: str
    rank: float


@dataclass(frozen=True, slots=True)
class _Term:
    words: tuple[str, ...]  # in this order, next to each other
    prefix: bool  # the last word may go on
    excluded: bool

    def at(self, words: Sequence[str], start: int) -> bool:
        """Whether it matches `words` from `start` on."""
        if not words[start].startswith(self.words[0]):
            return False  # nearly always, and much cheaper than what follows
        found = words[start : start + len(self.words)]
        if self.prefix:
            return (
                len(found) == len(self.words)
                and tuple(found[:-1]) == self.words[:-1]
                and found[-1].startswith(self.words[-1])
            )
        return tuple(found) == self.words


def words_of(body: str) -> list[str]:
    """The words as they are indexed: without case, accents, ligatures and punctuation."""
    return [word for word, _start, _end in _located(body)]


def _located(body: str) -> Iterator[tuple[str, int, int]]:
    """Each word and where in `body` it stands."""
    for match in RAW_WORD.finditer(body):
        raw = match.group()
        if raw.isascii():
            yield raw.lower(), match.start(), match.end()
            continue
        plain = "".join(char for char in unicodedata.normalize("NFKD", raw) if not unicodedata.combining(char))
        for word in WORD.findall(plain.casefold()):
            yield word, match.start(), match.end()


def _parse(query: str) -> list[_Term]:
    """Words, "phrases", prefix* and -without. Punctuation separates words, so nothing typed is a syntax error."""
    terms = []
    for minus, phrase, bare in TERM.findall(query):
        words = tuple(words_of(phrase or bare))
        if words:
            terms.append(_Term(words, prefix=bare.endswith("*"), excluded=bool(minus)))
    if not any(not term.excluded for term in terms):
        msg = "Write at least one word to look for; -word only takes pages away."
        raise InvalidQuery(msg)
    if sum(len(term.words) for term in terms) > MAX_QUERY_WORDS:
        msg = f"Write at most {MAX_QUERY_WORDS} words."
        raise InvalidQuery(msg)
    return terms


def _fts5(terms: list[_Term]) -> str:
    def one(term: _Term) -> str:
        return '"' + " ".join(term.words) + '"' + ("*" if term.prefix else "")

    query = " AND ".join(one(term) for term in terms if not term.excluded)
    without = " OR ".join(one(term) for term in terms if term.excluded)
    return f"text : (({query}) NOT ({without}))" if without else f"text : ({query})"


def _tsquery(terms: list[_Term]) -> str:
    def one(term: _Term) -> str:
        quoted = [f"'{word}'" for word in term.words]
        return "(" + " <-> ".join(quoted) + (":*" if term.prefix else "") + ")"

    return " & ".join(("!" if term.excluded else "") + one(term) for term in terms)


def _snippet(body: str, terms: list[_Term]) -> str:
    """About SNIPPET_WORDS words where most matches are, the matches marked."""
    located = list(_located(body))
    words = [word for word, _start, _end in located]
    marked = sorted(
        {
            start + offset
            for term in terms
            if not term.excluded
            for start in range(len(words))
            if term.at(words, start)
            for offset in range(len(term.words))
        }
    )
    if not marked:
        marked = [0]
    in_reach = SNIPPET_WORDS - WORDS_BEFORE
    matches_from = {start: bisect_left(marked, start + in_reach) - order for order, start in enumerate(marked)}
    best = max(marked, key=lambda start: (matches_from[start], -start))
    first = max(0, min(best - WORDS_BEFORE, len(located) - SNIPPET_WORDS))  # near the end, more of what is before
    last = min(len(located), first + SNIPPET_WORDS)
    shown = [index for index in marked if first <= index < last]
    parts, at = [], located[first][1] if first else 0
    # Neighbours are one match: the key is the same along a run of consecutive numbers.
    for _run, group in groupby(enumerate(shown), key=lambda pair: pair[1] - pair[0]):
        run = [index for _order, index in group]
        start, end = max(at, located[run[0]][1]), located[run[-1]][2]
        if end <= at:
            continue  # a ligature or fraction gave several words
        parts += [body[at:start].translate(MARKS_IN_TEXT), "«", body[start:end].translate(MARKS_IN_TEXT), "»"]
        at = end
    parts.append(
        body[at : max(at, located[last - 1][2]) if last < len(located) else len(body)].translate(MARKS_IN_TEXT)
    )
    line = " ".join("".join(parts).split())
    return ("…" if first else "") + line + ("…" if last < len(located) else "")


SQLITE = """
    SELECT f.file_id, f.filename, t.content_id, CAST(t.page AS INTEGER) AS page, -t.rank AS rank
    FROM page_text t
    JOIN contents c ON c.content_id = t.content_id AND c.ready_at IS NOT NULL
    JOIN files f ON f.content_id = t.content_id AND f.tenant = t.tenant
    WHERE page_text MATCH :query AND t.tenant = :tenant
    ORDER BY t.rank, f.uploaded_at DESC, f.file_id, t.page LIMIT :limit OFFSET :offset
"""
POSTGRESQL = """
    SELECT f.file_id, f.filename, t.content_id, t.page, ts_rank(t.found, q) AS rank
    FROM to_tsquery('simple', :query) q
    JOIN page_text t ON t.found @@ q
    JOIN contents c ON c.content_id = t.content_id AND c.ready_at IS NOT NULL
    JOIN files f ON f.content_id = t.content_id AND f.tenant = t.tenant
    WHERE t.tenant = :tenant
    ORDER BY rank DESC, f.uploaded_at DESC, f.file_id, t.page LIMIT :limit OFFSET :offset
"""


class Search:
    """Queries on page_text."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def files(self, tenant: str, query: str, *, limit: int = 20, offset: int = 0) -> list[Hit]:
        """Pages of the tenant's published files that have all words, best first.

        Args:
            tenant: whose files.
            query: words, "phrases", prefix* and -without; case, accents and punctuation do not matter.
            limit: at most so many pages.
            offset: pages to skip.

        Raises:
            InvalidQuery: no word to look for, or over 100.
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
            wanted = sorted({(row.content_id, row.page) for row in rows})
            key = tuple_(pages.c.content_id, pages.c.page)
            read = await connection.execute(sql_select(*key.clauses, pages.c.text).where(key.in_(wanted)))
            bodies = {(row.content_id, row.page): row.text for row in read}
        return [
            Hit(
                row.file_id,
                row.filename,
                row.page,
                _snippet(bodies.get((row.content_id, row.page), ""), terms),
                float(row.rank),
            )
            for row in rows
        ]
