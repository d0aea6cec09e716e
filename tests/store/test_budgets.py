import asyncio
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from runtime.clock import FixedClock
from store.budgets import PROBE, RETURN_INTERVAL, Budgets, PausedFor
from store.database import Database

SECOND = timedelta(seconds=1)


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
