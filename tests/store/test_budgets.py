import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise

import pytest
from sqlalchemy import event

from runtime.clock import EPOCH, FixedClock
from store.budgets import LONGEST_RESET, PROBE, RETURN_INTERVAL, Budgets, PausedFor, Slot, Use
from store.database import Database
from tests.store.conftest import NOW

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def budgets(database: Database, clock: FixedClock) -> Budgets:
    return Budgets(database, clock)


@pytest.mark.asyncio
async def test_a_paced_scope_never_exceeds_its_rate_in_any_window(budgets: Budgets, clock: FixedClock) -> None:
    slots = []
    for step in (0, 0, 0, 0, 0.3, 0, 0, 10, 0, 0, 0, 0, 0.5, 2.5, 0, 0):
        clock.advance(step * SECOND)
        slots.append((await budgets.reserve("slack:C1", interval=SECOND, burst=3)).at)
    assert slots == sorted(slots)
    for first in range(len(slots)):
        for last in range(first, len(slots)):
            window = (slots[last] - slots[first]).total_seconds()
            assert last - first + 1 <= 3 + window + 1e-6, (first, last, window)
    assert [round((slot - slots[0]).total_seconds(), 3) for slot in slots[:7]] == [0, 0, 0, 1, 2, 3, 4]


@pytest.mark.asyncio
async def test_fifty_at_once_get_fifty_slots(budgets: Budgets, clock: FixedClock) -> None:
    slots = await asyncio.gather(*(budgets.reserve("s", interval=SECOND) for _ in range(50)))
    assert sorted(slot.at - clock.now() for slot in slots) == [number * SECOND for number in range(50)]


@pytest.mark.asyncio
async def test_an_unpaced_scope_goes_at_once_and_leaves_no_row(budgets: Budgets, clock: FixedClock) -> None:
    assert (await budgets.reserve("email:relay")).at == clock.now()
    assert await budgets.paused() == {}


@pytest.mark.asyncio
async def test_a_pause_is_waited_out_and_what_waited_comes_back_one_by_one(budgets: Budgets, clock: FixedClock) -> None:
    until = await budgets.pause("email:relay", PausedFor.LIMIT, asked=30 * SECOND, detail="421 busy")
    assert until == clock.now() + 30 * SECOND
    slots = [await budgets.reserve("email:relay") for _ in range(4)]
    assert [slot.at - until for slot in slots] == [number * RETURN_INTERVAL for number in range(4)]
    assert {(slot.paused_for, slot.detail) for slot in slots} == {(PausedFor.LIMIT, "421 busy")}
    clock.advance(30 * SECOND)
    back = await budgets.reserve("email:relay", reserved=slots[0].at)
    assert (back.at, back.paused_for) == (clock.now(), None)
    newcomer = await budgets.reserve("email:relay")
    assert newcomer.at == slots[3].at + RETURN_INTERVAL
    clock.advance(SECOND)
    assert (await budgets.reserve("email:relay")).at == clock.now()


@pytest.mark.asyncio
async def test_a_reservation_that_lies_in_a_later_pause_is_moved_and_one_behind_it_holds(
    budgets: Budgets, clock: FixedClock
) -> None:
    early = await budgets.reserve("s", interval=SECOND)
    late = [await budgets.reserve("s", interval=SECOND) for _ in range(10)][-1]
    until = await budgets.pause("s", PausedFor.OUTAGE)
    assert until == clock.now() + SECOND
    moved = await budgets.reserve("s", interval=SECOND, reserved=early.at)
    assert moved.at == late.at + SECOND
    held = await budgets.reserve("s", interval=SECOND, reserved=late.at)
    assert held.at == late.at


@pytest.mark.asyncio
async def test_pauses_double_to_a_minute_and_refusals_of_one_moment_count_once(
    budgets: Budgets, clock: FixedClock
) -> None:
    lengths = []
    for _ in range(8):
        ends = {await budgets.pause("s", PausedFor.OUTAGE) for _ in range(25)}
        assert len(ends) == 1
        lengths.append((ends.pop() - clock.now()).total_seconds())
        clock.advance(lengths[-1] * SECOND)
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60]
    await budgets.succeeded("s")
    assert await budgets.pause("s", PausedFor.OUTAGE) == clock.now() + SECOND


