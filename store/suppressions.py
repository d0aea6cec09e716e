"""Addresses that must not be used: bounced, unsubscribed, complained about, dead."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, func, or_, select
from sqlalchemy.engine import RowMapping

from contracts.payloads.notification import ChannelName
from runtime.clock import Clock, from_micros, micros
from store.database import Database
from store.people import ANY, StoredTarget, upsert
from store.tables import suppressions

SOFT_BOUNCES = 5  # messages that a full mailbox refused until they expired, before the address rests
SOFT_BOUNCE_REST = timedelta(days=30)
GUARD_WINDOW = timedelta(hours=1)


class Reason(StrEnum):
    """`dead`: the vendor says so; a later registration brings it back. `mailbox_full` rests for 30 days."""

    BOUNCED = "bounced"
    UNSUBSCRIBED = "unsubscribed"
    COMPLAINED = "complained"
    DEAD = "dead"
    MAILBOX_FULL = "mailbox_full"


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
    ) -> None:
        """Do not use this address any more; a second time renews it and counts.

        Raises:
            TooManyDrops: for DEAD, when `max_drops_an_hour` others of the channel died within the hour.
        """
        now = self._clock.now()
        async with self._database.write() as connection:
            if reason is Reason.DEAD:
                recent = select(func.count()).where(
                    suppressions.c.channel == channel.value,
                    suppressions.c.reason == reason.value,
                    suppressions.c.created_at > micros(now - GUARD_WINDOW),
                )
                if ((await connection.execute(recent)).scalar() or 0) >= self._max_drops_an_hour:
                    msg = (
                        f"{self._max_drops_an_hour} addresses of the channel {channel.value} were dropped within an "
                        "hour; no more are until it is over. Check the channel's credentials and environment"
                    )
                    raise TooManyDrops(msg)
            values = {
                "reason": reason.value,
                "detail": detail,
                "dead_since": micros(dead_since) if dead_since else None,
                "created_at": micros(now),
            }
            row = upsert(connection.dialect)(suppressions).values(
                tenant=tenant, channel=channel.value, address=address, category=category, count=1, **values
            )
            again = values | {"count": suppressions.c.count + 1}
            keep = suppressions.c.reason.in_([Reason.DEAD.value, Reason.MAILBOX_FULL.value])
            await connection.execute(
                row.on_conflict_do_update(
                    index_elements=["tenant", "channel", "address", "category"],
                    set_=again,
                    # a full mailbox must not turn an unsubscription into something that ends
                    where=keep if reason in {Reason.DEAD, Reason.MAILBOX_FULL} else None,
                )
            )

    async def remove(self, tenant: str, channel: ChannelName, address: str, category: str = ANY) -> bool:
        """Use it again; false if it was not suppressed."""
        async with self._database.write() as connection:
            done = await connection.execute(
                delete(suppressions).where(
                    suppressions.c.tenant == tenant,
                    suppressions.c.channel == channel.value,
                    suppressions.c.address == address,
                    suppressions.c.category == category,
                )
            )
        return done.rowcount > 0

    async def of(self, reachable: Iterable[StoredTarget]) -> list[Suppression]:
        """Every suppression of these targets, applying or not."""
        wanted = [
            (suppressions.c.tenant == each.tenant)
            & (suppressions.c.channel == each.channel.value)
            & (suppressions.c.address == each.address)
            for each in reachable
        ]
        if not wanted:
            return []
        async with self._database.read() as connection:
            rows = await connection.execute(select(suppressions).where(or_(*wanted)))
            return [_suppression(row) for row in rows.mappings()]

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
