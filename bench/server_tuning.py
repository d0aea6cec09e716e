"""What the tuning of the embedded server brings: `temporal server start-dev` as it comes against ours, both on a SQLite file.

    python -m bench.server_tuning

A no-op workflow with one no-op activity, unsandboxed, worker and starter in this process. Each variant gets a fresh
server and file in each round, and the rounds alternate, so that a busy neighbour or a warm disk favours neither.
End to end is from the start request to the result. About two minutes.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from runtime.leash import leashed
from runtime.ports import free_port
from runtime.server import ENVIRONMENT, ServerOptions, command, find_binary

ROUNDS = 3
WARM_UP = 10  # jobs, not measured
ONE_AT_A_TIME = 30  # jobs
IN_FLIGHT = 50
SECONDS_IN_FLIGHT = 8.0
READY_WITHIN_SECONDS = 60
QUEUE = "bench"


@activity.defn(name="bench.nothing")
async def nothing() -> None:
    pass


@workflow.defn(name="bench.one_step")
class OneStep:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=30))


@dataclass
class Variant:
    """`latencies` in milliseconds, one list per round; `rates` in jobs a second, one per round."""

    name: str
    tuned: bool
    latencies: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def p50(self) -> float:
        return statistics.median(latency for latencies in self.latencies for latency in latencies)

    def p95(self) -> float:
        return statistics.quantiles([latency for latencies in self.latencies for latency in latencies], n=20)[-1]

    def rate(self) -> float:
        return statistics.median(self.rates)


def start_command(variant: Variant, options: ServerOptions) -> list[str]:
    if variant.tuned:
        return command(options, find_binary())
    ports = ["--ip", "127.0.0.1", "--port", str(options.port), "--ui-port", str(options.ui_port)]
    database = ["--db-filename", str(options.data_dir / "temporal.db")]
    return [str(find_binary()), "server", "start-dev", *ports, *database, "--log-level", "warn"]


@asynccontextmanager
async def serving(variant: Variant) -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        options = ServerOptions(Path(folder), free_port(), free_port())
        process = await asyncio.create_subprocess_exec(
            *leashed(start_command(variant, options)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **(ENVIRONMENT if variant.tuned else {})},
            start_new_session=True,
        )
        try:
            yield await asyncio.wait_for(answering(f"127.0.0.1:{options.port}", process), READY_WITHIN_SECONDS)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def answering(address: str, process: asyncio.subprocess.Process) -> Client:
    while process.returncode is None:
        try:
            client = await Client.connect(address)
            await client.count_workflows()
        except (RuntimeError, RPCError):
            await asyncio.sleep(0.1)
        else:
            return client
    msg = f"the server ended with exit code {process.returncode}"
    raise SystemExit(msg)


async def one_job(client: Client, job: str) -> float:
    """Milliseconds end to end."""
    started = time.perf_counter()
    await client.execute_workflow(OneStep.run, id=job, task_queue=QUEUE)
    return (time.perf_counter() - started) * 1000


async def measure(client: Client, variant: Variant) -> None:
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[OneStep],
        activities=[nothing],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        for number in range(WARM_UP):
            await one_job(client, f"warm:{number}")
        variant.latencies.append([await one_job(client, f"alone:{number}") for number in range(ONE_AT_A_TIME)])
        started = time.perf_counter()
        done = sum(await asyncio.gather(*(stream(client, number, started) for number in range(IN_FLIGHT))))
        variant.rates.append(done / (time.perf_counter() - started))


async def stream(client: Client, stream_number: int, started: float) -> int:
    """One of the jobs in flight, and the next when it is done; how many were done."""
    done = 0
    while time.perf_counter() - started < SECONDS_IN_FLIGHT:
        await one_job(client, f"many:{stream_number}:{done}")
        done += 1
    return done


def table(before: Variant, after: Variant) -> Table:
    figures = Table(title=f"temporal server start-dev on a SQLite file, {ROUNDS} alternating rounds, {os.cpu_count()} cores")
    figures.add_column("")
    for column in (before.name, after.name, "ratio"):
        figures.add_column(column, justify="right")
    for name, old, new in (
        ("one at a time, end to end p50, ms", before.p50(), after.p50()),
        ("one at a time, end to end p95, ms", before.p95(), after.p95()),
    ):
        figures.add_row(name, f"{old:.1f}", f"{new:.1f}", f"{old / new:.1f}x faster")
    ratio = after.rate() / before.rate()
    figures.add_row(f"{IN_FLIGHT} in flight, jobs/s, median", f"{before.rate():.1f}", f"{after.rate():.1f}", f"{ratio:.1f}x more")
    for number in range(ROUNDS):
        old_p50, new_p50 = (statistics.median(variant.latencies[number]) for variant in (before, after))
        figures.add_row(
            f"  round {number + 1}: p50 ms; jobs/s",
            f"{old_p50:.1f}; {before.rates[number]:.1f}",
            f"{new_p50:.1f}; {after.rates[number]:.1f}",
            f"{old_p50 / new_p50:.1f}x; {after.rates[number] / before.rates[number]:.1f}x",
        )
    return figures


async def main() -> None:
    before, after = Variant("defaults", tuned=False), Variant("tuned", tuned=True)
    for number in range(ROUNDS):
        for variant in (before, after) if number % 2 == 0 else (after, before):
            async with serving(variant) as client:
                await measure(client, variant)
    Console(width=110).print(table(before, after))


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # the interpreter can abort at exit: https://github.com/temporalio/sdk-python/issues/300
