"""`holdfast connections …`: connect accounts at third parties, sync, renew, freeze and delete them."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import JsonValue, ValidationError
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from temporalio.client import WorkflowQueryFailedError
from temporalio.service import RPCError

from contracts.payloads.job import JobState
from contracts.payloads.sync import SyncProgress
from runtime.settings import Settings
from starter.command import complain, out, problems, run_command
from starter.connection_request import ConnectionBody, FreezeBody
from starter.connections import (
    bring_limits_in_line,
    connect,
    delete_connection,
    listed,
    newest_job,
    visible,
)
from starter.connections import freeze as freeze_it
from starter.connections import renew as renew_it
from starter.connections import unfreeze as unfreeze_it
from starter.job_state import look_at
from starter.notify_cli import _json, _tenant
from starter.request_model import in_words
from starter.services import Services, open_services
from starter.start_sync import start_sync
from starter.why import why
from store.connections import Connection, ConnectionState
from store.jobs import InvalidCursor, Job
from store.synced import StoredRow

connections = typer.Typer(help="Tenants' accounts at third parties.", no_args_is_help=True)

POLL_SECONDS = 1.0
PLAIN_SECONDS = 5.0  # between two lines where standard output is no terminal
ANSWERS_WITHIN = timedelta(seconds=2)
READ_AT_ONCE = 200
FOR_EVER = timedelta(days=1)  # of a deletion; Ctrl-C ends the wait, and the same command goes on

Secrets = Annotated[
    str, typer.Option("--credentials", help='A file with JSON such as {"access_token": "…"}; `-` is standard input.')
]


class _Refused(Exception):
    """Told to the operator in one line."""


@connections.command("list")
def list_connections(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    provider: Annotated[str | None, typer.Option(help="github, jira, …")] = None,
    state: Annotated[ConnectionState | None, typer.Option(help="active or frozen.")] = None,
) -> None:
    """Newest first."""

    async def work(services: Services) -> int:
        table = Table(Column("connection", no_wrap=True), "tenant", "provider", "account", "state", "synced", "reason")
        after: str | None = None
        while True:
            page, after = await listed(
                services, tenant, provider=provider, state=state, after=after, limit=READ_AT_ONCE
            )
            for each in page:
                synced = f"{each.last_synced_at:%Y-%m-%d %H:%M}" if each.last_synced_at else "never"
                cells = (each.tenant, each.provider, each.account, each.state.value, synced, each.reason or "")
                table.add_row(each.connection_id, *cells)
            if after is None:
                break
        out.print(table)
        return 0

    _run(work)


@connections.command("show")
def show(connection_id: UUID) -> None:
    """Its state, its last sync, and what it has."""

    async def work(services: Services) -> int:
        found = await _find(services, connection_id)
        frozen = f", because: {found.reason}" if found.reason else ""
        _say(f"{found.provider} {found.account} of {found.tenant}: {found.state.value}{frozen}")
        job = await newest_job(services, found)
        if job is not None:
            _say(f"sync {job.job_id}: {(await why(services, job)).sentence}")
        table = Table("resource", "rows", "deleted by the vendor")
        for name, held in sorted((await services.synced.counts(found.connection_id)).items()):
            table.add_row(name, f"{held.live:,}", f"{held.deleted:,}")
        out.print(table)
        return 0

    _run(work)


@connections.command("create")
def create(
    provider: Annotated[str, typer.Argument(help="github, jira, …")],
    account: Annotated[str, typer.Argument(help="The tenant's own name for it.")],
    tenant: Annotated[str, typer.Option(help="Whose.", callback=_tenant)],
    credentials: Secrets = "-",
    settings: Annotated[str, typer.Option(help="JSON for the connector, or `@file`; nothing secret.")] = "{}",
    sync: Annotated[bool, typer.Option("--sync/--no-sync", help="Start its first sync now.")] = True,  # noqa: FBT002 - an option
    watch: Annotated[bool, typer.Option("--watch", help="Until the first sync ended.")] = False,  # noqa: FBT002 - an option
) -> None:
    """Connect an account. Its credentials are read from a file or from standard input, never from arguments."""
    asked = {"provider": provider, "account": account, "settings": _settings(settings)}
    body = _validated(ConnectionBody, asked | {"credentials": _secrets(credentials)})

    async def work(services: Services) -> int:
        made = await connect(services, tenant, body)
        _say(f"connection {made.connection_id}")
        await bring_limits_in_line(services, made.provider)
        return await _sync(services, made, watch=watch) if sync else 0

    _run(work)


@connections.command("sync")
def sync_connection(
    connection_id: UUID,
    full: Annotated[bool, typer.Option("--full", help="Ask for everything again.")] = False,  # noqa: FBT002 - an option
    watch: Annotated[bool, typer.Option("--watch", help="Until it ended; exit code 1 if not well.")] = False,  # noqa: FBT002 - an option
) -> None:
    """Start a sync, or join the one that runs."""

    async def work(services: Services) -> int:
        return await _sync(services, await _find(services, connection_id), full=full, watch=watch)

    _run(work)


@connections.command("renew")
def renew(
    connection_id: UUID,
    credentials: Secrets = "-",
    watch: Annotated[bool, typer.Option("--watch", help="Until its sync ended.")] = False,  # noqa: FBT002 - an option
) -> None:
    """Give it new credentials from a file or from standard input, unfreeze it, and go on with its sync."""
    secrets = _secrets(credentials)

    async def work(services: Services) -> int:
        renewed = await renew_it(services, await _find(services, connection_id), secrets)
        if renewed is None:
            raise _Refused(f"connection {connection_id} was just deleted")
        _say("renewed")
        await bring_limits_in_line(services, renewed.provider)
        return await _sync(services, renewed, watch=watch)

    _run(work)


@connections.command("freeze")
def freeze(connection_id: UUID, reason: Annotated[str, typer.Option(help="Shown to who looks at it.")]) -> None:
    """Sync it no more until `unfreeze`; the page that is being pulled is the last one."""
    body = _validated(FreezeBody, {"reason": reason})

    async def work(services: Services) -> int:
        found = await _find(services, connection_id)
        await freeze_it(services, found, body.reason)
        await bring_limits_in_line(services, found.provider)
        now = await _find(services, connection_id)
        _say(f"frozen, because: {now.reason}")
        return 0

    _run(work)


@connections.command("unfreeze")
def unfreeze(connection_id: UUID) -> None:
    """Take back a freeze by hand. After refused credentials, `renew` is the way."""

    async def work(services: Services) -> int:
        found = await _find(services, connection_id)
        await unfreeze_it(services, found)
        await bring_limits_in_line(services, found.provider)
        _say("active")
        return await _sync(services, await _find(services, connection_id))

    _run(work)


@connections.command("delete")
def delete(connection_id: UUID) -> None:
    """Stop its sync and delete it with its credentials and rows."""

    async def work(services: Services) -> int:
        found = await services.connections.get(None, str(connection_id))
        if found is None:
            raise _not_found(connection_id)
        if not await delete_connection(services, found, within=FOR_EVER):
            raise _Refused("it is gone for everybody, and its rows are not deleted: run the same command again")
        await bring_limits_in_line(services, found.provider)
        _say("deleted")
        return 0

    _run(work)


@connections.command("rows")
def rows(
    connection_id: UUID,
    resource: str,
    after: Annotated[str | None, typer.Option(help="The id of the last row of the page before.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """A line of JSON per row, in the order of their ids."""

    async def work(services: Services) -> int:
        found = await _find(services, connection_id)
        known = services.connectors.get(found.provider)
        if known is not None:
            try:
                known.resource(resource)
            except KeyError as error:
                raise _Refused(str(error.args[0])) from error
        behind, left = after, limit
        while left:
            page = await services.synced.rows(
                found.connection_id, resource, after=behind, limit=min(left, READ_AT_ONCE)
            )
            for each in page:
                print(json.dumps(_row(each), ensure_ascii=False))  # noqa: T201 - lines for programs
            if len(page) < min(left, READ_AT_ONCE):
                break
            behind, left = page[-1].row_id, left - len(page)
        return 0

    _run(work)


def _row(row: StoredRow) -> dict[str, Any]:
    told: dict[str, Any] = {"row_id": row.row_id, "parent_id": row.parent_id, "data": row.data}
    return told | {"deleted_at": row.deleted_at.isoformat() if row.deleted_at else None}


def _run(work: Callable[[Services], Coroutine[Any, Any, int]]) -> None:
    settings = Settings()

    async def told() -> int:
        async with open_services(settings, role="cli") as services:
            await services.database.ping()
            try:
                return await work(services)
            except _Refused as error:
                complain(str(error))
            except InvalidCursor:
                complain("the page is none of ours; start without it")
            return 1

    run_command(told(), settings)


def _say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True)


def _settings(text: str) -> dict[str, JsonValue]:
    try:
        return _json(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(error.message, param_hint="--settings") from None


def _secrets(name: str) -> dict[str, JsonValue]:
    if name == "-" and sys.stdin.isatty():
        problems.print("credentials as JSON, then Ctrl-D:")
    try:
        value = json.loads(sys.stdin.read() if name == "-" else Path(name).read_text())
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint="--credentials") from None
    except (ValueError, RecursionError):  # whose words could have some of the secret in them
        raise typer.BadParameter("are no JSON", param_hint="--credentials") from None
    if not isinstance(value, dict):
        raise typer.BadParameter('must be a JSON object, such as {"access_token": "…"}', param_hint="--credentials")
    return value


def _validated(model: Any, asked: dict[str, Any]) -> Any:
    try:
        return model.model_validate(asked)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        told = [f"{each['field']}: {each['problem']}".lstrip(": ") for each in in_words(found)]
        raise typer.BadParameter("; ".join(told)) from None


def _not_found(connection_id: UUID) -> _Refused:
    return _Refused(f"there is no connection {connection_id}: see `holdfast connections list`")


async def _find(services: Services, connection_id: UUID) -> Connection:
    found = await visible(services, None, str(connection_id))
    if found is None:
        raise _not_found(connection_id)
    return found


async def _sync(services: Services, connection: Connection, *, full: bool = False, watch: bool = False) -> int:
    try:
        begun = await start_sync(services, connection, full=full)
    except RPCError as error:
        told = f"Temporal does not answer ({error.status.name}), so the sync is stored and not started. "
        raise _Refused(
            f"{told}The schedule starts it, or `holdfast connections sync {connection.connection_id}`"
        ) from error
    joined = " (it ran already)" if begun.joined else ""
    _say(f"sync {begun.job.job_id}{joined}")
    if full and begun.joined:
        _say("it may not be a full one: ask again when it has ended")
    return await _watch(services, connection, begun.job) if watch else 0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A sync as it is now. `progress` is None where no worker answers."""

    job: Job
    progress: SyncProgress | None
    sentence: str

    def line(self) -> str:
        """In words."""
        if self.job.state.closed or self.progress is None:
            return self.sentence
        pages = sum(each.pages for each in self.progress.counts.values())
        left = f"; left: {', '.join(self.progress.left)}" if self.progress.left else ""
        return f"{pages:,} pages{left}; {self.sentence}"


