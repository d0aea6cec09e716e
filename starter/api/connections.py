"""/v1/connections: a tenant's accounts at third parties; their credentials, syncs and rows."""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, BackgroundTasks, Body, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from structlog.contextvars import bind_contextvars
from temporalio.service import RPCError

from activities.connectors.known import UnknownProvider
from starter.api.access import AuthenticatedCaller, Caller, Right
from starter.api.connection_views import (
    ConnectionPage,
    ConnectionView,
    RowPage,
    SyncAccepted,
    connection_view,
    resource_views,
    row_view,
    sync_links,
    sync_view,
)
from starter.api.problems import RETRY_AFTER_SECONDS, Problem
from starter.connection_request import ConnectionBody, CredentialsBody, FreezeBody, InvalidConnection
from starter.connections import (
    AlreadyConnected,
    NeedsCredentials,
    bring_limits_in_line,
    connect,
    delete_connection,
    is_being_deleted,
    listed,
    newest_job,
    visible,
)
from starter.connections import freeze as freeze_it
from starter.connections import renew as renew_it
from starter.connections import unfreeze as unfreeze_it
from starter.services import Services
from starter.start_sync import ConnectionFrozen, start_sync
from store.connections import Connection, ConnectionState
from store.jobs import InvalidCursor

router = APIRouter(prefix="/v1/connections", tags=["connections"])
log = structlog.get_logger(__name__)

DELETED_WITHIN = timedelta(seconds=3)  # else the answer is 202
MAX_ROW_ID = 500  # characters
NOT_STARTED = (
    "The Temporal service does not answer: the connection is stored, and the schedule starts its sync at most a quarter"
    " of an hour after Temporal is back."
)
NOT_FULL = "a sync ran already and may not be a full one: ask again when it has ended"


async def _visible(request: Request, caller: AuthenticatedCaller, connection_id: UUID) -> Connection:
    caller.need(Right.SEE_JOBS)
    services: Services = request.app.state.services
    found = await visible(services, caller.scope, str(connection_id))
    if found is None:
        raise _not_found(str(connection_id))
    bind_contextvars(connection=found.connection_id)
    return found


VisibleConnection = Annotated[Connection, Depends(_visible)]


@router.post("", status_code=201, summary="Connect an account")
async def create_connection(
    request: Request,
    caller: AuthenticatedCaller,
    afterwards: BackgroundTasks,
    body: ConnectionBody,
    sync: Annotated[bool, Query(description="Start its first sync now.")] = True,  # noqa: FBT002 - a query parameter
) -> ConnectionView:
    """Store an account at a third party, and sync it. Its credentials are sealed and never shown."""
    services: Services = request.app.state.services
    caller.need(Right.SUBMIT)
    tenant = caller.own_tenant()
    try:
        made = await connect(services, tenant, body)
    except UnknownProvider as error:
        raise Problem(422, "unknown_provider", str(error)) from error
    except InvalidConnection as error:
        raise _invalid(error) from None
    except AlreadyConnected as error:
        raise Problem(409, "connection_exists", str(error)) from error
    bind_contextvars(connection=made.connection_id)
    afterwards.add_task(bring_limits_in_line, services, made.provider)
    return await _shown(services, made, await _try_sync(services, made) if sync else None)


