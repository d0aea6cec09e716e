"""The sync-all job's steps. Starting a sync that runs joins it, so repeating them is safe."""

import zlib

import structlog
from temporalio import activity
from temporalio.service import RPCError

from activities.connectors.spec import Connector
from activities.heartbeat import heartbeating
from activities.sync_start import start_sync
from activities.vendor_limits import wanted
from contracts.payloads.sync import LimitsSet, SetLimits, StartSyncs, SyncsStarted
from runtime import queue_limits
from store.connections import Connections, ConnectionState
from store.database import Database
from store.jobs import Jobs

log = structlog.get_logger(__name__)

READ_AT_ONCE = 200


class SyncAllActivities:
    """Collaborators are injected by worker.py. `connectors` are by name."""

    def __init__(
        self, *, connectors: dict[str, Connector], connections: Connections, database: Database, jobs: Jobs
    ) -> None:
        self._connectors = connectors
        self._connections = connections
        self._database = database
        self._jobs = jobs

    @activity.defn(name="sync_all.set_limits")
    async def set_limits(self, order: SetLimits) -> LimitsSet:  # noqa: ARG002 - every step has one
        """Bring each vendor's queue in line with the number of its connections.

        A limit that cannot be set keeps nobody from being synced: the next run tries again.
        """
        changed: list[str] = []
        async with heartbeating():
            for connector in self._connectors.values():
                limit = await wanted(connector, self._connections)
                try:
                    changed += await queue_limits.apply(activity.client(), connector.queue, limit)
                except RPCError as error:
                    log.error("queue.limit_not_set", queue=connector.queue, reason=str(error))  # noqa: TRY400 - says it all
        return LimitsSet(changed=tuple(changed))

    @activity.defn(name="sync_all.start_syncs")
    async def start_syncs(self, order: StartSyncs) -> SyncsStarted:
        """Start the syncs of the active connections of this slice; one that runs is left alone.

        A connection is always of the same slice, so that its syncs are a window apart. One that cannot be started does
        not keep the others.

        Raises:
            RPCError: none could be started.
        """
        started = running = 0
        failed: RPCError | None = None
        after: str | None = None
        async with heartbeating():
            while True:
                due, after = await self._connections.list(
                    None, state=ConnectionState.ACTIVE, after=after, limit=READ_AT_ONCE
                )
                for each in due:
                    if zlib.crc32(each.connection_id.encode()) % order.of != order.number:
                        continue
                    if each.provider not in self._connectors:
                        log.error("provider.unknown", provider=each.provider, connection=each.connection_id)
                        continue
                    try:
                        begun = await start_sync(activity.client(), self._database, self._jobs, each)
                    except RPCError as error:
                        log.error("sync.not_started", connection=each.connection_id, reason=str(error))  # noqa: TRY400
                        failed = error
                        continue
                    if begun.joined:
                        running += 1
                    else:
                        started += 1
                if after is None and failed is not None and not (started or running):
                    raise failed
                if after is None:
                    return SyncsStarted(started=started, running=running)
