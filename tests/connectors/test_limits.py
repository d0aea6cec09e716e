"""When a page may be asked for, with a store."""

import heapq
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from activities import sync_limits
from activities.connectors.github import GITHUB
from activities.connectors.jira import JIRA
from activities.connectors.jira import Settings as JiraSettings
from activities.connectors.judging import judge
from activities.connectors.slack import SLACK
from activities.connectors.spec import Answer, Connector, Holder, Judgement, KeptBy, Meaning, Observed, Settings
from activities.sync_limits import Admitted, Caller, Limits, page_size
from contracts.payloads.job import WaitUntil
from runtime.clock import FixedClock
from store.budgets import Budgets
from store.database import Database
from store.migrate import migrate
from tests.connectors.sample import NOW

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
QUOTA = 65_000
WORDS = "Field 'Acme takeover of Globex' cannot be indexed"


@pytest_asyncio.fixture
async def budgets(tmp_path: Path, clock: FixedClock) -> AsyncIterator[Budgets]:
    database = Database.open(f"sqlite:///{tmp_path}/store.db")
    await migrate(database)
    yield Budgets(database, clock)
    await database.close()


@pytest.fixture
def limits(budgets: Budgets, clock: FixedClock, monkeypatch: pytest.MonkeyPatch) -> Limits:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds * SECOND)

    monkeypatch.setattr(sync_limits, "asyncio", SimpleNamespace(sleep=sleep))
    return Limits(budgets, clock)


def of_jira(connection_id: str, **own: int) -> Caller:
    settings = JiraSettings.model_validate({"cloud_id": "x", "time_zone": "UTC", "limits": own})
    return Caller(JIRA, JIRA.resource("issues"), connection_id, settings)


def full(_number: int) -> int:
    return 100


def any_size(number: int) -> int:
    return random.Random(number).randint(0, 100)


async def points_by_hour(
    limits: Limits, clock: FixedClock, connections: int, hours: int, rows: Callable[[int], int]
) -> Counter[int]:
    """Of so many connections that always have a next page, 300 ms after the one before."""
    callers = [of_jira(f"c{number}") for number in range(connections)]
    ends = clock.now() + hours * HOUR
    wakes: list[tuple[float, int, WaitUntil | None]] = [
        (NOW.timestamp(), number, None) for number in range(connections)
    ]
    used: Counter[int] = Counter()
    page = 0
    while clock.now() < ends:
        at, number, wait = heapq.heappop(wakes)
        clock.advance(max(at * SECOND - NOW.timestamp() * SECOND + NOW - clock.now(), timedelta()))
        answer = await limits.admit(callers[number], wait.place if wait else None)
        if isinstance(answer, WaitUntil):
            heapq.heappush(wakes, (answer.until.timestamp(), number, answer))
            continue
        page += 1
        used[clock.now().hour] += 1 + rows(page)
        await limits.went_well(callers[number], answer, rows(page), (), None)
        heapq.heappush(wakes, (clock.now().timestamp() + 0.3, number, None))
    del used[ends.hour]
    return used


@pytest.mark.asyncio
@pytest.mark.parametrize(("connections", "hours", "rows"), [(1, 1, full), (200, 1, full), (20, 1, any_size)])
async def test_an_hours_points_are_not_overspent_by_those_that_wait_in_line(
    limits: Limits, budgets: Budgets, clock: FixedClock, connections: int, hours: int, rows: Callable[[int], int]
) -> None:
    """What pages of the first line do not use is given to those behind it, so that only later hours are full."""
    used = await points_by_hour(limits, clock, connections, hours, rows)
    assert len(used) == hours
    assert max(used.values()) <= QUOTA
    assert max(used.values()) >= 0.95 * QUOTA
    (use,) = await budgets.uses("sync:jira:points")
    assert (use.limit, use.per) == (QUOTA, HOUR)


@pytest.mark.asyncio
async def test_what_a_page_did_not_cost_is_given_back(limits: Limits, budgets: Budgets, clock: FixedClock) -> None:
    caller = of_jira("acme")
    interval = JIRA.budgets[0].interval
    for expected, rows, points in ((100, 100, 101), (100, 10, 11), (1, 0, 1), (1, 100, 101)):
        asked = replace(caller, expected=expected)
        clock.advance(HOUR)
        admitted = await limits.admit(asked, None)
        assert isinstance(admitted, Admitted)
        await limits.went_well(asked, admitted, rows, (), None)
        (use,) = await budgets.uses("sync:jira:points")
        assert (use.used, use.remaining) == (points, QUOTA - points)
        assert use.next_slot_at is not None
        assert abs(use.next_slot_at - clock.now() - points * interval) < timedelta(milliseconds=1)


@pytest.mark.asyncio
async def test_points_that_are_left_last_until_the_reset(limits: Limits, clock: FixedClock) -> None:
    caller, ends, left, place = of_jira("acme"), NOW + timedelta(minutes=30), 5_000, None
    while left > 101:
        answer = await limits.admit(caller, place)
        if isinstance(answer, WaitUntil):
            clock.advance(answer.until - clock.now())
            place = answer.place
            continue
        left, place = left - 101, None
        await limits.went_well(caller, answer, 100, (Observed(left, ends, budget="points"),), None)
    assert timedelta(minutes=25) < clock.now() - NOW <= timedelta(minutes=30)


