"""The demo's broadcast and daily digest, and what the simulated third parties received of them."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from contracts.catalogue import DAILY_DIGEST
from contracts.payloads.scheduled import OF_NO_TENANT
from runtime.clock import FixedClock
from runtime.settings import Settings
from starter.demo.ran import Ran
from starter.services import Services, open_services
from store.events import Event

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
    lines = [MESSAGE, *devices, devices[6], {"channel": "pigeon", "address": "x"}]
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
        f"line {bad['line']} is wrong ({bad['problem'][:70]})",
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
    told = f"{len(set(reached)):,} devices, one push each"
    job = accepted["job_id"]
    return [Ran("broadcast", job, seen["state"], round(seconds, 2), [], told, accepted["links"]["web_ui"])], problems


async def digest(
    client: httpx.AsyncClient, settings: Settings, tenant: str, simulator_url: str, out: Console
) -> tuple[list[Ran], list[str]]:
    """What happened in the last hours, told to two people at the digest's time; a second run tells nothing."""
    now = datetime.now(UTC)
    for person in PEOPLE:
        known = {"locale": "en", "targets": [{"channel": "email", "address": f"{person}@example.com"}]}
        (await client.put(f"/v1/people/{person}", json=known)).raise_for_status()
    at = now - timedelta(minutes=1)
    wanted = {"enabled": True, "zone": "UTC", "at": f"{at:%H:%M}"}
    (await client.put("/v1/digest", json=wanted)).raise_for_status()
    async with open_services(settings, role="demo", clock=FixedClock(now - timedelta(hours=1))) as earlier:
        await earlier.events.add(
            tenant,
            [
                Event(f"demo-{number}", person, "activity", title, text, "https://app.example.com")
                for number, (person, title, text) in enumerate(EVENTS)
            ],
        )
    began = time.monotonic()
    async with open_services(settings, role="demo") as services:
        first = await _run(services, 1)
        mails = await _mails(simulator_url, len(PEOPLE))
        second = await _run(services, 2)
    seconds = time.monotonic() - began
    after = await _mails(simulator_url, len(PEOPLE))
    problems = []
    if sorted(mails) != sorted(f"{person}@example.com" for person in PEOPLE) or len(after) != len(mails):
        problems.append(f"the digest went to {sorted(mails)}, and after a second run to {sorted(after)}")
    if (first["people"], second["people"]) != (len(PEOPLE), 0):
        problems.append(f"the digest's runs say {first} and {second}")
    out.print(f"Daily digest: {len(mails)} mails; run again the same day: {len(after) - len(mails)} more")
    told = f"{len(EVENTS)} events told to {first['people']} people; a second run to {second['people']}"
    return [Ran(DAILY_DIGEST.name, first["id"], "done", round(seconds, 2), [], told, "")], problems


async def _run(services: Services, number: int) -> dict[str, Any]:
    """Trigger the schedule; the result of its run, the `number`-th that ends."""
    await services.temporal.get_schedule_handle("daily-digest").trigger()
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            jobs, _ = await services.jobs.list(OF_NO_TENANT, type=DAILY_DIGEST.name)
            done = [job for job in jobs if job.state.closed]
            if len(done) >= number:
                return {"id": str(done[0].job_id), "people": (done[0].result or {})["people"]}
            await asyncio.sleep(0.1)


async def _mails(simulator_url: str, at_least: int) -> list[str]:
    """To whom the relay took digests, once there are as many."""
    async with asyncio.timeout(GIVE_UP_SECONDS), httpx.AsyncClient(base_url=simulator_url, timeout=10) as control:
        while True:
            received = (await control.get("/control/records")).raise_for_status().json()
            people = {f"{person}@example.com" for person in PEOPLE}
            found = [each["target"] for each in received if each["accepted"] and each["target"] in people]
            if len(found) >= at_least:
                return found
            await asyncio.sleep(0.2)
