"""GET /v1/jobs/{id}/why and `holdfast jobs why` with a real Temporal server: what a job of any type waits for."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from temporalio import activity, workflow
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.job import JobActivities
from contracts.catalogue import NOTIFICATION, SYNC
from contracts.errors import FailureKind, failure
from contracts.payloads.job import JobRef, JobState, RecordJob, WaitUntil
from contracts.payloads.notification import Decide, Decided, NotificationRequest
from contracts.payloads.sync import BeginSync, PagePulled, PullPage, ResourceCounts, SyncBegun, SyncRequest
from runtime import queue_limits
from runtime.ports import free_port
from runtime.temporal import lazy_client
from starter.api.app import create_app
from starter.services import Services
from store.api_keys import Role
from store.ids import new_id
from store.jobs import NewJob
from tests.integration.served import served
from tests.store.test_broadcasts import a_broadcast
from tests.workflows.probe import PROBE, ProbeActivities, ProbeRequest, ProbeWorkflow
from workflows.notification import NotificationWorkflow
from workflows.sync import SyncWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="module")
QUIET_UNTIL = datetime(2099, 11, 24, 7, 0, tzinfo=UTC)
FIGMA = "integrations-figma"
VENDOR_LINE = "limited to 1/h by an operator"
PATIENCE = 20.0  # seconds


@workflow.defn(name="asleep")
class Asleep:
    """Sleeps without being a step's wait."""

    @workflow.run
    async def run(self, seconds: float) -> None:
        await workflow.sleep(0.01, summary="over already")
        if seconds:
            await workflow.sleep(timedelta(seconds=seconds), summary="until slice 3 of 28")
        await workflow.wait_condition(lambda: False)


@workflow.defn(name="broken")
class Broken:
    @workflow.run
    async def run(self) -> None:
        raise RuntimeError("a bug")


class Doubles:
    """Steps that say what a real one would."""

    @activity.defn(name="notification.decide")
    async def decide(self, order: Decide) -> Decided | WaitUntil:
        if order.resume is None and order.job.tenant == "acme":
            return WaitUntil(until=QUIET_UNTIL, waiting_for="the end of quiet hours")
        raise failure(FailureKind.REJECTED, "no_such_thing", "the vendor does not know it.")

    @activity.defn(name="sync.begin")
    async def begin(self, order: BeginSync) -> SyncBegun:
        return SyncBegun(resources=("projects",))

    @activity.defn(name="sync.pull_page")
    async def pull_page(self, order: PullPage) -> PagePulled | WaitUntil:
        return PagePulled(counts=ResourceCounts(pages=1), finished=False)


@dataclass
class Stage:
    app: FastAPI
    services: Services
    client: httpx.AsyncClient
    workers: AsyncExitStack
    open: list[str] = field(default_factory=list)

    async def submit(self, type: str = "probe", tenant: str = "acme") -> UUID:  # noqa: A002 - the job's
        job_id = new_id()
        async with self.services.database.write() as connection:
            new = NewJob(job_id, tenant, type, f"{type}:{tenant}:{job_id}")
            await self.services.jobs.submit(connection, new)
        return job_id

    async def start(
        self,
        run: Any,
        request: Callable[[JobRef], Any],
        *,
        type: str = "probe",  # noqa: A002 - the job's
        queue: str = PROBE.queue,
        tenant: str = "acme",
    ) -> UUID:
        job_id = await self.submit(type, tenant)
        ref = JobRef(job_id=job_id, tenant=tenant)
        workflow_id = f"{type}:{tenant}:{job_id}"
        handle = await self.services.temporal.start_workflow(run, request(ref), id=workflow_id, task_queue=queue)
        self.open.append(workflow_id)
        await self.services.jobs.started(job_id, handle.first_execution_run_id or "")
        return job_id

    async def probe(self, *script: str, **more: Any) -> UUID:
        return await self.start(ProbeWorkflow.run, lambda ref: ProbeRequest(job=ref, script=script, **more))

    async def why(self, job_id: UUID) -> dict[str, Any]:
        answer = await self.client.get(f"/v1/jobs/{job_id}/why")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        assert set(told) == {"job_id", "state", "waits", "sentence"}
        assert told["job_id"] == str(job_id)
        return told

    async def until(self, job_id: UUID, *, what: str) -> dict[str, Any]:
        """The answer once its first wait is this."""
        told: dict[str, Any] = {}

        async def look() -> bool:
            nonlocal told
            told = await self.why(job_id)
            return bool(told["waits"]) and told["waits"][0]["what"] == what

        await eventually(look, lambda: told)
        return told


