"""The broadcast job's steps.

Sending a chunk again is safe: the ledger knows what is done. Handing over again is too: a recipient's job has one id.
"""

import asyncio
import time
from collections import Counter
from datetime import datetime, timedelta

import structlog
from temporalio import activity
from temporalio.client import Client
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.broadcast_chunk import Chunk, ChunkPlanner, best, notification_of
from activities.bulk_delivery import BulkDelivery, Tally
from activities.heartbeat import heartbeating
from contracts.catalogue import BROADCAST, NOTIFICATION
from contracts.errors import FailureKind, failure
from contracts.payloads.broadcast import (
    HANDED_OVER,
    ChunkSent,
    ChunksPlanned,
    HandedOver,
    HandOver,
    NotePause,
    PauseNoted,
    PlanChunks,
    SendChunk,
)
from contracts.payloads.job import JobRef
from contracts.payloads.notification import NotificationRequest, TargetOutcome, notification_workflow_id
from contracts.search_attributes import JOB_TYPE, TENANT
from runtime.clock import Clock
from store.broadcasts import Broadcast, Broadcasts
from store.database import Database, DatabaseUnavailable
from store.jobs import Jobs, NewJob
from store.notifications import Notification, Notifications
from store.people import People
from store.recipients import Recipients

log = structlog.get_logger(__name__)

CHUNK = 500  # recipients: a quarter of a second of pushes, some kilobytes of history
LONGEST_SECONDS = 10.0  # of one execution, so that a pause or a deploy does not wait for a slow vendor
STORE_AWAY = timedelta(seconds=5)  # until it is asked again
STARTS_AT_ONCE = 8  # workflows that one hand-over starts side by side
JOB_ID_MEMO = "job_id"


