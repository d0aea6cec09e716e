import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from runtime.clock import FixedClock
from store.database import Database
from store.ids import new_id
from store.submissions import KEEP, IdempotencyConflict, Submission, Submissions, check


@pytest.fixture
def submissions(database: Database, clock: FixedClock) -> Submissions:
    return Submissions(database, clock)


async def add(database: Database, submissions: Submissions, key: str, tenant: str = "acme", body: str = "h") -> UUID:
    job_id = new_id()
    async with database.write() as connection:
        await submissions.add(connection, tenant, key, body, job_id, "file-1")
    return job_id


async def find(database: Database, submissions: Submissions, key: str, tenant: str = "acme") -> Submission | None:
    async with database.read() as connection:
        return await submissions.find(connection, tenant, key)


@pytest.mark.asyncio
async def test_a_key_finds_what_was_asked_under_it_by_that_tenant(database: Database, submissions: Submissions) -> None:
    job_id = await add(database, submissions, "k")
    assert await find(database, submissions, "k") == Submission("h", job_id, "file-1")
    assert await find(database, submissions, "k", tenant="globex") is None
    assert await find(database, submissions, "K") is None


@pytest.mark.asyncio
async def test_a_key_counts_for_thirty_days_and_is_then_free(
    database: Database, submissions: Submissions, clock: FixedClock
) -> None:
    await add(database, submissions, "k")
    clock.advance(KEEP - timedelta(microseconds=1))
    assert await find(database, submissions, "k") is not None
    clock.advance(timedelta(microseconds=1))
    assert await find(database, submissions, "k") is None
    again = await add(database, submissions, "k", body="other")
    assert await find(database, submissions, "k") == Submission("other", again, "file-1")
    clock.advance(KEEP - timedelta(microseconds=1))
    assert await find(database, submissions, "k") is not None


@pytest.mark.asyncio
async def test_purging_deletes_expired_ones_only_and_in_batches(
    database: Database, submissions: Submissions, clock: FixedClock
) -> None:
    for number in range(5):
        await add(database, submissions, f"old {number}")
    clock.advance(KEEP)
    await add(database, submissions, "new")
    assert [await submissions.purge(limit=3) for _ in range(3)] == [3, 2, 0]
    assert await find(database, submissions, "new") is not None


def test_a_key_is_refused_for_another_body() -> None:
    before = Submission("h", new_id(), None)
    check(before, "h")
    with pytest.raises(IdempotencyConflict, match="send a new key"):
        check(before, "other")


@pytest.mark.asyncio
async def test_of_many_that_ask_under_one_key_at_once_one_starts(database: Database, submissions: Submissions) -> None:
    async def ask() -> UUID:
        async with database.write() as connection:
            before = await submissions.find(connection, "acme", "k")
            if before:
                return before.job_id
            job_id = new_id()
            await asyncio.sleep(0.01)
            await submissions.add(connection, "acme", "k", "h", job_id, None)
            return job_id

    assert len(set(await asyncio.gather(*(ask() for _ in range(12))))) == 1
