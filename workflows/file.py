"""An uploaded file becomes thumbnails and searchable text.

Finished pages are never read again. The text becomes searchable all at once, or not at all.
"""

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.file import FileActivities
    from contracts.catalogue import FILE
    from contracts.payloads.file import (
        FileRequest,
        FileResult,
        FileVerified,
        MakeThumbnails,
        PageRead,
        PublishText,
        ReadPage,
        VerifyFile,
    )
    from workflows.step import Job

PAGES_AT_ONCE = 8  # of one file; the host's CPU pool bounds all files together


def workflow_id(tenant: str, sha256: str, pipeline_version: int) -> str:
    """The same bytes of one tenant are processed once."""
    return f"file:{tenant}:{sha256}:v{pipeline_version}"


@workflow.defn(name=FILE.name)
class FileWorkflow:
    """verify -> thumbnails -> OCR of every page -> searchable text."""

    @workflow.init
    def __init__(self, request: FileRequest) -> None:
        self._job = Job(FILE, request.job)

    @workflow.run
    async def run(self, request: FileRequest) -> FileResult:
        """Ends with what came out, or fails with what is wrong with the file."""
        return await self._job.run(self._process(request))

    async def _process(self, request: FileRequest) -> FileResult:
        job, content_id = request.job, request.content_id
        verified = await self._job.step(FileActivities.verify, VerifyFile(job=job, content_id=content_id))
        thumbnails = await self._job.step(
            FileActivities.make_thumbnails,
            MakeThumbnails(job=job, content_id=content_id, media_type=verified.media_type),
        )
        pages = await self._read_pages(request, verified)
        text = await self._job.step(
            FileActivities.publish_text, PublishText(job=job, content_id=content_id, pages=verified.pages)
        )
        return FileResult(
            content_id=content_id,
            media_type=verified.media_type,
            pages=verified.pages,
            pages_ocr=sum(page.source == "ocr" for page in pages),
            words=text.words,
            characters=text.characters,
            thumbnails_px=thumbnails.sizes_px,
        )

    async def _read_pages(self, request: FileRequest, verified: FileVerified) -> list[PageRead]:
        slots = asyncio.Semaphore(PAGES_AT_ONCE)
        return await asyncio.gather(
            *(
                self._job.step(
                    FileActivities.read_page,
                    ReadPage(
                        job=request.job, content_id=request.content_id, media_type=verified.media_type, page=number
                    ),
                    key=f"page {number}",
                    slots=slots,
                )
                for number in range(1, verified.pages + 1)
            )
        )
