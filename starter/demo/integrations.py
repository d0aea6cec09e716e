"""The demo's integrations: four simulated third parties are connected and synced, and compared with what they have."""

import asyncio
import json
import time
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from contracts.catalogue import SYNC
from starter.demo.ran import Ran

GIVE_UP_SECONDS = 120.0
SIZES: dict[str, dict[str, int]] = {
    "github": {"repos": 2, "issues": 130, "comments": 1},
    "jira": {"projects": 2, "issues": 6, "comments": 1, "users": 12},
    "figma": {"projects": 1, "files": 2, "comments": 3, "versions": 2},
    "slack": {"channels": 3, "messages": 40, "replies": 0, "users": 30},
}
KINDS = {"repositories": "repos"}  # where the vendor's word is another than ours
CHANGED = 7


async def integrations(client: httpx.AsyncClient, simulator_url: str, out: Console) -> tuple[list[Ran], list[str]]:
    """Connect and sync all four side by side, then GitHub again after some issues changed."""
    async with httpx.AsyncClient(base_url=simulator_url, timeout=30) as control:
        with out.status("connecting and syncing GitHub, Jira, Figma and Slack"):
            done = await asyncio.gather(*(_first(client, control, vendor) for vendor in SIZES))
        jobs = [ran for ran, _, _ in done]
        problems = [problem for _, wrong, _ in done for problem in wrong]
        counted = (await control.get("/control/vendors/statistics")).raise_for_status().json()
        _show(out, {vendor: view for vendor, (_, _, view) in zip(SIZES, done, strict=True)}, counted)
        problems += [
            f"{each['vendor']} refused {each['refusals']} requests" for each in counted["vendors"] if each["refusals"]
        ]
        again, wrong = await _changes(client, control, done[0][2], out)
        return [*jobs, again], problems + wrong


async def _first(
    client: httpx.AsyncClient, control: httpx.AsyncClient, vendor: str
) -> tuple[Ran, list[str], dict[str, Any]]:
    asked = {"name": "demo", "sizes": SIZES[vendor]}
    account = (await control.post(f"/control/vendors/accounts/{vendor}", json=asked)).raise_for_status().json()
    body = {
        "provider": vendor,
        "account": "demo",
        "settings": _settings(vendor, account["options"]),
        "credentials": {
            each: account[each] for each in ("access_token", "refresh_token", "client_id", "client_secret")
        },
    }
    began = time.monotonic()
    made = (await client.post("/v1/connections", json=body)).raise_for_status().json()
    ran = await _until_done(client, made["sync"]["job_id"], began, vendor)
    view = (await client.get(f"/v1/connections/{made['connection_id']}")).raise_for_status().json()
    problems = [] if ran.state == "done" else [f"the sync of {vendor} is {ran.state}"]
    for resource, held in (view["resources"] or {}).items():
        listed = await control.get(f"/control/vendors/accounts/{vendor}/demo/items/{KINDS.get(resource, resource)}")
        there = len(listed.raise_for_status().json()["ids"])
        if there != held["rows"]:
            problems.append(f"{vendor} has {there} {resource}, and {held['rows']} came")
    return ran, problems, view


def _settings(vendor: str, options: dict[str, Any]) -> dict[str, Any]:
    if vendor == "jira":
        return {"cloud_id": options["cloud_id"], "time_zone": options["zone"]}
    return {"team_id": options["team_id"]} if vendor == "figma" else {}


async def _changes(
    client: httpx.AsyncClient, control: httpx.AsyncClient, view: dict[str, Any], out: Console
) -> tuple[Ran, list[str]]:
    """GitHub's issues change, and only these come."""
    change = {"action": "change", "kind": "issues", "count": CHANGED}
    (await control.post("/control/vendors/accounts/github/demo/items", json=change)).raise_for_status()
    began = time.monotonic()
    begun = (await client.post(f"/v1/connections/{view['connection_id']}/sync")).raise_for_status().json()
    ran = await _until_done(client, begun["job_id"], began, "github again")
    job = (await client.get(f"/v1/jobs/{begun['job_id']}")).raise_for_status().json()
    counts = job["result"]["counts"]["issues"] if job["result"] else {}
    out.print(
        f"GitHub again after {CHANGED} issues changed: {counts.get('updated')} updated, "
        f"{counts.get('created')} new, in {counts.get('pages')} requests",
        highlight=False,
    )
    return ran, [] if counts.get("updated") == CHANGED else [f"{CHANGED} issues changed, but {counts} came"]


async def _until_done(client: httpx.AsyncClient, job_id: str, began: float, what: str) -> Ran:
    seen: dict[str, Any] = {"state": "submitted"}
    async with (
        asyncio.timeout(GIVE_UP_SECONDS),
        client.stream("GET", f"/v1/jobs/{job_id}/events", timeout=GIVE_UP_SECONDS) as events,
    ):
        async for line in events.aiter_lines():
            if line.startswith("data:"):
                seen = json.loads(line.removeprefix("data:"))
    counts = (seen.get("result") or {}).get("counts", {})
    rows = sum(each["created"] + each["updated"] for each in counts.values())
    return Ran(
        type=SYNC.name,
        id=job_id,
        state=seen["state"],
        seconds=time.monotonic() - began,
        artefacts=[],
        came_out=f"{what}: {rows} rows in {sum(each['pages'] for each in counts.values())} requests",
        web_ui=seen["links"]["web_ui"],
    )


def _show(out: Console, views: dict[str, dict[str, Any]], counted: dict[str, Any]) -> None:
    table = Table("third party", "rows", "requests", "refused", "fullest quota")
    for each in counted["vendors"]:
        vendor = each["vendor"]
        rows = ", ".join(f"{held['rows']} {name}" for name, held in (views[vendor]["resources"] or {}).items())
        quotas = [quota for quota in counted["quotas"] if quota["vendor"] == vendor and quota["counts"]["taken"]]
        fullest = max(quotas, key=lambda quota: quota["counts"]["used"], default=None)
        used = f"{fullest['quota']} {fullest['counts']['used']:.0%}" if fullest else ""
        table.add_row(vendor, rows, str(each["requests"]), str(each["refusals"]), used)
    out.print(table)
