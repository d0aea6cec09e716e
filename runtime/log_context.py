"""Every log line of an activity names its job, tenant and attempt."""

from typing import Any

from structlog.contextvars import bound_contextvars
from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from contracts.payloads.job import JobRef


class LogContext(Interceptor):
    """A worker interceptor."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - as inherited
        """Wrap every activity execution."""
        return _ActivityLogContext(next)


class _ActivityLogContext(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - as inherited
        info = activity.info()
        ref = getattr(input.args[0], "job", None) if input.args else None
        job = {"job_id": str(ref.job_id), "tenant": ref.tenant} if isinstance(ref, JobRef) else {}
        with bound_contextvars(**job, activity=info.activity_type, attempt=info.attempt, workflow_id=info.workflow_id):
            return await super().execute_activity(input)
