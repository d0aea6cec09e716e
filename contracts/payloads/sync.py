"""The sync jobs: one connection's resources, page by page; and all connections, spread over a quarter of an hour."""

from datetime import datetime

from pydantic import Field

from contracts.payloads.job import JobRef, JobRequest
from contracts.payloads.model import Fact, Order, StepOrder


def sync_workflow_id(tenant: str, connection_id: str) -> str:
    """One per connection: who asks while one runs joins it."""
    return f"sync:{tenant}:{connection_id}"


def vendor_queue(provider: str) -> str:
    """The task queue of a vendor's pages."""
    return f"integrations-{provider}"


class ResourceCounts(Order):
    """What a pass found. `malformed` rows lack what a row must have; they were left out."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    malformed: int = 0
    pages: int = 0

    def plus(self, other: "ResourceCounts") -> "ResourceCounts":
        """Both together."""
        return ResourceCounts(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})


class SyncSoFar(Order):
    """What a run hands to the next one when it continues as new. `failed` are sentences by resource."""

    started_at: datetime
    left: tuple[str, ...]
    counts: dict[str, ResourceCounts]
    failed: dict[str, str] = Field(default_factory=dict)
    causes: tuple[str, ...] = ()


class SyncRequest(JobRequest):
    """Sync a connection; `full` asks for everything again. `so_far` where a run continues another."""

    connection_id: str
    provider: str
    full: bool = False
    so_far: SyncSoFar | None = None


class BeginSync(StepOrder):
    """Which resources there are."""

    job: JobRef
    connection_id: str


class SyncBegun(Fact):
    """In order, parents before children."""

    resources: tuple[str, ...]


class PullPage(StepOrder):
    """The next page of a resource: the store knows which. `full` is for a pass that begins with it."""

    job: JobRef
    connection_id: str
    provider: str
    resource: str
    full: bool = False


class PagePulled(Fact):
    """`finished` is the end of the resource's pass.

    `refused` says why a parent was left out, `cause` groups equal ones.
    """

    counts: ResourceCounts
    finished: bool
    refused: str = ""
    cause: str = ""


class FinishSync(StepOrder):
    """Clean up, and note that all of the connection was synced, if it was."""

    job: JobRef
    connection_id: str
    synced: bool = True


class SyncFinished(Fact):
    """Done."""


class SyncResult(Fact):
    """By resource."""

    counts: dict[str, ResourceCounts]


class SyncProgress(Fact):
    """By resource, so far; `left` are those that are not finished."""

    counts: dict[str, ResourceCounts]
    left: tuple[str, ...]


class SyncAllRequest(Order):
    """The store knows the connections. They are started in so many slices of the window."""

    window_seconds: int = 14 * 60
    slices: int = Field(default=28, gt=0)


class SetLimits(StepOrder):
    """Bring the limits of the vendors' queues in line with how many connections there are."""

    job: JobRef


class LimitsSet(Fact):
    """Sentences about what changed."""

    changed: tuple[str, ...]


class StartSyncs(StepOrder):
    """Start those of all connections that are of this slice of the window."""

    job: JobRef
    number: int
    of: int


class SyncsStarted(Fact):
    """How many were started, and how many were running already."""

    started: int
    running: int


class SyncAllResult(Fact):
    """Of all slices together."""

    started: int
    running: int
