"""`holdfast up`: the Temporal server, the worker and the API as children of one process.

A child that dies is started again. When this process ends, in whatever way, so do its children.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import structlog
from pydantic import SecretStr
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from contracts.catalogue import BROADCAST, FILE, NOTIFICATION, SYNC
from runtime.leash import leashed
from runtime.ports import check_free
from runtime.profile import external_service_configured
from runtime.server import EmbeddedServer, ServerOptions
from runtime.settings import Settings
from runtime.temporal import connect
from starter import simulated
from starter.bootstrap import bootstrap
from store.database import Database

log = structlog.get_logger(__name__)

RESTART_PAUSE = timedelta(seconds=1)  # before a dead child is started again
STOP_BEYOND_DRAIN = timedelta(seconds=25)
READY_WITHIN = timedelta(seconds=60)
WORKED = (NOTIFICATION.queue, BROADCAST.queue, FILE.queue, SYNC.queue)
BULK_NICE = 19  # bulk work takes what single notifications leave of the CPU


class NotReady(Exception):
    """The API did not become ready; the message says where the logs are."""


@dataclass
class Child:
    """A program of ours that is kept running. Its output goes to `log_file`, or to ours."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log_file: Path | None
    process: asyncio.subprocess.Process | None = field(default=None)

    async def start(self) -> None:
        """Start it once."""
        output = self.log_file.open("ab") if self.log_file else None
        try:
            self.process = await asyncio.create_subprocess_exec(
                *leashed(self.command),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    def last_lines(self, lines: int = 15) -> str:
        """Of its log."""
        if self.log_file is None:
            return "see the lines above"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    async def keep_running(self) -> None:
        """Start it again whenever it ends."""
        while True:
            if self.process is None:
                await self.start()
            assert self.process is not None
            code = await self.process.wait()
            log.warning("child.ended", child=self.name, exit_code=code, log=str(self.log_file or "above"))
            self.process = None
            await asyncio.sleep(RESTART_PAUSE.total_seconds())

    async def stop(self, within: timedelta) -> None:
        """SIGTERM, wait, SIGKILL."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self.process.wait()
        except TimeoutError:
            log.warning("child.killed", child=self.name)
            self.process.kill()
            await self.process.wait()


@dataclass
class Stack:
    """What runs."""

    settings: Settings
    worker: Child
    bulk_workers: list[Child]
    api: Child
    simulator: Child | None
    server: EmbeddedServer | None


def environment(settings: Settings) -> dict[str, str]:
    """The settings as the children read them."""
    values: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            values[name] = value.get_secret_value()
        elif isinstance(value, tuple | dict):
            values[name] = json.dumps(value)
        elif value is not None:
            values[name] = str(value)
    return {f"HOLDFAST_{name.upper()}": value for name, value in values.items()}


@asynccontextmanager
async def stack(settings: Settings, *, logs: Path | None = None) -> AsyncIterator[Stack]:
    """Start everything, wait until it is ready, and stop it in order at the end of the block.

    Args:
        settings: for all of them.
        logs: a folder for the children's output; without it they share ours.

    Raises:
        ServerError: the embedded server cannot run.
        PortInUse: a port is taken.
        NotReady: the API did not answer within a minute.
    """
    check_free(settings.api_port, "HOLDFAST_API_PORT")
    if logs:
        logs.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as running:
        server = None
        if not external_service_configured():
            options = ServerOptions(settings.data_dir, settings.temporal_port, settings.temporal_ui_port)
            server = await running.enter_async_context(EmbeddedServer(options))
        database = Database.open(settings.resolved_database_url(), settings.resolved_ledger_url())
        try:
            done = await bootstrap(await connect(settings, role="bootstrap"), database, settings)
        finally:
            await database.close()
        for line in done.lines():
            log.info("bootstrap.done", part=line)
        simulator = None
        if settings.simulator:
            settings, simulator = await _simulate(settings, logs, running)
        worker_file = Path(__file__).parent.parent / "worker.py"
        inherited = environment(settings)
        work = [sys.executable, str(worker_file)]
        bulk = [*work, "--queue", BROADCAST.queue, "--nice", str(BULK_NICE)]
        commands = {
            "worker": [*work, "--without", BROADCAST.queue],
            **{f"bulk-worker-{number + 1}": bulk for number in range(settings.bulk_processes)},
            "api": [sys.executable, "-m", "starter", "api"],
        }
        children = [
            Child(name, command, inherited, logs / f"{name}.log" if logs else None)
            for name, command in commands.items()
        ]
        for child in children:
            await child.start()
        keepers: list[asyncio.Task[None]] = []
        try:
            await _ready(settings, children)
            keepers = [asyncio.create_task(child.keep_running()) for child in children]
            if simulator is not None:
                keepers.append(asyncio.create_task(simulator.keep_running()))
            yield Stack(
                settings,
                worker=children[0],
                bulk_workers=children[1:-1],
                api=children[-1],
                simulator=simulator,
                server=server,
            )
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            within = timedelta(seconds=settings.drain_seconds) + STOP_BEYOND_DRAIN
            await asyncio.gather(*(child.stop(within) for child in children))


async def _simulate(settings: Settings, logs: Path | None, running: AsyncExitStack) -> tuple[Settings, Child]:
    """Start the simulator, which ends after everything that sends to it."""
    check_free(settings.simulator_smtp_port, "HOLDFAST_SIMULATOR_SMTP_PORT")
    check_free(settings.simulator_http_port, "HOLDFAST_SIMULATOR_HTTP_PORT")
    check_free(settings.simulator_apns_port, "HOLDFAST_SIMULATOR_APNS_PORT")
    child = Child("simulator", simulated.command(settings), {}, logs / "simulator.log" if logs else None)
    await child.start()
    running.push_async_callback(child.stop, STOP_BEYOND_DRAIN)
    try:
        await simulated.until_ready(settings)
    except simulated.SimulatorNotReady as error:
        msg = f"{error}:\n{child.last_lines()}"
        raise NotReady(msg) from error
    return simulated.with_simulator(settings), child


def readiness_url(settings: Settings) -> str:
    """Of the API on this machine; its public URL may be a proxy that is not there yet, or that only others reach."""
    host = settings.api_host
    try:
        address = ip_address(host)
    except ValueError:  # a name
        return f"http://{host}:{settings.api_port}/readyz"
    if address.is_unspecified:
        host = "127.0.0.1"
    elif address.version == 6:  # noqa: PLR2004 - of the protocol
        host = f"[{host}]"
    return f"http://{host}:{settings.api_port}/readyz"


async def _ready(settings: Settings, children: Sequence[Child]) -> None:
    """Until the API is ready and workers poll every queue."""
    temporal = await connect(settings, role="supervisor")
    url = readiness_url(settings)
    answer = "no answer"
    async with httpx.AsyncClient() as client:
        for _ in range(round(READY_WITHIN.total_seconds() / 0.2)):
            for child in children:
                if child.process is not None and child.process.returncode is not None:
                    msg = f"the {child.name} ended with exit code {child.process.returncode}:\n{child.last_lines()}"
                    raise NotReady(msg)
            try:
                response = await client.get(url)
            except httpx.TransportError as error:
                answer = f"{url}: {error}"
            else:
                answer = f"{url}: {response.text}"
                if response.is_success and await _polled(temporal, *WORKED):
                    return
            await asyncio.sleep(0.2)
    msg = f"not ready within {READY_WITHIN.seconds} s ({answer})"
    raise NotReady(msg)


async def _polled(client: Client, *queues: str) -> bool:
    for queue in queues:
        described = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
            )
        )
        if not described.pollers:
            return False
    return True