class BroadcastActivities:
    """Collaborators are injected by worker.py. Without `client`, the activity's own is used."""

    def __init__(
        self,
        *,
        database: Database,
        broadcasts: Broadcasts,
        recipients: Recipients,
        jobs: Jobs,
        notifications: Notifications,
        people: People,
        planner: ChunkPlanner,
        delivery: BulkDelivery,
        clock: Clock,
    ) -> None:
        self._database = database
        self._broadcasts = broadcasts
        self._recipients = recipients
        self._jobs = jobs
        self._notifications = notifications
        self._people = people
        self._planner = planner
        self._delivery = delivery
        self._clock = clock

    @activity.defn(name="broadcast.plan")
    async def plan(self, order: PlanChunks) -> ChunksPlanned:
        """The next chunks' bounds."""
        mine = await self._get(order.job)
        return ChunksPlanned(
            chunks=tuple(await self._recipients.bounds(mine.set_id, order.from_line, CHUNK, order.chunks))
        )

    @activity.defn(name="broadcast.send_chunk")
    async def send_chunk(self, order: SendChunk) -> ChunkSent:
        """Send to the recipients of these lines, as far as they were not sent to.

        Cancelled, it ends what it has begun, and the store says what became of it.
        """
        ends, began = time.monotonic() + LONGEST_SECONDS, activity.info().started_time
        async with heartbeating():
            try:
                mine = await self._get(order.job)
                if mine.paused is not None:  # what is sent is not paused: the note is of before, and came late
                    await self._broadcasts.note_pause(mine.broadcast_id, None)
                recipients = await self._recipients.between(mine.set_id, order.first_line, order.last_line)
                chunk = await self._planner.plan(mine, recipients, self._clock.now())
                if self._clock.now() >= mine.expires_at:
                    return await self._expire(mine, order, chunk, began)
                tally = Tally()
                try:
                    await self._delivery.send(
                        chunk.parcels,
                        tally,
                        go_on=lambda: time.monotonic() < ends and not activity.is_worker_shutdown(),
                    )
                finally:
                    sent = _sent(mine, chunk, tally)
                    await self._broadcasts.record_chunk(mine.broadcast_id, order.first_line, sent.counts, began=began)
            except DatabaseUnavailable as error:
                log.warning("store.away", reason=str(error))
                until = self._clock.now() + STORE_AWAY
                return ChunkSent(
                    counts={},
                    unfinished=True,
                    wait_until=until,
                    waiting_for="the store, which does not answer",
                    everybody=True,
                )
        if sent.wait_until is not None and sent.wait_until >= mine.expires_at:
            return sent.model_copy(update={"wait_until": mine.expires_at, "waiting_for": "its expiry"})
        return sent

    async def _expire(self, mine: Broadcast, order: SendChunk, chunk: Chunk, began: datetime) -> ChunkSent:
        """Nothing is sent any more; what was sent before stays."""
        known = await self._delivery.known(chunk.parcels)
        counts = chunk.counts + Counter({TargetOutcome.EXPIRED.value: len(chunk.quiet)})
        for keys in chunk.by_line().values():
            counts[best(known.get(key, TargetOutcome.EXPIRED) for key in keys).value] += 1
        await self._broadcasts.record_chunk(mine.broadcast_id, order.first_line, counts, began=began)
        return ChunkSent(counts=dict(counts))

    @activity.defn(name="broadcast.note")
    async def note(self, order: NotePause) -> PauseNoted:
        """Store why the broadcast is paused, for whoever asks for its progress."""
        await self._broadcasts.note_pause(order.job.job_id, order.why or None)
        return PauseNoted()

    @activity.defn(name="broadcast.hand_over")
    async def hand_over(self, order: HandOver) -> HandedOver:
        """Make a notification job of each of these recipients, a few at a time."""
        mine = await self._get(order.job)
        async with heartbeating():
            found = await self._recipients.of_lines(mine.set_id, order.lines)
            ids = {each.target_id for each in found if each.target_id is not None}
            targets = {each.target_id: each for each in await self._people.targets_among(mine.tenant, target_ids=ids)}
            news = [notification_of(mine, each, targets.get(each.target_id or "")) for each in found]
            slots = asyncio.Semaphore(STARTS_AT_ONCE)

            async def start(new: Notification) -> bool:
                async with slots:
                    return await self._start(activity.client(), mine, new)

            started = await asyncio.gather(*(start(new) for new in news))
            await self._broadcasts.record_outcome(mine.broadcast_id, order.first_line, HANDED_OVER, len(news))
        return HandedOver(started=sum(started))

    async def _get(self, job: JobRef) -> Broadcast:
        found = await self._broadcasts.get(job.tenant, job.job_id)
        if found is None:
            msg = f"broadcast {job.job_id} is not in the store: it was deleted, or this worker uses another database"
            raise failure(FailureKind.REJECTED, "broadcast_missing", msg)
        return found

    async def _start(self, client: Client, mine: Broadcast, new: Notification) -> bool:
        """Store and start the job of one recipient unless that was done; whether this call did."""
        workflow_id = notification_workflow_id(mine.tenant, new.notification_id)
        job = NewJob(new.notification_id, mine.tenant, NOTIFICATION.name, workflow_id, new.person)
        if await self._notifications.get(mine.tenant, new.notification_id) is None:
            async with self._database.write() as connection:
                await self._notifications.add(connection, new)
                await self._jobs.submit(connection, job)
        ref = JobRef(job_id=new.notification_id, tenant=mine.tenant)
        try:
            handle = await client.start_workflow(
                NOTIFICATION.name,
                NotificationRequest(job=ref, expires_at=new.expires_at),
                id=workflow_id,
                task_queue=BROADCAST.queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                priority=Priority(priority_key=BROADCAST.priority.value, fairness_key=mine.tenant[:64]),
                search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(TENANT, mine.tenant), SearchAttributePair(JOB_TYPE, NOTIFICATION.name)]
                ),
                memo={JOB_ID_MEMO: str(new.notification_id)},
                static_summary=f"handed over by broadcast {mine.broadcast_id}",
            )
        except WorkflowAlreadyStartedError:
            return False  # and ended
        await self._jobs.started(new.notification_id, handle.first_execution_run_id or handle.result_run_id or "")
        return True


def _sent(mine: Broadcast, chunk: Chunk, tally: Tally) -> ChunkSent:
    """What the tally says of each recipient."""
    counts = chunk.counts.copy()
    hand_over = chunk.quiet | tally.later | tally.refused
    for line, keys in chunk.by_line().items():
        outcomes = [tally.outcomes[key] for key in keys if key in tally.outcomes]
        if line in hand_over or len(outcomes) < len(keys):
            continue
        reached = best(outcomes)
        if reached is TargetOutcome.DROPPED and len(mine.routes) > 1 and not mine.every:
            hand_over.add(line)  # its job goes on with the next channel
        else:
            counts[reached.value] += 1
    return ChunkSent(
        counts={name: count for name, count in counts.items() if count},
        hand_over=tuple(sorted(hand_over)),
        failures=dict(tally.failures),
        unfinished=tally.unfinished or bool(tally.stopped_by),
        wait_until=tally.wait[0] if tally.wait else None,
        waiting_for=tally.wait[1][:300] if tally.wait else "",
        everybody=tally.everybody,
        stopped_by=tally.stopped_by,
    )
