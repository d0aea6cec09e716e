"""A single notification: how fast the API answers, and how long from its answer until the relay has taken the mail.

Arrivals are fixed in time (open loop). The load generator, the relay, the server, worker and API share the cores.

    python -m bench.notification_latency [seconds] [per second] [recipients of a broadcast that runs meanwhile]
"""

import asyncio
import json
import sys
import time

import psutil
from rich.table import Table

from bench.stage import Stage, keep, neighbours, percentile, stage
from starter.simulated import folder

SETTLE_SECONDS = 10
PATIENCE = 60.0  # seconds, for the last ones


async def load(on: Stage, seconds: int, per_second: int) -> tuple[list[float], dict[str, float]]:
    """Seconds of each API answer from its planned arrival, and the wall-clock time of the answer by address."""
    answers: list[float] = []
    answered: dict[str, float] = {}
    start = time.perf_counter() + 0.5

    async def one(number: int) -> None:
        planned = start + number / per_second
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        address = f"user-{number}@example.com"
        body = {
            "recipient": {"channel": "email", "address": address},
            "template": "welcome",
            "data": {"name": f"User {number}", "url": "https://app.example.com"},
        }
        answer = await on.client.post("/v1/notifications", json=body)
        answers.append(time.perf_counter() - planned)
        answer.raise_for_status()
        answered[address] = time.time()

    await asyncio.gather(*(one(number) for number in range(seconds * per_second)))
    return answers, answered


def accepted(on: Stage) -> dict[str, float]:
    """When the relay took the mail, by address."""
    lines = (folder(on.settings) / "records.ndjson").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["target"]: record["at"] for record in records if record["accepted"]}


def cpu_seconds() -> dict[str, float]:
    """Of the stack's processes so far, by what they are."""
    marks = {
        "worker": "worker.py",
        "API": "starter api",
        "Temporal server": "server start-dev",
        "simulator": "simulator",
    }
    used = dict.fromkeys(marks, 0.0)
    for process in psutil.Process().children(recursive=True):
        line = " ".join(process.cmdline())
        for name, mark in marks.items():
            if mark in line and "runtime.leash" not in line:
                times = process.cpu_times()
                used[name] += times.user + times.system
    return used


async def begin_broadcast(on: Stage, recipients: int) -> str:
    """Take it in and let it run; the job's id."""
    message = {"content": {"subject": "To all", "text": "Something new."}, "category": "news", "channels": ["fcm"]}
    people = ({"channel": "fcm", "address": f"phone-{number}"} for number in range(recipients))
    answer = await on.client.post(
        "/v1/broadcasts",
        content="\n".join(json.dumps(each) for each in (message, *people)),
        headers={"Content-Type": "application/x-ndjson"},
        timeout=600,
    )
    answer.raise_for_status()
    return str(answer.json()["job_id"])


async def main(seconds: int, per_second: int, recipients: int) -> None:
    before = neighbours()
    async with stage(simulator=True) as on:
        await load(on, SETTLE_SECONDS, 5)  # connections, code paths, and the OCR children load their models
        broadcast = await begin_broadcast(on, recipients) if recipients else None
        used_before = cpu_seconds()
        answers, answered = await load(on, seconds, per_second)
        used = cpu_seconds()
        meanwhile = (await on.client.get(f"/v1/broadcasts/{broadcast}")).json() if broadcast else None
        until = time.monotonic() + PATIENCE
        while len(taken := accepted(on)) < len(answered) and time.monotonic() < until:
            await asyncio.sleep(0.5)
    lags = [taken[address] - at for address, at in answered.items() if address in taken]
    table = Table("", "count", "p50 ms", "p95 ms", "p99 ms", "max ms", "wanted", title=f"{per_second} a second")
    for name, values, wanted in (
        ("API answer", answers, "p99 < 100"),
        ("answer to mail accepted", lags, "p50 < 100, p99 < 1000"),
    ):
        figures = [f"{percentile(values, share) * 1000:.0f}" for share in (0.5, 0.95, 0.99)]
        table.add_row(name, str(len(values)), *figures, f"{max(values) * 1000:.0f}", wanted)
    lost = len(answered) - len(lags)
    notes = [
        f"{seconds} s; {lost} of {len(answered)} mails not taken within {PATIENCE:.0f} s of the last answer",
        "a lag below zero, counted as it is, means that the relay had the mail before the client read the answer",
        "CPU per notification: "
        + ", ".join(f"{name} {(used[name] - used_before[name]) / len(answered) * 1000:.1f} ms" for name in used),
        f"other programs used {before:.0%} of the cores before; repeat above 10 %",
    ]
    if meanwhile:
        notes.append(f"a broadcast meanwhile: {meanwhile['state']}, {meanwhile['done']:,} of {recipients:,} at the end")
    keep("notification_latency", [table], notes)


if __name__ == "__main__":
    asyncio.run(main(*(int(word) for word in (sys.argv[1:] + ["120", "25", "0"][len(sys.argv) - 1 :]))))
