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

from runtime.ports import free_port
from starter.simulated import folder, http_url
from tests.integration.stack import Running, running

PER_SECOND = 25
SECONDS = int(os.environ.get("HOLDFAST_DRILL_SECONDS", "15"))  # `make drills` takes longer
OUTAGE_SECONDS = int(os.environ.get("HOLDFAST_DRILL_OUTAGE_SECONDS", "12"))
KILL_AT = (0.2, 0.5, 0.8)  # of the time
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


async def send(client: httpx.AsyncClient, number: int, recipient: dict[str, Any]) -> str:
    body = {"recipient": recipient, "content": {"subject": f"Message {number}", "text": "Under fire."}}
    answer = await client.post("/v1/notifications", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def settled(client: httpx.AsyncClient, jobs: list[str], within: float) -> Counter[str]:
    """States of all jobs, once none is open or the time is over."""
    until = time.monotonic() + within
    left, states = set(jobs), Counter[str]()
    while left and time.monotonic() < until:
        for job_id in sorted(left):
            job = (await client.get(f"/v1/jobs/{job_id}")).json()
            if job["state"] not in {"submitted", "running"}:
                left.discard(job_id)
                states[job["result"]["outcome"] if job["result"] else job["state"]] += 1
        await asyncio.sleep(0.5)
    states["open"] = len(left)
    return states


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
            return await send(client, number, recipient(number))

        async def kill(after: float) -> None:
            await asyncio.sleep(after)
            leader(up).send_signal(signal.SIGKILL)

        total = PER_SECOND * SECONDS
        kills = [asyncio.create_task(kill(part * SECONDS)) for part in KILL_AT]
        jobs = await asyncio.gather(*(one(number) for number in range(total)))
        await asyncio.gather(*kills)
        states = await settled(client, jobs, PATIENCE)
        taken = records(up)
        effects = Counter((record["channel"], record["effect"]) for record in taken)
        by_channel = Counter(channel for channel, _ in effects)
        repeats = Counter(dict.fromkeys(CHANNELS, 0))
        for (channel, _), count in effects.items():
            repeats[channel] += count - 1
        faults = Counter(record["fault"] for record in taken if record["fault"])
        print(f"jobs {dict(states)}; taken once or more {dict(by_channel)}; repeats {dict(repeats)}; {dict(faults)}")
        assert states == {"sent": total, "open": 0}
        assert by_channel == {channel: total // len(CHANNELS) + (total % 4 > i) for i, channel in enumerate(CHANNELS)}
        summary = (await control.get("/control/summary")).json()
        for channel in CHANNELS[1:]:
            # what a device shows is replaced by tag or collapse id, so it shows each message once
            assert summary[channel]["shown"] == by_channel[channel]
        # A repeat comes of a lost reply (all of them are repeated) or a kill (at most what was in flight).
        lost_replies = faults["close_after_data"]
        assert lost_replies <= sum(repeats.values()) <= lost_replies + len(KILL_AT) * 100


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
            jobs.append(await send(client, number, {"channel": "email", "address": f"user-{number}@example.com"}))
            await asyncio.sleep(0.25)
        assert records(up) == []
        await control.delete("/control/faults")
        states = await settled(client, jobs, 120)
        assert states == {"sent": len(jobs), "open": 0}
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
