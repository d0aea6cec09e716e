"""Activities with the file job's names and payloads, without files: for the workflow's own decisions."""

import asyncio

from temporalio import activity

from contracts.errors import FailureKind, failure
from contracts.payloads.file import (
    FileVerified,
    MakeThumbnails,
    PageRead,
    PublishText,
    ReadPage,
    TextPublished,
    ThumbnailsMade,
    VerifyFile,
)
from contracts.payloads.job import JobRecorded, RecordJob


class FileDoubles:
    """`broken_page` is refused for good until it is mended; `hold` keeps pages from ending."""

    def __init__(self, *, pages: int, broken_page: int | None = None, acceptable: bool = True) -> None:
        self.pages = pages
        self.broken_page = broken_page
        self.acceptable = acceptable
        self.hold = asyncio.Event()
        self.hold.set()
        self.calls: list[str] = []
        self.records: list[RecordJob] = []
        self.at_once = self.most_at_once = 0

    @activity.defn(name="job.record")
    async def record(self, order: RecordJob) -> JobRecorded:
        self.records.append(order)
        return JobRecorded(changed=True)

    @activity.defn(name="file.verify")
    async def verify(self, order: VerifyFile) -> FileVerified:
        self.calls.append("verify")
        if not self.acceptable:
            raise failure(
                FailureKind.INVALID_INPUT, "encrypted_pdf", "The PDF is encrypted; save it without a password."
            )
        return FileVerified(media_type="application/pdf", pages=self.pages, width=595, height=842)

    @activity.defn(name="file.make_thumbnails")
    async def make_thumbnails(self, order: MakeThumbnails) -> ThumbnailsMade:
        self.calls.append("make_thumbnails")
        return ThumbnailsMade(sizes_px=order.sizes_px)

    @activity.defn(name="file.read_page")
    async def read_page(self, order: ReadPage) -> PageRead:
        self.calls.append(f"page {order.page}")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.02)
            while not self.hold.is_set():
                activity.heartbeat()
                await asyncio.sleep(0.1)
        finally:
            self.at_once -= 1
        if order.page == self.broken_page:
            raise failure(FailureKind.REJECTED, "page_broken", "the page tree has a loop")
        source = "ocr" if order.page % 2 else "text_layer"
        return PageRead(page=order.page, words=10, confidence=0.9, source=source)

    @activity.defn(name="file.publish_text")
    async def publish_text(self, order: PublishText) -> TextPublished:
        self.calls.append("publish_text")
        return TextPublished(pages=order.pages, words=10 * order.pages, characters=70 * order.pages)

    @property
    def all(self) -> list[object]:
        return [self.record, self.verify, self.make_thumbnails, self.read_page, self.publish_text]
