"""Notifications: what is to be said to whom. Workflows carry only their ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.payloads.job import JobState
from contracts.payloads.notification import Route
from runtime.clock import Clock, from_micros, micros
from store.database import Database, advisory_lock
from store.tables import jobs, notifications


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A blob that goes with a mail."""

    filename: str
    media_type: str
    blob_key: str


@dataclass(frozen=True, slots=True)
class Notification:
    """`person` or `target_id` says to whom; `template` with `data`, or `content`, says what.

    `routes` in order of preference; with `every` all of them. `mandatory` ones ignore preferences. `resend` is the
    policy after a lost reply of a channel that cannot recognise a repetition. `deferred_until` is the end of the last
    quiet hours it waited for, `woke_at` when it went on after them, `merged_into` the notification that carries this
    one's message.
    """

    notification_id: UUID
    tenant: str
    category: str
    routes: tuple[Route, ...]
    created_at: datetime
    expires_at: datetime
    person: str | None = None
    target_id: str | None = None
    urgent: bool = False
    mandatory: bool = False
    every: bool = False
    resend: bool = True
    template: str | None = None
    content: Mapping[str, JsonValue] | None = None
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    attachments: tuple[AttachedFile, ...] = ()
    deferred_until: datetime | None = None
    woke_at: datetime | None = None
    merged_into: UUID | None = None


class Notifications:
    """Queries on notifications."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, connection: AsyncConnection, new: Notification) -> None:
        """Store it, in the transaction that stores its job."""
        await connection.execute(
            insert(notifications).values(
                notification_id=str(new.notification_id),
                tenant=new.tenant,
                person=new.person,
                target_id=new.target_id,
                category=new.category,
                urgent=new.urgent,
                mandatory=new.mandatory,
                routes=[route.value for route in new.routes],
                every=new.every,
                resend=new.resend,
                template=new.template,
                content=dict(new.content) if new.content is not None else None,
                data=dict(new.data),
                attachments=[[each.filename, each.media_type, each.blob_key] for each in new.attachments],
                created_at=micros(new.created_at),
                expires_at=micros(new.expires_at),
            )
        )

    async def get(self, tenant: str, notification_id: UUID) -> Notification | None:
        """The notification, or None once it was deleted."""
        query = select(notifications).where(
            notifications.c.notification_id == str(notification_id), notifications.c.tenant == tenant
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _notification(row) if row else None

    async def defer(self, notification_id: UUID, until: datetime) -> None:
        """Note that it waits, so that others that wait for the same person can be merged with it."""
        async with self._database.write() as connection:
            await connection.execute(
                update(notifications)
                .where(notifications.c.notification_id == str(notification_id))
                .values(deferred_until=micros(until))
            )

    async def waiting(self, mine: Notification, *, until: datetime, limit: int) -> list[Notification]:
        """Others for the same person that could go with `mine`, oldest first.

        They waited until `until` or less and go by the same routes; they are neither under way nor carried nor expired,
        their jobs are open, and they are neither mandatory nor have attachments.
        """
        query = (
            select(notifications)
            .join(jobs, jobs.c.job_id == notifications.c.notification_id)
            .where(
                notifications.c.tenant == mine.tenant,
                notifications.c.person == mine.person,
                notifications.c.deferred_until.is_not(None),
                notifications.c.deferred_until <= micros(until),
                notifications.c.woke_at.is_(None),
                notifications.c.merged_into.is_(None),
                notifications.c.expires_at > micros(self._clock.now()),
                notifications.c.mandatory.is_(False),
                notifications.c.every.is_(mine.every),
                notifications.c.notification_id != str(mine.notification_id),
                jobs.c.state.in_([JobState.SUBMITTED.value, JobState.RUNNING.value]),
            )
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(notifications.c.created_at).limit(limit))
            found = [_notification(row) for row in rows.mappings()]
        return [each for each in found if not each.attachments]

    async def merge(self, mine: Notification, others: Sequence[UUID]) -> tuple[UUID | None, tuple[UUID, ...]]:
        """Go on, with those of `others` that nobody else carries; of two that race one gets each.

        The first call decides, a repetition gives the same answer.

        Returns:
            Who carries `mine` already, or None; and what `mine` carries, oldest first.
        """
        me = str(mine.notification_id)
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:merge:{mine.tenant}:{mine.person}")
            before = (
                await connection.execute(
                    select(notifications.c.merged_into, notifications.c.woke_at).where(
                        notifications.c.notification_id == me
                    )
                )
            ).one()
            if before.merged_into is not None:
                return UUID(before.merged_into), ()
            if before.woke_at is None:
                await connection.execute(
                    update(notifications)
                    .where(
                        notifications.c.notification_id.in_([str(each) for each in others]),
                        notifications.c.merged_into.is_(None),
                        notifications.c.woke_at.is_(None),
                    )
                    .values(merged_into=me)
                )
                await connection.execute(
                    update(notifications)
                    .where(notifications.c.notification_id == me)
                    .values(woke_at=micros(self._clock.now()))
                )
            carried = await connection.execute(
                select(notifications.c.notification_id)
                .where(notifications.c.merged_into == me)
                .order_by(notifications.c.created_at)
            )
            return None, tuple(UUID(each) for each in carried.scalars())

    async def go_alone(self, mine: Notification, carrier: UUID) -> None:
        """Leave a carrier that reached nobody."""
        async with self._database.write() as connection:
            await connection.execute(
                update(notifications)
                .where(
                    notifications.c.notification_id == str(mine.notification_id),
                    notifications.c.merged_into == str(carrier),
                )
                .values(merged_into=None)
            )

    async def message(self, mine: Notification) -> list[Notification]:
        """`mine` and what it carries that is neither expired nor cancelled, oldest first."""
        me = str(mine.notification_id)
        carried = and_(notifications.c.merged_into == me, jobs.c.state != JobState.CANCELLED.value)
        query = (
            select(notifications)
            .outerjoin(jobs, jobs.c.job_id == notifications.c.notification_id)
            .where(or_(notifications.c.notification_id == me, carried))
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(notifications.c.created_at, notifications.c.notification_id))
            found = [_notification(row) for row in rows.mappings()]
        now = self._clock.now()
        return [each for each in found if each.expires_at > now or each.notification_id == mine.notification_id]


def _notification(row: RowMapping) -> Notification:
    values: dict[str, Any] = {**row}
    values["notification_id"] = UUID(row["notification_id"])
    values["merged_into"] = UUID(row["merged_into"]) if row["merged_into"] else None
    values["routes"] = tuple(Route(each) for each in row["routes"])
    values["attachments"] = tuple(AttachedFile(*each) for each in row["attachments"])
    for name in ("created_at", "expires_at", "deferred_until", "woke_at"):
        values[name] = from_micros(row[name]) if row[name] is not None else None
    return Notification(**values)
