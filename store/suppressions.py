"""Addresses that must not be used: bounced, unsubscribed, complained about, dead."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import case, delete, func, select, tuple_
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.payloads.notification import ChannelName
from runtime.clock import Clock, from_micros, micros
from store.database import Database
from store.dialect import upsert
from store.people import ANY, StoredTarget
from store.tables import suppressions

SOFT_BOUNCES = 5  # messages that a full mailbox refused until they expired, before the address rests
SOFT_BOUNCE_REST = timedelta(days=30)
GUARD_WINDOW = timedelta(hours=1)
DROPS_OF_ALL = 20  # times the limit of one tenant


class Reason(StrEnum):
    """`mailbox_full` rests for 30 days. `dead`: the vendor says so; a later registration brings it back."""

    MAILBOX_FULL = "mailbox_full"
    DEAD = "dead"
    BOUNCED = "bounced"
    UNSUBSCRIBED = "unsubscribed"
    COMPLAINED = "complained"


DROPS = (Reason.DEAD.value, Reason.BOUNCED.value)


class TooManyDrops(Exception):
    """So many addresses of a channel died within an hour that its configuration is more likely wrong than they are."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """`category` `*` is all. `dead_since` is the vendor's time, where it named one."""

    tenant: str
    channel: ChannelName
    address: str
    category: str
    reason: Reason
    detail: str
    count: int
    dead_since: datetime | None
    created_at: datetime

    def applies(self, target: StoredTarget, category: str, now: datetime) -> bool:
        """Whether `target` must not be used for `category` now."""
        if self.category not in {ANY, category}:
            return False
        if self.reason is Reason.DEAD:
            return target.registered_at <= (self.dead_since or self.created_at)
        if self.reason is Reason.MAILBOX_FULL:
            return self.count >= SOFT_BOUNCES and now < self.created_at + SOFT_BOUNCE_REST
        return True


class Suppressions:
    """Queries on suppressions."""

    def __init__(self, database: Database, clock: Clock, *, max_drops_an_hour: int = 500) -> None:
        self._database = database
        self._clock = clock
        self._max_drops_an_hour = max_drops_an_hour

    async def add(
        self,
        tenant: str,
        channel: ChannelName,
        address: str,
        reason: Reason,
        *,
        category: str = ANY,
        detail: str = "",
        dead_since: datetime | None = None,
        guarded: bool = False,
    ) -> None:
        """Do not use this address any more; a second time renews it and counts.

        Full mailboxes more than SOFT_BOUNCE_REST apart do not add up.

        Raises:
            TooManyDrops: `guarded`, and `max_drops_an_hour` addresses of the tenant's channel, or DROPS_OF_ALL times as
                many of the channel, died or bounced within the hour.
        """
        now = self._clock.now()
        async with self._database.write() as connection:
            if guarded:
                await self._guard(connection, tenant, channel, now)
            values = {
                "detail": detail,
                "dead_since": micros(dead_since) if dead_since else None,
                "created_at": micros(now),
            }
            row = upsert(connection.dialect)(suppressions).values(
                tenant=tenant,
                channel=channel.value,
                address=address,
                category=category,
                reason=reason.value,
                count=1,
                **values,
            )
            old = suppressions.c.created_at <= micros(now - SOFT_BOUNCE_REST)
            again = values | {"count": case((old, 1), else_=suppressions.c.count + 1)}
            await connection.execute(
                row.on_conflict_do_update(
                    index_elements=["tenant", "channel", "address", "category", "reason"], set_=again
                )
            )

    async def _guard(self, connection: AsyncConnection, tenant: str, channel: ChannelName, now: datetime) -> None:
        of_all = func.count()
        of_tenant = func.count().filter(suppressions.c.tenant == tenant)
        recent = select(of_tenant, of_all).where(
            suppressions.c.channel == channel.value,
            suppressions.c.reason.in_(DROPS),
            suppressions.c.created_at > micros(now - GUARD_WINDOW),
        )
        tenants, all_together = (await connection.execute(recent)).one()
        limit = self._max_drops_an_hour
        if tenants >= limit or all_together >= limit * DROPS_OF_ALL:
            msg = (
                f"{tenants} addresses of this tenant's channel {channel.value} were dropped within an hour, and "
                f"{all_together} of all tenants; no more are until it is over (HOLDFAST_MAX_DROPS_PER_HOUR). Check the "
                "channel's credentials and environment"
            )
            raise TooManyDrops(msg)

    async def remove(
        self, tenant: str, channel: ChannelName, address: str, category: str = ANY, reason: Reason | None = None
    ) -> bool:
        """Use it again, as far as `reason` or any of them kept it; false if none did."""
        wanted = [suppressions.c.reason == reason.value] if reason else []
        async with self._database.write() as connection:
            done = await connection.execute(
                delete(suppressions).where(
                    suppressions.c.tenant == tenant,
                    suppressions.c.channel == channel.value,
                    suppressions.c.address == address,
                    suppressions.c.category == category,
                    *wanted,
                )
            )
        return done.rowcount > 0

    async def of(self, reachable: Iterable[StoredTarget]) -> list[Suppression]:
        """Every suppression of these targets, applying or not."""
        of_tenant: dict[str, set[tuple[str, str]]] = {}
        for each in reachable:
            of_tenant.setdefault(each.tenant, set()).add((each.channel.value, each.address))
        found = []
        async with self._database.read() as connection:
            for tenant, addresses in of_tenant.items():
                query = select(suppressions).where(
                    suppressions.c.tenant == tenant,
                    tuple_(suppressions.c.channel, suppressions.c.address).in_(addresses),
                )
                found += [_suppression(row) for row in (await connection.execute(query)).mappings()]
        return found

    async def list(self, tenant: str, *, limit: int = 100) -> list[Suppression]:
        """Newest first."""
        query = select(suppressions).where(suppressions.c.tenant == tenant)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(suppressions.c.created_at.desc()).limit(limit))
            return [_suppression(row) for row in rows.mappings()]


def _suppression(row: RowMapping) -> Suppression:
    return Suppression(
        tenant=row["tenant"],
        channel=ChannelName(row["channel"]),
        address=row["address"],
        category=row["category"],
        reason=Reason(row["reason"]),
        detail=row["detail"],
        count=row["count"],
        dead_since=from_micros(row["dead_since"]) if row["dead_since"] is not None else None,
        created_at=from_micros(row["created_at"]),
    )
