"""`holdfast bootstrap`: what must exist before work starts. Repeating it changes nothing."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import RateLimit, TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
    UpdateTaskQueueConfigRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from contracts import search_attributes
from contracts.catalogue import NAMESPACE_RETENTION, QUEUES, Queue
from starter import schedules
from store.database import Database
from store.migrate import migrate

KNOWN_WITHIN = timedelta(minutes=2)  # measured: 2 s on the embedded server


@dataclass
class Bootstrapped:
    """What this run changed; empty if everything was there."""

    migrations: list[str] = field(default_factory=list)
    namespace: list[str] = field(default_factory=list)
    search_attributes: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line per part, for people."""
        parts = {
            "store": self.migrations,
            "namespace": self.namespace,
            "search attributes": self.search_attributes,
            "queues": self.queues,
            "schedules": self.schedules,
        }
        return [f"{name}: {', '.join(changes) or 'nothing to do'}" for name, changes in parts.items()]


async def bootstrap(client: Client, database: Database) -> Bootstrapped:
    """Migrate the store and set up the namespace.

    Raises:
        DatabaseUnavailable: the store does not answer.
        RPCError: Temporal does not answer, or refuses: on Temporal Cloud, namespaces and search attributes are made
            with `tcld` or in its UI, and this says which is missing.
    """
    done = Bootstrapped(migrations=await migrate(database))
    done.namespace = await _namespace(client, NAMESPACE_RETENTION)
    done.search_attributes = await _search_attributes(client)
    done.queues = await _queues(client, QUEUES)
    done.schedules = await schedules.apply(client)
    return done


async def _namespace(client: Client, retention: timedelta) -> list[str]:
    wanted = Duration(seconds=int(retention.total_seconds()))
    service = client.workflow_service
    try:
        found = await service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        await service.register_namespace(
            RegisterNamespaceRequest(namespace=client.namespace, workflow_execution_retention_period=wanted)
        )
        return [f"{client.namespace} made, histories kept {retention.days} days"]
    if found.config.workflow_execution_retention_ttl.seconds == wanted.seconds:
        return []
    await service.update_namespace(
        UpdateNamespaceRequest(
            namespace=client.namespace, config=NamespaceConfig(workflow_execution_retention_ttl=wanted)
        )
    )
    return [f"{client.namespace} now keeps histories {retention.days} days"]


async def _search_attributes(client: Client) -> list[str]:
    service = client.operator_service
    found = await service.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    missing = [key.name for key in search_attributes.ALL if key.name not in found.custom_attributes]
    if missing:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        await service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword))
        )
        await _until_known(client, missing)
    return missing


async def _until_known(client: Client, names: list[str]) -> None:
    """The server caches the list; a job started before it looks again would be refused."""
    query = " AND ".join(f"{name} = ''" for name in names)
    async with asyncio.timeout(KNOWN_WITHIN.total_seconds()):
        while True:
            try:
                await client.count_workflows(query)
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                await asyncio.sleep(0.2)
            else:
                return


async def _queues(client: Client, queues: tuple[Queue, ...]) -> list[str]:
    """Set the rate limit of each queue that has one. A limit an operator set on another queue is left alone."""
    changed = []
    for queue in queues:
        if queue.activities_per_second is None:
            continue
        described = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.namespace,
                task_queue=TaskQueue(name=queue.name),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
                report_config=True,
            )
        )
        limit = described.config.queue_rate_limit.rate_limit.requests_per_second
        if abs(limit - queue.activities_per_second) < 1e-6:  # noqa: PLR2004 - the server keeps a 32-bit float
            continue
        await client.workflow_service.update_task_queue_config(
            UpdateTaskQueueConfigRequest(
                namespace=client.namespace,
                identity=client.identity,
                task_queue=queue.name,
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
                update_queue_rate_limit=UpdateTaskQueueConfigRequest.RateLimitUpdate(
                    rate_limit=RateLimit(requests_per_second=queue.activities_per_second),
                    reason="contracts/catalogue.py, by holdfast bootstrap",
                ),
            )
        )
        changed.append(f"{queue.name} at {queue.activities_per_second:g} a second")
    return changed
