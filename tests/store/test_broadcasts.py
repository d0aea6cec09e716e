from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.payloads.job import JobRef, JobState, RecordJob
from contracts.payloads.notification import Route
from runtime.clock import FixedClock
from store.broadcasts import Broadcast, Broadcasts, Reached
from store.database import Database
from store.ids import new_id
from store.jobs import Jobs, NewJob
from tests.store.conftest import NOW

pytestmark = pytest.mark.asyncio
SECOND = timedelta(seconds=1)


@pytest.fixture
def broadcasts(database: Database, clock: FixedClock) -> Broadcasts:
    return Broadcasts(database, clock)


async def a_broadcast(database: Database, **more: Any) -> Broadcast:
    fields: dict[str, Any] = {
        "broadcast_id": new_id(),
        "tenant": "acme",
        "set_id": "s",
        "total": 3,
        "category": "news",
        "routes": (Route.PUSH, Route.EMAIL),
        "created_at": NOW,
        "expires_at": NOW + timedelta(hours=24),
    }
    made = Broadcast(**fields | more)
    clock = FixedClock(NOW)
    async with database.write() as connection:
        await Broadcasts(database, clock).add(connection, made)
        job = NewJob(made.broadcast_id, made.tenant, "broadcast", f"broadcast:{made.tenant}:{made.broadcast_id}")
        await Jobs(database, clock).submit(connection, job)
    return made


async def test_a_broadcast_comes_back_as_it_was_stored_to_its_tenant(
    database: Database, broadcasts: Broadcasts
) -> None:
    plain = await a_broadcast(database, template="welcome", data={"name": "Ä"})
    full = await a_broadcast(
        database, content={"subject": "s"}, urgent=True, mandatory=True, every=True, resend=False, total=2_000_000
    )
    for made in (plain, full):
        assert await broadcasts.get("acme", made.broadcast_id) == made
        assert await broadcasts.get(None, made.broadcast_id) == made
        assert await broadcasts.get("globex", made.broadcast_id) is None


async def test_a_pause_is_noted_and_taken_back(database: Database, broadcasts: Broadcasts) -> None:
    made = await a_broadcast(database)
    other = await a_broadcast(database)
    await broadcasts.note_pause(made.broadcast_id, "a mistake")
    assert await broadcasts.get("acme", made.broadcast_id) == replace(made, paused="a mistake")
    assert await broadcasts.get("acme", other.broadcast_id) == other
    await broadcasts.note_pause(made.broadcast_id, None)
    assert await broadcasts.get("acme", made.broadcast_id) == made


async def test_outcomes_are_summed_over_chunks_and_a_chunk_that_is_sent_again_replaces_its_own(
    database: Database, broadcasts: Broadcasts, clock: FixedClock
) -> None:
    made, other = await a_broadcast(database), await a_broadcast(database)
    nothing = await broadcasts.reached(made.broadcast_id, since=NOW)
    assert (nothing, nothing.done) == (Reached(Counter(), 0), 0)
    await broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 10, "muted": 1}, began=clock.now())
    await broadcasts.record_chunk(other.broadcast_id, 1, {"sent": 99}, began=clock.now())
    clock.advance(SECOND)
    await broadcasts.record_chunk(made.broadcast_id, 20, {"sent": 5, "dropped": 2}, began=clock.now())
    await broadcasts.record_chunk(made.broadcast_id, 40, {}, began=clock.now())
    seen = await broadcasts.reached(made.broadcast_id, since=NOW + SECOND)
    assert (seen.counts, seen.done, seen.since) == (Counter(sent=15, dropped=2, muted=1), 18, 7)
    await broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 11}, began=clock.now())
    again = await broadcasts.reached(made.broadcast_id, since=NOW + SECOND)
    assert (again.counts, again.since) == (Counter(sent=16, dropped=2), 18)
    assert (await broadcasts.reached(made.broadcast_id, since=NOW + 2 * SECOND)).since == 0


async def test_an_overtaken_execution_of_a_chunk_changes_nothing(database: Database, broadcasts: Broadcasts) -> None:
    made = await a_broadcast(database)
    await broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 3}, began=NOW)
    await broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 9, "muted": 1}, began=NOW + 2 * SECOND)
    await broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 5}, began=NOW + SECOND)
    assert (await broadcasts.reached(made.broadcast_id, since=NOW)).counts == {"sent": 9, "muted": 1}
    await broadcasts.record_chunk(made.broadcast_id, 1, {}, began=NOW + 4 * SECOND)
    await broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 5}, began=NOW + 3 * SECOND)
    nothing = await broadcasts.reached(made.broadcast_id, since=NOW)
    assert (dict(nothing.counts), nothing.since) == ({}, 0)
    await broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 4}, began=NOW + 4 * SECOND)
    assert dict((await broadcasts.reached(made.broadcast_id, since=NOW)).counts) == {"sent": 4}


async def test_the_unfinished_are_the_tenants_whose_jobs_are_open_oldest_first(
    database: Database, broadcasts: Broadcasts, jobs: Jobs
) -> None:
    newer = await a_broadcast(database, created_at=NOW + SECOND)
    older, ended = await a_broadcast(database), await a_broadcast(database)
    await a_broadcast(database, tenant="globex")
    record = RecordJob(
        job=JobRef(job_id=ended.broadcast_id, tenant="acme"),
        state=JobState.DONE,
        first_run_id="r",
        started_at=NOW,
        at=NOW,
    )
    assert await jobs.record(record)
    expected: list[UUID] = [older.broadcast_id, newer.broadcast_id]
    assert await broadcasts.unfinished("acme") == expected