async def eventually(look: Callable[[], Awaitable[bool]], last: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not await look():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"last seen: {last()}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as opened:
        services = await opened.enter_async_context(
            served(tmp_path_factory.mktemp("why"), signing_key="k", log_level="error")
        )
        app = create_app(services.settings)
        await opened.enter_async_context(app.router.lifespan_context(app))
        app.state.services = services
        _, secret = await services.api_keys.create("*", Role.VIEW, "")
        client = await opened.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://api.example",
                headers={"Authorization": f"Bearer {secret}"},
            )
        )
        probe, doubles, record = ProbeActivities(), Doubles(), JobActivities(jobs=services.jobs).record
        for queue, workflows, activities in (
            (PROBE.queue, [ProbeWorkflow, Asleep, Broken], [probe.act, probe.beat]),
            (NOTIFICATION.queue, [NotificationWorkflow], [doubles.decide]),
            (SYNC.queue, [SyncWorkflow], [doubles.begin]),
        ):
            worker = Worker(
                services.temporal,
                task_queue=queue,
                workflows=workflows,
                activities=[*activities, record],
                workflow_runner=UnsandboxedWorkflowRunner(),
                graceful_shutdown_timeout=timedelta(),
            )
            await opened.enter_async_context(worker)
        made = Stage(app, services, client, opened)
        yield made
        for workflow_id in made.open:
            await services.temporal.get_workflow_handle(workflow_id).terminate()


async def test_a_notification_waits_for_the_end_of_quiet_hours(stage: Stage) -> None:
    job_id = await stage.start(
        NotificationWorkflow.run,
        lambda ref: NotificationRequest(job=ref, expires_at=QUIET_UNTIL + timedelta(hours=1)),
        type="notification",
        queue=NOTIFICATION.queue,
    )
    told = await stage.until(job_id, what="the end of quiet hours")
    assert told["waits"] == [
        {"step": "decide", "what": "the end of quiet hours", "until": "2099-11-24T07:00:00Z", "detail": None}
    ]
    assert told["state"] == "running"
    assert re.fullmatch(
        r"Step decide waits for the end of quiet hours until 2099-11-24 07:00:00 UTC \(in [\d]+ d \d+ h\)\.",
        told["sentence"],
    )


async def test_a_dead_letter_waits_for_an_operator_and_says_the_command(stage: Stage) -> None:
    job_id = await stage.start(
        NotificationWorkflow.run,
        lambda ref: NotificationRequest(job=ref, expires_at=QUIET_UNTIL),
        type="notification",
        queue=NOTIFICATION.queue,
        tenant="globex",
    )
    told = await stage.until(job_id, what="an operator")
    (wait,) = told["waits"]
    detail = (
        "decide:no_such_thing: the vendor does not know it; "
        f"`holdfast jobs resolve {job_id} retry` (or discard) decides"
    )
    assert (wait["step"], wait["detail"]) == ("decide", detail)
    left = datetime.fromisoformat(wait["until"]) - datetime.now(UTC)
    assert NOTIFICATION.keep.failed - timedelta(minutes=1) < left < NOTIFICATION.keep.failed
    until = f"{datetime.fromisoformat(wait['until']):%Y-%m-%d %H:%M:%S} UTC"
    assert re.fullmatch(
        re.escape(f"Step decide waits for an operator until {until} (in ")
        + r"(6 d 23 h|7 d 0 h)\): "
        + re.escape(f"{detail}."),
        told["sentence"],
    )


