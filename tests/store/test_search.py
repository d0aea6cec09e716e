import random
import unicodedata
from collections.abc import Sequence

import pytest

from store.database import Database
from store.files import Files
from store.ids import new_id
from store.jobs import Jobs
from store.search import InvalidQuery, Search, words_of
from tests.store.conftest import a_page, submit, upload

PAGES = (
    "Invoice 2026-11-24\nTotal amount: 1,234.50 EUR, due in 14 days",
    "Café menu: crème brûlée, Straße 5; contact billing@acme.example or www.acme.example/pay",
    "Draft of the annual report, total pages unknown, ref. AB_12-34",
    "The amount total differs. OR AND NOT NEAR are words too",
)
RANDOM_SEED = 20261124


@pytest.fixture
def search(database: Database) -> Search:
    return Search(database)


async def publish(
    database: Database, files: Files, jobs: Jobs, bodies: Sequence[str], tenant: str = "acme", name: str = "a.pdf"
) -> str:
    job = await submit(database, jobs, f"w:{new_id()}", tenant=tenant)
    file, content = await upload(database, files, tenant=tenant, filename=name, sha256=str(new_id()))
    for number, body in enumerate(bodies, 1):
        await files.save_page(job.job_id, a_page(content.content_id, number, body))
    await files.publish(content.content_id, tenant)
    return file.file_id


@pytest.mark.parametrize(
    ("query", "pages"),
    [
        ("invoice", [1]),
        ("INVOICE", [1]),
        ("total", [1, 3, 4]),
        ("total amount", [1, 4]),
        ('"total amount"', [1]),
        ('"amount total"', [4]),
        ('"amount due"', []),
        ("total -amount", [3]),
        ("-draft total", [1, 4]),
        ('total -"total amount"', [3, 4]),
        ("total -draft -differs", [1]),
        ("inv*", [1]),
        ("inv", []),
        ("tot* rep*", [3]),
        ("-inv* total", [3, 4]),
        ("2026-11-24", [1]),
        ("2026", [1]),
        ("1,234.50", [1]),
        ("cafe creme", [2]),
        ("Café", [2]),
        ("cafe\u0301", [2]),
        ("strasse", [2]),
        ("billing@acme.example", [2]),
        ("acme", [2]),
        ("www.acme.example/pay", [2]),
        ("ab_12-34", [3]),
        ("or and not near", [4]),
        ("absent", []),
        ("total absent", []),
        ('"total amount', [1, 4]),
        ("(total) AND: amount^", [4]),
    ],
)
@pytest.mark.asyncio
async def test_the_query_language(
    database: Database, files: Files, jobs: Jobs, search: Search, query: str, pages: list[int]
) -> None:
    await publish(database, files, jobs, PAGES)
    hits = await search.files("acme", query)
    assert sorted(hit.page for hit in hits) == pages
    assert [hit.rank for hit in hits] == sorted((hit.rank for hit in hits), reverse=True)


@pytest.mark.parametrize("query", ["", " ", "-draft", '-"total amount"', "_", "*", '""', "- -", "!?", "\x00"])
@pytest.mark.asyncio
async def test_a_query_without_a_word_to_look_for_is_refused(search: Search, query: str) -> None:
    with pytest.raises(InvalidQuery, match="at least one word"):
        await search.files("acme", query)


@pytest.mark.asyncio
async def test_a_query_of_too_many_words_is_refused(search: Search) -> None:
    assert await search.files("acme", " ".join(f"-w{number}" for number in range(99)) + " total") == []
    assert await search.files("acme", " ".join(f"w{number}" for number in range(100))) == []
    with pytest.raises(InvalidQuery, match="at most 100"):
        await search.files("acme", " ".join(f"-w{number}" for number in range(100)) + " total")


@pytest.mark.parametrize(
    ("query", "snippet"),
    [
        ("days", "Invoice 2026-11-24 Total amount: 1,234.50 EUR, due in 14 «days»"),
        ("amount", "Invoice 2026-11-24 Total «amount»: 1,234.50 EUR, due in 14 days"),
        ('"total amount" eur', "Invoice 2026-11-24 «Total amount»: 1,234.50 «EUR», due in 14 days"),
        ("2026-11-24", "Invoice «2026-11-24» Total amount: 1,234.50 EUR, due in 14 days"),
        ("inv* -draft", "«Invoice» 2026-11-24 Total amount: 1,234.50 EUR, due in 14 days"),
        ("creme", "Café menu: «crème» brûlée, Straße 5; contact billing@acme.example or www.acme.example/pay"),
    ],
)
@pytest.mark.asyncio
async def test_matches_are_marked_as_they_were_written(
    database: Database, files: Files, jobs: Jobs, search: Search, query: str, snippet: str
) -> None:
    await publish(database, files, jobs, PAGES[:2])
    hits = await search.files("acme", query)
    assert [hit.snippet for hit in hits] == [snippet]


@pytest.mark.asyncio
async def test_a_snippet_shows_the_neighbourhood_of_the_matches_and_only_our_marks(
    database: Database, files: Files, jobs: Jobs, search: Search
) -> None:
    before, after = [f"b{n}" for n in range(100)], [f"a{n}" for n in range(100)]
    body = " ".join(["needle", *before, "«needle»", "needle", *after])
    await publish(database, files, jobs, [body, "ﬁnal ½ price"])
    (hit,) = await search.files("acme", "needle")
    assert hit.snippet.startswith('…b96 b97 b98 b99 "«needle" needle» a0 a1 ')
    assert hit.snippet.endswith("a17…")
    (hit,) = await search.files("acme", "final 1 2 price")
    assert hit.snippet == "«ﬁnal ½ price»"


