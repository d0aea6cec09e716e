"""/v1/connections and /v1/budgets in this process, with a store, a real Temporal server and no worker."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from contracts.payloads.job import JobRef, JobState, RecordJob
from contracts.payloads.sync import SyncRequest, sync_workflow_id
from contracts.search_attributes import JOB_TYPE, PROVIDER, TENANT
from runtime import queue_limits
from runtime.ports import free_port
from runtime.queue_limits import QueueLimit
from runtime.temporal import lazy_client
from starter import connections as domain
from starter.api import connections as routes
from starter.api.app import create_app
from starter.services import Services
from starter.start_sync import start_sync
from store.api_keys import Role
from store.budgets import PausedFor
from store.connections import Connection
from store.synced import SyncedRow
from store.tables import budgets, connections, jobs, sync_places, synced_rows
from tests.integration.served import served

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "gho_planted-secret-4711"
GITHUB = {"provider": "github", "account": "acme-bot", "credentials": {"access_token": SECRET}}
PER_CONNECTION = 5_000 * 0.97 / 3_600  # pages a second
NO_TOKEN = "has a space, a line break or a letter in it that no token has: copy it again"
A_NUL = "contains a NUL character (\\u0000), which cannot be stored: leave it out"
AWAY = (
    "The Temporal service does not answer: the connection is stored, and the schedule starts its sync at most a quarter"
    " of an hour after Temporal is back."
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    async with served(tmp_path_factory.mktemp("connections"), signing_key="k") as opened:
        made = create_app(opened.settings)
        async with made.router.lifespan_context(made):
            made.state.pristine = opened
            made.state.said = []
            yield made


@pytest_asyncio.fixture(loop_scope="module")
async def services(
    app: FastAPI, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> AsyncIterator[Services]:
    """With an empty store. Afterwards neither an answer nor a line of a log had a secret in it."""
    caplog.set_level(logging.INFO)
    app.state.services = found = app.state.pristine
    app.state.said.clear()
    yield found
    await domain.all_deleted()
    written = capfd.readouterr()
    for text in (*app.state.said, caplog.text, written.out, written.err):
        assert "planted-secret" not in text
    async with found.database.write() as connection:
        for table in (connections, synced_rows, sync_places, jobs, budgets):
            await connection.execute(table.delete())
    async for run in found.temporal.list_workflows("ExecutionStatus = 'Running' AND WorkflowType = 'sync'"):
        await found.temporal.get_workflow_handle(run.id).terminate()


@asynccontextmanager
async def client(app: FastAPI, role: Role = Role.SUBMIT, tenant: str = "acme") -> AsyncIterator[httpx.AsyncClient]:
    _, secret = await app.state.services.api_keys.create(tenant, role, "")

    async def note(response: httpx.Response) -> None:
        await response.aread()
        app.state.said.append(response.text)

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://api.example",
        headers={"Authorization": f"Bearer {secret}"},
        event_hooks={"response": [note]},
    ) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def acme(app: FastAPI, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as made:
        yield made


@asynccontextmanager
async def temporal_away(app: FastAPI) -> AsyncIterator[None]:
    before: Services = app.state.services
    settings = before.settings.model_copy(update={"temporal_port": free_port()})
    app.state.services = replace(before, temporal=await lazy_client(settings, role="test"))
    try:
        yield
    finally:
        app.state.services = before


async def made(acme: httpx.AsyncClient, *, sync: bool = False, **more: Any) -> dict[str, Any]:
    answer = await acme.post("/v1/connections", params={"sync": sync}, json=GITHUB | more)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def connection(services: Services, told: dict[str, Any]) -> Connection:
    found = await services.connections.get(None, told["connection_id"])
    assert found is not None
    return found


def handle(services: Services, told: dict[str, Any]) -> WorkflowHandle[Any, Any]:
    return services.temporal.get_workflow_handle(sync_workflow_id("acme", told["connection_id"]))


async def store_rows(services: Services, connection_id: str, count: int, resource: str = "issues") -> None:
    rows = [SyncedRow(f"{number:05}", {"id": number}) for number in range(count)]
    await services.synced.save_page(connection_id, resource, rows, {}, pass_id=None)


class TestCreate:
    async def test_it_is_stored_sealed_its_first_sync_starts_and_the_queue_is_widened(
        self, services: Services, acme: httpx.AsyncClient
    ) -> None:
        await made(acme, account="first")
        told = await made(acme, sync=True, settings={"limits": {"requests": 1_500}})
        job_id, connection_id = told["sync"]["job_id"], told["connection_id"]
        first_run_id = told["sync"]["links"]["web_ui"].rpartition("/")[2]
        public, ui = services.settings.resolved_public_url(), services.settings.resolved_temporal_ui_url()
        stored = await connection(services, told)
        job = await services.jobs.get("acme", UUID(job_id))
        assert job is not None and job.started_at is not None

        def at(moment: datetime) -> str:
            return moment.isoformat().replace("+00:00", "Z")

        assert told == {
            "connection_id": connection_id,
            "tenant": "acme",
            "provider": "github",
            "account": "acme-bot",
            "settings": {"limits": {"requests": 1_500}},
            "state": "active",
            "reason": None,
            "frozen_at": None,
            "credentials_version": 1,
            "created_at": at(stored.created_at),
            "updated_at": at(stored.created_at),
            "last_synced_at": None,
            "sync": {
                "job_id": job_id,
                "state": "running",
                "error": None,
                "submitted_at": at(job.submitted_at),
                "started_at": at(job.started_at),
                "finished_at": None,
                "links": {
                    "status": f"{public}/v1/jobs/{job_id}",
                    "events": f"{public}/v1/jobs/{job_id}/events",
                    "web_ui": f"{ui}/namespaces/default/workflows/sync:acme:{connection_id}/{first_run_id}",
                    "why": f"{public}/v1/jobs/{job_id}/why",
                },
            },
            "resources": {
                "repositories": {"rows": 0, "deleted": 0},
                "issues": {"rows": 0, "deleted": 0},
                "comments": {"rows": 0, "deleted": 0},
            },
            "note": None,
        }
        assert (await services.connections.credentials(stored))[0] == {"access_token": SECRET}
        run = await handle(services, told).describe()
        assert (run.task_queue, run.workflow_type, run.raw_description.workflow_execution_info.first_run_id) == (
            "integrations",
            "sync",
            first_run_id,
        )
        found = run.typed_search_attributes
        assert (found[TENANT], found[JOB_TYPE], found[PROVIDER]) == ("acme", "sync", "github")
        assert await run.memo_value("job_id") == job_id
        assert await run.static_summary() == "sync of github"
        assert run.raw_description.workflow_execution_info.priority.fairness_key == "acme"
        (order,) = (
            (await handle(services, told).fetch_history())
            .events[0]
            .workflow_execution_started_event_attributes.input.payloads
        )
        (request,) = await services.temporal.data_converter.decode([order], [SyncRequest])
        assert request == SyncRequest(
            job=JobRef(job_id=UUID(job_id), tenant="acme"), connection_id=connection_id, provider="github"
        )
        limit = await queue_limits.read(services.temporal, "integrations-github")
        assert limit.per_second == pytest.approx(2 * PER_CONNECTION * 1.05)
        assert limit.per_key == pytest.approx(PER_CONNECTION)

    @pytest.mark.parametrize(
        ("body", "code", "errors"),
        [
            (
                {"provider": "trello"},
                "unknown_provider",
                "There is no connector for 'trello'. There are connectors for figma, github, jira, slack.",
            ),
            (
                {"provider": "jira"},
                "invalid_request",
                "body.settings.cloud_id: is missing; body.settings.time_zone: is missing",
            ),
            (
                {"settings": {"site": "x"}},
                "invalid_request",
                "body.settings.site: is no field of this request; is it misspelt?",
            ),
            (
                {"settings": {"limits": {"per_day": 5}}},
                "invalid_request",
                "body.settings.limits.per_day: is no budget of github; it has requests",
            ),
            (
                {"settings": {"limits": {"requests": 0}}},
                "invalid_request",
                "body.settings.limits.requests: Input should be greater than 0",
            ),
            (
                {"settings": {"limits": {"requests": 5_001}}},
                "invalid_request",
                (
                    "body.settings.limits.requests: may be at most 5,000, because the queue of github lets no "
                    "connection have more"
                ),
            ),
            (
                {
                    "provider": "jira",
                    "settings": {"cloud_id": "x", "time_zone": "UTC", "limits": {"points": 1, "burst": 101, "day": 1}},
                },
                "invalid_request",
                (
                    "body.settings.limits.points: is shared by all connections of jira, and no connection's plan "
                    "changes it: leave it out; "
                    "body.settings.limits.burst: may be at most 100, because the queue of jira lets no connection have "
                    "more; body.settings.limits.day: is no budget of jira; it has burst"
                ),
            ),
            ({"credentials": {}}, "invalid_request", "body.credentials.access_token: is missing"),
            ({"credentials": {"access_token": ""}}, "invalid_request", "body.credentials.access_token: is empty"),
            (
                {"credentials": {"access_token": [SECRET]}},
                "invalid_request",
                "body.credentials.access_token: Input should be a valid string",
            ),
            (
                {"credentials": {"access_token": f"{SECRET}\n", "refresh_token": f"{SECRET} x"}},
                "invalid_request",
                f"body.credentials.access_token: {NO_TOKEN}; body.credentials.refresh_token: {NO_TOKEN}",
            ),
            (
                {"credentials": {"access_token": SECRET, "expires_at": "2026-11-24T09:00:00"}},
                "invalid_request",
                "body.credentials.expires_at: say the offset, such as 2026-11-24T09:00:00Z",
            ),
            (
                {"credentials": {"access_token": SECRET, "expires_at": SECRET}},
                "invalid_request",
                "body.credentials.expires_at: Input should be a valid datetime or date, invalid character in year",
            ),
            (
                {"credentials": {"token": SECRET}},
                "invalid_request",
                (
                    "body.credentials.access_token: is missing; "
                    "body.credentials.token: is no field of this request; is it misspelt?"
                ),
            ),
            ({"credentials": SECRET}, "invalid_request", "body.credentials: must be a JSON object"),
            (
                {"credentials": {"access_token": f"{SECRET}\0"}},
                "invalid_request",
                f"body: credentials.access_token {A_NUL}",
            ),
            ({"account": " "}, "invalid_request", "body.account: String should have at least 1 character"),
            (
                {"provider": "jira", "settings": {"cloud_id": "a b", "time_zone": "Mars/Base"}, "credentials": {}},
                "invalid_request",
                "body.settings.cloud_id: String should match pattern '^[A-Za-z0-9-]+$'; ",
            ),
        ],
    )
    async def test_what_a_connector_cannot_use_is_named_by_its_field_without_its_value(
        self, services: Services, acme: httpx.AsyncClient, body: dict[str, Any], code: str, errors: str
    ) -> None:
        answer = await acme.post("/v1/connections", json=GITHUB | body)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (422, code)
        if errors.endswith("; "):
            assert told["detail"].startswith(errors)
            assert told["detail"].endswith("; body.credentials.access_token: is missing")
        else:
            assert told["detail"] == errors
        assert (await services.connections.list(None))[0] == []

    async def test_one_name_is_one_connection_of_a_tenant(
        self, app: FastAPI, services: Services, acme: httpx.AsyncClient
    ) -> None:
        first = await made(acme)
        again = await acme.post("/v1/connections", json=GITHUB)
        assert (again.status_code, again.json()["code"]) == (409, "connection_exists")
        assert again.json()["detail"] == (
            f"acme has a connection to github named 'acme-bot': it is {first['connection_id']}; renew its credentials, "
            "or choose another name"
        )
        async with client(app, tenant="globex") as globex:
            assert (await made(globex))["tenant"] == "globex"

    async def test_while_temporal_is_away_it_is_stored_and_the_same_job_starts_later(
        self, app: FastAPI, services: Services, acme: httpx.AsyncClient
    ) -> None:
        async with temporal_away(app):
            told = await made(acme, sync=True)
            refused = await acme.post(f"/v1/connections/{told['connection_id']}/sync")
            shown = await acme.get("/v1/budgets")
        assert (told["note"], told["sync"]["state"]) == (AWAY, "submitted")
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
            503,
            "temporal_unavailable",
            "5",
        )
        assert refused.json()["detail"] == (
            "The Temporal service does not answer: the sync is stored and not started. Send the same request again, or "
            "leave it to the schedule, which starts it at most a quarter of an hour after Temporal is back."
        )
        assert shown.json() == {"uses": [], "queues": None}
        started = await acme.post(f"/v1/connections/{told['connection_id']}/sync")
        assert (started.status_code, started.json()["job_id"], started.json()["state"]) == (
            202,
            told["sync"]["job_id"],
            "running",
        )
        assert (await handle(services, told).describe()).status is not None


class TestWhoSeesWhat:
    async def test_a_tenant_sees_its_own_and_an_operator_all(
        self, app: FastAPI, services: Services, acme: httpx.AsyncClient
    ) -> None:
        own = await made(acme)
        path = f"/v1/connections/{own['connection_id']}"
        async with client(app, tenant="globex") as globex, client(app, Role.OPERATE, "*") as operator:
            other = await made(globex, account="globex-bot")
            seen = [each["connection_id"] for each in (await globex.get("/v1/connections")).json()["connections"]]
            assert seen == [other["connection_id"]]
            every = (await operator.get("/v1/connections")).json()["connections"]
            assert [each["tenant"] for each in every] == ["globex", "acme"]
            only = (await operator.get("/v1/connections", params={"tenant": "acme"})).json()["connections"]
            assert [each["connection_id"] for each in only] == [own["connection_id"]]
            assert (await operator.get(path)).status_code == 200
            foreign = await globex.get("/v1/connections", params={"tenant": "acme"})
            assert (foreign.status_code, foreign.json()["detail"]) == (
                403,
                "This key sees only the connections of 'globex'.",
            )
            for request in (
                globex.get(path),
                globex.put(f"{path}/credentials", json={"credentials": {"access_token": SECRET}}),
                globex.post(f"{path}/sync"),
                globex.post(f"{path}/freeze", json={"reason": "r"}),
                globex.post(f"{path}/unfreeze"),
                globex.get(f"{path}/rows", params={"resource": "issues"}),
                globex.delete(path),
            ):
                answer = await request
                assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (
                    404,
                    "connection_not_found",
                    f"There is no connection {own['connection_id']} that this key may see.",
                )
            for request in (
                operator.post("/v1/connections", json=GITHUB),
                operator.put(f"{path}/credentials", json={"credentials": {"access_token": SECRET}}),
                operator.post(f"{path}/sync"),
                operator.delete(path),
            ):
                answer = await request
                assert (answer.status_code, answer.json()["code"]) == (403, "tenant_needed")
            frozen = await operator.post(f"{path}/freeze", json={"reason": "their wish"})
            assert (frozen.status_code, frozen.json()["reason"]) == (200, "by hand: their wish")
        assert (await connection(services, own)).credentials_version == 1

    async def test_a_view_key_looks_and_does_nothing_else(
        self, app: FastAPI, services: Services, acme: httpx.AsyncClient
    ) -> None:
        path = f"/v1/connections/{(await made(acme))['connection_id']}"
        async with client(app, Role.VIEW) as viewer:
            assert (await viewer.get(path)).status_code == 200
            for request, right in (
                (viewer.post("/v1/connections", json=GITHUB), "submit jobs or connect accounts"),
                (viewer.post(f"{path}/sync"), "submit jobs or connect accounts"),
                (viewer.delete(path), "submit jobs or connect accounts"),
                (
                    viewer.put(f"{path}/credentials", json={"credentials": {"access_token": SECRET}}),
                    "submit jobs or connect accounts",
                ),
                (
                    viewer.post(f"{path}/freeze", json={"reason": "r"}),
                    "pause, resume or cancel jobs, or freeze connections",
                ),
                (viewer.post(f"{path}/unfreeze"), "pause, resume or cancel jobs, or freeze connections"),
                (
                    viewer.get(f"{path}/rows", params={"resource": "issues"}),
                    "see contents, such as texts, names and synced rows",
                ),
            ):
                answer = await request
                assert (answer.status_code, answer.json()["detail"]) == (
                    403,
                    f"A key with the role 'view' may not {right}.",
                )

    async def test_pages_are_newest_first_and_can_be_narrowed(
        self, services: Services, acme: httpx.AsyncClient
    ) -> None:
        names = [(await made(acme, account=f"bot {number}"))["account"] for number in range(5)]
        frozen = await made(acme, provider="slack", account="team")
        await services.connections.freeze("acme", frozen["connection_id"], "token_revoked")
        seen, after = [], None
        while True:
            params: dict[str, Any] = {"limit": 2, "provider": "github"} | ({"after": after} if after else {})
            page = (await acme.get("/v1/connections", params=params)).json()
            seen += [each["account"] for each in page["connections"]]
            after = page["next"]
            if after is None:
                break
        assert seen == names[::-1]
        (only,) = (await acme.get("/v1/connections", params={"state": "frozen"})).json()["connections"]
        assert (only["account"], only["reason"], only["sync"], only["resources"]) == (
            "team",
            "token_revoked",
            None,
            None,
        )
        bad = await acme.get("/v1/connections", params={"after": "x"})
        assert (bad.status_code, bad.json()["code"]) == (422, "invalid_cursor")


class TestSync:
    async def test_who_asks_while_one_runs_joins_it(self, services: Services, acme: httpx.AsyncClient) -> None:
        told = await made(acme)
        path = f"/v1/connections/{told['connection_id']}/sync"
        both = await asyncio.gather(acme.post(path), acme.post(path))
        assert [each.status_code for each in both] == [202, 202]
        assert len({each.json()["job_id"] for each in both}) == 1
        assert sorted(each.json()["joined"] for each in both) == [False, True]
        third = (await acme.post(path, params={"full": True})).json()
        assert (third["joined"], third["job_id"], third["state"]) == (True, both[0].json()["job_id"], "running")
        assert third["note"] == "a sync ran already and may not be a full one: ask again when it has ended"
        assert (await services.temporal.count_workflows("WorkflowType = 'sync'")).count >= 0
        found, _ = await services.jobs.list("acme")
        assert [job.state for job in found] == [JobState.RUNNING]

    async def test_a_full_one_says_so_to_its_workflow(self, services: Services, acme: httpx.AsyncClient) -> None:
        told = await made(acme)
        answer = await acme.post(f"/v1/connections/{told['connection_id']}/sync", params={"full": True})
        assert (answer.json()["joined"], answer.json()["note"]) == (False, None)
        history = await handle(services, told).fetch_history()
        (order,) = history.events[0].workflow_execution_started_event_attributes.input.payloads
        (request,) = await services.temporal.data_converter.decode([order], [SyncRequest])
        assert request.full

    async def test_a_run_that_was_terminated_does_not_keep_the_next_one_away(
        self, services: Services, acme: httpx.AsyncClient
    ) -> None:
        told = await made(acme, sync=True)
        await handle(services, told).terminate("by somebody in the Web UI")
        answer = (await acme.post(f"/v1/connections/{told['connection_id']}/sync")).json()
        assert (answer["joined"], answer["state"]) == (False, "running")
        assert answer["job_id"] != told["sync"]["job_id"]
        lost = await services.jobs.get("acme", UUID(told["sync"]["job_id"]))
        assert lost is not None
        assert (lost.state, lost.cause, lost.error) == (
            JobState.FAILED,
            "run_lost",
            "its run ended without a record: terminated",
        )

    async def test_one_that_is_just_ending_is_not_joined_but_followed(
        self, services: Services, acme: httpx.AsyncClient
    ) -> None:
        told = await made(acme, sync=True)
        job_id = UUID(told["sync"]["job_id"])
        now = services.clock.now()
        record = RecordJob(
            job=JobRef(job_id=job_id, tenant="acme"), state=JobState.DONE, first_run_id="r", started_at=now, at=now
        )
        await services.jobs.record(record)  # its last step; its run is still open
        asking = asyncio.create_task(acme.post(f"/v1/connections/{told['connection_id']}/sync"))
        await asyncio.sleep(0.3)
        assert not asking.done()
        await handle(services, told).terminate()
        answer = (await asking).json()
        assert (answer["joined"], answer["state"]) == (False, "running")
        assert answer["job_id"] != told["sync"]["job_id"]
        run = await handle(services, told).describe()
        assert await run.memo_value("job_id") == answer["job_id"]

    async def test_a_frozen_one_is_refused_with_its_reason(self, services: Services, acme: httpx.AsyncClient) -> None:
        told = await made(acme)
        reason = "github does not take the credentials any more (bad_credentials); renew them"
        await services.connections.freeze("acme", told["connection_id"], reason)
        answer = await acme.post(f"/v1/connections/{told['connection_id']}/sync")
        assert (answer.status_code, answer.json()["code"]) == (409, "connection_frozen")
        assert answer.json()["detail"] == f"Nothing was started: the connection is frozen: {reason}."
        assert (await services.jobs.list("acme"))[0] == []


class TestFreezeAndRenew:
    async def test_new_credentials_unfreeze_it_and_start_its_sync(
        self, services: Services, acme: httpx.AsyncClient
    ) -> None:
        told = await made(acme)
        path = f"/v1/connections/{told['connection_id']}"
        await services.connections.freeze("acme", told["connection_id"], "token_revoked", version=1)
        await services.synced.save_page(told["connection_id"], "issues", (), {"page": 7}, pass_id=None)
        bad = await acme.put(f"{path}/credentials", json={"credentials": {"access_token": ""}})
        assert (bad.status_code, bad.json()["detail"]) == (422, "body.credentials.access_token: is empty")
        renewed = await acme.put(
            f"{path}/credentials", json={"credentials": {"access_token": f"{SECRET}-2", "refresh_token": None}}
        )
        now = renewed.json()
        assert (renewed.status_code, now["state"], now["reason"], now["frozen_at"], now["credentials_version"]) == (
            200,
            "active",
            None,
            None,
            2,
        )
        assert (now["sync"]["state"], now["note"]) == ("running", None)
        stored = await connection(services, told)
        assert await services.connections.credentials(stored) == ({"access_token": f"{SECRET}-2"}, 2)
        assert await services.synced.place(told["connection_id"], "issues") == {"page": 7}

    async def test_a_freeze_by_hand_can_be_taken_back_and_another_cannot(
        self, services: Services, acme: httpx.AsyncClient
    ) -> None:
        told = await made(acme)
        path = f"/v1/connections/{told['connection_id']}"
        frozen = (await acme.post(f"{path}/freeze", json={"reason": "until Monday"})).json()
        assert (frozen["state"], frozen["reason"], frozen["sync"]) == ("frozen", "by hand: until Monday", None)
        again = (await acme.post(f"{path}/freeze", json={"reason": "other"})).json()
        assert again["reason"] == "by hand: until Monday"
        active = (await acme.post(f"{path}/unfreeze")).json()
        assert (active["state"], active["reason"], active["credentials_version"]) == ("active", None, 1)
        assert active["sync"]["state"] == "running"
        assert (await acme.post(f"{path}/unfreeze")).status_code == 200
        await services.connections.freeze("acme", told["connection_id"], "token_revoked")
        refused = await acme.post(f"{path}/unfreeze")
        assert (refused.status_code, refused.json()["code"]) == (409, "needs_credentials")
        assert refused.json()["detail"] == (
            "Nothing was changed: the connection is not frozen by hand, and new credentials are the way: token_revoked."
        )
        missing = await acme.post(f"{path}/freeze", json={})
        assert (missing.status_code, missing.json()["detail"]) == (422, "body.reason: is missing")

    async def test_the_queue_follows_the_number_of_active_ones(
        self, services: Services, acme: httpx.AsyncClient
    ) -> None:
        async def whole() -> float:
            return round(
                ((await queue_limits.read(services.temporal, "integrations-github")).per_second or 0)
                / (PER_CONNECTION * 1.05),
                2,
            )

        paths = [f"/v1/connections/{(await made(acme, account=name))['connection_id']}" for name in "abc"]
        assert await whole() == 3
        await acme.post(f"{paths[0]}/freeze", json={"reason": "r"})
        assert await whole() == 2
        await acme.put(f"{paths[0]}/credentials", json={"credentials": {"access_token": SECRET}})
        assert await whole() == 3
        await acme.delete(paths[0])
        assert await whole() == 2


class TestDelete:
    async def test_its_sync_is_cancelled_and_nothing_is_left(self, services: Services, acme: httpx.AsyncClient) -> None:
        told = await made(acme, sync=True)
        connection_id = told["connection_id"]
        await store_rows(services, connection_id, 450)
        path = f"/v1/connections/{connection_id}"
        answer = await acme.delete(path)
        assert (answer.status_code, answer.text) == (204, "")
        for method in ("GET", "DELETE"):
            assert (await acme.request(method, path)).status_code == 404
        assert await services.synced.counts(connection_id) == {}
        history = await handle(services, told).fetch_history()
        asked = [
            each for each in history.events if each.HasField("workflow_execution_cancel_requested_event_attributes")
        ]
        assert len(asked) == 1
        assert (await made(acme))["connection_id"] != connection_id

    async def test_a_long_one_goes_on_and_is_gone_for_everybody_at_once(
        self, app: FastAPI, services: Services, acme: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(routes, "DELETED_WITHIN", timedelta(milliseconds=1))
        monkeypatch.setattr(domain, "PAUSE", timedelta(milliseconds=400))
        told = await made(acme)
        connection_id = told["connection_id"]
        await store_rows(services, connection_id, 700)
        path = f"/v1/connections/{connection_id}"
        answer = await acme.delete(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "5")
        assert answer.json() == {
            "connection_id": connection_id,
            "state": "deleting",
            "note": "It is gone for everybody; its rows are still being deleted. Asked again, it is 404 when they are "
            "gone.",
        }
        assert (await services.synced.counts(connection_id))["issues"].live > 0
        for request in (
            acme.get(path),
            acme.get(f"{path}/rows", params={"resource": "issues"}),
            acme.post(f"{path}/sync"),
            acme.post(f"{path}/unfreeze"),
            acme.put(f"{path}/credentials", json={"credentials": {"access_token": SECRET}}),
        ):
            assert (await request).status_code == 404
        assert (await acme.get("/v1/connections")).json() == {"connections": [], "next": None}
        again = await acme.post("/v1/connections", json=GITHUB)
        assert again.json()["detail"] == (
            "acme has a connection to github named 'acme-bot', which is being deleted: ask again when it is gone "
            f"(it is {connection_id})"
        )
        assert (await acme.delete(path)).status_code == 202
        await domain.all_deleted()
        assert (await acme.delete(path)).status_code == 404
        assert await services.synced.counts(connection_id) == {}
        await made(acme)

    async def test_while_temporal_is_away_it_is_deleted_and_its_waiting_sync_ends(
        self, app: FastAPI, services: Services, acme: httpx.AsyncClient
    ) -> None:
        async with temporal_away(app):
            told = await made(acme, sync=True)
            assert (await acme.delete(f"/v1/connections/{told['connection_id']}")).status_code == 204
        job = await services.jobs.get("acme", UUID(told["sync"]["job_id"]))
        assert job is not None
        assert (job.state, job.cause, job.error) == (
            JobState.FAILED,
            "connection_deleted",
            "its connection was deleted before Temporal had it",
        )


class TestRows:
    async def test_pages_in_the_order_of_their_ids(self, services: Services, acme: httpx.AsyncClient) -> None:
        told = await made(acme)
        connection_id = told["connection_id"]
        rows = [SyncedRow(f"{number}", {"id": number}, "9", "2026-11-24T09:00:00Z") for number in range(3)]
        rows.append(SyncedRow("3", {"id": 3}, "9", deleted=True))
        await services.synced.save_page(connection_id, "issues", rows, {}, pass_id=None)
        path = f"/v1/connections/{connection_id}/rows"
        first = (await acme.get(path, params={"resource": "issues", "limit": 3})).json()
        assert [each["row_id"] for each in first["rows"]] == ["0", "1", "2"]
        seen = first["rows"][0].pop("first_seen_at")
        assert first["rows"][0] == {
            "row_id": "0",
            "parent_id": "9",
            "data": {"id": 0},
            "vendor_updated_at": "2026-11-24T09:00:00Z",
            "changed_at": seen,
            "deleted_at": None,
        }
        rest = (await acme.get(path, params={"resource": "issues", "after": first["next"]})).json()
        assert [(each["row_id"], each["deleted_at"] is not None) for each in rest["rows"]] == [("3", True)]
        assert (first["next"], rest["next"]) == ("2", None)
        shown = (await acme.get(f"/v1/connections/{connection_id}")).json()["resources"]
        assert shown["issues"] == {"rows": 3, "deleted": 1}
        wrong = await acme.get(path, params={"resource": "wikis"})
        assert (wrong.status_code, wrong.json()["code"], wrong.json()["detail"]) == (
            422,
            "unknown_resource",
            "github has no resource 'wikis'; it has repositories, issues, comments.",
        )


class TestBudgets:
    async def test_a_tenant_sees_its_own_and_what_all_share_with_the_rates_of_the_queues(
        self, app: FastAPI, services: Services, acme: httpx.AsyncClient
    ) -> None:
        own = await made(acme, provider="slack", account="team")
        async with client(app, tenant="globex") as globex:
            other = await made(globex, provider="slack", account="their team")
        gone = str(uuid4())
        scope = f"sync:slack:{own['connection_id']}"
        minute = timedelta(minutes=1)
        for each in (scope, f"sync:slack:{other['connection_id']}", f"sync:slack:{gone}", "smtp:relay"):
            name = f"{each}:conversations.history"
            await services.budgets.reserve(name, interval=timedelta(seconds=30), limit=50, per=minute)
        until = await services.budgets.pause(
            "sync:slack", PausedFor.OUTAGE, asked=minute, detail="http_503: Bad gateway"
        )
        await services.budgets.pause("sync:slackish", PausedFor.LIMIT, asked=minute)
        found = (await acme.get("/v1/budgets", params={"provider": "slack"})).json()
        assert [each["scope"] for each in found["uses"]] == ["sync:slack", f"{scope}:conversations.history"]
        shared, mine = found["uses"]
        assert shared == {
            "scope": "sync:slack",
            "provider": "slack",
            "connection_id": None,
            "account": None,
            "budget": None,
            "limit": None,
            "window_seconds": None,
            "used": 0,
            "remaining": None,
            "resets_at": None,
            "next_slot_at": shared["next_slot_at"],
            "paused": {
                "for": "outage",
                "until": until.isoformat().replace("+00:00", "Z"),
                "detail": "http_503: Bad gateway",
            },
        }
        assert mine | {"resets_at": None, "next_slot_at": None} == {
            "scope": f"{scope}:conversations.history",
            "provider": "slack",
            "connection_id": own["connection_id"],
            "account": "team",
            "budget": "conversations.history",
            "limit": 50,
            "window_seconds": 60.0,
            "used": 1,
            "remaining": 49,
            "resets_at": None,
            "next_slot_at": None,
            "paused": None,
        }
        assert datetime.fromisoformat(mine["resets_at"]) - services.clock.now() < minute
        assert mine["next_slot_at"] is not None
        (queue,) = found["queues"]
        limit = await queue_limits.read(services.temporal, "integrations-slack")
        assert queue | {"words": ""} == {
            "provider": "slack",
            "queue": "integrations-slack",
            "per_second": limit.per_second,
            "per_connection_per_second": limit.per_key,
            "by_operator": False,
            "words": "",
            "connections": None,
        }
        async with client(app, Role.VIEW, "*") as operator:
            every = (await operator.get("/v1/budgets")).json()
        assert sorted(each["scope"] for each in every["uses"]) == sorted(
            [
                "sync:slack",
                f"{scope}:conversations.history",
                f"sync:slack:{other['connection_id']}:conversations.history",
            ]
        )
        assert {each["provider"]: each["connections"] for each in every["queues"]} == {
            "figma": 0,
            "github": 0,
            "jira": 0,
            "slack": 2,
        }

    async def test_an_operators_rate_is_told_as_one(self, services: Services, acme: httpx.AsyncClient) -> None:
        await queue_limits.override(services.temporal, "integrations-github", 0)
        try:
            (queue,) = (await acme.get("/v1/budgets", params={"provider": "github"})).json()["queues"]
        finally:
            await queue_limits.restore(services.temporal, "integrations-github", QueueLimit(1.0))
        assert (queue["per_second"], queue["by_operator"], queue["words"]) == (
            0.0,
            True,
            "stopped, each connection 1.347/s",
        )

    async def test_an_unknown_vendor_is_told_with_the_known_ones(self, acme: httpx.AsyncClient) -> None:
        answer = await acme.get("/v1/budgets", params={"provider": "trello"})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_provider")


async def test_a_sync_that_is_asked_for_again_by_another_process_is_the_same_job(
    app: FastAPI, services: Services, acme: httpx.AsyncClient
) -> None:
    """As the schedule does after an answer that was lost."""
    told = await made(acme)
    async with temporal_away(app):
        with pytest.raises(RPCError):
            await start_sync(app.state.services, await connection(services, told))
    begun = await start_sync(services, await connection(services, told))
    joined = await start_sync(services, await connection(services, told))
    assert (begun.job.job_id, begun.joined, joined.job.job_id, joined.joined) == (
        joined.job.job_id,
        True,
        begun.job.job_id,
        True,
    )
    assert json.dumps(told).count("secret") == 0
    assert begun.job.submitted_at <= datetime.now(UTC)
