import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from contracts.payloads.job import JobRef, JobState, RecordJob
from runtime.clock import FixedClock
from store.database import Database
from store.files import Files, StoredThumbnail
from store.ids import new_id
from store.jobs import Job, Jobs
from store.search import Search
from tests.store.conftest import NOW, a_page, submit, upload


async def find(jobs: Jobs, job_id: UUID) -> Job:
    found = await jobs.get(None, job_id)
    assert found is not None
    return found


async def rows_of_page_text(database: Database) -> list[tuple[str, int]]:
    query = text("SELECT content_id, page FROM page_text ORDER BY content_id, page")
    async with database.read() as connection:
        return [(row.content_id, int(row.page)) for row in await connection.execute(query)]


@pytest.mark.asyncio
async def test_an_upload_is_stored_as_a_file_and_its_content(database: Database, files: Files) -> None:
    file, content = await upload(database, files)
    assert await files.get("acme", file.file_id) == (file, content)
    assert await files.content(content.content_id) == content
    assert await files.find_content("acme", "ab12", 1) == content
    assert (file.filename, file.size_bytes, file.uploaded_at) == ("invoice.pdf", 1234, NOW)
    assert (content.blob_key, content.media_type, content.ready_at) == ("files/acme/ab12/original", None, None)
    assert content.derived_prefix == "files/acme/ab12/v1"


@pytest.mark.asyncio
async def test_nothing_is_found_under_ids_that_are_not_there(database: Database, files: Files) -> None:
    await upload(database, files)
    assert await files.get(None, "nothing") is None
    assert await files.content("nothing") is None
    assert await files.find_content("acme", "cd", 1) is None
    assert await files.filename("nothing") == ""
    assert await files.references("nothing") == 0
    assert await files.page("nothing", 1) is None
    assert await files.thumbnail("nothing", 256) is None
    assert (await files.pages("nothing"), await files.thumbnails("nothing")) == ([], [])


@pytest.mark.asyncio
async def test_the_same_bytes_are_one_content_with_many_files(
    database: Database, files: Files, clock: FixedClock
) -> None:
    _first, content = await upload(database, files, filename="a.pdf")
    clock.advance(timedelta(seconds=1))
    second, again = await upload(database, files, filename="b.pdf")
    assert again == content
    assert await files.get("acme", second.file_id) == (second, content)
    assert await files.references(content.content_id) == 2
    assert await files.filename(content.content_id) == "b.pdf"


@pytest.mark.parametrize("other", [{"tenant": "globex"}, {"sha256": "cd34"}, {"version": 2}])
@pytest.mark.asyncio
async def test_tenant_bytes_and_pipeline_version_make_a_content(
    database: Database, files: Files, other: dict[str, str]
) -> None:
    _file, content = await upload(database, files)
    _file, elsewhere = await upload(database, files, **other)  # type: ignore[arg-type]  # one of three keywords
    assert elsewhere.content_id != content.content_id
    assert await files.references(content.content_id) == 1


@pytest.mark.asyncio
async def test_a_file_is_not_seen_by_another_tenant(database: Database, files: Files) -> None:
    file, content = await upload(database, files)
    assert await files.get("globex", file.file_id) is None
    assert await files.find_content("globex", content.sha256, 1) is None
    assert await files.get(None, file.file_id) == (file, content)


@pytest.mark.asyncio
async def test_the_same_bytes_uploaded_at_once_are_one_content(database: Database, files: Files) -> None:
    received = await asyncio.gather(*(upload(database, files) for _ in range(12)))
    assert len({content.content_id for _file, content in received}) == 1
    assert len({file.file_id for file, _content in received}) == 12
    assert await files.references(received[0][1].content_id) == 12


@pytest.mark.asyncio
async def test_an_upload_that_is_rolled_back_leaves_nothing(database: Database, files: Files) -> None:
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await files.receive(
                connection,
                tenant="acme",
                person=None,
                filename="x",
                size_bytes=1,
                sha256="ab12",
                blob_key="k",
                pipeline_version=1,
                job_id=new_id(),
                file_id="f",
                content_id="c",
            )
            raise RuntimeError
    assert await files.get(None, "f") is None
    assert await files.content("c") is None


