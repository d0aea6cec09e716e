import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from contracts.payloads.job import JobRef, JobState, RecordJob
from contracts.payloads.notification import Route
from runtime.clock import FixedClock
from store.database import Database
from store.ids import new_id
from store.jobs import Jobs, NewJob
from store.notifications import AttachedFile, Notification, Notifications

HOUR = timedelta(hours=1)


@pytest.fixture
def notifications(database: Database, clock: FixedClock) -> Notifications:
    return Notifications(database, clock)


@pytest.fixture
def plain(clock: FixedClock) -> Notification:
    return Notification(
        notification_id=new_id(),
        tenant="acme",
        category="news",
        routes=(Route.PUSH, Route.EMAIL),
        created_at=clock.now(),
        expires_at=clock.now() + 24 * HOUR,
        person="ada",
        content={"subject": "Hi", "text": "there"},
    )


async def add(database: Database, notifications: Notifications, new: Notification) -> UUID:
    job = NewJob(new.notification_id, new.tenant, "notification", f"notification:{new.notification_id}", new.person)
    async with database.write() as connection:
        await notifications.add(connection, new)
        await Jobs(database, FixedClock(new.created_at)).submit(connection, job)
    return new.notification_id


@pytest.mark.asyncio
async def test_every_field_comes_back(database: Database, notifications: Notifications, plain: Notification) -> None:
    full = replace(
        plain,
        person=None,
        target_id="t-1",
        urgent=True,
        mandatory=True,
        every=True,
        resend=False,
        template="welcome",
        content=None,
        data={"name": "Ada", "n": [1, None]},
        attachments=(AttachedFile("a.pdf", "application/pdf", "files/acme/1"),),
    )
    for new in (full, replace(plain, notification_id=new_id())):
        await add(database, notifications, new)
        assert await notifications.get("acme", new.notification_id) == new
        assert await notifications.get("globex", new.notification_id) is None


async def deferred(
    database: Database, notifications: Notifications, plain: Notification, until_hours: float = 8, **more: object
) -> UUID:
    made = await add(database, notifications, replace(plain, notification_id=new_id(), **more))  # type: ignore[arg-type]
    await notifications.defer(made, plain.created_at + until_hours * HOUR)
    return made


async def close(database: Database, job_id: UUID, state: JobState) -> None:
    now = datetime(2026, 11, 24, 10, tzinfo=UTC)
    ref = JobRef(job_id=job_id, tenant="acme")
    order = RecordJob(job=ref, state=state, first_run_id="r", started_at=now, at=now)
    assert await Jobs(database, FixedClock(now)).record(order)


@pytest.mark.asyncio
async def test_only_what_waits_for_the_same_person_can_be_merged(
    database: Database, notifications: Notifications, plain: Notification, clock: FixedClock
) -> None:
    await add(database, notifications, plain)
    one = await deferred(database, notifications, plain)
    await deferred(database, notifications, plain, person="grace")
    await deferred(database, notifications, plain, tenant="globex")
    await deferred(database, notifications, plain, until_hours=9)
    await deferred(database, notifications, plain, expires_at=plain.created_at + 2 * HOUR)
    await deferred(database, notifications, plain, mandatory=True)
    await deferred(database, notifications, plain, every=True)
    await deferred(database, notifications, plain, attachments=(AttachedFile("a", "text/plain", "k"),))
    await close(database, await deferred(database, notifications, plain), JobState.CANCELLED)
    await add(database, notifications, replace(plain, notification_id=new_id()))
    later = replace(plain, notification_id=new_id(), created_at=plain.created_at + HOUR)
    two = await add(database, notifications, later)
    await notifications.defer(two, plain.created_at + 8 * HOUR)
    clock.advance(8 * HOUR)
    found = await notifications.waiting(plain, until=clock.now(), limit=10)
    assert [each.notification_id for each in found] == [one, two]
    assert [each.notification_id for each in await notifications.waiting(plain, until=clock.now(), limit=1)] == [one]


@pytest.mark.asyncio
async def test_merging_again_gives_the_same_answer_and_a_carried_one_learns_by_whom(
    database: Database, notifications: Notifications, plain: Notification
) -> None:
    mine = await deferred(database, notifications, plain)
    other = await deferred(database, notifications, plain, created_at=plain.created_at + HOUR)
    me, it = await notifications.get("acme", mine), await notifications.get("acme", other)
    assert me and it
    for _ in range(2):
        assert await notifications.merge(me, [other]) == (None, (other,))
    assert await notifications.merge(it, [mine]) == (mine, ())
    assert [each.notification_id for each in await notifications.message(me)] == [mine, other]
    assert await notifications.waiting(me, until=plain.created_at + 99 * HOUR, limit=10) == []


@pytest.mark.asyncio
async def test_who_went_on_takes_nobody_else_with_it(
    database: Database, notifications: Notifications, plain: Notification
) -> None:
    mine = await deferred(database, notifications, plain)
    me = await notifications.get("acme", mine)
    assert me
    assert await notifications.merge(me, []) == (None, ())
    late = await deferred(database, notifications, plain)
    assert await notifications.merge(me, [late]) == (None, ())
    it = await notifications.get("acme", late)
    assert it
    assert await notifications.merge(it, [mine]) == (None, ())


@pytest.mark.asyncio
async def test_who_leaves_its_carrier_can_carry_and_be_carried(
    database: Database, notifications: Notifications, plain: Notification
) -> None:
    ids = [
        await deferred(database, notifications, plain, created_at=plain.created_at + place * HOUR) for place in range(3)
    ]
    rows = [await notifications.get("acme", each) for each in ids]
    carrier, one, two = (row for row in rows if row)
    assert await notifications.merge(carrier, ids[1:]) == (None, (ids[1], ids[2]))
    for each in (one, two):
        await notifications.go_alone(each, ids[0])
    await notifications.go_alone(two, ids[1])  # not its carrier
    assert await notifications.merge(one, [ids[2]]) == (None, (ids[2],))
    assert await notifications.merge(two, []) == (ids[1], ())


@pytest.mark.asyncio
async def test_what_expired_meanwhile_is_left_out_of_the_message(
    database: Database, notifications: Notifications, plain: Notification, clock: FixedClock
) -> None:
    mine = await deferred(database, notifications, plain, expires_at=plain.created_at + HOUR)
    others = [
        await deferred(
            database,
            notifications,
            plain,
            created_at=plain.created_at + HOUR,
            expires_at=plain.created_at + hours * HOUR,
        )
        for hours in (2, 24)
    ]
    me = await notifications.get("acme", mine)
    assert me
    await notifications.merge(me, others)
    clock.advance(3 * HOUR)
    assert [each.notification_id for each in await notifications.message(me)] == [mine, others[1]]


@pytest.mark.asyncio
async def test_of_many_that_wake_at_once_each_message_is_carried_exactly_once(
    database: Database, notifications: Notifications, plain: Notification
) -> None:
    ids = [await deferred(database, notifications, plain) for _ in range(8)]
    rows = [await notifications.get("acme", each) for each in ids]

    async def wake(mine: Notification) -> tuple[UUID | None, tuple[UUID, ...]]:
        return await notifications.merge(mine, [each for each in ids if each != mine.notification_id])

    answers = await asyncio.gather(*(wake(row) for row in rows if row))
    carriers = [index for index, (into, _) in enumerate(answers) if into is None]
    assert len(carriers) == 1
    assert set(answers[carriers[0]][1]) | {ids[carriers[0]]} == set(ids)
    assert {into for into, _ in answers} == {None, ids[carriers[0]]}
