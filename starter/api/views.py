"""The API's answers."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from contracts.payloads.job import JobState
from runtime.settings import Settings
from starter.job_state import LiveJob
from starter.why import Why
from store.files import Content, File, StoredPage, StoredThumbnail
from store.jobs import Job
from store.search import Hit

EXAMPLE_JOB = "01938f5e-7c1a-7b7e-9c55-2f6f2f0f3a10"
EXAMPLE_FILE = "01938f5e-7c1a-7d02-8a53-0b7a51e0c9d4"


class Progress(BaseModel):
    """`stage` is the step that reported last."""

    stage: str | None
    done: int
    total: int
    unit: str | None


class JobError(BaseModel):
    """`cause` groups equal failures; `detail` is for people."""

    cause: str | None
    detail: str


class Pending(BaseModel):
    """A step at work or waiting for its next attempt."""

    step: str
    attempt: int
    running: bool
    error: str | None
    next_attempt_at: datetime | None


class JobLinks(BaseModel):
    """Where to go from here."""

    status: str
    events: str
    web_ui: str = Field(description="The workflow in the Temporal Web UI.")


class JobView(BaseModel):
    """A job's state, progress, result and error."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": EXAMPLE_JOB,
                "type": "file",
                "tenant": "acme",
                "state": "running",
                "live": True,
                "progress": {"stage": "ocr", "done": 3, "total": 10, "unit": "pages"},
                "pending": [
                    {"step": "read_page", "attempt": 1, "running": True, "error": None, "next_attempt_at": None}
                ],
                "error": None,
                "result": None,
                "submitted_at": "2026-11-24T09:00:00.120000Z",
                "started_at": "2026-11-24T09:00:00.140000Z",
                "finished_at": None,
                "links": {
                    "status": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}",
                    "events": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}/events",
                    "web_ui": "http://127.0.0.1:8233/namespaces/default/workflows/file:acme:9f86d0:v1",
                },
            }
        }
    )

    job_id: UUID
    type: str
    tenant: str
    state: JobState
    live: bool = Field(description="False if Temporal did not answer, so that only the store speaks.")
    progress: Progress | None
    pending: list[Pending]
    error: JobError | None
    result: Any
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: JobLinks


class JobPage(BaseModel):
    """Newest first. `next` is the `after` of the next page, or null."""

    jobs: list[JobView]
    next: str | None


class WaitView(BaseModel):
    """`step` is null where it is not one step's wait, `until` where the end is not known."""

    step: str | None
    what: str
    until: datetime | None
    detail: str | None


class WhyView(BaseModel):
    """What a job waits for."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": EXAMPLE_JOB,
                "state": "running",
                "waits": [
                    {
                        "step": "pull_page issues 7",
                        "what": "github, which asks for a pause (primary)",
                        "until": "2026-11-24T09:40:00Z",
                        "detail": None,
                    }
                ],
                "sentence": "Step pull_page issues 7 waits for github, which asks for a pause (primary) until "
                "2026-11-24 09:40:00 UTC (in 25 min 0 s).",
            }
        }
    )

    job_id: UUID
    state: JobState
    waits: list[WaitView]
    sentence: str


class FileAccepted(BaseModel):
    """202: the job is stored and started."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": EXAMPLE_JOB,
                "file_id": EXAMPLE_FILE,
                "state": "running",
                "deduplicated": False,
                "links": {
                    "status": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}",
                    "events": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}/events",
                    "web_ui": "http://127.0.0.1:8233/namespaces/default/workflows/file:acme:9f86d0:v1",
                },
                "file": f"http://127.0.0.1:8000/v1/files/{EXAMPLE_FILE}",
            }
        }
    )

    job_id: UUID
    file_id: str
    state: JobState
    deduplicated: bool = Field(description="True if these bytes were submitted before: their job is this file's job.")
    links: JobLinks
    file: str


class ThumbnailView(BaseModel):
    """`size` is the longest side it was made for, in pixels."""

    size: int
    width: int
    height: int
    size_bytes: int
    url: str


class FileView(BaseModel):
    """A file and what is known of its content. `media_type` and `pages` are null until verified."""

    file_id: str
    filename: str
    size_bytes: int
    sha256: str
    uploaded_at: datetime
    media_type: str | None
    pages: int | None
    width: int | None
    height: int | None
    searchable: bool
    thumbnails: list[ThumbnailView]
    text: str
    content: str
    job: str


