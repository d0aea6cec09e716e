import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from pydantic import JsonValue
from sqlalchemy import event

from runtime.clock import FixedClock
from store.database import Database
from store.effects import KEEP, Claim, ClaimsContended, ClaimStatus, EffectKey, Effects
from tests.store.conftest import SHARED, Server


@pytest.fixture
def effects(database: Database, clock: FixedClock) -> Effects:
    return Effects(database, clock)


def _of(run_id: str, targets: list[str]) -> list[EffectKey]:
    return [EffectKey(run_id, target) for target in targets]


@pytest.mark.asyncio
async def test_an_effect_is_new_once_then_maybe_done_then_settled(effects: Effects) -> None:
    assert await effects.claim("run", "send", "a@x") == Claim("a@x", ClaimStatus.NEW)
    assert await effects.claim("run", "send", "a@x") == Claim("a@x", ClaimStatus.UNSETTLED)
    await effects.settle("run", "send", "a@x", {"message_id": "<1@x>"})
    settled = await effects.claim("run", "send", "a@x")
    assert settled == Claim("a@x", ClaimStatus.SETTLED, {"message_id": "<1@x>"})
    assert settled.status == "settled"


@pytest.mark.parametrize("outcome", [None, 0, False, "", "text", [1, None], {"ü": {"x": 1.5}}])
@pytest.mark.asyncio
async def test_any_json_is_an_outcome(effects: Effects, outcome: JsonValue) -> None:
    await effects.claim("run", "send", "a")
    await effects.settle("run", "send", "a", outcome)
    assert await effects.claim("run", "send", "a") == Claim("a", ClaimStatus.SETTLED, outcome)


@pytest.mark.parametrize("other", [("run 2", "send", "a"), ("run", "send 2", "a"), ("run", "send", "a 2")])
@pytest.mark.asyncio
async def test_run_step_and_target_make_an_effect(effects: Effects, other: tuple[str, str, str]) -> None:
    await effects.claim("run", "send", "a")
    assert (await effects.claim(*other)).status is ClaimStatus.NEW
    await effects.settle(*other, "theirs")
    assert (await effects.claim("run", "send", "a")).status is ClaimStatus.UNSETTLED


@pytest.mark.asyncio
async def test_of_many_workers_one_gets_an_effect(effects: Effects) -> None:
    claims = await asyncio.gather(*(effects.claim("run", "send", "a") for _ in range(15)))
    assert Counter(claim.status for claim in claims) == {ClaimStatus.NEW: 1, ClaimStatus.UNSETTLED: 14}


@pytest.mark.asyncio
async def test_of_two_workers_with_opposite_orders_each_effect_goes_to_one(effects: Effects) -> None:
    targets = [f"t{number:04}" for number in range(450)]
    orders = [targets, targets[::-1], targets[200:] + targets[:200]]
    answers = await asyncio.gather(*(effects.claim_many("send", _of("run", order)) for order in orders))
    for order, claims in zip(orders, answers, strict=True):
        assert [claim.target for claim in claims] == order
    new = Counter(claim.target for claims in answers for claim in claims if claim.status is ClaimStatus.NEW)
    assert new == Counter(targets)


POSTGRESQL = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)  # in SQLite a writer is alone