@pytest.mark.asyncio
async def test_verifying_notes_type_and_size_and_the_pages_ahead(database: Database, files: Files, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    await files.verified(job.job_id, content.content_id, media_type="application/pdf", pages=3, width=1240, height=1754)
    expected = replace(content, media_type="application/pdf", pages=3, width=1240, height=1754)
    assert await files.content(content.content_id) == expected
    seen = await find(jobs, job.job_id)
    assert (seen.stage, seen.progress_done, seen.progress_total, seen.progress_unit) == ("verified", 0, 3, "pages")


@pytest.mark.asyncio
async def test_thumbnails_are_replaced_and_listed_by_size(database: Database, files: Files) -> None:
    _file, content = await upload(database, files)
    small = StoredThumbnail(content.content_id, 128, 90, 128, "k/128.webp", 1_000)
    large = StoredThumbnail(content.content_id, 512, 362, 512, "k/512.webp", 9_000)
    await files.save_thumbnails([large, small])
    assert await files.thumbnails(content.content_id) == [small, large]
    larger = replace(large, width=400, blob_key="k/new.webp", size_bytes=9_999)
    await files.save_thumbnails([larger])
    assert await files.thumbnails(content.content_id) == [small, larger]
    assert await files.thumbnail(content.content_id, 512) == larger
    assert await files.thumbnail(content.content_id, 256) is None


@pytest.mark.asyncio
async def test_a_page_is_stored_exactly_and_replaced(database: Database, files: Files, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    page = a_page(content.content_id, 2, "Größe «αβγ» 日本 👍")
    await files.save_page(job.job_id, page)
    assert await files.page(content.content_id, 2) == page
    assert await files.page(content.content_id, 1) is None
    better = replace(page, source="text_layer", confidence=1.0, text="better", words=())
    await files.save_page(job.job_id, better)
    await files.save_page(job.job_id, a_page(content.content_id, 10))
    await files.save_page(job.job_id, a_page(content.content_id, 1))
    assert [each.page for each in await files.pages(content.content_id)] == [1, 2, 10]
    assert await files.page(content.content_id, 2) == better


@pytest.mark.asyncio
async def test_characters_that_a_database_cannot_hold_are_left_out(
    database: Database, files: Files, jobs: Jobs
) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    await files.save_page(job.job_id, a_page(content.content_id, 1, "a\x00b \ud800c"))
    stored = await files.page(content.content_id, 1)
    assert stored is not None
    assert stored.text == "ab c"
    assert [word[0] for word in stored.words] == ["ab", "c"]
    assert (await files.publish(content.content_id, "acme"))[0] == 1


@pytest.mark.asyncio
async def test_pages_saved_at_once_are_all_counted_in_the_progress(
    database: Database, files: Files, jobs: Jobs
) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    await files.verified(job.job_id, content.content_id, media_type="application/pdf", pages=25, width=1, height=1)
    await asyncio.gather(*(files.save_page(job.job_id, a_page(content.content_id, at)) for at in range(1, 21)))
    seen = await find(jobs, job.job_id)
    assert (seen.stage, seen.progress_done, seen.progress_total, seen.progress_unit) == ("ocr", 20, 25, "pages")
    await files.save_page(job.job_id, a_page(content.content_id, 20))
    assert (await find(jobs, job.job_id)).progress_done == 20


@pytest.mark.asyncio
async def test_a_page_that_comes_late_does_not_reopen_the_progress_of_a_closed_job(
    database: Database, files: Files, jobs: Jobs
) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    ref = JobRef(job_id=job.job_id, tenant="acme")
    await jobs.record(RecordJob(job=ref, state=JobState.CANCELLED, first_run_id="r", started_at=NOW, at=NOW))
    closed = await find(jobs, job.job_id)
    await files.save_page(job.job_id, a_page(content.content_id, 1))
    assert await find(jobs, job.job_id) == closed
    assert await files.page(content.content_id, 1) is not None


@pytest.mark.asyncio
async def test_publishing_counts_and_notes_the_first_time(
    database: Database, files: Files, jobs: Jobs, clock: FixedClock
) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    await files.save_page(job.job_id, a_page(content.content_id, 1, "one two"))
    await files.save_page(job.job_id, a_page(content.content_id, 2, "three"))
    assert await files.publish(content.content_id, "acme") == (2, 3, len("one two") + len("three"))
    clock.advance(timedelta(hours=1))
    assert await files.publish(content.content_id, "acme") == (2, 3, 12)
    published = await files.content(content.content_id)
    assert published is not None
    assert published.ready_at == NOW
    assert await rows_of_page_text(database) == [(content.content_id, 1), (content.content_id, 2)]


@pytest.mark.asyncio
async def test_publishing_without_pages_makes_the_content_ready(database: Database, files: Files) -> None:
    _file, content = await upload(database, files)
    assert await files.publish(content.content_id, "acme") == (0, 0, 0)
    ready = await files.content(content.content_id)
    assert ready is not None
    assert ready.ready_at == NOW


@pytest.mark.asyncio
async def test_publishing_at_once_and_again_leaves_each_page_once(database: Database, files: Files, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    _file, other = await upload(database, files, sha256="other")
    for number in range(1, 4):
        await files.save_page(job.job_id, a_page(other.content_id, number))
    await files.publish(other.content_id, "acme")
    async with database.write() as connection:
        row = (
            "INSERT INTO pages (content_id, page, width, height, source, text, confidence, words) "
            "VALUES (:id, :page, 1, 1, 'ocr', 'Total 42', 1.0, '[]')"
        )
        pages = [{"id": content.content_id, "page": number} for number in range(1, 451)]
        await connection.execute(text(row), pages)
    await asyncio.gather(*(files.publish(content.content_id, "acme") for _ in range(3)))
    expected = [(content.content_id, number) for number in range(1, 451)]
    expected += [(other.content_id, number) for number in range(1, 4)]
    assert await rows_of_page_text(database) == sorted(expected)


@pytest.mark.asyncio
async def test_publishing_again_replaces_the_text(database: Database, files: Files, jobs: Jobs) -> None:
    job = await submit(database, jobs, "w")
    _file, content = await upload(database, files)
    await files.save_page(job.job_id, a_page(content.content_id, 1, "draft"))
    await files.publish(content.content_id, "acme")
    await files.save_page(job.job_id, a_page(content.content_id, 1, "final"))
    await files.publish(content.content_id, "acme")
    search = Search(database)
    assert await search.files("acme", "draft") == []
    assert [hit.page for hit in await search.files("acme", "final")] == [1]
