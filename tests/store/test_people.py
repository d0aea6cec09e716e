import asyncio
from datetime import timedelta

import pytest

from contracts.payloads.notification import ChannelName
from runtime.clock import FixedClock
from store.database import Database
from store.people import NewTarget, People, Person, Preference, StoredTarget, allowed, target_id_of
from store.suppressions import SOFT_BOUNCE_REST, SOFT_BOUNCES, Reason, Suppressions, TooManyDrops

EMAIL, FCM = ChannelName.EMAIL, ChannelName.FCM
SECOND = timedelta(seconds=1)


@pytest.fixture
def people(database: Database, clock: FixedClock) -> People:
    return People(database, clock)


@pytest.fixture
def suppressions(database: Database, clock: FixedClock) -> Suppressions:
    return Suppressions(database, clock, max_drops_an_hour=5)


async def addresses(people: People, person: str = "ada", tenant: str = "acme") -> list[tuple[str, str]]:
    return [(each.channel.value, each.address) for each in await people.targets(tenant, person)]


@pytest.mark.asyncio
async def test_a_person_is_replaced_and_targets_are_kept_unless_they_are_given(people: People) -> None:
    await people.put(Person("acme", "ada", "de", "Europe/Berlin", "22:00", "07:00"), [NewTarget(EMAIL, "a@x.example")])
    assert await people.get("acme", "ada") == Person("acme", "ada", "de", "Europe/Berlin", "22:00", "07:00")
    await people.put(Person("acme", "ada", "en"))
    assert await people.get("acme", "ada") == Person("acme", "ada", "en")
    assert await addresses(people) == [("email", "a@x.example")]
    await people.put(Person("acme", "ada"), [NewTarget(FCM, "t")], [Preference("news", "*", allowed=False)])
    assert await addresses(people) == [("fcm", "t")]
    assert await people.preferences("acme", "ada") == [Preference("news", "*", allowed=False)]
    await people.put(Person("acme", "ada"), wishes=[])
    assert await people.preferences("acme", "ada") == []
    assert await people.get("globex", "ada") is None


@pytest.mark.asyncio
async def test_a_device_belongs_to_who_logged_in_last_and_keeps_its_id(people: People, clock: FixedClock) -> None:
    await people.put(Person("acme", "ada"), [NewTarget(FCM, "t")])
    (first,) = await people.targets("acme", "ada")
    clock.advance(SECOND)
    await people.put(Person("acme", "grace"))
    second = await people.add_target("acme", "grace", NewTarget(FCM, "t"))
    assert second.target_id == first.target_id
    assert second.registered_at == first.registered_at + SECOND
    assert await addresses(people) == []
    assert await addresses(people, "grace") == [("fcm", "t")]
    assert await people.target("acme", first.target_id) == second
    assert await people.target("globex", first.target_id) is None


@pytest.mark.asyncio
async def test_an_address_that_is_removed_and_registered_again_keeps_its_id(people: People) -> None:
    for spelling in ("a@x.example", " A@X.Example "):
        await people.put(Person("acme", "ada"), [NewTarget(EMAIL, spelling)])
        (target,) = await people.targets("acme", "ada")
        assert (target.target_id, target.address) == (target_id_of("acme", EMAIL, "a@x.example"), "a@x.example")
        await people.put(Person("acme", "ada"), [])
        assert await people.target("acme", target.target_id) is None
    others = {target_id_of(*each) for each in (("globex", EMAIL, "a@x.example"), ("acme", FCM, "a@x.example"))}
    assert len(others | {target.target_id}) == 3


@pytest.mark.asyncio
async def test_two_spellings_of_an_address_are_one_target(people: People) -> None:
    await people.put(Person("acme", "ada"), [NewTarget(EMAIL, "Ada@X.example"), NewTarget(EMAIL, "ada@x.EXAMPLE")])
    assert await addresses(people) == [("email", "ada@x.example")]


@pytest.mark.asyncio
async def test_an_address_without_a_person_is_found_and_not_taken_away(people: People, database: Database) -> None:
    await people.put(Person("acme", "ada"), [NewTarget(EMAIL, "a@x.example")])
    async with database.write() as connection:
        known = await people.register(connection, "acme", None, NewTarget(EMAIL, "a@x.example"))
        new = await people.register(connection, "acme", None, NewTarget(EMAIL, "b@x.example"))
    assert (known.person, new.person) == ("ada", None)
    assert await addresses(people) == [("email", "a@x.example")]


@pytest.mark.asyncio
async def test_an_address_that_is_registered_ten_times_at_once_is_one(people: People) -> None:
    await people.put(Person("acme", "ada"))
    made = await asyncio.gather(*(people.add_target("acme", "ada", NewTarget(FCM, "t")) for _ in range(10)))
    assert len({each.target_id for each in made}) == 1
    assert await addresses(people) == [("fcm", "t")]
    assert await people.remove_target("acme", "ada", made[0].target_id)
    assert not await people.remove_target("acme", "ada", made[0].target_id)


