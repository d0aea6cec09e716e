"""The notification job's steps.

Deciding only reads, but for the note that a message waits. Sending is one effect per target, claimed in the ledger.
"""

import uuid
from datetime import datetime
from typing import Any

import structlog
from pydantic import JsonValue
from temporalio import activity

from activities.adapters.channels.channel import Attachment, Content, Message
from activities.delivery import Delivery, Effect, Place
from activities.heartbeat import heartbeating
from activities.quiet_hours import QuietHours, ends_at
from activities.templates import Templates
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
from store.notifications import Notification, Notifications
from store.people import People, Person, StoredTarget, allowed
from store.suppressions import Suppressions

log = structlog.get_logger(__name__)

DIGEST = "digest"  # the template of a message that carries others
DIGEST_ITEMS = 50  # shown; the rest is counted
EFFECTS = uuid.UUID("5b0d2a3e-6f1c-5c53-9a0e-3f6d0f1f7c11")  # namespace of effect ids


class NotificationActivities:
    """Collaborators are injected by worker.py."""

    def __init__(
        self,
        *,
        notifications: Notifications,
        people: People,
        suppressions: Suppressions,
        delivery: Delivery,
        templates: Templates,
        unsubscribing: Unsubscribing,
        blobs: Blobs,
        clock: Clock,
    ) -> None:
        self._notifications = notifications
        self._people = people
        self._suppressions = suppressions
        self._delivery = delivery
        self._templates = templates
        self._unsubscribing = unsubscribing
        self._blobs = blobs
        self._clock = clock

    @activity.defn(name="notification.decide")
    async def decide(self, order: Decide) -> Decided | WaitUntil:
        """Who is to be reached how, or until when the recipient wants quiet."""
        mine = await self._get(order.job)
        now = self._clock.now()
        if now >= mine.expires_at:
            return Decided(expired=True)
        person = await self._people.get(mine.tenant, mine.person) if mine.person else None
        if person is not None and not mine.urgent:
            until = _quiet_until(person, now)
            if until is not None:
                await self._notifications.defer(mine.notification_id, until)
                return WaitUntil(until=until, waiting_for="the end of the recipient's quiet hours")
        plans, left_out = await self._plan(mine, now)
        return Decided(routes=plans, every=mine.every, was_deferred=mine.deferred_until is not None, left_out=left_out)

    @activity.defn(name="notification.claim_deferred")
    async def claim_deferred(self, order: ClaimDeferred) -> DeferredClaimed:
        """Carry what waited for the same person and would go the same way. Repeating it gives the same answer."""
        mine = await self._get(order.job)
        now = self._clock.now()
        others = []
        for other in await self._notifications.waiting(mine, until=mine.deferred_until or now):
            plans, _ = await self._plan(other, now)
            if plans == order.routes:
                others.append(other.notification_id)
        into, carried = await self._notifications.merge(mine, others)
        if into is None:
            log.info("notifications.merged", carried=len(carried))
        return DeferredClaimed(merged_into=into, merged=carried)

    @activity.defn(name="notification.send")
    async def send(self, order: Send) -> TargetResult | WaitUntil:
        """One message to one target.

        Raises:
            ApplicationError: AUTH or REJECTED by the vendor, where there is no other channel.
        """
        mine = await self._get(order.job)
        place = Place.model_validate(order.resume or {})
        target = await self._people.target(mine.tenant, order.target)
        if target is None:
            return _left_out(order.target, order.channel, TargetOutcome.DROPPED, "target_removed")
        if self._clock.now() >= mine.expires_at:
            return TargetResult(
                target=order.target, channel=order.channel, outcome=TargetOutcome.EXPIRED, attempts=place.attempts
            )
        if target.channel not in self._delivery.configured:
            msg = f"the channel {target.channel.value} is not configured on this worker: see its HOLDFAST_ settings"
            raise failure(FailureKind.REJECTED, "channel_not_configured", msg)
        async with heartbeating():
            effect = Effect(
                run_id=str(order.job.job_id),  # and not the run's: it survives a reset of the workflow
                step=activity.info().activity_type,
                target_id=order.target,
                target=target,
                message=await self._message(mine, target, carries=order.carries),
                resend=mine.resend,
                has_fallback=order.has_fallback,
            )
            return await self._delivery.deliver(effect, place)

    async def _get(self, job: JobRef) -> Notification:
        found = await self._notifications.get(job.tenant, job.job_id)
        if found is None:
            msg = f"notification {job.job_id} is not in the store: it was deleted, or this worker uses another database"
            raise failure(FailureKind.REJECTED, "notification_missing", msg)
        return found

    async def _plan(self, mine: Notification, now: datetime) -> tuple[tuple[RoutePlan, ...], tuple[TargetResult, ...]]:
        """Targets by channel in order of preference, and those that are left out with the reason."""
        reachable = await self._targets(mine)
        wishes = await self._people.preferences(mine.tenant, mine.person) if mine.person and not mine.mandatory else []
        suppressed = await self._suppressions.of(reachable)
        usable: list[StoredTarget] = []
        left_out: list[TargetResult] = []
        for target in reachable:
            mine_of = [each for each in suppressed if (each.channel, each.address) == (target.channel, target.address)]
            applying = next((each for each in mine_of if each.applies(target, mine.category, now)), None)
            if target.channel not in self._delivery.configured:
                code, outcome = "channel_not_configured", TargetOutcome.SUPPRESSED
            elif not allowed(wishes, mine.category, target.channel.value):
                code, outcome = "preference", TargetOutcome.MUTED
            elif applying is not None:
                code, outcome = applying.reason.value, TargetOutcome.SUPPRESSED
            else:
                usable.append(target)
                continue
            left_out.append(_left_out(target.target_id, target.channel, outcome, code))
        plans = [
            RoutePlan(
                route=route,
                targets=tuple(
                    PlannedTarget(target=each.target_id, channel=each.channel)
                    for each in usable
                    if each.channel in route.channels
                ),
            )
            for route in mine.routes
        ]
        return tuple(plan for plan in plans if plan.targets), tuple(left_out)

    async def _targets(self, mine: Notification) -> list[StoredTarget]:
        if mine.target_id:
            target = await self._people.target(mine.tenant, mine.target_id)
            return [target] if target else []
        assert mine.person is not None
        wanted = frozenset[ChannelName]().union(*(route.channels for route in mine.routes))
        return [each for each in await self._people.targets(mine.tenant, mine.person) if each.channel in wanted]

    async def _message(self, mine: Notification, target: StoredTarget, *, carries: bool) -> Message:
        unsubscribe = None
        if target.channel is ChannelName.EMAIL and not mine.mandatory:
            unsubscribe = self._unsubscribing.url(mine.tenant, target.target_id, mine.category)
        person = await self._people.get(mine.tenant, mine.person) if mine.person else None
        locale = person.locale if person else None
        carried = await self._notifications.message(mine) if carries else [mine]
        content = self._content(carried, locale, unsubscribe)
        attached = [
            Attachment(each.filename, each.media_type, await self._blobs.get(each.blob_key))
            for one in carried
            for each in one.attachments
            if target.channel is ChannelName.EMAIL
        ]
        return Message(
            effect_id=str(uuid.uuid5(EFFECTS, f"{mine.notification_id}:{target.target_id}")),
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
        items = [render(self._templates, each, locale, None) for each in carried[:DIGEST_ITEMS]]
        shown: list[JsonValue] = [{"subject": each.subject, "text": each.text, "url": each.url or ""} for each in items]
        return self._templates.render(
            DIGEST, locale, {"items": shown, "count": len(carried)}, unsubscribe_url=unsubscribe
        )


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


def _quiet_until(person: Person, now: datetime) -> datetime | None:
    if not (person.quiet_start and person.quiet_end and person.zone):
        return None
    return ends_at(QuietHours.parse(person.quiet_start, person.quiet_end, person.zone), now)


def _left_out(target: str, channel: ChannelName, outcome: TargetOutcome, code: str) -> TargetResult:
    return TargetResult(target=target, channel=channel, outcome=outcome, code=code)
