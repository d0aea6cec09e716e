"""Starting the sync of a connection, by the schedule or by somebody: who asks while one runs joins it."""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.scheduled import CLOSED
from contracts.catalogue import SYNC
from contracts.payloads.job import JobRef, JobState
from contracts.payloads.sync import SyncRequest, sync_workflow_id
from contracts.search_attributes import JOB_TYPE, PROVIDER, TENANT
from store.connections import Connection
from store.database import Database
from store.ids import new_id
from store.jobs import Job, Jobs, NewJob

log = structlog.get_logger(__name__)

JOB_ID_MEMO = "job_id"
TIMEOUT = timedelta(seconds=5)  # of one call
ENDING = timedelta(milliseconds=100)  # between two looks at a run that has recorded its end and has yet to close
LOOKS = 30


@dataclass(frozen=True, slots=True)
class StartedSync:
    """`joined`: it was asked for before, and has not ended."""

    job: Job
    joined: bool


async def start_sync(
    client: Client, database: Database, jobs: Jobs, connection: Connection, *, full: bool = False
) -> StartedSync:
    """Start the connection's sync, unless it runs.

    A job whose run ended without its own record, because it was terminated or deleted, is failed here: nobody would
    sync the connection any more.

    Raises:
        RPCError: Temporal does not answer. The job stays `submitted`; starting again starts it.
    """
    workflow_id = sync_workflow_id(connection.tenant, connection.connection_id)
    while True:
        new = NewJob(new_id(), connection.tenant, SYNC.name, workflow_id)
        async with database.write() as transaction:
            job, made = await jobs.submit(transaction, new, again_after=CLOSED)
        if job.state is JobState.SUBMITTED:
            run_id = await _start(client, connection, job, full=full)
            await jobs.started(job.job_id, run_id)
            return StartedSync(replace(job, state=JobState.RUNNING, first_run_id=run_id), joined=not made)
        lost = await _lost(client, workflow_id)
        if lost is None:
            return StartedSync(job, joined=True)
        if await jobs.close_lost(job.job_id, cause="run_lost", error=f"its run ended without a record: {lost}"):
            log.warning("sync.run_lost", job_id=str(job.job_id), connection=connection.connection_id, how=lost)


async def _start(client: Client, connection: Connection, job: Job, *, full: bool) -> str:
    """The first run id of the job's workflow, which may have been started before."""
    request = SyncRequest(
        job=JobRef(job_id=job.job_id, tenant=connection.tenant),
        connection_id=connection.connection_id,
        provider=connection.provider,
        full=full,
    )
    run_id = ""
    for _ in range(LOOKS):
        handle = await client.start_workflow(
            SYNC.name,
            request,
            id=job.workflow_id,
            task_queue=SYNC.queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            priority=Priority(
                priority_key=SYNC.priority.value, fairness_key=connection.tenant[:64]
            ),  # Temporal's limit, bytes
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(TENANT, connection.tenant),
                    SearchAttributePair(JOB_TYPE, SYNC.name),
                    SearchAttributePair(PROVIDER, connection.provider),
                ]
            ),
            memo={JOB_ID_MEMO: str(job.job_id)},
            static_summary=f"sync of {connection.provider}",
            rpc_timeout=TIMEOUT,
        )
        run_id = handle.first_execution_run_id or handle.result_run_id or ""
        if await _is_of(client, job, run_id):
            return run_id
        await asyncio.sleep(ENDING.total_seconds())
    # Its worker went away before its last line, or it runs for a job of another store that this one replaced.
    log.warning("sync.joined_unknown", workflow_id=job.workflow_id, job_id=str(job.job_id))
    return run_id


async def _is_of(client: Client, job: Job, run_id: str) -> bool:
    """Whether a run is the job's; else it is that of the job before, which ends in this moment."""
    handle = client.get_workflow_handle(job.workflow_id, run_id=run_id)
    found = await handle.describe(rpc_timeout=TIMEOUT)
    return await found.memo_value(JOB_ID_MEMO, None) == str(job.job_id)  # type: ignore[no-any-return]


async def _lost(client: Client, workflow_id: str) -> str | None:
    """How the run of an open job ended, in a word; None if it runs, or Temporal does not say."""
    try:
        found = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=TIMEOUT)
    except RPCError as error:
        return "Temporal has it no more" if error.status is RPCStatusCode.NOT_FOUND else None
    if found.status in {None, WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW}:
        return None
    assert found.status is not None
    return found.status.name.lower().replace("_", " ")
