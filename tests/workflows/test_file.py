"""The file workflow's order, fan-out and result."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from contracts.payloads.file import FileRequest, FileResult
from contracts.payloads.job import JobRef, JobState
from tests.workflows.file_doubles import FileDoubles
from workflows.file import PAGES_AT_ONCE, FileWorkflow, workflow_id

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def started(client: Client, doubles: FileDoubles) -> AsyncIterator[WorkflowHandle[FileWorkflow, FileResult]]:
    queue = f"files-{uuid.uuid4()}"
    request = FileRequest(job=JobRef(job_id=uuid.uuid4(), tenant="acme"), content_id="c1")
    async with Worker(client, task_queue=queue, workflows=[FileWorkflow], activities=doubles.all):  # type: ignore[arg-type]
        yield await client.start_workflow(
            FileWorkflow.run, request, id=workflow_id("acme", uuid.uuid4().hex, 1), task_queue=queue
        )


async def test_verifies_makes_thumbnails_reads_every_page_and_publishes(client: Client) -> None:
    doubles = FileDoubles(pages=20)
    async with started(client, doubles) as handle:
        result = await handle.result()
    assert doubles.calls[:2] == ["verify", "make_thumbnails"]
    assert sorted(doubles.calls[2:-1]) == sorted(f"page {number}" for number in range(1, 21))
    assert doubles.calls[-1] == "publish_text"
    assert doubles.most_at_once == PAGES_AT_ONCE
    assert result == FileResult(
        content_id="c1",
        media_type="application/pdf",
        pages=20,
        pages_ocr=10,
        words=200,
        characters=1400,
        thumbnails_px=(128, 512, 1024),
    )
    assert [record.state for record in doubles.records] == [JobState.DONE]
    assert doubles.records[0].result == result.model_dump(mode="json")


async def test_a_file_that_cannot_be_accepted_fails_in_words_and_goes_no_further(client: Client) -> None:
    doubles = FileDoubles(pages=1, acceptable=False)
    async with started(client, doubles) as handle:
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()
    assert isinstance(raised.value.cause, ApplicationError)
    assert raised.value.cause.type == "encrypted_pdf"
    assert doubles.calls == ["verify"]
    assert [(record.state, record.cause) for record in doubles.records] == [(JobState.FAILED, "encrypted_pdf")]


async def test_the_same_bytes_of_one_tenant_have_one_workflow_id() -> None:
    assert workflow_id("acme", "ab", 1) == "file:acme:ab:v1"
    assert workflow_id("acme", "ab", 1) != workflow_id("other", "ab", 1)