@router.get("", summary="List connections")
async def list_connections(
    request: Request,
    caller: AuthenticatedCaller,
    provider: Annotated[str | None, Query(examples=["github"])] = None,
    state: ConnectionState | None = None,
    tenant: Annotated[str | None, Query(description="For keys of all tenants.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> ConnectionPage:
    """Newest first."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_JOBS)
    if tenant and caller.scope not in {None, tenant}:
        raise Problem(403, "forbidden", f"This key sees only the connections of {caller.scope!r}.")
    try:
        page, following = await listed(
            services, tenant or caller.scope, provider=provider, state=state, after=after, limit=limit
        )
    except InvalidCursor as error:
        raise Problem(422, "invalid_cursor", "`after` is not a `next` of ours; start without it.") from error
    return ConnectionPage(connections=[connection_view(each) for each in page], next=following)


@router.get("/{connection_id}", summary="A connection")  # noqa: FAST003 - the dependency takes connection_id
async def get_connection(request: Request, connection: VisibleConnection) -> ConnectionView:
    """Its state, its last sync, and how many rows it has."""
    return await _shown(request.app.state.services, connection)


@router.put("/{connection_id}/credentials", summary="Renew a connection's credentials")  # noqa: FAST003 - the dependency takes connection_id
async def put_credentials(
    request: Request,
    caller: AuthenticatedCaller,
    afterwards: BackgroundTasks,
    connection: VisibleConnection,
    body: CredentialsBody,
) -> ConnectionView:
    """Put them in the place of the old ones, unfreeze the connection, and go on with its sync where that was."""
    services: Services = request.app.state.services
    _submits(caller)
    try:
        renewed = await renew_it(services, connection, body.credentials)
    except InvalidConnection as error:
        raise _invalid(error) from None
    if renewed is None:
        raise _not_found(connection.connection_id)
    afterwards.add_task(bring_limits_in_line, services, renewed.provider)
    return await _shown(services, renewed, await _try_sync(services, renewed))


@router.post("/{connection_id}/sync", status_code=202, summary="Sync a connection")  # noqa: FAST003 - the dependency takes connection_id
async def sync_connection(
    request: Request,
    caller: AuthenticatedCaller,
    connection: VisibleConnection,
    full: Annotated[bool, Query(description="Ask for everything again, not for changes only.")] = False,  # noqa: FBT002 - a query parameter
) -> SyncAccepted:
    """Start a sync, or join the one that runs."""
    services: Services = request.app.state.services
    _submits(caller)
    try:
        begun = await start_sync(services, connection, full=full)
    except ConnectionFrozen as error:
        raise Problem(409, "connection_frozen", f"Nothing was started: {error}.") from error
    except RPCError as error:
        log.warning("temporal.unavailable", error=str(error), status=error.status.name)
        detail = (
            "The Temporal service does not answer: the sync is stored and not started. Send the same request again, or "
            "leave it to the schedule, which starts it at most a quarter of an hour after Temporal is back"
            + (", though not in full." if full else ".")
        )
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        raise Problem(503, "temporal_unavailable", detail, headers=headers) from error
    bind_contextvars(job_id=str(begun.job.job_id))
    return SyncAccepted(
        job_id=begun.job.job_id,
        state=begun.job.state,
        joined=begun.joined,
        note=NOT_FULL if full and begun.joined else None,
        links=sync_links(services.settings, services.temporal.namespace, begun.job),
    )


@router.post("/{connection_id}/freeze", summary="Freeze a connection")  # noqa: FAST003 - the dependency takes connection_id
async def freeze(
    request: Request,
    caller: AuthenticatedCaller,
    afterwards: BackgroundTasks,
    connection: VisibleConnection,
    body: Annotated[FreezeBody, Body()],
) -> ConnectionView:
    """Sync it no more until `unfreeze`; the page that is being pulled is the last one. A frozen one stays as it is."""
    services: Services = request.app.state.services
    caller.need(Right.CANCEL)
    await freeze_it(services, connection, body.reason)
    afterwards.add_task(bring_limits_in_line, services, connection.provider)
    return await _now(services, connection)


@router.post("/{connection_id}/unfreeze", summary="Take back a freeze by hand")  # noqa: FAST003 - the dependency takes connection_id
async def unfreeze(
    request: Request, caller: AuthenticatedCaller, afterwards: BackgroundTasks, connection: VisibleConnection
) -> ConnectionView:
    """Go on with its sync. After refused credentials, renewing them is the way."""
    services: Services = request.app.state.services
    caller.need(Right.CANCEL)
    was_frozen = connection.state is ConnectionState.FROZEN
    try:
        await unfreeze_it(services, connection)
    except NeedsCredentials as error:
        raise Problem(409, "needs_credentials", f"Nothing was changed: {error}.") from error
    afterwards.add_task(bring_limits_in_line, services, connection.provider)
    now = await _reread(services, connection)
    return await _shown(services, now, await _try_sync(services, now) if was_frozen else None)


@router.delete(
    "/{connection_id}",
    status_code=204,
    summary="Delete a connection",
    response_class=Response,
    responses={202: {"description": "It is gone for everybody, and its rows are still being deleted."}},
)
async def delete(
    request: Request, caller: AuthenticatedCaller, afterwards: BackgroundTasks, connection_id: UUID
) -> Response:
    """Stop its sync and delete it with its credentials and rows. Asked again while it takes long, it says how far."""
    services: Services = request.app.state.services
    _submits(caller)
    # one that is being deleted is deleted on, whose process may have ended
    found = await services.connections.get(caller.own_tenant(), str(connection_id))
    if found is None:
        raise _not_found(str(connection_id))
    bind_contextvars(connection=found.connection_id)
    gone = await delete_connection(services, found, within=DELETED_WITHIN)
    afterwards.add_task(bring_limits_in_line, services, found.provider)
    if gone:
        return Response(status_code=204, background=afterwards)
    note = "It is gone for everybody; its rows are still being deleted. Asked again, it is 404 when they are gone."
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    told: dict[str, Any] = {"connection_id": found.connection_id, "state": "deleting", "note": note}
    return JSONResponse(told, status_code=202, headers=headers, background=afterwards)


@router.get("/{connection_id}/rows", summary="A connection's rows")  # noqa: FAST003 - the dependency takes connection_id
async def get_rows(
    request: Request,
    caller: AuthenticatedCaller,
    connection: VisibleConnection,
    resource: Annotated[str, Query(examples=["issues"], max_length=100)],
    after: Annotated[str | None, Query(description="`next` of the page before.", max_length=MAX_ROW_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> RowPage:
    """As the vendor gave them, in the order of their ids."""
    services: Services = request.app.state.services
    caller.need(Right.SEE_CONTENTS)
    known = services.connectors.get(connection.provider)
    if known is not None:
        try:
            known.resource(resource)
        except KeyError as error:
            raise Problem(422, "unknown_resource", f"{error.args[0]}.") from error
    found = await services.synced.rows(connection.connection_id, resource, after=after, limit=limit + 1)
    following = found[limit - 1].row_id if len(found) > limit else None
    return RowPage(rows=[row_view(each) for each in found[:limit]], next=following)


def _submits(caller: Caller) -> None:
    caller.need(Right.SUBMIT)
    caller.own_tenant()


async def _try_sync(services: Services, connection: Connection) -> str | None:
    """Start its sync; a note where that was not possible."""
    try:
        await start_sync(services, connection)
    except ConnectionFrozen as error:
        return f"No sync was started: {error}."
    except RPCError as error:
        log.warning("temporal.unavailable", error=str(error), status=error.status.name)
        return NOT_STARTED
    return None


async def _reread(services: Services, connection: Connection) -> Connection:
    found = await services.connections.get(connection.tenant, connection.connection_id)
    if found is None or is_being_deleted(found):
        raise _not_found(connection.connection_id)
    return found


async def _now(services: Services, connection: Connection) -> ConnectionView:
    return await _shown(services, await _reread(services, connection))


async def _shown(services: Services, connection: Connection, note: str | None = None) -> ConnectionView:
    job = await newest_job(services, connection)
    return connection_view(
        connection,
        sync=sync_view(services.settings, services.temporal.namespace, job) if job else None,
        resources=resource_views(
            services.connectors.get(connection.provider), await services.synced.counts(connection.connection_id)
        ),
        note=note,
    )


def _invalid(error: InvalidConnection) -> RequestValidationError:
    """As FastAPI says it of what it checks itself."""
    errors = [
        {"type": "connection", "loc": ("body", *each["field"].split(".")), "msg": each["problem"]}
        for each in error.errors
    ]
    return RequestValidationError(errors)


def _not_found(connection_id: str) -> Problem:
    return Problem(404, "connection_not_found", f"There is no connection {connection_id} that this key may see.")
