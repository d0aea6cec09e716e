"""Starting the sync of a connection on somebody's wish."""

from activities.sync_start import StartedSync
from activities.sync_start import start_sync as start
from starter.services import Services
from store.connections import Connection, ConnectionState

__all__ = ["ConnectionFrozen", "StartedSync", "start_sync"]


class ConnectionFrozen(Exception):
    """It is not synced. The message says why, and what to do."""


async def start_sync(services: Services, connection: Connection, *, full: bool = False) -> StartedSync:
    """Start it, or join the one that runs, which then may be no full one.

    Raises:
        ConnectionFrozen: it is.
        RPCError: Temporal does not answer. The job stays `submitted`: asking again starts it, and so does the schedule.
    """
    if connection.state is ConnectionState.FROZEN:
        raise ConnectionFrozen(f"the connection is frozen: {connection.reason}")
    return await start(services.temporal, services.database, services.jobs, connection, full=full)