def test_a_pages_size_is_its_pagings_where_that_has_one() -> None:
    assert page_size(JIRA.resource("projects")) == 50
    assert page_size(JIRA.resource("users")) == 100
    assert {page_size(each) > 0 for connector in (GITHUB, SLACK) for each in connector.resources} == {True}


@pytest.mark.asyncio
async def test_no_connections_plan_changes_what_all_share(limits: Limits, clock: FixedClock) -> None:
    greedy = of_jira("greedy", points=1)
    assert greedy.paced["sync:jira:points"].limit == QUOTA
    admitted = await limits.admit(greedy, None)
    assert isinstance(admitted, Admitted)
    await limits.went_well(greedy, admitted, 100, (), None)
    clock.advance(10 * SECOND)
    assert isinstance(await limits.admit(of_jira("other"), None), Admitted)


@pytest.mark.asyncio
async def test_a_plan_below_that_of_the_queue_is_kept_by_the_store(limits: Limits, clock: FixedClock) -> None:
    resource = GITHUB.resource("issues")
    assert [each.kept_by for each in GITHUB.budgets if each.holder is Holder.CONNECTION] == [KeptBy.QUEUE]
    small = Caller(GITHUB, resource, "small", Settings(limits={"requests": 60}))
    assert {scope: each.limit for scope, each in small.paced.items()} == {"sync:github:small:requests": 60}
    assert Caller(GITHUB, resource, "usual", Settings()).paced == {}
    assert isinstance(await limits.admit(small, None), Admitted)
    wait = await limits.admit(small, None)
    assert isinstance(wait, WaitUntil)
    assert wait.until - clock.now() == pytest.approx(HOUR / 60 / 0.97, abs=SECOND)
    assert wait.waiting_for == "a slot of github's requests (60 per hour)"


@pytest.mark.asyncio
async def test_refusals_that_name_no_time_do_not_come_back_at_once(limits: Limits, clock: FixedClock) -> None:
    caller = Caller(GITHUB, GITHUB.resource("issues"), "acme", Settings())
    for wait in (timedelta(), SECOND):
        waits = []
        for _ in range(8):
            until = (await limits.refused(caller, Judgement(Meaning.THROTTLED, "http_429", wait=wait))).until
            waits.append(round((until - clock.now()).total_seconds()))
            clock.advance(until - clock.now())
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
        admitted = await limits.admit(caller, None)
        assert isinstance(admitted, Admitted)
        await limits.went_well(caller, admitted, 1, (), None)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "all_rest"),
    [
        ("connection", True),
        ("http_502", True),
        ("http_503", True),
        ("http_504", True),
        ("http_500", False),
        ("http_408", False),
        ("no_json", False),
        ("too_slow", False),
    ],
)
async def test_all_connections_rest_only_while_the_vendor_is_away(
    limits: Limits, clock: FixedClock, code: str, all_rest: bool
) -> None:
    wait = await limits.refused(of_jira("acme"), Judgement(Meaning.OVERLOADED, code, WORDS, wait=timedelta(minutes=1)))
    assert wait.waiting_for == f"jira, which does not work ({code}: {WORDS})"
    assert isinstance(await limits.admit(of_jira("acme"), None), WaitUntil)
    assert isinstance(await limits.admit(of_jira("globex"), None), WaitUntil) is all_rest


@pytest.mark.asyncio
async def test_a_connection_that_rests_takes_no_points_from_the_others(
    limits: Limits, budgets: Budgets, clock: FixedClock
) -> None:
    resting, other = of_jira("acme"), of_jira("globex")
    assert isinstance(await limits.admit(other, None), Admitted)
    wait = await limits.admit(resting, None)
    assert isinstance(wait, WaitUntil)
    await limits.refused(resting, Judgement(Meaning.THROTTLED, "http_429", wait=10 * SECOND))
    before = await budgets.uses("sync:jira:points")
    rested = await limits.admit(resting, wait.place)
    assert isinstance(rested, WaitUntil)
    assert await budgets.uses("sync:jira:points") == before
    clock.advance(rested.until - clock.now())
    assert isinstance(await limits.admit(resting, rested.place), Admitted)
    assert await budgets.uses("sync:jira:points") == before


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "headers", "scope", "told"),
    [
        (503, {}, "sync:jira", "http_503"),
        (429, {"ratelimit-reason": "jira-quota-global-based"}, "sync:jira:points", "jira-quota-global-based"),
        (500, {}, "sync:jira:acme", f"http_500: {WORDS}"),
        (429, {"ratelimit-reason": "jira-burst-based"}, "sync:jira:acme", f"jira-burst-based: {WORDS}"),
    ],
)
async def test_the_words_of_a_refusal_reach_only_the_connection_that_was_refused(
    limits: Limits, budgets: Budgets, clock: FixedClock, status: int, headers: dict[str, str], scope: str, told: str
) -> None:
    connector: Connector = JIRA
    said = judge(connector, Answer(status, headers | {"retry-after": "60"}, f'{{"message": "{WORDS}"}}'.encode(), NOW))
    with capture_logs() as logs:
        await limits.refused(of_jira("acme"), said)
    assert [(each["event"], each["detail"]) for each in logs] == [("vendor.refused", WORDS)]
    assert {name: slot.detail for name, slot in (await budgets.paused()).items()} == {scope: told}
    other = await limits.admit(of_jira("globex"), None)
    assert WORDS not in (other.waiting_for if isinstance(other, WaitUntil) else "")
    (use,) = [each for each in await budgets.uses() if each.paused_for]
    assert (use.scope, use.detail) == (scope, told)