class WordView(BaseModel):
    """A word and its box `[x0, y0, x1, y1]` in pixels of the page as it was read, origin top left."""

    text: str
    box: tuple[int, int, int, int]
    confidence: float


class PageView(BaseModel):
    """`source` says whether the PDF's own text was used or OCR. `words` only with `?words=true`."""

    page: int
    width: int
    height: int
    source: str
    confidence: float
    text: str
    words: list[WordView] | None = None


class TextView(BaseModel):
    """The pages read so far, in order."""

    file_id: str
    pages: list[PageView]


class HitView(BaseModel):
    """A page that matches; the matches in `snippet` stand between « and »."""

    file_id: str
    filename: str
    page: int
    snippet: str
    file: str


class HitPage(BaseModel):
    """Best first."""

    hits: list[HitView]


def links(settings: Settings, namespace: str, job: Job) -> JobLinks:
    """The job's URLs."""
    base = f"{settings.resolved_public_url()}/v1/jobs/{job.job_id}"
    run = f"/{job.first_run_id}" if job.first_run_id else ""
    ui = settings.resolved_temporal_ui_url()
    return JobLinks(
        status=base, events=f"{base}/events", web_ui=f"{ui}/namespaces/{namespace}/workflows/{job.workflow_id}{run}"
    )


def job_view(settings: Settings, namespace: str, live: LiveJob) -> JobView:
    """The answer for a job."""
    job = live.job
    failed = job.error or job.cause
    return JobView(
        job_id=job.job_id,
        type=job.type,
        tenant=job.tenant,
        state=job.state,
        live=live.live,
        progress=Progress(stage=job.stage, done=job.progress_done, total=job.progress_total, unit=job.progress_unit)
        if job.stage
        else None,
        pending=[
            Pending(
                step=step.step,
                attempt=step.attempt,
                running=step.running,
                error=step.error,
                next_attempt_at=step.next_attempt_at,
            )
            for step in live.pending
        ],
        error=JobError(cause=job.cause, detail=job.error or "") if failed else None,
        result=job.result,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links=links(settings, namespace, job),
    )


def why_view(found: Why) -> WhyView:
    """The answer for what a job waits for."""
    waits = [WaitView(step=each.step, what=each.what, until=each.until, detail=each.detail) for each in found.waits]
    return WhyView(job_id=found.job.job_id, state=found.job.state, waits=waits, sentence=found.sentence)


def file_view(settings: Settings, file: File, content: Content, thumbnails: list[StoredThumbnail]) -> FileView:
    """The answer for a file."""
    base = f"{settings.resolved_public_url()}/v1/files/{file.file_id}"
    return FileView(
        file_id=file.file_id,
        filename=file.filename,
        size_bytes=file.size_bytes,
        sha256=content.sha256,
        uploaded_at=file.uploaded_at,
        media_type=content.media_type,
        pages=content.pages,
        width=content.width,
        height=content.height,
        searchable=content.ready_at is not None,
        thumbnails=[
            ThumbnailView(
                size=each.size_px,
                width=each.width,
                height=each.height,
                size_bytes=each.size_bytes,
                url=f"{base}/thumbnails/{each.size_px}",
            )
            for each in sorted(thumbnails, key=lambda each: each.size_px)
        ],
        text=f"{base}/text",
        content=f"{base}/content",
        job=f"{settings.resolved_public_url()}/v1/jobs/{file.job_id}",
    )


def page_view(page: StoredPage, *, words: bool) -> PageView:
    """The answer for one page."""
    return PageView(
        page=page.page,
        width=page.width,
        height=page.height,
        source=page.source,
        confidence=page.confidence,
        text=page.text,
        words=[
            WordView(text=text, box=(x0, y0, x1, y1), confidence=confidence)
            for text, x0, y0, x1, y1, confidence in page.words
        ]
        if words
        else None,
    )


def hit_view(settings: Settings, hit: Hit) -> HitView:
    """The answer for one match."""
    return HitView(
        file_id=hit.file_id,
        filename=hit.filename,
        page=hit.page,
        snippet=hit.snippet,
        file=f"{settings.resolved_public_url()}/v1/files/{hit.file_id}",
    )
