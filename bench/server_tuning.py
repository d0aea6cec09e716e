"""What each part of the embedded server's tuning brings, from `temporal server start-dev` as it comes to ours.

    python -m bench.server_tuning

A no-op workflow with one no-op activity, unsandboxed, worker and starter in this process. Each variant has all of the
one before it. It gets a fresh server and SQLite file in each round, and every second round runs backwards, so that a
busy neighbour favours none. End to end is from the start request to the result. About two minutes.
"""

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from platform import platform

import psutil
from rich.console import Console
from rich.table import Table
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from runtime.leash import leashed
from runtime.ports import free_port
from runtime.server import ENVIRONMENT, PRAGMAS, TUNING, ServerOptions, find_binary

ROUNDS = 2
WARM_UP = 10  # jobs, not measured
ONE_AT_A_TIME = 30  # jobs
IN_FLIGHT = 50
SECONDS_IN_FLIGHT = 7.0
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
    pragmas: tuple[str, ...] = ()
    tuning: tuple[tuple[str, str], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    latencies: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def p50(self) -> float:
        return statistics.median(latency for latencies in self.latencies for latency in latencies)

    def p95(self) -> float:
        return statistics.quantiles([latency for latencies in self.latencies for latency in latencies], n=20)[-1]

    def rate(self) -> float:
        return statistics.median(self.rates)


def start_command(variant: Variant, options: ServerOptions) -> list[str]:
    """As runtime.server.command, with the parts of this variant only."""
    ports = ["--ip", "127.0.0.1", "--port", str(options.port), "--ui-port", str(options.ui_port)]
    database = ["--db-filename", str(options.data_dir / "temporal.db"), "--log-level", "warn"]
    pragmas = [part for pragma in variant.pragmas for part in ("--sqlite-pragma", pragma)]
    tuning = [part for key, value in variant.tuning for part in ("--dynamic-config-value", f"{key}={value}")]
    return [find_binary(), "server", "start-dev", *ports, *database, *pragmas, *tuning]


@asynccontextmanager
async def serving(variant: Variant) -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        options = ServerOptions(Path(folder), free_port(), free_port())
        process = await asyncio.create_subprocess_exec(
            *leashed(start_command(variant, options)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **variant.environment},
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


def seconds_of_others() -> float:
    """CPU seconds since boot that neither this process nor its ended children used."""
    machine = psutil.cpu_times()._asdict()
    idle = machine["idle"] + machine.get("iowait", 0.0)
    nested = machine.get("guest", 0.0) + machine.get("guest_nice", 0.0)  # counted in user and nice already
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return float(sum(machine.values()) - idle - nested - sum(usage.ru_utime + usage.ru_stime for usage in ours))


def table(variants: list[Variant], others: float) -> Table:
    """The medians over all rounds; the ratios are against the first variant. `others` is a share of all cores."""
    figures = Table(
        title=f"temporal server start-dev, SQLite file, {os.cpu_count()} cores, {ROUNDS} alternating rounds",
        caption=f"each line has all of the lines above it; the last one is the embedded server; "
        f"other programs used {others:.0%} of the CPU: repeat above 10 %; {platform()}",
    )
    figures.add_column("")
    for column in ("p50 ms", "p95 ms", "ratio", f"jobs/s, {IN_FLIGHT} in flight", "ratio", "p50; jobs/s by round"):
        figures.add_column(column, justify="right")
    first = variants[0]
    for variant in variants:
        rounds = zip(variant.latencies, variant.rates, strict=True)
        figures.add_row(
            variant.name,
            f"{variant.p50():.1f}",
            f"{variant.p95():.1f}",
            f"{first.p50() / variant.p50():.1f}x",
            f"{variant.rate():.1f}",
            f"{variant.rate() / first.rate():.1f}x",
            "  ".join(f"{statistics.median(latencies):.0f}; {rate:.0f}" for latencies, rate in rounds),
        )
    return figures


async def main() -> None:
    variants = [
        Variant("defaults"),
        Variant("+ pragmas", PRAGMAS),
        Variant("+ dynamic config", PRAGMAS, TUNING),
        Variant("+ GOGC, GOMEMLIMIT", PRAGMAS, TUNING, ENVIRONMENT),
    ]
    began, others = time.perf_counter(), seconds_of_others()
    for number in range(ROUNDS):
        for variant in variants if number % 2 == 0 else reversed(variants):
            async with serving(variant) as client:
                await measure(client, variant)
    share = (seconds_of_others() - others) / (time.perf_counter() - began) / (os.cpu_count() or 1)
    Console(width=120).print(table(variants, share))


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # the interpreter can abort at exit: https://github.com/temporalio/sdk-python/issues/300
