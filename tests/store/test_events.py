import asyncio
from datetime import date, datetime, timedelta

import pytest

from contracts.payloads.job import JobState
from contracts.payloads.notification import Route
from runtime.clock import FixedClock
from store.broadcasts import Broadcast, Broadcasts
from store.database import Database
from store.digests import Digest, Digests, DigestSettings, Unsent, Waiting, Written
from store.events import Event, Events, Heard, Received, Window
from store.ids import new_id
from store.jobs import Jobs, NewJob
from store.recipients import Recipient, Recipients
from tests.store.conftest import NOW

MINUTE = timedelta(minutes=1)
DAY = date(2026, 11, 24)
ALWAYS = Window(None, NOW + timedelta(days=365))


@pytest.fixture
def events(database: Database, clock: FixedClock) -> Events:
    return Events(database, clock)


@pytest.fixture
def digests(database: Database, clock: FixedClock) -> Digests:
    return Digests(database, clock)


def event(event_id: str, person: str = "ada", title: str = "", at: datetime | None = None) -> Event:
    return Event(event_id, person, "comment_added", title or f"Title {event_id}", "Text", "https://a.example/1", at)


async def heard(
    events: Events, tenant: str = "acme", window: Window = ALWAYS, **more: int
) -> list[tuple[str, list[str], int]]:
    found = await events.heard(tenant, window, beyond=None, **({"persons": 200, "newest": 50} | more))
    return [(each.person, [one.event_id for one in each.newest], each.count) for each in found]


async def mark(database: Database, digests: Digests, tenant: str, day: date, until: datetime) -> bool:
    async with database.write() as connection:
        return await digests.add(connection, tenant=tenant, day=day, until=until, broadcast_id=None, people=0)


@pytest.mark.asyncio
async def test_an_id_is_stored_once_per_tenant_and_the_first_one_stays(events: Events) -> None:
    assert await events.add("acme", [event("1", title="First"), event("2"), event("1", title="Twice")]) == Received(
        2, 1
    )
    assert await events.add("acme", [event("1", title="Again"), event("3")]) == Received(1, 1)
    assert await events.add("globex", [event("1", title="Theirs")]) == Received(1, 0)
    found = await events.heard("acme", ALWAYS, beyond=None, persons=9, newest=9)
    assert [(one.event_id, one.title) for one in found[0].newest] == [
        ("1", "First"),
        ("2", "Title 2"),
        ("3", "Title 3"),
    ]
    assert await heard(events, "globex") == [("ada", ["1"], 1)]


