"""Connections as the API and the command line change them: with their syncs, and with the rates of their queues."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from pydantic import JsonValue
from temporalio.service import RPCError

from activities.connectors.known import connector
from activities.vendor_limits import wanted
from contracts.payloads.job import JobState
from contracts.payloads.sync import sync_workflow_id
from runtime import queue_limits
from starter.cancel_job import cancel_job
from starter.connection_request import ConnectionBody, checked, checked_credentials
from starter.services import Services
from store.connections import DELETING, Connection, ConnectionState, DuplicateConnection
from store.database import DatabaseUnavailable
from store.jobs import Job
from store.synced import PAUSE

log = structlog.get_logger(__name__)

BY_HAND = "by hand: "  # begins the reason of a freeze that can be taken back without new credentials
LIMITS_WITHIN = 5.0  # seconds
CANCELLED_WITHIN = 5.0  # seconds
READ_AT_ONCE = 200


class AlreadyConnected(Exception):
    """The tenant has such a connection. The message says what to do."""


class NeedsCredentials(Exception):
    """It was not frozen by hand, so that new credentials are the way. The message says why it is frozen."""


def is_being_deleted(connection: Connection) -> bool:
    """Whether it is gone for all but who deletes it."""
    return connection.state is ConnectionState.FROZEN and connection.reason == DELETING


async def visible(services: Services, tenant: str | None, connection_id: str) -> Connection | None:
    """The connection, unless it is another tenant's or is being deleted; a tenant of None is any."""
    found = await services.connections.get(tenant, connection_id)
    return None if found is None or is_being_deleted(found) else found


async def connect(services: Services, tenant: str, body: ConnectionBody) -> Connection:
    """Store a new connection.

    Raises:
        UnknownProvider: there is no connector of that name.
        InvalidConnection: the connector cannot work with it.
        AlreadyConnected: there is one of this name.
    """
    settings, credentials = checked(connector(services.connectors, body.provider), body.settings, body.credentials)
    try:
        return await services.connections.create(
            tenant, body.provider, body.account, settings=settings, credentials=credentials
        )
    except DuplicateConnection as error:
        raise AlreadyConnected(await _why_twice(services, tenant, body)) from error


async def _why_twice(services: Services, tenant: str, body: ConnectionBody) -> str:
    told = f"{tenant} has a connection to {body.provider} named {body.account!r}"
    after: str | None = None
    while True:
        page, after = await services.connections.list(tenant, provider=body.provider, after=after, limit=READ_AT_ONCE)
        for each in page:
            if each.account != body.account:
                continue
            if is_being_deleted(each):
                return f"{told}, which is being deleted: ask again when it is gone (it is {each.connection_id})"
            return f"{told}: it is {each.connection_id}; renew its credentials, or choose another name"
        if after is None:
            return f"{told}: renew its credentials, or choose another name"


async def renew(services: Services, connection: Connection, credentials: dict[str, JsonValue]) -> Connection | None:
    """With new credentials, and active; None if it was deleted meanwhile.

    Raises:
        InvalidConnection: these are no credentials.
    """
    stored = checked_credentials(credentials)
    return await services.connections.renew(connection.tenant, connection.connection_id, stored)


async def freeze(services: Services, connection: Connection, reason: str) -> None:
    """Sync it no more; a page that is being pulled is the last one. A frozen one stays as it is."""
    await services.connections.freeze(connection.tenant, connection.connection_id, f"{BY_HAND}{reason}")


async def unfreeze(services: Services, connection: Connection) -> None:
    """Take back a freeze by hand. An active one stays as it is.

    Raises:
        NeedsCredentials: it is frozen for another reason.
    """
    if connection.state is ConnectionState.ACTIVE:
        return
    reason = connection.reason or ""
    if not reason.startswith(BY_HAND):
        raise NeedsCredentials(f"the connection is not frozen by hand, and new credentials are the way: {reason}")
    await services.connections.unfreeze(connection.tenant, connection.connection_id, reason)


async def newest_job(services: Services, connection: Connection) -> Job | None:
    """Its last sync: the one that runs, if one does."""
    return await services.jobs.newest(connection.tenant, sync_workflow_id(connection.tenant, connection.connection_id))


async def bring_limits_in_line(services: Services, provider: str) -> None:
    """Set the rates of the vendor's queue by its number of active connections, if Temporal answers.

    The sync-all job does it every quarter of an hour.
    """
    known = services.connectors.get(provider)
    if known is None:
        return
    limit = await wanted(known, services.connections)
    try:
        async with asyncio.timeout(LIMITS_WITHIN):
            changed = await queue_limits.apply(services.temporal, known.queue, limit)
    except (RPCError, TimeoutError) as error:
        log.warning("queue.limits_not_set", queue=known.queue, error=str(error) or "no answer")
    else:
        if changed:
            log.info("queue.limits_set", changed=changed)


_DELETING: set[asyncio.Task[bool]] = set()


async def delete_connection(services: Services, connection: Connection, *, within: timedelta) -> bool:
    """Delete it with its rows, and stop its sync; whether it is gone already, or goes on in the background.

    From the first moment on nobody sees it. If this process ends before it is gone, deleting it again goes on.
    """
    more = await services.connections.delete(connection.tenant, connection.connection_id)
    await _stop_sync(services, connection)
    if not more:
        return True
    task = asyncio.get_running_loop().create_task(_delete(services, connection))
    _DELETING.add(task)
    task.add_done_callback(_DELETING.discard)
    await asyncio.wait({task}, timeout=within.total_seconds())
    return task.done() and task.result()


async def all_deleted() -> None:
    """Wait for what `delete_connection` left to the background."""
    while _DELETING:
        await asyncio.gather(*_DELETING)


async def _delete(services: Services, connection: Connection) -> bool:
    try:
        while await services.connections.delete(connection.tenant, connection.connection_id):  # noqa: ASYNC110 - a pace
            await asyncio.sleep(PAUSE.total_seconds())
    except DatabaseUnavailable as error:
        log.warning("connection.not_deleted", connection=connection.connection_id, error=str(error))
        return False
    return True


async def _stop_sync(services: Services, connection: Connection) -> None:
    job = await newest_job(services, connection)
    if job is None or job.state.closed:
        return
    try:
        async with asyncio.timeout(CANCELLED_WITHIN):
            await cancel_job(services, job)
    except (RPCError, TimeoutError) as error:
        # it fails by itself at its next page
        log.warning("sync.not_cancelled", job_id=str(job.job_id), error=str(error) or "no answer")
        if job.state is JobState.SUBMITTED:
            async with services.database.write() as transaction:
                words = "its connection was deleted before Temporal had it"
                await services.jobs.close_unstarted(transaction, job.job_id, cause="connection_deleted", error=words)


async def listed(
    services: Services,
    tenant: str | None,
    *,
    provider: str | None = None,
    state: ConnectionState | None = None,
    after: str | None = None,
    limit: int = 50,
) -> tuple[Sequence[Connection], str | None]:
    """As `Connections.list`, without those that are being deleted: a page can be shorter than its limit.

    Raises:
        InvalidCursor: `after` is something else.
    """
    found, following = await services.connections.list(tenant, provider=provider, state=state, after=after, limit=limit)
    return [each for each in found if not is_being_deleted(each)], following