@pytest.mark.asyncio
async def test_a_tenant_finds_its_own_pages_only(database: Database, files: Files, jobs: Jobs, search: Search) -> None:
    ours = await publish(database, files, jobs, PAGES, name="ours.pdf")
    theirs = await publish(database, files, jobs, PAGES, tenant="globex", name="theirs.pdf")
    assert {(hit.file_id, hit.filename) for hit in await search.files("acme", "total")} == {(ours, "ours.pdf")}
    assert {(hit.file_id, hit.filename) for hit in await search.files("globex", "total")} == {(theirs, "theirs.pdf")}
    assert await search.files("initech", "total") == []


@pytest.mark.asyncio
async def test_ids_and_tenants_are_not_searched(database: Database, files: Files, jobs: Jobs, search: Search) -> None:
    await publish(database, files, jobs, PAGES)
    assert await search.files("acme", "acme -example") == []
    assert await search.files("acme", f"{str(new_id())[:3]}*") == []


@pytest.mark.asyncio
async def test_pages_are_found_only_once_published(
    database: Database, files: Files, jobs: Jobs, search: Search
) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    await files.save_page(job.job_id, a_page(content.content_id, 1, "total"))
    assert await search.files("acme", "total") == []
    await files._publish_batch(content.content_id, "acme", await files.pages(content.content_id))
    assert await search.files("acme", "total") == []
    await files.publish(content.content_id, "acme")
    assert len(await search.files("acme", "total")) == 1


@pytest.mark.asyncio
async def test_each_file_of_a_content_is_found(database: Database, files: Files, jobs: Jobs, search: Search) -> None:
    job = await submit(database, jobs, "w")
    first, content = await upload(database, files, filename="a.pdf")
    second, _same = await upload(database, files, filename="b.pdf")
    await files.save_page(job.job_id, a_page(content.content_id, 1, "total"))
    await files.publish(content.content_id, "acme")
    assert {hit.file_id for hit in await search.files("acme", "total")} == {first.file_id, second.file_id}


@pytest.mark.asyncio
async def test_pages_of_hits_follow_each_other(database: Database, files: Files, jobs: Jobs, search: Search) -> None:
    await publish(database, files, jobs, ["total " * (number % 4 + 1) + "x" for number in range(17)])
    whole = await search.files("acme", "total", limit=100)
    assert len(whole) == 17
    parts = [await search.files("acme", "total", limit=5, offset=offset) for offset in (0, 5, 10, 15, 20)]
    assert [len(part) for part in parts] == [5, 5, 5, 2, 0]
    assert sum(parts, []) == whole


@pytest.mark.asyncio
async def test_the_page_with_more_matches_comes_first(
    database: Database, files: Files, jobs: Jobs, search: Search
) -> None:
    await publish(database, files, jobs, ["total one two three", "total total total one", "nothing here at all"])
    assert [hit.page for hit in await search.files("acme", "total")] == [2, 1]


@pytest.mark.asyncio
async def test_whatever_is_typed_is_answered_or_refused_in_words(
    database: Database, files: Files, jobs: Jobs, search: Search
) -> None:
    await publish(database, files, jobs, PAGES)
    chance = random.Random(RANDOM_SEED)
    pieces = [
        *"\"'*-+:^(){}[]<>&|!\\/.,;%_~@#$=`?\x00\x01\t\n\x7f ",
        "AND",
        "OR",
        "NOT",
        "NEAR(",
        "total",
        "é",
        "ß",
        "日本",
    ]
    pieces += [
        "text:",
        "content_id:",
        "{text} :",
        "--",
        "/*",
        "<->",
        ":*",
        "\u0301",
        "\u200b",
        "\ud800",
        "½",
        "x" * 3000,
    ]
    for _ in range(400):
        query = "".join(chance.choices(pieces, k=chance.randint(1, 12)))
        if chance.random() < 0.3:
            query += "".join(chr(chance.randrange(1, 0x11000)) for _ in range(5))
        try:
            hits = await search.files("acme", query)
        except InvalidQuery as refused:
            assert str(refused).startswith("Write at")  # noqa: PT017 - most queries are answered
        else:
            assert all(hit.page in {1, 2, 3, 4} for hit in hits)


@pytest.mark.asyncio
async def test_any_page_can_be_published_and_found_by_each_of_its_words(
    database: Database, files: Files, jobs: Jobs, search: Search
) -> None:
    chance = random.Random(RANDOM_SEED)
    bodies = [
        " ".join("".join(chr(chance.randrange(1, 0x3000)) for _ in range(6)) for _ in range(40)) for _ in range(6)
    ]
    bodies.append("long" * 2_000)
    await publish(database, files, jobs, bodies)
    for number, body in enumerate(bodies, 1):
        for word in words_of(body)[:25]:
            if all(unicodedata.category(char)[0] == "L" and ord(char) < 0x500 for char in word):
                assert number in {hit.page for hit in await search.files("acme", word, limit=100)}


def test_words_are_without_case_accents_ligatures_and_punctuation() -> None:
    assert words_of("Größe, ﬁnal_draft: cafe\u0301 CAFÉ 1,234.50 — O'Neill") == [
        "grosse", "final", "draft", "cafe", "cafe", "1", "234", "50", "o", "neill",
    ]  # fmt: skip
    assert [len(word) for word in words_of("x" * 600)] == [255, 255, 90]
    assert words_of(" _-– ") == []
