"""The rates of a task queue's activities: kept by the Temporal server, for all workers together.

An operator's limit stays until it is taken back: the reason that the server keeps with it says whose it is.
https://docs.temporal.io/develop/task-queue-priority-fairness
"""

from dataclasses import dataclass

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, UpdateTaskQueueConfigRequest
from temporalio.client import Client

from runtime.unreachable import answered

OURS = "by Holdfast"
OPERATORS = "by an operator"
SAME = 1e-4  # relative; the server keeps 32-bit floats


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """Activities a second. None: unlimited.

    `per_key` is the limit of each fairness key. `by_operator`: it was set with `holdfast queues limit`.
    """

    per_second: float | None
    per_key: float | None = None
    by_operator: bool = False


async def read(client: Client, queue: str) -> QueueLimit:
    """What the server has.

    Raises:
        RPCError: the server does not answer.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        report_config=True,
    )
    described = await answered(client.workflow_service.describe_task_queue(request))
    config = described.config
    whole, each = config.queue_rate_limit, config.fairness_keys_rate_limit_default
    return QueueLimit(
        per_second=whole.rate_limit.requests_per_second if whole.HasField("rate_limit") else None,
        per_key=each.rate_limit.requests_per_second if each.HasField("rate_limit") else None,
        by_operator=whole.metadata.reason == OPERATORS,
    )


async def apply(client: Client, queue: str, wanted: QueueLimit) -> list[str]:
    """Bring the server in line; sentences about what changed. An operator's limit of the whole queue stays."""
    found = await read(client, queue)
    request = UpdateTaskQueueConfigRequest(
        namespace=client.namespace,
        identity=client.identity,
        task_queue=queue,
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    changed = []
    if not found.by_operator and not _same(found.per_second, wanted.per_second):
        request.update_queue_rate_limit.CopyFrom(_update(wanted.per_second, OURS))
        changed.append(f"{queue} {_words(wanted.per_second)}")
    if not _same(found.per_key, wanted.per_key):
        request.update_fairness_key_rate_limit_default.CopyFrom(_update(wanted.per_key, OURS))
        changed.append(f"{queue} {_words(wanted.per_key)} for each key")
    if changed:
        await answered(client.workflow_service.update_task_queue_config(request))
    return changed


async def override(client: Client, queue: str, per_second: float) -> None:
    """An operator's limit of the whole queue, at once and for all workers; 0 stops it."""
    await _set(client, queue, _update(per_second, OPERATORS))


async def restore(client: Client, queue: str, wanted: QueueLimit) -> None:
    """Take an operator's limit back."""
    await _set(client, queue, _update(wanted.per_second, OURS))


async def _set(client: Client, queue: str, update: UpdateTaskQueueConfigRequest.RateLimitUpdate) -> None:
    request = UpdateTaskQueueConfigRequest(
        namespace=client.namespace,
        identity=client.identity,
        task_queue=queue,
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        update_queue_rate_limit=update,
    )
    await answered(client.workflow_service.update_task_queue_config(request))


def _update(per_second: float | None, reason: str) -> UpdateTaskQueueConfigRequest.RateLimitUpdate:
    if per_second is None:
        return UpdateTaskQueueConfigRequest.RateLimitUpdate(reason=reason)
    return UpdateTaskQueueConfigRequest.RateLimitUpdate(
        rate_limit=RateLimit(requests_per_second=per_second), reason=reason
    )


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= SAME * max(abs(one), abs(other))


def _words(per_second: float | None) -> str:
    return "without a limit" if per_second is None else f"at {per_second:.4g} a second"
