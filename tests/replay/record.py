"""Records the histories that tests/replay replays: `make replay-fixtures`, on purpose, once per released shape.

A file that exists is never overwritten: running jobs of that shape may still be out there.
"""

import asyncio
import json
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.adapters.channels.channel import Message, Outcome, Target, Verdict
from contracts import search_attributes
from contracts.catalogue import SYNC
from contracts.payloads.broadcast import PauseBroadcast
from contracts.payloads.file import FileRequest, FileResult
from contracts.payloads.job import JobRef, JobState, ParkedStep, Resolve
from contracts.payloads.notification import ChannelName, Route
from contracts.payloads.sync import SyncAllRequest
from runtime.converter import data_converter
from runtime.server import find_binary
from tests.workflows.broadcast_stage import BroadcastStage, broadcast_stage
from tests.workflows.file_doubles import FileDoubles
from tests.workflows.notification_stage import SENT, NotificationStage, notification_stage, until_parked
from tests.workflows.sync_stage import SyncStage, refused, sync_stage
from tests.workflows.test_daily_digest import DigestStage, digest_stage, eight
from workflows.broadcast import BroadcastWorkflow
from workflows.file import FileWorkflow
from workflows.sync_all import SyncAllWorkflow

HISTORIES = Path(__file__).parent / "histories"
Handle = WorkflowHandle[FileWorkflow, FileResult]


async def _to_the_end(handle: Handle, _doubles: FileDoubles) -> None:
    with suppress(WorkflowFailureError):
        await handle.result()


async def _until_parked(handle: Handle, _doubles: FileDoubles) -> None:
    while not await handle.query("parked", result_type=list[ParkedStep]):
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)  # so that the state's record is in the history too


async def _parked_then_retried(handle: Handle, doubles: FileDoubles) -> None:
    await _until_parked(handle, doubles)
    doubles.broken_page = None
    await handle.execute_update("resolve", Resolve(action="retry"))
    await handle.result()


async def _parked_then_discarded(handle: Handle, doubles: FileDoubles) -> None:
    await _until_parked(handle, doubles)
    await handle.execute_update("resolve", Resolve(action="discard", reason="not needed"))
    await _to_the_end(handle, doubles)


async def _in_the_middle(_handle: Handle, doubles: FileDoubles) -> None:
    doubles.hold.clear()
    while not doubles.at_once:
        await asyncio.sleep(0.05)


async def _cancelled(handle: Handle, doubles: FileDoubles) -> None:
    await _in_the_middle(handle, doubles)
    await handle.cancel()
    await _to_the_end(handle, doubles)


def _shapes() -> dict[str, tuple[FileDoubles, Callable[[Handle, FileDoubles], Awaitable[None]]]]:
    return {
        "done": (FileDoubles(pages=12), _to_the_end),
        "failed": (FileDoubles(pages=1, acceptable=False), _to_the_end),
        "parked": (FileDoubles(pages=3, broken_page=2), _until_parked),
        "retried": (FileDoubles(pages=3, broken_page=2), _parked_then_retried),
        "discarded": (FileDoubles(pages=3, broken_page=2), _parked_then_discarded),
        "cancelled": (FileDoubles(pages=3), _cancelled),
        "running": (FileDoubles(pages=3), _in_the_middle),
    }


async def _record(client: Client, path: Path, doubles: FileDoubles, play: Callable[..., Awaitable[None]]) -> None:
    queue = f"record-{path.stem}"
    async with Worker(client, task_queue=queue, workflows=[FileWorkflow], activities=doubles.all):  # type: ignore[arg-type]
        request = FileRequest(job=JobRef(job_id=uuid.uuid4(), tenant="acme"), content_id="c1")
        handle = await client.start_workflow(
            FileWorkflow.run, request, id=f"file:acme:{path.stem}:v1", task_queue=queue
        )
        await play(handle, doubles)
        history = await handle.fetch_history()
        doubles.hold.set()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_impersonal(json.loads(history.to_json())), indent=1))
    print(f"{path}: {len(history.events)} events")


def _impersonal(value: Any) -> Any:
    """Without what says on which machine it was recorded; replay does not read it."""
    if isinstance(value, list):
        return [_impersonal(each) for each in value]
    if isinstance(value, dict):
        kept = {key: _impersonal(each) for key, each in value.items() if key != "stackTrace"}
        return kept | {"identity": "recorder"} if "identity" in kept else kept
    return value


LOST = Outcome(Verdict.MAYBE_SENT, "reply_lost")
BUSY = Outcome(Verdict.RETRY, "429", retry_after=timedelta(seconds=2), scope="email")
DEAD = Outcome(Verdict.DROP_TARGET, "UNREGISTERED")
BROKEN = Outcome(Verdict.FIX_OURS, "5.6.0", "content rejected")
OUTAGE = Outcome(Verdict.RETRY, "connection", scope="email")
NOTIFICATIONS = (
    *("sent", "fallback", "waited", "digest", "merged", "alone", "expired", "parked", "discarded", "quiet"),
    *("continued", "after_continued"),
)


