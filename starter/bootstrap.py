"""`holdfast bootstrap`: what must exist before work starts. Repeating it changes nothing."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.connectors.known import known
from activities.connectors.spec import Connector
from activities.vendor_limits import wanted
from contracts import search_attributes
from contracts.catalogue import NAMESPACE_RETENTION
from runtime import queue_limits
from runtime.clock import SystemClock
from runtime.settings import Settings
from starter import schedules
from store.connections import Connections
from store.database import Database
from store.migrate import migrate
from store.sealed import Sealing

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


async def bootstrap(client: Client, database: Database, settings: Settings) -> Bootstrapped:
    """Migrate the store and set up the namespace.

    Raises:
        DatabaseUnavailable: the store does not answer.
        RPCError: Temporal does not answer, or refuses: on Temporal Cloud, namespaces and search attributes are made
            with `tcld` or in its UI, and this says which is missing.
    """
    done = Bootstrapped(migrations=await migrate(database))
    done.namespace = await _namespace(client, NAMESPACE_RETENTION)
    done.search_attributes = await _search_attributes(client)
    connectors = known(settings.connector_hosts, settings.connector_speed)
    connections = Connections(database, SystemClock(), Sealing(settings.resolved_credentials_keys()))
    done.queues = await _queues(client, connectors, connections)
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


async def _queues(client: Client, connectors: Mapping[str, Connector], connections: Connections) -> list[str]:
    """Set the rates of the vendors' queues. What an operator set stays."""
    changed = []
    for connector in connectors.values():
        changed += await queue_limits.apply(client, connector.queue, await wanted(connector, connections))
    return changed
