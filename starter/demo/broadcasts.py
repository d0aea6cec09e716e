"""The demo's broadcast and daily digest, and what the simulated third parties received of them."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from temporalio.client import ScheduleOverlapPolicy

from contracts.catalogue import BROADCAST, DAILY_DIGEST
from contracts.payloads.job import JobState
from contracts.payloads.scheduled import OF_NO_TENANT
from runtime.clock import FixedClock
from runtime.settings import Settings
from starter.api.access import KnownKeys
from starter.api.app import create_app
from starter.api.views import links
from starter.demo.ran import Ran
from starter.services import Services, open_services
from store.jobs import Job

RECIPIENTS = 2_000
GIVE_UP_SECONDS = 120.0
MESSAGE = {
    "content": {"subject": "New: shared folders", "text": "Invite your team, and everyone sees every change."},
    "category": "news",
    "channels": ["fcm"],
}
PEOPLE = ("grace", "edsger")
EVENTS = (
    ("grace", "Ada commented on Roadmap 2027", "Shall we move this to March?"),
    ("grace", "Edsger closed 3 issues", ""),
    ("edsger", "Grace shared the folder Plans with you", ""),
)


async def broadcast(client: httpx.AsyncClient, simulator_url: str, out: Console) -> tuple[list[Ran], list[str]]:
    """Push to 2,000 devices, one of them named twice and one line wrong, and compare with what they show."""
    devices = [{"channel": "fcm", "address": f"demo-device-{number}"} for number in range(RECIPIENTS)]
    lines = [MESSAGE, *devices, devices[6], {"channel": "fcm"}]
    began = time.monotonic()
    answer = await client.post(
        "/v1/broadcasts",
        content="\n".join(json.dumps(each) for each in lines),
        headers={"Content-Type": "application/x-ndjson"},
    )
    accepted = answer.raise_for_status().json()
    bad = accepted["bad"]["lines"][0]
    out.print(
        f"Broadcast to {accepted['recipients']:,}: line {accepted['duplicates']['lines'][0]} is a duplicate, "
        f"line {bad['line']} is left out ({bad['problem']})",
        highlight=False,
    )
    seen: dict[str, Any] = {"state": "submitted", "done": 0, "counts": {}}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as progress:
        shown = progress.add_task("broadcast", total=accepted["recipients"])
        async with (
            asyncio.timeout(GIVE_UP_SECONDS),
            client.stream("GET", accepted["links"]["events"], timeout=GIVE_UP_SECONDS) as events,
        ):
            async for line in events.aiter_lines():
                if line.startswith("data:"):
                    seen = json.loads(line.removeprefix("data:"))
                    progress.update(shown, completed=seen["done"])
    seconds = time.monotonic() - began
    async with httpx.AsyncClient(base_url=simulator_url, timeout=10) as control:
        received = (await control.get("/control/records")).raise_for_status().json()
    reached = [each["target"] for each in received if each["accepted"] and each["target"].startswith("demo-device-")]
    problems = []
    if seen["state"] != "done" or seen["counts"] != {"sent": RECIPIENTS}:
        problems.append(f"the broadcast is {seen['state']}: {seen['counts']}")
    if sorted(reached) != sorted(each["address"] for each in devices):
        problems.append(f"{len(reached)} pushes to {len(set(reached))} devices, wanted {RECIPIENTS} to as many")
    told = f"{len(set(reached)):,} devices, one push each" if not problems else "see the problems"
    job = accepted["job_id"]
    return [Ran("broadcast", job, seen["state"], round(seconds, 2), [], told, accepted["links"]["web_ui"])], problems


async def digest(
    client: httpx.AsyncClient, settings: Settings, tenant: str, simulator_url: str, out: Console
) -> tuple[list[Ran], list[str]]:
    """What happened an hour ago, told to two people at the digest's time; a second run tells nothing."""
    now = datetime.now(UTC)
    for person in PEOPLE:
        known = {"locale": "en", "targets": [{"channel": "email", "address": f"{person}@example.com"}]}
        (await client.put(f"/v1/people/{person}", json=known)).raise_for_status()
    await _report_events(client, settings, now - timedelta(hours=1))
    at = now - timedelta(minutes=1)  # and so settled: nobody waits
    wanted = {"enabled": True, "zone": "UTC", "at": f"{at:%H:%M}"}
    (await client.put("/v1/digest", json=wanted)).raise_for_status()
    began = time.monotonic()
    async with open_services(settings, role="demo") as services:
        first = await _run(services)
        made = await services.digests.get(tenant, at.date())
        sent = await _ended(client, made.broadcast_id) if made and made.broadcast_id else {"state": "missing"}
        seconds = time.monotonic() - began
        mails = await _mails(simulator_url)
        second = await _run(services)
        again = await services.jobs.list(tenant, type=BROADCAST.name)
        after = await _mails(simulator_url)
        web_ui = links(services.settings, services.temporal.namespace, first).web_ui
    problems = [f"a run of the daily digest is {run.state}: {run.error}" for run in (first, second) if not _done(run)]
    if sent["state"] != "done" or sent["counts"] != {"sent": len(PEOPLE)}:
        problems.append(f"the digest's broadcast is {sent['state']}: {sent.get('counts')}")
    if sorted(mails) != sorted(f"{person}@example.com" for person in PEOPLE):
        problems.append(f"the digest went to {sorted(mails)}, wanted one to each of {sorted(PEOPLE)}")
    open_ones = [job for job in again[0] if not job.state.closed]
    if after != mails or open_ones or (second.result or {}).get("people") != 0:
        problems.append(f"a second run told {second.result}: {len(after)} mails, {len(open_ones)} broadcasts to come")
    out.print(
        f"Daily digest of {at:%H:%M} UTC: {len(mails)} mails; triggered again the same day: "
        f"{len(after) - len(mails) or 'nothing'} more",
        highlight=False,
    )
    told = f"{len(EVENTS)} events told to {len(set(mails))} people by mail; a second run told nothing"
    ran = Ran(
        DAILY_DIGEST.name,
        str(first.job_id),
        first.state.value,
        round(seconds, 2),
        [],
        told if not problems else "see the problems",
        web_ui,
    )
    return [ran], problems


