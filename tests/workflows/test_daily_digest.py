"""The daily digest on a real store, with the real broadcast job: who hears what, when, and that it is once."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.adapters.channels.channel import Message
from activities.broadcast import BroadcastActivities
from activities.broadcast_chunk import ChunkPlanner
from activities.bulk_delivery import BulkDelivery
from activities.daily_digest import SETTLED, DailyDigestActivities
from activities.digest_due import instant
from activities.job import JobActivities
from activities.notification import SEND
from activities.scheduled import ScheduledActivities
from activities.templates import Templates
from activities.unsubscribe import Unsubscribing
from contracts.payloads.broadcast import BroadcastResult
from contracts.payloads.daily_digest import (
    CollectDigest,
    DailyDigestRequest,
    DailyDigestResult,
    DigestCollected,
    DueTenant,
    PickTenants,
    broadcast_id_of,
)
from contracts.payloads.job import JobRef, JobState
from contracts.payloads.notification import ChannelName
from contracts.payloads.scheduled import OF_NO_TENANT
from runtime.settings import BUILT_IN_TEMPLATES
from store.broadcasts import Broadcasts
from store.budgets import Budgets
from store.database import Database
from store.digests import Digests, DigestSettings
from store.effects import Effects
from store.events import Event, Events
from store.jobs import Job, Jobs
from store.migrate import migrate
from store.notifications import Notifications
from store.people import NewTarget, People, Person, Preference
from store.recipients import Recipients
from store.suppressions import Suppressions
from tests.workflows.notification_stage import ScriptedChannel, ServerClock, _Times
from workflows.broadcast import BroadcastWorkflow, workflow_id
from workflows.daily_digest import DailyDigestWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="session")
EMAIL = ChannelName.EMAIL
NEW_YORK = ZoneInfo("America/New_York")
ZONES = {
    "howe": "Australia/Lord_Howe",
    "india": "Asia/Kolkata",
    "lisbon": "Europe/Lisbon",
    "paulo": "America/Sao_Paulo",
    "york": "America/New_York",
}
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def change_day(*, spring: bool) -> date:
    """The next day, from a week on, on which New York's clocks change."""
    day = datetime.now(UTC).date() + 7 * DAY
    while True:
        before, after = (datetime.combine(each, time(12), NEW_YORK).utcoffset() for each in (day - DAY, day))
        assert before is not None
        assert after is not None
        if (after > before) if spring else (after < before):
            return day
        day += DAY


def eight(day: date, zone: str = "America/New_York") -> datetime:
    return instant(day, time(8), ZoneInfo(zone))


@dataclass
class DigestStage:
    """A store, a worker, and runs of the job at any time that is still to come."""

    client: Client
    database: Database
    clock: ServerClock
    events: Events
    digests: Digests
    people: People
    recipients: Recipients
    jobs: Jobs
    mail: ScriptedChannel
    activities: DailyDigestActivities
    queue: str

    async def person(self, tenant: str, name: str = "ada", wishes: Sequence[Preference] = ()) -> None:
        await self.people.put(Person(tenant, name), [NewTarget(EMAIL, f"{name}@{tenant}.example")], wishes)

    async def event(self, tenant: str, title: str, at: datetime, person: str = "ada", text: str = "") -> None:
        self.clock.set = at
        url = f"https://app.example.com/{title}"
        await self.events.add(tenant, [Event(str(uuid.uuid4()), person, "comment_added", title, text, url)])

    async def run(self, at: datetime) -> DailyDigestResult:
        """A run that begins then, and what it began to the end."""
        self.clock.set = at
        handle = await self.client.start_workflow(
            DailyDigestWorkflow.run,
            DailyDigestRequest(),
            id=f"daily-digest-{at:%Y-%m-%dT%H:%M:%SZ}-{uuid.uuid4()}",
            task_queue=self.queue,
            start_delay=at - datetime.now(UTC),
        )
        return await handle.result()

    async def sent_to_the_end(self, tenant: str, day: date) -> BroadcastResult:
        """The outcome of that day's broadcast."""
        handle = self.client.get_workflow_handle_for(
            BroadcastWorkflow.run, workflow_id(tenant, broadcast_id_of(tenant, day))
        )
        return await handle.result()

    async def set_of(self, tenant: str, day: date) -> str:
        """The set of recipients of that day's broadcast."""
        stored = await Broadcasts(self.database, self.clock).get(tenant, broadcast_id_of(tenant, day))
        assert stored is not None
        return stored.set_id

    def mails(self, since: int = 0) -> list[tuple[str, Message]]:
        return [(target.address, message) for _, target, message in self.mail.sent[since:]]

    async def jobs_of(self, tenant: str) -> list[Job]:
        return (await self.jobs.list(tenant))[0][::-1]


