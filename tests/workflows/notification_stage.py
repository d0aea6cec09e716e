"""The notification job's real activities on a real store, with channels that answer as a script says.

Time is that of the workflow's server, which skips; channels never touch the network.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import (
    Interceptor,
    StartLocalActivityInput,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, Verdict
from activities.delivery import Delivery
from activities.notification import NotificationActivities
from activities.templates import Templates
from activities.unsubscribe import Unsubscribing
from contracts.payloads.job import JobRecorded, JobRef, ParkedStep, RecordJob
from contracts.payloads.notification import (
    ChannelName,
    NotificationRequest,
    NotificationResult,
    Route,
    notification_workflow_id,
)
from runtime.settings import BUILT_IN_TEMPLATES
from store.blobs import Blobs
from store.budgets import Budgets
from store.database import Database
from store.effects import Effects
from store.jobs import Jobs, NewJob
from store.migrate import migrate
from store.notifications import Notification, Notifications
from store.people import NewTarget, People, Person, Preference, StoredTarget
from store.suppressions import Suppressions
from workflows.notification import NotificationWorkflow

SENT = Outcome(Verdict.SENT, "250", vendor_id="v-1")
Handle = WorkflowHandle[NotificationWorkflow, NotificationResult]


class ServerClock:
    """The running activity's own time, on the workflow's clock; outside of one, the time that was set.

    A local activity's own stamps are this machine's, which does not skip.
    """

    def __init__(self, now: datetime) -> None:
        self.set = now

    def now(self) -> datetime:
        if not activity.in_activity():
            return self.set
        info = activity.info()
        if info.is_local:
            return SCHEDULED_AT[info.workflow_id or ""]
        return info.current_attempt_scheduled_time


SCHEDULED_AT: dict[str, datetime] = {}


class _Outbound(WorkflowOutboundInterceptor):
    def start_local_activity(self, input: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002 - the SDK's
        SCHEDULED_AT[workflow.info().workflow_id] = workflow.now()
        return super().start_local_activity(input)


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))


class _Times(Interceptor):
    """Remembers the workflow's time at which each local activity was scheduled."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002 - the SDK's
        return _Inbound


@dataclass
class ScriptedChannel:
    """Answers in order; the last answer repeats. An answer may be an exception."""

    name: ChannelName
    script: list[Outcome | BaseException] = field(default_factory=lambda: [SENT])
    after_lost_reply: AfterLostReply = AfterLostReply.RESEND
    scope: str | None = None
    interval: timedelta | None = None
    found: Outcome | None = None
    during: Callable[[datetime], Outcome] | None = None
    sent: list[tuple[datetime, Target, Message]] = field(default_factory=list)
    by_address: dict[str, list[Outcome | BaseException]] = field(default_factory=dict)

    def scopes(self, target: Target) -> tuple[Scope, ...]:
        return (Scope(self.scope or self.name.value, self.name.value, interval=self.interval),)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        script = self.by_address.get(target.address, self.script)
        self.sent.append((now, target, message))
        if self.during is not None:
            return self.during(now)
        answer = script[0] if len(script) == 1 else script.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def find(self, target: Target, message: Message, *, since: datetime) -> Outcome | None:
        return self.found

    async def close(self) -> None:
        pass

    @property
    def addresses(self) -> list[str]:
        return [target.address for _, target, _ in self.sent]


@dataclass
class Hold:
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


async def until_parked(handle: Handle) -> list[ParkedStep]:
    async with asyncio.timeout(60):
        while True:
            found: list[ParkedStep] = await handle.query("parked", result_type=list[ParkedStep])
            if found:
                return found
            await asyncio.sleep(0.05)


