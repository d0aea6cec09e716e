"""The broadcast job's steps.

Sending a chunk again is safe: the ledger knows what is done. Handing over again is too: a recipient's job has one id.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from pydantic import JsonValue
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

from activities.adapters.channels.channel import Content, Message
from activities.bulk_delivery import BulkDelivery, Parcel
from activities.heartbeat import heartbeating
from activities.notification import effect_id, quiet_until
from activities.templates import Templates
from activities.unsubscribe import Unsubscribing
from contracts.catalogue import BROADCAST, NOTIFICATION
from contracts.errors import FailureKind, failure
from contracts.payloads.broadcast import ChunkSent, ChunksPlanned, HandedOver, HandOver, PlanChunks, SendChunk
from contracts.payloads.job import JobRef, WaitUntil
from contracts.payloads.notification import (
    ChannelName,
    NotificationRequest,
    TargetOutcome,
    notification_workflow_id,
)
from contracts.search_attributes import JOB_TYPE, TENANT
from runtime.clock import Clock
from store.broadcasts import Broadcast, Broadcasts
from store.database import Database
from store.jobs import Jobs, NewJob
from store.notifications import Notification, Notifications
from store.people import People, Person, Preference, StoredTarget, allowed
from store.recipients import Recipient, Recipients
from store.suppressions import Reason, Suppression, Suppressions

log = structlog.get_logger(__name__)

CHUNK = 500  # recipients: a quarter of a second of pushes, some kilobytes of history
LONGEST_SECONDS = 15.0  # of one execution, so that a pause or a deploy does not wait for a slow vendor
JOBS = uuid.UUID("0d6fd0d2-5a1e-5c57-8f0a-6f6a0f3c2b90")  # namespace of the ids of recipients' jobs
JOB_ID_MEMO = "job_id"


@dataclass(slots=True)
class _Chunk:
    """What is known of a chunk's recipients before anything is sent."""

    parcels: list[Parcel]
    counts: Counter[str]
    hand_over: set[int]
    lines: dict[int, list[str]]  # target ids, by line


