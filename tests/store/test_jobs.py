import asyncio
import base64
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from contracts.payloads.job import JobRef, JobState, RecordJob
from runtime.clock import FixedClock, micros
from store.database import Database
from store.ids import new_id
from store.jobs import InvalidCursor, Job, Jobs, NewJob
from store.tables import jobs as jobs_table
from tests.store.conftest import NOW, submit


def record(job: Job, state: JobState, **more: Any) -> RecordJob:
    values = {"first_run_id": "run-1", "started_at": NOW, "at": NOW + timedelta(seconds=9)} | more
    return RecordJob(job=JobRef(job_id=job.job_id, tenant=job.tenant), state=state, **values)


async def find(jobs: Jobs, job: Job) -> Job:
    found = await jobs.get(None, job.job_id)
    assert found is not None
    return found


@pytest.mark.asyncio
async def test_a_submitted_job_is_stored_as_asked(database: Database, jobs: Jobs) -> None:
    new = NewJob(new_id(), "acme", "file", "file:acme:ab", person="p-1", trace_id="ab" * 16)
    async with database.write() as connection:
        job, created = await jobs.submit(connection, new)
    assert created
    assert job == await jobs.get("acme", new.job_id)
    assert job == Job(
        job_id=new.job_id,
        tenant="acme",
        person="p-1",
        type="file",
        workflow_id="file:acme:ab",
        first_run_id=None,
        state=JobState.SUBMITTED,
        cause=None,
        error=None,
        stage=None,
        progress_done=0,
        progress_total=0,
        progress_unit=None,
        result=None,
        trace_id="ab" * 16,
        submitted_at=NOW,
        started_at=None,
        finished_at=None,
    )


