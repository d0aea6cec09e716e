"""People: where they can be reached, when they want quiet, and what they want to hear of."""

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.addresses import normalised
from contracts.payloads.notification import ChannelName
from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database
from store.dialect import upsert
from store.tables import people, preferences, targets

ANY = "*"  # in a preference: every category, or every channel
TARGETS = uuid.UUID("3f6f2f1e-8a0b-5c7d-9d5e-6a1c0b7e4d21")  # namespace of target ids


@dataclass(frozen=True, slots=True)
class Person:
    """`quiet_start` and `quiet_end` are wall-clock times such as `22:00` in `zone` (IANA), both or neither."""

    tenant: str
    person: str
    locale: str | None = None
    zone: str | None = None
    quiet_start: str | None = None
    quiet_end: str | None = None


@dataclass(frozen=True, slots=True)
class NewTarget:
    """An address to register; see activities/adapters/channels/channel.py for `details`."""

    channel: ChannelName
    address: str
    details: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredTarget:
    """`person` is None for an address that a notification named without saying whose it is."""

    target_id: str
    tenant: str
    person: str | None
    channel: ChannelName
    address: str
    details: Mapping[str, JsonValue]
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Preference:
    """`category` and `channel` may be `*`."""

    category: str
    channel: str
    allowed: bool


def allowed(wishes: Iterable[Preference], category: str, channel: str) -> bool:
    """What the person wants: the most specific preference counts, a category before a channel; none is yes."""
    said = {(wish.category, wish.channel): wish.allowed for wish in wishes}
    for key in ((category, channel), (category, ANY), (ANY, channel), (ANY, ANY)):
        if key in said:
            return said[key]
    return True


def target_id_of(tenant: str, channel: ChannelName, address: str) -> str:
    """The id of a normalised address, a UUID's text: the same when it is registered again, as old mails link to it."""
    return str(uuid.uuid5(TARGETS, json.dumps([tenant, channel.value, address])))


