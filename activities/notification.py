"""The notification job's steps.

Deciding only reads, but for the note that a message waits. Sending is one effect per target, claimed in the ledger. A
store that does not answer is a wait, not an error.
"""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from pydantic import JsonValue
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.adapters.channels.channel import Attachment, Content, Message
from activities.delivery import Delivery, Effect, Place, wait
from activities.heartbeat import heartbeating, resumed
from activities.reach import NOT_CONFIGURED, quiet_until, why_left_out
from activities.templates import TemplateBroken, TemplateDataError, Templates, UnknownTemplate
from activities.unsubscribe import Unsubscribing
from contracts.errors import FailureKind, failure
from contracts.payloads.job import JobRef, WaitUntil
from contracts.payloads.notification import (
    ChannelName,
    ClaimDeferred,
    Decide,
    Decided,
    DeferredClaimed,
    PlannedTarget,
    RoutePlan,
    Send,
    TargetOutcome,
    TargetResult,
)
from runtime.clock import Clock
from store.blobs import Blobs
from store.database import DatabaseUnavailable
from store.jobs import Jobs
from store.notifications import Notification, Notifications
from store.people import People, Person, Preference, StoredTarget
from store.suppressions import Suppression, Suppressions

log = structlog.get_logger(__name__)

DIGEST = "digest"  # the template of a message that carries others
DIGEST_TEXT_CHARACTERS = 1_000  # of one of them, as the template shows
DIGEST_ITEMS = 50  # what waits beyond them becomes the next digest
STORE_AWAY = timedelta(seconds=5)  # until it is asked again
LONGEST_POLL = timedelta(minutes=1)  # how late a carried message learns that its carrier ended
BEFORE_EXPIRY = timedelta(seconds=2)  # the last look
SEND = "notification.send"
EFFECTS = uuid.UUID("5b0d2a3e-6f1c-5c53-9a0e-3f6d0f1f7c11")  # namespace of effect ids


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store says of a recipient."""

    person: Person | None
    reachable: list[StoredTarget]
    wishes: list[Preference]
    suppressed: list[Suppression]

    @property
    def locale(self) -> str | None:
        """Of the person, if it has one."""
        return self.person.locale if self.person else None

    def reachable_by(self, mine: Notification) -> list[StoredTarget]:
        """The targets that the message could use."""
        if mine.target_id:
            return [each for each in self.reachable if each.target_id == mine.target_id]
        wanted = frozenset[ChannelName]().union(*(route.channels for route in mine.routes))
        return [each for each in self.reachable if each.channel in wanted]


class NotificationActivities:
    """Collaborators are injected by worker.py."""

    def __init__(
        self,
        *,
        notifications: Notifications,
        jobs: Jobs,
        people: People,
        suppressions: Suppressions,
        delivery: Delivery,
        templates: Templates,
        unsubscribing: Unsubscribing,
        blobs: Blobs,
        clock: Clock,
    ) -> None:
        self._notifications = notifications
        self._jobs = jobs
        self._people = people
        self._suppressions = suppressions
        self._delivery = delivery
        self._templates = templates
        self._unsubscribing = unsubscribing
        self._blobs = blobs
        self._clock = clock
        self._waking: WeakValueDictionary[tuple[str, str | None], asyncio.Lock] = WeakValueDictionary()

    @activity.defn(name="notification.decide")
    async def decide(self, order: Decide) -> Decided | WaitUntil:
        """Who is to be reached how, or until when the recipient wants quiet.

        Raises:
            ApplicationError: REJECTED, where this worker lacks the settings of every channel that could be used.
        """
        try:
            return await self._decide(order)
        except DatabaseUnavailable as error:
            return self._store_away(error)

    async def _decide(self, order: Decide) -> Decided | WaitUntil:
        mine = await self._get(order.job)
        now = self._clock.now()
        if mine.merged_into is not None:
            return Decided(was_deferred=True, carried=True)
        if now >= mine.expires_at:
            return Decided(expired=True)
        known = await self._known(mine)
        if known.person is not None and not mine.urgent:
            until = quiet_until(known.person, now)
            if until is not None:
                await self._notifications.defer(mine.notification_id, until)
                return WaitUntil(until=until, waiting_for="the end of the recipient's quiet hours")
        plans, left_out = self._plan(mine, known, now)
        if not plans and any(each.code == NOT_CONFIGURED for each in left_out):
            raise _not_configured([each.channel for each in left_out if each.code == NOT_CONFIGURED])
        return Decided(routes=plans, every=mine.every, was_deferred=mine.deferred_until is not None, left_out=left_out)

    @activity.defn(name="notification.claim_deferred")
    async def claim_deferred(self, order: ClaimDeferred) -> DeferredClaimed | WaitUntil:
        """Carry what waited for the same person and would go the same way, or wait for what carries this one.

        Repeating it gives the same answer.
        """
        try:
            # All of a person's messages wake at once; one looks at the others, and they see that they are carried.
            mine = await self._get(order.job)
            async with self._waking.setdefault((mine.tenant, mine.person), asyncio.Lock()):
                mine = await self._get(order.job)
                if mine.merged_into is None:
                    return await self._carry(mine, order)
            return await self._follow(mine, mine.merged_into, order)
        except DatabaseUnavailable as error:
            return self._store_away(error, order.resume)

    async def _carry(self, mine: Notification, order: ClaimDeferred) -> DeferredClaimed | WaitUntil:
        now = self._clock.now()
        others = []
        if mine.woke_at is None and not mine.mandatory and not mine.attachments:
            known = await self._known(mine)
            if self._fits_a_digest(mine, known.locale):
                until = max(now, mine.deferred_until or now)
                for other in await self._notifications.waiting(mine, until=until, limit=DIGEST_ITEMS - 1):
                    plans, _ = self._plan(other, known, now)
                    if plans == order.routes and self._fits_a_digest(other, known.locale):
                        others.append(other.notification_id)
        into, carried = await self._notifications.merge(mine, others)
        if into is not None:
            return await self._follow(mine, into, order)
        log.info("notifications.merged", carried=len(carried))
        return DeferredClaimed(merged=carried)

    async def _follow(self, mine: Notification, carrier_id: UUID, order: ClaimDeferred) -> DeferredClaimed | WaitUntil:
        """What became of the digest that carries this one; the ledger says what left, whatever became of the job."""
        now = self._clock.now()
        begun = await self._delivery.begun(str(carrier_id), SEND)
        if any(each is None or each.reached for each in begun):
            return DeferredClaimed(merged_into=carrier_id)
        carrier = await self._jobs.get(mine.tenant, carrier_id)
        last = mine.expires_at - BEFORE_EXPIRY
        if carrier is None or carrier.state.closed or now >= last:
            await self._notifications.go_alone(mine, carrier_id)
            return DeferredClaimed(again=True)
        polls = order.resume if isinstance(order.resume, int) else 0
        until = min(last, now + min(LONGEST_POLL, timedelta(seconds=2 ** min(polls, 10))))
        return WaitUntil(until=until, waiting_for="the digest that carries it", place=polls + 1)

    @activity.defn(name=SEND)
    async def send(self, order: Send) -> TargetResult | WaitUntil:
        """One message to one target.

        Raises:
            ApplicationError: AUTH or REJECTED by the vendor, where there is no other channel.
        """
        place = Place.model_validate(resumed(order.resume) or {})
        # Whose claim it is is said once this execution is over: until then the next one must not take it for its own.
        async with heartbeating(lambda: place.kept(without={"owner"}), at_error=place.kept):
            try:
                return await self._send(order, place)
            except DatabaseUnavailable as error:
                place.waits += 1
                log.warning("store.away", reason=str(error))
                return wait(self._clock.now() + STORE_AWAY, "the store, which does not answer", place)

    async def _send(self, order: Send, place: Place) -> TargetResult | WaitUntil:
        run_id = str(order.job.job_id)  # and not the run's: it survives a reset of the workflow
        done = await self._delivery.take_up(run_id, SEND, order.target, place)
        if done is not None:
            return done
        mine = await self._get(order.job)
        target = await self._people.target(mine.tenant, order.target)
        hindrance = await self._hindrance(mine, target, order, place)
        if hindrance is not None or target is None or target.channel not in self._delivery.configured:
            # What was sent before stays sent, whatever has changed since.
            known = await self._delivery.known(run_id, SEND, order.target, order.channel)
            if known is not None:
                return known
            if hindrance is not None:
                return hindrance
            raise _not_configured([order.channel])
        carried = await self._notifications.message(mine) if mine.deferred_until is not None else [mine]
        effect = Effect(
            run_id=run_id,
            step=SEND,
            target_id=order.target,
            target=target,
            message=await self._message(mine, target, carried),
            resend=any(each.resend for each in carried),
            has_fallback=order.has_fallback,
        )
        return await self._delivery.deliver(effect, place)

    async def _hindrance(
        self, mine: Notification, target: StoredTarget | None, order: Send, place: Place
    ) -> TargetResult | None:
        """Why it must not be sent any more, or None."""
        if target is None:
            return _left_out(order.target, order.channel, TargetOutcome.DROPPED, "target_removed")
        if mine.person is not None and target.person != mine.person:
            return _left_out(order.target, order.channel, TargetOutcome.DROPPED, "target_of_another_person")
        if self._clock.now() >= mine.expires_at:
            expired = _left_out(order.target, order.channel, TargetOutcome.EXPIRED, "expired")
            return expired.model_copy(update={"attempts": place.attempts})
        if target.channel not in self._delivery.configured:
            failed = _left_out(order.target, order.channel, TargetOutcome.FAILED, NOT_CONFIGURED)
            return failed if order.has_fallback else None
        if place.waits:  # and what the person wishes, or a vendor said, may have changed meanwhile
            _, left_out = self._plan(mine, await self._known(mine), self._clock.now())
            return next((each for each in left_out if each.target == order.target), None)
        return None

    def _store_away(self, error: DatabaseUnavailable, place: JsonValue = None) -> WaitUntil:
        log.warning("store.away", reason=str(error))
        return WaitUntil(
            until=self._clock.now() + STORE_AWAY, waiting_for="the store, which does not answer", place=place
        )

    def _fits_a_digest(self, notification: Notification, locale: str | None) -> bool:
        """Whether it can be part of one: what does not render must fail alone, and nothing may be cut off for good."""
        try:
            content = render(self._templates, notification, locale, None)
        except (UnknownTemplate, TemplateDataError, TemplateBroken):
            return False
        return bool(content.url) or len(content.text) <= DIGEST_TEXT_CHARACTERS

    async def _get(self, job: JobRef) -> Notification:
        found = await self._notifications.get(job.tenant, job.job_id)
        if found is None:
            msg = f"notification {job.job_id} is not in the store: it was deleted, or this worker uses another database"
            raise failure(FailureKind.REJECTED, "notification_missing", msg)
        return found

    async def _known(self, mine: Notification) -> _Known:
        """What the store says of the recipient, for this and any other message to the same person."""
        if mine.person is None:
            target = await self._people.target(mine.tenant, mine.target_id or "")
            reachable, person, wishes = ([target] if target else []), None, []
        else:
            reachable = await self._people.targets(mine.tenant, mine.person)
            person = await self._people.get(mine.tenant, mine.person)
            wishes = await self._people.preferences(mine.tenant, mine.person)
        return _Known(person, reachable, wishes, await self._suppressions.of(reachable))

    def _plan(
        self, mine: Notification, known: _Known, now: datetime
    ) -> tuple[tuple[RoutePlan, ...], tuple[TargetResult, ...]]:
        """Targets by channel in order of preference, and those that are left out with the reason."""
        usable: list[StoredTarget] = []
        left_out: list[TargetResult] = []
        for target in known.reachable_by(mine):
            why = why_left_out(
                target,
                category=mine.category,
                mandatory=mine.mandatory,
                wishes=known.wishes,
                suppressed=known.suppressed,
                configured=self._delivery.configured,
                now=now,
            )
            if why is None:
                usable.append(target)
            else:
                left_out.append(_left_out(target.target_id, target.channel, *why))
        plans = []
        for route in mine.routes:
            planned = [each for each in usable if each.channel in route.channels]
            usable = [each for each in usable if each not in planned]  # a device of two routes belongs to the first
            targets = tuple(PlannedTarget(target=each.target_id, channel=each.channel) for each in planned)
            plans.append(RoutePlan(route=route, targets=targets))
        return tuple(plan for plan in plans if plan.targets), tuple(left_out)

    async def _message(self, mine: Notification, target: StoredTarget, carried: list[Notification]) -> Message:
        unsubscribe = None
        if target.channel is ChannelName.EMAIL and not mine.mandatory:
            categories = sorted({each.category for each in carried})
            unsubscribe = self._unsubscribing.url(mine.tenant, target.target_id, ",".join(categories))
        person = await self._people.get(mine.tenant, mine.person) if mine.person else None
        content = self._content(carried, person.locale if person else None, unsubscribe)
        attached = [
            Attachment(each.filename, each.media_type, await self._blobs.get(each.blob_key))
            for each in mine.attachments
            if target.channel is ChannelName.EMAIL
        ]
        return Message(
            effect_id=effect_id(mine.notification_id, target.target_id),
            notification_id=str(mine.notification_id),
            tenant=mine.tenant,
            category=mine.category,
            urgent=mine.urgent,
            created_at=mine.created_at,
            expires_at=mine.expires_at,
            content=content,
            unsubscribe_url=unsubscribe,
            attachments=tuple(attached),
        )

    def _content(self, carried: list[Notification], locale: str | None, unsubscribe: str | None) -> Content:
        if len(carried) == 1:
            return render(self._templates, carried[0], locale, unsubscribe)
        items = [render(self._templates, each, locale, None) for each in carried]
        shown: list[JsonValue] = [{"subject": each.subject, "text": each.text, "url": each.url or ""} for each in items]
        return self._templates.render(
            DIGEST, locale, {"items": shown, "count": len(carried)}, unsubscribe_url=unsubscribe
        )


def effect_id(notification_id: uuid.UUID | str, target_id: str) -> str:
    """One per notification and target, the same at every repetition; a UUID's text."""
    return str(uuid.uuid5(EFFECTS, f"{notification_id}:{target_id}"))


def render(templates: Templates, notification: Notification, locale: str | None, unsubscribe: str | None) -> Content:
    """The notification's forms, from its template or its own content.

    Raises:
        UnknownTemplate: there is none of this name.
        TemplateDataError: data is missing.
    """
    if notification.template is not None:
        return templates.render(notification.template, locale, notification.data, unsubscribe_url=unsubscribe)
    own: Any = dict(notification.content or {})
    return templates.from_text(**own, unsubscribe_url=unsubscribe)


def _left_out(target: str, channel: ChannelName, outcome: TargetOutcome, code: str) -> TargetResult:
    return TargetResult(target=target, channel=channel, outcome=outcome, code=code)


def _not_configured(channels: list[ChannelName]) -> ApplicationError:
    names = ", ".join(sorted({each.value for each in channels}))
    msg = f"this worker has no settings for {names}: give it those of the API, and resolve with retry"
    return failure(FailureKind.REJECTED, NOT_CONFIGURED, msg)