def test_the_most_specific_preference_counts() -> None:
    wishes = [
        Preference("*", "*", allowed=False),
        Preference("*", "email", allowed=True),
        Preference("news", "*", allowed=False),
        Preference("news", "slack", allowed=True),
    ]
    seen = {
        (category, channel): allowed(wishes, category, channel)
        for category in ("news", "billing")
        for channel in ("email", "slack", "fcm")
    }
    assert seen == {
        ("news", "email"): False,
        ("news", "slack"): True,
        ("news", "fcm"): False,
        ("billing", "email"): True,
        ("billing", "slack"): False,
        ("billing", "fcm"): False,
    }
    assert allowed([], "news", "email")


async def registered(people: People, channel: ChannelName = FCM, address: str = "t") -> StoredTarget:
    await people.put(Person("acme", "ada"))
    return await people.add_target("acme", "ada", NewTarget(channel, address))


@pytest.mark.asyncio
async def test_a_dead_token_is_used_again_once_it_is_registered_again(
    people: People, suppressions: Suppressions, clock: FixedClock
) -> None:
    target = await registered(people)
    await suppressions.add("acme", FCM, "t", Reason.DEAD)
    (dead,) = await suppressions.of([target])
    assert dead.applies(target, "news", clock.now())
    clock.advance(SECOND)
    again = await registered(people)
    assert not dead.applies(again, "news", clock.now())
    assert await suppressions.of([again]) == [dead]


@pytest.mark.asyncio
async def test_the_vendors_time_of_death_counts(people: People, suppressions: Suppressions, clock: FixedClock) -> None:
    target = await registered(people)
    await suppressions.add("acme", FCM, "t", Reason.DEAD, dead_since=clock.now() - SECOND)
    (dead,) = await suppressions.of([target])
    assert not dead.applies(target, "news", clock.now())


@pytest.mark.asyncio
async def test_an_unsubscription_is_for_its_category_and_outlives_everything(
    people: People, suppressions: Suppressions, clock: FixedClock
) -> None:
    target = await registered(people, EMAIL, "a@x.example")
    await suppressions.add("acme", EMAIL, "a@x.example", Reason.UNSUBSCRIBED, category="news")
    await suppressions.add("acme", EMAIL, "a@x.example", Reason.UNSUBSCRIBED)
    for reason in (Reason.MAILBOX_FULL, Reason.DEAD):
        await suppressions.add("acme", EMAIL, "a@x.example", reason)
    seen = sorted((each.category, each.reason.value) for each in await suppressions.of([target]))
    assert seen == [("*", "dead"), ("*", "mailbox_full"), ("*", "unsubscribed"), ("news", "unsubscribed")]
    assert await suppressions.remove("acme", EMAIL, "a@x.example", reason=Reason.DEAD)
    assert len(await suppressions.of([target])) == 3
    assert await suppressions.remove("acme", EMAIL, "a@x.example")
    (left,) = await suppressions.of([target])
    assert left.applies(target, "news", clock.now() + timedelta(days=999))
    assert not left.applies(target, "billing", clock.now())
    assert not await suppressions.remove("globex", EMAIL, "a@x.example", "news")


@pytest.mark.asyncio
async def test_a_mailbox_rests_after_five_soft_bounces_for_thirty_days(
    people: People, suppressions: Suppressions, clock: FixedClock
) -> None:
    target = await registered(people, EMAIL, "a@x.example")
    applied = []
    for _ in range(SOFT_BOUNCES):
        await suppressions.add("acme", EMAIL, "a@x.example", Reason.MAILBOX_FULL)
        (seen,) = await suppressions.of([target])
        applied.append(seen.applies(target, "news", clock.now()))
    assert applied == [False, False, False, False, True]
    assert not seen.applies(target, "news", clock.now() + SOFT_BOUNCE_REST)
    assert seen.applies(target, "news", clock.now() + SOFT_BOUNCE_REST - SECOND)


@pytest.mark.asyncio
async def test_a_wave_of_deaths_is_stopped_for_the_channel_of_a_tenant(
    suppressions: Suppressions, clock: FixedClock
) -> None:
    for number in range(5):
        await suppressions.add("acme", FCM, f"t{number}", Reason.DEAD, guarded=True)
    with pytest.raises(TooManyDrops, match="5 addresses of this tenant's channel fcm were dropped within an hour"):
        await suppressions.add("acme", FCM, "t5", Reason.DEAD, guarded=True)
    await suppressions.add("acme", ChannelName.APNS, "t", Reason.DEAD, guarded=True)
    await suppressions.add("acme", FCM, "reported", Reason.BOUNCED)
    clock.advance(timedelta(hours=1))
    await suppressions.add("acme", FCM, "t5", Reason.DEAD, guarded=True)
    listed = await suppressions.list("acme", limit=3)
    assert (listed[0].channel.value, listed[0].address) == ("fcm", "t5")
    assert len(listed) == 3
    assert await suppressions.list("globex") == []
