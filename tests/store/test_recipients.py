import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import insert

from contracts.payloads.notification import ChannelName
from runtime.clock import FixedClock, micros
from store.database import MAX_ROWS_PER_WRITE, Database
from store.people import NewTarget, People, target_id_of
from store.recipients import Audience, Recipient, Recipients, RecipientSet
from store.tables import audiences
from tests.store.conftest import NOW
from tests.store.test_broadcasts import a_broadcast

pytestmark = pytest.mark.asyncio
EMAIL, FCM, WEB_PUSH = ChannelName.EMAIL, ChannelName.FCM, ChannelName.WEB_PUSH
SECOND = timedelta(seconds=1)


@pytest.fixture
def recipients(database: Database, clock: FixedClock) -> Recipients:
    return Recipients(database, clock)


@pytest.fixture
def people(database: Database, clock: FixedClock) -> People:
    return People(database, clock)


async def a_set(database: Database, recipients: Recipients, set_id: str = "s", *, lines: int = 0) -> None:
    async with database.write() as connection:
        await recipients.begin(connection, "acme", set_id)
    for start in range(1, lines + 1, MAX_ROWS_PER_WRITE):
        batch = [
            Recipient(line, person=f"p{line}") for line in range(start, min(start + MAX_ROWS_PER_WRITE, lines + 1))
        ]
        async with database.write() as connection:
            assert await recipients.add(connection, set_id, batch) == []
    async with database.write() as connection:
        await recipients.complete(connection, set_id, lines, {"recipients": lines})


async def test_who_is_in_a_set_already_is_told_by_line_and_kept_as_first_said(
    database: Database, recipients: Recipients
) -> None:
    ada, token = Recipient(2, person="ada", data={"n": 1}), Recipient(3, target_id="t")
    async with database.write() as connection:
        await recipients.begin(connection, "acme", "s")
        await recipients.begin(connection, "acme", "other")
        batch = [ada, token, Recipient(5, person="ada"), Recipient(6, person="t"), Recipient(7, target_id="t")]
        assert await recipients.add(connection, "s", batch) == [5, 7]
        assert await recipients.add(connection, "s", [Recipient(8, person="ada"), Recipient(9, person="bob")]) == [8]
        assert await recipients.add(connection, "other", [Recipient(8, person="ada")]) == []
        assert await recipients.add(connection, "s", []) == []
    assert await recipients.between("s", 1, 6) == [ada, token, Recipient(6, person="t")]
    assert await recipients.of_lines("s", [9, 2, 4]) == [ada, Recipient(9, person="bob")]


async def test_a_set_has_no_total_until_it_is_complete_and_is_one_tenants(
    database: Database, recipients: Recipients
) -> None:
    async with database.write() as connection:
        await recipients.begin(connection, "acme", "s")
    assert await recipients.get("acme", "s") == RecipientSet("s", "acme", None)
    async with database.write() as connection:
        await recipients.complete(connection, "s", 0, {"bad": {"count": 2}})
    assert await recipients.get("acme", "s") == RecipientSet("s", "acme", 0, {"bad": {"count": 2}})
    assert await recipients.get("globex", "s") is None


async def test_chunks_hold_as_many_recipients_as_asked_whatever_lines_are_missing(
    database: Database, recipients: Recipients
) -> None:
    async with database.write() as connection:
        await recipients.begin(connection, "acme", "s")
        await recipients.add(connection, "s", [Recipient(line, person=f"p{line}") for line in (2, 5, 6, 7, 9, 40, 41)])
    assert await recipients.bounds("s", 1, 3, 2) == [(2, 6), (7, 40)]
    assert await recipients.bounds("s", 41, 3, 2) == [(41, 41)]
    assert await recipients.bounds("s", 42, 3, 2) == []


async def test_a_set_is_dropped_in_batches_and_goes_last(database: Database, recipients: Recipients) -> None:
    await a_set(database, recipients, lines=450)
    await a_set(database, recipients, "kept", lines=3)
    assert await recipients.drop("s") == 200
    assert await recipients.get("acme", "s") is not None
    assert [await recipients.drop("s") for _ in range(4)] == [200, 50, 0, 0]
    assert await recipients.get("acme", "s") is None
    assert len(await recipients.between("kept", 1, 9)) == 3


async def test_an_audience_is_a_name_that_moves_from_set_to_set(
    database: Database, recipients: Recipients, clock: FixedClock
) -> None:
    await a_set(database, recipients, "one", lines=1)
    await a_set(database, recipients, "two", lines=2)
    assert await recipients.save_audience("acme", "vip", "one") is None
    assert await recipients.used("one")
    clock.advance(SECOND)
    assert await recipients.save_audience("acme", "vip", "two") == "one"
    assert not await recipients.used("one")
    assert await recipients.save_audience("acme", "all", "two") is None
    vip = Audience("acme", "vip", "two", 2, NOW + SECOND)
    assert await recipients.audience("acme", "vip") == vip
    assert await recipients.audience("globex", "vip") is None
    assert await recipients.audiences("acme") == [Audience("acme", "all", "two", 2, NOW + SECOND), vip]
    assert await recipients.remove_audience("globex", "vip") is None
    assert [await recipients.remove_audience("acme", "vip") for _ in range(2)] == ["two", None]
    assert await recipients.used("two")


