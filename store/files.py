"""Files and their contents. The same bytes of one tenant are one content, however many files have them."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_micros, micros
from store.database import MAX_ROWS_PER_WRITE, Database, advisory_lock
from store.dialect import upsert
from store.jobs import Jobs
from store.search import words_of
from store.tables import contents, files, pages, thumbnails

PAUSE_S = 0.02  # between bulk writes, so that others get their turn
UNSTORABLE = {0: None} | dict.fromkeys(
    range(0xD800, 0xE000)
)  # PostgreSQL has no NUL, and half a surrogate pair is no text

Word = tuple[str, int, int, int, int, float]  # text, x0, y0, x1, y1 in pixels of the page, confidence


@dataclass(frozen=True, slots=True)
class Content:
    """What the bytes are; type, pages and size in pixels are None until verified. Searchable since `ready_at`."""

    content_id: str
    tenant: str
    sha256: str
    pipeline_version: int
    blob_key: str
    size_bytes: int
    media_type: str | None
    pages: int | None
    width: int | None
    height: int | None
    ready_at: datetime | None
    created_at: datetime

    @property
    def derived_prefix(self) -> str:
        """Where blobs made from the bytes go."""
        return f"{self.blob_key.rpartition('/')[0]}/v{self.pipeline_version}"


@dataclass(frozen=True, slots=True)
class File:
    """One upload. `job_id` is the job that processes its content, which an earlier upload may have started."""

    file_id: str
    tenant: str
    person: str | None
    content_id: str
    filename: str
    size_bytes: int
    job_id: UUID
    uploaded_at: datetime


@dataclass(frozen=True, slots=True)
class StoredThumbnail:
    """`size_px` is the longest side it was made for."""

    content_id: str
    size_px: int
    width: int
    height: int
    blob_key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredPage:
    """One page as it was read; `page` counts from 1, `source` is `text_layer` or `ocr`."""

    content_id: str
    page: int
    width: int
    height: int
    source: str
    text: str
    confidence: float
    words: tuple[Word, ...]


def _content(row: RowMapping) -> Content:
    ready = row["ready_at"]
    times = {"ready_at": None if ready is None else from_micros(ready), "created_at": from_micros(row["created_at"])}
    return Content(**({**row} | times))


def _file(row: RowMapping) -> File:
    return File(**({**row} | {"job_id": UUID(row["job_id"]), "uploaded_at": from_micros(row["uploaded_at"])}))


def _page(row: RowMapping) -> StoredPage:
    return StoredPage(**({**row} | {"words": tuple(tuple(word) for word in row["words"])}))


class Files:
    """Queries on files, contents, thumbnails and pages."""

    def __init__(self, database: Database, clock: Clock, jobs: Jobs) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs

    async def receive(
        self,
        connection: AsyncConnection,
        *,
        tenant: str,
        person: str | None,
        filename: str,
        size_bytes: int,
        sha256: str,
        blob_key: str,
        pipeline_version: int,
        job_id: UUID,
        file_id: str,
        content_id: str,
    ) -> tuple[File, Content]:
        """Add a file, and its content unless the tenant has these bytes already; in the caller's transaction."""
        now = micros(self._clock.now())
        row = {
            "content_id": content_id,
            "tenant": tenant,
            "sha256": sha256,
            "pipeline_version": pipeline_version,
            "blob_key": blob_key,
            "size_bytes": size_bytes,
            "created_at": now,
        }
        made = upsert(self._database.main.dialect)(contents).values(row)
        await connection.execute(made.on_conflict_do_nothing(index_elements=["tenant", "sha256", "pipeline_version"]))
        content = await self.find_content(tenant, sha256, pipeline_version, connection)
        assert content is not None, "inserted above, or there before"
        new = {
            "file_id": file_id,
            "tenant": tenant,
            "person": person,
            "content_id": content.content_id,
            "filename": filename,
            "size_bytes": size_bytes,
            "job_id": str(job_id),
            "uploaded_at": now,
        }
        made = await connection.execute(insert(files).values(new).returning(files))
        return _file(made.mappings().one()), content

    async def find_content(
        self, tenant: str, sha256: str, pipeline_version: int, connection: AsyncConnection | None = None
    ) -> Content | None:
        """The content of these bytes."""
        if connection is None:
            async with self._database.read() as own:
                return await self.find_content(tenant, sha256, pipeline_version, own)
        query = select(contents).where(
            contents.c.tenant == tenant,
            contents.c.sha256 == sha256,
            contents.c.pipeline_version == pipeline_version,
        )
        row = (await connection.execute(query)).mappings().first()
        return _content(row) if row else None

    async def content(self, content_id: str) -> Content | None:
        """The content by id."""
        async with self._database.read() as connection:
            query = select(contents).where(contents.c.content_id == content_id)
            row = (await connection.execute(query)).mappings().first()
        return _content(row) if row else None

    async def filename(self, content_id: str) -> str:
        """The name under which the content was uploaded last; empty if no file has it any more."""
        query = select(files.c.filename).where(files.c.content_id == content_id)
        query = query.order_by(files.c.uploaded_at.desc(), files.c.file_id.desc()).limit(1)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar() or ""

    async def get(
        self, tenant: str | None, file_id: str, connection: AsyncConnection | None = None
    ) -> tuple[File, Content] | None:
        """A file and its content, unless it is another tenant's; `tenant` None is any."""
        if connection is None:
            async with self._database.read() as own:
                return await self.get(tenant, file_id, own)
        query = select(files).where(files.c.file_id == file_id)
        if tenant is not None:
            query = query.where(files.c.tenant == tenant)
        row = (await connection.execute(query)).mappings().first()
        if row is None:
            return None
        content = select(contents).where(contents.c.content_id == row["content_id"])
        return _file(row), _content((await connection.execute(content)).mappings().one())

    async def references(self, content_id: str) -> int:
        """How many files have this content; at none its blobs may go."""
        query = select(func.count()).select_from(files).where(files.c.content_id == content_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one()

    async def verified(
        self, job_id: UUID, content_id: str, *, media_type: str, pages: int, width: int, height: int
    ) -> None:
        """Note what the bytes are, and how many pages the job has before it."""
        async with self._database.write() as connection:
            await connection.execute(
                update(contents)
                .where(contents.c.content_id == content_id)
                .values(media_type=media_type, pages=pages, width=width, height=height)
            )
            await self._jobs.progress(connection, job_id, stage="verified", done=0, total=pages, unit="pages")

    async def save_thumbnails(self, rows: Sequence[StoredThumbnail]) -> None:
        """Add or replace."""
        async with self._database.write() as connection:
            for row in rows:
                values = asdict(row)
                made = upsert(self._database.main.dialect)(thumbnails).values(values)
                changed = {name: values[name] for name in ("width", "height", "blob_key", "size_bytes")}
                await connection.execute(
                    made.on_conflict_do_update(index_elements=["content_id", "size_px"], set_=changed)
                )

    async def thumbnails(self, content_id: str) -> list[StoredThumbnail]:
        """Smallest first."""
        query = select(thumbnails).where(thumbnails.c.content_id == content_id).order_by(thumbnails.c.size_px)
        async with self._database.read() as connection:
            return [StoredThumbnail(**row) for row in (await connection.execute(query)).mappings()]

    async def thumbnail(self, content_id: str, size_px: int) -> StoredThumbnail | None:
        """The one made for this size."""
        query = select(thumbnails).where(thumbnails.c.content_id == content_id, thumbnails.c.size_px == size_px)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return StoredThumbnail(**row) if row else None

    async def save_page(self, job_id: UUID, page: StoredPage) -> None:
        """Add or replace a page, and count it in its job's progress in the same transaction.

        Characters that a database cannot hold are left out.
        """
        words = [[word.translate(UNSTORABLE), *rest] for word, *rest in page.words]
        values = asdict(page) | {"text": page.text.translate(UNSTORABLE), "words": words}
        made = upsert(self._database.main.dialect)(pages).values(values)
        changed = {name: values[name] for name in values if name not in {"content_id", "page"}}
        count = select(func.count()).select_from(pages).where(pages.c.content_id == page.content_id)
        total = select(contents.c.pages).where(contents.c.content_id == page.content_id)
        async with self._database.write() as connection:
            # Or two pages that are saved at once would each count without the other.
            await advisory_lock(connection, f"holdfast:pages:{page.content_id}")
            await connection.execute(made.on_conflict_do_update(index_elements=["content_id", "page"], set_=changed))
            done = (await connection.execute(count)).scalar_one()
            of = (await connection.execute(total)).scalar_one() or done
            await self._jobs.progress(connection, job_id, stage="ocr", done=done, total=of, unit="pages")

    async def page(self, content_id: str, page: int) -> StoredPage | None:
        """One page, if it was read."""
        query = select(pages).where(pages.c.content_id == content_id, pages.c.page == page)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _page(row) if row else None

    async def pages(self, content_id: str) -> list[StoredPage]:
        """The pages read so far, in order."""
        query = select(pages).where(pages.c.content_id == content_id).order_by(pages.c.page)
        async with self._database.read() as connection:
            return [_page(row) for row in (await connection.execute(query)).mappings()]

    async def publish(self, content_id: str, tenant: str) -> tuple[int, int, int]:
        """Make the pages searchable, the first time all at once; how many pages, words and characters.

        Repeating it replaces them, a batch at a time.
        """
        stored = await self.pages(content_id)
        for start in range(0, len(stored), MAX_ROWS_PER_WRITE):
            if start:
                await asyncio.sleep(PAUSE_S)
            await self._publish_batch(content_id, tenant, stored[start : start + MAX_ROWS_PER_WRITE])
        async with self._database.write() as connection:
            await connection.execute(
                update(contents)
                .where(contents.c.content_id == content_id)
                .values(ready_at=func.coalesce(contents.c.ready_at, micros(self._clock.now())))
            )
        return len(stored), sum(len(page.words) for page in stored), sum(len(page.text) for page in stored)

    async def _publish_batch(self, content_id: str, tenant: str, batch: Sequence[StoredPage]) -> None:
        first_and_last = {"id": content_id, "first": batch[0].page, "last": batch[-1].page}
        delete = "DELETE FROM page_text WHERE content_id = :id AND page BETWEEN :first AND :last"
        if self._database.dialect == "sqlite":
            # An FTS5 table has no other index: without MATCH it is read whole (65 ms at 50,000 pages, under the lock).
            delete += " AND rowid IN (SELECT rowid FROM page_text WHERE page_text MATCH :token)"
            first_and_last["token"] = f'content_id : "{content_id}"'
        rows = [
            {"content_id": content_id, "page": page.page, "tenant": tenant, "text": " ".join(words_of(page.text))}
            for page in batch
        ]
        columns = "(content_id, page, tenant, text) VALUES (:content_id, :page, :tenant, :text)"
        async with self._database.write() as connection:
            await advisory_lock(connection, f"holdfast:pages:{content_id}")  # two that publish at once take turns
            await connection.execute(text(delete), first_and_last)
            await connection.execute(text(f"INSERT INTO page_text {columns}"), rows)