@pytest_asyncio.fixture(loop_scope="session")
async def stage(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DigestStage]:
    # A store of its own, but one server for all tests: their broadcasts must have other ids.
    monkeypatch.setattr("contracts.payloads.daily_digest.DIGESTS", uuid.uuid4())
    async with digest_stage(client, tmp_path) as made:
        yield made


@asynccontextmanager
async def digest_stage(client: Client, folder: Path) -> AsyncIterator[DigestStage]:
    database = Database.open(f"sqlite:///{folder}/store.db")
    await migrate(database)
    clock = ServerClock(datetime.now(UTC))
    jobs, people = Jobs(database, clock), People(database, clock)
    recipients, broadcasts = Recipients(database, clock), Broadcasts(database, clock)
    events, digests = Events(database, clock), Digests(database, clock)
    suppressions, templates = Suppressions(database, clock), Templates(BUILT_IN_TEMPLATES)
    mail = ScriptedChannel(EMAIL)
    sending = BroadcastActivities(
        database=database,
        broadcasts=broadcasts,
        recipients=recipients,
        jobs=jobs,
        notifications=Notifications(database, clock),
        people=people,
        planner=ChunkPlanner(
            people=people,
            suppressions=suppressions,
            templates=templates,
            unsubscribing=Unsubscribing("key", "https://acme.example"),
            configured=frozenset({EMAIL}),
        ),
        delivery=BulkDelivery(
            step=SEND,
            channels={EMAIL: mail},
            effects=Effects(database, clock),
            budgets=Budgets(database, clock),
            suppressions=suppressions,
            people=people,
            clock=clock,
        ),
        clock=clock,
    )
    collecting = DailyDigestActivities(
        database=database,
        events=events,
        digests=digests,
        recipients=recipients,
        broadcasts=broadcasts,
        jobs=jobs,
        templates=templates,
        clock=clock,
    )
    made = DigestStage(
        client=client,
        database=database,
        clock=clock,
        events=events,
        digests=digests,
        people=people,
        recipients=recipients,
        jobs=jobs,
        mail=mail,
        activities=collecting,
        queue=f"digests-{uuid.uuid4()}",
    )
    activities: list[Any] = [
        JobActivities(jobs=jobs).record,
        ScheduledActivities(database=database, jobs=jobs).begin,
        *(collecting.pick_tenants, collecting.collect, collecting.note_started),
        *(sending.plan, sending.send_chunk, sending.hand_over, sending.note),
    ]
    async with Worker(
        client,
        task_queue=made.queue,
        workflows=[BroadcastWorkflow, DailyDigestWorkflow],
        activities=activities,
        interceptors=[_Times()],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        yield made
    await database.close()


@pytest.mark.parametrize("spring", [True, False], ids=["spring", "autumn"])
async def test_in_each_zone_each_day_once_at_eight_with_what_came_until_then(stage: DigestStage, spring: bool) -> None:
    day = change_day(spring=spring)
    due = {tenant: eight(day, zone) for tenant, zone in ZONES.items()}
    for tenant, zone in ZONES.items():
        await stage.person(tenant)
        await stage.digests.set(tenant, DigestSettings(zone=zone))
        await stage.event(tenant, "First", due[tenant] - 3 * HOUR)
        await stage.event(tenant, "Last", due[tenant])
        await stage.event(tenant, "Late", due[tenant] + timedelta(microseconds=1))
    for tenant, at in sorted(due.items(), key=lambda item: item[1]):
        before = len(stage.mail.sent)
        assert await stage.run(at) == DailyDigestResult(tenants=1, people=1)
        assert (await stage.sent_to_the_end(tenant, day)).counts == {"sent": 1}
        ((address, message),) = stage.mails(before)
        assert (address, message.content.subject) == (f"ada@{tenant}.example", f"2 updates on {day}")
        assert message.content.text == (
            f"Your daily digest of {day}:\n\n"
            "- Last\n  https://app.example.com/Last\n\n"
            "- First\n  https://app.example.com/First\n"
        )
        assert message.expires_at == eight(day + DAY, ZONES[tenant])
        assert SETTLED <= stage.mail.sent[-1][0] - at < MINUTE
    assert await stage.run(max(due.values()) + 15 * MINUTE) == DailyDigestResult(tenants=0, people=0)
    for at in sorted({eight(day + DAY, ZONES["howe"]), eight(day + DAY)}):
        await stage.run(at)  # the second is within twelve hours of the others'
    for tenant in ZONES:
        assert (await stage.sent_to_the_end(tenant, day + DAY)).counts == {"sent": 1}
    assert sorted((address, message.content.subject) for address, message in stage.mails(5)) == [
        (f"ada@{tenant}.example", f"1 update on {day + DAY}") for tenant in ZONES
    ]
    assert all("- Late\n" in message.content.text for _, message in stage.mails(5))


async def test_who_wants_it_hears_the_newest_fifty_and_the_others_nothing(stage: DigestStage) -> None:
    day = change_day(spring=True)
    for name, wishes in (
        ("ada", []),
        ("muted", [Preference("digest", "*", allowed=False)]),
        ("silent", []),
        ("old", []),
    ):
        await stage.person("york", name, wishes)
    await stage.person("off")
    await stage.digests.set("off", DigestSettings(enabled=False))
    await stage.event("york", "Ancient", eight(day) - 7 * DAY, "old")
    for number in range(52):
        await stage.event("york", f"T{number}", eight(day) - HOUR + number * MINUTE, text="x" * 600)
    for tenant, name in (("york", "muted"), ("york", "unknown"), ("off", "ada")):
        await stage.event(tenant, "Once", eight(day) - HOUR, name)
    assert await stage.run(eight(day)) == DailyDigestResult(tenants=1, people=3)
    assert (await stage.sent_to_the_end("york", day)).counts == {"sent": 1, "muted": 1, "undeliverable": 1}
    lines = await stage.recipients.between(await stage.set_of("york", day), 0, 99)
    assert [(each.line, each.person) for each in lines] == [(1, "ada"), (2, "muted"), (3, "unknown")]
    data: Any = lines[0].data
    assert (data["count"], data["day"], len(data["items"])) == (52, str(day), 50)
    assert [item["title"] for item in data["items"]] == [f"T{number}" for number in range(51, 1, -1)]
    assert data["items"][0] == {
        "title": "T51",
        "text": "x" * 499 + "…",
        "url": "https://app.example.com/T51",
        "kind": "comment_added",
    }
    ((address, message),) = stage.mails()
    assert (address, message.content.subject) == ("ada@york.example", f"52 updates on {day}")
    assert message.content.text.endswith("\nand 2 more\n")
    assert [each.type for each in await stage.jobs_of("york")] == ["broadcast"]
    assert await stage.jobs_of("off") == []


async def test_a_tenant_that_fails_stops_no_other_and_the_next_run_tries_again(
    stage: DigestStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PAGE", "LOOKED_AT"):
        monkeypatch.setattr(f"activities.daily_digest.{name}", 2)
    # Once only: a second time, the server adds all the time that it has skipped so far to its clock.
    suggested = lambda info: info.workflow_type == "daily_digest" and info.continued_run_id is None  # noqa: E731
    monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", suggested)
    day = change_day(spring=False)
    tenants = ["a", "b", "c", "d", "e"]
    for tenant in tenants:
        await stage.person(tenant)
        await stage.event(tenant, "Once", eight(day) - HOUR)
    heard, tries = stage.events.heard, 0

    async def broken(tenant: str, *args: Any, **more: Any) -> Any:
        nonlocal tries
        if tenant == "b":
            tries += 1
            raise ApplicationError("no such column", type="broken")
        return await heard(tenant, *args, **more)

    monkeypatch.setattr(stage.events, "heard", broken)
    with pytest.raises(WorkflowFailureError) as failed:
        await stage.run(eight(day))
    assert isinstance(failed.value.cause, ApplicationError)
    words = f"1 of 5 tenants failed, and the next run tries them again: b: collect b {day}: no such column"
    assert (failed.value.cause.message, failed.value.cause.type, tries) == (words, "broken", 3)
    for tenant in ("a", "c", "d", "e"):
        assert (await stage.sent_to_the_end(tenant, day)).counts == {"sent": 1}
    (row,) = await stage.jobs_of(OF_NO_TENANT)
    assert (row.type, row.state, row.cause, row.error) == ("daily_digest", JobState.FAILED, "broken", words)
    assert row.result == {"tenants": 4, "people": 4, "failed": 1}
    monkeypatch.setattr(stage.events, "heard", heard)
    assert await stage.run(eight(day) + 15 * MINUTE) == DailyDigestResult(tenants=1, people=1)
    await stage.sent_to_the_end("b", day)
    assert sorted(address for address, _ in stage.mails()) == [f"ada@{tenant}.example" for tenant in tenants]
    assert [row.state for row in await stage.jobs_of(OF_NO_TENANT)] == [JobState.FAILED, JobState.DONE]


async def test_a_collect_that_dies_halfway_and_again_at_its_end_is_gone_on_with(
    stage: DigestStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = change_day(spring=True)
    names = [f"p{number:03}" for number in range(250)]
    stage.clock.set = eight(day) - HOUR
    for name in names:
        await stage.person("york", name)
    await stage.events.add("york", [Event(name, name, "k", f"For {name}") for name in names])
    heard, finish, calls = stage.events.heard, stage.activities._finish, [0, 0]

    async def dies_at_the_second_page(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise ConnectionError("gone")
        return await heard(*args, **more)

    async def dies_after_the_commit(order: CollectDigest) -> int:
        calls[1] += 1
        await finish(order)
        raise ConnectionError("gone")

    monkeypatch.setattr(stage.events, "heard", dies_at_the_second_page)
    monkeypatch.setattr(stage.activities, "_finish", dies_after_the_commit)
    assert await stage.run(eight(day)) == DailyDigestResult(tenants=1, people=250)
    assert calls == [4, 1]  # pages of 200, none, 50 and 0
    assert (await stage.sent_to_the_end("york", day)).counts == {"sent": 250}
    told = [(address, message.content.text.splitlines()[2]) for address, message in stage.mails()]
    assert sorted(told) == [(f"{name}@york.example", f"- For {name}") for name in names]


async def test_a_day_that_was_begun_and_then_ends_at_another_time_is_begun_anew(
    stage: DigestStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = change_day(spring=True)
    names = [f"p{number:03}" for number in range(250)]
    stage.clock.set = eight(day) - HOUR
    await stage.events.add("york", [Event(name, name, "k", "Early") for name in names])
    heard, pages = stage.events.heard, 0

    async def dies_at_the_second_page(*args: Any, **more: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise ConnectionError("gone")
        return await heard(*args, **more)

    monkeypatch.setattr(stage.events, "heard", dies_at_the_second_page)
    worker, broadcast_id = ActivityEnvironment(), broadcast_id_of("york", day)

    async def collect(until: datetime) -> object:
        worker.info = replace(worker.info, current_attempt_scheduled_time=until + SETTLED)
        due = DueTenant(tenant="york", day=day, until=until, next_at=until + DAY)
        job = JobRef(job_id=uuid.uuid4(), tenant=OF_NO_TENANT)
        order = CollectDigest(job=job, due=due, broadcast_id=broadcast_id, workflow_id="w")
        return await worker.run(stage.activities.collect, order)

    with pytest.raises(ConnectionError):
        await collect(eight(day))
    await stage.event("york", "Between", eight(day) + HOUR / 2, "p007")
    assert await collect(eight(day) + HOUR) == DigestCollected(people=250)  # the tenant now wishes it at nine
    lines = await stage.recipients.between(await stage.set_of("york", day), 1, 300)
    assert [each.person for each in lines] == names
    told: Any = lines[7].data
    assert [item["title"] for item in told["items"]] == ["Between", "Early"]


async def test_a_run_that_stops_before_it_starts_the_broadcast_leaves_it_to_the_next(stage: DigestStage) -> None:
    day = change_day(spring=True)
    await stage.person("york")
    await stage.event("york", "Once", eight(day) - HOUR)
    stopped = ActivityEnvironment()
    stopped.info = replace(stopped.info, current_attempt_scheduled_time=eight(day) + SETTLED)
    job = JobRef(job_id=uuid.uuid4(), tenant=OF_NO_TENANT)
    picked = await stopped.run(stage.activities.pick_tenants, PickTenants(job=job))
    assert picked.due == (DueTenant(tenant="york", day=day, until=eight(day), next_at=eight(day + DAY)),)
    broadcast_id = broadcast_id_of("york", day)
    order = CollectDigest(
        job=job, due=picked.due[0], broadcast_id=broadcast_id, workflow_id=workflow_id("york", broadcast_id)
    )
    assert await stopped.run(stage.activities.collect, order) == DigestCollected(people=1)
    assert await stopped.run(stage.activities.collect, order) == DigestCollected(people=1)
    (row,) = await stage.jobs_of("york")
    assert (row.job_id, row.state) == (broadcast_id, JobState.SUBMITTED)
    assert await stage.run(eight(day) + 15 * MINUTE) == DailyDigestResult(tenants=1, people=1)
    assert (await stage.sent_to_the_end("york", day)).counts == {"sent": 1}
    assert await stage.run(eight(day) + 30 * MINUTE) == DailyDigestResult(tenants=0, people=0)
    assert [address for address, _ in stage.mails()] == ["ada@york.example"]
    assert [each.state for each in await stage.jobs_of("york")] == [JobState.DONE]
