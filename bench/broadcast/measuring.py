"""One measurement: a contender, released, until the sink has seen every device."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from bench.broadcast.contenders import ROOT, Contender, Place
from bench.broadcast.processes import Failed, Program, cpu_seconds, program
from runtime.ports import free_port

SLOWEST = 50  # pushes a second; a contender that is slower is given up
GRACE_SECONDS = 60.0  # beyond that, and for what follows the last push
LOOK_SECONDS = 0.2


class Measurable(Protocol):
    name: str

    def ready(self, place: Place) -> AbstractAsyncContextManager[Contender]: ...


@dataclass(frozen=True)
class Measured:
    """CPU is of all the contender's programs from the release until everything is settled, without the sink."""

    pushes: int
    rate: float
    intake_seconds: float
    cpu_seconds: float
    sink_cpu_seconds: float
    lost: int
    repeats: int
    body: str
    head: str


class SinkClient:
    """The runner's side of the sink."""

    def __init__(self, url: str, running: Program) -> None:
        self.url = url
        self._running = running
        self._http = httpx.AsyncClient(base_url=url, timeout=10)

    async def reset(self, wanted: int) -> None:
        await self._ask(f"/control/reset?{wanted}")

    async def read(self) -> dict[str, Any]:
        return await self._ask("/control")

    async def until_ready(self) -> None:
        for _ in range(100):
            try:
                await self.read()
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return
        raise Failed(f"the sink does not answer:\n{self._running.tail()}")

    async def _ask(self, path: str) -> dict[str, Any]:
        try:
            return dict((await self._http.get(path)).raise_for_status().json())
        except httpx.TransportError:
            await asyncio.sleep(0.5)  # its leash may not have noticed yet
            self._running.check()
            raise


@asynccontextmanager
async def sink() -> AsyncIterator[SinkClient]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        port = free_port()
        command = [sys.executable, "-m", "bench.broadcast.sink", str(port)]
        async with program("sink", command, Path(folder) / "sink.log", cwd=ROOT) as started:
            client = SinkClient(f"http://127.0.0.1:{port}", started)
            await client.until_ready()
            yield client


async def measure(contender: Measurable, pushes: int, counter: SinkClient) -> Measured:
    """Once.

    Raises:
        Failed: a program ended or refused.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        async with contender.ready(Place(folder, counter.url, pushes)) as loaded:
            await counter.reset(pushes)
            began = await loaded.release()
            until = time.monotonic() + pushes / SLOWEST + GRACE_SECONDS
            while (seen := await counter.read())["reached_at"] is None and time.monotonic() < until:
                await asyncio.sleep(LOOK_SECONDS)
            if seen["reached_at"] is not None:
                until = time.monotonic() + GRACE_SECONDS
                while not await loaded.settled():
                    if time.monotonic() > until:
                        raise Failed(f"{contender.name} had work left {GRACE_SECONDS:.0f} s after the last push")
                    await asyncio.sleep(LOOK_SECONDS)
            used = cpu_seconds() - began.cpu
            seen = await counter.read()
        if not seen["total"]:
            raise Failed(f"{contender.name} sent nothing:\n{_logs(folder)}")
        start = min(began.at, seen["first_at"])
        return Measured(
            pushes=pushes,
            rate=seen["distinct"] / ((seen["reached_at"] or time.time()) - start),
            intake_seconds=loaded.intake_seconds,
            cpu_seconds=used - seen["cpu"],
            sink_cpu_seconds=seen["cpu"],
            lost=pushes - seen["distinct"] + seen["unreadable"],
            repeats=seen["total"] - seen["distinct"],
            body=seen["body"],
            head=seen["head"],
        )


def _logs(folder: Path) -> str:
    return "\n".join(
        line for path in folder.rglob("*.log") for line in path.read_text(errors="replace").splitlines()[-15:]
    )


def shape(body: str) -> dict[str, Any]:
    """The pushed message without what differs from one to the next."""
    message: dict[str, Any] = json.loads(body)["message"]
    message["token"] = len(message["token"])
    for platform in ("android", "webpush"):
        message[platform]["notification"]["tag"] = len(message[platform]["notification"]["tag"])
    message["android"]["ttl"] = message["webpush"]["headers"]["TTL"] = None
    message["apns"]["headers"] = {name: len(value) for name, value in message["apns"]["headers"].items()}
    return message
