"""`holdfast up` as a user starts and stops it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from runtime.ports import free_port


def environment(folder: Path) -> dict[str, str]:
    ports = {name: str(free_port()) for name in ("API_PORT", "TEMPORAL_PORT", "TEMPORAL_UI_PORT")}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HOLDFAST_", "TEMPORAL_"))}
    return kept | {f"HOLDFAST_{name}": value for name, value in ports.items()} | {"HOLDFAST_DATA_DIR": str(folder)}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[psutil.Popen, dict[str, str]]]:
    settings = environment(tmp_path)
    with (tmp_path / "up.log").open("wb") as log:
        process = psutil.Popen([sys.executable, "-m", "starter", "up"], env=settings, stdout=log, stderr=log)
    family: list[psutil.Process] = [process]
    try:
        deadline = time.monotonic() + 90
        while b"An API key" not in (tmp_path / "up.log").read_bytes():
            assert process.poll() is None, (tmp_path / "up.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "up.log").read_text()
            time.sleep(0.1)
        family += process.children(recursive=True)
        yield process, settings
    finally:
        for member in family:
            if member.is_running():
                member.kill()


def test_a_killed_supervisor_leaves_nothing_behind(up: tuple[psutil.Popen, dict[str, str]]) -> None:
    process, _ = up
    children = process.children(recursive=True)
    assert any("start-dev" in " ".join(child.cmdline()) for child in children)
    assert any("worker.py" in " ".join(child.cmdline()) for child in children)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=45)
    assert [" ".join(child.cmdline()) for child in alive] == []


def test_a_dead_child_is_started_again_and_sigterm_stops_all_with_code_0(
    up: tuple[psutil.Popen, dict[str, str]],
) -> None:
    process, settings = up
    url = f"http://127.0.0.1:{settings['HOLDFAST_API_PORT']}/readyz"
    children = process.children(recursive=True)
    api = next(
        child
        for child in children
        if child.cmdline()[-2:] == ["starter", "api"] and "leash" not in str(child.cmdline())
    )
    api.kill()
    api.wait(timeout=10)
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(url).status_code == 200:
                break
        except httpx.TransportError:
            assert time.monotonic() < deadline
        time.sleep(0.1)
    children = process.children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_taken_port_is_said_in_words(tmp_path: Path) -> None:
    import socket

    settings = environment(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(settings["HOLDFAST_TEMPORAL_PORT"])))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "starter", "up"],
            env=settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f"port {settings['HOLDFAST_TEMPORAL_PORT']} of 127.0.0.1 is taken" in said
    assert "HOLDFAST_TEMPORAL_PORT" in said
    assert "Traceback" not in said