@pytest.mark.asyncio
async def test_a_thousand_are_stored_in_transactions_of_two_hundred(
    events: Events, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    pauses: list[float] = []
    add = events._add
    sleep = asyncio.sleep

    async def counted(tenant: str, batch: list[Event]) -> int:
        sizes.append(len(batch))
        return await add(tenant, batch)

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(events, "_add", counted)
    monkeypatch.setattr("store.events.asyncio.sleep", slept)
    assert await events.add("acme", [event(str(number)) for number in range(901)]) == Received(901, 0)
    assert sizes == [200, 200, 200, 200, 101]
    assert [each for each in pauses if each] == [0.02] * 4
    assert await heard(events, newest=1) == [("ada", ["0"], 901)]


@pytest.mark.asyncio
async def test_two_requests_with_the_same_ids_in_two_orders_store_each_once(events: Events) -> None:
    rows = [event(f"{number:03}") for number in range(200)]
    results = await asyncio.gather(*(events.add("acme", batch) for batch in (rows, rows[::-1], rows, rows[::-1])))
    assert (sum(each.stored for each in results), sum(each.known for each in results)) == (200, 600)


@pytest.mark.asyncio
async def test_a_person_hears_the_newest_first_and_how_many_there_are(events: Events, clock: FixedClock) -> None:
    late = [event(f"l{number}", at=NOW - number * MINUTE) for number in range(3)]
    await events.add("acme", [*late, event("g", "grace"), event("n")])
    clock.advance(MINUTE)
    await events.add("acme", [event("z", "zoe")])
    assert await heard(events, newest=3) == [
        ("ada", ["l0", "n", "l1"], 4),  # of the same moment, by id
        ("grace", ["g"], 1),
        ("zoe", ["z"], 1),
    ]
    assert [each[0] for each in await heard(events, persons=2)] == ["ada", "grace"]
    (last,) = await events.heard("acme", ALWAYS, beyond="grace", persons=9, newest=9)
    assert last == Heard("zoe", (event("z", "zoe", at=NOW + MINUTE),), 1)


@pytest.mark.asyncio
async def test_a_window_begins_after_one_moment_and_holds_the_other(events: Events, clock: FixedClock) -> None:
    for number in range(4):
        await events.add("acme", [event(str(number))])
        clock.advance(MINUTE)
    assert await heard(events, window=Window(NOW, NOW + 2 * MINUTE)) == [("ada", ["2", "1"], 2)]
    assert await heard(events, window=Window(NOW + 3 * MINUTE, NOW + 9 * MINUTE)) == []


@pytest.mark.asyncio
async def test_who_waits_is_who_has_events_that_no_digest_covers(
    database: Database, events: Events, digests: Digests, clock: FixedClock
) -> None:
    for tenant in ("acme", "busy", "calm", "globex"):
        await events.add(tenant, [event("1")])
    clock.advance(MINUTE)
    await events.add("busy", [event("2")])
    await digests.set("acme", DigestSettings(enabled=False))
    await digests.set("globex", DigestSettings(True, "Asia/Kolkata", "07:30"))
    for tenant in ("busy", "calm"):
        assert await mark(database, digests, tenant, DAY, NOW)
    busy = Waiting("busy", DigestSettings(), NOW + MINUTE)
    globex = Waiting("globex", DigestSettings(True, "Asia/Kolkata", "07:30"), NOW)
    assert await digests.waiting(beyond="", limit=9) == ([busy, globex], None)
    assert await digests.waiting(beyond="", limit=2) == ([busy], "busy")
    assert await digests.waiting(beyond="busy", limit=2) == ([globex], "globex")
    assert await digests.waiting(beyond="globex", limit=2) == ([], None)
    await digests.set("acme", DigestSettings())
    assert await digests.waiting(beyond="", limit=1) == ([Waiting("acme", DigestSettings(), NOW)], "acme")
    assert await digests.settings("acme") == DigestSettings(True, "America/New_York", "08:00")
    assert await digests.settings("unknown") == DigestSettings()


@pytest.mark.asyncio
async def test_a_day_is_done_once_and_the_latest_moment_counts(database: Database, digests: Digests) -> None:
    assert await digests.covered("acme") is None
    assert await mark(database, digests, "acme", DAY, NOW + MINUTE)
    assert not await mark(database, digests, "acme", DAY, NOW + 9 * MINUTE)
    assert await mark(database, digests, "acme", DAY + timedelta(days=1), NOW)  # the tenant moved west
    assert await digests.covered("acme") == NOW + MINUTE
    assert await digests.get("acme", DAY) == Digest("acme", DAY, NOW + MINUTE, None, 0, NOW)
    assert await digests.get("globex", DAY) is None


@pytest.mark.asyncio
async def test_a_stored_broadcast_that_was_not_started_is_found_until_it_expires(
    database: Database, digests: Digests, jobs: Jobs, clock: FixedClock
) -> None:
    broadcasts, broadcast_id = Broadcasts(database, clock), new_id()
    expires_at = NOW + timedelta(hours=24)
    async with database.write() as connection:
        await digests.add(connection, tenant="acme", day=DAY, until=NOW, broadcast_id=broadcast_id, people=1)
        await broadcasts.add(
            connection, Broadcast(broadcast_id, "acme", "s", 1, "digest", (Route.EMAIL,), NOW, expires_at)
        )
        await jobs.submit(connection, NewJob(broadcast_id, "acme", "broadcast", "broadcast:acme:1"))
    assert await digests.unsent(NOW) == [Unsent(Digest("acme", DAY, NOW, broadcast_id, 1, NOW), expires_at)]
    assert await digests.unsent(expires_at) == []
    await jobs.started(broadcast_id, "run-1")
    assert await digests.unsent(NOW) == []
    found = await jobs.get("acme", broadcast_id)
    assert found is not None
    assert found.state is JobState.RUNNING


@pytest.mark.asyncio
async def test_how_far_a_set_is_written(database: Database, digests: Digests, clock: FixedClock) -> None:
    recipients = Recipients(database, clock)
    assert await digests.written("s") == Written()
    async with database.write() as connection:
        await recipients.begin(connection, "acme", "s")
        await recipients.add(connection, "s", [Recipient(line, person=f"p{line}") for line in (1, 2, 10)])
        assert await digests.size(connection, "s") == 3
    assert await digests.written("s") == Written(10, "p10")
