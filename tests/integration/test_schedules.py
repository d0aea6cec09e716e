"""The schedules on a real server: applied once, changed when they change, and an operator's pause stays."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from temporalio.client import Client, ScheduleOverlapPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.daily_digest import DailyDigestActivities
from activities.job import JobActivities
from activities.scheduled import ScheduledActivities
from activities.templates import Templates
from contracts.catalogue import DAILY_DIGEST
from contracts.payloads.job import JobState
from contracts.payloads.scheduled import OF_NO_TENANT
from runtime.clock import SystemClock
from runtime.converter import data_converter
from runtime.ports import free_port
from runtime.server import EmbeddedServer, ServerOptions
from runtime.settings import BUILT_IN_TEMPLATES, Settings
from starter.bootstrap import bootstrap
from starter.schedules import SCHEDULES, apply
from store.broadcasts import Broadcasts
from store.database import Database
from store.digests import Digests
from store.events import Events
from store.jobs import Job, Jobs
from store.recipients import Recipients
from workflows.daily_digest import DailyDigestWorkflow


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with EmbeddedServer(ServerOptions(tmp_path, free_port(), free_port())) as server:
        yield await Client.connect(server.address, data_converter=data_converter())


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/store.db")
    yield opened
    await opened.close()


async def until_one_is_done(jobs: Jobs) -> Job:
    async with asyncio.timeout(30):
        while True:
            found, _ = await jobs.list(OF_NO_TENANT, state=JobState.DONE)
            if found:
                return found[0]
            await asyncio.sleep(0.1)


async def test_a_schedule_is_made_once_changed_when_it_changed_and_stays_paused(
    client: Client, database: Database, tmp_path: Path
) -> None:
    done = await bootstrap(client, database, Settings(data_dir=tmp_path))
    assert done.schedules == ["daily-digest made", "sync-all made"]
    assert done.lines()[-1] == "schedules: daily-digest made, sync-all made"
    assert await apply(client) == []
    handle = client.get_schedule_handle("daily-digest")
    await handle.pause(note="the relay moves")
    assert await apply(client) == []
    assert await apply(client, (replace(SCHEDULES[0], catch_up=timedelta(hours=3)),)) == ["daily-digest changed"]
    found = (await handle.describe()).schedule
    assert (found.policy.catchup_window, found.policy.overlap) == (timedelta(hours=3), ScheduleOverlapPolicy.SKIP)
    assert (found.state.paused, found.state.note) == (True, "the relay moves")
    assert await apply(client) == ["daily-digest changed"]
    described = await handle.describe()
    assert described.schedule.policy.catchup_window == timedelta(hours=12)
    assert {each.minute % 15 for each in described.info.next_action_times} == {0}


async def test_a_scheduled_run_is_a_job_that_can_be_seen(client: Client, database: Database, tmp_path: Path) -> None:
    await bootstrap(client, database, Settings(data_dir=tmp_path))
    clock = SystemClock()
    jobs = Jobs(database, clock)
    digest = DailyDigestActivities(
        database=database,
        events=Events(database, clock),
        digests=Digests(database, clock),
        recipients=Recipients(database, clock),
        broadcasts=Broadcasts(database, clock),
        jobs=jobs,
        templates=Templates(BUILT_IN_TEMPLATES),
        clock=clock,
    )
    begin = ScheduledActivities(database=database, jobs=jobs).begin
    async with Worker(
        client,
        task_queue=DAILY_DIGEST.queue,
        workflows=[DailyDigestWorkflow],
        activities=[JobActivities(jobs=jobs).record, begin, digest.pick_tenants, digest.collect, digest.note_started],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        await client.get_schedule_handle("daily-digest").trigger()
        job = await until_one_is_done(jobs)
    assert job.type == "daily_digest"
    assert job.workflow_id.startswith(f"daily-digest-{datetime.now(UTC):%Y-%m-}")
    assert (job.job_id, job.job_id.version) == (UUID(job.first_run_id), 7)
    assert job.result == {"tenants": 0, "people": 0, "failed": 0}
    seen = await client.count_workflows(f"JobType = 'daily_digest' AND Tenant = '{OF_NO_TENANT}'")
    assert seen.count == 1
