"""A lazy client's failed connection told like any other unavailable service.

The SDK raises RuntimeError where the first call has to connect first, and RPCError ever after.
"""

from collections.abc import Awaitable
from typing import Any, TypeVar

from temporalio.client import (
    CancelWorkflowInput,
    DescribeWorkflowInput,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowInput,
    WorkflowExecutionDescription,
    WorkflowHandle,
)
from temporalio.service import RPCError, RPCStatusCode

ResultT = TypeVar("ResultT")


class UnreachableIsUnavailable(Interceptor):
    """A client interceptor, for the calls the API makes."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - as inherited
        """Wrap them."""
        return _Outbound(next)


class _Outbound(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002 - as inherited
        return await _told(super().start_workflow(input))

    async def describe_workflow(self, input: DescribeWorkflowInput) -> WorkflowExecutionDescription:  # noqa: A002 - as inherited
        return await _told(super().describe_workflow(input))

    async def cancel_workflow(self, input: CancelWorkflowInput) -> None:  # noqa: A002 - as inherited
        await _told(super().cancel_workflow(input))


async def _told(call: Awaitable[ResultT]) -> ResultT:
    try:
        return await call
    except RuntimeError as error:
        if not str(error).startswith("Failed client connect"):
            raise
        raise RPCError(str(error), RPCStatusCode.UNAVAILABLE, b"") from error