class People:
    """Queries on people, their targets and their preferences."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def put(
        self, person: Person, reachable: Iterable[NewTarget] | None = None, wishes: Iterable[Preference] | None = None
    ) -> None:
        """Make or replace a person. Targets and preferences that are given replace those there were; None keeps them.

        A target that stays keeps its id; being named again counts as a new registration, so that a dead token that the
        device still reports is used again.
        """
        now = micros(self._clock.now())
        values = {name: getattr(person, name) for name in ("locale", "zone", "quiet_start", "quiet_end")}
        who = {"tenant": person.tenant, "person": person.person}
        async with self._database.write() as connection:
            row = upsert(connection.dialect)(people).values(**who, **values, updated_at=now)
            await connection.execute(
                row.on_conflict_do_update(index_elements=["tenant", "person"], set_=values | {"updated_at": now})
            )
            if reachable is not None:
                kept = [
                    (await self.register(connection, person.tenant, person.person, each)).target_id
                    for each in reachable
                ]
                await connection.execute(
                    delete(targets).where(
                        targets.c.tenant == person.tenant,
                        targets.c.person == person.person,
                        targets.c.target_id.not_in(kept),
                    )
                )
            if wishes is not None:
                await connection.execute(
                    delete(preferences).where(
                        preferences.c.tenant == person.tenant, preferences.c.person == person.person
                    )
                )
                rows = {(wish.category, wish.channel): wish.allowed for wish in wishes}
                for (category, channel), wanted in rows.items():
                    await connection.execute(
                        insert(preferences).values(**who, category=category, channel=channel, allowed=wanted)
                    )

    async def get(self, tenant: str, person: str, connection: AsyncConnection | None = None) -> Person | None:
        """The person, or None."""
        if connection is None:
            async with self._database.read() as own:
                return await self.get(tenant, person, own)
        query = select(people).where(people.c.tenant == tenant, people.c.person == person)
        row = (await connection.execute(query)).mappings().first()
        if row is None:
            return None
        return Person(**{name: row[name] for name in Person.__dataclass_fields__})

    async def preferences(self, tenant: str, person: str) -> list[Preference]:
        """What the person said."""
        query = select(preferences.c.category, preferences.c.channel, preferences.c.allowed)
        query = query.where(preferences.c.tenant == tenant, preferences.c.person == person)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(preferences.c.category, preferences.c.channel))
            return [Preference(*row) for row in rows]

    async def register(
        self, connection: AsyncConnection, tenant: str, person: str | None, new: NewTarget
    ) -> StoredTarget:
        """Add an address, normalised, within the caller's write transaction, or find it.

        With a person it becomes that person's, whoever had it, and counts as registered now: a shared device belongs to
        who logged in last. Without one, an address that is known stays as it is.
        """
        now = micros(self._clock.now())
        address = normalised(new.channel, new.address)
        same = (targets.c.tenant == tenant, targets.c.channel == new.channel.value, targets.c.address == address)
        found = (await connection.execute(select(targets).where(*same))).mappings().first()
        details = dict(new.details)
        if found is None:
            values = {
                "target_id": target_id_of(tenant, new.channel, address),
                "tenant": tenant,
                "person": person,
                "channel": new.channel.value,
                "address": address,
                "details": details,
                "registered_at": now,
            }
            row = upsert(connection.dialect)(targets).values(values)
            await connection.execute(row.on_conflict_do_nothing())
        elif person is not None or (details and details != found["details"]):
            await connection.execute(
                update(targets)
                .where(*same)
                .values(person=person or found["person"], details=details, registered_at=now)
            )
        return _target((await connection.execute(select(targets).where(*same))).mappings().one())

    async def register_many(self, connection: AsyncConnection, tenant: str, new: Sequence[NewTarget]) -> list[str]:
        """Add at most MAX_ROWS_PER_WRITE addresses as `register` does without a person; their ids, in order.

        Of an address that is named twice the first counts.
        """
        assert len(new) <= MAX_ROWS_PER_WRITE
        if not new:
            return []
        now = micros(self._clock.now())
        ids: list[str] = []
        wanted: dict[str, dict[str, Any]] = {}
        for each in new:
            address = normalised(each.channel, each.address)
            target_id = target_id_of(tenant, each.channel, address)
            ids.append(target_id)
            wanted.setdefault(
                target_id,
                {
                    "target_id": target_id,
                    "tenant": tenant,
                    "person": None,
                    "channel": each.channel.value,
                    "address": address,
                    "details": dict(each.details),
                    "registered_at": now,
                },
            )
        row = upsert(connection.dialect)(targets).on_conflict_do_nothing().returning(targets.c.target_id)
        rows = [wanted[each] for each in sorted(wanted)]  # one order for all, or two batches could deadlock
        made = set((await connection.execute(row, rows)).scalars())
        known = await self._known(connection, tenant, [each for each in rows if each["target_id"] not in made])
        for target_id, (found_id, details) in known.items():
            given = wanted[target_id]["details"]
            if given and given != details:
                await connection.execute(
                    update(targets).where(targets.c.target_id == found_id).values(details=given, registered_at=now)
                )
        return [known[each][0] if each in known else each for each in ids]

    async def _known(
        self, connection: AsyncConnection, tenant: str, rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, tuple[str, Any]]:
        """Id and details of the targets of these rows' addresses, by the id that the address would get today.

        They differ where a vendor moved a target to the address: see `move_target`.
        """
        if not rows:
            return {}
        ids = [each["target_id"] for each in rows]
        known: dict[str, tuple[str, Any]] = {}
        query = select(targets.c.target_id, targets.c.details)
        for found in await connection.execute(query.where(targets.c.target_id.in_(ids))):
            known[found.target_id] = (found.target_id, found.details)
        for each in rows:
            if each["target_id"] not in known:
                same = (targets.c.channel == each["channel"], targets.c.address == each["address"])
                moved = (await connection.execute(query.where(targets.c.tenant == tenant, *same))).first()
                if moved is not None:  # else somebody removes it at this moment, and nobody is there to be reached
                    known[each["target_id"]] = (moved.target_id, moved.details)
        return known

    async def add_target(self, tenant: str, person: str, new: NewTarget) -> StoredTarget:
        """Register one more address of a person."""
        async with self._database.write() as connection:
            return await self.register(connection, tenant, person, new)

    async def targets(self, tenant: str, person: str) -> list[StoredTarget]:
        """All addresses, oldest registration first."""
        query = select(targets).where(targets.c.tenant == tenant, targets.c.person == person)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(targets.c.registered_at, targets.c.target_id))
            return [_target(row) for row in rows.mappings()]

    async def target(self, tenant: str, target_id: str) -> StoredTarget | None:
        """One address; None if it was removed."""
        query = select(targets).where(targets.c.tenant == tenant, targets.c.target_id == target_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _target(row) if row else None

    async def among(self, tenant: str, persons: Collection[str]) -> dict[str, Person]:
        """Those of `persons` that there are, by id."""
        query = select(people).where(people.c.tenant == tenant, people.c.person.in_(persons))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return {row["person"]: Person(**{name: row[name] for name in Person.__dataclass_fields__}) for row in rows}

    async def targets_among(
        self, tenant: str, *, persons: Collection[str] = (), target_ids: Collection[str] = ()
    ) -> list[StoredTarget]:
        """Addresses of any of these persons, or of these ids; oldest registration first."""
        wanted = or_(targets.c.person.in_(persons), targets.c.target_id.in_(target_ids))
        query = select(targets).where(targets.c.tenant == tenant, wanted)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(targets.c.registered_at, targets.c.target_id))
            return [_target(row) for row in rows.mappings()]

    async def preferences_among(self, tenant: str, persons: Collection[str]) -> dict[str, list[Preference]]:
        """What each of them said, by person; nobody who said nothing."""
        query = select(preferences).where(preferences.c.tenant == tenant, preferences.c.person.in_(persons))
        found: dict[str, list[Preference]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                found.setdefault(row.person, []).append(Preference(row.category, row.channel, row.allowed))
        return found

    async def move_target(self, target: StoredTarget, address: str) -> None:
        """Use another address for a target from now on, as its vendor says; unless that is a target already."""
        taken = select(targets.c.target_id).where(
            targets.c.tenant == target.tenant, targets.c.channel == target.channel.value, targets.c.address == address
        )
        async with self._database.write() as connection:
            await connection.execute(
                update(targets).where(targets.c.target_id == target.target_id, ~taken.exists()).values(address=address)
            )

    async def remove_target(self, tenant: str, person: str, target_id: str) -> bool:
        """Forget an address; false if there was none."""
        async with self._database.write() as connection:
            done = await connection.execute(
                delete(targets).where(
                    targets.c.tenant == tenant, targets.c.person == person, targets.c.target_id == target_id
                )
            )
        return done.rowcount > 0


def _target(row: RowMapping) -> StoredTarget:
    return StoredTarget(
        target_id=row["target_id"],
        tenant=row["tenant"],
        person=row["person"],
        channel=ChannelName(row["channel"]),
        address=row["address"],
        details=row["details"],
        registered_at=from_micros(row["registered_at"]),
    )
