"""What jobs have that a Temporal Schedule starts instead of the API.

Their request is the same each time, so it names no job: a run's public id is its first run id (a UUIDv7 of Temporal's),
and its first step stores the row. They belong to no tenant: `*` in the row is seen with a key of all tenants only, and
no tenant can be called so (starter/tenant.py).
"""

from contracts.payloads.job import JobRef
from contracts.payloads.model import Fact, StepOrder

OF_NO_TENANT = "*"


class BeginRun(StepOrder):
    """Store the row of a scheduled run of this type."""

    job: JobRef
    type: str
    workflow_id: str
    first_run_id: str


class RunBegun(Fact):
    """`stored` is false if the row was there."""

    stored: bool
