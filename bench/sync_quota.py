"""How much of the vendors' quotas syncs use, and how often they are refused.

Everything runs for real: the embedded server, two worker processes, and the simulator, whose quotas are strict. Syncs
of twelve connections run without end; windows of vendors and of our limits are divided by `--speed`. The simulator
counts.

    python -m bench.sync_quota [--speed 3] [--minutes 30] [--others] [--vendors github figma]

`--minutes` is in the vendors' time. `--others`: other clients of the same accounts use their quotas at random.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from rich.table import Table

from bench.stage import keep, neighbours
from runtime.ports import free_port
from runtime.settings import Settings
from starter.connections import bring_limits_in_line
from starter.services import Services, open_services
from starter.simulated import http_url
from starter.start_sync import start_sync
from starter.supervisor import environment, stack
from store.connections import Connection

CONNECTIONS = 3  # of each vendor
VENDORS: dict[str, dict[str, int]] = {
    "github": {"repos": 1, "issues": 2_000_000, "comments": 1},
    "jira": {"projects": 1, "issues": 2_000_000, "comments": 0, "users": 1},
    "figma": {"projects": 5_000, "files": 1, "comments": 1, "versions": 1},
    "slack": {"channels": 4_000, "messages": 1, "replies": 0, "users": 1},
}
# The quotas that are to be used up, and the minutes of their windows.
SATURATED = {"github primary": 60, "jira points": 60, "figma tier2": 1, "slack conversations.history": 1}


async def connect(services: Services, simulator: httpx.AsyncClient, vendor: str, number: int) -> Connection:
    asked = {"name": f"acme-{number}", "sizes": VENDORS[vendor]}
    account = (await simulator.post(f"/control/vendors/accounts/{vendor}", json=asked)).raise_for_status().json()
    options = account["options"]
    settings = {
        "jira": {"cloud_id": options.get("cloud_id"), "time_zone": options.get("zone")},
        "figma": {"team_id": options.get("team_id")},
    }
    names = ("access_token", "refresh_token", "client_id", "client_secret")
    return await services.connections.create(
        f"tenant-{number}",
        vendor,
        account["name"],
        settings=settings.get(vendor, {}),
        credentials={name: account[name] for name in names},
    )


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The simulator's statistics."""
    with tempfile.TemporaryDirectory(prefix="sync-quota-") as temporary:
        folder = Path(temporary)
        settings = Settings(
            data_dir=folder / "data",
            api_port=free_port(),
            temporal_port=free_port(),
            temporal_ui_port=free_port(),
            simulator=True,
            simulator_smtp_port=free_port(),
            simulator_http_port=free_port(),
            simulator_apns_port=free_port(),
            log_format="json",
            connector_speed=arguments.speed,
        )
        async with AsyncExitStack() as running:
            up = await running.enter_async_context(stack(settings, logs=folder / "logs"))
            services = await running.enter_async_context(open_services(up.settings, role="bench"))
            simulator = await running.enter_async_context(httpx.AsyncClient(base_url=http_url(settings), timeout=60))
            queues = ["integrations", *(each.queue for each in services.connectors.values())]
            second = await asyncio.create_subprocess_exec(
                sys.executable,
                "worker.py",
                *(word for queue in queues for word in ("--queue", queue)),
                env={**os.environ, **environment(up.settings)},
                stdout=(folder / "logs" / "second.log").open("wb"),
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                await simulator.put("/control/vendors/speed", json={"speed": arguments.speed})
                made = [
                    await connect(services, simulator, vendor, number)
                    for vendor in arguments.vendors
                    for number in range(CONNECTIONS)
                ]
                for vendor in arguments.vendors:
                    await bring_limits_in_line(services, vendor)
                if arguments.others:
                    for vendor in arguments.vendors:
                        fault = {"kind": "other_client", "vendor": vendor, "rate": 0.01, "amount": 5, "amount_most": 50}
                        (await simulator.post("/control/vendors/faults", json=fault)).raise_for_status()
                began = time.monotonic()
                for each in made:
                    await start_sync(services, each)
                await asyncio.sleep(arguments.minutes * 60 / arguments.speed)
                found: dict[str, Any] = (await simulator.get("/control/vendors/statistics")).json()
                found["seconds"] = time.monotonic() - began
                held = [await services.synced.counts(each.connection_id) for each in made]
                found["rows"] = sum(each.live for of_one in held for each in of_one.values())
                return found
            finally:
                second.terminate()
                await second.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=3.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--vendors", nargs="+", default=list(VENDORS), choices=list(VENDORS))
    arguments = parser.parse_args()
    before = neighbours()
    found = asyncio.run(measure(arguments))
    vendors = Table("vendor", "requests", "refusals", "own", "by surprise", "again", "surprises")
    for each in found["vendors"]:
        names = ("vendor", "requests", "refusals", "refused_own", "refused_surprise", "refused_again", "surprises")
        vendors.add_row(*(str(each[name]) for name in names))
    quotas = Table("quota", "scope", "spent", "refused", "of its even pace")
    for each in found["quotas"]:
        name = f"{each['vendor']} {each['quota']}"
        if name in SATURATED:
            counts = each["counts"]
            pace = each["limit"] * arguments.minutes / SATURATED[name]
            share = f"{counts['spent'] / pace:.1%}"
            quotas.add_row(name, str(each["scope"]), f"{counts['spent']:,.0f}", str(counts["refused"]), share)
    words = (
        f"{arguments.minutes:g} minutes of the vendors' time at {arguments.speed:g} times the speed"
        f" ({found['seconds']:.0f} s), two workers, {found['rows']:,} rows; other clients: "
        f"{'yes' if arguments.others else 'no'}"
    )
    busy = f"other programs used {before:.0%} of the cores before"
    keep(f"sync_quota_{'others' if arguments.others else 'alone'}", [vendors, quotas], [words, busy])


if __name__ == "__main__":
    main()
