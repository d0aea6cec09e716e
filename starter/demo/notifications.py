"""The demo's notifications: one by each channel, and what the simulated third parties received."""

import asyncio
import time
from base64 import b64encode
from email import message_from_string, policy
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from starter.demo.ran import Ran

PERSON = "ada"
SECRET = "whsec_" + b64encode(b"a secret of the demo, 32 bytes!!").decode()  # gitleaks:allow
GIVE_UP_SECONDS = 60.0
INVOICE = {
    "number": "2026-0042",
    "amount_cents": 129_900,
    "currency": "EUR",
    "url": "https://app.example.com/invoices/2026-0042",
}
CHANNELS = ("email", "slack", "fcm", "apns", "web_push", "webhook")


async def notifications(
    client: httpx.AsyncClient, simulator_url: str, folder: Path, out: Console
) -> tuple[list[Ran], list[str]]:
    """Make a person, send one message by each channel, and compare with what arrived."""
    async with httpx.AsyncClient(base_url=simulator_url, timeout=10) as control:
        await _person(client, control)
        ran = list(await asyncio.gather(*(_one(client, channel) for channel in CHANNELS)))
        received = (await control.get("/control/records")).raise_for_status().json()
    problems = [f"{each.came_out}: {each.state}" for each in ran if not each.came_out.endswith(": sent")]
    table = Table("third party", "received", "as", title="What the simulated third parties received")
    for record in received:
        table.add_row(record["channel"], _title(record), record["target"][:44])
    out.print(table)
    arrived = sorted(record["channel"] for record in received if record["accepted"])
    if arrived != sorted(CHANNELS):
        problems.append(f"the simulator received {arrived}, wanted one of each of {sorted(CHANNELS)}")
    for record in received:
        if record["channel"] == "email":
            mail = folder / "mail"
            mail.mkdir(parents=True, exist_ok=True)
            (mail / "invoice.eml").write_text(record["body"]["raw"], newline="")
            html = message_from_string(record["body"]["raw"], policy=policy.default).get_body(("html",))
            assert html is not None
            (mail / "invoice.html").write_text(html.get_content())
            out.print(f"The mail: {mail}/invoice.eml and invoice.html", highlight=False)
    return ran, problems


async def _person(client: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    subscription = (await control.post("/control/subscriptions")).raise_for_status().json()
    webhook = (await control.put("/control/webhooks/billing", json={"secret": SECRET})).raise_for_status().json()
    person = {
        "locale": "en",
        "time_zone": "Europe/Lisbon",
        "targets": [
            {"channel": "email", "address": "ada@example.com"},
            {"channel": "slack", "address": "C024BE91L"},
            {"channel": "fcm", "address": "fcm-token-of-a-phone"},
            {"channel": "apns", "address": "5f" * 32},
            {"channel": "web_push", "address": subscription["endpoint"], "details": subscription["keys"]},
            {"channel": "webhook", "address": webhook["url"], "details": {"secret": SECRET}},
        ],
    }
    (await client.put(f"/v1/people/{PERSON}", json=person)).raise_for_status()


async def _one(client: httpx.AsyncClient, channel: str) -> Ran:
    began = time.monotonic()
    body = {"recipient": PERSON, "template": "invoice_paid", "data": INVOICE, "channels": [channel]}
    accepted = (await client.post("/v1/notifications", json=body)).raise_for_status().json()
    job: dict[str, Any] = {}
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while job.get("state") not in {"done", "failed", "cancelled", "parked"}:
            await asyncio.sleep(0.1)
            job = (await client.get(f"/v1/jobs/{accepted['job_id']}")).raise_for_status().json()
    seconds = time.monotonic() - began
    told = job["result"]["outcome"] if job["result"] else (job["error"] or {}).get("detail", "")
    return Ran(
        "notification", job["job_id"], job["state"], round(seconds, 2), [], f"{channel}: {told}", job["links"]["web_ui"]
    )


def _title(record: dict[str, Any]) -> str:
    body = record["body"] or {}
    titles = {
        "email": lambda: body["subject"],
        "slack": lambda: body["text"],
        "fcm": lambda: body["message"]["notification"]["title"],
        "apns": lambda: body["aps"]["alert"]["title"],
        "web_push": lambda: body["title"],
        "webhook": lambda: body["data"]["subject"],
    }
    return str(titles[record["channel"]]()) if record["accepted"] else f"refused: {record['fault']}"