async def test_a_step_that_failed_waits_for_its_next_attempt(stage: Stage) -> None:
    job_id = await stage.probe("error")
    told = await stage.until(job_id, what="its attempt 2")
    (wait,) = told["waits"]
    assert (wait["step"], wait["detail"]) == ("act", "vendor is down")
    left = (datetime.fromisoformat(wait["until"]) - datetime.now(UTC)).total_seconds()
    assert 0 < left <= 12
    assert re.fullmatch(
        r"Step act waits for its attempt 2 until .* UTC \(in \d+ s\): vendor is down\.", told["sentence"]
    )


async def test_steps_at_work_are_told_with_how_many_more(stage: Stage) -> None:
    job_id = await stage.probe("hang", step="beat", parallel=3, slots=3)

    async def all_at_work() -> bool:
        waits = (await stage.why(job_id))["waits"]
        return len(waits) == 3 and all(each["what"] == "its own work" for each in waits)

    await eventually(all_at_work, lambda: None)
    told = await stage.why(job_id)
    assert {each["step"] for each in told["waits"]} == {"beat"}
    assert re.fullmatch(
        r"Step beat is at work: attempt 1, at work since .* UTC\. It waits for 2 other things too\.", told["sentence"]
    )


async def test_a_page_waits_for_a_worker_then_for_the_operator_and_then_for_a_slot(stage: Stage) -> None:
    job_id = await stage.start(
        SyncWorkflow.run,
        lambda ref: SyncRequest(job=ref, connection_id=str(uuid4()), provider="figma"),
        type="sync",
        queue=SYNC.queue,
    )
    told = await stage.until(job_id, what=f"a worker of the queue {FIGMA}")
    assert told["waits"] == [
        {
            "step": "pull_page",
            "what": f"a worker of the queue {FIGMA}",
            "until": None,
            "detail": "none asks for work: start one",
        }
    ]
    assert told["sentence"] == (
        f"Step pull_page waits for a worker of the queue {FIGMA}: none asks for work: start one."
    )
    await queue_limits.override(stage.services.temporal, FIGMA, 0)
    stopped = await stage.until(job_id, what=f"the queue {FIGMA}, which is stopped")
    assert stopped["sentence"] == (
        f"Step pull_page waits for the queue {FIGMA}, which is stopped: "
        "`holdfast queues limit figma default` lets it go on."
    )
    await queue_limits.override(stage.services.temporal, FIGMA, 1 / 3_600)
    worker = Worker(
        stage.services.temporal,
        task_queue=FIGMA,
        activities=[Doubles().pull_page],
        max_concurrent_activity_task_polls=1,
        disable_eager_activity_execution=True,
    )
    async with worker:
        slot = await stage.until(job_id, what=f"a slot of the queue {FIGMA}")
    (wait,) = slot["waits"]
    limit, _, line = wait["detail"].partition("; ")
    each = await queue_limits.read(stage.services.temporal, FIGMA)
    assert each.per_key is None
    assert (limit, line) in {(VENDOR_LINE, "1 task in line"), (VENDOR_LINE, "")}
    assert slot["sentence"] == f"Step pull_page waits for a slot of the queue {FIGMA}: {wait['detail']}."


async def test_without_a_worker_of_its_own_queue_it_says_so(stage: Stage) -> None:
    job_id = await stage.start(Asleep.run, lambda _: 1.0, queue="nobody")
    told = await stage.why(job_id)
    assert told["waits"] == [
        {
            "step": None,
            "what": "a worker of the queue nobody",
            "until": None,
            "detail": "none asks for work: start one",
        }
    ]
    assert told["sentence"] == "It waits for a worker of the queue nobody: none asks for work: start one."


