"""A worker is killed, or told to stop, in the middle of ten pages."""

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from temporalio.client import WorkflowHistory

from starter.demo.samples import scanned_pdf
from tests.drills import long
from tests.integration.stack import Running, closed, running

PAGES = 10


async def submit(up: Running, folder: Path) -> tuple[str, str, str]:
    """Job id, workflow id and content id of a scanned PDF of ten pages, once three of them are read."""
    sample = scanned_pdf(folder / "ten.pdf", pages=PAGES)
    async with await up.client() as client:
        answer = await client.post("/v1/files", files={"file": ("ten.pdf", sample.path.read_bytes())})
    accepted = answer.json()
    found = await up.services.files.get("acme", accepted["file_id"])
    assert found
    async with asyncio.timeout(120):
        while len(await up.services.files.pages(found[1].content_id)) < 3:
            await asyncio.sleep(0.05)
    workflow_id = f"file:acme:{found[1].sha256}:v1"
    return accepted["job_id"], workflow_id, found[1].content_id


def worker_family(up: Running) -> list[psutil.Process]:
    assert up.stack.worker.process
    return psutil.Process(up.stack.worker.process.pid).children(recursive=True)


def executions(history: WorkflowHistory) -> tuple[dict[int, int], set[int]]:
    """How often each page was scheduled, and which are completed."""
    scheduled: dict[int, int] = {}
    page_of: dict[int, int] = {}
    completed: set[int] = set()
    for event in history.events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            ordered = event.activity_task_scheduled_event_attributes
            if ordered.activity_type.name == "file.read_page":
                import json

                page = json.loads(ordered.input.payloads[0].data)["page"]
                page_of[event.event_id] = page
                scheduled[page] = scheduled.get(page, 0) + 1
        elif event.HasField("activity_task_completed_event_attributes"):
            done = event.activity_task_completed_event_attributes.scheduled_event_id
            if done in page_of:
                completed.add(page_of[done])
    return scheduled, completed


async def test_after_kill_9_the_job_goes_on_and_no_finished_page_is_read_again(tmp_path: Path) -> None:
    async with running(tmp_path / "run") as up:
        job_id, workflow_id, _content = await submit(up, tmp_path)
        family = worker_family(up)
        leader = next(member for member in family if "worker.py" in str(member.cmdline()))
        leader.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        handle = up.services.temporal.get_workflow_handle(workflow_id)
        _, finished = executions(await handle.fetch_history())
        assert 1 <= len(finished) < PAGES
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == [], "the pool's children must not outlive their worker"
        async with await up.client() as client:
            job = await asyncio.wait_for(closed(client, job_id), 120)
        scheduled, completed = executions(await handle.fetch_history())
        print(f"went on and ended {time.monotonic() - killed_at:.1f} s after the kill; {len(finished)} pages were done")
    assert job["state"] == "done"
    assert job["result"]["pages_ocr"] == PAGES
    assert completed == set(range(1, PAGES + 1))
    assert {page: scheduled[page] for page in finished} == dict.fromkeys(finished, 1)
    # What ran when it was killed is run again, once; what waited for a child counts as running.
    assert max(scheduled.values()) <= 2


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=long)])
async def test_a_stopped_worker_drains_with_code_0_and_burns_no_attempt(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path / "run", drain_seconds=1) as up:
        job_id, workflow_id, _content = await submit(up, tmp_path)
        process = up.stack.worker.process
        assert process
        os.kill(process.pid, number)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        async with await up.client() as client:
            job = await asyncio.wait_for(closed(client, job_id), 120)
        history = await up.services.temporal.get_workflow_handle(workflow_id).fetch_history()
    assert job["state"] == "done"
    assert job["result"]["pages"] == PAGES
    started = [
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert set(started) == {1}
