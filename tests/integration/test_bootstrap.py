"""`holdfast bootstrap` against a real server and store."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from contracts import search_attributes
from contracts.catalogue import NAMESPACE_RETENTION
from runtime import queue_limits
from runtime.ports import free_port
from runtime.server import EmbeddedServer, ServerOptions
from runtime.settings import Settings
from starter.bootstrap import bootstrap
from store.database import Database


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with EmbeddedServer(ServerOptions(tmp_path, free_port(), free_port())) as server:
        yield await Client.connect(server.address)


async def test_sets_everything_up_once_and_says_what_it_did(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path)
    database = Database.open(f"sqlite:///{tmp_path}/store.db")
    try:
        first = await bootstrap(client, database, settings)
        again = await bootstrap(client, database, settings)
    finally:
        await database.close()
    assert first.migrations
    assert first.namespace == [f"default now keeps histories {NAMESPACE_RETENTION.days} days"]
    assert first.search_attributes == ["Tenant", "JobType", "JobStatus", "Cause", "Provider"]
    assert "integrations-github at 1.347 a second for each key" in first.queues
    assert [line.partition(": ")[2] for line in again.lines()] == ["nothing to do"] * 5

    namespace = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    assert timedelta(seconds=namespace.config.workflow_execution_retention_ttl.seconds) == NAMESPACE_RETENTION
    github = await queue_limits.read(client, "integrations-github")
    assert github.per_key == pytest.approx(5_000 * 0.97 / 3_600)
    assert github.per_second == pytest.approx(5_000 * 0.97 / 3_600 * 1.05)  # no connection yet: as for one
    # usable at once: an unknown attribute in a query is an error
    for key in search_attributes.ALL:
        assert (await client.count_workflows(f"{key.name} = 'x'")).count == 0