@dataclass
class NotificationStage:
    """A store with people in it, and a worker."""

    client: Client
    database: Database
    clock: ServerClock
    jobs: Jobs
    people: People
    notifications: Notifications
    suppressions: Suppressions
    effects: Effects
    budgets: Budgets
    blobs: Blobs
    unsubscribing: Unsubscribing
    channels: dict[ChannelName, ScriptedChannel]
    queue: str
    activities: NotificationActivities
    records: list[RecordJob] = field(default_factory=list)
    targets: dict[str, list[StoredTarget]] = field(default_factory=lambda: defaultdict(list))

    async def person(
        self,
        name: str = "ada",
        *,
        reachable: Sequence[tuple[ChannelName, str]] = ((ChannelName.EMAIL, "ada@example.com"),),
        quiet: tuple[str, str] | None = None,
        zone: str | None = None,
        wishes: Sequence[Preference] = (),
    ) -> None:
        person = Person("acme", name, zone=zone)
        if quiet:
            person = replace(person, quiet_start=quiet[0], quiet_end=quiet[1])
        await self.people.put(person, [NewTarget(channel, address) for channel, address in reachable], wishes)
        self.targets[name] = await self.people.targets("acme", name)

    async def submit(
        self,
        person: str = "ada",
        *,
        routes: Sequence[Route] = (Route.EMAIL,),
        lives: timedelta = timedelta(hours=24),
        subject: str = "Hello",
        **more: Any,
    ) -> Handle:
        return await self.start(await self._store(person, routes, lives, subject, more))

    async def start(self, notification_id: uuid.UUID) -> Handle:
        stored = await self.notifications.get("acme", notification_id)
        assert stored is not None
        return await self.client.start_workflow(
            NotificationWorkflow.run,
            NotificationRequest(job=JobRef(job_id=notification_id, tenant="acme"), expires_at=stored.expires_at),
            id=notification_workflow_id("acme", notification_id),
            task_queue=self.queue,
        )

    async def waiting(self, until: datetime, *, subject: str, person: str = "ada", **more: Any) -> uuid.UUID:
        """A message that waits for the end of quiet hours, as its first `decide` leaves it."""
        made = await self._store(person, (Route.EMAIL,), more.pop("lives", timedelta(hours=24)), subject, more)
        await self.notifications.defer(made, until)
        return made

    async def _store(
        self, person: str, routes: Sequence[Route], lives: timedelta, subject: str, more: dict[str, Any]
    ) -> uuid.UUID:
        now = datetime.now(UTC)
        new = Notification(
            notification_id=uuid.uuid4(),
            tenant="acme",
            category=more.pop("category", "news"),
            routes=tuple(routes),
            created_at=now,
            expires_at=now + lives,
            person=person,
            content=more.pop("content", {"subject": subject, "text": f"{subject}, said at length."}),
            **more,
        )
        job = NewJob(
            new.notification_id, "acme", "notification", notification_workflow_id("acme", new.notification_id), person
        )
        async with self.database.write() as connection:
            await self.notifications.add(connection, new)
            await self.jobs.submit(connection, job)
        return new.notification_id

    async def submit_deferred(self, until: datetime, *, subject: str, **more: Any) -> Handle:
        """Start one whose quiet hours ended at `until`."""
        return await self.start(await self.waiting(until, subject=subject, **more))

    def hold_after_defer(self) -> "Hold":
        """Stop the clock when a message begins to wait: time does not skip while an activity runs."""
        hold = Hold()
        defer = self.notifications.defer

        async def held(notification_id: uuid.UUID, until: datetime) -> None:
            await defer(notification_id, until)
            hold.reached.set()
            await hold.go.wait()

        self.notifications.defer = held  # type: ignore[method-assign]
        return hold

    def messages(self, channel: ChannelName = ChannelName.EMAIL) -> list[Message]:
        return [message for _, _, message in self.channels[channel].sent]

    @activity.defn(name="job.record")
    async def record(self, order: RecordJob) -> JobRecorded:
        self.records.append(order)
        return JobRecorded(changed=await self.jobs.record(order))

    @property
    def all(self) -> list[Any]:
        return [self.record, self.activities.decide, self.activities.claim_deferred, self.activities.send]


@asynccontextmanager
async def notification_stage(client: Client, folder: Path) -> AsyncIterator[NotificationStage]:
    database = Database.open(f"sqlite:///{folder}/store.db")
    await migrate(database)
    clock = ServerClock(datetime.now(UTC))
    people, notifications = People(database, clock), Notifications(database, clock)
    suppressions, effects, budgets = (
        Suppressions(database, clock),
        Effects(database, clock),
        Budgets(database, clock),
    )
    channels = {name: ScriptedChannel(name) for name in ChannelName}
    jobs = Jobs(database, clock)
    delivery = Delivery(
        channels=channels, effects=effects, budgets=budgets, suppressions=suppressions, people=people, clock=clock
    )
    blobs = Blobs.open(str(folder / "blobs"))
    unsubscribing = Unsubscribing("key", "https://acme.example")
    activities = NotificationActivities(
        notifications=notifications,
        jobs=jobs,
        people=people,
        suppressions=suppressions,
        delivery=delivery,
        templates=Templates(BUILT_IN_TEMPLATES),
        unsubscribing=unsubscribing,
        blobs=blobs,
        clock=clock,
    )
    stage = NotificationStage(
        client=client,
        database=database,
        clock=clock,
        jobs=jobs,
        people=people,
        notifications=notifications,
        suppressions=suppressions,
        effects=effects,
        budgets=budgets,
        blobs=blobs,
        unsubscribing=unsubscribing,
        channels=channels,
        queue=f"notifications-{uuid.uuid4()}",
        activities=activities,
    )
    async with Worker(
        client,
        task_queue=stage.queue,
        workflows=[NotificationWorkflow],
        activities=stage.all,
        interceptors=[_Times()],
        workflow_runner=UnsandboxedWorkflowRunner(),  # so that it shares SCHEDULED_AT with the activities
    ):
        yield stage
    await database.close()
