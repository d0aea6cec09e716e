"""Sending: refreshed tokens, redirects, connections that fail, and what is never told."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import JsonValue, SecretStr

from activities.connectors import engine as engine_module
from activities.connectors.engine import Ask, Engine, Parent, build
from activities.connectors.known import UnknownProvider, connector, known
from activities.connectors.paging import LinkHeader
from activities.connectors.spec import (
    MINUTE,
    Budget,
    Connector,
    Credentials,
    Judgement,
    Meaning,
    OAuth,
    Resource,
    Row,
    Settings,
    filled,
)
from activities.connectors.vendor_http import vendor_http
from runtime.clock import FixedClock
from tests.connectors.conftest import Vendor
from tests.connectors.sample import NOW, TOKEN, Reply


class Thing(Row):
    """A row."""

    id: int


THINGS = Resource("things", "/things", Thing, LinkHeader(), params={"state": "all"})
LIMIT = Budget("requests", 60, MINUTE, "https://docs.example/limits")
PLAIN = Connector(
    "plain",
    "https://api.example",
    "",
    "https://docs.example",
    OAuth("https://api.example", "/token"),
    (THINGS,),
    (LIMIT,),
)
CREDENTIALS = Credentials(
    access_token=SecretStr(TOKEN),
    refresh_token=SecretStr("refresh-1"),
    client_id="app-7",
    client_secret=SecretStr("s:ecret"),
    expires_at=NOW,
)
ASK = Ask(THINGS, Settings())


# Tokens


async def refreshed(
    vendor: Vendor, engine: Engine, reply: Reply, *, of: Connector = PLAIN, with_: Credentials = CREDENTIALS
) -> Credentials | Judgement:
    vendor.replies = [reply]
    return await engine.refresh(of.at(vendor.host), with_)


@pytest.mark.parametrize(
    ("more", "refresh", "lasts"),
    [
        ({"expires_in": 3600, "refresh_token": "refresh-2"}, "refresh-2", 3600),
        ({"expires_in": 43200}, "refresh-1", 43200),
        ({"refresh_token": ""}, "refresh-1", None),
        ({"expires_in": "3600"}, "refresh-1", 3600),
        ({"expires_in": None}, "refresh-1", None),
        ({"expires_in": 1e300}, "refresh-1", None),
        ({"expires_in": "soon"}, "refresh-1", None),
    ],
)
async def test_a_token_is_refreshed_and_perhaps_rotated(
    vendor: Vendor, engine: Engine, more: dict[str, JsonValue], refresh: str, lasts: int | None
) -> None:
    after = await refreshed(vendor, engine, Reply(body={"access_token": "access-2", "token_type": "bearer", **more}))
    assert isinstance(after, Credentials)
    assert after.access_token.get_secret_value() == "access-2"
    assert after.refresh_token is not None and after.refresh_token.get_secret_value() == refresh
    assert after.expires_at == (NOW + timedelta(seconds=lasts) if lasts else None)
    assert (after.client_id, after.client_secret) == (CREDENTIALS.client_id, CREDENTIALS.client_secret)
    (asked,) = vendor.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/token", {})
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in asked.headers
    assert parse_qs(asked.text) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh-1"],
        "client_id": ["app-7"],
        "client_secret": ["s:ecret"],
    }


async def test_a_client_may_name_itself_by_basic_authentication(vendor: Vendor, engine: Engine) -> None:
    basic = replace(PLAIN, auth=replace(PLAIN.auth, basic=True))
    assert isinstance(await refreshed(vendor, engine, Reply(body={"access_token": "a"}), of=basic), Credentials)
    (asked,) = vendor.asked
    kind, _, pair = asked.headers["Authorization"].partition(" ")
    assert (kind, b64decode(pair)) == ("Basic", b"app-7:s:ecret")
    assert parse_qs(asked.text) == {"grant_type": ["refresh_token"], "refresh_token": ["refresh-1"]}


@pytest.mark.parametrize(
    ("reply", "meaning", "code", "wait"),
    [
        (
            Reply(400, {"error": "invalid_grant", "error_description": "revoked"}),
            Meaning.UNAUTHORIZED,
            "invalid_grant",
            None,
        ),
        (Reply(401, {"error": "invalid_client"}), Meaning.UNAUTHORIZED, "invalid_client", None),
        (Reply(200, {"error": "bad_refresh_token"}), Meaning.UNAUTHORIZED, "bad_refresh_token", None),
        (Reply(200, {"access_token": ""}), Meaning.UNAUTHORIZED, "http_200", None),
        (Reply(403, {"err": "Invalid token"}), Meaning.UNAUTHORIZED, "http_403", None),
        (Reply(400, {"error": "temporarily_unavailable"}), Meaning.OVERLOADED, "temporarily_unavailable", None),
        (
            Reply(429, {"error": "slow_down"}, {"Retry-After": "30"}),
            Meaning.OVERLOADED,
            "slow_down",
            timedelta(seconds=30),
        ),
        (Reply(500, {"error": "invalid_grant"}), Meaning.OVERLOADED, "invalid_grant", None),
        (Reply(503, "", {"Retry-After": "5"}), Meaning.OVERLOADED, "http_503", timedelta(seconds=5)),
        (Reply(200, "<html>Sign in</html>"), Meaning.OVERLOADED, "http_200", None),
        (Reply(400, "<html>Bad Request</html>"), Meaning.OVERLOADED, "http_400", None),
        (Reply(200, ["access_token"]), Meaning.OVERLOADED, "http_200", None),
    ],
)
async def test_a_refused_refresh(
    vendor: Vendor, engine: Engine, reply: Reply, meaning: Meaning, code: str, wait: timedelta | None
) -> None:
    got = await refreshed(vendor, engine, reply)
    assert isinstance(got, Judgement)
    assert (got.meaning, got.code, got.wait) == (meaning, code, wait)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        ("invalid_refresh_token", Meaning.UNAUTHORIZED),
        ("ratelimited", Meaning.OVERLOADED),
        ("internal_error", Meaning.OVERLOADED),
    ],
)
async def test_slack_refuses_a_refresh_with_200(vendor: Vendor, engine: Engine, error: str, meaning: Meaning) -> None:
    got = await refreshed(vendor, engine, Reply(200, {"ok": False, "error": error}), of=known()["slack"])
    assert isinstance(got, Judgement)
    assert (got.meaning, got.code) == (meaning, error)
    assert vendor.asked[0].path == "/api/oauth.v2.access"


async def test_github_says_no_by_403_where_a_limit_is_met(vendor: Vendor, engine: Engine) -> None:
    body: JsonValue = {"message": "You have exceeded a secondary rate limit"}
    got = await refreshed(vendor, engine, Reply(403, body, {"Retry-After": "60"}), of=known()["github"])
    assert isinstance(got, Judgement)
    assert (got.meaning, got.wait) == (Meaning.OVERLOADED, timedelta(seconds=60))


async def test_no_refusal_of_a_refresh_repeats_a_secret(vendor: Vendor, engine: Engine) -> None:
    said = f"refresh-1 of app-7 with s:ecret is not {TOKEN}"
    for body in ({"error": said}, {"error": "invalid_grant", "error_description": said}, said):
        got = await refreshed(vendor, engine, Reply(400, body))  # type: ignore[arg-type]
        assert isinstance(got, Judgement)
        assert not any(secret in repr(got) for secret in ("refresh-1", "s:ecret", TOKEN))


async def test_without_a_refresh_token_nobody_is_asked(vendor: Vendor, engine: Engine) -> None:
    bare = Credentials(access_token=SecretStr(TOKEN))
    got = await refreshed(vendor, engine, Reply(), with_=bare)
    assert isinstance(got, Judgement)
    assert (got.meaning, got.code, vendor.asked) == (Meaning.UNAUTHORIZED, "no_refresh_token", [])


# Redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_list_that_moved_on_the_same_host_is_followed(vendor: Vendor, engine: Engine, status: int) -> None:
    vendor.replies = [Reply(status, None, {"Location": "/repositories/41/things"}), Reply(body=[{"id": 1}])]
    page = await engine.pull(PLAIN.at(vendor.host), ASK, CREDENTIALS)
    assert [row.row_id for row in page.rows] == ["1"]
    assert [(each.path, each.query) for each in vendor.asked] == [
        ("/things", {"state": "all"}),
        ("/repositories/41/things", {"state": "all"}),
    ]
    assert vendor.asked[1].headers["Authorization"] == f"Bearer {TOKEN}"


async def test_a_redirect_that_has_a_query_keeps_its_own(vendor: Vendor, engine: Engine) -> None:
    vendor.replies = [Reply(301, None, {"Location": "{host}/moved?state=open"}), Reply(body=[])]
    await engine.pull(PLAIN.at(vendor.host), ASK, CREDENTIALS)
    assert vendor.asked[1].query == {"state": "open"}


@pytest.mark.parametrize(
    "place",
    [
        "https://elsewhere.example/things",
        "//elsewhere.example/",
        "http://localhost:1/things",
        "http://me:you@127.0.0.1/",
    ],
)
async def test_the_token_goes_to_no_other_host(vendor: Vendor, engine: Engine, place: str) -> None:
    vendor.replies = [Reply(302, None, {"Location": place}), Reply(body=[])]
    page = await engine.pull(PLAIN.at(vendor.host), ASK, CREDENTIALS)
    assert (page.judgement.meaning, page.judgement.code) == (Meaning.PERMANENT, "redirect")
    assert len(vendor.asked) == 1
    assert "you" not in page.judgement.detail


async def test_a_circle_of_redirects_ends(vendor: Vendor, engine: Engine) -> None:
    vendor.replies = [Reply(307, None, {"Location": "/things"})]
    page = await engine.pull(PLAIN.at(vendor.host), ASK, CREDENTIALS)
    assert (page.judgement.meaning, page.judgement.code) == (Meaning.PERMANENT, "redirect")
    assert len(vendor.asked) == engine_module.REDIRECTS + 1


# Connections


async def test_a_vendor_that_cannot_be_reached_is_an_outage(engine: Engine) -> None:
    page = await engine.pull(PLAIN.at("http://127.0.0.1:1"), ASK, CREDENTIALS)
    assert (page.judgement.meaning, page.judgement.code) == (Meaning.OVERLOADED, "connection")
    assert "127.0.0.1 does not answer" in page.judgement.detail


async def test_a_connection_that_is_cut_in_the_middle_is_an_outage(clock: FixedClock) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, vendor_http() as http:
        page = await Engine(http, clock).pull(PLAIN.at(host), ASK, CREDENTIALS)
    assert (page.judgement.meaning, page.judgement.code) == (Meaning.OVERLOADED, "connection")


@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout(f"late, Bearer {TOKEN}"), httpx.LocalProtocolError(f"bad header {TOKEN}"), TimeoutError(TOKEN)],
)
async def test_an_error_of_the_client_is_told_without_its_words(clock: FixedClock, error: Exception) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as http:
        page = await Engine(http, clock).pull(PLAIN, ASK, CREDENTIALS)
    assert page.judgement.meaning is Meaning.OVERLOADED
    assert TOKEN not in repr(page)
    assert type(error).__name__ in page.judgement.detail


@pytest.mark.parametrize("token", ["two\nlines", "tökén", "nul\x00"])
async def test_a_token_that_no_header_can_have_is_refused_before_it_is_sent(
    vendor: Vendor, engine: Engine, token: str
) -> None:
    page = await engine.pull(PLAIN.at(vendor.host), ASK, Credentials(access_token=SecretStr(token)))
    assert (page.judgement.meaning, vendor.asked) == (Meaning.UNAUTHORIZED, [])
    assert token not in repr(page)


async def test_an_answer_without_end_is_not_read_to_its_end(clock: FixedClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_BODY_BYTES", 100_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b" " * 10_000

    transport = httpx.MockTransport(lambda _request: httpx.Response(200, content=endless()))
    async with httpx.AsyncClient(transport=transport) as http:
        page = await Engine(http, clock).pull(PLAIN, ASK, CREDENTIALS)
    assert (page.judgement.meaning, page.judgement.code) == (Meaning.PERMANENT, "too_large")
    assert sent <= 120_000


async def test_deep_json_is_an_outage_and_no_crash(vendor: Vendor, engine: Engine) -> None:
    vendor.replies = [Reply(body="[" * 200_000)]
    page = await engine.pull(PLAIN.at(vendor.host), ASK, CREDENTIALS)
    assert page.judgement.code == "no_json"


async def test_a_good_answer_may_wish_to_be_asked_less(vendor: Vendor, engine: Engine) -> None:
    vendor.replies = [Reply(body=[{"id": 1}], headers={"Retry-After": "20"})]
    page = await engine.pull(PLAIN.at(vendor.host), ASK, CREDENTIALS)
    assert (page.judgement.meaning, page.judgement.wait) == (Meaning.OK, timedelta(seconds=20))
    assert len(page.rows) == 1


# Requests


def test_a_path_is_filled_and_quoted_once() -> None:
    resource = replace(THINGS, path="/of/{owner}/{name}", of_parent={"owner": "owner.login", "name": "name"})
    parent = Parent("1", {"owner": {"login": "a/b?c"}, "name": "{owner}"})
    assert (
        build(PLAIN, Ask(resource, Settings(), parent=parent)).target == "https://api.example/of/a%2Fb%3Fc/%7Bowner%7D"
    )


@pytest.mark.parametrize("data", [{}, {"name": None}, {"name": ""}])
async def test_a_parent_that_lacks_a_name_makes_no_request(
    vendor: Vendor, engine: Engine, data: dict[str, JsonValue]
) -> None:
    resource = replace(THINGS, path="/of/{name}", of_parent={"name": "name"})
    page = await engine.pull(PLAIN.at(vendor.host), Ask(resource, Settings(), parent=Parent("1", data)), CREDENTIALS)
    assert (page.judgement.meaning, page.judgement.code) == (Meaning.PERMANENT, "request")
    assert "name" in page.judgement.detail
    assert vendor.asked == []


def test_a_name_without_a_value_is_told() -> None:
    with pytest.raises(KeyError, match="who"):
        filled("/{who}", {}, str)


def test_an_unknown_provider_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownProvider, match=r"no connector for 'jita'\. .* figma, github, jira, slack\."):
        connector(known(), "jita")
    with pytest.raises(UnknownProvider, match="jita"):
        known({"jita": "http://127.0.0.1:1"})
    assert connector(known(), "jira").name == "jira"


def test_hosts_and_time_can_be_others() -> None:
    found = known({"jira": "http://127.0.0.1:1"}, speed=60)
    assert (found["jira"].host, found["jira"].auth.host) == ("http://127.0.0.1:1", "http://127.0.0.1:1")
    assert found["figma"].host == "https://api.figma.com"
    assert found["github"].budgets[0].per == MINUTE
    assert found["slack"].resources[0].budgets[0].per == timedelta(seconds=1)
    assert known()["slack"].resources[0].budgets[0].per == MINUTE
