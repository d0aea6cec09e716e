"""One row per job: written when it is submitted and by the job itself."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, insert, or_, select, tuple_, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.payloads.job import JobState, RecordJob
from runtime.clock import Clock, from_micros, micros
from store.database import Database, advisory_lock
from store.tables import jobs

AGAIN_AFTER = frozenset({JobState.FAILED, JobState.CANCELLED})
MAX_MICROS = 2**63 - 1  # of a BIGINT column
STILL_OPEN = jobs.c.state.not_in([state.value for state in JobState if state.closed])


class InvalidCursor(ValueError):
    """Not a cursor that `Jobs.list` made."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit. `workflow_id` is the business key with the tenant in it."""

    job_id: UUID
    tenant: str
    type: str
    workflow_id: str
    person: str | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A row. `cause` and `error` are set while it is parked or failed."""

    job_id: UUID
    tenant: str
    person: str | None
    type: str
    workflow_id: str
    first_run_id: str | None
    state: JobState
    cause: str | None
    error: str | None
    stage: str | None
    progress_done: int
    progress_total: int
    progress_unit: str | None
    result: Any
    trace_id: str | None
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def _job(row: RowMapping) -> Job:
    values: dict[str, Any] = {**row}
    for name in ("submitted_at", "started_at", "finished_at"):
        values[name] = None if values[name] is None else from_micros(values[name])
    return Job(**(values | {"job_id": UUID(values["job_id"]), "state": JobState(values["state"])}))


class Jobs:
    """Queries on jobs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def submit(
        self, connection: AsyncConnection, new: NewJob, *, again_after: frozenset[JobState] = AGAIN_AFTER
    ) -> tuple[Job, bool]:
        """The job of this workflow id, and whether this call made it.

        An open job, or one that ended in a state not in `again_after`, is returned as it is.

        Args:
            connection: a write transaction, which the caller commits.
            new: the row to add.
            again_after: closed states after which the same workflow id may run again.
        """
        await advisory_lock(connection, f"holdfast:job:{new.workflow_id}")
        newest = select(jobs).where(jobs.c.workflow_id == new.workflow_id)
        newest = newest.order_by(jobs.c.submitted_at.desc(), jobs.c.job_id.desc()).limit(1)
        found = (await connection.execute(newest)).mappings().first()
        if found is not None:
            job = _job(found)
            if job.state not in again_after:
                return job, False
        await connection.execute(
            insert(jobs).values(
                job_id=str(new.job_id),
                tenant=new.tenant,
                person=new.person,
                type=new.type,
                workflow_id=new.workflow_id,
                state=JobState.SUBMITTED.value,
                trace_id=new.trace_id,
                submitted_at=micros(self._clock.now()),
            )
        )
        made = (await connection.execute(select(jobs).where(jobs.c.job_id == str(new.job_id)))).mappings().one()
        return _job(made), True

    async def get(self, tenant: str | None, job_id: UUID, connection: AsyncConnection | None = None) -> Job | None:
        """The job, unless it is another tenant's; `tenant` None is any."""
        if connection is None:
            async with self._database.read() as own:
                return await self.get(tenant, job_id, own)
        query = select(jobs).where(jobs.c.job_id == str(job_id))
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        row = (await connection.execute(query)).mappings().first()
        return _job(row) if row else None

    async def newest(self, tenant: str, workflow_id: str) -> Job | None:
        """The last one that was submitted under a workflow id."""
        query = select(jobs).where(jobs.c.workflow_id == workflow_id, jobs.c.tenant == tenant)
        query = query.order_by(jobs.c.submitted_at.desc(), jobs.c.job_id.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _job(row) if row else None

    async def started(self, job_id: UUID, first_run_id: str) -> None:
        """Note that Temporal has the job. A job that already said more is left alone.

        `started_at` is this call's time until the job's own record brings that of Temporal.
        """
        async with self._database.write() as connection:
            await connection.execute(
                update(jobs)
                .where(jobs.c.job_id == str(job_id), jobs.c.state == JobState.SUBMITTED.value)
                .values(
                    state=JobState.RUNNING.value,
                    first_run_id=first_run_id,
                    started_at=func.coalesce(jobs.c.started_at, micros(self._clock.now())),
                )
            )
            await connection.execute(
                update(jobs)
                .where(jobs.c.job_id == str(job_id), jobs.c.first_run_id.is_(None))
                .values(first_run_id=first_run_id)
            )

    async def close_unstarted(self, connection: AsyncConnection, job_id: UUID, *, cause: str, error: str) -> bool:
        """Fail a job that Temporal never got, within the caller's write transaction; false if it did or is closed."""
        never = (jobs.c.state == JobState.SUBMITTED.value, jobs.c.first_run_id.is_(None))
        done = await connection.execute(
            update(jobs)
            .where(jobs.c.job_id == str(job_id), *never)
            .values(state=JobState.FAILED.value, cause=cause, error=error, finished_at=micros(self._clock.now()))
        )
        return done.rowcount > 0

    async def close_lost(self, job_id: UUID, *, cause: str, error: str) -> bool:
        """Fail an open job whose run is gone; false if it closed meanwhile."""
        values = {"state": JobState.FAILED.value, "cause": cause, "error": error}
        async with self._database.write() as connection:
            done = await connection.execute(
                update(jobs)
                .where(jobs.c.job_id == str(job_id), STILL_OPEN)
                .values(**values, finished_at=micros(self._clock.now()))
            )
        return done.rowcount > 0

    async def record(self, order: RecordJob) -> bool:
        """Write a state; false if the row says so already, or is closed, or does not exist.

        A closed state is final: a late record of an earlier state changes nothing.
        """
        closed = order.state.closed
        explained = order.state in {JobState.PARKED, JobState.FAILED}
        values: dict[str, Any] = {
            "state": order.state.value,
            "started_at": micros(order.started_at),
            "finished_at": micros(order.at) if closed else None,
            "cause": order.cause if explained else None,
            "error": order.error if explained else None,
        }
        if order.first_run_id:
            values["first_run_id"] = order.first_run_id
        if order.result is not None:
            values["result"] = order.result
        changes = or_(
            jobs.c.state != order.state.value,
            jobs.c.cause.is_distinct_from(values["cause"]),
            jobs.c.error.is_distinct_from(values["error"]),
        )
        async with self._database.write() as connection:
            done = await connection.execute(
                update(jobs).where(jobs.c.job_id == str(order.job.job_id), STILL_OPEN, changes).values(values)
            )
        return done.rowcount > 0

    async def progress(
        self, connection: AsyncConnection, job_id: UUID, *, stage: str, done: int, total: int, unit: str
    ) -> None:
        """Note how far an open job is, within the caller's write transaction; a closed one stays as it ended."""
        await connection.execute(
            update(jobs)
            .where(jobs.c.job_id == str(job_id), STILL_OPEN)
            .values(stage=stage, progress_done=done, progress_total=total, progress_unit=unit)
        )

    async def list(
        self,
        tenant: str | None,
        *,
        type: str | None = None,  # noqa: A002 - the column's name
        state: JobState | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Newest first, and the cursor of the next page or None.

        Args:
            tenant: None is all.
            type: of the catalogue.
            state: as recorded.
            since: submitted at or after.
            until: submitted before.
            limit: of the page.
            after: the cursor that the page before returned.

        Raises:
            InvalidCursor: `after` is something else.
        """
        wanted = [
            jobs.c.tenant == tenant if tenant is not None else None,
            jobs.c.type == type if type is not None else None,
            jobs.c.state == state.value if state is not None else None,
            jobs.c.submitted_at >= micros(since) if since is not None else None,
            jobs.c.submitted_at < micros(until) if until is not None else None,
            tuple_(jobs.c.submitted_at, jobs.c.job_id) < tuple_(*_read_cursor(after)) if after is not None else None,
        ]
        query = select(jobs).where(and_(True, *(each for each in wanted if each is not None)))  # noqa: FBT003 - and_ needs a first term
        query = query.order_by(jobs.c.submitted_at.desc(), jobs.c.job_id.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        page = [_job(row) for row in rows[:limit]]
        return page, _cursor(page[-1]) if len(rows) > limit else None


def _cursor(job: Job) -> str:
    return base64.urlsafe_b64encode(f"{micros(job.submitted_at)}:{job.job_id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        at, _, job_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
        position = int(at), str(UUID(job_id))
    except (ValueError, binascii.Error) as error:
        raise InvalidCursor(cursor) from error
    if not 0 <= position[0] <= MAX_MICROS:
        raise InvalidCursor(cursor)
    return position