async def test_a_workflow_that_sleeps_by_itself_is_told_by_its_timer(stage: Stage) -> None:
    job_id = await stage.start(Asleep.run, lambda _: 3_600.0)
    wait: dict[str, Any] = {}

    async def sleeps() -> bool:  # the first of its two timers may be seen too
        nonlocal wait
        (wait, *_) = (await stage.why(job_id))["waits"] or [{}]
        return wait.get("detail") == "until slice 3 of 28"

    await eventually(sleeps, lambda: wait)
    assert (wait["step"], wait["what"]) == (None, "its time")
    assert 3_500 < (datetime.fromisoformat(wait["until"]) - datetime.now(UTC)).total_seconds() <= 3_600


async def test_code_that_fails_is_told_as_ours_to_mend(stage: Stage) -> None:
    job_id = await stage.start(Broken.run, lambda _: None)
    told = await stage.until(job_id, what="its workflow's code, which fails")
    (wait,) = told["waits"]
    assert re.fullmatch(r"attempt \d+; the Web UI has the error, and a deploy or a rollback mends it", wait["detail"])


async def test_what_waits_for_nothing_visible_is_told_so(stage: Stage) -> None:
    job_id = await stage.start(Asleep.run, lambda _: 0.0)
    told: dict[str, Any] = {}

    async def nothing() -> bool:
        nonlocal told
        told = await stage.why(job_id)
        return not told["waits"]

    await eventually(nothing, lambda: told)
    assert told["sentence"] == ("It runs, and waits for nothing that can be seen from outside: ask again in a moment.")


async def test_a_paused_broadcast_waits_for_resume(stage: Stage) -> None:
    made = await a_broadcast(stage.services.database)
    workflow_id = f"broadcast:acme:{made.broadcast_id}"
    handle = await stage.services.temporal.start_workflow(Asleep.run, 0.0, id=workflow_id, task_queue=PROBE.queue)
    stage.open.append(workflow_id)
    await stage.services.jobs.started(made.broadcast_id, handle.first_execution_run_id or "")
    await stage.services.broadcasts.note_pause(made.broadcast_id, "a typo in the subject")
    told = await stage.until(made.broadcast_id, what="an operator")
    assert told["sentence"] == (
        "It waits for an operator: a typo in the subject; "
        f"`holdfast broadcasts resume {made.broadcast_id}` lets it go on."
    )


@pytest.mark.parametrize(
    ("type_", "detail"),
    [
        ("file", "send the same request again with its Idempotency-Key, or cancel it"),
        ("sync", "the schedule starts it within a quarter of an hour, or ask for the sync again"),
    ],
)
async def test_what_was_stored_and_not_started_says_what_starts_it(stage: Stage, type_: str, detail: str) -> None:
    job_id = await stage.submit(type_)
    told = await stage.why(job_id)
    assert told == {
        "job_id": str(job_id),
        "state": "submitted",
        "waits": [{"step": None, "what": "its start", "until": None, "detail": detail}],
        "sentence": f"It is stored and not started: {detail}.",
    }


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        (JobState.DONE, None, ""),
        (JobState.FAILED, "decide: [/x] broke.", ": decide: [/x] broke"),
        (JobState.CANCELLED, None, ""),
    ],
)
async def test_a_closed_one_waits_for_nothing(stage: Stage, state: JobState, error: str | None, words: str) -> None:
    job_id = await stage.submit("file")
    at = datetime(2026, 11, 24, 3, 0, 7, tzinfo=UTC)
    ref = JobRef(job_id=job_id, tenant="acme")
    await stage.services.jobs.record(
        RecordJob(job=ref, state=state, first_run_id="r", started_at=at, at=at, error=error)
    )
    assert await stage.why(job_id) == {
        "job_id": str(job_id),
        "state": state.value,
        "waits": [],
        "sentence": f"It ended at 2026-11-24 03:00:07 UTC, {state.value}{words}. It waits for nothing.",
    }


