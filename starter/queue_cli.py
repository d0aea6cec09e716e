"""`holdfast queues`: the rates of the vendors' queues, live."""

from typing import Annotated

import typer
from rich.table import Table

from activities.connectors.known import UnknownProvider, connector
from activities.vendor_limits import wanted
from runtime import queue_limits
from runtime.settings import Settings
from starter.command import complain, out, run_command
from starter.queue_rate import NotARate, in_words, per_second
from starter.services import open_services

queues = typer.Typer(help="The rates of the vendors' queues.", no_args_is_help=True)


@queues.command("list")
def list_queues() -> None:
    """Every vendor's queue: its limit, that of each connection, and whose it is."""
    settings = Settings()

    async def work() -> None:
        async with open_services(settings, role="cli") as services:
            table = Table("vendor", "whole queue", "each connection", "set by", "connections")
            for name, known in services.connectors.items():
                found = await queue_limits.read(services.temporal, known.queue)
                connections = await services.connections.count_active(name)
                whose = "an operator" if found.by_operator else "bootstrap"
                table.add_row(name, in_words(found.per_second), in_words(found.per_key), whose, str(connections))
            out.print(table)

    run_command(work(), settings)


@queues.command("limit")
def limit(
    vendor: Annotated[str, typer.Argument(help="github, jira, …")],
    rate: Annotated[str, typer.Argument(help="50/min, 1.5/s, 5000/h; 0 stops it; default takes your limit back")],
) -> None:
    """Change the rate of a vendor's queue at once, for all workers. It stays until it is taken back."""
    settings = Settings()
    try:
        wished = per_second(rate)
    except NotARate as error:
        raise typer.BadParameter(str(error)) from error

    async def work() -> int:
        async with open_services(settings, role="cli") as services:
            try:
                known = connector(services.connectors, vendor)
            except UnknownProvider as error:
                complain(str(error))
                return 2
            if wished is None:
                await queue_limits.restore(services.temporal, known.queue, await wanted(known, services.connections))
            else:
                await queue_limits.override(services.temporal, known.queue, wished)
            now = await queue_limits.read(services.temporal, known.queue)
            out.print(f"{vendor}: {in_words(now.per_second)}, each connection {in_words(now.per_key)}")
            return 0

    run_command(work(), settings)
