"""The daily digest job: once a day each tenant's people hear what happened, as one broadcast per tenant and day."""

import json
import uuid
from datetime import date, datetime
from uuid import UUID

from pydantic import Field

from contracts.payloads.job import JobRef
from contracts.payloads.model import Fact, Order, StepOrder

DIGESTS = uuid.UUID("c1f4a8de-3b0e-5d0a-8f63-5a1f6c2e9b47")  # namespace of the ids of digests' broadcasts


def broadcast_id_of(tenant: str, day: date) -> UUID:
    """The broadcast's, and its set of recipients': the same however often the day is begun."""
    return uuid.uuid5(DIGESTS, json.dumps([tenant, day.isoformat()]))


class DueTenant(Fact):
    """A tenant's day. Its digest covers what came until `until`; at `next_at` the next one comes, and it is dropped."""

    tenant: str
    day: date
    until: datetime
    next_at: datetime


class SoFar(Order):
    """What a run hands to the next one when it continues as new. `failed` are sentences by tenant."""

    started_at: datetime
    beyond: str
    tenants: int
    people: int
    failed: dict[str, str] = Field(default_factory=dict)
    causes: tuple[str, ...] = ()


class DailyDigestRequest(Order):
    """Nothing to say: the store knows who is due. `so_far` where a run continues another."""

    so_far: SoFar | None = None


class PickTenants(StepOrder):
    """The tenants that are due now, beyond this one by name."""

    job: JobRef
    beyond: str = ""


class TenantsPicked(Fact):
    """`beyond` is where to go on; None if no tenant is left."""

    due: tuple[DueTenant, ...]
    beyond: str | None = None


class CollectDigest(StepOrder):
    """Make the broadcast of a tenant's day, under these ids."""

    job: JobRef
    due: DueTenant
    broadcast_id: UUID
    workflow_id: str


class DigestCollected(Fact):
    """How many people hear something. None: there is no broadcast, and the day is done."""

    people: int


class NoteStarted(StepOrder):
    """Temporal has the broadcast."""

    broadcast: JobRef
    first_run_id: str


class StartNoted(Fact):
    """Done."""


class DailyDigestResult(Fact):
    """Tenants whose digest was begun in this run, their people, and the tenants that failed."""

    tenants: int
    people: int
    failed: int = 0
