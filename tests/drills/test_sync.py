"""The worker is killed while three vendors are synced, which answer with errors now and then."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from temporalio.client import Client

from contracts.payloads.sync import SyncResult
from runtime.ports import free_port
from starter.simulated import http_url
from starter.start_sync import start_sync
from store.connections import Connection
from tests.integration.stack import Running, running

SIZES = {
    "github": {"repos": 3, "issues": 800, "comments": 1},
    "jira": {"projects": 2, "issues": 400, "comments": 0, "users": 150},
    "slack": {"channels": 5, "messages": 400, "replies": 0, "users": 300},
}
KINDS = {
    "github": {"repositories": "repos", "issues": "issues", "comments": "comments"},
    "jira": {"projects": "projects", "users": "users", "issues": "issues"},
    "slack": {"channels": "channels", "users": "users", "messages": "messages"},
}
KILL_AT = (300, 900, 1_800)[: int(os.environ.get("HOLDFAST_DRILL_KILLS", "1"))]  # rows; `make drills` takes three
FAULTS = (
    {"kind": "error", "status": 503, "rate": 0.04},
    {"kind": "reset", "rate": 0.02},
    {"kind": "empty_page", "rate": 0.02},
)
SECRETS = ("access_token", "refresh_token", "client_secret")


async def connect(up: Running, simulator: httpx.AsyncClient, vendor: str) -> tuple[Connection, dict[str, Any]]:
    asked = {"name": "acme", "sizes": SIZES[vendor]}
    answer = await simulator.post(f"/control/vendors/accounts/{vendor}", json=asked)
    account: dict[str, Any] = answer.raise_for_status().json()
    made = await up.services.connections.create(
        "acme",
        vendor,
        "acme",
        settings=_settings(account) if vendor == "jira" else {},
        credentials={name: account[name] for name in (*SECRETS, "client_id")},
    )
    return made, account


def _settings(account: dict[str, Any]) -> dict[str, Any]:
    return {"cloud_id": account["options"]["cloud_id"], "time_zone": account["options"]["zone"]}


async def live_ids(up: Running, to: Connection, resource: str) -> list[str]:
    found: list[str] = []
    while True:
        page = await up.services.synced.rows(to.connection_id, resource, after=found[-1] if found else None, limit=500)
        if not page:
            return found
        found += [each.row_id for each in page]
        assert all(each.deleted_at is None for each in page)


async def kill(up: Running) -> None:
    """The worker and what belongs to it, with SIGKILL; the supervisor starts another."""
    assert up.stack.worker.process
    victim = psutil.Process(up.stack.worker.process.pid)
    for each in [*victim.children(recursive=True), victim]:
        each.send_signal(signal.SIGKILL)
    async with asyncio.timeout(60):
        while up.stack.worker.process is None or up.stack.worker.process.pid == victim.pid:
            await asyncio.sleep(0.05)


async def rows_of(up: Running, to: Connection) -> int:
    return sum(held.live for held in (await up.services.synced.counts(to.connection_id)).values())


def kept_by_us(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file of store, server and logs; not the simulator's, nor the key itself."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "simulator" not in str(path.relative_to(folder)) and path.suffix != ".key":
            yield path, path.read_bytes()


async def told(client: Client) -> Iterator[bytes]:
    """Every history."""
    found = []
    async for each in client.list_workflows():
        history = await client.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
        found.append(b"".join(event.SerializeToString() for event in history.events))
    assert found
    return iter(found)


async def test_kills_lose_no_row_double_none_and_show_no_secret(tmp_path: Path) -> None:
    ports = {f"simulator_{name}_port": free_port() for name in ("smtp", "http", "apns")}
    async with (
        running(tmp_path, simulator=True, connector_speed=60.0, **ports) as up,
        httpx.AsyncClient(base_url=http_url(up.settings), timeout=30) as simulator,
    ):
        await simulator.put("/control/vendors/speed", json={"speed": 60})
        made = {vendor: await connect(up, simulator, vendor) for vendor in SIZES}
        for fault in FAULTS:
            (await simulator.post("/control/vendors/faults", json=fault)).raise_for_status()
        jobs = {vendor: (await start_sync(up.services, to)).job for vendor, (to, _) in made.items()}
        for rows in KILL_AT:
            async with asyncio.timeout(120):
                while sum([await rows_of(up, to) for to, _ in made.values()]) < rows:
                    await asyncio.sleep(0.02)
            await kill(up)
        for vendor, (to, _) in made.items():
            handle = up.services.temporal.get_workflow_handle(jobs[vendor].workflow_id, result_type=SyncResult)
            async with asyncio.timeout(180):
                result = await handle.result()
            for resource, kind in KINDS[vendor].items():
                listed = (await simulator.get(f"/control/vendors/accounts/{vendor}/acme/items/{kind}")).json()
                there = sorted(str(each) for each in (listed["ids"] if isinstance(listed, dict) else listed))
                ids = await live_ids(up, to, resource)
                assert sorted(ids) == there, (vendor, resource)
                counts = result.counts[resource]
                assert counts.created == len(ids), (vendor, resource, counts)
                assert counts.updated == counts.deleted == counts.malformed == 0, (vendor, resource, counts)
        secrets = {account[name].encode() for _, account in made.values() for name in SECRETS if account[name]}
        for to, _ in made.values():
            now, _ = await up.services.connections.credentials(to)
            secrets |= {str(now[name]).encode() for name in SECRETS if now.get(name)}
        for history in await told(up.services.temporal):
            assert not any(secret in history for secret in secrets)
        async with await up.client() as client:
            for job in jobs.values():
                shown = (await client.get(f"/v1/jobs/{job.job_id}")).content
                assert not any(secret in shown for secret in secrets)
    seen = 0
    for path, content in kept_by_us(tmp_path):
        seen += len(content)
        assert not any(secret in content for secret in secrets), path
    assert seen > 1_000_000
