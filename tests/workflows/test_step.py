"""workflows/step.py against a real server; timers are skipped, so minutes and days are exact."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from contracts import catalogue
from contracts.payloads.job import JobRef, JobState, ParkedStep, Resolve, Resolved
from contracts.search_attributes import CAUSE, JOB_STATUS
from tests.workflows.probe import Acted, ProbeActivities, ProbeRequest, ProbeWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="session")
Handle = WorkflowHandle[ProbeWorkflow, Acted]


class Probe:
    """Starts probe jobs on a worker of its own."""

    def __init__(self, client: Client, queue: str) -> None:
        self.client = client
        self.queue = queue
        self.activities = ProbeActivities()

    async def start(self, *script: str, **more: object) -> Handle:
        job = JobRef(job_id=uuid.uuid4(), tenant="acme")
        request = ProbeRequest.model_validate({"job": job, "script": script, **more})
        return await self.client.start_workflow(
            ProbeWorkflow.run, request, id=f"probe:{job.job_id}", task_queue=self.queue
        )

    async def run(self, *script: str, **more: object) -> Acted:
        return await (await self.start(*script, **more)).result()

    def attempts(self, name: str = "n0") -> list[int]:
        return [number for (_, each), numbers in self.activities.attempts.items() if each == name for number in numbers]

    @property
    def states(self) -> list[JobState]:
        return [record.state for record in self.activities.records]


@pytest_asyncio.fixture(loop_scope="session")
async def probe(client: Client) -> AsyncIterator[Probe]:
    made = Probe(client, f"probe-{uuid.uuid4()}")
    activities = made.activities
    async with Worker(
        client,
        task_queue=made.queue,
        workflows=[ProbeWorkflow],
        activities=[activities.act, activities.beat, activities.record],
        max_heartbeat_throttle_interval=timedelta(milliseconds=200),
        default_heartbeat_throttle_interval=timedelta(milliseconds=200),
    ):
        yield made


async def parked(handle: Handle, count: int = 1) -> list[ParkedStep]:
    """Wait until so many steps are parked, as an operator would: by asking."""
    async with asyncio.timeout(30):
        while True:
            found: list[ParkedStep] = await handle.query("parked", result_type=list[ParkedStep])
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await check():
            await asyncio.sleep(0.05)


def holding(env: WorkflowEnvironment) -> object:
    """Parked jobs would otherwise jump over their 14 days at once."""
    return env.with_time_skipping_disabled()


async def duration(handle: Handle) -> timedelta:
    described = await handle.describe()
    assert described.close_time
    return described.close_time - described.start_time


async def test_a_result_is_returned_and_recorded(probe: Probe) -> None:
    acted = await probe.run("ok")
    assert acted.executions == 1
    assert probe.states == [JobState.DONE]
    assert probe.activities.records[0].result == {"executions": 1, "resumed_at": None, "script": ["ok"]}


async def test_unexpected_errors_are_retried_with_the_catalogues_back_off(probe: Probe) -> None:
    handle = await probe.start("error", "error", "ok")
    assert (await handle.result()).executions == 3
    assert probe.attempts() == [1, 2, 3]
    assert timedelta(seconds=30) <= await duration(handle) < timedelta(seconds=40)  # 10 s + 20 s


async def test_a_wait_is_a_named_timer_that_burns_no_attempt(probe: Probe) -> None:
    until = datetime.now(UTC) + timedelta(hours=3)
    handle = await probe.start("wait", "error", "error", "ok", until=until)
    assert (await handle.result()).executions == 4
    assert probe.attempts() == [1, 1, 2, 3]  # the wait did not count: three attempts were left
    assert await duration(handle) >= timedelta(hours=2, minutes=59)
    history = await handle.fetch_history()
    timers = [event for event in history.events if event.HasField("timer_started_event_attributes")]
    assert len(timers) == 1
    assert f"waiting for jira until {until:%Y-%m-%d %H:%M:%S} UTC".encode() in timers[0].user_metadata.summary.data


async def test_a_wait_past_the_deadline_ends_the_job_and_says_so(probe: Probe) -> None:
    now = datetime.now(UTC)
    handle = await probe.start("wait", until=now + timedelta(hours=3), deadline=now + timedelta(hours=1))
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ApplicationError)
    assert raised.value.cause.type == "deadline"
    assert "would have to wait for jira" in str(raised.value.cause)
    assert probe.states == [JobState.FAILED]


async def test_an_interrupted_step_runs_again_at_its_place_at_once(probe: Probe) -> None:
    handle = await probe.start("interrupted", "interrupted", "ok")
    acted = await handle.result()
    assert acted.resumed_at == {"page": 2}
    assert probe.attempts() == [1, 1, 1]
    assert await duration(handle) < timedelta(seconds=5)


async def test_a_lost_worker_costs_no_attempt_and_no_back_off(probe: Probe) -> None:
    handle = await probe.start("lost", "ok", step="beat")
    acted = await handle.result()
    assert acted.resumed_at == {"page": 1}
    assert probe.attempts() == [1, 1]
    assert await duration(handle) < timedelta(seconds=8)  # the heartbeat timeout, not the 10 s back-off


async def test_errors_before_a_lost_worker_still_count(probe: Probe) -> None:
    handle = await probe.start("error", "lost", "error", "error", "ok", step="beat", parks=False)
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ApplicationError)
    assert raised.value.cause.type == "RuntimeError"
    # error, lost, error, error: exhausted after three errors, not after three executions
    assert probe.attempts() == [1, 2, 1, 2]
    assert timedelta(seconds=30) <= await duration(handle) < timedelta(seconds=40)  # 10 s, then 20 s after the second


async def test_a_worker_lost_too_often_exhausts_the_step(probe: Probe) -> None:
    handle = await probe.start("lost", step="beat", parks=False)
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert len(probe.attempts()) == catalogue.MAX_LOST_WORKERS + 1
    assert "its worker went away (no heartbeat)" in str(raised.value.cause)


async def test_a_final_error_parks_at_once_and_shows_it(env: WorkflowEnvironment, probe: Probe) -> None:
    with holding(env):  # type: ignore[attr-defined]
        handle = await probe.start("rejected", "ok")
    found = await parked(handle)
    assert probe.attempts() == [1]
    assert [(each.step, each.cause, each.error) for each in found] == [
        ("act n0", "act:no_such_thing", "the vendor does not know it")
    ]

    async def shown() -> bool:
        attributes = (await handle.describe()).typed_search_attributes
        return attributes.get(JOB_STATUS) == "parked" and attributes.get(CAUSE) == "act:no_such_thing"

    await eventually(shown)
    await eventually(lambda: _is(probe.states == [JobState.PARKED]))
    resolved = await handle.execute_update("resolve", Resolve(action="retry"), result_type=Resolved)
    assert resolved.steps == ("act n0",)
    assert (await handle.result()).executions == 2
    assert probe.states == [JobState.PARKED, JobState.RUNNING, JobState.DONE]
    assert (await handle.describe()).typed_search_attributes.get(JOB_STATUS) is None


async def _is(value: bool) -> bool:
    return value


async def test_resolve_can_correct_the_order_and_checks_it_first(env: WorkflowEnvironment, probe: Probe) -> None:
    with holding(env):  # type: ignore[attr-defined]
        handle = await probe.start("rejected")
    await parked(handle)

    async def refusal(decision: Resolve) -> str:
        with pytest.raises(WorkflowUpdateFailedError) as raised:
            await handle.execute_update("resolve", decision)
        return str(raised.value.cause)

    assert "act n0 can be corrected in: script, until, name" in await refusal(
        Resolve(action="retry", correction={"scirpt": ["ok"]})
    )
    assert "script" in await refusal(Resolve(action="retry", correction={"script": 7}))
    assert "parked is: act n0" in await refusal(Resolve(action="retry", step="act n7"))
    await handle.execute_update("resolve", Resolve(action="retry", correction={"script": ["ok"]}))
    assert (await handle.result()).script == ("ok",)


async def test_resolve_is_refused_while_nothing_is_parked(env: WorkflowEnvironment, probe: Probe) -> None:
    with holding(env):  # type: ignore[attr-defined]
        handle = await probe.start("hang", step="beat")
    with pytest.raises(WorkflowUpdateFailedError) as raised:
        await handle.execute_update("resolve", Resolve(action="retry"))
    assert "parked is: nothing" in str(raised.value.cause)
    await handle.terminate()


async def test_discard_fails_the_job_with_the_operators_reason(env: WorkflowEnvironment, probe: Probe) -> None:
    with holding(env):  # type: ignore[attr-defined]
        handle = await probe.start("rejected")
    await parked(handle)
    await handle.execute_update("resolve", Resolve(action="discard", reason="customer left"))
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert "discarded by an operator (customer left)" in str(raised.value.cause)
    assert probe.states[-1] is JobState.FAILED
    assert probe.activities.records[-1].cause == "no_such_thing"


async def test_a_parked_job_fails_when_its_line_is_reached(probe: Probe) -> None:
    handle = await probe.start("rejected")
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert "nobody resolved it within 14 days" in str(raised.value.cause)
    assert timedelta(days=14) <= await duration(handle) < timedelta(days=14, minutes=1)


async def test_a_type_that_does_not_park_fails_at_once(probe: Probe) -> None:
    handle = await probe.start("transient", parks=False)
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ApplicationError)
    assert raised.value.cause.type == "vendor_down"
    assert probe.attempts() == [1, 2, 3]
    assert probe.states == [JobState.FAILED]


async def test_the_submitters_mistake_fails_at_once_and_never_parks(probe: Probe) -> None:
    handle = await probe.start("invalid")
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ApplicationError)
    assert raised.value.cause.type == "bad_file"
    assert probe.attempts() == [1]
    assert probe.states == [JobState.FAILED]
    assert probe.activities.records[0].error == "act n0: send another file"


async def test_siblings_go_on_and_parked_steps_are_resolved_one_by_one(env: WorkflowEnvironment, probe: Probe) -> None:
    with holding(env):  # type: ignore[attr-defined]
        handle = await probe.start("rejected", "ok", parallel=4)
    assert {each.step for each in await parked(handle, 2)} == {"act n0", "act n1"}
    await eventually(lambda: _is(len(probe.attempts("n3")) == 1))
    await handle.execute_update("resolve", Resolve(action="retry", step="act n1"))

    async def one_left() -> bool:
        return [each.step for each in await parked(handle)] == ["act n0"]

    await eventually(one_left)
    assert (await handle.describe()).typed_search_attributes.get(JOB_STATUS) == "parked"
    await handle.execute_update("resolve", Resolve(action="retry"))
    await handle.result()
    assert len(probe.attempts("n1")) == 2


async def test_slots_bound_what_runs_at_once(probe: Probe) -> None:
    await probe.run("slow", parallel=9, slots=3)
    assert probe.activities.most_at_once == 3


async def test_a_cancelled_job_is_recorded_and_its_work_stops(env: WorkflowEnvironment, probe: Probe) -> None:
    with holding(env):  # type: ignore[attr-defined]
        handle = await probe.start("hang", step="beat")
    await eventually(lambda: _is(probe.activities.at_once == 1))
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert probe.states == [JobState.CANCELLED]
    await eventually(lambda: _is(probe.activities.at_once == 0))


async def test_an_argument_that_does_not_validate_fails_the_job_at_once(probe: Probe) -> None:
    handle = await probe.client.start_workflow(
        "probe", {"job": {"tenant": "acme"}}, id=f"probe:{uuid.uuid4()}", task_queue=probe.queue
    )
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(handle.result(), 20)
    cause = raised.value.cause
    assert isinstance(cause, ApplicationError)
    assert "job_id" in str(cause.details)
    assert "script" in str(cause.details)
