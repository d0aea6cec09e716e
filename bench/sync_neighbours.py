"""Nine tenants with 100 issues beside one with 200,000: how much longer they take than alone, and the worker's memory.

The vendors' windows are divided by SPEED, so that it is workers and server that are shared and not quotas.

    python -m bench.sync_neighbours [issues of the large one]
"""

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
from rich.table import Table

from bench.stage import keep, neighbours
from runtime.ports import free_port
from runtime.settings import Settings
from starter.connections import bring_limits_in_line
from starter.services import Services, open_services
from starter.simulated import http_url
from starter.start_sync import start_sync
from starter.supervisor import Stack, stack
from store.connections import Connection

SPEED = 60.0
SMALL = 9
ISSUES = 100
LARGE = 200_000


async def connect(services: Services, simulator: httpx.AsyncClient, name: str, issues: int) -> Connection:
    asked = {"name": name, "sizes": {"repos": 1, "issues": issues, "comments": 0}}
    account = (await simulator.post("/control/vendors/accounts/github", json=asked)).raise_for_status().json()
    credentials = {"access_token": account["access_token"]}
    return await services.connections.create(name, "github", name, settings={}, credentials=credentials)


async def seconds(services: Services, of: list[Connection]) -> list[float]:
    """How long each takes when all are started at once."""
    began = time.monotonic()

    async def one(each: Connection) -> float:
        job = (await start_sync(services, each, full=True)).job
        await services.temporal.get_workflow_handle(job.workflow_id).result()
        return time.monotonic() - began

    return list(await asyncio.gather(*(one(each) for each in of)))


async def largest(up: Stack, stop: asyncio.Event) -> float:
    """The worker's own peak of resident memory, without its CPU children, in MiB."""
    peak = 0.0
    while not stop.is_set():
        if up.worker.process is not None:
            for each in psutil.Process(up.worker.process.pid).children(recursive=True):
                if "--without" in " ".join(each.cmdline()) and "runtime.leash" not in " ".join(each.cmdline()):
                    peak = max(peak, each.memory_info().rss / 2**20)
        await asyncio.sleep(0.25)
    return peak


async def measure(large: int) -> tuple[list[float], list[float], float, float, int]:
    ports = {f"simulator_{name}_port": free_port() for name in ("smtp", "http", "apns")}
    with tempfile.TemporaryDirectory(prefix="sync-neighbours-") as folder:
        settings = Settings(
            data_dir=Path(folder) / "data",
            api_port=free_port(),
            temporal_port=free_port(),
            temporal_ui_port=free_port(),
            simulator=True,
            log_format="json",
            connector_speed=SPEED,
            **ports,  # type: ignore[arg-type]
        )
        async with AsyncExitStack() as running:
            up = await running.enter_async_context(stack(settings, logs=Path(folder) / "logs"))
            services = await running.enter_async_context(open_services(up.settings, role="bench"))
            simulator = await running.enter_async_context(httpx.AsyncClient(base_url=http_url(settings), timeout=60))
            await simulator.put("/control/vendors/speed", json={"speed": SPEED})
            small = [await connect(services, simulator, f"small-{number}", ISSUES) for number in range(SMALL)]
            big = await connect(services, simulator, "large", large)
            await bring_limits_in_line(services, "github")
            stop = asyncio.Event()
            watching = asyncio.create_task(largest(up, stop))
            await seconds(services, small)  # warm
            alone = await seconds(services, small)
            began = time.monotonic()
            job = (await start_sync(services, big)).job
            await asyncio.sleep(2)
            beside = await seconds(services, small)
            beside += await seconds(services, small)
            await services.temporal.get_workflow_handle(job.workflow_id).result()
            took = time.monotonic() - began
            stop.set()
            rows = sum(held.live for held in (await services.synced.counts(big.connection_id)).values())
            return alone, beside, took, await watching, rows


def main() -> None:
    large = int(sys.argv[1]) if len(sys.argv) > 1 else LARGE
    before = neighbours()
    alone, beside, took, peak, rows = asyncio.run(measure(large))
    table = Table("nine tenants with 100 issues", "median s", "slowest s", "of alone")
    table.add_row("alone", f"{statistics.median(alone):.2f}", f"{max(alone):.2f}", "1.0")
    ratio = max(beside) / max(alone)
    table.add_row(f"beside {large:,}", f"{statistics.median(beside):.2f}", f"{max(beside):.2f}", f"{ratio:.2f}")
    notes = (
        f"the large one: {rows:,} rows in {took:.0f} s, {rows / took:,.0f} a second; worker at most {peak:.0f} MiB",
        f"other programs used {before:.0%} of the cores before",
    )
    keep("sync_neighbours", [table], notes)


if __name__ == "__main__":
    main()
