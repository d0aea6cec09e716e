"""The daily digest job's steps.

Collecting again is safe: the broadcast has one id per tenant and day, a half-written set of recipients is gone on with
unless the day now ends at another time, and the day, the broadcast and its job are stored in one transaction.
"""

import asyncio
import uuid
from datetime import UTC, time, timedelta

import structlog
from pydantic import JsonValue
from temporalio import activity

from activities.digest_due import latest
from activities.heartbeat import heartbeating
from activities.quiet_hours import UnknownTimeZone, time_zone
from activities.templates import Templates
from contracts.catalogue import BROADCAST
from contracts.payloads.daily_digest import (
    CollectDigest,
    DigestCollected,
    DueTenant,
    NoteStarted,
    PickTenants,
    StartNoted,
    TenantsPicked,
)
from contracts.payloads.job import Interrupted, WaitUntil
from runtime.clock import Clock
from store.broadcasts import Broadcast, Broadcasts
from store.database import MAX_ROWS_PER_WRITE, Database
from store.digests import Digests, Waiting
from store.events import PAUSE, Event, Events, Heard, Window
from store.jobs import Jobs, NewJob
from store.recipients import Recipient, Recipients

log = structlog.get_logger(__name__)

TEMPLATE = "daily_digest"
CATEGORY = "digest"
PAGE = 100  # tenants of one answer: it is recorded in history
LOOKED_AT = 500  # tenants of one query
SETTLED = timedelta(seconds=10)  # after which nothing that was received before is still being written, by any clock
LONGEST = timedelta(days=7)  # what is older is no news: a first digest, or one that was turned on again
ITEMS = 50  # of one person
TEXT_CHARACTERS = 500  # of one item
ALL_CHARACTERS = 40_000  # of one person's items; escaped in HTML they may become five times as many


