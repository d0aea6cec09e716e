"""The four contenders: each is ready and fully loaded when its block is entered, and sends when released."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.broadcast import installed, load
from bench.broadcast.processes import Failed, Program, cpu_seconds, program, quiet
from runtime.ports import free_port
from runtime.settings import Settings
from starter.services import open_services
from starter.supervisor import stack
from store.api_keys import Role

READY_SECONDS = 60.0
INTAKE_SECONDS = 300.0
ROOT = installed.HERE.parent.parent


@dataclass(frozen=True)
class Place:
    """Where a run takes place."""

    folder: Path
    sink_url: str
    pushes: int


@dataclass(frozen=True)
class Began:
    """When sending began, by the wall clock, and what had been used until then."""

    at: float
    cpu: float


@dataclass
class Contender:
    """Ready to send. `settled` says whether nothing is left to do after the last push."""

    intake_seconds: float
    release: Callable[[], Awaitable[Began]]
    settled: Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Floor:
    """Our FCM channel in a loop. The concurrency is that of activities/bulk_delivery.py."""

    name = "floor"
    processes: int = 2
    concurrency: int = 64

    def __str__(self) -> str:
        return f"{self.processes} processes, {self.concurrency} requests at once each"

    @asynccontextmanager
    async def ready(self, place: Place) -> AsyncIterator[Contender]:
        credentials = load.service_account(place.folder, place.sink_url)
        async with AsyncExitStack() as running:
            programs = []
            bounds = [place.pushes * number // self.processes for number in range(self.processes + 1)]
            for number in range(self.processes):
                command = [sys.executable, "-m", "bench.broadcast.floor"]
                log = place.folder / f"floor-{number}.log"
                started = await running.enter_async_context(program("floor", command, log, listens=True, cwd=ROOT))
                started.say(
                    json.dumps(
                        {
                            "credentials": str(credentials),
                            "url": place.sink_url,
                            "first": bounds[number],
                            "last": bounds[number + 1],
                            "concurrency": self.concurrency,
                        }
                    )
                )
                programs.append(started)
            for each in programs:
                await each.line(READY_SECONDS)

            async def settled() -> bool:
                codes = [json.loads(await each.line(READY_SECONDS)) for each in programs]
                if sum(each.get("200", 0) for each in codes) != place.pushes:
                    raise Failed(f"floor: not all were accepted: {codes}")
                return True

            yield Contender(0.0, _say_go(programs), settled)


@dataclass(frozen=True)
class Holdfast:
    """The real stack; sending begins while the client reads the 202."""

    name = "holdfast"
    workers: int = 2

    def __str__(self) -> str:
        return f"bulk workers {self.workers}, embedded Temporal server, SQLite"

    @asynccontextmanager
    async def ready(self, place: Place) -> AsyncIterator[Contender]:
        settings = Settings(
            data_dir=place.folder / "data",
            api_port=free_port(),
            temporal_port=free_port(),
            temporal_ui_port=free_port(),
            log_format="json",
            bulk_processes=self.workers,
            fcm_credentials_file=load.service_account(place.folder, place.sink_url),
            fcm_api_url=place.sink_url,
        )
        async with AsyncExitStack() as running:
            await running.enter_async_context(stack(settings, logs=place.folder / "logs"))
            services = await running.enter_async_context(open_services(settings, role="bench"))
            _, secret = await services.api_keys.create("acme", Role.SUBMIT, "bench")
            client = await running.enter_async_context(
                httpx.AsyncClient(
                    base_url=settings.resolved_public_url(),
                    headers={"Authorization": f"Bearer {secret}"},
                    timeout=INTAKE_SECONDS,
                )
            )
            body = b"".join(load.ndjson(place.pushes))
            await quiet()
            contender = Contender(0.0, _never, _never)
            job = ""

            async def release() -> Began:
                nonlocal job
                asked = time.time()
                answer = await client.post(
                    "/v1/broadcasts", content=body, headers={"Content-Type": "application/x-ndjson"}
                )
                began = Began(time.time(), cpu_seconds())
                contender.intake_seconds = began.at - asked
                if answer.status_code != httpx.codes.ACCEPTED:
                    raise Failed(f"holdfast: {answer.status_code} {answer.text[:500]}")
                accepted = answer.json()
                if accepted["recipients"] != place.pushes:
                    raise Failed(f"holdfast: {accepted}")
                job = accepted["job_id"]
                return began

            async def settled() -> bool:
                progress = (await client.get(f"/v1/broadcasts/{job}")).raise_for_status().json()
                if progress["state"] in {"failed", "cancelled", "parked"}:
                    raise Failed(f"holdfast: {progress}")
                return bool(progress["state"] == "done")

            contender.release, contender.settled = release, settled
            yield contender


@dataclass(frozen=True)
class Bullmq:
    """Jobs added beforehand with addBulk; three attempts, exponential back-off, removed when complete.

    The fastest of the sweep (`--tune bullmq`), on two cores: a second worker takes the core that Redis and the sink
    need and costs a fifth more CPU for the same rate. undici's `request` on a Pool takes less than half of the CPU of
    its `fetch`, with which BullMQ sends 5,100 a second instead of 12,800.
    """

    name = "bullmq"
    workers: int = 1
    concurrency: int = 200
    client: str = "request"

    def __str__(self) -> str:
        return f"workers {self.workers}, concurrency {self.concurrency} each, undici {self.client}"

    @asynccontextmanager
    async def ready(self, place: Place) -> AsyncIterator[Contender]:
        async with AsyncExitStack() as running:
            redis = await running.enter_async_context(_redis(place.folder))
            order = _order(place) | {
                "redis": redis.port,
                "url": place.sink_url,
                "project": load.PROJECT,
                "connections": self.concurrency,
                "concurrency": self.concurrency,
                "client": self.client,
                "expiresAt": int(time.time()) + load.TTL_SECONDS,
            }
            intake = await _produce(["node", "producer.mjs", json.dumps(order)], place, installed.BULLMQ, {})
            programs = []
            for number in range(self.workers):
                command = ["node", "worker.mjs", json.dumps(order)]
                log = place.folder / f"bullmq-{number}.log"
                programs.append(
                    await running.enter_async_context(
                        program("bullmq", command, log, listens=True, cwd=installed.BULLMQ)
                    )
                )
            for each in programs:
                await each.line(READY_SECONDS)

            async def settled() -> bool:
                left = ("LLEN bull:push:wait", "LLEN bull:push:active", "ZCARD bull:push:delayed")
                return await redis.all_zero(*left)

            yield Contender(intake, _say_go(programs), settled)


@dataclass(frozen=True)
class Celery:
    """Tasks sent beforehand; acks_late, three attempts, exponential back-off, no result backend.

    The fastest of the sweep (`--tune celery`), on two cores: the main process of a worker, which feeds its children,
    is the busiest, so two of them do a tenth more than one. Threads come close with a wider spread. The gevent pool is
    left out: with Celery 5.7.0, redis-py 8.1.0 and acks_late it lost its connection to Redis and 2 of 500 tasks stood.
    """

    name = "celery"
    pool: str = "prefork"
    workers: int = 2
    concurrency: int = 4
    prefetch: int = 4

    def __str__(self) -> str:
        return f"workers {self.workers}, {self.pool} {self.concurrency} each, prefetch multiplier {self.prefetch}"

    @asynccontextmanager
    async def ready(self, place: Place) -> AsyncIterator[Contender]:
        python = str(installed.CELERY / "bin" / "python")
        async with AsyncExitStack() as running:
            redis = await running.enter_async_context(_redis(place.folder))
            env = {
                "BENCH_REDIS": f"redis://127.0.0.1:{redis.port}/0",
                "BENCH_URL": place.sink_url,
                "BENCH_PROJECT": load.PROJECT,
                "BENCH_EXPIRES_AT": str(int(time.time()) + load.TTL_SECONDS),
                "BENCH_CONNECTIONS": "1" if self.pool == "prefork" else str(self.concurrency),
                "BENCH_PREFETCH": str(self.prefetch),
            }
            where = installed.CELERY_APP
            intake = await _produce([python, "producer.py", json.dumps(_order(place))], place, where, env)
            for number in range(self.workers):
                command = [python, "-m", "celery", "-A", "push_app", "worker", "-Q", "idle", "-l", "warning"]
                command += ["-P", self.pool, "-c", str(self.concurrency), "-n", f"bench{number}@localhost"]
                command += ["--without-gossip", "--without-mingle"]
                log = place.folder / f"celery-{number}.log"
                # The leash is a module of ours, and PYTHONPATH is how it is found from the application's folder.
                paths = {"PYTHONPATH": str(ROOT)}
                await running.enter_async_context(program("celery", command, log, env=env | paths, cwd=where))
            release = await running.enter_async_context(
                program(
                    "release",
                    [python, "release.py", str(self.workers)],
                    place.folder / "release.log",
                    env=env,
                    cwd=where,
                    listens=True,
                )
            )
            await release.line(READY_SECONDS)
            await quiet()

            async def settled() -> bool:
                return await redis.all_zero("LLEN push", "HLEN unacked")

            yield Contender(intake, _say_go([release]), settled)


@dataclass
class _Redis:
    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, command: str) -> bytes:
        """An answer of one line."""
        self.writer.write(f"{command}\r\n".encode())
        async with asyncio.timeout(READY_SECONDS):
            return (await self.reader.readline()).strip()

    async def all_zero(self, *commands: str) -> bool:
        return all([await self.ask(command) == b":0" for command in commands])


@asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[_Redis]:
    """Append-only file, fsync every second; no snapshots besides, which would only cost it CPU."""
    port = free_port()
    data = folder / "redis"
    data.mkdir()
    options = {"port": port, "bind": "127.0.0.1", "dir": data, "appendonly": "yes", "appendfsync": "everysec"}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = ["redis-server", *words, "--save", ""]
    async with program("redis", command, folder / "redis.log") as started:
        until = time.monotonic() + READY_SECONDS
        while True:
            started.check()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                if time.monotonic() > until:
                    raise Failed(f"redis does not listen:\n{started.tail()}") from None
                await asyncio.sleep(0.05)
            else:
                break
        yield _Redis(port, reader, writer)
        writer.close()


def _order(place: Place) -> dict[str, object]:
    return {
        "tokens": place.pushes,
        "tokenCharacters": load.TOKEN_CHARACTERS,
        "title": load.SUBJECT,
        "body": load.TEXT,
    }


async def _produce(command: list[str], place: Place, cwd: Path, env: dict[str, str]) -> float:
    """Run a producer; how long it took."""
    began = time.time()
    async with program("producer", command, place.folder / "producer.log", cwd=cwd, env=env, listens=True) as started:
        async with asyncio.timeout(INTAKE_SECONDS):
            code = await started.process.wait()
        if code:
            raise Failed(f"the producer ended with {code}:\n{started.tail()}")
    return time.time() - began


def _say_go(programs: list[Program]) -> Callable[[], Awaitable[Began]]:
    async def go() -> Began:
        began = Began(time.time(), cpu_seconds())
        for each in programs:
            each.say("go")
        return began

    return go


async def _never() -> Any:
    raise Failed("not released")
