"""Records the histories that tests/replay replays: `make replay-fixtures`, on purpose, once per released shape.

A file that exists is never overwritten: running jobs of that shape may still be out there.
"""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from contracts import search_attributes
from contracts.payloads.file import FileRequest, FileResult
from contracts.payloads.job import JobRef, ParkedStep, Resolve
from runtime.converter import data_converter
from runtime.server import find_binary
from tests.workflows.file_doubles import FileDoubles
from workflows.file import FileWorkflow

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


async def main() -> None:
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