class DailyDigestActivities:
    """Collaborators are injected by worker.py."""

    def __init__(
        self,
        *,
        database: Database,
        events: Events,
        digests: Digests,
        recipients: Recipients,
        broadcasts: Broadcasts,
        jobs: Jobs,
        templates: Templates,
        clock: Clock,
    ) -> None:
        self._database = database
        self._events = events
        self._digests = digests
        self._recipients = recipients
        self._broadcasts = broadcasts
        self._jobs = jobs
        self._templates = templates
        self._clock = clock

    @activity.defn(name="daily_digest.pick_tenants")
    async def pick_tenants(self, order: PickTenants) -> TenantsPicked:
        """The next tenants whose digest is due and not done, and first of all what a stopped run left unsent."""
        due: list[DueTenant] = []
        if not order.beyond:
            for each in await self._digests.unsent(self._clock.now()):
                digest = each.digest
                due.append(DueTenant(tenant=digest.tenant, day=digest.day, until=digest.until, next_at=each.expires_at))
        beyond: str | None = order.beyond
        while beyond is not None and len(due) < PAGE:
            waiting, beyond = await self._digests.waiting(beyond=beyond, limit=LOOKED_AT)
            for tenant in waiting:
                found = await self._due(tenant)
                if found is not None:
                    due.append(found)
                if len(due) >= PAGE:
                    return TenantsPicked(due=tuple(due), beyond=tenant.tenant)
        return TenantsPicked(due=tuple(due), beyond=beyond)

    async def _due(self, waiting: Waiting) -> DueTenant | None:
        wishes = waiting.settings
        try:
            zone = time_zone(wishes.zone)
        except UnknownTimeZone as error:
            log.error("digest.zone_unknown", tenant=waiting.tenant, reason=str(error))  # noqa: TRY400 - says it all
            return None
        due = latest(time.fromisoformat(wishes.at), zone, self._clock.now())
        if due is None or waiting.oldest > due.at or await self._digests.get(waiting.tenant, due.day) is not None:
            return None
        return DueTenant(tenant=waiting.tenant, day=due.day, until=due.at, next_at=due.next_at)

    @activity.defn(name="daily_digest.collect")
    async def collect(self, order: CollectDigest) -> DigestCollected | WaitUntil | Interrupted:
        """One recipient for each person that has events, then the day, its broadcast and its job.

        A person hears of the newest ITEMS events; `count` says how many there are.
        """
        due = order.due
        done = await self._digests.get(due.tenant, due.day)
        if done is not None:
            return DigestCollected(people=done.people)
        settled_at = due.until + SETTLED
        if self._clock.now() < settled_at:
            return WaitUntil(until=settled_at, waiting_for="the last events of the day to be written")
        async with heartbeating():
            if not await self._write_set(order):
                return Interrupted()
            return DigestCollected(people=await self._finish(order))

    async def _write_set(self, order: CollectDigest) -> bool:
        """False if a deploy interrupted it. Where it stands is read anew each time: another attempt may be at it."""
        due, set_id = order.due, set_id_of(order)
        covered = await self._digests.covered(due.tenant)
        window = Window(max(covered, due.until - LONGEST) if covered else due.until - LONGEST, due.until)
        while not activity.is_worker_shutdown():
            place = await self._digests.written(set_id)
            heard = await self._events.heard(
                due.tenant, window, beyond=place.person, persons=MAX_ROWS_PER_WRITE, newest=ITEMS
            )
            if not heard:
                return True
            lines = [
                Recipient(line, person=each.person, data=_data(each, due))
                for line, each in enumerate(heard, place.line + 1)
            ]
            begun = await self._recipients.get(due.tenant, set_id) is not None
            async with self._database.write() as connection:
                if not begun:
                    await self._recipients.begin(connection, due.tenant, set_id)
                await self._recipients.add(connection, set_id, lines)
            await asyncio.sleep(PAUSE.total_seconds())
        return False

    async def _finish(self, order: CollectDigest) -> int:
        """Mark the day, with its broadcast if anybody hears something; how many do."""
        due, set_id = order.due, set_id_of(order)
        template = self._templates.get(TEMPLATE)
        async with self._database.write() as connection:
            people = await self._digests.size(connection, set_id)
            broadcast_id = order.broadcast_id if people else None
            marked = await self._digests.add(
                connection, tenant=due.tenant, day=due.day, until=due.until, broadcast_id=broadcast_id, people=people
            )
            if not marked or not people:
                return people
            await self._recipients.complete(connection, set_id, people, {})
            await self._broadcasts.add(
                connection,
                Broadcast(
                    broadcast_id=order.broadcast_id,
                    tenant=due.tenant,
                    set_id=set_id,
                    total=people,
                    category=CATEGORY,
                    routes=template.channels,
                    created_at=self._clock.now(),
                    expires_at=due.next_at,
                    mandatory=template.mandatory,
                    every=template.every,
                    resend=template.after_lost_reply == "resend",
                    template=TEMPLATE,
                ),
            )
            await self._jobs.submit(
                connection, NewJob(order.broadcast_id, due.tenant, BROADCAST.name, order.workflow_id)
            )
        return people

    @activity.defn(name="daily_digest.note_started")
    async def note_started(self, order: NoteStarted) -> StartNoted:
        """The broadcast's row says that it runs."""
        await self._jobs.started(order.broadcast.job_id, order.first_run_id)
        return StartNoted()


def set_id_of(order: CollectDigest) -> str:
    """Another for another `until`: a set that was begun for one must not be gone on with for the other."""
    return str(uuid.uuid5(order.broadcast_id, order.due.until.astimezone(UTC).isoformat()))


def _data(heard: Heard, due: DueTenant) -> dict[str, JsonValue]:
    """What the template is given."""
    items: list[JsonValue] = []
    left = ALL_CHARACTERS
    for event in heard.newest:
        item = _item(event)
        left -= sum(map(len, item.values()))
        if left < 0:
            break
        items.append(dict(item))
    return {"items": items, "count": heard.count, "day": due.day.isoformat()}


def _item(event: Event) -> dict[str, str]:
    text = event.text or ""
    if len(text) > TEXT_CHARACTERS:
        text = f"{text[: TEXT_CHARACTERS - 1]}…"
    return {"title": event.title, "text": text, "url": event.url or "", "kind": event.kind}
