"""Notifications under load while workers are killed and vendors fail: none lost, pushes shown once, repeats counted.

The counting is the simulator's: it is another process, and writes down what it took before it answers.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from activities.delivery import LONGEST_WAIT
from contracts.catalogue import NOTIFICATION, QUEUES
from runtime.ports import free_port
from starter.simulated import folder, http_url
from tests.drills import long
from tests.integration.stack import Running, running

PER_SECOND = 25
SECONDS = int(os.environ.get("HOLDFAST_DRILL_SECONDS", "15"))  # `make drills` takes longer
OUTAGE_SECONDS = int(os.environ.get("HOLDFAST_DRILL_OUTAGE_SECONDS", "12"))
KILL_AT = (0.2, 0.5, 0.8)  # of the time
AT_ONCE = next(queue.activities_at_once for queue in QUEUES if queue.name == NOTIFICATION.queue)
SHARE_OF_FAULTS = 0.05
PATIENCE = 150.0
CHANNELS = ("email", "fcm", "apns", "web_push")
FAULTS: tuple[dict[str, Any], ...] = (
    {"channel": "email", "row": "451 local error"},
    {"channel": "email", "kind": "close_after_data"},
    {"channel": "fcm", "row": "UNAVAILABLE"},
    {"channel": "fcm", "kind": "close_after_data"},
    {"channel": "apns", "row": "InternalServerError"},
    {"channel": "apns", "kind": "close_after_data"},
    {"channel": "web_push", "row": "500"},
    {"channel": "web_push", "kind": "close_after_data"},
)


def ports() -> dict[str, Any]:
    return {
        "simulator": True,
        "simulator_smtp_port": free_port(),
        "simulator_http_port": free_port(),
        "simulator_apns_port": free_port(),
    }


def leader(up: Running) -> psutil.Process:
    assert up.stack.worker.process
    family = psutil.Process(up.stack.worker.process.pid).children(recursive=True)
    return next(member for member in family if "worker.py" in str(member.cmdline()))


def records(up: Running) -> list[dict[str, Any]]:
    """What the simulator took; a channel's `effect` names the message."""
    lines = (folder(up.settings) / "records.ndjson").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["accepted"]]


