"""How lists go on, and what is written to look as if they did."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from activities.connectors.paging import LinkHeader, Offset, OnePage, TokenInBody, UrlInBody
from activities.connectors.spec import Answer, Request

HERE = Request("https://api.example/v1/things", params={"a": "b"})


def answer(body: JsonValue = None, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(200, headers or {}, json.dumps(body).encode(), datetime(2026, 11, 4, tzinfo=UTC))


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ('<https://api.example/2>; rel="next"', "https://api.example/2"),
        ("<https://api.example/2>;rel=next", "https://api.example/2"),
        ("<https://api.example/2> ; REL = Next", "https://api.example/2"),
        ('<https://api.example/1>; rel="prev", <https://api.example/2>; rel="next"', "https://api.example/2"),
        ('<https://api.example/2>; rel="prev next"', "https://api.example/2"),
        ('<https://api.example/2>; results="true"; rel="next"; cursor="0:100:0"', "https://api.example/2"),
        ('<https://api.example/2>; title="a, b; <c>"; rel="next"', "https://api.example/2"),
        ("<https://api.example/2?a=1,2;3>; rel=next", "https://api.example/2?a=1,2;3"),
        ('</v1/things?page=2>; rel="next"', "https://api.example/v1/things?page=2"),
        ('<?page=2>; rel="next"', "https://api.example/v1/things?page=2"),
        ('<https://api.example/1>; rel="base",\n\t<https://api.example/2>; rel="next"', "https://api.example/2"),
        ("", None),
        ('<https://api.example/9>; rel="last"', None),
        ('<https://api.example/2>; rel="nextish"', None),
        ('<https://api.example/2>; rel="not-next"', None),
        ('<https://api.example/2>; data-rel="next"', None),
        ('<https://api.example/1>; title="; rel=next"; rel="prev"', None),
        ('<https://api.example/1>; rel="prev"; title="rel=\\"next"', None),
        ('<https://api.example/rel="next">; rel="prev"', None),
        ('<>; rel="next"', None),
        ("https://api.example/2; rel=next", None),
        ("<https://api.example/2", None),
    ],
)
def test_only_a_link_that_is_the_next_one_is_followed(link: str, found: str | None) -> None:
    assert LinkHeader().next(HERE, answer(headers={"link": link}), 3) == found


def test_a_long_link_header_takes_no_time() -> None:
    for header in ("<https://api.example/1>; " + "x=y; " * 20_000, "<" * 100_000, '<a>; x="' * 20_000, "<a>;" * 20_000):
        assert LinkHeader().next(HERE, answer(headers={"link": header}), 3) is None


def test_the_vendors_url_is_taken_as_it_is() -> None:
    paging = LinkHeader("per_page", 50)
    assert paging.first(HERE) == HERE.having(per_page="50")
    assert paging.after(HERE, "https://api.example/2?x=1") == Request("https://api.example/2?x=1")
    assert LinkHeader().first(HERE) is HERE


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"links": {"next": "https://api.example/2"}}, "https://api.example/2"),
        ({"links": {"next": "/v1/things?page=2"}}, "https://api.example/v1/things?page=2"),
        ({"links": {"next": None}}, None),
        ({"links": {"next": ""}}, None),
        ({"links": {"next": 2}}, None),
        ({"links": None}, None),
        ([], None),
    ],
)
def test_a_url_in_the_body(body: JsonValue, found: str | None) -> None:
    assert UrlInBody(at="links.next").next(HERE, answer(body), 3) == found


@pytest.mark.parametrize(
    ("token", "found"),
    [("abc", "abc"), (7, "7"), ("", None), (None, None), (False, None), (True, None), ({}, None), (0, None)],
)
def test_a_token_in_the_body(token: JsonValue, found: str | None) -> None:
    paging = TokenInBody("cursor", "meta.next", "limit", 50)
    assert paging.next(HERE, answer({"meta": {"next": token}}), 3) == found
    assert paging.next(HERE, answer({}), 3) is None
    assert paging.first(HERE).params == {"a": "b", "limit": "50"}
    assert paging.after(HERE, "a b&c").params == {"a": "b", "limit": "50", "cursor": "a b&c"}


def test_an_empty_page_with_a_token_is_not_the_end() -> None:
    assert TokenInBody("cursor", "next").next(HERE, answer({"next": "abc"}), 0) == "abc"


@pytest.mark.parametrize(
    ("paging", "body", "rows", "found"),
    [
        (Offset("from", "size"), {}, 100, "300"),
        (Offset("from", "size"), {}, 3, "203"),  # a short page says nothing
        (Offset("from", "size"), {}, 0, None),
        (Offset("from", "size", last="isLast"), {"isLast": True}, 100, None),
        (Offset("from", "size", last="isLast"), {"isLast": False}, 3, "203"),
        (Offset("from", "size", last="isLast"), {"isLast": "yes"}, 3, "203"),
        (Offset("from", "size", total="total"), {"total": 203}, 3, None),
        (Offset("from", "size", total="total"), {"total": 204}, 3, "203"),
        (Offset("from", "size", total="total"), {"total": 100}, 3, None),  # rows were deleted meanwhile
        (Offset("from", "size", total="total"), {}, 3, "203"),
    ],
)
def test_offsets(paging: Offset, body: JsonValue, rows: int, found: str | None) -> None:
    assert paging.next(paging.after(HERE, "200"), answer(body), rows) == found
    assert paging.first(HERE).params == {"a": "b", "from": "0", "size": "100"}


def test_one_page_is_the_end() -> None:
    assert OnePage().first(HERE) is HERE
    assert OnePage().next(HERE, answer({"next": "abc"}, {"link": '<https://api.example/2>; rel="next"'}), 3) is None
