"""`holdfast queues` with a real Temporal server: an operator's rate holds at once and for all, until taken back."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from temporalio import activity, workflow
from temporalio.common import Priority
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from runtime import queue_limits
from runtime.queue_limits import QueueLimit
from starter.bootstrap import bootstrap
from starter.services import Services
from tests.integration.served import served

pytestmark = pytest.mark.asyncio(loop_scope="module")
GITHUB = "integrations-github"
OF_ONE_CONNECTION = 5_000 * 0.97 / 3_600  # a second
PAUSED_SECONDS = 3.0  # a second would be long enough for five at the rate before


@workflow.defn(name="paging")
class Paging:
    @workflow.run
    async def run(self, number: int) -> None:
        await workflow.execute_activity(
            "page",
            number,
            task_queue=GITHUB,
            start_to_close_timeout=timedelta(seconds=10),
            priority=Priority(fairness_key=f"connection-{number}"),
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with served(tmp_path_factory.mktemp("queues"), log_level="error") as opened:
        yield opened


async def holdfast(services: Services, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors in one line each."""
    environment = {
        "PATH": "/usr/bin",
        "COLUMNS": "200",
        "HOLDFAST_DATA_DIR": str(services.settings.data_dir),
        "TEMPORAL_ADDRESS": f"127.0.0.1:{services.settings.temporal_port}",
    }
    command = [sys.executable, "-m", "starter", "queues", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, timeout=60, check=False
    )
    told = [" ".join(each.decode().split()) for each in (done.stdout, done.stderr)]
    assert "Traceback" not in told[1]
    return done.returncode, told[0], told[1]


async def read(services: Services) -> QueueLimit:
    return await queue_limits.read(services.temporal, GITHUB)


async def expect(services: Services, per_second: float, *, by_operator: bool) -> None:
    found = await read(services)
    assert found == QueueLimit(found.per_second, found.per_key, by_operator=by_operator)
    assert found.per_second == pytest.approx(per_second)
    assert found.per_key == pytest.approx(OF_ONE_CONNECTION)


async def test_a_rate_holds_until_it_is_taken_back_and_bootstrap_leaves_it(services: Services) -> None:
    assert await holdfast(services, "limit", "github", "50/min") == (0, "github: 50/min, each connection 1.347/s", "")
    await expect(services, 50 / 60, by_operator=True)
    again = await bootstrap(services.temporal, services.database, services.settings)
    assert again.queues == []
    assert (await read(services)).by_operator
    _, listed, _ = await holdfast(services, "list")
    assert "│ github │ 50/min │ 1.347/s │ an operator │ 0 │" in listed
    assert listed.count("│ bootstrap │ 0 │") == len(services.connectors) - 1

    assert await holdfast(services, "limit", "github", "default") == (0, "github: 1.415/s, each connection 1.347/s", "")
    await expect(services, OF_ONE_CONNECTION * 1.05, by_operator=False)


async def test_nought_stops_the_queue_and_nothing_else_and_a_rate_lets_it_go_on(services: Services) -> None:
    done: list[tuple[int, float]] = []

    @activity.defn(name="page")
    async def page(number: int) -> None:
        done.append((number, time.monotonic()))

    client = services.temporal

    async def start(numbers: range) -> None:
        for number in numbers:
            await client.start_workflow("paging", number, id=f"paging:{number}", task_queue="paging")

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(done) < count:
                await asyncio.sleep(0.05)

    workflows = Worker(client, task_queue="paging", workflows=[Paging], workflow_runner=UnsandboxedWorkflowRunner())
    pages = Worker(
        client,
        task_queue=GITHUB,
        activities=[page],
        max_concurrent_activity_task_polls=1,
        disable_eager_activity_execution=True,
    )
    assert (await holdfast(services, "limit", "github", "5/s"))[0] == 0
    async with workflows, pages:
        await start(range(20))
        await until(5)
        assert await holdfast(services, "limit", "github", "0") == (0, "github: stopped, each connection 1.347/s", "")
        await asyncio.sleep(1)  # a task that was on its way to the worker is done
        before = len(done)
        assert before < 20
        await asyncio.sleep(PAUSED_SECONDS)
        assert len(done) == before
        _, listed, _ = await holdfast(services, "list")
        assert "│ github │ stopped │ 1.347/s │ an operator │ 0 │" in listed

        assert (await holdfast(services, "limit", "github", "20/s"))[0] == 0
        await until(20)
        assert sorted(number for number, _ in done) == list(range(20))
    assert (await holdfast(services, "limit", "github", "default"))[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (
            ("limit", "trello", "50/min"),
            2,
            "holdfast: There is no connector for 'trello'. There are connectors for figma, github, jira, slack",
        ),
        (("limit", "github", "50"), 2, "'50' is no rate: write 50/min, 1.5/s or 5000/h, 0 to stop the queue, or"),
    ],
)
async def test_what_cannot_be_set_is_told_and_changes_nothing(
    services: Services, words: tuple[str, ...], code: int, told: str
) -> None:
    before = await read(services)
    done = await holdfast(services, *words)
    assert (done[0], told in done[2]) == (code, True), done
    assert await read(services) == before