async def send(client: httpx.AsyncClient, number: int, recipient: dict[str, Any], message: dict[str, Any]) -> str:
    body = {"recipient": recipient, **message}
    answer = await client.post("/v1/notifications", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def plain(number: int) -> dict[str, Any]:
    return {"content": {"subject": f"Message {number}", "text": "Under fire."}}


def policy_of(number: int) -> str:
    """Every second mail is of a template that would rather lose one than repeat one."""
    return "leave" if number % (2 * len(CHANNELS)) else "resend"


def mail(number: int) -> dict[str, Any]:
    if policy_of(number) == "resend":
        return {"template": "welcome", "data": {"name": f"User {number}", "url": "https://app.example.com"}}
    data = {"author": "Grace", "document": f"Plan {number}", "excerpt": "@ada", "url": "https://app.example.com"}
    return {"template": "comment_mention", "data": data}


async def settled(client: httpx.AsyncClient, jobs: list[str], within: float) -> dict[str, str]:
    """How each job ended: the outcome of its one target, its state where it has none, or `open` after the time."""
    until = time.monotonic() + within
    ended: dict[str, str] = {}
    while len(ended) < len(jobs) and time.monotonic() < until:
        for job_id in (each for each in jobs if each not in ended):
            job = (await client.get(f"/v1/jobs/{job_id}")).json()
            if job["state"] not in {"submitted", "running"}:
                targets = (job["result"] or {}).get("targets")
                ended[job_id] = targets[0]["outcome"] if targets else job["state"]
        await asyncio.sleep(0.5)
    return dict.fromkeys(jobs, "open") | ended


@pytest.mark.asyncio
async def test_three_kills_and_faults_lose_nothing_and_show_each_push_once(tmp_path: Path) -> None:
    async with (
        running(tmp_path, **ports()) as up,
        await up.client() as client,
        httpx.AsyncClient(base_url=http_url(up.settings)) as control,
    ):
        subscriptions = [(await control.post("/control/subscriptions")).json() for _ in range(20)]
        share = SHARE_OF_FAULTS / 2  # two kinds for each channel
        for fault in FAULTS:
            answer = await control.post("/control/faults", json=fault | {"rate": share, "times": None})
            assert answer.status_code == 204, answer.text

        def recipient(number: int) -> dict[str, Any]:
            channel = CHANNELS[number % len(CHANNELS)]
            subscription = subscriptions[number % len(subscriptions)]
            return {
                "email": {"channel": "email", "address": f"user-{number}@example.com"},
                "fcm": {"channel": "fcm", "address": f"phone-{number}"},
                "apns": {"channel": "apns", "address": f"{number:064x}"},
                "web_push": {
                    "channel": "web_push",
                    "address": subscription["endpoint"],
                    "details": subscription["keys"],
                },
            }[channel]

        start = time.perf_counter()

        async def one(number: int) -> str:
            await asyncio.sleep(max(0.0, start + number / PER_SECOND - time.perf_counter()))
            message = mail(number) if number % len(CHANNELS) == 0 else plain(number)
            return await send(client, number, recipient(number), message)

        async def kill(after: float) -> None:
            await asyncio.sleep(after)
            leader(up).send_signal(signal.SIGKILL)

        total = PER_SECOND * SECONDS
        kills = [asyncio.create_task(kill(part * SECONDS)) for part in KILL_AT]
        jobs = await asyncio.gather(*(one(number) for number in range(total)))
        await asyncio.gather(*kills)
        ended = await settled(client, jobs, PATIENCE)
        taken = records(up)
        summary = (await control.get("/control/summary")).json()

    effects = Counter((record["channel"], record["effect"]) for record in taken)
    distinct = Counter(channel for channel, _ in effects)
    repeats = Counter(dict.fromkeys(CHANNELS, 0))
    for (channel, _), count in effects.items():
        repeats[channel] += count - 1
    lost_replies = sum(record["fault"] == "close_after_data" for record in taken)
    print(f"{total} jobs: {dict(Counter(ended.values()))}; taken {dict(distinct)}; raw repeats {dict(repeats)}")

    # Pushes: all sent, and each shown once whatever was repeated, by tag or collapse id.
    pushes = [ended[job] for number, job in enumerate(jobs) if number % len(CHANNELS)]
    assert Counter(pushes) == {"sent": len(pushes)}
    for place, channel in enumerate(CHANNELS[1:], 1):
        asked = len(range(place, total, len(CHANNELS)))
        assert distinct[channel] == asked
        assert summary[channel]["shown"] == asked

    # Mails whose fate is unknown: sent again with the same Message-ID, or left and told, as the template says.
    arrived = Counter(record["target"] for record in taken if record["channel"] == "email")
    for policy in ("resend", "leave"):
        numbers = [number for number in range(0, total, len(CHANNELS)) if policy_of(number) == policy]
        outcomes = Counter(ended[jobs[number]] for number in numbers)
        copies = Counter(arrived[f"user-{number}@example.com"] for number in numbers)
        print(f"mails, {policy}: {len(numbers)}, told {dict(outcomes)}, copies received {dict(sorted(copies.items()))}")
        if policy == "resend":
            assert outcomes == {"sent": len(numbers)}
            assert copies[0] == 0
        else:
            assert set(outcomes) <= {"sent", "maybe_sent"}
            assert set(copies) <= {0, 1}
            assert copies[0] <= outcomes["maybe_sent"]
    # A repeat comes of a lost reply (every one is repeated) or of a kill (at most what was claimed and unsettled).
    assert sum(repeats.values()) <= lost_replies + len(KILL_AT) * AT_ONCE


@long
@pytest.mark.asyncio
async def test_mails_wait_out_an_outage_of_the_relay(tmp_path: Path) -> None:
    async with (
        running(tmp_path, **ports()) as up,
        await up.client() as client,
        httpx.AsyncClient(base_url=http_url(up.settings)) as control,
    ):
        outage = {"channel": "email", "kind": "reset", "stage": "connect", "times": None}
        assert (await control.post("/control/faults", json=outage)).status_code == 204
        jobs = []
        for number in range(OUTAGE_SECONDS * 4):
            address = {"channel": "email", "address": f"user-{number}@example.com"}
            jobs.append(await send(client, number, address, plain(number)))
            await asyncio.sleep(0.25)
        assert records(up) == []
        await control.delete("/control/faults")
        over = time.monotonic()
        assert Counter((await settled(client, jobs, LONGEST_WAIT.total_seconds() + 120)).values()) == {
            "sent": len(jobs)
        }
        print(
            f"{len(jobs)} mails arrived within {time.monotonic() - over:.0f} s of the end of {OUTAGE_SECONDS} s outage"
        )
        assert sorted(record["target"] for record in records(up)) == sorted(
            f"user-{number}@example.com" for number in range(len(jobs))
        )
        for job_id in jobs[:: len(jobs) // 5]:
            handle = up.services.temporal.get_workflow_handle(f"notification:acme:{job_id}")
            attempts = [
                event.activity_task_started_event_attributes.attempt
                async for event in handle.fetch_history_events()
                if event.HasField("activity_task_started_event_attributes")
            ]
            assert set(attempts) == {1}