@pytest.mark.asyncio
async def test_a_job_is_not_seen_by_another_tenant(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    assert await jobs.get("globex", job.job_id) is None
    assert await jobs.get(None, job.job_id) == job
    assert await jobs.get("acme", new_id()) is None


@pytest.mark.parametrize(
    ("state", "again"),
    [
        (JobState.SUBMITTED, False),
        (JobState.RUNNING, False),
        (JobState.PARKED, False),
        (JobState.DONE, False),
        (JobState.FAILED, True),
        (JobState.CANCELLED, True),
    ],
)
@pytest.mark.asyncio
async def test_the_same_work_is_submitted_again_only_after_it_failed(
    database: Database, jobs: Jobs, clock: FixedClock, state: JobState, again: bool
) -> None:
    first = await submit(database, jobs, "w")
    if state is not JobState.SUBMITTED:
        await jobs.record(record(first, state))
    clock.advance(timedelta(seconds=1))
    async with database.write() as connection:
        second, created = await jobs.submit(connection, NewJob(new_id(), "acme", "file", "w"))
    assert created is again
    assert (second.job_id != first.job_id) is again
    assert second.state is (JobState.SUBMITTED if again else state)


@pytest.mark.asyncio
async def test_the_newest_job_of_the_same_work_decides(database: Database, jobs: Jobs, clock: FixedClock) -> None:
    failed = await submit(database, jobs, "w")
    await jobs.record(record(failed, JobState.FAILED))
    clock.advance(timedelta(seconds=1))
    done = await submit(database, jobs, "w")
    await jobs.record(record(done, JobState.DONE))
    async with database.write() as connection:
        found, created = await jobs.submit(connection, NewJob(new_id(), "acme", "file", "w"))
        assert (found.job_id, created) == (done.job_id, False)
        again, created = await jobs.submit(
            connection, NewJob(new_id(), "acme", "file", "w"), again_after=frozenset({JobState.DONE})
        )
    assert (again.state, created) == (JobState.SUBMITTED, True)


@pytest.mark.asyncio
async def test_of_many_that_submit_the_same_work_at_once_one_makes_the_job(database: Database, jobs: Jobs) -> None:
    async def one() -> tuple[Job, bool]:
        async with database.write() as connection:
            return await jobs.submit(connection, NewJob(new_id(), "acme", "file", "w"))

    answers = await asyncio.gather(*(one() for _ in range(15)))
    assert [created for _job, created in answers].count(True) == 1
    assert len({job.job_id for job, _created in answers}) == 1


@pytest.mark.asyncio
async def test_the_tables_refuse_a_second_open_job_of_the_same_work(database: Database, jobs: Jobs) -> None:
    await submit(database, jobs, "w")
    row = {"job_id": str(new_id()), "tenant": "acme", "type": "file", "workflow_id": "w", "submitted_at": 1}
    async with database.write() as connection:
        await connection.execute(insert(jobs_table).values(row | {"state": "done"}))
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(insert(jobs_table).values(row | {"job_id": str(new_id()), "state": "parked"}))


@pytest.mark.asyncio
async def test_a_start_moves_a_submitted_job_only(database: Database, jobs: Jobs, clock: FixedClock) -> None:
    job = await submit(database, jobs, "w")
    clock.advance(timedelta(seconds=2))
    await jobs.started(job.job_id, "run-1")
    running = await find(jobs, job)
    assert (running.state, running.first_run_id) == (JobState.RUNNING, "run-1")
    assert running.started_at == NOW + timedelta(seconds=2)
    await jobs.record(record(job, JobState.PARKED, cause="c"))
    await jobs.started(job.job_id, "run-2")
    parked = await find(jobs, job)
    assert (parked.state, parked.first_run_id, parked.started_at) == (JobState.PARKED, "run-1", NOW)


@pytest.mark.asyncio
async def test_a_job_that_ended_before_its_start_was_noted_stays_ended(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    await jobs.record(record(job, JobState.CANCELLED, first_run_id=""))
    await jobs.started(job.job_id, "run-1")
    ended = await find(jobs, job)
    assert (ended.state, ended.first_run_id) == (JobState.CANCELLED, "run-1")


@pytest.mark.asyncio
async def test_a_job_goes_through_its_states(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    assert await jobs.record(record(job, JobState.RUNNING))
    assert (await find(jobs, job)).finished_at is None
    assert await jobs.record(record(job, JobState.PARKED, cause="smtp_refused", error="send: 550"))
    parked = await find(jobs, job)
    assert (parked.cause, parked.error, parked.finished_at) == ("smtp_refused", "send: 550", None)
    assert await jobs.record(record(job, JobState.RUNNING))
    assert ((await find(jobs, job)).cause, (await find(jobs, job)).error) == (None, None)
    assert await jobs.record(record(job, JobState.DONE, result={"pages": 3, "of": ["a", None]}))
    done = await find(jobs, job)
    assert done.state is JobState.DONE
    assert done.result == {"pages": 3, "of": ["a", None]}
    assert (done.first_run_id, done.started_at, done.finished_at) == ("run-1", NOW, NOW + timedelta(seconds=9))


@pytest.mark.asyncio
async def test_a_failed_job_keeps_its_cause(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    await jobs.record(record(job, JobState.FAILED, cause="terminated", error="by an operator"))
    failed = await find(jobs, job)
    assert (failed.cause, failed.error) == ("terminated", "by an operator")
    assert failed.finished_at == NOW + timedelta(seconds=9)


@pytest.mark.parametrize("late", list(JobState))
@pytest.mark.asyncio
async def test_a_closed_job_is_never_changed(database: Database, jobs: Jobs, late: JobState) -> None:
    job = await submit(database, jobs, "w")
    await jobs.record(record(job, JobState.DONE, result=1))
    done = await find(jobs, job)
    assert not await jobs.record(record(job, late, cause="late", error="late", result=2, first_run_id="run-2"))
    async with database.write() as connection:
        await jobs.progress(connection, job.job_id, stage="late", done=1, total=2, unit="pages")
    assert await find(jobs, job) == done


@pytest.mark.asyncio
async def test_the_same_state_twice_is_one_change(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    answers = await asyncio.gather(*(jobs.record(record(job, JobState.PARKED, cause="c", error="e")) for _ in range(6)))
    assert sorted(answers) == [False] * 5 + [True]
    before = await find(jobs, job)
    assert not await jobs.record(record(job, JobState.PARKED, cause="c", error="e", at=NOW + timedelta(days=1)))
    assert await find(jobs, job) == before


@pytest.mark.asyncio
async def test_parked_for_another_cause_is_a_change(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    await jobs.record(record(job, JobState.PARKED, cause="first", error="e"))
    assert await jobs.record(record(job, JobState.PARKED, cause="second", error="e"))
    assert (await find(jobs, job)).cause == "second"


@pytest.mark.asyncio
async def test_a_record_of_an_unknown_job_changes_nothing(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    unknown = record(job, JobState.DONE).model_copy(update={"job": JobRef(job_id=new_id(), tenant="acme")})
    assert not await jobs.record(unknown)


@pytest.mark.asyncio
async def test_progress_is_written_with_the_callers_transaction(database: Database, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await jobs.progress(connection, job.job_id, stage="ocr", done=9, total=9, unit="pages")
            raise RuntimeError
    assert await find(jobs, job) == job
    async with database.write() as connection:
        await jobs.progress(connection, job.job_id, stage="ocr", done=3, total=10, unit="pages")
    seen = await find(jobs, job)
    assert (seen.stage, seen.progress_done, seen.progress_total, seen.progress_unit) == ("ocr", 3, 10, "pages")


@pytest.mark.asyncio
async def test_pages_of_a_list_follow_each_other_without_gap_or_repetition(
    database: Database, jobs: Jobs, clock: FixedClock
) -> None:
    made = []
    for number in range(23):
        made.append(await submit(database, jobs, f"w{number}"))
        if number % 3 == 0:
            clock.advance(timedelta(microseconds=1))  # so most have the same time, and ids decide
    expected = [job.job_id for job in sorted(made, key=lambda job: (job.submitted_at, str(job.job_id)), reverse=True)]
    for limit in (1, 5, 22, 23, 24):
        seen, sizes, after = [], [], None
        while True:
            page, after = await jobs.list("acme", limit=limit, after=after)
            seen += [job.job_id for job in page]
            sizes.append(len(page))
            if after is None:
                break
        assert seen == expected
        assert all(size == limit for size in sizes[:-1]) and sizes[-1] > 0


@pytest.mark.asyncio
async def test_a_list_goes_on_where_it_was_when_new_jobs_arrive(
    database: Database, jobs: Jobs, clock: FixedClock
) -> None:
    old = []
    for number in range(4):
        old.append(await submit(database, jobs, f"w{number}"))
        clock.advance(timedelta(seconds=1))
    first, after = await jobs.list("acme", limit=2)
    await submit(database, jobs, "newer")
    second, end = await jobs.list("acme", limit=2, after=after)
    assert [job.job_id for job in first + second] == [job.job_id for job in reversed(old)]
    assert end is None


@pytest.mark.asyncio
async def test_a_list_is_filtered(database: Database, jobs: Jobs, clock: FixedClock) -> None:
    a = await submit(database, jobs, "a")
    clock.advance(timedelta(hours=1))
    b = await submit(database, jobs, "b", type="report")
    clock.advance(timedelta(hours=1))
    c = await submit(database, jobs, "c", tenant="globex")
    await jobs.record(record(b, JobState.PARKED))

    async def ids(tenant: str | None, **wanted: Any) -> list[str]:
        page, _after = await jobs.list(tenant, **wanted)
        return [job.workflow_id for job in page]

    assert await ids(None) == ["c", "b", "a"]
    assert await ids("acme") == ["b", "a"]
    assert await ids("globex") == ["c"]
    assert await ids("initech") == []
    assert await ids(None, type="report") == ["b"]
    assert await ids(None, state=JobState.PARKED) == ["b"]
    assert await ids("globex", state=JobState.PARKED) == []
    assert await ids(None, since=b.submitted_at) == ["c", "b"]
    assert await ids(None, until=b.submitted_at) == ["a"]
    assert await ids("acme", type="file", state=JobState.SUBMITTED, since=a.submitted_at, until=c.submitted_at) == ["a"]


@pytest.mark.asyncio
async def test_a_cursor_does_not_open_another_tenants_jobs(database: Database, jobs: Jobs, clock: FixedClock) -> None:
    await submit(database, jobs, "theirs", tenant="globex")
    clock.advance(timedelta(seconds=1))
    await submit(database, jobs, "ours 1")
    clock.advance(timedelta(seconds=1))
    await submit(database, jobs, "ours 2")
    _page, after = await jobs.list(None, limit=1)
    rest, _after = await jobs.list("acme", after=after)
    assert [job.workflow_id for job in rest] == ["ours 1"]


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "ü",
        "\x00",
        "a" * 10_000,
        _encoded("1"),
        _encoded("1:not-an-id"),
        _encoded(f"x:{new_id()}"),
        _encoded(f"-1:{new_id()}"),
        _encoded(f"{2**63}:{new_id()}"),
        _encoded("' OR 1=1 --:" + str(new_id())),
    ],
)
@pytest.mark.asyncio
async def test_a_cursor_that_is_not_ours_is_refused(jobs: Jobs, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await jobs.list("acme", after=cursor)


@pytest.mark.asyncio
async def test_times_are_stored_to_the_microsecond(database: Database, jobs: Jobs, clock: FixedClock) -> None:
    clock.advance(timedelta(microseconds=123_457))
    job = await submit(database, jobs, "w")
    assert micros((await find(jobs, job)).submitted_at) == micros(NOW) + 123_457
