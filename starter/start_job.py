"""Starting the workflow of a submitted job: repeated as often as one likes, it starts once."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client, WorkflowHandle
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from contracts.catalogue import JobType
from contracts.catalogue import Priority as JobPriority
from contracts.payloads.job import JobRequest
from contracts.search_attributes import JOB_TYPE, TENANT
from starter.services import Services
from store.jobs import Job

log = structlog.get_logger(__name__)

START_TIMEOUT = timedelta(seconds=5)  # then the answer is 503, and the same request starts it later
JOB_ID_MEMO = "job_id"


async def start_job(
    services: Services,
    job_type: JobType,
    job: Job,
    run: Callable[[Any, Any], Awaitable[Any]],
    request: JobRequest,
    *,
    summary: str,
    priority: JobPriority | None = None,
) -> str:
    """Start `job`'s workflow unless it runs or ran already; its first run id, for `Jobs.started`.

    Args:
        services: the store and the client.
        job_type: for queue and priority.
        job: a row in the state `submitted`.
        run: the workflow's run method.
        request: its argument.
        summary: one line for the Web UI, without anything personal.
        priority: other than the job type's.

    Raises:
        RPCError: Temporal does not answer. The job stays `submitted`; submitting again starts it.
    """
    policy = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
    try:
        handle = await _start(services.temporal, job_type, job, run, request, summary, policy, priority)
    except WorkflowAlreadyStartedError:
        closed = await services.temporal.get_workflow_handle(job.workflow_id).describe(rpc_timeout=START_TIMEOUT)
        if await closed.memo_value(JOB_ID_MEMO, None) == str(job.job_id):
            return closed.raw_description.workflow_execution_info.first_run_id
        # It completed for a job that this store does not know: the store was restored or replaced.
        log.warning("workflow.started_again", workflow_id=job.workflow_id, job_id=str(job.job_id))
        policy = WorkflowIDReusePolicy.ALLOW_DUPLICATE
        handle = await _start(services.temporal, job_type, job, run, request, summary, policy, priority)
    return handle.first_execution_run_id or handle.result_run_id or ""


async def _start(
    client: Client,
    job_type: JobType,
    job: Job,
    run: Callable[[Any, Any], Awaitable[Any]],
    request: JobRequest,
    summary: str,
    reuse: WorkflowIDReusePolicy,
    priority: JobPriority | None,
) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        run,
        request,
        id=job.workflow_id,
        task_queue=job_type.queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=reuse,
        priority=Priority(
            priority_key=(priority or job_type.priority).value, fairness_key=job.tenant[:64]
        ),  # Temporal's limit, bytes
        search_attributes=TypedSearchAttributes(
            [SearchAttributePair(TENANT, job.tenant), SearchAttributePair(JOB_TYPE, job_type.name)]
        ),
        memo={JOB_ID_MEMO: str(job.job_id)},
        static_summary=summary,
        rpc_timeout=START_TIMEOUT,
    )