@dataclass(slots=True)
class _Known:
    """What the store says of a chunk's recipients."""

    people: dict[str, Person]
    wishes: dict[str, list[Preference]]
    by_id: dict[str, StoredTarget] = field(default_factory=dict)
    by_person: dict[str, list[StoredTarget]] = field(default_factory=dict)
    suppressed: dict[tuple[ChannelName, str], list[Suppression]] = field(default_factory=dict)

    def of(self, recipient: Recipient) -> tuple[list[StoredTarget], Person | None]:
        """Where the recipient can be reached, and who it is if that is known."""
        if recipient.person is not None:
            return self.by_person.get(recipient.person, []), self.people.get(recipient.person)
        target = self.by_id.get(recipient.target_id or "")
        return ([target] if target else []), (self.people.get(target.person or "") if target else None)


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
        suppressions: Suppressions,
        delivery: BulkDelivery,
        templates: Templates,
        unsubscribing: Unsubscribing,
        clock: Clock,
    ) -> None:
        self._database = database
        self._broadcasts = broadcasts
        self._recipients = recipients
        self._jobs = jobs
        self._notifications = notifications
        self._people = people
        self._suppressions = suppressions
        self._delivery = delivery
        self._templates = templates
        self._unsubscribing = unsubscribing
        self._clock = clock

    @activity.defn(name="broadcast.plan")
    async def plan(self, order: PlanChunks) -> ChunksPlanned:
        """The next chunks' bounds."""
        mine = await self._get(order.job)
        return ChunksPlanned(
            chunks=tuple(await self._recipients.bounds(mine.set_id, order.from_line, CHUNK, order.chunks))
        )

    @activity.defn(name="broadcast.send_chunk")
    async def send_chunk(self, order: SendChunk) -> ChunkSent | WaitUntil:
        """Send to the recipients of these lines, as far as they were not sent to."""
        ends = time.monotonic() + LONGEST_SECONDS
        mine = await self._get(order.job)
        async with heartbeating():
            recipients = await self._recipients.between(mine.set_id, order.first_line, order.last_line)
            if self._clock.now() >= mine.expires_at:
                return await self._told(mine, order, Counter({TargetOutcome.EXPIRED.value: len(recipients)}))
            chunk = await self._prepare(mine, recipients)
            tally = await self._delivery.send(
                str(mine.broadcast_id),
                "broadcast.send_chunk",
                chunk.parcels,
                go_on=lambda: time.monotonic() < ends and not activity.is_worker_shutdown(),
            )
            if tally.wait is not None and tally.wait[0] < mine.expires_at:
                until, what = tally.wait
                return WaitUntil(until=until, waiting_for=what[:300])
            # Who is refused goes on as a job that parks, unless all are refused: then the broadcast pauses instead.
            later = chunk.hand_over | tally.later | (set() if tally.stopped_by else tally.refused)
            counts = chunk.counts.copy()
            for line, targets in chunk.lines.items():
                outcomes = [tally.outcomes[each] for each in targets if each in tally.outcomes]
                best = _best(outcomes) if len(outcomes) == len(targets) else None
                if best is TargetOutcome.DROPPED and len(mine.routes) > 1 and not mine.every:
                    later.add(line)  # its job goes on with the next channel
                elif best is not None and line not in later:
                    counts[best.value] += 1
            counts["handed_over"] += len(later)
            return await self._told(
                mine,
                order,
                counts,
                hand_over=tuple(sorted(later)),
                failures=dict(tally.failures),
                unfinished=tally.unfinished or bool(tally.stopped_by),
                stopped_by=tally.stopped_by,
            )

    @activity.defn(name="broadcast.hand_over")
    async def hand_over(self, order: HandOver) -> HandedOver:
        """Make a notification job of each of these recipients."""
        mine = await self._get(order.job)
        started = 0
        async with heartbeating():
            for recipient in await self._recipients.of_lines(mine.set_id, order.lines):
                started += await self._start(activity.client(), mine, recipient)
        return HandedOver(started=started)

    async def _get(self, job: JobRef) -> Broadcast:
        found = await self._broadcasts.get(job.tenant, job.job_id)
        if found is None:
            msg = f"broadcast {job.job_id} is not in the store: it was deleted, or this worker uses another database"
            raise failure(FailureKind.REJECTED, "broadcast_missing", msg)
        return found

    async def _told(
        self,
        mine: Broadcast,
        order: SendChunk,
        counts: Counter[str],
        *,
        hand_over: tuple[int, ...] = (),
        failures: Mapping[str, int] | None = None,
        unfinished: bool = False,
        stopped_by: str = "",
    ) -> ChunkSent:
        kept = {name: count for name, count in counts.items() if count}
        await self._broadcasts.record_chunk(mine.broadcast_id, order.first_line, kept)
        return ChunkSent(
            counts=kept,
            hand_over=hand_over,
            failures=dict(failures or {}),
            unfinished=unfinished,
            stopped_by=stopped_by,
        )

    async def _prepare(self, mine: Broadcast, recipients: list[Recipient]) -> _Chunk:
        """Who is reached how."""
        now = self._clock.now()
        known = await self._known(mine, recipients)
        contents: dict[str | None, Content] = {}
        chunk = _Chunk([], Counter(), set(), {})
        for recipient in recipients:
            reachable, owner = known.of(recipient)
            if owner is not None and not mine.urgent and quiet_until(owner, now) is not None:
                chunk.hand_over.add(recipient.line)
                continue
            judged = [(each, self._left_out(mine, each, owner, known, now)) for each in reachable]
            chosen = _chosen(mine, [target for target, why in judged if why is None])
            if not chosen:
                left_out = [why for _, why in judged if why is not None]
                chunk.counts[_best(left_out).value if left_out else "undeliverable"] += 1
                continue
            chunk.lines[recipient.line] = [each.target_id for each in chosen]
            chunk.parcels += [
                Parcel(recipient.line, each, self._maker(mine, recipient, each, owner, contents), mine.resend)
                for each in chosen
            ]
        return chunk

    async def _known(self, mine: Broadcast, recipients: list[Recipient]) -> _Known:
        """All that the store says of a chunk's recipients, in four reads."""
        named = {each.person for each in recipients if each.person is not None}
        direct = {each.target_id for each in recipients if each.target_id is not None}
        found = await self._people.targets_among(mine.tenant, persons=named, target_ids=direct)
        targets = [each for each in found if any(each.channel in route.channels for route in mine.routes)]
        owners = named | {each.person for each in targets if each.person is not None}
        known = _Known(
            people=await self._people.among(mine.tenant, owners) if owners else {},
            wishes=await self._people.preferences_among(mine.tenant, owners) if owners and not mine.mandatory else {},
        )
        for target in targets:
            known.by_id[target.target_id] = target
            if target.person is not None:
                known.by_person.setdefault(target.person, []).append(target)
        for each in await self._suppressions.of(targets):
            known.suppressed.setdefault((each.channel, each.address), []).append(each)
        return known

    def _left_out(
        self, mine: Broadcast, target: StoredTarget, owner: Person | None, known: _Known, now: datetime
    ) -> TargetOutcome | None:
        """Why a target is not used, or None."""
        if target.channel not in self._delivery.configured:
            return TargetOutcome.SUPPRESSED
        wishes = known.wishes.get(owner.person, []) if owner else []
        if not allowed(wishes, mine.category, target.channel.value):
            return TargetOutcome.MUTED
        for each in known.suppressed.get((target.channel, target.address), []):
            excused = mine.mandatory and each.reason is Reason.UNSUBSCRIBED
            if not excused and each.applies(target, mine.category, now):
                return TargetOutcome.SUPPRESSED
        return None

    def _maker(
        self,
        mine: Broadcast,
        recipient: Recipient,
        target: StoredTarget,
        owner: Person | None,
        contents: dict[str | None, Content],
    ) -> Callable[[], Message]:
        notification_id = job_id_of(mine, recipient)

        def make() -> Message:
            unsubscribe = None
            if target.channel is ChannelName.EMAIL and not mine.mandatory:
                unsubscribe = self._unsubscribing.url(mine.tenant, target.target_id, mine.category)
            locale = owner.locale if owner else None
            if recipient.data or unsubscribe:
                content = self._content(mine, recipient.data, locale, unsubscribe)
            else:
                content = contents.get(locale) or self._content(mine, None, locale, None)
                contents[locale] = content
            return Message(
                effect_id=effect_id(notification_id, target.target_id),
                notification_id=str(notification_id),
                tenant=mine.tenant,
                category=mine.category,
                urgent=mine.urgent,
                created_at=mine.created_at,
                expires_at=mine.expires_at,
                content=content,
                unsubscribe_url=unsubscribe,
            )

        return make

    def _content(
        self, mine: Broadcast, own: Mapping[str, JsonValue] | None, locale: str | None, unsubscribe: str | None
    ) -> Content:
        if mine.template is not None:
            data = {**mine.data, **(own or {})}
            return self._templates.render(mine.template, locale, data, unsubscribe_url=unsubscribe)
        content: dict[str, object] = dict(mine.content or {})
        return self._templates.from_text(**content, unsubscribe_url=unsubscribe)  # type: ignore[arg-type]

    async def _start(self, client: Client, mine: Broadcast, recipient: Recipient) -> int:
        """Store and start the job of one recipient unless that was done; 1 if this call did."""
        new = Notification(
            notification_id=job_id_of(mine, recipient),
            tenant=mine.tenant,
            category=mine.category,
            routes=mine.routes,
            created_at=mine.created_at,
            expires_at=mine.expires_at,
            person=recipient.person,
            target_id=recipient.target_id,
            urgent=mine.urgent,
            mandatory=mine.mandatory,
            every=mine.every,
            resend=mine.resend,
            template=mine.template,
            content=mine.content,
            data={**mine.data, **(recipient.data or {})},
        )
        workflow_id = notification_workflow_id(mine.tenant, new.notification_id)
        job = NewJob(new.notification_id, mine.tenant, NOTIFICATION.name, workflow_id, recipient.person)
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
            return 0  # and ended
        await self._jobs.started(new.notification_id, handle.first_execution_run_id or handle.result_run_id or "")
        return 1


def job_id_of(mine: Broadcast, recipient: Recipient) -> uuid.UUID:
    """The id of the job that the recipient's message becomes if it is handed over; devices replace by it."""
    return uuid.uuid5(JOBS, f"{mine.broadcast_id}:{recipient.who}")


def _chosen(mine: Broadcast, usable: list[StoredTarget]) -> list[StoredTarget]:
    """The targets of the first route that has any, or of all."""
    chosen: list[StoredTarget] = []
    for route in mine.routes:
        chosen += [each for each in usable if each.channel in route.channels and each not in chosen]
        if chosen and not mine.every:
            break
    return chosen


def _best(outcomes: list[TargetOutcome]) -> TargetOutcome:
    """What counts for the recipient: who was reached at all was reached."""
    order = list(TargetOutcome)
    return min(outcomes, key=order.index)
