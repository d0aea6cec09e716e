"""The command line: `holdfast …`."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

import typer
import uvicorn
from rich.console import Console
from rich.table import Table
from temporalio.client import WorkflowUpdateFailedError

from contracts.payloads.job import Resolve, Resolved
from runtime import telemetry
from runtime.settings import Settings
from runtime.temporal import connect
from starter.bootstrap import bootstrap as run_bootstrap
from starter.broadcast_cli import audiences, broadcasts
from starter.command import complain, out, run_command
from starter.connection_cli import connections
from starter.demo.run import run_demo
from starter.notify_cli import notify
from starter.queue_cli import queues
from starter.services import open_services
from starter.simulated import http_url
from starter.supervisor import stack
from starter.tenant import ALL_TENANTS, checked_tenant
from starter.why import why
from store.api_keys import Role
from store.database import Database

app = typer.Typer(help="Background jobs on Temporal.", no_args_is_help=True, add_completion=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
jobs = typer.Typer(help="Jobs.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(jobs, name="jobs")
app.add_typer(notify, name="notify")
app.add_typer(broadcasts, name="broadcasts")
app.add_typer(audiences, name="audiences")
app.add_typer(connections, name="connections")
app.add_typer(queues, name="queues")


class _Server(uvicorn.Server):
    """Leaves with exit code 0 after SIGTERM: uvicorn's own handler raises the signal again once it has stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Our handlers are set by the caller."""
        yield


@app.command()
def up(
    simulator: Annotated[  # noqa: FBT002 - an option of the command line
        bool, typer.Option("--simulator", help="Also run local third parties, and send to them where none is set.")
    ] = False,
) -> None:
    """Run everything on this machine: Temporal with its Web UI, worker, API. Ctrl-C stops it; the data stays."""
    settings = Settings()
    if simulator:
        settings = settings.model_copy(update={"simulator": True})

    async def work() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with stack(settings) as running:
            out.print(f"API           {settings.resolved_public_url()}/docs")
            out.print(f"Temporal UI   {settings.resolved_temporal_ui_url()}")
            out.print(f"Data          {settings.data_dir.absolute()}")
            if running.simulator:
                out.print(f"Third parties {http_url(settings)}/control/summary (simulated)")
            out.print("An API key    holdfast keys create --tenant acme --role submit")
            await stop.wait()
            out.print("stopping: running work finishes or hands over its place")

    run_command(work(), settings)


@app.command()
def api() -> None:
    """Serve the HTTP API."""
    from starter.api.app import create_app

    settings = Settings()
    telemetry.configure_logging(settings)
    telemetry.configure_tracing("holdfast-api", settings)
    server = _Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            http="httptools",
            timeout_keep_alive=75,  # seconds; longer than clients and balancers keep a connection, or they race
            access_log=False,
            timeout_graceful_shutdown=5,  # seconds; an event stream never ends by itself
        )
    )

    async def work() -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
        await server.serve()
        return 0 if server.started else 1

    run_command(work(), settings)


@app.command()
def bootstrap() -> None:
    """Prepare store and Temporal: migrations, namespace, search attributes, queue limits. Safe to repeat."""
    settings = Settings()

    async def work() -> None:
        database = Database.open(settings.resolved_database_url(), settings.resolved_ledger_url())
        try:
            done = await run_bootstrap(await connect(settings, role="bootstrap"), database, settings)
        finally:
            await database.close()
        for line in done.lines():
            out.print(line, highlight=False)

    run_command(work(), settings)


@app.command()
def demo() -> None:
    """Run the main jobs on real input in a fresh folder, print what happened, and stop."""
    settings = Settings(log_level="warning")
    run_command(run_demo(settings), settings)


def _tenant_or_all(name: str) -> str:
    try:
        return name if name == ALL_TENANTS else checked_tenant(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option(help="Whose jobs and files; `*` for all.", callback=_tenant_or_all)],
    role: Annotated[Role, typer.Option(help="submit, view, operate or admin.")] = Role.SUBMIT,
    label: Annotated[str, typer.Option(help="To know it by.")] = "",
) -> None:
    """Make a key and print it, once."""
    settings = Settings()

    async def work() -> None:
        async with open_services(settings, role="cli") as services:
            await services.database.ping()
            key, secret = await services.api_keys.create(tenant, role, label)
        Console(stderr=True, markup=False).print(f"key {key.key_id} for {tenant}, {role.value}; it is not shown again:")
        print(secret)  # noqa: T201 - alone on standard output, for scripts

    run_command(work(), settings)


@keys.command("list")
def list_keys(tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None) -> None:
    """All keys, without their secrets."""
    settings = Settings()

    async def work() -> None:
        async with open_services(settings, role="cli") as services:
            found = await services.api_keys.list(tenant)
        table = Table("key", "tenant", "role", "label", "created", "revoked")
        for key in found:
            revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
            table.add_row(key.key_id, key.tenant, key.role, key.label, f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
        out.print(table)

    run_command(work(), settings)


@keys.command("revoke")
def revoke_key(key_id: str) -> None:
    """Refuse a key from now on."""
    settings = Settings()

    async def work() -> int:
        async with open_services(settings, role="cli") as services:
            revoked = await services.api_keys.revoke(key_id)
        out.print("revoked" if revoked else f"there is no unrevoked key {key_id}: see `holdfast keys list`")
        return 0 if revoked else 1

    run_command(work(), settings)


@jobs.command("resolve")
def resolve_job(
    job_id: UUID,
    action: Annotated[str, typer.Argument(help="retry or discard")],
    step: Annotated[str | None, typer.Option(help="One parked step; without it all of them.")] = None,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "",
) -> None:
    """Retry or discard the parked step of a dead letter."""
    settings = Settings()
    if action not in {"retry", "discard"}:
        raise typer.BadParameter("say retry or discard", param_hint="action")

    async def work() -> int:
        async with open_services(settings, role="cli") as services:
            job = await services.jobs.get(None, job_id)
            if job is None:
                out.print(f"there is no job {job_id}")
                return 1
            handle = (await connect(settings, role="cli")).get_workflow_handle(job.workflow_id)
            decision = Resolve.model_validate({"action": action, "step": step, "reason": reason})
            try:
                resolved = await handle.execute_update("resolve", decision, result_type=Resolved)
            except WorkflowUpdateFailedError as error:
                out.print(f"refused: {error.cause}")
                return 1
        out.print(f"{action}: {', '.join(resolved.steps)}")
        return 0

    run_command(work(), settings)


@jobs.command("why")
def why_job(job_id: UUID) -> None:
    """What a job waits for, and until when."""
    settings = Settings()

    async def work() -> int:
        async with open_services(settings, role="cli") as services:
            await services.database.ping()
            job = await services.jobs.get(None, job_id)
            if job is None:
                complain(f"there is no job {job_id}")
                return 1
            found = await why(services, job)
        out.print(found.sentence, highlight=False, soft_wrap=True)
        if len(found.waits) > 1:
            table = Table("step", "waits for", "until", "detail")
            for each in found.waits:
                until = f"{each.until:%Y-%m-%d %H:%M:%S}" if each.until else ""
                table.add_row(each.step or "", each.what, until, each.detail or "")
            out.print(table)
        return 0

    run_command(work(), settings)


def main() -> None:
    """The entry point."""
    app()