@pytest.mark.asyncio
async def test_a_success_of_before_the_pause_does_not_shorten_the_next(budgets: Budgets, clock: FixedClock) -> None:
    await budgets.pause("s", PausedFor.OUTAGE)
    await budgets.succeeded("s")
    clock.advance(5 * SECOND)
    assert await budgets.pause("s", PausedFor.OUTAGE) == clock.now() + 2 * SECOND


@pytest.mark.asyncio
async def test_a_longer_pause_is_not_cut_short(budgets: Budgets, clock: FixedClock) -> None:
    until = await budgets.pause("s", PausedFor.AUTH, asked=300 * SECOND, detail="535")
    assert await budgets.pause("s", PausedFor.LIMIT, asked=SECOND) == until


@pytest.mark.asyncio
async def test_waiters_of_a_long_outage_wake_in_vain_a_bounded_number_of_times(
    budgets: Budgets, clock: FixedClock
) -> None:
    """60 jobs, an outage of two minutes: a job that wakes finds the pause renewed or probes; it never spins."""
    over = clock.now() + 120 * SECOND
    waiting: list[tuple[datetime, int]] = [(clock.now(), number) for number in range(60)]
    done: list[tuple[datetime, int]] = []
    wakes = probes = 0
    reserved: dict[int, datetime] = {}
    while waiting:
        waiting.sort()
        at, number = waiting.pop(0)
        if at > clock.now():
            clock.advance(at - clock.now())
        wakes += 1
        slot = await budgets.reserve("s", reserved=reserved.get(number))
        if slot.at > clock.now():
            reserved[number] = slot.at
            waiting.append((slot.at, number))
        elif clock.now() < over:
            probes += 1
            await budgets.pause("s", PausedFor.OUTAGE)
            slot = await budgets.reserve("s")
            reserved[number] = slot.at
            waiting.append((slot.at, number))
        else:
            await budgets.succeeded("s")
            done.append((clock.now(), number))
    assert probes <= 8
    assert wakes <= 60 * 9
    finished = sorted(at for at, _ in done)
    assert finished[-1] - over < 62 * SECOND
    assert min(later - earlier for earlier, later in pairwise(finished)) >= timedelta()


@pytest.mark.asyncio
async def test_a_slot_that_was_missed_is_lost_where_there_is_a_pace(budgets: Budgets, clock: FixedClock) -> None:
    """Workers that were away would otherwise send a whole backlog in one second."""
    slots = [(await budgets.reserve("slack:C1", interval=SECOND)).at for _ in range(60)]
    clock.advance(timedelta(minutes=5))
    again = [(await budgets.reserve("slack:C1", interval=SECOND, reserved=slot)).at for slot in slots]
    assert again == [clock.now() + place * SECOND for place in range(60)]
    soon = (await budgets.reserve("slack:C2", interval=SECOND)).at
    clock.advance(timedelta(seconds=4))
    assert (await budgets.reserve("slack:C2", interval=SECOND, reserved=soon)).at == clock.now()
    assert (await budgets.reserve("email:relay", reserved=soon)).at == clock.now()


@pytest.mark.asyncio
async def test_after_a_refused_credential_one_goes_first(budgets: Budgets, clock: FixedClock) -> None:
    """Or all that wait would be refused, and park, before the first answer is there."""
    until = await budgets.pause("email:relay", PausedFor.AUTH, asked=timedelta(minutes=5))
    slots = [(await budgets.reserve("email:relay")).at for _ in range(5)]
    behind = until + PROBE
    assert slots == [until, *(behind + place * RETURN_INTERVAL for place in range(4))]
    clock.advance(timedelta(minutes=5))
    await budgets.pause("email:relay", PausedFor.AUTH, asked=timedelta(minutes=5))
    moved = await budgets.reserve("email:relay", reserved=slots[1])
    assert (moved.at, moved.paused_for) == (clock.now() + timedelta(minutes=5), PausedFor.AUTH)


@pytest.mark.asyncio
async def test_an_outage_does_not_hide_a_refused_credential(budgets: Budgets, clock: FixedClock) -> None:
    await budgets.pause("email:relay", PausedFor.AUTH, asked=timedelta(minutes=5), detail="535")
    await budgets.pause("email:relay", PausedFor.OUTAGE, detail="reset")
    paused = (await budgets.paused())["email:relay"]
    assert (paused.paused_for, paused.detail) == (PausedFor.AUTH, "535")
    clock.advance(timedelta(minutes=6))
    await budgets.pause("email:relay", PausedFor.OUTAGE, detail="reset")
    assert (await budgets.paused())["email:relay"].paused_for is PausedFor.OUTAGE


