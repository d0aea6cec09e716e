"""Programs that the runner starts, and the CPU they use."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from runtime.leash import leashed

STOP_SECONDS = 15.0


class Failed(Exception):
    """A program ended or said nothing; the message has the end of its log."""


@dataclass
class Program:
    """Talks in lines over standard input and output; what it logs goes to a file."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def line(self, seconds: float) -> str:
        """The next one that it prints.

        Raises:
            Failed: none within `seconds`.
        """
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                said = await self.process.stdout.readline()
        except TimeoutError as late:
            raise Failed(f"{self.name} said nothing for {seconds:.0f} s:\n{self.tail()}") from late
        if not said:
            raise Failed(f"{self.name} ended:\n{self.tail()}")
        return said.decode().strip()

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def check(self) -> None:
        """Raise if it ended."""
        if self.process.returncode is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")

    async def stop(self) -> None:
        """Close its input, SIGTERM, SIGKILL."""
        if self.process.returncode is not None:
            return
        if self.process.stdin is not None:
            self.process.stdin.close()
        for ask in (self.process.terminate, self.process.kill):
            ask()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self.process.wait()
            except TimeoutError:
                continue
            return


@asynccontextmanager
async def program(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    listens: bool = False,
) -> AsyncIterator[Program]:
    """Runs in the block.

    Args:
        name: for messages.
        command: to run.
        log: what its standard error is appended to; its output too unless it `listens`.
        env: added to ours.
        cwd: its folder.
        listens: it reads standard input and ends with it. Others are kept on a leash.
    """
    words = [str(word) for word in command]
    file: IO[bytes]
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(words if listens else leashed(words)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if listens else file,
            stderr=file,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    started = Program(name, process, log)
    try:
        yield started
    finally:
        await started.stop()


def cpu_seconds() -> float:
    """User and system time of all programs that the runner has started, the ended ones too."""
    while True:
        before = _reaped()
        total = before
        try:
            for process in psutil.Process().children(recursive=True):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
        if _reaped() == before:  # else one ended meanwhile, and may be in neither sum
            return total


def _reaped() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def quiet(seconds: float = 60.0) -> None:
    """Wait until what was started has nothing to do, such as loading a model."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        before = cpu_seconds()
        await asyncio.sleep(1)
        if cpu_seconds() - before < 0.15:
            return
