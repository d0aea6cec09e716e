"""Submission against both stores: what is a repetition, what is new, and what is refused before anything is stored."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import delete, func, select, update
from temporalio.service import RPCError

from activities.templates import TemplateBroken, TemplateDataError, Templates
from contracts.payloads.job import JobRef, JobState, RecordJob
from contracts.payloads.notification import ChannelName
from runtime.clock import FixedClock
from runtime.settings import Settings
from starter.notification_request import NotificationBody
from starter.services import Services, open_services
from starter.submit_notification import (
    MAX_ATTACHED_BYTES,
    InvalidNotification,
    SubmittedNotification,
    submit_notification,
)
from store.jobs import Job
from store.people import NewTarget, Person
from store.submissions import IdempotencyConflict
from store.tables import contents, files, people, submissions, targets
from tests.integration.temporal_double import TemporalDouble
from tests.store.conftest import submit, upload

pytestmark = pytest.mark.asyncio
ADA = {"channel": "email", "address": "ada@example.com"}
TEXT = {"subject": "Hi", "text": "There."}
BODY: dict[str, Any] = {"recipient": ADA, "content": TEXT}


@pytest.fixture
def temporal() -> TemporalDouble:
    return TemporalDouble()


@pytest_asyncio.fixture
async def services(url: str, tmp_path: Path, clock: FixedClock, temporal: TemporalDouble) -> AsyncIterator[Services]:
    settings = Settings(_env_file=None, database_url=url, data_dir=tmp_path / "data", signing_key="k")
    opened: AbstractAsyncContextManager[Services] = open_services(settings, role="test", clock=clock)
    async with opened as made:
        yield replace(made, temporal=temporal, channels=frozenset(ChannelName))  # type: ignore[arg-type]


async def ask(services: Services, body: dict[str, Any], key: str | None = None) -> SubmittedNotification:
    asked = NotificationBody.model_validate(body)
    return await submit_notification(services, "acme", asked, idempotency_key=key, trace_id=None)


async def job(services: Services, submitted: SubmittedNotification) -> Job:
    found = await services.jobs.get("acme", submitted.job.job_id)
    assert found is not None
    return found


async def count(services: Services, table: Any) -> int:
    async with services.database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def test_a_repetition_is_the_first_job_although_its_time_is_past_by_now(
    services: Services, clock: FixedClock, temporal: TemporalDouble
) -> None:
    body = BODY | {"expires": (clock.now() + timedelta(minutes=1)).isoformat()}
    first = await ask(services, body, "k")
    await services.jobs.started(first.job.job_id, "run-1")
    clock.advance(timedelta(hours=1))
    again = await ask(services, body, "k")
    assert (again.deduplicated, again.job.job_id) == (True, first.job.job_id)
    assert len(temporal.started) == 1
    with pytest.raises(InvalidNotification, match="already past"):
        await ask(services, body, "another key")


@pytest.mark.parametrize("gone", ["person", "template", "file"])
async def test_a_repetition_is_the_first_job_although_what_it_named_was_deleted(services: Services, gone: str) -> None:
    await services.people.put(Person("acme", "ada"), [NewTarget(ChannelName.EMAIL, "ada@example.com")])
    file, content = await upload(services.database, services.files)
    await services.files.verified(
        file.job_id, content.content_id, media_type="application/pdf", pages=1, width=1, height=1
    )
    body = {
        "recipient": "ada",
        "template": "welcome",
        "data": {"name": "A", "url": "https://a.example"},
        "attachments": [file.file_id],
    }
    first = await ask(services, body, "k")
    async with services.database.write() as connection:
        await connection.execute(delete(people if gone == "person" else files))
    left = replace(services, templates=Templates(Path("/nowhere"))) if gone == "template" else services
    again = await ask(left, body, "k")
    assert (again.deduplicated, again.job.job_id) == (True, first.job.job_id)


async def test_a_repetition_starts_a_job_that_temporal_did_not_get(
    services: Services, temporal: TemporalDouble
) -> None:
    temporal.away = True
    with pytest.raises(RPCError):
        await ask(services, BODY, "k")
    (stored,), _ = await services.jobs.list("acme")
    assert stored.state is JobState.SUBMITTED
    temporal.away = False
    again = await ask(services, BODY, "k")
    assert (again.job.job_id, again.job.state, again.first_run_id) == (stored.job_id, JobState.RUNNING, "run-1")
    assert temporal.started == [f"notification:acme:{stored.job_id}"]


async def test_a_message_that_expired_unstarted_does_not_swallow_the_next_one_of_its_dedupe_key(
    services: Services, clock: FixedClock, temporal: TemporalDouble
) -> None:
    deduped = BODY | {"dedupe_key": "d"}
    temporal.away = True
    with pytest.raises(RPCError):
        await ask(services, deduped | {"expires": "PT8S"})
    (stale,), _ = await services.jobs.list("acme")
    temporal.away = False
    clock.advance(timedelta(seconds=9))
    new = await ask(services, deduped | {"expires": "PT2H"})
    assert (new.deduplicated, new.job.state) == (False, JobState.RUNNING)
    closed = await services.jobs.get("acme", stale.job_id)
    assert closed is not None
    assert (closed.state, closed.cause, closed.finished_at) == (JobState.FAILED, "never_started", clock.now())
    assert "expired before it was sent again" in str(closed.error)
    assert (await ask(services, deduped)).job.job_id == new.job.job_id


async def test_a_message_that_temporal_has_is_not_replaced_only_because_its_start_was_not_noted(
    services: Services, clock: FixedClock
) -> None:
    deduped = BODY | {"dedupe_key": "d", "expires": "PT8S"}
    first = await ask(services, deduped)
    assert (await job(services, first)).state is JobState.SUBMITTED  # nobody called `started`
    clock.advance(timedelta(seconds=9))
    again = await ask(services, deduped)
    assert (again.deduplicated, again.job.job_id) == (True, first.job.job_id)


async def test_while_temporal_is_away_no_dedupe_key_is_given_to_another_message(
    services: Services, clock: FixedClock, temporal: TemporalDouble
) -> None:
    temporal.away = True
    deduped = BODY | {"dedupe_key": "d", "expires": "PT8S"}
    for _ in range(2):
        with pytest.raises(RPCError):
            await ask(services, deduped)
        clock.advance(timedelta(seconds=9))
    (only,), _ = await services.jobs.list("acme")
    assert only.state is JobState.SUBMITTED


async def test_a_key_that_met_a_dedupe_key_belongs_to_that_request_from_then_on(services: Services) -> None:
    deduped = BODY | {"dedupe_key": "A"}
    first = await ask(services, deduped, "K1")
    second = await ask(services, deduped, "K2")
    assert (second.deduplicated, second.job.job_id) == (True, first.job.job_id)
    with pytest.raises(IdempotencyConflict, match="send a new key for a new request"):
        await ask(services, BODY | {"content": {"subject": "Other", "text": "x"}}, "K2")
    assert await count(services, submissions) == 3


async def test_the_order_of_names_in_the_body_does_not_make_another_request(services: Services) -> None:
    data = {"name": "A", "url": "https://a.example"}
    first = await ask(services, {"recipient": ADA, "template": "welcome", "data": data}, "k")
    turned = dict(reversed(list(data.items())))
    again = await ask(services, {"data": turned, "template": "welcome", "recipient": dict(reversed(ADA.items()))}, "k")
    assert again.job.job_id == first.job.job_id
    with pytest.raises(IdempotencyConflict):
        await ask(services, {"recipient": ADA, "template": "welcome", "data": data | {"name": "B"}}, "k")


async def test_an_address_in_another_spelling_is_the_same_recipient(services: Services) -> None:
    first = await ask(services, BODY | {"dedupe_key": "d"}, "k")
    shouted = BODY | {"recipient": {"channel": "email", "address": " ADA@Example.COM "}, "dedupe_key": "d"}
    assert (await ask(services, shouted)).job.job_id == first.job.job_id
    assert (await ask(services, shouted, "k")).job.job_id == first.job.job_id
    async with services.database.read() as connection:
        stored = (await connection.execute(select(targets.c.address))).scalars().all()
    assert stored == ["ada@example.com"]


def german_needs_more(folder: Path) -> Templates:
    for locale, body in (("en", "{{ name }}"), ("de", "{{ name }} {{ extra }}")):
        place = folder / "mine" / locale
        place.mkdir(parents=True)
        (place / "subject.txt").write_text("s")
        (place / "body.txt").write_text(body)
    (folder / "mine" / "template.toml").write_text('category = "c"\nchannels = ["email"]\n')
    return Templates(folder)


async def test_data_must_suffice_for_every_locale_as_another_may_be_sent(services: Services, tmp_path: Path) -> None:
    with_templates = replace(services, templates=german_needs_more(tmp_path / "templates"))
    with pytest.raises(TemplateDataError, match=r"`extra` \(in body\.txt\)"):
        await ask(with_templates, {"recipient": ADA, "template": "mine", "data": {"name": "A"}})
    assert (await services.jobs.list("acme"))[0] == []
    told = await ask(with_templates, {"recipient": ADA, "template": "mine", "data": {"name": "A", "extra": "B"}})
    assert told.job.state is JobState.RUNNING


async def test_a_template_whose_files_are_wrong_is_named_and_nothing_is_stored(
    services: Services, tmp_path: Path
) -> None:
    templates = german_needs_more(tmp_path / "templates")
    (tmp_path / "templates/mine/de/body.txt").write_text("{% if %}")
    with pytest.raises(TemplateBroken, match=r"mine/de/body\.txt"):
        await ask(replace(services, templates=templates), {"recipient": ADA, "template": "mine", "data": {"name": "A"}})
    assert (await services.jobs.list("acme"))[0] == []


async def fail(services: Services, job_id: UUID, error: str, now: datetime) -> None:
    ref = JobRef(job_id=job_id, tenant="acme")
    await services.jobs.record(
        RecordJob(job=ref, state=JobState.FAILED, first_run_id="r", started_at=now, at=now, cause="svg", error=error)
    )


async def test_only_a_verified_file_is_attached(services: Services, clock: FixedClock) -> None:
    processing = await submit(services.database, services.jobs, "file:acme:ab12")
    file, content = await upload(services.database, services.files, job_id=processing.job_id)
    body = BODY | {"attachments": [file.file_id]}
    with pytest.raises(InvalidNotification, match=f"not verified yet: send this again when its job {file.job_id}"):
        await ask(services, body)
    await fail(services, processing.job_id, "verify: SVG files are not taken", clock.now())
    with pytest.raises(InvalidNotification, match="not accepted and so is not attached: verify: SVG files"):
        await ask(services, body)
    await services.files.verified(
        processing.job_id, content.content_id, media_type="image/png", pages=1, width=1, height=1
    )
    stored = await services.notifications.get("acme", (await ask(services, body)).job.job_id)
    assert stored is not None
    assert [(each.filename, each.media_type) for each in stored.attachments] == [("invoice.pdf", "image/png")]


async def test_the_attachments_of_a_message_have_ten_mebibytes_together(services: Services) -> None:
    ids = []
    for number in range(2):
        file, content = await upload(services.database, services.files, sha256=f"{number}")
        await services.files.verified(
            file.job_id, content.content_id, media_type="image/png", pages=1, width=1, height=1
        )
        ids.append(file.file_id)
    async with services.database.write() as connection:
        await connection.execute(update(files).values(size_bytes=MAX_ATTACHED_BYTES // 2))
    await ask(services, BODY | {"attachments": ids})
    async with services.database.write() as connection:
        await connection.execute(update(files).values(size_bytes=MAX_ATTACHED_BYTES // 2 + 1))
    with pytest.raises(InvalidNotification, match="the attachments have 10,485,762 bytes; at most 10,485,760 are sent"):
        await ask(services, BODY | {"attachments": ids})
    assert await count(services, contents) == 2
