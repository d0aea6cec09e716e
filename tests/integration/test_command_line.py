"""`holdfast notify` where things are not as they should be: one line that says what to do, and no traceback."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from contracts.payloads.job import JobRef, JobState, RecordJob
from runtime.ports import free_port
from runtime.settings import Settings
from starter.notify_cli import _report
from starter.services import Services, open_services
from starter.supervisor import readiness_url
from store.ids import new_id
from store.jobs import NewJob
from store.migrate import migrate
from tests.integration.temporal_double import TemporalDouble

SEND = ("send", "--tenant", "acme", "--to", "ada@example.com")
WORDS = ("--subject", "s", "--text", "t")


@pytest_asyncio.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    settings = Settings(_env_file=None, data_dir=tmp_path, signing_key="k")
    async with open_services(settings, role="test") as opened:
        await migrate(opened.database)
        temporal: Any = TemporalDouble()
        yield replace(opened, temporal=temporal)


def notify(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return holdfast(folder, "notify", *words)


def holdfast(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line with a migrated store and no Temporal."""
    environment = {
        "PATH": "/usr/bin",
        "COLUMNS": "400",
        "HOLDFAST_DATA_DIR": str(folder),
        "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-m", "starter", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


async def test_while_temporal_is_away_a_message_is_stored_and_the_way_to_start_it_is_told(
    services: Services, tmp_path: Path
) -> None:
    alone = await asyncio.to_thread(notify, tmp_path, *SEND, *WORDS)
    assert (alone.returncode, "Traceback" in alone.stderr) == (1, False)
    assert "holdfast: Temporal does not answer (UNAVAILABLE), so the message is stored and not sent." in alone.stderr
    assert "with --idempotency-key it would have been the same" in alone.stderr
    for _ in range(2):
        keyed = await asyncio.to_thread(notify, tmp_path, *SEND, *WORDS, "--idempotency-key", "k")
        assert "Run the same command again: it starts that message." in keyed.stderr
    jobs, _ = await services.jobs.list("acme")
    assert [job.state for job in jobs] == [JobState.SUBMITTED] * 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--template", "[/x]"), 1, "there is no template '[/x]'"),
        ((*WORDS, "--expires", "P999999999D"), 1, "`expires` may be at most 7 days away"),
        ((*WORDS, "--expires", "3600"), 2, "expires: say a time with its time zone"),
        ((*WORDS, "--tenant", ""), 2, "a tenant is 1 to 64 letters"),
        ((*WORDS, "--tenant", "*"), 2, "a tenant is 1 to 64 letters"),
        ((*WORDS, "--tenant", "[/x]"), 2, "not '[/x]'"),
        ((*WORDS, "--to", "slack:[/x]"), 2, "recipient: a Slack address is the id of a channel or user"),
        (("--template", "welcome", "--data", '{"name": "\\u0000"}'), 2, "data.name contains a NUL character"),
    ],
)
async def test_what_cannot_be_sent_is_told_without_a_traceback(
    services: Services, tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    done = await asyncio.to_thread(notify, tmp_path, *SEND, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in " ".join(done.stderr.split())
    assert (await services.jobs.list(None))[0] == []


@pytest.mark.parametrize(("tenant", "code"), [("", 2), ("a/b", 2), ("acme", 0), ("*", 0)])
async def test_a_key_is_for_a_tenant_that_fits_into_ids_or_for_all(
    services: Services, tmp_path: Path, tenant: str, code: int
) -> None:
    done = await asyncio.to_thread(holdfast, tmp_path, "keys", "create", "--tenant", tenant)
    assert done.returncode == code, done.stderr
    assert len(await services.api_keys.list(tenant)) == (0 if code else 1)


async def test_waiting_ends_at_a_parked_job_with_the_command_that_resolves_it(
    services: Services, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    job_id, now = new_id(), services.clock.now()
    async with services.database.write() as connection:
        new = NewJob(job_id=job_id, tenant="acme", type="notification", workflow_id=f"notification:acme:{job_id}")
        job, _ = await services.jobs.submit(connection, new)
    ref = JobRef(job_id=job_id, tenant="acme")
    parked = RecordJob(
        job=ref,
        state=JobState.PARKED,
        first_run_id="r",
        started_at=now,
        at=now,
        cause="tls",
        error="email: [/x] no TLS",
    )
    await services.jobs.record(parked)
    assert await asyncio.wait_for(_report(services, job), 10) == 1
    told = capsys.readouterr().out
    assert "parked: email: [/x] no TLS; resolve it with" in told
    assert f"`holdfast jobs resolve {job_id} retry`" in told


def test_a_mandatory_template_is_previewed_without_an_unsubscribe_link(tmp_path: Path) -> None:
    assert "Unsubscribe" not in notify(tmp_path, "preview", "security_alert", "--form", "html").stdout
    assert "Unsubscribe" in notify(tmp_path, "preview", "welcome", "--form", "html").stdout


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/readyz"),
        ("0.0.0.0", "http://127.0.0.1:8000/readyz"),
        ("::", "http://127.0.0.1:8000/readyz"),
        ("::1", "http://[::1]:8000/readyz"),
        ("10.1.2.3", "http://10.1.2.3:8000/readyz"),
        ("localhost", "http://localhost:8000/readyz"),
    ],
)
def test_readiness_is_asked_of_this_machine_whatever_the_public_url(host: str, url: str) -> None:
    settings = Settings(_env_file=None, api_host=host, api_port=8000, public_url="https://jobs.acme.example")
    assert readiness_url(settings) == url