class Writes:
    """Counts a database's write transactions."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        event.listen(database.main.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.count += statement.startswith(("INSERT", "UPDATE"))


async def run_workers(
    clock: FixedClock,
    ask: Callable[[datetime | None, int], Awaitable[Slot]],
    *,
    workers: int,
    seconds: int,
    costs: tuple[int, ...] = (1,),
) -> list[tuple[datetime, int]]:
    """Workers that always have something to send, over simulated time; when each sent, and at what cost.

    Those whose time has come ask side by side.
    """
    draw = random.Random(7)
    ends = clock.now() + seconds * SECOND
    wakes = {number: clock.now() for number in range(workers)}
    held: dict[int, datetime] = {}
    cost = {number: draw.choice(costs) for number in wakes}
    sent = []
    while (at := min(wakes.values())) < ends:
        clock.advance(max(at - clock.now(), timedelta()))
        awake = [number for number, when in wakes.items() if when <= clock.now()]
        slots = await asyncio.gather(*(ask(held.get(number), cost[number]) for number in awake))
        for number, slot in zip(awake, slots, strict=True):
            if slot.at > clock.now():
                held[number] = wakes[number] = slot.at
                continue
            sent.append((clock.now(), cost[number]))
            held.pop(number, None)
            wakes[number] = clock.now() + draw.uniform(0.05, 2) * SECOND
            cost[number] = draw.choice(costs)
    return sent


def fullest(sent: list[tuple[datetime, int]], per: timedelta) -> int:
    """The most that any window of this length has, wherever it begins."""
    sums = [0, *accumulate(cost for _, cost in sent)]
    first, most = 0, 0
    for last, (at, _) in enumerate(sent):
        while sent[first][0] <= at - per:
            first += 1
        most = max(most, sums[last + 1] - sums[first])
    return most


@pytest.mark.asyncio
@pytest.mark.parametrize(("burst", "costs", "over"), [(1, (1,), 0), (10, (1,), 9), (6, (1, 2, 6), 5), (1, (1, 4), 3)])
async def test_workers_together_keep_and_use_the_pace(
    budgets: Budgets, clock: FixedClock, burst: int, costs: tuple[int, ...], over: int
) -> None:
    """`over` is what a burst, or a dear request that is paid for afterwards, adds to a window."""
    pace = 100 / 60
    sent = await run_workers(
        clock,
        lambda reserved, cost: budgets.reserve(
            "s", interval=SECOND / pace, burst=burst, reserved=reserved, cost=cost, limit=100, per=MINUTE
        ),
        workers=8,
        seconds=120,
        costs=costs,
    )
    assert fullest(sent, MINUTE) <= 100 + over
    assert sum(cost for _, cost in sent) >= 0.95 * 200
    (use,) = await budgets.uses()
    assert 0 < use.used <= 100 + over


@pytest.mark.asyncio
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("costs", [(1,), (1, 2, 3)])
async def test_workers_together_fill_every_window_and_overfill_none(
    budgets: Budgets, clock: FixedClock, aligned: bool, costs: tuple[int, ...]
) -> None:
    per = timedelta(seconds=90)
    clock.advance(timedelta(seconds=37))
    began = clock.now()
    sent = await run_workers(
        clock,
        lambda _, cost: budgets.reserve_window("s", limit=60, per=per, aligned=aligned, cost=cost),
        workers=12,
        seconds=90 * 3,
        costs=costs,
    )
    origin = EPOCH if aligned else began
    windows: Counter[int] = Counter()
    for at, cost in sent:
        windows[(at - origin) // per] += cost
    whole = list(windows.values())[:-1] if aligned else list(windows.values())
    assert len(whole) == 3
    assert max(windows.values()) <= 60
    assert min(whole) >= (60 if costs == (1,) else 58)
    assert sum(whole) >= 0.95 * 60 * len(whole)


@pytest.mark.asyncio
@pytest.mark.parametrize("aligned", [True, False])
async def test_of_two_processes_at_once_a_window_lets_its_limit_through(
    url: str, database: Database, clock: FixedClock, aligned: bool
) -> None:
    other = Database.open(url)
    both = [Budgets(each, clock) for each in (database, other)]
    for _ in range(2):
        asked = [each.reserve_window("day", limit=25, per=DAY, aligned=aligned) for each in both for _ in range(30)]
        slots = await asyncio.gather(*asked)
        begins = clock.now().replace(hour=0) if aligned else clock.now()
        assert Counter(slot.at for slot in slots) == {clock.now(): 25, begins + DAY: 35}
        clock.advance(begins + DAY - clock.now())
    await other.close()


@pytest.mark.asyncio
async def test_windows_begin_at_midnight_or_with_the_first_call(budgets: Budgets, clock: FixedClock) -> None:
    assert clock.now() == datetime(2026, 11, 24, 9, tzinfo=UTC)
    for aligned, begins in ((True, NOW.replace(hour=0)), (False, NOW)):
        scope = f"day:{aligned}"
        assert (await budgets.reserve_window(scope, limit=2, per=DAY, aligned=aligned)).at == NOW
        assert (await budgets.reserve_window(scope, limit=2, per=DAY, aligned=aligned, cost=2)).at == begins + DAY
        assert (await budgets.reserve_window(scope, limit=2, per=DAY, aligned=aligned)).at == NOW
        full = await budgets.reserve_window(scope, limit=2, per=DAY, aligned=aligned)
        assert (full.at, full.paused_for, full.detail) == (begins + DAY, None, "2 of 2 calls used")
    clock.advance(20 * timedelta(hours=1))
    assert (await budgets.reserve_window("day:True", limit=2, per=DAY, aligned=True)).at == clock.now()
    assert (await budgets.reserve_window("day:False", limit=2, per=DAY, aligned=False)).at == NOW + DAY
    clock.advance(20 * timedelta(hours=1))
    dear = await budgets.reserve_window("day:False", limit=2, per=DAY, aligned=False, cost=5)
    assert dear.at == clock.now()  # more than any window has room for
    assert (await budgets.reserve_window("day:False", limit=2, per=DAY, aligned=False)).at == clock.now() + DAY


@pytest.mark.asyncio
async def test_who_asks_a_full_window_writes_nothing(database: Database, budgets: Budgets, clock: FixedClock) -> None:
    await budgets.reserve_window("day", limit=1, per=DAY, aligned=True)
    writes = Writes(database)
    for _ in range(5):
        await budgets.reserve_window("day", limit=1, per=DAY, aligned=True)
    assert writes.count == 0


@pytest.mark.asyncio
async def test_a_pause_stops_a_window_too_and_its_waiters_come_back_apart(budgets: Budgets, clock: FixedClock) -> None:
    until = await budgets.pause("day", PausedFor.OUTAGE, detail="503")
    slots = [await budgets.reserve_window("day", limit=9, per=DAY, aligned=True) for _ in range(3)]
    assert [slot.at - until for slot in slots] == [place * RETURN_INTERVAL for place in range(3)]
    assert {(slot.paused_for, slot.detail, slot.troubled) for slot in slots} == {(PausedFor.OUTAGE, "503", True)}
    clock.advance(slots[2].at - clock.now())
    went = await budgets.reserve_window("day", limit=9, per=DAY, aligned=True)
    assert (went.at, went.troubled) == (clock.now(), True)
    (use,) = await budgets.uses()
    assert (use.used, use.remaining, use.next_slot_at) == (1, 8, None)


@pytest.mark.asyncio
async def test_what_costs_more_moves_the_next_slot_further(budgets: Budgets, clock: FixedClock) -> None:
    slots = [(await budgets.reserve("s", interval=SECOND, cost=cost)).at for cost in (5, 1, 3, 1)]
    assert [slot - NOW for slot in slots] == [0 * SECOND, 5 * SECOND, 6 * SECOND, 9 * SECOND]
    slots = [(await budgets.reserve("b", interval=SECOND, burst=10, cost=cost)).at for cost in (4, 6, 4, 1)]
    assert [slot - NOW for slot in slots] == [0 * SECOND, 0 * SECOND, 4 * SECOND, 5 * SECOND]


@pytest.mark.asyncio
async def test_a_cost_that_is_known_afterwards_is_charged(budgets: Budgets, clock: FixedClock) -> None:
    await budgets.reserve("s", interval=SECOND, limit=100, per=MINUTE)
    await budgets.charge("s", SECOND, 7)
    await budgets.charge("s", SECOND, 0)
    assert (await budgets.reserve("s", interval=SECOND, limit=100, per=MINUTE)).at == NOW + 8 * SECOND
    await asyncio.gather(*(budgets.charge("s", SECOND, 2) for _ in range(10)))
    assert (await budgets.reserve("s", interval=SECOND, limit=100, per=MINUTE)).at == NOW + 29 * SECOND
    assert (await budgets.uses())[0].used == 1 + 7 + 1 + 20 + 1
    clock.advance(MINUTE)
    await budgets.charge("s", SECOND, 3)
    await budgets.charge("new", SECOND, 3)
    assert (await budgets.reserve("s", interval=SECOND)).at == clock.now() + 3 * SECOND
    assert (await budgets.reserve("new")).at == clock.now() + 3 * SECOND


@pytest.mark.asyncio
async def test_what_was_reserved_and_not_used_is_given_back(budgets: Budgets, clock: FixedClock) -> None:
    async def next_slot() -> timedelta:
        (use,) = await budgets.uses("s")
        return (use.next_slot_at or clock.now()) - clock.now()

    await budgets.reserve("s", interval=SECOND, cost=10, limit=100, per=MINUTE)
    await budgets.charge("s", SECOND, -4)
    assert (await next_slot(), (await budgets.uses("s"))[0].used) == (6 * SECOND, 6)
    clock.advance(2 * SECOND)
    await budgets.charge("s", SECOND, -50)
    assert (await next_slot(), (await budgets.uses("s"))[0].used) == (timedelta(), 0)
    clock.advance(2 * SECOND)
    await budgets.charge("s", SECOND, -1)
    assert (await budgets.reserve("s", interval=SECOND, burst=3)).at == clock.now()
    await budgets.pause("s", PausedFor.LIMIT, asked=MINUTE)
    await budgets.charge("s", SECOND, -9)
    assert (await budgets.reserve("s", interval=SECOND)).at == clock.now() + MINUTE
    clock.advance(2 * MINUTE)
    await budgets.charge("s", SECOND, -9)
    assert (await budgets.uses("s"))[0].used == 0
    await budgets.charge("never used", SECOND, -9)
    assert (await budgets.reserve("never used", interval=SECOND)).at == clock.now()


@pytest.mark.asyncio
async def test_what_is_charged_afterwards_keeps_the_observed_pace(budgets: Budgets, clock: FixedClock) -> None:
    resets_at = NOW + 1_000 * SECOND
    await budgets.reserve("s", interval=SECOND)
    await budgets.observe("s", remaining=100, resets_at=resets_at, interval=SECOND)
    clock.advance(SECOND)
    await budgets.charge("s", SECOND, 7)

    async def next_slot() -> float:
        (use,) = await budgets.uses("s")
        assert use.next_slot_at is not None
        return round((use.next_slot_at - clock.now()).total_seconds(), 3)

    assert await next_slot() == 70
    await budgets.charge("s", SECOND, -3)
    assert await next_slot() == 40
    await budgets.charge("s", SECOND, 500)
    assert await next_slot() == 999  # at the reset there is all of it again


@pytest.mark.asyncio
@pytest.mark.parametrize("asked", [timedelta(), -SECOND, timedelta(milliseconds=1), SECOND])
async def test_pauses_grow_where_the_other_side_asks_for_too_short_ones(
    budgets: Budgets, clock: FixedClock, asked: timedelta
) -> None:
    pauses = []
    for _ in range(8):
        began = clock.now()
        until = await budgets.pause("s", PausedFor.LIMIT, asked=asked)
        pauses.append((until - began).total_seconds())
        clock.advance(until - began + timedelta(milliseconds=300))
    first = asked.total_seconds() if asked > timedelta() else 1
    assert pauses == [first, 2, 4, 8, 16, 32, 60, 60]
    assert await budgets.pause("s", PausedFor.LIMIT, asked=5 * MINUTE) == clock.now() + 5 * MINUTE
    clock.advance(5 * MINUTE)
    await budgets.succeeded("s")
    assert await budgets.pause("s", PausedFor.LIMIT, asked=SECOND) == clock.now() + SECOND
    clock.advance(MINUTE)
    assert await budgets.pause("s", PausedFor.LIMIT, asked=SECOND) == clock.now() + SECOND


@pytest.mark.asyncio
async def test_none_left_is_a_pause_until_the_reset_that_counts_as_no_failure(
    database: Database, budgets: Budgets, clock: FixedClock
) -> None:
    early = await budgets.reserve("s", interval=SECOND)
    writes = Writes(database)
    resets_at = NOW + 5 * MINUTE
    for _ in range(4):
        await budgets.observe("s", remaining=0, resets_at=resets_at, limit=5_000, interval=SECOND)
    assert writes.count == 1
    moved = await budgets.reserve("s", interval=SECOND, reserved=early.at)
    assert moved == Slot(resets_at, PausedFor.LIMIT, "none of 5000 left until 24 Nov 09:05:00 UTC", troubled=False)
    assert (await budgets.reserve("s", interval=SECOND)).at == resets_at + SECOND
    clock.advance(5 * MINUTE)
    assert (await budgets.reserve("s", interval=SECOND, reserved=moved.at)).at == resets_at
    assert await budgets.pause("s", PausedFor.OUTAGE) == clock.now() + SECOND  # the first failure


@pytest.mark.asyncio
async def test_none_left_does_not_hide_a_refused_credential_nor_shorten_its_pause(
    budgets: Budgets, clock: FixedClock
) -> None:
    await budgets.pause("s", PausedFor.AUTH, asked=5 * MINUTE, detail="401")
    await budgets.observe("s", remaining=0, resets_at=NOW + MINUTE)
    assert (await budgets.paused())["s"] == Slot(NOW + 5 * MINUTE, PausedFor.AUTH, "401")
    await budgets.observe("s", remaining=0, resets_at=NOW + 9 * MINUTE)
    assert (await budgets.paused())["s"] == Slot(NOW + 9 * MINUTE, PausedFor.AUTH, "401")


@pytest.mark.asyncio
@pytest.mark.parametrize("interval", [SECOND, None])
async def test_few_left_are_spread_until_the_reset(
    budgets: Budgets, clock: FixedClock, interval: timedelta | None
) -> None:
    for _ in range(3):
        await budgets.reserve("s", interval=interval, burst=20)
    clock.advance(MINUTE)
    resets_at = clock.now() + 60 * SECOND
    await budgets.observe("s", remaining=6, resets_at=resets_at, interval=interval)
    slots = [(await budgets.reserve("s", interval=interval, burst=20)).at for _ in range(8)]
    apart = [round((later - earlier).total_seconds(), 3) for earlier, later in pairwise(slots)]
    assert slots[0] == clock.now()
    assert slots[5] < resets_at <= slots[6]
    back = 1 if interval else RETURN_INTERVAL.total_seconds()
    assert apart == [10, 10, 10, 10, 10, 10, back]


@pytest.mark.asyncio
async def test_only_what_changes_the_pace_is_written(database: Database, budgets: Budgets, clock: FixedClock) -> None:
    resets_at = NOW + 100 * SECOND
    writes = Writes(database)

    async def seen(remaining: int, written: int) -> None:
        before = writes.count
        await budgets.observe("s", remaining=remaining, resets_at=resets_at, interval=SECOND)
        assert writes.count - before == written, remaining

    await seen(1_000, 0)
    await seen(100, 0)
    await seen(96, 0)  # less than 5 % slower
    await seen(50, 1)
    await seen(49, 0)
    await seen(40, 1)
    await seen(41, 0)
    clock.advance(50 * SECOND)
    await seen(40, 1)  # rested: there is more for each
    await seen(60, 1)  # the usual pace is slow enough
    await seen(70, 0)
    await budgets.reserve("s", interval=SECOND)
    assert (await budgets.reserve("s", interval=SECOND)).at == clock.now() + SECOND
    clock.advance(50 * SECOND)
    await seen(0, 0)  # the reset is over


@pytest.mark.asyncio
async def test_a_reset_that_is_absurdly_late_is_capped(budgets: Budgets, clock: FixedClock) -> None:
    far = datetime(9998, 1, 1, tzinfo=UTC)
    await budgets.observe("s", remaining=0, resets_at=far)
    assert (await budgets.reserve("s")).at == NOW + LONGEST_RESET
    await budgets.observe("t", remaining=31, resets_at=far)
    assert [(await budgets.reserve("t")).at - NOW for _ in range(2)] == [timedelta(), DAY + timedelta(microseconds=1)]


@pytest.mark.asyncio
async def test_workers_that_heed_the_headers_are_never_refused(budgets: Budgets, clock: FixedClock) -> None:
    """The vendor allows 60 in five minutes, and somebody else uses 30 of them; we were told 100."""
    per, allowed, refused = 5 * MINUTE, 60, 0
    window, left = clock.now(), allowed - 30
    sent = []
    while clock.now() < NOW + 15 * MINUTE:
        slot = await budgets.reserve("s", interval=per / 100)
        clock.advance(max(slot.at - clock.now(), timedelta()))
        if slot.paused_for:
            continue
        if clock.now() >= window + per:
            window, left = window + per, allowed - 30
        refused += left == 0
        left = max(left - 1, 0)
        sent.append(clock.now())
        await budgets.observe("s", remaining=left, resets_at=window + per, limit=allowed, interval=per / 100)
    assert refused == 0
    assert len(sent) >= 0.95 * 90


@pytest.mark.asyncio
async def test_others_who_use_a_window_fill_it_for_us_too(
    database: Database, budgets: Budgets, clock: FixedClock
) -> None:
    async def ask(aligned: bool) -> Slot:
        return await budgets.reserve_window(f"day:{aligned}", limit=100, per=DAY, aligned=aligned)

    for aligned, resets_at in ((True, NOW.replace(hour=0) + DAY), (False, NOW + 3 * MINUTE)):
        for _ in range(10):
            await ask(aligned)
        writes = Writes(database)
        for remaining in (90, 88, 500, 4, 4):
            await budgets.observe(f"day:{aligned}", remaining=remaining, resets_at=resets_at, limit=700)
        assert writes.count == 1
        asked = await asyncio.gather(*(ask(aligned) for _ in range(9)))
        assert Counter(slot.at for slot in asked) == {clock.now(): 4, resets_at: 5}


@pytest.mark.asyncio
async def test_what_scopes_are_used_for(budgets: Budgets, clock: FixedClock) -> None:
    assert await budgets.uses() == []
    for _ in range(3):
        await budgets.reserve("jira:c1:issues", interval=SECOND, limit=60, per=MINUTE)
    await budgets.reserve_window("jira:c1:day", limit=2, per=DAY, aligned=True)
    await budgets.pause("jira:c2", PausedFor.LIMIT, asked=MINUTE, detail="slow down")
    for _ in range(2):
        await budgets.reserve("github:c3", limit=5_000, per=timedelta(hours=1))
    await budgets.reserve("Jira:other", interval=SECOND)
    midnight = NOW.replace(hour=0) + DAY
    day = Use("jira:c1:day", 2, DAY, 1, 1, midnight, None, None, None, "")
    issues = Use("jira:c1:issues", 60, MINUTE, 3, 57, NOW + MINUTE, NOW + 3 * SECOND, None, None, "")
    until = NOW + MINUTE
    blocked = Use("jira:c2", None, None, 0, None, None, until, PausedFor.LIMIT, until, "slow down")
    assert await budgets.uses("jira:") == [day, issues, blocked]
    assert await budgets.uses("jira:", limit=1) == [day]
    github = Use("github:c3", 5_000, timedelta(hours=1), 2, 4_998, NOW + timedelta(hours=1), None, None, None, "")
    assert await budgets.uses("github") == [github]
    assert len(await budgets.uses()) == 5
    assert [use.scope for use in await budgets.uses("%")] == []
    await budgets.reserve_window("jira:c1:day", limit=2, per=DAY, aligned=True)
    assert (await budgets.uses("jira:c1:day"))[0].next_slot_at == midnight
    clock.advance(2 * DAY)
    day, issues, blocked = await budgets.uses("jira:")
    assert day == Use("jira:c1:day", 2, DAY, 0, 2, None, None, None, None, "")
    assert issues == Use("jira:c1:issues", 60, MINUTE, 0, 60, None, None, None, None, "")
    assert blocked == Use("jira:c2", None, None, 0, None, None, None, None, None, "")


@pytest.mark.asyncio
async def test_unpaced_scopes_are_not_paced_by_recording_their_use(budgets: Budgets, clock: FixedClock) -> None:
    slots = await asyncio.gather(*(budgets.reserve("s", limit=100, per=MINUTE) for _ in range(20)))
    assert {slot.at for slot in slots} == {NOW}
    assert (await budgets.uses())[0].used == 20
    clock.advance(MINUTE)
    await budgets.reserve("s", limit=100, per=MINUTE)
    assert (await budgets.uses())[0].used == 1
