"""Idempotency keys: what was asked under which key, kept 30 days, long after the workflow is deleted."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, micros
from store.database import MAX_ROWS_PER_WRITE, Database, advisory_lock
from store.tables import submissions

KEEP = timedelta(days=30)


class IdempotencyConflict(Exception):
    """The Idempotency-Key was used for a different request; send a new key for a new request."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was started under a key. `resource_id` is what the job is about, such as a file id."""

    body_hash: str
    job_id: UUID
    resource_id: str | None


def check(before: Submission, body_hash: str) -> None:
    """Accept a repetition.

    Raises:
        IdempotencyConflict: the body is another one.
    """
    if before.body_hash != body_hash:
        raise IdempotencyConflict(IdempotencyConflict.__doc__)


class Submissions:
    """Queries on submissions."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(self, connection: AsyncConnection, tenant: str, key: str) -> Submission | None:
        """What was asked under this key in the last 30 days.

        Within a write transaction it also makes others with the same key wait until that one ends.
        """
        await advisory_lock(connection, f"holdfast:submission:{tenant}:{key}")
        query = select(submissions.c.body_hash, submissions.c.job_id, submissions.c.resource_id).where(
            submissions.c.tenant == tenant,
            submissions.c.idempotency_key == key,
            submissions.c.created_at > micros(self._clock.now() - KEEP),
        )
        row = (await connection.execute(query)).first()
        return Submission(row.body_hash, UUID(row.job_id), row.resource_id) if row else None

    async def add(
        self,
        connection: AsyncConnection,
        tenant: str,
        key: str,
        body_hash: str,
        job_id: UUID,
        resource_id: str | None = None,
    ) -> None:
        """Remember; an expired one under the same key is replaced."""
        await connection.execute(
            delete(submissions).where(submissions.c.tenant == tenant, submissions.c.idempotency_key == key)
        )
        await connection.execute(
            insert(submissions).values(
                tenant=tenant,
                idempotency_key=key,
                body_hash=body_hash,
                job_id=str(job_id),
                resource_id=resource_id,
                created_at=micros(self._clock.now()),
            )
        )

    async def purge(self, limit: int = MAX_ROWS_PER_WRITE) -> int:
        """Delete at most `limit` expired ones; how many."""
        old = (
            select(submissions.c.tenant, submissions.c.idempotency_key)
            .where(submissions.c.created_at <= micros(self._clock.now() - KEEP))
            .limit(limit)
        )
        async with self._database.write() as connection:
            rows = (await connection.execute(old)).all()
            for tenant, key in rows:
                await connection.execute(
                    delete(submissions).where(submissions.c.tenant == tenant, submissions.c.idempotency_key == key)
                )
        return len(rows)
