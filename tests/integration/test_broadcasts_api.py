"""/v1/broadcasts and /v1/audiences in this process, with a store and without Temporal."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.types import Message
from temporalio.service import RPCError, RPCStatusCode

from contracts.payloads.broadcast import BroadcastProgress, BroadcastRequest
from contracts.payloads.job import JobRef, JobState, RecordJob
from contracts.payloads.notification import ChannelName
from runtime.clock import FixedClock
from runtime.settings import Settings
from starter.api import broadcasts as routes
from starter.api.app import create_app
from starter.api.body_limit import MAX_BODY_BYTES
from starter.api.recipient_body import NDJSON
from starter.recipient_intake import all_dropped
from starter.services import Services
from store.api_keys import Role
from store.broadcasts import Broadcasts
from store.database import Database, DatabaseUnavailable
from store.ids import new_id
from store.migrate import migrate
from store.people import target_id_of
from store.recipients import Recipient
from store.tables import broadcasts, jobs, recipient_sets, recipients, submissions, targets
from tests.integration.temporal_double import TemporalDouble

pytestmark = pytest.mark.asyncio(loop_scope="module")
LINES = {"Content-Type": f"{NDJSON}; charset=utf-8"}
TEXT = {"content": {"subject": "Hi", "text": "There."}, "channels": ["push", "email"]}
WELCOME = {"template": "welcome", "data": {"url": "https://acme.example"}}
TABLES = (broadcasts, jobs, recipient_sets, recipients, submissions)


@dataclass
class SteeredDouble(TemporalDouble):
    """Also takes updates and cancellations, and keeps what was asked."""

    requests: list[BroadcastRequest] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    paused: str = ""
    refuses: Exception | None = None

    async def start_workflow(self, _run: Any, _request: Any, *, id: str, **_options: Any) -> Any:  # noqa: A002 - the client's
        started = await super().start_workflow(_run, _request, id=id, **_options)
        self.requests.append(_request)
        return started

    def get_workflow_handle(self, workflow_id: str, **options: Any) -> Any:
        async def execute_update(update: Any, wish: Any = None, **_more: Any) -> BroadcastProgress:
            self._may()
            self.asked.append((update._defn.name, workflow_id))
            self.paused = (wish.reason or "paused") if wish is not None else ""
            return BroadcastProgress(total=1, done=0, counts={}, paused=self.paused)

        async def cancel() -> None:
            self._may()
            self.asked.append(("cancel", workflow_id))

        known = super().get_workflow_handle(workflow_id, **options)

        async def describe(**more: Any) -> Any:
            await known.describe(**more)
            return SimpleNamespace(status=None, raw_description=SimpleNamespace(pending_activities=()))

        return SimpleNamespace(describe=describe, execute_update=execute_update, cancel=cancel)

    def _may(self) -> None:
        self._answer()
        if self.refuses is not None:
            raise self.refuses


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    folder = tmp_path_factory.mktemp("broadcasts")
    made = create_app(
        Settings(_env_file=None, data_dir=folder, signing_key="k", log_level="error", max_recipients=1_000)
    )
    async with made.router.lifespan_context(made):
        opened: Services = made.state.services
        await migrate(opened.database)
        made.state.pristine = replace(opened, channels=frozenset(ChannelName))
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def services(app: FastAPI) -> AsyncIterator[Services]:
    """With an empty store."""
    double: Any = SteeredDouble()
    app.state.services = found = replace(app.state.pristine, temporal=double)
    yield found
    await all_dropped()
    async with found.database.write() as connection:
        for table in (*TABLES, targets):
            await connection.execute(table.delete())


@asynccontextmanager
async def client(
    app: FastAPI, role: Role | None = Role.SUBMIT, tenant: str = "acme"
) -> AsyncIterator[httpx.AsyncClient]:
    secret = "no key"
    if role is not None:
        _, secret = await app.state.services.api_keys.create(tenant, role, "")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example", headers=headers) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def acme(app: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as made:
        yield made


def body(*lines: Any, message: Any = TEXT) -> bytes:
    told = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in (message, *lines)]
    return b"\n".join(told)


def double(services: Services) -> SteeredDouble:
    found: Any = services.temporal
    return found  # type: ignore[no-any-return]


def detail(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    return str(document["detail"])


async def rows(services: Services) -> dict[str, int]:
    """Of each table, once nothing is being dropped any more."""
    await all_dropped()
    async with services.database.read() as connection:
        return {
            table.name: (await connection.execute(select(func.count()).select_from(table))).scalar() or 0
            for table in TABLES
        }


NOTHING = {table.name: 0 for table in TABLES}


async def send(
    caller: httpx.AsyncClient, *lines: Any, message: Any = TEXT, key: str | None = None, query: str = ""
) -> httpx.Response:
    headers = LINES | ({"Idempotency-Key": key} if key else {})
    return await caller.post(f"/v1/broadcasts{query}", content=body(*lines, message=message), headers=headers)


async def test_every_good_line_is_stored_once_and_the_others_are_told_by_line(
    services: Services, acme: httpx.AsyncClient
) -> None:
    answer = await send(
        acme,
        "ada",  # 2
        b"",
        {"person": "bob", "data": {}},
        {"channel": "email", "address": "Eve@EXAMPLE.com"},  # 5
        b"{oops",
        "ada",
        {"channel": "email", "address": " eve@example.com"},  # 8
        {"channel": "slack", "address": "C024BE91L"},
        {"person": "eve", "data": {"a": 1}},
        b'"' + b"x" * 65_536 + b'"',  # 11
        b'"\xff"',
        b'"last"\r',  # 13
        b"  ",
    )
    assert answer.status_code == 202, answer.text
    told = answer.json()
    job_id = told["job_id"]
    assert told | {"links": None} == {
        "job_id": job_id,
        "state": "running",
        "recipients": 4,
        "duplicates": {"count": 2, "lines": [7, 8]},
        "bad": {
            "count": 5,
            "lines": [
                {"line": 6, "problem": "is no JSON: key must be a string, at character 2"},
                {
                    "line": 9,
                    "problem": "slack is none of this message's channels (push, email): name it in `channels`",
                },
                {"line": 10, "problem": "`data` is for a template, and this message has none"},
                {"line": 11, "problem": "is longer than 64 KiB"},
                {"line": 12, "problem": "is not UTF-8 at byte 1"},
            ],
        },
        "deduplicated": False,
        "links": None,
    }
    base = services.settings.resolved_public_url()
    assert told["links"] == {
        "status": f"{base}/v1/jobs/{job_id}",
        "broadcast": f"{base}/v1/broadcasts/{job_id}",
        "events": f"{base}/v1/broadcasts/{job_id}/events",
        "web_ui": f"http://127.0.0.1:8233/namespaces/default/workflows/broadcast:acme:{job_id}/run-1",
    }
    stored = await services.broadcasts.get("acme", UUID(job_id))
    assert stored is not None
    assert (stored.total, stored.category, stored.routes) == (4, "general", ("push", "email"))
    eve = target_id_of("acme", ChannelName.EMAIL, "eve@example.com")
    assert await services.recipients.between(stored.set_id, 1, 99) == [
        Recipient(2, person="ada"),
        Recipient(4, person="bob"),
        Recipient(5, target_id=eve),
        Recipient(13, person="last"),
    ]
    assert (await services.people.target("acme", eve)) is not None
    ref = JobRef(job_id=UUID(job_id), tenant="acme")
    assert double(services).requests == [BroadcastRequest(job=ref, total=4, expires_at=stored.expires_at)]
    assert double(services).started == [f"broadcast:acme:{job_id}"]
    seen = (await acme.get(f"/v1/broadcasts/{job_id}")).json()
    assert seen["report"] == {"recipients": 4, "duplicates": told["duplicates"], "bad": told["bad"]}


async def test_a_message_of_a_template_takes_data_from_the_message_and_from_each_line(
    services: Services, acme: httpx.AsyncClient
) -> None:
    lines: list[Any] = [
        {"person": "a", "data": {"name": "Ada"}},
        "b",
        {"channel": "email", "address": "c@x.example", "data": {"name": None}},
        {"channel": "email", "address": "d@x.example", "data": {"name": "Dan", "url": "https://d.example"}},
    ]
    told = (await send(acme, *lines, message=WELCOME)).json()
    lacks = "lacks data that the template 'welcome' needs: `name`"
    assert told["bad"] == {"count": 2, "lines": [{"line": 3, "problem": lacks}, {"line": 4, "problem": lacks}]}
    stored = await services.broadcasts.get("acme", UUID(told["job_id"]))
    assert stored is not None
    assert (stored.template, stored.data, stored.routes) == ("welcome", WELCOME["data"], ("email",))
    found = await services.recipients.between(stored.set_id, 1, 9)
    assert [(each.line, each.data) for each in found] == [
        (2, {"name": "Ada"}),
        (5, {"name": "Dan", "url": "https://d.example"}),
    ]


async def test_batches_hold_each_recipient_once_over_many_of_them(
    services: Services, acme: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    add = services.recipients.add

    async def counted(connection: Any, set_id: str, batch: Any) -> list[int]:
        sizes.append(sum(1 if each.target_id is None else 2 for each in batch))
        return await add(connection, set_id, batch)

    monkeypatch.setattr(services.recipients, "add", counted)
    people = [f"p{number}" for number in range(450)]
    tokens = [{"channel": "fcm", "address": f"t{number}"} for number in range(250)]
    told = (await send(acme, *people, *tokens, *people[:5], *tokens[:3])).json()
    assert (told["recipients"], told["bad"]["count"]) == (700, 0)
    assert told["duplicates"] == {"count": 8, "lines": list(range(702, 710))}
    assert sizes == [200, 200, 200, 200, 161]


@pytest.mark.parametrize(
    ("message", "status", "code", "words"),
    [
        (b"", 422, "invalid_request", "message: is no JSON: EOF while parsing a value, at character 0"),
        (b"{", 422, "invalid_request", "message: is no JSON: EOF while parsing an object, at character 1"),
        (b'{"a":"\xff"}', 422, "invalid_request", "message: is not UTF-8 at byte 6"),
        (b"[]", 422, "invalid_request", "message: must be a JSON object"),
        (b'"ada"', 422, "invalid_request", "message: must be a JSON object"),
        ({}, 422, "invalid_request", "message: say either `template` or `content`"),
        (TEXT | {"recipient": "ada"}, 422, "invalid_request", "message.recipient: is no field of this request"),
        (TEXT | {"audience": "vip"}, 422, "invalid_request", "message.audience: is no field of this request"),
        (TEXT | {"expires": 5}, 422, "invalid_request", "message.expires: say a time with its time zone"),
        (TEXT | {"expires": "P8D"}, 422, "invalid_broadcast", "`expires` may be at most 7 days away"),
        ({"template": "nope"}, 422, "unknown_template", "there is no template 'nope'"),
        (b'{"data":{"a":1e400}}', 422, "invalid_request", "message: data.a is NaN or Infinity"),
        (b"[" * 70_000, 422, "invalid_request", "message: is no JSON: recursion limit exceeded, at character 20"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "too_large", "The message is larger than 1,024 KiB."),
    ],
)
async def test_a_message_that_is_wrong_is_refused_before_anything_is_stored(
    services: Services, acme: httpx.AsyncClient, message: Any, status: int, code: str, words: str
) -> None:
    assert detail(await send(acme, *([] if message == b"" else ["ada"]), message=message), status, code).startswith(
        words
    )
    assert await rows(services) == NOTHING


async def test_no_channel_that_is_configured_is_told(app: FastAPI, services: Services, acme: httpx.AsyncClient) -> None:
    app.state.services = replace(services, channels=frozenset({ChannelName.WEBHOOK}))
    told = detail(await send(acme, "ada"), 422, "invalid_broadcast")
    assert told == "none of the channels push, email is configured here; configured are: webhook"


async def test_one_bad_line_refuses_all_where_that_is_asked_for(services: Services, acme: httpx.AsyncClient) -> None:
    answer = await send(acme, *[f"p{number}" for number in range(300)], "a b", query="?strict=true")
    assert detail(answer, 422, "recipients_refused").startswith(
        "Nothing was kept: bad lines: 1, and strict takes none; the first: line 302 String should match"
    )
    assert [each["line"] for each in answer.json()["report"]["bad"]["lines"]] == [302]
    assert await rows(services) == NOTHING
    assert (await send(acme, "ada", "ada", query="?strict=true")).status_code == 202


@pytest.mark.parametrize(
    ("lines", "count", "words"),
    [
        ([], 0, "Nothing was kept: no line names a recipient; the first problem: there is no line."),
        ([b"", b"\r"], 0, "Nothing was kept: no line names a recipient; the first problem: there is no line."),
        ([b"1", {}], 2, "Nothing was kept: no line names a recipient; the first problem: line 2 must be a person's id"),
    ],
)
async def test_a_broadcast_to_nobody_is_refused(
    services: Services, acme: httpx.AsyncClient, lines: list[Any], count: int, words: str
) -> None:
    answer = await send(acme, *lines)
    assert detail(answer, 422, "recipients_refused").startswith(words)
    assert answer.json()["report"]["bad"]["count"] == count
    assert await rows(services) == NOTHING


async def test_a_template_that_fits_none_of_the_first_recipients_refuses_the_message(
    services: Services, acme: httpx.AsyncClient
) -> None:
    wrong = {"template": "welcome", "data": {"name": "Ada", "url": "no link"}}
    told = detail(await send(acme, *[f"p{each}" for each in range(30)], message=wrong), 422, "template_data_missing")
    assert "no link" in told
    assert await rows(services) == NOTHING


async def test_more_lines_than_the_limit_keep_nothing(services: Services, acme: httpx.AsyncClient) -> None:
    lines = [f"p{number}" for number in range(1_000)]
    assert (await send(acme, *lines)).json()["recipients"] == 1_000
    before = await rows(services)
    told = detail(await send(acme, *lines, b"", "one"), 413, "too_many_recipients")
    assert "there are more than 1,000 lines (HOLDFAST_MAX_RECIPIENTS)" in told
    assert await rows(services) == before


async def disconnecting(app: FastAPI, services: Services, path: str, method: str, sent: bytes) -> list[Message]:
    """What is answered to a client that goes away after `sent`, of which one half comes first."""
    _, secret = await services.api_keys.create("acme", Role.SUBMIT, "")
    half = len(sent) // 2
    messages: list[Message] = [
        {"type": "http.request", "body": sent[:half], "more_body": True},
        {"type": "http.request", "body": sent[half:], "more_body": True},
        {"type": "http.disconnect"},
    ]
    answered: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def respond(message: Message) -> None:
        answered.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {secret}".encode()), (b"content-type", NDJSON.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, respond)
    return answered


async def test_a_body_that_is_cut_off_sends_nothing_and_leaves_nothing(app: FastAPI, services: Services) -> None:
    lines = [f"p{number}" for number in range(450)]
    begin = await disconnecting(app, services, "/v1/broadcasts", "POST", body(*lines))
    assert begin[0]["status"] == 400
    assert json.loads(begin[1]["body"])["code"] == "incomplete"
    saved = await disconnecting(app, services, "/v1/audiences/vip", "PUT", body(*lines, message="p"))
    assert saved[0]["status"] == 400
    assert await rows(services) == NOTHING
    assert double(services).started == []
    assert await services.recipients.audience("acme", "vip") is None


async def test_a_fault_in_the_middle_drops_what_was_stored(
    services: Services, acme: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(services.broadcasts, "add", broken)
    answer = await send(acme, *[f"p{number}" for number in range(450)], key="k")
    assert detail(answer, 503, "store_unavailable")
    assert await rows(services) == NOTHING


async def test_the_same_key_and_body_is_the_same_broadcast_and_another_body_is_refused(
    services: Services, acme: httpx.AsyncClient
) -> None:
    first = (await send(acme, "ada", "bob", "ada", key="k")).json()
    kept = await rows(services)
    again = await send(acme, "ada", "bob", "ada", key="k", message=TEXT | {"urgency": "normal"})
    assert again.status_code == 202
    assert again.json() == first | {"deduplicated": True}
    for lines, message in ((("ada",), TEXT), (("ada", "bob", "ada"), TEXT | {"urgency": "urgent"}), ((), TEXT)):
        told = detail(await send(acme, *lines, message=message, key="k"), 409, "idempotency_conflict")
        assert "different request" in told
    assert await rows(services) == kept | {"recipients": 2}
    assert len(double(services).started) == 1


async def test_two_at_once_with_one_key_become_one_broadcast(services: Services, acme: httpx.AsyncClient) -> None:
    lines = [f"p{number}" for number in range(250)]
    both = await asyncio.gather(*(send(acme, *lines, key="k") for _ in range(2)))
    assert [each.status_code for each in both] == [202, 202]
    assert {each.json()["job_id"] for each in both} == {both[0].json()["job_id"]}
    assert sorted(each.json()["deduplicated"] for each in both) == [False, True]
    assert await rows(services) == {
        "broadcasts": 1,
        "jobs": 1,
        "recipient_sets": 1,
        "recipients": 250,
        "submissions": 1,
    }


async def test_while_temporal_is_away_the_broadcast_is_kept_and_the_same_request_starts_it(
    services: Services, acme: httpx.AsyncClient
) -> None:
    double(services).away = True
    assert (
        "send the same request again" in detail(await send(acme, "ada", key="k"), 503, "temporal_unavailable").lower()
    )
    (job,), _ = await services.jobs.list("acme")
    assert job.state is JobState.SUBMITTED
    double(services).away = False
    answer = (await send(acme, "ada", key="k")).json()
    assert (answer["job_id"], answer["state"], answer["deduplicated"]) == (str(job.job_id), "running", True)
    assert double(services).requests[0].total == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-8", ""])
async def test_another_content_type_is_told_what_to_send(acme: httpx.AsyncClient, kind: str) -> None:
    for answer in (
        await acme.post("/v1/broadcasts", content=body("ada"), headers={"Content-Type": kind}),
        await acme.put("/v1/audiences/vip", content=b'"ada"', headers={"Content-Type": kind}),
    ):
        if kind.startswith("application/json") and answer.request.method == "POST":
            assert "body: is no JSON: trailing characters" in detail(answer, 422, "invalid_request")
        else:
            assert NDJSON in detail(answer, 415, "not_ndjson")


async def save(caller: httpx.AsyncClient, name: str, *lines: Any, query: str = "") -> httpx.Response:
    content = body(*lines[1:], message=lines[0])
    return await caller.put(f"/v1/audiences/{name}{query}", content=content, headers=LINES)


async def test_an_audience_is_saved_replaced_listed_and_deleted_with_its_recipients(
    services: Services, acme: httpx.AsyncClient
) -> None:
    made = (await save(acme, "vip", "ada", "bob", b"17", "ada")).json()
    assert (made["name"], made["recipients"]) == ("vip", 2)
    assert made["report"]["duplicates"] == {"count": 1, "lines": [4]}
    assert [each["line"] for each in made["report"]["bad"]["lines"]] == [3]
    assert (await acme.get("/v1/audiences/vip")).json() == made
    assert (await save(acme, "vip", "eve")).json()["recipients"] == 1
    assert await rows(services) == NOTHING | {"recipient_sets": 1, "recipients": 1}
    refused = await save(acme, "vip", b"17")
    assert "line 1 must be a person's id" in detail(refused, 422, "recipients_refused")
    assert detail(await save(acme, "vip", "x", b"17", query="?strict=true"), 422, "recipients_refused")
    await save(acme, "all", "ada")
    listed = (await acme.get("/v1/audiences")).json()["audiences"]
    assert [(each["name"], each["recipients"]) for each in listed] == [("all", 1), ("vip", 1)]
    assert (await acme.delete("/v1/audiences/vip")).status_code == 204
    assert detail(await acme.get("/v1/audiences/vip"), 404, "audience_not_found")
    assert detail(await acme.delete("/v1/audiences/vip"), 404, "audience_not_found")
    assert await rows(services) == NOTHING | {"recipient_sets": 1, "recipients": 1}
    assert detail(await save(acme, "V%20I", "ada"), 422, "invalid_request")


async def test_a_broadcast_to_an_audience_keeps_the_set_it_was_sent_to(
    services: Services, acme: httpx.AsyncClient
) -> None:
    await save(acme, "vip", "ada", "bob", "ada")
    message = TEXT | {"audience": "vip"}
    answers = [
        (await acme.post("/v1/broadcasts", json=message, headers={"Idempotency-Key": "k"})).json() for _ in range(2)
    ]
    assert (answers[0]["recipients"], answers[0]["duplicates"]["lines"]) == (2, [3])
    assert answers[1] == answers[0] | {"deduplicated": True}
    other = await acme.post("/v1/broadcasts", json=message | {"urgency": "urgent"}, headers={"Idempotency-Key": "k"})
    assert detail(other, 409, "idempotency_conflict")
    await save(acme, "vip", "eve")
    await acme.delete("/v1/audiences/vip")
    stored = await services.broadcasts.get("acme", UUID(answers[0]["job_id"]))
    assert stored is not None
    await all_dropped()
    assert [each.person for each in await services.recipients.between(stored.set_id, 1, 9)] == ["ada", "bob"]
    assert (await rows(services))["recipients"] == 2
    gone = await acme.post("/v1/broadcasts", json=message)
    assert detail(gone, 422, "invalid_broadcast") == ("there is no audience 'vip': save one with PUT /v1/audiences/vip")


async def test_the_message_is_tried_with_an_audiences_first_recipient(acme: httpx.AsyncClient) -> None:
    await save(acme, "vip", b"", {"person": "a", "data": {"name": "Ada"}}, "b")
    assert (await acme.post("/v1/broadcasts", json=WELCOME | {"audience": "vip"})).status_code == 202
    told = detail(
        await acme.post("/v1/broadcasts", json={"template": "welcome", "audience": "vip"}), 422, "invalid_broadcast"
    )
    assert told == ("the audience's first recipient (line 2) lacks data that the template 'welcome' needs: `url`")
    assert (await acme.post("/v1/broadcasts", json=TEXT | {"audience": "vip"})).status_code == 202
    big = await acme.post(
        "/v1/broadcasts", content=b" " * (MAX_BODY_BYTES + 1), headers={"Content-Type": "application/json"}
    )
    assert detail(big, 413, "too_large")


@pytest.mark.parametrize(
    ("role", "sends", "looks", "steers"),
    [
        (None, 401, 401, 401),
        (Role.VIEW, 403, 200, 403),
        (Role.SUBMIT, 202, 200, 200),
        (Role.OPERATE, 202, 200, 200),
        (Role.ADMIN, 202, 200, 200),
    ],
)
async def test_rights(
    app: FastAPI, acme: httpx.AsyncClient, role: Role | None, sends: int, looks: int, steers: int
) -> None:
    job_id = (await send(acme, "ada", b"17")).json()["job_id"]
    async with client(app, role) as caller:
        assert (await send(caller, "ada")).status_code == sends
        assert (await save(caller, "vip", "ada")).status_code == (200 if sends == 202 else sends)
        for path in ("/v1/broadcasts", f"/v1/broadcasts/{job_id}", "/v1/audiences"):
            assert (await caller.get(path)).status_code == looks
        for action in ("pause", "resume"):
            assert (await caller.post(f"/v1/broadcasts/{job_id}/{action}")).status_code == steers
        if looks == 200:
            bad = (await caller.get(f"/v1/broadcasts/{job_id}")).json()["report"]["bad"]
            assert (bad["count"], len(bad["lines"])) == (1, 1 if role in {Role.SUBMIT, Role.ADMIN} else 0)


async def test_another_tenants_broadcasts_and_audiences_are_not_there(app: FastAPI, acme: httpx.AsyncClient) -> None:
    job_id = (await send(acme, "ada")).json()["job_id"]
    await save(acme, "vip", "ada")
    async with client(app, tenant="globex") as caller:
        for path in (f"/v1/broadcasts/{job_id}", f"/v1/broadcasts/{job_id}/events"):
            assert detail(await caller.get(path), 404, "broadcast_not_found")
        for action in ("pause", "resume", "cancel"):
            assert detail(await caller.post(f"/v1/broadcasts/{job_id}/{action}"), 404, "broadcast_not_found")
        assert (await caller.get("/v1/broadcasts")).json() == {"broadcasts": [], "next": None}
        assert detail(await caller.get("/v1/audiences/vip"), 404, "audience_not_found")
        assert detail(await caller.delete("/v1/audiences/vip"), 404, "audience_not_found")
        told = await caller.post("/v1/broadcasts", json=TEXT | {"audience": "vip"})
        assert "there is no audience" in detail(told, 422, "invalid_broadcast")
    async with client(app, Role.ADMIN, "*") as caller:
        assert (await caller.get(f"/v1/broadcasts/{job_id}")).status_code == 200
        assert detail(await send(caller, "ada"), 403, "tenant_needed")


async def test_a_job_of_another_type_is_no_broadcast(acme: httpx.AsyncClient) -> None:
    sent = await acme.post(
        "/v1/notifications",
        json={"recipient": {"channel": "email", "address": "a@x.example"}, "content": TEXT["content"]},
    )
    for answer in (
        await acme.get(f"/v1/broadcasts/{sent.json()['job_id']}"),
        await acme.get(f"/v1/broadcasts/{new_id()}"),
    ):
        assert detail(answer, 404, "broadcast_not_found")


async def test_who_writes_needs_no_second_connection(
    services: Services, acme: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write, writing = Database.read, Database.write, ContextVar("writing", default=False)  # of this request

    @asynccontextmanager
    async def watched_write(self: Database, *engine: Any) -> AsyncIterator[AsyncConnection]:
        async with write(self, *engine) as connection:
            token = writing.set(True)
            try:
                yield connection
            finally:
                writing.reset(token)

    @asynccontextmanager
    async def watched_read(self: Database, *engine: Any) -> AsyncIterator[AsyncConnection]:
        assert not writing.get()  # with as many writers as the pool has connections, each would wait for another
        async with read(self, *engine) as connection:
            yield connection

    await save(acme, "vip", "ada")
    monkeypatch.setattr(Database, "write", watched_write)
    monkeypatch.setattr(Database, "read", watched_read)
    for _ in range(2):
        sent = await acme.post("/v1/broadcasts", json=TEXT | {"audience": "vip"}, headers={"Idempotency-Key": "a"})
        assert sent.status_code == 202
        assert (await send(acme, "ada", key="k")).status_code == 202
    # Of two who ask at once, the second finds the first's within its own transaction.
    both = await asyncio.gather(*(send(acme, "ada", key="twice") for _ in range(2)))
    assert [each.status_code for each in both] == [202, 202]
    assert len({each.json()["job_id"] for each in both}) == 1


async def at(app: FastAPI, services: Services, later: timedelta) -> FixedClock:
    """From now on the clock stands still."""
    clock = FixedClock(services.clock.now() + later)
    app.state.services = replace(services, clock=clock, broadcasts=Broadcasts(services.database, clock))
    return clock


async def test_progress_has_counts_rate_and_the_time_it_will_be_done(
    app: FastAPI, services: Services, acme: httpx.AsyncClient
) -> None:
    job_id = (await send(acme, *[f"p{number}" for number in range(100)])).json()["job_id"]
    path = f"/v1/broadcasts/{job_id}"
    fresh = (await acme.get(path)).json()
    assert (fresh["state"], fresh["live"], fresh["total"], fresh["done"], fresh["counts"]) == (
        "running",
        True,
        100,
        0,
        {},
    )
    assert (fresh["rate_per_second"], fresh["seconds_left"], fresh["eta"], fresh["paused"]) == (None,) * 4
    clock = await at(app, services, timedelta(seconds=600))
    told: Broadcasts = app.state.services.broadcasts
    await told.record_chunk(UUID(job_id), 2, {"sent": 28, "handed_over": 2}, began=clock.now())
    moving = (await acme.get(path)).json()
    assert (moving["done"], moving["counts"], moving["handed_over"]) == (30, {"handed_over": 2, "sent": 28}, 2)
    assert (moving["rate_per_second"], moving["seconds_left"]) == (0.5, 140)
    assert moving["eta"] == f"{clock.now() + timedelta(seconds=140):%Y-%m-%dT%H:%M:%S.%f}Z"
    clock.advance(timedelta(seconds=61))
    standing = (await acme.get(path)).json()
    assert (standing["done"], standing["rate_per_second"], standing["eta"]) == (30, None, None)
    await told.record_chunk(UUID(job_id), 32, {"sent": 1}, began=clock.now())
    paused = (await acme.post(f"{path}/pause", json={"reason": "a mistake"})).json()
    assert (paused["paused"], paused["rate_per_second"], paused["seconds_left"]) == ("a mistake", None, None)
    page = (await acme.get("/v1/broadcasts")).json()
    assert [(each["job_id"], each["paused"], each["report"]) for each in page["broadcasts"]] == [
        (job_id, "a mistake", None)
    ]


async def record(services: Services, job_id: str, state: JobState, **more: Any) -> None:
    now = services.clock.now()
    ref = JobRef(job_id=UUID(job_id), tenant="acme")
    await services.jobs.record(RecordJob(job=ref, state=state, first_run_id="run-1", started_at=now, at=now, **more))


async def test_a_broadcast_that_paused_by_itself_says_what_refused(services: Services, acme: httpx.AsyncClient) -> None:
    job_id = (await send(acme, "ada")).json()["job_id"]
    await record(services, job_id, JobState.PARKED, cause="fcm: UNREGISTERED", error="Paused, because 600 refused")
    seen = (await acme.get(f"/v1/broadcasts/{job_id}")).json()
    assert (seen["state"], seen["paused"]) == ("parked", "Paused, because 600 refused")
    assert seen["error"] == {"cause": "fcm: UNREGISTERED", "detail": "Paused, because 600 refused"}


async def test_pause_resume_and_cancel_reach_the_workflow(services: Services, acme: httpx.AsyncClient) -> None:
    job_id = (await send(acme, "ada")).json()["job_id"]
    path = f"/v1/broadcasts/{job_id}"
    assert (await acme.post(f"{path}/pause")).json()["paused"] == "paused"
    assert (await acme.post(f"{path}/resume")).json()["paused"] is None
    assert (await acme.post(f"{path}/cancel")).status_code == 202
    workflow_id = f"broadcast:acme:{job_id}"
    assert double(services).asked == [(each, workflow_id) for each in ("pause", "resume", "cancel")]
    assert detail(await acme.post(f"{path}/pause", json={"reason": "x" * 501}), 422, "invalid_request")
    assert detail(await acme.post(f"{path}/pause", json={"why": "x"}), 422, "invalid_request")


async def test_what_has_ended_or_not_begun_is_neither_paused_nor_resumed(
    services: Services, acme: httpx.AsyncClient
) -> None:
    double(services).away = True
    await send(acme, "ada", key="k")
    (job,), _ = await services.jobs.list("acme")
    path = f"/v1/broadcasts/{job.job_id}"
    told = detail(await acme.post(f"{path}/pause"), 503, "temporal_unavailable")
    assert told == "The Temporal service does not answer: send the same request again."
    double(services).away = False
    double(services).refuses = RPCError("not found", RPCStatusCode.NOT_FOUND, b"")
    assert "has not begun: send the same request again" in detail(await acme.post(f"{path}/resume"), 409, "not_running")
    assert (await acme.post(f"{path}/cancel")).json()["state"] == "cancelled"
    assert detail(await acme.post(f"{path}/pause"), 409, "not_running") == (
        "Nothing was changed: the broadcast has ended (cancelled), so nothing is left to pause or resume."
    )
    job_id = (await send(acme, "ada")).json()["job_id"]
    await services.jobs.started(UUID(job_id), "run-1")
    assert "has just ended" in detail(await acme.post(f"/v1/broadcasts/{job_id}/pause"), 409, "not_running")


async def test_events_tell_each_change_once_and_end(
    services: Services, acme: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "EVENT_SECONDS", 0.02)
    monkeypatch.setattr(routes, "KEEP_ALIVE_SECONDS", 0.05)
    job_id = (await send(acme, *[f"p{number}" for number in range(9)])).json()["job_id"]

    async def happen() -> None:
        await asyncio.sleep(0.2)
        await services.broadcasts.record_chunk(UUID(job_id), 2, {"sent": 4}, began=services.clock.now())
        await asyncio.sleep(0.1)
        await services.broadcasts.record_chunk(UUID(job_id), 6, {"sent": 4, "muted": 1}, began=services.clock.now())
        await record(services, job_id, JobState.DONE, result={"counts": {}})

    happening = asyncio.create_task(happen())
    stream = await asyncio.wait_for(
        acme.get(f"/v1/broadcasts/{job_id}/events", headers={"Last-Event-ID": "no number"}), 20
    )
    await happening
    assert stream.headers["content-type"].startswith("text/event-stream")
    told = [each.splitlines() for each in stream.text.strip().split("\n\n")]
    assert any(each == [": still here"] for each in told)
    events = [dict(line.split(": ", 1) for line in each) for each in told if not each[0].startswith(":")]
    seen = [(each["event"], each["id"], json.loads(each["data"])["done"]) for each in events]
    assert seen[:2] == [("progress", "1", 0), ("progress", "2", 4)]
    assert (seen[-1][0], seen[-1][2]) == ("end", 9)
    assert len(seen) in {3, 4}  # the last change may be seen before the end of the job
    final = json.loads(events[-1]["data"])
    assert (final["state"], final["eta"], final["counts"]) == ("done", None, {"muted": 1, "sent": 8})


async def test_more_than_a_mebibyte_is_streamed_to_both(services: Services, acme: httpx.AsyncClient) -> None:
    note = "x" * 2_000
    lines = [{"person": f"p{number}", "data": {"name": "Ada", "note": note}} for number in range(999)]
    assert len(body(*lines)) > 1.9 * MAX_BODY_BYTES
    assert (await send(acme, *lines, message=WELCOME)).json()["recipients"] == 999
    assert (await save(acme, "vip", *lines)).json()["recipients"] == 999
