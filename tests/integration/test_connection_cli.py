"""`holdfast connections …` with a real Temporal server: what it prints, and that no secret is in it."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
import typer
from temporalio import activity
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.job import JobActivities
from contracts.catalogue import SYNC
from contracts.payloads.job import JobState
from contracts.payloads.sync import (
    BeginSync,
    FinishSync,
    PagePulled,
    PullPage,
    ResourceCounts,
    SyncBegun,
    SyncFinished,
    vendor_queue,
)
from runtime import queue_limits
from runtime.ports import free_port
from starter import connection_cli
from starter.cli import app
from starter.command import EXPECTED
from starter.services import Services
from store.synced import SyncedRow
from store.tables import connections, jobs, sync_places, synced_rows
from tests.integration.served import served
from workflows.sync import SyncWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "gho_planted-secret-4711"
CREDENTIALS = json.dumps({"access_token": SECRET})


@dataclass
class Commands:
    """Runs commands in this process, and keeps what they say."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    async def __call__(self, *words: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, output and errors in one line each."""
        works: list[Any] = []
        code = 0
        self.monkeypatch.setattr(connection_cli, "run_command", lambda work, _settings: works.append(work))
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            app(["connections", *words], standalone_mode=False)
            code = await works[0] or 0
        except typer.BadParameter as error:
            return 2, "", error.format_message()
        except EXPECTED as error:
            return 1, "", str(error)
        said = self.capsys.readouterr()
        told = [" ".join(each.split()) for each in (said.out, said.err)]
        assert "planted-secret" not in said.out + said.err
        return code, told[0], told[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with served(tmp_path_factory.mktemp("cli"), signing_key="k", log_level="error") as services:
        yield services


@pytest_asyncio.fixture(loop_scope="module")
async def services(opened: Services, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    """With an empty store, which the commands use too."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # as the command line does
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("HOLDFAST_DATA_DIR", str(opened.settings.data_dir))
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{opened.settings.temporal_port}")
    yield opened
    structlog.reset_defaults()
    async with opened.database.write() as connection:
        for table in (connections, synced_rows, sync_places, jobs):
            await connection.execute(table.delete())
    async for run in opened.temporal.list_workflows("ExecutionStatus = 'Running' AND WorkflowType = 'sync'"):
        await opened.temporal.get_workflow_handle(run.id).terminate()


@pytest.fixture
def holdfast(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


async def made(holdfast: Commands, *more: str, account: str = "bot") -> str:
    words = ("create", "github", account, "--tenant", "acme", "--no-sync", *more)
    code, told, error = await holdfast(*words, stdin=CREDENTIALS)
    assert code == 0, error
    return told.removeprefix("connection ")


async def test_an_account_is_connected_listed_shown_frozen_taken_back_and_deleted(
    services: Services, holdfast: Commands, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets.json"
    secrets.write_text(CREDENTIALS)
    connection_id = await made(holdfast, "--credentials", str(secrets), "--settings", '{"limits": {"requests": 100}}')
    stored = await services.connections.get("acme", connection_id)
    assert stored is not None
    assert stored.settings == {"limits": {"requests": 100}}
    assert await services.connections.credentials(stored) == ({"access_token": SECRET}, 1)
    _, listed, _ = await holdfast("list", "--tenant", "acme")
    assert f"│ {connection_id} │ acme │ github │ bot │ active │ never │ │" in listed
    assert connection_id not in (await holdfast("list", "--provider", "slack"))[1]

    assert await holdfast("freeze", connection_id, "--reason", "[/x] until Monday") == (
        0,
        "frozen, because: by hand: [/x] until Monday",
        "",
    )
    _, shown, _ = await holdfast("show", connection_id)
    assert shown.startswith("github bot of acme: frozen, because: by hand: [/x] until Monday")
    frozen = "the connection is frozen: by hand: [/x] until Monday"
    assert await holdfast("sync", connection_id) == (1, "", frozen)
    code, told, _ = await holdfast("unfreeze", connection_id)
    (job,), _ = await services.jobs.list("acme")
    assert (code, told) == (0, f"active sync {job.job_id}")
    again = (0, f"sync {job.job_id} (it ran already) it may not be a full one: ask again when it has ended", "")
    assert await holdfast("sync", connection_id, "--full") == again

    assert await holdfast("delete", connection_id) == (0, "deleted", "")
    gone = f"holdfast: there is no connection {connection_id}: see `holdfast connections list`"
    for words in (("delete",), ("sync",), ("show",), ("freeze", "--reason", "r"), ("unfreeze",), ("rows", "issues")):
        assert await holdfast(words[0], connection_id, *words[1:]) == (1, "", gone)
    assert (await holdfast("renew", connection_id, stdin=CREDENTIALS))[0] == 1


async def test_new_credentials_unfreeze_it_and_go_on(services: Services, holdfast: Commands) -> None:
    connection_id = await made(holdfast)
    await services.connections.freeze("acme", connection_id, "token_revoked")
    refused = await holdfast("unfreeze", connection_id)
    words = "the connection is not frozen by hand, and new credentials are the way: token_revoked"
    assert refused == (1, "", words)
    code, told, _ = await holdfast("renew", connection_id, stdin=json.dumps({"access_token": f"{SECRET}-2"}))
    (job,), _ = await services.jobs.list("acme")
    assert (code, told) == (0, f"renewed sync {job.job_id}")
    stored = await services.connections.get("acme", connection_id)
    assert stored is not None
    assert await services.connections.credentials(stored) == ({"access_token": f"{SECRET}-2"}, 2)


@pytest.mark.parametrize(
    ("words", "stdin", "code", "told"),
    [
        (("trello",), CREDENTIALS, 1, "There is no connector for 'trello'."),
        (("jira",), CREDENTIALS, 1, "settings.cloud_id: is missing"),
        (("github",), "{}", 1, "credentials.access_token: is missing"),
        (("github",), f"{{{SECRET}", 2, "are no JSON"),
        (("github",), json.dumps([SECRET]), 2, 'must be a JSON object, such as {"access_token": "…"}'),
        (("github", "--credentials", "/no/file"), "", 2, "/no/file cannot be read: No such file or directory"),
        (("github", "--settings", "["), CREDENTIALS, 2, "not JSON"),
    ],
)
async def test_what_cannot_be_connected_is_told_and_leaves_nothing(
    services: Services, holdfast: Commands, words: tuple[str, ...], stdin: str, code: int, told: str
) -> None:
    done = await holdfast("create", words[0], "bot", "--tenant", "acme", *words[1:], stdin=stdin)
    assert (done[0], told in done[2]) == (code, True), done
    assert "planted-secret" not in done[2]
    assert (await services.connections.list(None))[0] == []


async def test_rows_are_lines_of_json(services: Services, holdfast: Commands) -> None:
    connection_id = await made(holdfast)
    rows = [SyncedRow(f"{number:03}", {"title": "Ä [/x]"}, "9") for number in range(250)]
    await services.synced.save_page(connection_id, "issues", rows, {}, pass_id=None)
    _, told, _ = await holdfast("rows", connection_id, "issues", "--limit", "1000")
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(told):
        row, place = decoder.raw_decode(told, place)
        found.append(row)
        place += 1
    assert [each["row_id"] for each in found] == [f"{number:03}" for number in range(250)]
    assert found[0] == {"row_id": "000", "parent_id": "9", "data": {"title": "Ä [/x]"}, "deleted_at": None}
    _, one, _ = await holdfast("rows", connection_id, "issues", "--after", "248")
    assert json.loads(one)["row_id"] == "249"
    wrong = "holdfast: github has no resource 'wikis'; it has repositories, issues, comments"
    assert await holdfast("rows", connection_id, "wikis") == (1, "", wrong)


async def test_watching_shows_pages_and_waits_and_ends_with_how_it_ended(
    services: Services, holdfast: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_cli, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(connection_cli, "PLAIN_SECONDS", 0.0)
    connection_id = await made(holdfast)
    released = asyncio.Event()

    @activity.defn(name="sync.begin")
    async def begin(order: BeginSync) -> SyncBegun:
        return SyncBegun(resources=("repositories", "issues"))

    @activity.defn(name="sync.pull_page")
    async def pull_page(order: PullPage) -> PagePulled:
        if order.resource == "issues":
            await released.wait()
        rows = [SyncedRow(order.resource, {})]
        await services.synced.save_page(connection_id, order.resource, rows, {}, pass_id=None)
        return PagePulled(counts=ResourceCounts(created=1, pages=1), finished=True)

    @activity.defn(name="sync.finish")
    async def finish(order: FinishSync) -> SyncFinished:
        return SyncFinished()

    def worker(queue: str, activities: list[Callable[..., Any]], *workflows: type) -> Worker:
        return Worker(
            services.temporal,
            task_queue=queue,
            workflows=workflows,
            activities=activities,
            workflow_runner=UnsandboxedWorkflowRunner(),
            graceful_shutdown_timeout=timedelta(),
        )

    await queue_limits.override(services.temporal, vendor_queue("github"), 1_000)
    record = JobActivities(jobs=services.jobs).record
    async with worker(SYNC.queue, [begin, finish, record], SyncWorkflow), worker(vendor_queue("github"), [pull_page]):
        watching = asyncio.create_task(holdfast("sync", connection_id, "--watch"))
        await asyncio.sleep(1.5)
        released.set()
        code, told, _ = await asyncio.wait_for(watching, 20)
    await queue_limits.restore(services.temporal, vendor_queue("github"), queue_limits.QueueLimit(1.0))
    (job,), _ = await services.jobs.list("acme")
    assert (code, job.state) == (0, JobState.DONE)
    assert told.startswith(f"sync {job.job_id} ")
    assert "1 pages; left: issues; Step pull_page is at work: attempt 1, at work since" in told
    rows = "1 rows, 0 deleted by the vendor"
    assert told.endswith(f"done. It waits for nothing. issues: {rows} repositories: {rows}")


async def test_while_temporal_is_away_the_sync_is_stored_and_the_way_to_start_it_is_told(
    services: Services, holdfast: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_id = await made(holdfast)
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{free_port()}")
    words = (
        "holdfast: Temporal does not answer (UNAVAILABLE), so the sync is stored and not started. The schedule starts "
        f"it, or `holdfast connections sync {connection_id}`"
    )
    code, _, error = await holdfast("sync", connection_id)
    assert (code, error) == (1, words)
    (job,), _ = await services.jobs.list("acme")
    assert job.state is JobState.SUBMITTED
    with pytest.raises(RPCError):
        await services.temporal.get_workflow_handle(job.workflow_id).describe()
    assert (await holdfast("delete", connection_id))[:2] == (0, "deleted")
    ended = await services.jobs.get("acme", job.job_id)
    assert ended is not None
    assert ended.state is JobState.FAILED