async def _report_events(client: httpx.AsyncClient, settings: Settings, received_at: datetime) -> None:
    """POST /v1/events to an API whose clock is slow: what is received now is in tomorrow's digest."""
    body = {
        "events": [
            {
                "person": person,
                "kind": "activity",
                "title": title,
                "url": "https://app.example.com",
                "id": f"demo-{number}",
            }
            | ({"text": text} if text else {})
            for number, (person, title, text) in enumerate(EVENTS)
        ]
    }
    app = create_app(settings)
    async with open_services(settings, role="demo", clock=FixedClock(received_at)) as services:
        app.state.services, app.state.known_keys = services, KnownKeys(services.api_keys)
        authorization = {"Authorization": client.headers["Authorization"]}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=client.base_url, headers=authorization) as slow:
            (await slow.post("/v1/events", json=body)).raise_for_status()


def _done(run: Job) -> bool:
    return run.state is JobState.DONE


async def _run(services: Services) -> Job:
    """Trigger the schedule; a run that ended and began after that. At a quarter hour there may be one by itself too."""
    before = {job.job_id for job in await _runs(services)}
    await services.temporal.get_schedule_handle("daily-digest").trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE)
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            runs = [job for job in await _runs(services) if job.job_id not in before]
            if runs and all(job.state.closed for job in runs):
                return runs[0]
            await asyncio.sleep(0.1)


async def _runs(services: Services) -> list[Job]:
    jobs, _ = await services.jobs.list(OF_NO_TENANT, type=DAILY_DIGEST.name)
    return jobs


async def _ended(client: httpx.AsyncClient, broadcast_id: UUID) -> dict[str, Any]:
    """The digest's broadcast, once it has ended."""
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            found: dict[str, Any] = (await client.get(f"/v1/broadcasts/{broadcast_id}")).raise_for_status().json()
            if JobState(found["state"]).closed:
                return found
            await asyncio.sleep(0.1)


async def _mails(simulator_url: str) -> list[str]:
    """To whom the relay took digests."""
    people = {f"{person}@example.com" for person in PEOPLE}
    async with httpx.AsyncClient(base_url=simulator_url, timeout=10) as control:
        received = (await control.get("/control/records")).raise_for_status().json()
    return [each["target"] for each in received if each["accepted"] and each["target"] in people]
