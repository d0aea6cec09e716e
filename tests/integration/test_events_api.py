"""/v1/events and /v1/digest in this process, with a store and without Temporal."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from runtime.settings import Settings
from starter.api.app import create_app
from starter.api.body_limit import MAX_BODY_BYTES
from starter.services import Services
from store.api_keys import Role
from store.events import Event, Heard, Window
from store.migrate import migrate

pytestmark = pytest.mark.asyncio(loop_scope="module")
ONE: dict[str, Any] = {"person": "user-17", "kind": "comment_added", "title": "Grace commented"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("events"), signing_key="k", log_level="error")
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        await migrate(made.state.services.database)
        yield made


@asynccontextmanager
async def client(app: FastAPI, tenant: str = "acme", role: Role = Role.SUBMIT) -> AsyncIterator[httpx.AsyncClient]:
    _, secret = await app.state.services.api_keys.create(tenant, role, "")
    headers = {"Authorization": f"Bearer {secret}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example", headers=headers) as made:
        yield made


async def heard(app: FastAPI, tenant: str) -> list[Heard]:
    services: Services = app.state.services
    window = Window(None, datetime.now(UTC) + timedelta(minutes=1))
    return await services.events.heard(tenant, window, beyond=None, persons=200, newest=50)


async def test_what_is_sent_is_stored_once_for_the_keys_tenant(app: FastAPI) -> None:
    full = ONE | {
        "text": "Could you look?",
        "url": "https://app.example.com/7?a=1#b",
        "id": "comment-12",
        "at": "2026-11-24T10:00:00+01:00",
    }
    async with client(app, "t1") as mine:
        answer = await mine.post("/v1/events", json={"events": [full, ONE, full]})
        assert (answer.status_code, answer.json()) == (201, {"stored": 2, "known": 1})
        again = await mine.post("/v1/events", json={"events": [full | {"title": "Other"}]})
        assert (again.status_code, again.json()) == (200, {"stored": 0, "known": 1})
    async with client(app, "t2", Role.OPERATE) as theirs:
        assert (await theirs.post("/v1/events", json={"events": [full]})).json() == {"stored": 1, "known": 0}
    (found,) = await heard(app, "t1")
    assert (found.person, found.count) == ("user-17", 2)
    assert found.newest[1] == Event(
        "comment-12",
        "user-17",
        "comment_added",
        "Grace commented",
        "Could you look?",
        "https://app.example.com/7?a=1#b",
        datetime(2026, 11, 24, 9, tzinfo=UTC),
    )


async def test_a_thousand_are_taken_and_no_more(app: FastAPI) -> None:
    async with client(app, "t3") as mine:
        rows = [ONE | {"person": f"p{number % 100}"} for number in range(1_000)]
        assert (await mine.post("/v1/events", json={"events": rows})).json() == {"stored": 1_000, "known": 0}
        for refused in ([*rows, ONE], []):
            assert (await mine.post("/v1/events", json={"events": refused})).status_code == 422
        large = json.dumps({"events": [ONE | {"text": "x" * 2_000}] * 600}).encode()
        assert len(large) > MAX_BODY_BYTES
        headers = {"Content-Type": "application/json"}
        assert (await mine.post("/v1/events", content=large, headers=headers)).status_code == 413
    assert [each.count for each in await heard(app, "t3")] == [10] * 100


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"person": "a b"}, "body.events.1.person: String should match pattern"),
        ({"kind": "Comment"}, "body.events.1.kind: String should match pattern"),
        ({"title": " "}, "body.events.1.title: must be more than spaces"),
        ({"title": "x" * 201}, "body.events.1.title: String should have at most 200 characters"),
        ({"text": "x" * 2_001}, "body.events.1.text: String should have at most 2000 characters"),
        ({"text": "a\0"}, "body: events[1].text contains a NUL character"),
        ({"url": "javascript:alert(1)"}, "body.events.1.url: a link must be an http or https URL"),
        ({"id": ""}, "body.events.1.id: String should have at least 1 character"),
        ({"at": "2026-11-24T09:00:00"}, "body.events.1.at: Input should have timezone info"),
        ({"at": 1_764_000_000}, "body.events.1.at: say a time with its time zone"),
        ({"at": "1969-12-31T00:00:00Z"}, "body.events.1.at: must lie between 1970 and 2200"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "body.events.1.at: must lie between 1970 and 2200"),
        ({"titel": "x"}, "body.events.1.titel: is no field of this request"),
    ],
)
async def test_one_wrong_event_is_named_and_nothing_is_stored(
    app: FastAPI, changed: dict[str, Any], words: str
) -> None:
    async with client(app, "t4") as mine:
        answer = await mine.post("/v1/events", json={"events": [ONE, ONE | changed, {}]})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(words)
        assert len(answer.json()["errors"]) == 1
    assert await heard(app, "t4") == []


async def test_who_may(app: FastAPI) -> None:
    async with client(app, "t5", Role.VIEW) as viewer:
        assert (await viewer.post("/v1/events", json={"events": [ONE]})).status_code == 403
        assert (await viewer.put("/v1/digest", json={})).status_code == 403
        assert (await viewer.get("/v1/digest")).status_code == 200
    async with client(app, "*", Role.ADMIN) as everybody:
        assert (await everybody.post("/v1/events", json={"events": [ONE]})).json()["code"] == "tenant_needed"


async def test_a_digests_time_is_read_and_replaced(app: FastAPI) -> None:
    defaults = {"enabled": True, "zone": "America/New_York", "at": "08:00", "category": "digest"}
    async with client(app, "t6") as mine:
        assert (await mine.get("/v1/digest")).json() == defaults
        wanted = {"enabled": False, "zone": "Australia/Lord_Howe", "at": "17:45"}
        assert (await mine.put("/v1/digest", json=wanted)).json() == defaults | wanted
        assert (await mine.get("/v1/digest")).json() == defaults | wanted
        for wrong, words in (
            ({"zone": "EST"}, "body.zone: 'EST' is no IANA time zone"),
            ({"at": "24:00"}, "body.at: String should match"),
            ({"category": "news"}, "body.category: is no field of this request"),
        ):
            assert (await mine.put("/v1/digest", json=wrong)).json()["detail"].startswith(words)
        assert (await mine.put("/v1/digest", json={})).json() == defaults
    async with client(app, "t7") as theirs:
        assert (await theirs.get("/v1/digest")).json() == defaults
