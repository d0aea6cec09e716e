"""The API's answers about broadcasts and audiences."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from contracts.payloads.job import JobState
from runtime.settings import Settings
from starter.api.access import Caller
from starter.api.recipient_body import report_for
from starter.api.views import EXAMPLE_JOB, JobError, links
from starter.broadcast_state import BroadcastState
from starter.recipient_intake import BadLines, Duplicates, Report
from store.jobs import Job
from store.recipients import Audience


class BroadcastLinks(BaseModel):
    """Where to go from here."""

    status: str = Field(description="The job.")
    broadcast: str
    events: str
    web_ui: str = Field(description="The workflow in the Temporal Web UI.")


EXAMPLE_LINKS: dict[str, Any] = {
    "status": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}",
    "broadcast": f"http://127.0.0.1:8000/v1/broadcasts/{EXAMPLE_JOB}",
    "events": f"http://127.0.0.1:8000/v1/broadcasts/{EXAMPLE_JOB}/events",
    "web_ui": f"http://127.0.0.1:8233/namespaces/default/workflows/broadcast:acme:{EXAMPLE_JOB}",
}
EXAMPLE_REPORT: dict[str, Any] = {
    "duplicates": {"count": 1, "lines": [7]},
    "bad": {"count": 1, "lines": [{"line": 9, "problem": "person: is missing"}]},
}


class BroadcastAccepted(BaseModel):
    """202: stored and started."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": EXAMPLE_JOB,
                "state": "running",
                "recipients": 99_998,
                **EXAMPLE_REPORT,
                "deduplicated": False,
                "links": EXAMPLE_LINKS,
            }
        }
    )

    job_id: UUID
    state: JobState
    recipients: int = Field(description="Who is sent to.")
    duplicates: Duplicates
    bad: BadLines
    deduplicated: bool = Field(description="True if the same was asked before: this is that job.")
    links: BroadcastLinks


class BroadcastView(BaseModel):
    """A broadcast's progress. `rate_per_second` is over the last minute; null where it is paused or nothing moves."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": EXAMPLE_JOB,
                "tenant": "acme",
                "state": "running",
                "live": True,
                "template": "comment_mention",
                "total": 100_000,
                "done": 40_000,
                "counts": {"sent": 39_900, "suppressed": 80, "handed_over": 20},
                "handed_over": 20,
                "rate_per_second": 1_000.0,
                "seconds_left": 60,
                "eta": "2026-11-24T09:02:00Z",
                "paused": None,
                "error": None,
                "report": {"recipients": 100_000, **EXAMPLE_REPORT},
                "submitted_at": "2026-11-24T09:00:00Z",
                "started_at": "2026-11-24T09:00:00Z",
                "finished_at": None,
                "expires_at": "2026-11-25T09:00:00Z",
                "links": EXAMPLE_LINKS,
            }
        }
    )

    job_id: UUID
    tenant: str
    state: JobState = Field(description="`parked`: it paused because too many were refused.")
    live: bool = Field(description="False if Temporal was not asked or did not answer, so that only the store speaks.")
    template: str | None
    total: int
    done: int
    counts: dict[str, int] = Field(description="Recipients by outcome.")
    handed_over: int = Field(description="Recipients whose message became a notification job of its own.")
    rate_per_second: float | None
    seconds_left: int | None
    eta: datetime | None
    paused: str | None = Field(description="Why it is paused, or null.")
    error: JobError | None = Field(description="Its `cause` is what made it pause or fail.")
    report: Report | None = Field(description="What was left out of its recipients; only of one broadcast.")
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime
    links: BroadcastLinks


class BroadcastPage(BaseModel):
    """Newest first. `next` is the `after` of the next page, or null."""

    broadcasts: list[BroadcastView]
    next: str | None


class AudienceView(BaseModel):
    """An audience. `report` only of one, and when it is saved."""

    name: str
    recipients: int
    saved_at: datetime
    report: Report | None = None


class AudienceList(BaseModel):
    """By name."""

    audiences: list[AudienceView]


def broadcast_links(settings: Settings, namespace: str, job: Job) -> BroadcastLinks:
    """The broadcast's URLs."""
    of_job = links(settings, namespace, job)
    mine = f"{settings.resolved_public_url()}/v1/broadcasts/{job.job_id}"
    return BroadcastLinks(status=of_job.status, broadcast=mine, events=f"{mine}/events", web_ui=of_job.web_ui)


def accepted_view(
    settings: Settings, namespace: str, job: Job, caller: Caller, report: Report, *, deduplicated: bool
) -> BroadcastAccepted:
    """The answer to a submission."""
    duplicates, bad = report_for(caller, report)
    return BroadcastAccepted(
        job_id=job.job_id,
        state=job.state,
        recipients=report.recipients,
        duplicates=duplicates,
        bad=bad,
        deduplicated=deduplicated,
        links=broadcast_links(settings, namespace, job),
    )


def seen_report(caller: Caller, report: Report) -> Report:
    """As this caller may see it."""
    duplicates, bad = report_for(caller, report)
    return Report(recipients=report.recipients, duplicates=duplicates, bad=bad)


def broadcast_view(
    settings: Settings, namespace: str, state: BroadcastState, caller: Caller | None, report: Report | None
) -> BroadcastView:
    """The answer for a broadcast."""
    job = state.live.job
    failed = job.error or job.cause
    return BroadcastView(
        job_id=job.job_id,
        tenant=job.tenant,
        state=job.state,
        live=state.live.live,
        template=state.broadcast.template,
        total=state.broadcast.total,
        done=state.done,
        counts=dict(sorted(state.counts.items())),
        handed_over=state.handed_over,
        rate_per_second=round(state.rate_per_second, 1) if state.rate_per_second is not None else None,
        seconds_left=round(state.left.total_seconds()) if state.left is not None else None,
        eta=state.eta,
        paused=state.paused,
        error=JobError(cause=job.cause, detail=job.error or "") if failed else None,
        report=seen_report(caller, report) if caller is not None and report is not None else None,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        expires_at=state.broadcast.expires_at,
        links=broadcast_links(settings, namespace, job),
    )


def audience_view(audience: Audience, report: Report | None = None) -> AudienceView:
    """The answer for an audience."""
    return AudienceView(name=audience.name, recipients=audience.total, saved_at=audience.created_at, report=report)