class Releasing:
    """The effect on the target `a` is released just before it is looked at, for these times."""

    def __init__(self, database: Database, server: Server, times: int) -> None:
        self.left = times
        self._server = server
        event.listen(database.ledger.sync_engine, "before_cursor_execute", self._look)

    def _look(self, _connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if self.left and statement.startswith("SELECT effects"):
            self.left -= 1
            with ThreadPoolExecutor() as elsewhere:
                elsewhere.submit(self._server.execute, "DELETE FROM effects WHERE target = 'a'", SHARED).result()


@POSTGRESQL
@pytest.mark.asyncio
async def test_what_is_released_while_it_is_claimed_is_claimed(
    database: Database, effects: Effects, server: Server
) -> None:
    theirs = await effects.claim_many("send", _of("run", ["a", "c"]))
    releasing = Releasing(database, server, 1)
    claims = await effects.claim_many("send", _of("run", ["c", "a", "b"]))
    assert releasing.left == 0
    new, unsettled = ClaimStatus.NEW, ClaimStatus.UNSETTLED
    assert [(each.target, each.status) for each in claims] == [("c", unsettled), ("a", new), ("b", new)]
    assert claims[0].owner == theirs[1].owner
    for claim in claims[1:]:
        found = await effects.find("run", "send", claim.target)
        assert found is not None
        assert found.owner == claim.owner


@POSTGRESQL
@pytest.mark.asyncio
async def test_what_is_claimed_and_released_all_the_time_is_not_claimed_and_that_is_said(
    database: Database, effects: Effects, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await effects.claim("run", "send", "a")
    monkeypatch.setattr("store.effects.CLAIM_TRIES", 1)
    Releasing(database, server, 1)
    with pytest.raises(ClaimsContended, match="are claimed and released by others all the time: try again later"):
        await effects.claim_many("send", _of("run", ["a", "b"]))
    assert await effects.find("run", "send", "b") is None


@pytest.mark.asyncio
async def test_of_many_that_claim_and_release_one_at_a_time_has_it(
    effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.effects.CLAIM_TRIES", 100)
    keys, held, had = _of("run", ["a", "b", "c"]), set[str](), 0

    async def worker() -> None:
        nonlocal had
        for _ in range(60):
            for claim in await effects.claim_many("send", keys):
                if claim.status is not ClaimStatus.NEW:
                    continue
                assert claim.target not in held
                held.add(claim.target)
                had += 1
                found = await effects.find("run", "send", claim.target)
                assert found is not None
                assert found.owner == claim.owner
                held.remove(claim.target)
                await effects.release("run", "send", claim.target, owner=claim.owner)

    await asyncio.gather(*(worker() for _ in range(8)))
    assert had > 60


@pytest.mark.asyncio
async def test_a_target_named_twice_is_claimed_once(effects: Effects) -> None:
    claims = await effects.claim_many("send", _of("run", ["b", "a", "b"]))
    assert claims == [Claim("b", ClaimStatus.NEW), Claim("a", ClaimStatus.NEW)]
    assert await effects.claim_many("send", []) == []


@pytest.mark.asyncio
async def test_one_transaction_settles_some_and_claims_others(effects: Effects) -> None:
    first, second = EffectKey("run 1", "a"), EffectKey("run 2", "a")
    await effects.claim_many("send", [first, EffectKey("run 1", "b")])
    claims = await effects.write("send", {first: {"n": 1}, second: None}, [EffectKey("run 3", "a"), first, second])
    assert [(each.status, each.outcome) for each in claims] == [
        (ClaimStatus.NEW, None),
        (ClaimStatus.SETTLED, {"n": 1}),
        (ClaimStatus.SETTLED, None),
    ]
    found = await effects.find_between("send", "run 1", "run 2")
    assert {key: each.status for key, each in found.items()} == {
        first: ClaimStatus.SETTLED,
        EffectKey("run 1", "b"): ClaimStatus.UNSETTLED,
        second: ClaimStatus.SETTLED,
    }
    assert await effects.find_between("sent", "run 1", "run 2") == {}


@pytest.mark.asyncio
async def test_outcomes_of_every_json_type_come_back_as_they_were(effects: Effects) -> None:
    outcomes: list[JsonValue] = [{"ü": [1, None]}, ['a"b'], "text", "7", 7, 1.5, True, None, "[]"]
    keys = [EffectKey(f"run {number}'", f"t\\{number}\n") for number in range(len(outcomes))]
    await effects.write("send", dict(zip(keys, outcomes, strict=True)), [])
    claims = await effects.claim_many("send", keys)
    assert [(each.status, each.outcome) for each in claims] == [(ClaimStatus.SETTLED, each) for each in outcomes]


@pytest.mark.asyncio
async def test_purging_deletes_what_is_thirty_days_old_in_batches(effects: Effects, clock: FixedClock) -> None:
    await effects.claim_many("send", _of("run", [f"old {number}" for number in range(5)]))
    clock.advance(timedelta(seconds=1))
    await effects.claim("run", "send", "younger")
    clock.advance(KEEP - timedelta(seconds=1))
    assert [await effects.purge(limit=3) for _ in range(3)] == [3, 2, 0]
    assert (await effects.claim("run", "send", "younger")).status is ClaimStatus.UNSETTLED
    clock.advance(timedelta(hours=1))
    assert await effects.purge(older_than=timedelta(days=1)) == 1


@pytest.mark.asyncio
async def test_a_released_claim_is_new_again_and_a_settled_effect_stays(effects: Effects) -> None:
    first = await effects.claim("r", "send", "t")
    await effects.release("r", "send", "t", owner=first.owner)
    assert await effects.find("r", "send", "t") is None
    second = await effects.claim("r", "send", "t")
    assert second.status is ClaimStatus.NEW
    await effects.settle("r", "send", "t", {"outcome": "sent"})
    await effects.release("r", "send", "t", owner=second.owner)
    found = await effects.find("r", "send", "t")
    assert found is not None
    assert (found.status, found.outcome) == (ClaimStatus.SETTLED, {"outcome": "sent"})


@pytest.mark.asyncio
async def test_who_lost_a_claim_cannot_take_it_back(effects: Effects) -> None:
    stalled = await effects.claim("r", "send", "t")
    found = await effects.claim("r", "send", "t")
    assert (found.status, found.owner) == (ClaimStatus.UNSETTLED, stalled.owner)
    assert await effects.take_over("r", "send", found)
    await effects.release("r", "send", "t", owner=stalled.owner)
    assert (await effects.claim("r", "send", "t")).status is ClaimStatus.UNSETTLED


@pytest.mark.asyncio
async def test_of_many_that_take_a_claim_over_one_does(effects: Effects, clock: FixedClock) -> None:
    await effects.claim("r", "send", "t")
    clock.advance(timedelta(minutes=1))
    found = await effects.claim("r", "send", "t")
    owners = await asyncio.gather(*(effects.take_over("r", "send", found) for _ in range(8)))
    assert sum(owner is not None for owner in owners) == 1
    now = await effects.claim("r", "send", "t")
    assert now.owner == next(owner for owner in owners if owner)
    assert (now.claimed_at, now.taken_at) == (clock.now() - timedelta(minutes=1), clock.now())


@pytest.mark.asyncio
async def test_what_is_settled_is_never_settled_otherwise(effects: Effects) -> None:
    await effects.settle("r", "send", "t", {"outcome": "sent"})  # even where the claim is gone
    await effects.settle("r", "send", "t", {"outcome": "failed"})
    found = await effects.claim("r", "send", "t")
    assert (found.status, found.outcome) == (ClaimStatus.SETTLED, {"outcome": "sent"})
    assert await effects.take_over("r", "send", found) is None


@pytest.mark.asyncio
async def test_an_unsettled_claim_says_since_when(effects: Effects, clock: FixedClock) -> None:
    await effects.claim("r", "send", "t")
    claimed_at = clock.now()
    clock.advance(timedelta(minutes=1))
    again = await effects.claim("r", "send", "t")
    assert (again.status, again.claimed_at) == (ClaimStatus.UNSETTLED, claimed_at)
