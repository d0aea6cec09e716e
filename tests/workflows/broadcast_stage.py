"""A broadcast on a real store with scripted channels and skipped time."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.broadcast import BroadcastActivities
from activities.broadcast_chunk import ChunkPlanner, job_id_of
from activities.bulk_delivery import BulkDelivery
from activities.notification import SEND
from activities.templates import Templates
from contracts.catalogue import BROADCAST
from contracts.payloads.broadcast import BroadcastRequest, BroadcastResult, Cursor
from contracts.payloads.job import JobRef, JobState
from contracts.payloads.notification import ChannelName, Route
from runtime.settings import BUILT_IN_TEMPLATES
from store.broadcasts import Broadcast, Broadcasts
from store.effects import EffectKey
from store.jobs import Job, NewJob
from store.people import NewTarget
from store.recipients import Recipient, Recipients
from tests.workflows.notification_stage import NotificationStage, ScriptedChannel, _Times, notification_stage
from workflows.broadcast import BroadcastWorkflow, workflow_id
from workflows.notification import NotificationWorkflow

Handle = WorkflowHandle[BroadcastWorkflow, BroadcastResult]
BATCH = 200  # rows a transaction


def effect_of(new: Broadcast, recipient: Recipient) -> EffectKey:
    """That of an address, in the ledger."""
    assert recipient.target_id is not None
    return EffectKey(str(job_id_of(new, recipient)), recipient.target_id)


@dataclass
class BroadcastStage:
    """Broadcasts of the tenant acme."""

    on: NotificationStage
    broadcasts: Broadcasts
    recipients: Recipients
    delivery: BulkDelivery
    queue: str

    @property
    def fcm(self) -> ScriptedChannel:
        return self.on.channels[ChannelName.FCM]

    async def phones(self, number: int) -> list[Recipient]:
        """Recipients with an address each, `phone-1` and so on."""
        made = []
        for start in range(0, number, BATCH):
            names = [f"phone-{each + 1}" for each in range(start, min(number, start + BATCH))]
            async with self.on.database.write() as connection:
                ids = await self.on.people.register_many(
                    connection, "acme", [NewTarget(ChannelName.FCM, each) for each in names]
                )
            made += [Recipient(start + at + 1, target_id=each) for at, each in enumerate(ids)]
        return made

    async def store(
        self,
        people: Sequence[Recipient],
        *,
        routes: tuple[Route, ...] = (Route.FCM,),
        lives: timedelta = timedelta(hours=24),
    ) -> Broadcast:
        now = datetime.now(UTC)
        set_id = str(uuid.uuid4())
        async with self.on.database.write() as connection:
            await self.recipients.begin(connection, "acme", set_id)
        for start in range(0, len(people), BATCH):
            async with self.on.database.write() as connection:
                assert await self.recipients.add(connection, set_id, people[start : start + BATCH]) == []
        new = Broadcast(
            broadcast_id=uuid.uuid4(),
            tenant="acme",
            set_id=set_id,
            total=len(people),
            category="news",
            routes=routes,
            created_at=now,
            expires_at=now + lives,
            content={"subject": "To all", "text": "Something new."},
        )
        async with self.on.database.write() as connection:
            await self.recipients.complete(connection, set_id, len(people), {})
            await self.broadcasts.add(connection, new)
            job = NewJob(new.broadcast_id, "acme", BROADCAST.name, workflow_id("acme", new.broadcast_id))
            await self.on.jobs.submit(connection, job)
        return new

    async def start(self, new: Broadcast, cursor: Cursor | None = None) -> Handle:
        return await self.on.client.start_workflow(
            BroadcastWorkflow.run,
            BroadcastRequest(
                job=JobRef(job_id=new.broadcast_id, tenant="acme"),
                total=new.total,
                expires_at=new.expires_at,
                cursor=cursor or Cursor(),
            ),
            id=workflow_id("acme", new.broadcast_id),
            task_queue=self.queue,
        )

    async def counts(self, new: Broadcast) -> dict[str, int]:
        return dict((await self.broadcasts.reached(new.broadcast_id, since=new.created_at)).counts)

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not seen():
                await asyncio.sleep(0.02)

    async def paused(self, new: Broadcast) -> str | None:
        """The note of a pause that there is."""
        found = await self.broadcasts.get("acme", new.broadcast_id)
        assert found is not None
        return found.paused

    async def until_paused(self, new: Broadcast) -> str:
        async with asyncio.timeout(30):
            while (why := await self.paused(new)) is None:
                await asyncio.sleep(0.02)
        return why

    def parked(self) -> dict[uuid.UUID, str | None]:
        """The cause of each job that was parked at any time: that ends in skipped time, after a week of nobody."""
        return {each.job.job_id: each.cause for each in self.on.records if each.state is JobState.PARKED}

    async def jobs(self) -> Counter[str]:
        """How many of each type there are."""
        found: Counter[str] = Counter()
        cursor = None
        while True:
            page, cursor = await self.on.jobs.list("acme", after=cursor)
            found.update(each.type for each in page)
            if cursor is None:
                return found

    async def ledger(self, new: Broadcast, people: Sequence[Recipient]) -> Counter[str]:
        """How many effects of these recipients are in which state."""
        keys = {effect_of(new, each) for each in people}
        found = await self.on.effects.find_between(SEND, "", "~")
        return Counter(each.status.value for key, each in found.items() if key in keys)

    async def job_until(self, job_id: uuid.UUID, state: JobState) -> Job:
        async with asyncio.timeout(30):
            while True:
                job = await self.on.jobs.get("acme", job_id)
                if job is not None and job.state is state:
                    return job
                await asyncio.sleep(0.02)


@asynccontextmanager
async def broadcast_stage(client: Client, folder: Path) -> AsyncIterator[BroadcastStage]:
    async with notification_stage(client, folder) as on:
        broadcasts, recipients = Broadcasts(on.database, on.clock), Recipients(on.database, on.clock)
        delivery = BulkDelivery(
            step=SEND,
            channels=on.channels,
            effects=on.effects,
            budgets=on.budgets,
            suppressions=on.suppressions,
            people=on.people,
            clock=on.clock,
        )
        activities = BroadcastActivities(
            database=on.database,
            broadcasts=broadcasts,
            recipients=recipients,
            jobs=on.jobs,
            notifications=on.notifications,
            people=on.people,
            planner=ChunkPlanner(
                people=on.people,
                suppressions=on.suppressions,
                templates=Templates(BUILT_IN_TEMPLATES),
                unsubscribing=on.unsubscribing,
                configured=frozenset(ChannelName),
            ),
            delivery=delivery,
            clock=on.clock,
        )
        async with Worker(
            client,
            task_queue=BROADCAST.queue,  # where a broadcast starts the jobs it hands over
            workflows=[BroadcastWorkflow, NotificationWorkflow],
            activities=[*on.all, activities.plan, activities.send_chunk, activities.hand_over, activities.note],
            interceptors=[_Times()],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            yield BroadcastStage(on, broadcasts, recipients, delivery, BROADCAST.queue)
