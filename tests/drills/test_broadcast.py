"""A broadcast while its worker is killed and the vendor fails: none lost, shown once on each device, repeats told."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from activities.bulk_delivery import IN_FLIGHT
from runtime.ports import free_port
from starter.simulated import folder, http_url
from store.effect_batches import GATHER_ROWS
from tests.drills import long
from tests.integration.stack import Running, running
from workflows.broadcast import AT_ONCE

RECIPIENTS = int(os.environ.get("HOLDFAST_DRILL_RECIPIENTS", "800"))  # `make drills` takes 20,000
KILLS = int(os.environ.get("HOLDFAST_DRILL_KILLS", "1"))  # and 3
KILL_AT = (0.1, 0.35, 0.6)[:KILLS]  # of the recipients; a lost worker's claims are leased for 30 s
SHARE_OF_FAULTS = 0.05
PATIENCE = 900.0  # an UNAVAILABLE may name a time, and then all wait


def kill_bulk_worker(up: Running) -> None:
    process = up.stack.bulk_workers[0].process
    assert process
    family = psutil.Process(process.pid).children(recursive=True)
    next(each for each in family if "worker.py" in str(each.cmdline())).send_signal(signal.SIGKILL)


@long
@pytest.mark.asyncio
async def test_kills_in_a_broadcast_lose_nothing_and_show_it_once(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("simulator_smtp_port", "simulator_http_port", "simulator_apns_port")}
    async with (
        running(tmp_path, simulator=True, **ports) as up,
        await up.client() as client,
        httpx.AsyncClient(base_url=http_url(up.settings)) as control,
    ):
        for fault in ({"row": "UNAVAILABLE"}, {"kind": "close_after_data"}):
            body = fault | {"channel": "fcm", "rate": SHARE_OF_FAULTS / 2, "times": None}
            assert (await control.post("/control/faults", json=body)).status_code == 204
        message = {"content": {"subject": "To all", "text": "Under fire."}, "category": "news", "channels": ["fcm"]}
        people = [{"channel": "fcm", "address": f"phone-{number}"} for number in range(RECIPIENTS)]
        answer = await client.post(
            "/v1/broadcasts",
            content="\n".join(json.dumps(each) for each in [message, *people]),
            headers={"Content-Type": "application/x-ndjson"},
        )
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["job_id"]
        began = time.monotonic()
        kills = list(KILL_AT)
        while True:
            progress = (await client.get(f"/v1/broadcasts/{job_id}")).json()
            if kills and progress["done"] >= kills[0] * RECIPIENTS:
                kill_bulk_worker(up)
                kills.pop(0)
            if progress["state"] == "done":
                break
            assert progress["state"] in {"submitted", "running"}, progress
            assert time.monotonic() - began < PATIENCE, json.dumps(progress)
            await asyncio.sleep(0.1)
        assert not kills
        while (await control.get("/control/summary")).json()["fcm"]["shown"] < RECIPIENTS:  # those handed over
            assert time.monotonic() - began < PATIENCE
            await asyncio.sleep(0.5)
        shown = (await control.get("/control/summary")).json()["fcm"]["shown"]
        took = time.monotonic() - began
        lines = (folder(up.settings) / "records.ndjson").read_text().splitlines()

    taken = [record for record in map(json.loads, lines) if record["accepted"]]
    copies = Counter(record["target"] for record in taken)
    lost_replies = sum(record["fault"] == "close_after_data" for record in taken)
    repeats = sum(copies.values()) - len(copies)
    counts = progress["counts"]
    print(f"{RECIPIENTS} in {took:.0f} s: {counts}; raw repeats {repeats}, of them {lost_replies} after a lost reply")
    assert shown == RECIPIENTS
    assert set(copies) == {f"phone-{number}" for number in range(RECIPIENTS)}
    assert sum(counts.values()) == RECIPIENTS
    assert set(counts) <= {"sent", "handed_over"}
    assert counts.get("handed_over", 0) < SHARE_OF_FAULTS * RECIPIENTS
    # What was claimed and unsettled at the kills, and what was repeated because its reply was lost.
    assert repeats <= lost_replies + len(KILL_AT) * (AT_ONCE * IN_FLIGHT + GATHER_ROWS)
