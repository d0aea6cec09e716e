"""Claims and ends of many, written together: nobody's is lost, and of two one gets an effect."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from pydantic import JsonValue

from runtime.clock import FixedClock
from store.database import MAX_ROWS_PER_WRITE, Database, DatabaseUnavailable
from store.effect_batches import AGAIN_SECONDS, EffectBatches
from store.effects import Claim, ClaimStatus, EffectKey, Effects

SOON = 10.0  # seconds


class Watched(Effects):
    """Counts its transactions; `fail` is raised by the next ones, one each."""

    def __init__(self, database: Database, clock: FixedClock) -> None:
        super().__init__(database, clock)
        self.fail: list[Exception] = []
        self.rows: list[tuple[int, int]] = []
        self.at_once = 0

    async def write(self, step: str, ended: Mapping[EffectKey, JsonValue], wanted: Sequence[EffectKey]) -> list[Claim]:
        assert self.at_once == 0
        self.at_once += 1
        self.rows.append((len(ended), len(wanted)))
        try:
            if self.fail:
                raise self.fail.pop(0)
            return await super().write(step, ended, wanted)
        finally:
            self.at_once -= 1


@pytest.fixture
def effects(database: Database, clock: FixedClock) -> Watched:
    return Watched(database, clock)


@pytest.fixture
def batches(effects: Watched) -> EffectBatches:
    return EffectBatches(effects, "send")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.effect_batches.AGAIN_SECONDS", (0.01,) * len(AGAIN_SECONDS))


def keys(number: int, run_id: str = "run") -> list[EffectKey]:
    return [EffectKey(run_id, f"t{each:04}") for each in range(number)]


async def statuses(effects: Effects, wanted: Sequence[EffectKey]) -> Counter[ClaimStatus]:
    found = await effects.find_between("send", "run", "run~")
    return Counter(found[key].status for key in wanted if key in found)


@pytest.mark.asyncio
async def test_of_two_who_claim_an_effect_at_once_one_gets_it(batches: EffectBatches) -> None:
    (key,) = keys(1)
    claims = await asyncio.gather(batches.claim([key]), batches.claim([key]))
    assert [each.status for claim in claims for each in claim] == [ClaimStatus.NEW, ClaimStatus.UNSETTLED]
    assert claims[0][0].owner == claims[1][0].owner


@pytest.mark.asyncio
async def test_claims_that_overlap_share_no_new_effect(batches: EffectBatches) -> None:
    wanted = keys(60)
    asked = [wanted[:40], wanted[20:][::-1], wanted[10:50]]
    claims = await asyncio.gather(*(batches.claim(each) for each in asked))
    for names, got in zip(asked, claims, strict=True):
        assert [each.target for each in got] == [key.target for key in names]
    new = Counter(each.target for claim in claims for each in claim if each.status is ClaimStatus.NEW)
    assert new == Counter(key.target for key in wanted)


@pytest.mark.asyncio
async def test_claims_and_ends_of_many_all_land_in_few_transactions(effects: Watched, batches: EffectBatches) -> None:
    wanted = keys(640)

    async def sender(mine: list[EffectKey]) -> None:
        claims = await batches.claim(mine)
        assert [(each.target, each.status) for each in claims] == [(key.target, ClaimStatus.NEW) for key in mine]
        await asyncio.gather(*(batches.settle(key, {"of": key.target}) for key in mine))

    async with asyncio.timeout(SOON):
        await asyncio.gather(*(sender(wanted[start : start + 32]) for start in range(0, 640, 32)))
    found = await effects.find_between("send", "run", "run~")
    assert {key: claim.outcome for key, claim in found.items()} == {key: {"of": key.target} for key in wanted}
    assert await statuses(effects, wanted) == {ClaimStatus.SETTLED: 640}
    assert max(ended + claimed for ended, claimed in effects.rows) <= MAX_ROWS_PER_WRITE
    assert len(effects.rows) <= 20


@pytest.mark.asyncio
async def test_an_end_lands_without_another_and_is_what_a_claim_finds(batches: EffectBatches) -> None:
    (key,) = keys(1)
    await batches.claim([key])
    async with asyncio.timeout(SOON):
        await batches.settle(key, "done")
        (claim,) = await batches.claim([key])
    assert (claim.status, claim.outcome) == (ClaimStatus.SETTLED, "done")


@pytest.mark.asyncio
async def test_an_end_is_tried_again_until_the_store_is_back(effects: Watched, batches: EffectBatches) -> None:
    wanted = keys(3)
    await batches.claim(wanted)
    effects.fail = [DatabaseUnavailable("away")] * len(AGAIN_SECONDS)
    async with asyncio.timeout(SOON):
        await asyncio.gather(*(batches.settle(key, "done") for key in wanted))
    assert effects.fail == []
    assert await statuses(effects, wanted) == {ClaimStatus.SETTLED: 3}


@pytest.mark.asyncio
async def test_an_end_that_never_lands_is_told_and_the_next_does(effects: Watched, batches: EffectBatches) -> None:
    first, second = keys(2)
    await batches.claim([first, second])
    effects.fail = [DatabaseUnavailable("away")] * (1 + len(AGAIN_SECONDS))
    with pytest.raises(DatabaseUnavailable, match="away"):
        await asyncio.wait_for(batches.settle(first, "done"), SOON)
    await asyncio.wait_for(batches.settle(second, "done"), SOON)
    assert await statuses(effects, [first]) == {ClaimStatus.UNSETTLED: 1}
    assert await statuses(effects, [second]) == {ClaimStatus.SETTLED: 1}


@pytest.mark.asyncio
async def test_a_claim_that_fails_is_told_at_once_and_claims_nothing(effects: Watched, batches: EffectBatches) -> None:
    wanted = keys(2)
    effects.fail = [DatabaseUnavailable("away")]
    with pytest.raises(DatabaseUnavailable, match="away"):
        await asyncio.wait_for(batches.claim(wanted), SOON)
    assert effects.rows == [(0, 2)]
    assert [each.status for each in await batches.claim(wanted)] == [ClaimStatus.NEW] * 2


@pytest.mark.asyncio
async def test_a_claimer_that_is_cancelled_takes_nobody_along(batches: EffectBatches) -> None:
    mine, other = keys(2)
    gone = asyncio.create_task(batches.claim([mine]))
    stays = asyncio.create_task(batches.claim([other]))
    await asyncio.sleep(0)
    gone.cancel()
    (claim,) = await asyncio.wait_for(stays, SOON)
    assert claim.status is ClaimStatus.NEW
