"""`holdfast bootstrap` against a real server and store."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client

from contracts import search_attributes
from contracts.catalogue import NAMESPACE_RETENTION, Queue
from runtime.ports import free_port
from runtime.server import EmbeddedServer, ServerOptions
from starter import bootstrap as module
from starter.bootstrap import bootstrap
from store.database import Database


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with EmbeddedServer(ServerOptions(tmp_path, free_port(), free_port())) as server:
        yield await Client.connect(server.address)


async def test_sets_everything_up_once_and_says_what_it_did(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = (Queue("limited", activities_at_once=1, activities_per_second=0.5), Queue("free", activities_at_once=1))
    monkeypatch.setattr(module, "QUEUES", queues)
    database = Database.open(f"sqlite:///{tmp_path}/store.db")
    try:
        first = await bootstrap(client, database)
        again = await bootstrap(client, database)
    finally:
        await database.close()
    assert first.migrations
    assert first.namespace == [f"default now keeps histories {NAMESPACE_RETENTION.days} days"]
    assert first.search_attributes == ["Tenant", "JobType", "JobStatus", "Cause", "Provider"]
    assert first.queues == ["limited at 0.5 a second"]
    assert [line.partition(": ")[2] for line in again.lines()] == ["nothing to do"] * 5

    namespace = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    assert timedelta(seconds=namespace.config.workflow_execution_retention_ttl.seconds) == NAMESPACE_RETENTION
    queue = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace="default",
            task_queue=TaskQueue(name="limited"),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_config=True,
        )
    )
    assert queue.config.queue_rate_limit.rate_limit.requests_per_second == 0.5
    # usable at once: an unknown attribute in a query is an error
    for key in search_attributes.ALL:
        assert (await client.count_workflows(f"{key.name} = 'x'")).count == 0