async def _look(services: Services, job: Job) -> _Seen:
    row = await services.jobs.get(job.tenant, job.job_id) or job
    seen = (await look_at(services, row)).job
    if seen.state.closed:
        return _Seen(seen, None, (await why(services, seen)).sentence)
    progress = None
    try:
        progress = await services.temporal.get_workflow_handle(seen.workflow_id).query(
            "progress", result_type=SyncProgress, rpc_timeout=ANSWERS_WITHIN
        )
    except (RPCError, WorkflowQueryFailedError):
        progress = None  # the sentence says why
    return _Seen(seen, progress, (await why(services, seen)).sentence)


async def _watch(services: Services, connection: Connection, job: Job) -> int:
    ended = await (_watch_bar if out.is_terminal else _watch_lines)(services, connection, job)
    _say(ended.line())
    for name, held in sorted((await services.synced.counts(connection.connection_id)).items()):
        _say(f"{name}: {held.live:,} rows, {held.deleted:,} deleted by the vendor")
    return 0 if ended.job.state is JobState.DONE else 1


async def _watch_bar(services: Services, connection: Connection, job: Job) -> _Seen:
    known = services.connectors.get(connection.provider)
    total = len(known.resources) if known else None
    columns = (
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} resources"),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task("", total=total or 1)
        while True:
            seen = await _look(services, job)
            if seen.progress is not None and seen.progress.counts:
                done = (total or 1) - len(seen.progress.left)
                progress.update(task, completed=done, description=seen.line())
            else:
                progress.update(task, description=seen.line())
            if seen.job.state.closed:
                return seen
            await asyncio.sleep(POLL_SECONDS)


async def _watch_lines(services: Services, _connection: Connection, job: Job) -> _Seen:
    said, said_at = "", float("-inf")
    clock = asyncio.get_running_loop().time
    while True:
        seen = await _look(services, job)
        if seen.job.state.closed:
            return seen
        if seen.line() != said and clock() - said_at >= PLAIN_SECONDS:
            said, said_at = seen.line(), clock()
            _say(said)
        await asyncio.sleep(POLL_SECONDS)