async def test_within_a_transaction_its_own_sets_and_audiences_are_there(
    database: Database, recipients: Recipients
) -> None:
    async with database.write() as connection:
        await recipients.begin(connection, "acme", "s")
        assert await recipients.get("acme", "s", connection) == RecipientSet("s", "acme", None)
        assert await recipients.audience("acme", "vip", connection) is None
        row = {"tenant": "acme", "name": "vip", "set_id": "s", "created_at": micros(NOW)}
        await connection.execute(insert(audiences).values(**row))
        await recipients.complete(connection, "s", 2, {})
        assert await recipients.audience("acme", "vip", connection) == Audience("acme", "vip", "s", 2, NOW)
        assert await recipients.audience("acme", "vip") is None
        assert await recipients.get("acme", "s") is None


async def test_a_set_that_a_broadcast_reads_is_used(database: Database, recipients: Recipients) -> None:
    await a_set(database, recipients, lines=1)
    assert not await recipients.used("s")
    await a_broadcast(database, set_id="s")
    assert await recipients.used("s")


async def register(database: Database, people: People, *new: NewTarget, tenant: str = "acme") -> list[str]:
    async with database.write() as connection:
        return await people.register_many(connection, tenant, new)


async def test_many_addresses_are_registered_at_once_and_their_ids_come_in_order(
    database: Database, people: People, clock: FixedClock
) -> None:
    new = [NewTarget(FCM, f"t{number}") for number in range(198)]
    new += [NewTarget(EMAIL, " Ada@EXAMPLE.com "), NewTarget(FCM, "t7")]
    ids = await register(database, people, *new)
    assert ids[:198] == [target_id_of("acme", FCM, f"t{number}") for number in range(198)]
    assert ids[198:] == [target_id_of("acme", EMAIL, "ada@example.com"), ids[7]]
    clock.advance(SECOND)
    assert await register(database, people, *reversed(new)) == ids[::-1]
    assert await register(database, people) == []
    stored = await people.target("acme", ids[198])
    assert stored is not None
    assert (stored.person, stored.address, stored.registered_at) == (None, "ada@example.com", NOW)
    assert len(await people.targets_among("acme", target_ids=ids)) == 199
    assert (await register(database, people, NewTarget(FCM, "t0"), tenant="globex"))[0] != ids[0]


async def test_an_address_that_is_known_stays_whose_it_is_and_gets_the_details_that_are_given(
    database: Database, people: People, clock: FixedClock
) -> None:
    keys = {"p256dh": "a", "auth": "b"}
    owned = await people.add_target("acme", "ada", NewTarget(WEB_PUSH, "https://p.example/1", keys))
    same = await people.add_target("acme", "ada", NewTarget(WEB_PUSH, "https://p.example/2", keys))
    clock.advance(SECOND)
    ids = await register(
        database,
        people,
        NewTarget(WEB_PUSH, "https://p.example/1", keys | {"auth": "c"}),
        NewTarget(WEB_PUSH, "https://p.example/1", keys | {"auth": "d"}),
        NewTarget(WEB_PUSH, "https://p.example/2", keys),
        NewTarget(WEB_PUSH, "https://p.example/2"),
    )
    assert ids == [owned.target_id] * 2 + [same.target_id] * 2
    changed = await people.target("acme", owned.target_id)
    assert changed is not None
    assert (changed.person, changed.details["auth"], changed.registered_at) == ("ada", "c", NOW + SECOND)
    assert await people.target("acme", same.target_id) == same


async def test_an_address_to_which_a_target_was_moved_is_that_target(database: Database, people: People) -> None:
    first = await people.add_target("acme", "ada", NewTarget(FCM, "old"))
    await people.move_target(first, "new")
    ids = await register(database, people, NewTarget(FCM, "new"), NewTarget(FCM, "old"))
    assert ids == [first.target_id] * 2
    stored = await people.target("acme", first.target_id)
    assert stored is not None
    assert (stored.person, stored.address) == ("ada", "new")


async def test_batches_of_the_same_addresses_do_not_stop_each_other(database: Database, people: People) -> None:
    new = [NewTarget(FCM, f"t{number}") for number in range(100)]
    both = await asyncio.gather(register(database, people, *new), register(database, people, *reversed(new)))
    assert both[0] == both[1][::-1]
