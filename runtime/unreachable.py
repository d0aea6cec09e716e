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
    QueryWorkflowInput,
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
        return await answered(super().start_workflow(input))

    async def describe_workflow(self, input: DescribeWorkflowInput) -> WorkflowExecutionDescription:  # noqa: A002 - as inherited
        return await answered(super().describe_workflow(input))

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002 - as inherited
        return await answered(super().query_workflow(input))

    async def cancel_workflow(self, input: CancelWorkflowInput) -> None:  # noqa: A002 - as inherited
        await answered(super().cancel_workflow(input))


async def answered(call: Awaitable[ResultT]) -> ResultT:
    """The answer of a call that no interceptor sees, such as one of `workflow_service`.

    Raises:
        RPCError: there is none.
    """
    try:
        return await call
    except RuntimeError as error:
        if not str(error).startswith("Failed client connect"):
            raise
        raise RPCError(str(error), RPCStatusCode.UNAVAILABLE, b"") from error
