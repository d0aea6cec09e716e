"""The API's answers about connections."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from activities.connectors.spec import Connector
from contracts.payloads.job import JobState
from runtime.settings import Settings
from starter.api.views import EXAMPLE_JOB, JobError, JobLinks, links
from store.connections import Connection, ConnectionState
from store.jobs import Job
from store.synced import Held, StoredRow

EXAMPLE_CONNECTION = "01938f5e-7c1a-7a11-9d0e-3a5b1f0c2e77"
EXAMPLE_LINKS: dict[str, Any] = {
    "status": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}",
    "events": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}/events",
    "web_ui": f"http://127.0.0.1:8233/namespaces/default/workflows/sync:acme:{EXAMPLE_CONNECTION}",
    "why": f"http://127.0.0.1:8000/v1/jobs/{EXAMPLE_JOB}/why",
}


class SyncLinks(JobLinks):
    """Where to go from here. `why` says what it waits for."""

    why: str


class SyncView(BaseModel):
    """A sync of a connection, as of its last record. It is a job: `links.status` has its result."""

    job_id: UUID
    state: JobState
    error: JobError | None
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: SyncLinks


class ResourceView(BaseModel):
    """`rows` are there now; `deleted` were deleted by the vendor and are kept."""

    rows: int
    deleted: int


class ConnectionView(BaseModel):
    """A connection, without its credentials."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "connection_id": EXAMPLE_CONNECTION,
                "tenant": "acme",
                "provider": "github",
                "account": "acme-bot",
                "settings": {},
                "state": "active",
                "reason": None,
                "frozen_at": None,
                "credentials_version": 1,
                "created_at": "2026-11-24T09:00:00Z",
                "updated_at": "2026-11-24T09:00:00Z",
                "last_synced_at": "2026-11-24T09:15:04Z",
                "sync": {
                    "job_id": EXAMPLE_JOB,
                    "state": "done",
                    "error": None,
                    "submitted_at": "2026-11-24T09:15:00Z",
                    "started_at": "2026-11-24T09:15:00Z",
                    "finished_at": "2026-11-24T09:15:04Z",
                    "links": EXAMPLE_LINKS,
                },
                "resources": {"repositories": {"rows": 12, "deleted": 0}, "issues": {"rows": 3_400, "deleted": 7}},
                "note": None,
            }
        }
    )

    connection_id: str
    tenant: str
    provider: str
    account: str
    settings: dict[str, JsonValue]
    state: ConnectionState = Field(description="`frozen` is not synced until its credentials are renewed.")
    reason: str | None = Field(description="Why it is frozen.")
    frozen_at: datetime | None
    credentials_version: int = Field(description="One more with each renewal and with each refresh.")
    created_at: datetime
    updated_at: datetime
    last_synced_at: datetime | None = Field(description="When all of it was synced last.")
    sync: SyncView | None = Field(description="Its last sync, which may run; only of one connection.")
    resources: dict[str, ResourceView] | None = Field(description="What it has; only of one connection.")
    note: str | None = Field(description="What did not go as usual.")


class ConnectionPage(BaseModel):
    """Newest first. `next` is the `after` of the next page, or null."""

    connections: list[ConnectionView]
    next: str | None


class SyncAccepted(BaseModel):
    """202: the sync runs. `joined`: it did already."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": EXAMPLE_JOB,
                "state": "running",
                "joined": False,
                "note": None,
                "links": EXAMPLE_LINKS,
            }
        }
    )

    job_id: UUID
    state: JobState
    joined: bool = Field(description="True if it ran already: this is its job.")
    note: str | None = Field(description="What did not go as asked.")
    links: SyncLinks


class RowView(BaseModel):
    """A row as the vendor gives it. `first_seen_at`, `changed_at` and `deleted_at` are when we saw it."""

    row_id: str
    parent_id: str | None
    data: dict[str, JsonValue]
    vendor_updated_at: str | None
    first_seen_at: datetime
    changed_at: datetime
    deleted_at: datetime | None


class RowPage(BaseModel):
    """In the order of their ids, deleted ones too. `next` is the `after` of the next page, or null."""

    rows: list[RowView]
    next: str | None


def connection_view(
    connection: Connection,
    *,
    sync: SyncView | None = None,
    resources: dict[str, ResourceView] | None = None,
    note: str | None = None,
) -> ConnectionView:
    """The answer for a connection."""
    return ConnectionView(
        connection_id=connection.connection_id,
        tenant=connection.tenant,
        provider=connection.provider,
        account=connection.account,
        settings=connection.settings,
        state=connection.state,
        reason=connection.reason,
        frozen_at=connection.frozen_at,
        credentials_version=connection.credentials_version,
        created_at=connection.created_at,
        updated_at=connection.updated_at,
        last_synced_at=connection.last_synced_at,
        sync=sync,
        resources=resources,
        note=note,
    )


def sync_view(settings: Settings, namespace: str, job: Job) -> SyncView:
    """The answer for a connection's sync."""
    return SyncView(
        job_id=job.job_id,
        state=job.state,
        error=JobError(cause=job.cause, detail=job.error or "") if job.error or job.cause else None,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links=sync_links(settings, namespace, job),
    )


def sync_links(settings: Settings, namespace: str, job: Job) -> SyncLinks:
    """The URLs of a connection's sync."""
    of_job = links(settings, namespace, job)
    return SyncLinks(**of_job.model_dump(), why=f"{of_job.status}/why")


def resource_views(connector: Connector | None, held: dict[str, Held]) -> dict[str, ResourceView]:
    """By resource, in the order in which they are synced; without a connector, those that have rows."""
    names = [each.name for each in connector.resources] if connector else []
    names += [name for name in sorted(held) if name not in names]
    nothing = Held(0, 0)
    return {
        name: ResourceView(rows=held.get(name, nothing).live, deleted=held.get(name, nothing).deleted) for name in names
    }


def row_view(row: StoredRow) -> RowView:
    """The answer for a row."""
    return RowView(
        row_id=row.row_id,
        parent_id=row.parent_id,
        data=row.data,
        vendor_updated_at=row.vendor_updated_at,
        first_seen_at=row.first_seen_at,
        changed_at=row.changed_at,
        deleted_at=row.deleted_at,
    )