async def _notification(env: WorkflowEnvironment, stage: NotificationStage, shape: str) -> WorkflowHistory:
    """Play one shape; its history."""
    email, fcm = stage.channels[ChannelName.EMAIL], stage.channels[ChannelName.FCM]
    now = datetime.now(UTC)
    quiet = (f"{now - timedelta(hours=1):%H:%M}", f"{now + timedelta(hours=2):%H:%M}")
    both = ((ChannelName.FCM, "phone"), (ChannelName.EMAIL, "ada@example.com"))
    waits = shape in {"digest", "merged", "alone", "expired", "quiet"}
    await stage.person(reachable=both, quiet=quiet if waits else None, zone="UTC")
    fcm.script = [DEAD] if shape == "fallback" else [SENT]
    scripts: dict[str, list[Outcome | BaseException]] = {
        "waited": [BUSY, LOST, SENT],
        "parked": [BROKEN],
        "discarded": [BROKEN],
        "alone": [BROKEN, SENT],
        "continued": [*[OUTAGE] * 12, SENT],
        "after_continued": [*[OUTAGE] * 12, SENT],
    }
    email.script = scripts.get(shape, [SENT])
    routes = (Route.PUSH, Route.EMAIL) if shape == "fallback" else (Route.EMAIL,)
    other = None
    if shape in {"digest", "merged", "alone"}:
        until = (now + timedelta(hours=2)).replace(second=0, microsecond=0)
        other = await stage.waiting(until, subject="Other")
    lives = timedelta(minutes=30) if shape == "expired" else timedelta(hours=24)
    if shape == "quiet":
        with env.with_time_skipping_disabled():
            handle = await stage.submit(routes=routes, lives=lives)
        while len((await handle.fetch_history()).events) < 6:  # up to the timer
            await asyncio.sleep(0.1)
        return await handle.fetch_history()
    if shape in {"parked", "discarded"}:
        with env.with_time_skipping_disabled():
            handle = await stage.submit(routes=routes, lives=lives)
        await until_parked(handle)
        if shape == "discarded":
            await handle.execute_update("resolve", Resolve(action="discard", reason="not needed"))
            with suppress(WorkflowFailureError):
                await handle.result()
        else:
            await asyncio.sleep(1)
        return await handle.fetch_history()
    handle = await stage.submit(routes=routes, lives=lives)
    with suppress(WorkflowFailureError):  # the carrier of `alone` is not resolved by anybody
        await handle.result()
    if shape in {"merged", "alone"} and other is not None:
        handle = await stage.start(other)
        await handle.result()
    if shape == "continued":
        handle = env.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    return await handle.fetch_history()


SYNCS = ("done", "throttled", "frozen", "partly_failed", "cancelled", "continued")
BROADCASTS = ("done", "resumed", "parked", "cancelled")
DIGESTS = ("sent", "nothing")


async def _broadcast(env: WorkflowEnvironment, stage: BroadcastStage, shape: str) -> WorkflowHistory:
    """Play one shape; its history."""
    go = asyncio.Event()
    send = stage.fcm.send

    async def held(target: Target, message: Message, *, now: datetime) -> Outcome:
        await go.wait()
        return await send(target, message, now=now)

    if shape in {"resumed", "cancelled"}:
        stage.fcm.send = held  # type: ignore[method-assign]
    if shape == "done":
        stage.fcm.by_address["phone-5"] = [BROKEN]  # becomes a job
    if shape == "parked":
        stage.fcm.script = [BROKEN]
    new = await stage.store(await stage.phones(2_100 if shape == "resumed" else 600))  # four chunks run at once
    with env.with_time_skipping_disabled():
        handle = await stage.start(new)
        if shape == "parked":
            await stage.job_until(new.broadcast_id, JobState.PARKED)
            await asyncio.sleep(1)
            return await handle.fetch_history()
        await asyncio.sleep(1)
        if shape == "resumed":
            await handle.execute_update(BroadcastWorkflow.pause, PauseBroadcast(reason="wrong text?"))
            go.set()
            while (found := await stage.broadcasts.get("acme", new.broadcast_id)) is None or found.paused is None:
                await asyncio.sleep(0.1)
            await handle.execute_update(BroadcastWorkflow.resume)
        if shape == "cancelled":
            await handle.cancel()
            await asyncio.sleep(2.5)  # until a heartbeat says so
            go.set()
        with suppress(WorkflowFailureError):
            await handle.result()
        first = env.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
        return await first.fetch_history()


