"""The CPU pool with real child processes."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from activities.adapters.files import UnacceptableFile
from runtime.cpu_pool import NICENESS, ChildDied, ChildTimedOut, CpuPool

MINUTE = timedelta(minutes=1)


def report_nice() -> int:
    return os.nice(0)


def mark_and_sleep(path: str, seconds: float) -> str:
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return path


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise UnacceptableFile("svg", "no SVG, please")


def double(number: int) -> int:
    return number * 2


@pytest.fixture
async def pool() -> AsyncIterator[CpuPool]:
    made = CpuPool(2)
    yield made
    made.close()


async def pid_in(path: Path) -> int:
    async with asyncio.timeout(30):
        while not path.exists() or not path.read_text():
            await asyncio.sleep(0.02)
    return int(path.read_text())


async def gone(pid: int) -> bool:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.02)
    return True


async def test_children_work_at_the_lowest_priority(pool: CpuPool) -> None:
    assert await pool.run("files", MINUTE, report_nice) == NICENESS


async def test_a_cancelled_task_is_killed_and_its_sibling_goes_on(pool: CpuPool, tmp_path: Path) -> None:
    one = asyncio.create_task(pool.run("files", MINUTE, mark_and_sleep, str(tmp_path / "one"), 60.0))
    two = asyncio.create_task(pool.run("files", MINUTE, mark_and_sleep, str(tmp_path / "two"), 3.0))
    victim, survivor = await pid_in(tmp_path / "one"), await pid_in(tmp_path / "two")
    assert victim != survivor
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert await gone(victim)
    assert await two == str(tmp_path / "two")
    assert await pool.run("files", MINUTE, double, 21) == 42  # a new child took the place


async def test_a_task_over_its_limit_is_killed_and_its_sibling_goes_on(pool: CpuPool, tmp_path: Path) -> None:
    sibling = asyncio.create_task(pool.run("files", MINUTE, mark_and_sleep, str(tmp_path / "two"), 4.0))
    await pid_in(tmp_path / "two")
    with pytest.raises(ChildTimedOut, match="mark_and_sleep took longer than 1 s"):
        await pool.run("files", timedelta(seconds=1), mark_and_sleep, str(tmp_path / "one"), 60.0)
    assert await gone(await pid_in(tmp_path / "one"))
    assert await sibling == str(tmp_path / "two")


async def test_a_child_that_dies_is_an_error_of_its_task_alone(pool: CpuPool) -> None:
    with pytest.raises(ChildDied, match="kill_myself: its process ended with exit code -9"):
        await pool.run("files", MINUTE, kill_myself)
    assert await pool.run("files", MINUTE, double, 4) == 8


async def test_errors_come_back_as_they_were(pool: CpuPool) -> None:
    with pytest.raises(UnacceptableFile, match="no SVG, please") as raised:
        await pool.run("files", MINUTE, refuse)
    assert raised.value.code == "svg"


async def test_a_free_child_goes_first_to_work_of_a_kind_that_has_none() -> None:
    pool = CpuPool(2)
    order: list[str] = []

    async def work(kind: str, name: str, seconds: float) -> None:
        await pool.run(kind, MINUTE, time.sleep, seconds)
        order.append(name)

    try:
        await asyncio.gather(pool.run("files", MINUTE, double, 1), pool.run("files", MINUTE, double, 1))
        files = [asyncio.create_task(work("files", f"file {number}", 0.3)) for number in range(6)]
        await asyncio.sleep(0)
        report = asyncio.create_task(work("reports", "report", 0.3))
        await asyncio.gather(*files, report)
    finally:
        pool.close()
    assert order.index("report") <= 3  # before the files that asked earlier


async def test_a_task_cancelled_while_it_waits_leaves_the_line() -> None:
    pool = CpuPool(1)
    try:
        running = asyncio.create_task(pool.run("files", MINUTE, time.sleep, 1.0))
        waiting = asyncio.create_task(pool.run("files", MINUTE, double, 1))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await running
        assert await pool.run("files", MINUTE, double, 5) == 10
    finally:
        pool.close()
