"""The file job's steps.

Each is safe to repeat: rows and blobs are keyed by content, and a page that is stored is not read again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from temporalio import activity

from activities.adapters.files import Inspected, Limits, PageText, Thumbnail, UnacceptableFile
from activities.heartbeat import heartbeating
from activities.scratch import Scratch
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
from runtime.cpu_pool import CpuPool
from store.blobs import Blobs
from store.files import Content, Files, StoredPage, StoredThumbnail

log = structlog.get_logger(__name__)

WORK_CLASS = "files"
LIMITS = Limits(
    max_pixels=100_000_000,  # per page; a 100-megapixel RGB image takes 300 MB decoded
    max_pages=500,  # a page is three history events, and Temporal suggests continue-as-new at 4,096
)
INSPECT_LIMIT = timedelta(seconds=60)
THUMBNAIL_LIMIT = timedelta(seconds=60)
PAGE_LIMIT = timedelta(seconds=120)  # OCR of a dense page takes about 5 s on one slow core


@dataclass(frozen=True, slots=True)
class FileTools:
    """Module-level functions that run in a child process; `worker.py` takes them from activities/adapters."""

    inspect: Callable[[str, str, Limits], Inspected]
    thumbnails: Callable[[str, str, tuple[int, ...]], tuple[Thumbnail, ...]]
    read_page: Callable[[str, str, int], PageText]


class FileActivities:
    """`async def` throughout: decoding and reading run in the CPU pool's children."""

    def __init__(self, *, files: Files, blobs: Blobs, scratch: Scratch, pool: CpuPool, tools: FileTools) -> None:
        self._files = files
        self._blobs = blobs
        self._scratch = scratch
        self._pool = pool
        self._tools = tools

    @activity.defn(name="file.verify")
    async def verify(self, order: VerifyFile) -> FileVerified:
        """Judge the bytes.

        Raises:
            ApplicationError: INVALID_INPUT with the code of activities/adapters/inspection.py.
        """
        content = await self._content(order.content_id)
        name = await self._files.filename(order.content_id)
        async with heartbeating(), self._scratch.copy(content.blob_key) as path:
            try:
                seen = await self._pool.run(WORK_CLASS, INSPECT_LIMIT, self._tools.inspect, str(path), name, LIMITS)
            except UnacceptableFile as error:
                raise failure(FailureKind.INVALID_INPUT, error.code, str(error)) from error
        await self._files.verified(
            order.job.job_id,
            order.content_id,
            media_type=seen.media_type,
            pages=seen.pages,
            width=seen.width,
            height=seen.height,
        )
        log.info("file.verified", media_type=seen.media_type, pages=seen.pages)
        return FileVerified(media_type=seen.media_type, pages=seen.pages, width=seen.width, height=seen.height)

    @activity.defn(name="file.make_thumbnails")
    async def make_thumbnails(self, order: MakeThumbnails) -> ThumbnailsMade:
        """Make and store every size; existing ones are replaced by equal ones."""
        content = await self._content(order.content_id)
        async with heartbeating():
            async with self._scratch.copy(content.blob_key) as path:
                try:
                    made = await self._pool.run(
                        WORK_CLASS, THUMBNAIL_LIMIT, self._tools.thumbnails, str(path), order.media_type, order.sizes_px
                    )
                except UnacceptableFile as error:
                    raise failure(FailureKind.INVALID_INPUT, error.code, str(error)) from error
            rows = [
                StoredThumbnail(
                    content_id=content.content_id,
                    size_px=thumbnail.size,
                    width=thumbnail.width,
                    height=thumbnail.height,
                    blob_key=f"{content.derived_prefix}/{thumbnail.size}.webp",
                    size_bytes=len(thumbnail.webp),
                )
                for thumbnail in made
            ]
            for row, thumbnail in zip(rows, made, strict=True):
                await self._blobs.put(row.blob_key, thumbnail.webp)
            await self._files.save_thumbnails(rows)
        return ThumbnailsMade(sizes_px=tuple(row.size_px for row in rows))

    @activity.defn(name="file.read_page")
    async def read_page(self, order: ReadPage) -> PageRead:
        """Read one page and store its text; a stored page is returned as it is."""
        stored = await self._files.page(order.content_id, order.page)
        if stored is None:
            content = await self._content(order.content_id)
            async with heartbeating(), self._scratch.copy(content.blob_key) as path:
                try:
                    read = await self._pool.run(
                        WORK_CLASS, PAGE_LIMIT, self._tools.read_page, str(path), order.media_type, order.page
                    )
                except UnacceptableFile as error:
                    raise failure(FailureKind.INVALID_INPUT, error.code, str(error)) from error
            stored = _row(order.content_id, read)
            await self._files.save_page(order.job.job_id, stored)
        return PageRead(
            page=stored.page, words=len(stored.words), confidence=round(stored.confidence, 3), source=stored.source
        )

    @activity.defn(name="file.publish_text")
    async def publish_text(self, order: PublishText) -> TextPublished:
        """Make all pages searchable at once."""
        content = await self._content(order.content_id)
        async with heartbeating():
            pages, words, characters = await self._files.publish(content.content_id, content.tenant)
        if pages != order.pages:
            msg = f"{pages} of {order.pages} pages are stored; retry the job, which reads the missing ones"
            raise failure(FailureKind.REJECTED, "pages_missing", msg)
        return TextPublished(pages=pages, words=words, characters=characters)

    async def _content(self, content_id: str) -> Content:
        content = await self._files.content(content_id)
        if content is None:
            msg = f"content {content_id} is not in the store: it was deleted, or this worker uses another database"
            raise failure(FailureKind.REJECTED, "content_missing", msg)
        return content


def _row(content_id: str, read: PageText) -> StoredPage:
    return StoredPage(
        content_id=content_id,
        page=read.page,
        width=read.width,
        height=read.height,
        source=read.source,
        text=read.text,
        confidence=read.confidence,
        words=tuple((word.text, word.x0, word.y0, word.x1, word.y1, round(word.confidence, 3)) for word in read.words),
    )
