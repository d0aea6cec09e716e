"""`holdfast broadcasts` and `holdfast audiences`, with a store and without Temporal: one line that says what to do."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from contracts.payloads.job import JobRef, JobState, RecordJob
from runtime.ports import free_port
from runtime.settings import Settings
from starter import broadcast_cli
from starter.broadcast_cli import _watch
from starter.services import Services, open_services
from store.migrate import migrate
from store.recipients import Recipient
from tests.integration.temporal_double import TemporalDouble
from tests.store.test_broadcasts import a_broadcast

SEND = ("broadcasts", "send", "--tenant", "acme", "--subject", "s", "--text", "t", "--channel", "push")


@pytest_asyncio.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    settings = Settings(_env_file=None, data_dir=tmp_path, signing_key="k")
    async with open_services(settings, role="test") as opened:
        await migrate(opened.database)
        temporal: Any = TemporalDouble()
        yield replace(opened, temporal=temporal)


async def holdfast(folder: Path, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit code, output and errors in one line each. Temporal is away."""
    environment = {
        "PATH": "/usr/bin",
        "COLUMNS": "400",
        "HOLDFAST_DATA_DIR": str(folder),
        "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-m", "starter", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, input=stdin, capture_output=True, timeout=60, check=False
    )
    told = [" ".join(each.decode().split()) for each in (done.stdout, done.stderr)]
    assert "Traceback" not in told[1]
    return done.returncode, told[0], told[1]


async def test_an_audience_is_saved_from_standard_input_used_listed_and_removed(
    services: Services, tmp_path: Path
) -> None:
    lines = b'"ada"\r\n17\r\n"ada"\r\n{"channel":"fcm","address":"t"}'
    code, told, _ = await holdfast(tmp_path, "audiences", "save", "vip", "--tenant", "acme", stdin=lines)
    assert (code, told.partition(" line 2 must be")[0]) == (
        0,
        "vip: 2 recipients duplicates: 1, on lines 3 bad lines: 1",
    )
    _, listed, _ = await holdfast(tmp_path, "audiences", "list", "--tenant", "acme")
    assert "│ vip │ 2 │" in listed
    for _ in range(2):
        code, _, error = await holdfast(tmp_path, *SEND, "--audience", "vip", "--idempotency-key", "k")
        assert (code, "Run the same command again: it starts that broadcast." in error) == (1, True)
    (job,), _ = await services.jobs.list("acme")
    assert job.state is JobState.SUBMITTED
    assert (await holdfast(tmp_path, "audiences", "remove", "vip", "--tenant", "acme"))[:2] == (0, "removed")
    assert (await holdfast(tmp_path, "audiences", "remove", "vip", "--tenant", "acme"))[0] == 1
    stored = await services.broadcasts.get("acme", job.job_id)
    assert stored is not None
    assert len(await services.recipients.between(stored.set_id, 1, 9)) == 2


async def test_a_file_is_numbered_from_its_first_line(services: Services, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'\xef\xbb\xbf"ada"\n\n"bob"')
    code, _, error = await holdfast(tmp_path, *SEND, "--file", str(tmp_path / "lines"))
    assert (code, "with --idempotency-key it would have been the same" in error) == (1, True)
    (job,), _ = await services.jobs.list("acme")
    stored = await services.broadcasts.get("acme", job.job_id)
    assert stored is not None
    assert await services.recipients.between(stored.set_id, 1, 9) == [
        Recipient(1, person="ada"),
        Recipient(3, person="bob"),
    ]
    _, listed, _ = await holdfast(tmp_path, "broadcasts", "list")
    assert f"│ {job.job_id} │ acme │ own text │ submitted │ 0 │ 2 │" in listed
    code, shown, _ = await holdfast(tmp_path, "broadcasts", "show", str(job.job_id))
    assert (code, shown.partition(" ┏")[0]) == (0, "submitted: 0 of 2")


@pytest.mark.parametrize(
    ("words", "stdin", "code", "told"),
    [
        ((*SEND,), b"", 1, "nothing was kept: no line names a recipient; the first problem: there is no line"),
        ((*SEND, "--strict"), b'"ada"\n17', 1, "nothing was kept: bad lines: 1, and strict takes none"),
        ((*SEND, "--file", "/no/file"), b"", 1, "/no/file cannot be read: No such file or directory"),
        ((*SEND, "--file", "-", "--audience", "vip"), b"", 2, "say either --file or --audience"),
        ((*SEND, "--audience", "vip"), b"", 1, "there is no audience 'vip': save one with PUT /v1/audiences/vip"),
        ((*SEND, "--audience", "V"), b"", 2, "audience: String should match pattern"),
        ((*SEND[:8],), b"", 2, "a message without a template needs `channels`"),
        ((*SEND, "--expires", "P9D"), b'"ada"', 1, "`expires` may be at most 7 days away"),
        (
            ("broadcasts", "show", str(UUID(int=1))),
            b"",
            1,
            "there is no broadcast 00000000-0000-0000-0000-000000000001",
        ),
        (("broadcasts", "pause", str(UUID(int=1)), "--reason", "x" * 501), b"", 2, "at most 500 characters"),
    ],
)
async def test_what_cannot_be_done_is_told_and_leaves_nothing(
    services: Services, tmp_path: Path, words: tuple[str, ...], stdin: bytes, code: int, told: str
) -> None:
    done = await holdfast(tmp_path, *words, stdin=stdin)
    assert (done[0], told in done[2]) == (code, True), done
    assert (await services.jobs.list(None))[0] == []
    async with services.database.read() as connection:
        found = await connection.exec_driver_sql("SELECT count(*) FROM recipient_sets")
        assert found.scalar() == 0


@pytest.mark.parametrize(
    ("state", "code", "told"),
    [
        (JobState.DONE, 0, "done: 2 of 3; 2 sent"),
        (JobState.CANCELLED, 1, "cancelled: 2 of 3; 2 sent"),
        (JobState.FAILED, 1, "failed: 2 of 3; 2 sent; [/x] broke"),
        (JobState.PARKED, 1, "paused: 2 of 3; 2 sent; because: [/x] broke"),
    ],
)
async def test_watching_ends_with_how_it_ended(
    services: Services,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    state: JobState,
    code: int,
    told: str,
) -> None:
    monkeypatch.setattr(broadcast_cli, "POLL_SECONDS", 0.01)
    made = await a_broadcast(services.database)
    job = await services.jobs.get("acme", made.broadcast_id)
    assert job is not None
    watching = asyncio.create_task(_watch(services, job))
    await asyncio.sleep(0.05)
    await services.broadcasts.record_chunk(made.broadcast_id, 1, {"sent": 2}, began=services.clock.now())
    now = services.clock.now()
    ref = JobRef(job_id=made.broadcast_id, tenant="acme")
    record = RecordJob(
        job=ref, state=state, first_run_id="r", started_at=now, at=now, cause="broken", error="[/x] broke"
    )
    await services.jobs.record(record)
    assert await asyncio.wait_for(watching, 10) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "submitted: 0 of 3"
    assert told in lines
    goes_on = f"`holdfast broadcasts resume {made.broadcast_id}` goes on"
    assert any(goes_on in line for line in lines) == (state is JobState.PARKED)