async def _daily_digest(stage: DigestStage, shape: str) -> WorkflowHistory:
    """A run of the daily digest; its history."""
    at = eight(datetime.now(UTC).date() + timedelta(days=7))
    if shape == "sent":
        await stage.person("acme")
        await stage.event("acme", "First", at - timedelta(hours=3))
    await stage.run(at)
    async for each in stage.client.list_workflows(f"TaskQueue = '{stage.queue}' AND WorkflowType = 'daily_digest'"):
        return await stage.client.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
    raise AssertionError("it ran")


async def _sync(stage: SyncStage, shape: str) -> WorkflowHistory:
    """A sync of one connection; the history of its first run."""
    stage.vendor.add("a", *(f"a{number:03}" for number in range(60 if shape == "continued" else 3)))
    stage.vendor.add("b", "b1")
    to = await stage.connect()
    circle = [httpx.Response(200, json={"rows": [{"id": each}], "next": "x"}) for each in "ab"]
    scripts: dict[str, list[httpx.Response | Exception | asyncio.Event | None]] = {
        "throttled": [None, refused(429, Retry_After="600"), None, refused(503)],
        "frozen": [None, refused(401)],
        "partly_failed": [*circle],
        "cancelled": [None, refused(429, Retry_After="600")],
    }
    stage.vendor.next_answers = scripts.get(shape, [])
    handle = await stage.start(to)
    if shape == "cancelled":
        while not await handle.query("waiting"):
            await asyncio.sleep(0.01)
        await handle.cancel()
    with suppress(WorkflowFailureError):
        await handle.result()
    first = stage.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    return await first.fetch_history()


async def _sync_all(stage: SyncStage) -> WorkflowHistory:
    """All connections in three slices."""
    stage.vendor.add("a", "a1")
    for number in range(3):
        await stage.connect(f"account {number}")
    handle = await stage.client.start_workflow(
        SyncAllWorkflow.run,
        SyncAllRequest(slices=3),
        id=f"sync-all-{stage.provider}",
        task_queue=SYNC.queue,
    )
    await handle.result()
    return await handle.fetch_history()


async def _syncs(env: WorkflowEnvironment) -> None:
    for job_type, shapes in (("sync", SYNCS), ("sync_all", ("done",))):
        for shape in shapes:
            path = HISTORIES / job_type / f"{shape}.json"
            if path.exists():
                print(f"{path}: kept")
                continue
            with tempfile.TemporaryDirectory() as folder:
                async with sync_stage(env.client, Path(folder)) as stage:
                    history = await (_sync(stage, shape) if job_type == "sync" else _sync_all(stage))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_impersonal(json.loads(history.to_json())), indent=1))
            print(f"{path}: {len(history.events)} events")


async def _bulk(env: WorkflowEnvironment) -> None:
    for job_type, shapes in (("broadcast", BROADCASTS), ("daily_digest", DIGESTS)):
        for shape in shapes:
            path = HISTORIES / job_type / f"{shape}.json"
            if path.exists():
                print(f"{path}: kept")
                continue
            with tempfile.TemporaryDirectory() as folder:
                if job_type == "broadcast":
                    async with broadcast_stage(env.client, Path(folder)) as sending:
                        history = await _broadcast(env, sending, shape)
                else:
                    async with digest_stage(env.client, Path(folder)) as digesting:
                        history = await _daily_digest(digesting, shape)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_impersonal(json.loads(history.to_json())), indent=1))
            print(f"{path}: {len(history.events)} events")


async def record_notifications() -> None:
    async with await WorkflowEnvironment.start_time_skipping_v2(
        data_converter=data_converter(),
        dev_server_existing_path=find_binary(),
        dev_server_startup_timeout=timedelta(seconds=60),
        search_attributes=list(search_attributes.ALL),
        dev_server_extra_args=[
            *("--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"),
            *("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60"),
        ],
    ) as env:
        await _bulk(env)
        await _syncs(env)
        for shape in NOTIFICATIONS:
            path = HISTORIES / "notification" / f"{shape}.json"
            if path.exists():
                print(f"{path}: kept")
                continue
            with tempfile.TemporaryDirectory() as folder:
                async with notification_stage(env.client, Path(folder)) as stage:
                    history = await _notification(env, stage, shape)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_impersonal(json.loads(history.to_json())), indent=1))
            print(f"{path}: {len(history.events)} events")


async def main() -> None:
    await record_notifications()
    async with await WorkflowEnvironment.start_local(
        data_converter=data_converter(),
        dev_server_existing_path=find_binary(),
        dev_server_startup_timeout=timedelta(seconds=60),
        search_attributes=list(search_attributes.ALL),
    ) as env:
        for name, (doubles, play) in _shapes().items():
            path = HISTORIES / "file" / f"{name}.json"
            if path.exists():
                print(f"{path}: kept")
                continue
            await _record(env.client, path, doubles, play)
    await asyncio.sleep(0.5)  # https://github.com/temporalio/sdk-python/issues/300


if __name__ == "__main__":
    asyncio.run(main())