async def test_one_that_was_terminated_is_closed_by_the_look(stage: Stage) -> None:
    job_id = await stage.probe("hang", step="beat")
    await stage.services.temporal.get_workflow_handle(stage.open.pop()).terminate("by somebody")
    told = await stage.why(job_id)
    assert (told["state"], told["waits"]) == ("failed", [])
    ended = r"It ended at .* UTC, failed: terminated by user via frontend\. It waits for nothing\."
    assert re.fullmatch(ended, told["sentence"])


async def test_one_that_temporal_has_no_more_is_told_so(stage: Stage) -> None:
    job_id = await stage.submit("file")
    await stage.services.jobs.started(job_id, "r")
    told = await stage.why(job_id)
    gone = "Temporal has its run no more, so nothing will happen: it was deleted, or Temporal's data was replaced"
    assert (told["waits"][0]["detail"], told["sentence"]) == (gone, f"{gone}.")


class TestWithoutTemporal:
    @pytest_asyncio.fixture(loop_scope="module")
    async def away(self, stage: Stage) -> AsyncIterator[Stage]:
        settings = stage.services.settings.model_copy(update={"temporal_port": free_port()})
        stage.app.state.services = replace(stage.services, temporal=await lazy_client(settings, role="test"))
        yield stage
        stage.app.state.services = stage.services

    async def test_a_stored_one_says_both(self, away: Stage) -> None:
        told = await away.why(await away.submit("file"))
        assert [each["what"] for each in told["waits"]] == ["Temporal", "its start"]
        assert told["sentence"] == (
            "It is stored and not started, and Temporal does not answer: send the same request again with its "
            "Idempotency-Key, or cancel it."
        )

    async def test_a_running_one_is_not_known(self, away: Stage) -> None:
        job_id = await away.submit("file")
        await away.services.jobs.started(job_id, "r")
        told = await away.why(job_id)
        assert told["waits"] == [
            {"step": None, "what": "Temporal", "until": None, "detail": "it does not answer, so only the store speaks"}
        ]
        assert told["sentence"] == "Temporal does not answer, so what it waits for is not known; it was running."

    async def test_a_dead_letter_is_known_by_its_record(self, away: Stage) -> None:
        job_id = await away.submit("file")
        ref, at = JobRef(job_id=job_id, tenant="acme"), away.services.clock.now()
        await away.services.jobs.record(
            RecordJob(
                job=ref,
                state=JobState.PARKED,
                first_run_id="r",
                started_at=at,
                at=at,
                cause="c",
                error="verify: broke.",
            )
        )
        told = await away.why(job_id)
        assert told["sentence"] == (
            "Temporal does not answer; by the last record: It waits for an operator: verify: broke; "
            f"`holdfast jobs resolve {job_id} retry` (or discard) decides."
        )


async def test_only_who_may_see_the_job_asks(stage: Stage) -> None:
    job_id = await stage.submit("file", tenant="acme")
    _, secret = await stage.services.api_keys.create("globex", Role.SUBMIT, "")
    answer = await stage.client.get(f"/v1/jobs/{job_id}/why", headers={"Authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_the_command_line_says_the_same(stage: Stage) -> None:
    job_id = await stage.submit("file")
    environment = {
        "PATH": "/usr/bin",
        "COLUMNS": "200",
        "HOLDFAST_DATA_DIR": str(stage.services.settings.data_dir),
        "TEMPORAL_ADDRESS": f"127.0.0.1:{stage.services.settings.temporal_port}",
    }

    async def holdfast(job: UUID) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "starter", "jobs", "why", str(job)]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    told = (await stage.why(job_id))["sentence"]
    assert await holdfast(job_id) == (0, f"{told}\n", "")
    missing = UUID(int=1)
    assert await holdfast(missing) == (1, "", f"holdfast: there is no job {missing}\n")
