"""The API's edge in this process: limits, hostile bodies, roles, unsubscribing; with a store and without Temporal."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from activities.templates import Templates
from contracts.payloads.notification import ChannelName
from runtime.settings import Settings
from starter.api.app import create_app
from starter.api.body_limit import MAX_BODY_BYTES
from starter.services import Services
from store.api_keys import Role
from store.migrate import migrate
from store.people import target_id_of
from store.suppressions import Reason
from tests.integration.temporal_double import TemporalDouble

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADA = {"channel": "email", "address": "ada@example.com"}
TEXT = {"subject": "Hi", "text": "There."}
BODY = {"recipient": ADA, "content": TEXT}
JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("edge"), signing_key="k", log_level="error")
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        opened: Services = made.state.services
        await migrate(opened.database)
        temporal: Any = TemporalDouble()
        made.state.services = replace(opened, temporal=temporal, channels=frozenset(ChannelName))
        yield made


@pytest.fixture
def services(app: FastAPI) -> Services:
    found: Services = app.state.services
    return found


@asynccontextmanager
async def client(app: FastAPI, role: Role | None = Role.SUBMIT) -> AsyncIterator[httpx.AsyncClient]:
    secret = "no key"
    if role is not None:
        _, secret = await app.state.services.api_keys.create("acme", role, "")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example", headers=headers) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def acme(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as made:
        yield made


def detail(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    return str(document["detail"])


@pytest.mark.parametrize("role", [None, Role.SUBMIT])
@pytest.mark.parametrize(
    "path", ["/v1/notifications", "/v1/suppressions", "/v1/people/ada/targets", "/v1/unsubscribe/x"]
)
async def test_no_more_than_a_mebibyte_of_a_body_is_read_whoever_sends_it(
    app: FastAPI, path: str, role: Role | None
) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        yield b'{"a": "'
        while asked < 300:
            asked += 1
            yield b"x" * 65_536

    async with client(app, role) as caller:
        declared = await caller.post(path, content=b"x" * (MAX_BODY_BYTES + 1), headers=JSON)
        assert "larger than 1,024 KiB" in detail(declared, 413, "too_large")
        if not path.startswith("/v1/unsubscribe"):  # which reads no body
            assert "larger than 1,024 KiB" in detail(
                await caller.post(path, content=endless(), headers=JSON), 413, "too_large"
            )
            assert asked <= 17


async def test_a_body_of_a_mebibyte_is_read_and_an_upload_has_its_own_limit(acme: httpx.AsyncClient) -> None:
    full = json.dumps(BODY | {"content": TEXT | {"html": "x" * 200_000}}).encode().ljust(MAX_BODY_BYTES)
    assert (await acme.post("/v1/notifications", content=full, headers=JSON)).status_code == 202
    upload = await acme.post("/v1/files", files={"file": ("a.bin", b"x" * (MAX_BODY_BYTES + 1))})
    assert upload.status_code == 202


@pytest.mark.parametrize(
    ("content", "status", "code", "words"),
    [
        (b'{"recipient":"\xff"}', 400, "bad_request", "The body is not UTF-8 at byte 14"),
        (b"[" * 100_000, 400, "bad_request", "The JSON is nested too deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, 422, "invalid_request", "is nested deeper than 50 levels"),
        (b'{"a":1' + b"0" * 5_000 + b"}", 400, "bad_request", "A number in the body has more digits than are read"),
        (b'{"a":', 422, "invalid_request", "body: is no JSON: Expecting value, at character 5"),
        (b"", 422, "invalid_request", "body: is missing"),
        (b"[]", 422, "invalid_request", "body: must be a JSON object"),
        (b'{"recipient":"a\\ud800"}', 422, "invalid_request", "recipient contains half a surrogate pair"),
        (b'{"\\ud800":1}', 422, "invalid_request", "the name of a field contains half a surrogate pair"),
        (b'{"template":"a\\u0000"}', 422, "invalid_request", "template contains a NUL character"),
        (b'{"data":{"a":NaN}}', 422, "invalid_request", "data.a is NaN or Infinity"),
    ],
)
async def test_a_body_that_cannot_be_read_is_told_why(
    acme: httpx.AsyncClient, content: bytes, status: int, code: str, words: str
) -> None:
    assert words in detail(await acme.post("/v1/notifications", content=content, headers=JSON), status, code)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_another_content_type_is_told_the_right_one(acme: httpx.AsyncClient, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await acme.post("/v1/notifications", content=json.dumps(BODY).encode(), headers=headers)
    assert "`Content-Type: application/json`" in detail(answer, 415, "not_json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BODY | {"recipient": {"channel": "email", "address": "ada"}}, "body.recipient: not a mail address"),
        (BODY | {"recipient": {"channel": "slack", "address": "general"}}, "body.recipient: a Slack address is the id"),
        (BODY | {"expires": 3600}, "body.expires: say a time with its time zone"),
        (BODY | {"expires": "P999999999D"}, "`expires` may be at most 7 days away"),
        (BODY | {"content": TEXT | {"url": "https://[x"}}, "body.content.url: a link must be an http or https URL"),
    ],
)
async def test_a_refusal_names_the_field_and_nothing_of_our_library(
    acme: httpx.AsyncClient, body: dict[str, Any], words: str
) -> None:
    answer = await acme.post("/v1/notifications", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(words)
    for internal in ("function-after", "constrained-str", "_usable", "Value error", "|"):
        assert internal not in answer.text


@pytest.mark.parametrize(
    "path", ["/v1/people/a%00b", "/v1/jobs?tenant=%00", "/v1/suppressions?channel=email&address=a%00"]
)
async def test_a_nul_in_the_address_line_is_refused(acme: httpx.AsyncClient, path: str) -> None:
    assert "NUL" in detail(await acme.get(path), 400, "invalid_request")


async def test_a_broken_template_is_a_fault_of_ours_that_names_it(
    app: FastAPI, services: Services, tmp_path: Path, acme: httpx.AsyncClient
) -> None:
    place = tmp_path / "brk/en"
    place.mkdir(parents=True)
    (tmp_path / "brk/template.toml").write_text('category = "c"\nchannels = ["email"]\n')
    (place / "subject.txt").write_text("s")
    (place / "body.txt").write_text("{% if %}")
    app.state.services = replace(services, templates=Templates(tmp_path))
    try:
        answer = await acme.post("/v1/notifications", json={"recipient": ADA, "template": "brk"})
        assert "brk/en/body.txt" in detail(answer, 500, "template_broken")
    finally:
        app.state.services = services


async def test_while_temporal_is_away_the_answer_is_about_what_was_sent(
    services: Services, acme: httpx.AsyncClient
) -> None:
    services.temporal.away = True  # type: ignore[attr-defined]
    try:
        told = detail(await acme.post("/v1/notifications", json=BODY), 503, "temporal_unavailable")
    finally:
        services.temporal.away = False  # type: ignore[attr-defined]
    assert "with the same Idempotency-Key" in told
    assert "upload" not in told


async def test_a_key_that_may_not_see_contents_is_answered_without_them(app: FastAPI, acme: httpx.AsyncClient) -> None:
    put = await acme.put("/v1/people/secretive", json={"targets": [ADA], "locale": "de"})
    assert put.json()["targets"][0]["address"] == "ada@example.com"
    async with client(app, Role.OPERATE) as operator:
        assert (await operator.get("/v1/people/secretive")).status_code == 403
        again = await operator.put("/v1/people/secretive", json={"locale": "de"})
        assert (again.status_code, again.json()) == (200, {"person": "secretive"})
        device = {"channel": "fcm", "address": "token-1"}
        made = await operator.post("/v1/people/secretive/targets", json=device)
        assert made.status_code == 201
        assert made.json() == {"target_id": target_id_of("acme", ChannelName.FCM, "token-1")}
    seen = (await acme.get("/v1/people/secretive")).json()
    assert [each["address"] for each in seen["targets"]] == ["ada@example.com", "token-1"]


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "..",
        "/etc/passwd",
        "Europe",
        "EST5EDT",
        "GMT0",
        "localtime",
        "Factory",
        "posix/Europe/Berlin",
        "europe/berlin",
    ],
)
async def test_only_the_zone_of_a_place_or_utc_is_taken(acme: httpx.AsyncClient, zone: str) -> None:
    answer = await acme.put("/v1/people/zoned", json={"time_zone": zone})
    assert "no IANA time zone such as Europe/Berlin" in detail(answer, 422, "unknown_time_zone")
    for good in ("UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+12"):
        assert (await acme.put("/v1/people/zoned", json={"time_zone": good})).json()["time_zone"] == good


async def test_a_suppression_holds_for_every_spelling_and_is_lifted_by_any(acme: httpx.AsyncClient) -> None:
    shouted = {"channel": "email", "address": "Case@Example.com"}
    assert (await acme.post("/v1/suppressions", json=shouted)).status_code == 204
    seen = await acme.put("/v1/people/case", json={"targets": [{"channel": "email", "address": " CASE@example.COM"}]})
    assert [(each["address"], each["suppressed"]) for each in seen.json()["targets"]] == [
        ("case@example.com", "bounced")
    ]
    lifted = await acme.delete("/v1/suppressions", params={"channel": "email", "address": " cAse@eXample.com "})
    assert lifted.status_code == 204
    assert (await acme.get("/v1/people/case")).json()["targets"][0]["suppressed"] is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"address": ""}, "body.address: String should have at least 1 character"),
        ({"address": "not an address"}, "body: not a mail address"),
        ({"categroy": "offers"}, "body.categroy: is no field of this request; is it misspelt?"),
        (
            {"reason": "dead"},
            "body.reason: 'dead' cannot be reported; say bounced, complained, unsubscribed or mailbox_full",
        ),
    ],
)
async def test_a_suppression_that_would_suppress_nothing_is_refused(
    acme: httpx.AsyncClient, changed: dict[str, str], words: str
) -> None:
    answer = await acme.post("/v1/suppressions", json={"channel": "email", "address": "x@y.example"} | changed)
    assert detail(answer, 422, "invalid_request").startswith(words)


def text_of(page: httpx.Response) -> str:
    assert page.headers["content-type"].startswith("text/html")
    return re.sub(r"<[^>]+>", " ", page.text.split("<body>")[1])


async def test_an_old_link_works_after_the_address_was_registered_again(
    services: Services, acme: httpx.AsyncClient
) -> None:
    person = {"locale": "de-AT", "targets": [{"channel": "email", "address": "re@example.com"}]}
    before = (await acme.put("/v1/people/re", json=person)).json()["targets"][0]["target_id"]
    link = services.unsubscribing.url("acme", before, "offers").removeprefix(services.settings.resolved_public_url())
    await acme.put("/v1/people/re", json={"locale": "de-AT", "targets": []})
    gone = await acme.post(link, data={"List-Unsubscribe": "One-Click"})
    assert gone.status_code == 410
    assert "Nothing was changed / Es wurde nichts geändert" in text_of(gone)
    assert (await acme.get(link)).status_code == 410
    await acme.put("/v1/people/re", json=person)
    asked = await acme.get(link)
    assert (asked.status_code, '<html lang="de">' in asked.text) == (200, True)
    assert "Keine Mails zu offers mehr an diese Adresse?" in " ".join(text_of(asked).split())
    done = await acme.post(link, data={"List-Unsubscribe": "One-Click"})
    assert (done.status_code, " ".join(text_of(done).split())) == (
        200,
        "Erledigt Sie erhalten keine Mails zu offers mehr.",
    )
    (suppressed,) = [each for each in await services.suppressions.list("acme") if each.address == "re@example.com"]
    assert (suppressed.category, suppressed.reason) == ("offers", Reason.UNSUBSCRIBED)


async def test_the_link_of_a_digest_unsubscribes_from_all_that_it_carries(
    services: Services, acme: httpx.AsyncClient
) -> None:
    await acme.put("/v1/people/digested", json={"targets": [{"channel": "email", "address": "digested@example.com"}]})
    target_id = target_id_of("acme", ChannelName.EMAIL, "digested@example.com")
    link = services.unsubscribing.url("acme", target_id, "news,offers")
    link = link.removeprefix(services.settings.resolved_public_url())
    assert "Stop mails about <b>news</b>, <b>offers</b> to this address?" in (await acme.get(link)).text
    assert (await acme.post(link)).status_code == 200
    found = [each for each in await services.suppressions.list("acme") if each.address == "digested@example.com"]
    assert {each.category for each in found} == {"news", "offers"}


async def test_a_link_that_was_cut_short_says_so_on_a_page(services: Services, acme: httpx.AsyncClient) -> None:
    link = services.unsubscribing.url("acme", "x", "offers").removeprefix(services.settings.resolved_public_url())
    for answer in (await acme.get(link[:-2]), await acme.post(link[:-2] + "xx")):
        assert answer.status_code == 404
        assert "This link does not work / Dieser Link funktioniert nicht" in text_of(answer)


async def test_the_page_is_english_where_no_language_is_known(services: Services, acme: httpx.AsyncClient) -> None:
    await acme.put(
        "/v1/people/fr", json={"locale": "fr", "targets": [{"channel": "email", "address": "fr@example.com"}]}
    )
    target_id = target_id_of("acme", ChannelName.EMAIL, "fr@example.com")
    link = services.unsubscribing.url("acme", target_id, "<b>").removeprefix(services.settings.resolved_public_url())
    page = await acme.get(link)
    assert "Stop mails about <b>&lt;b&gt;</b> to this address?" in page.text
