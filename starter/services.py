"""What the API and the command line work with: the store, the blobs and the Temporal client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.client import Client

from runtime.clock import Clock, SystemClock
from runtime.settings import Settings
from runtime.temporal import lazy_client
from store.api_keys import ApiKeys
from store.blobs import Blobs
from store.database import Database
from store.files import Files
from store.jobs import Jobs
from store.search import Search
from store.submissions import Submissions


@dataclass(frozen=True, slots=True)
class Services:
    """Built once per process."""

    settings: Settings
    clock: Clock
    database: Database
    blobs: Blobs
    jobs: Jobs
    submissions: Submissions
    files: Files
    search: Search
    api_keys: ApiKeys
    temporal: Client


@asynccontextmanager
async def open_services(settings: Settings, *, role: str, clock: Clock | None = None) -> AsyncIterator[Services]:
    """Services for the length of the block. Temporal is connected to at the first call only.

    Raises:
        DatabaseUnavailable: the store does not answer.
    """
    clock = clock or SystemClock()
    database = Database.open(settings.resolved_database_url(), settings.resolved_ledger_url())
    jobs = Jobs(database, clock)
    try:
        yield Services(
            settings=settings,
            clock=clock,
            database=database,
            blobs=Blobs.open(settings.resolved_blobs_url()),
            jobs=jobs,
            submissions=Submissions(database, clock),
            files=Files(database, clock, jobs),
            search=Search(database),
            api_keys=ApiKeys(database, clock),
            temporal=await lazy_client(settings, role=role),
        )
    finally:
        await database.close()
