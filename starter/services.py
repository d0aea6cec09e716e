"""What the API and the command line work with: the store, the blobs and the Temporal client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.client import Client

from activities.connectors.known import known
from activities.connectors.spec import Connector
from activities.templates import Templates
from activities.unsubscribe import Unsubscribing
from contracts.payloads.notification import ChannelName
from runtime.clock import Clock, SystemClock
from runtime.settings import Settings
from runtime.temporal import lazy_client
from store.api_keys import ApiKeys
from store.blobs import Blobs
from store.broadcasts import Broadcasts
from store.budgets import Budgets
from store.connections import Connections
from store.database import Database
from store.digests import Digests
from store.events import Events
from store.files import Files
from store.jobs import Jobs
from store.notifications import Notifications
from store.people import People
from store.recipients import Recipients
from store.sealed import Sealing
from store.search import Search
from store.submissions import Submissions
from store.suppressions import Suppressions
from store.synced import Synced


@dataclass(frozen=True, slots=True)
class Services:
    """Built once per process."""

    settings: Settings
    clock: Clock
    database: Database
    blobs: Blobs
    jobs: Jobs
    submissions: Submissions
    notifications: Notifications
    broadcasts: Broadcasts
    recipients: Recipients
    events: Events
    digests: Digests
    connectors: dict[str, Connector]
    connections: Connections
    synced: Synced
    budgets: Budgets
    people: People
    suppressions: Suppressions
    templates: Templates
    unsubscribing: Unsubscribing
    channels: frozenset[ChannelName]
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
            notifications=Notifications(database, clock),
            broadcasts=Broadcasts(database, clock),
            recipients=Recipients(database, clock),
            events=Events(database, clock),
            digests=Digests(database, clock),
            connectors=known(settings.connector_hosts, settings.connector_speed),
            connections=Connections(database, clock, Sealing(settings.resolved_credentials_keys())),
            synced=Synced(database, clock),
            budgets=Budgets(database, clock),
            people=People(database, clock),
            suppressions=Suppressions(database, clock, max_drops_an_hour=settings.max_drops_per_hour),
            templates=Templates(settings.templates_dir),
            unsubscribing=Unsubscribing(settings.resolved_signing_key(), settings.resolved_public_url()),
            channels=settings.configured_channels(),
            files=Files(database, clock, jobs),
            search=Search(database),
            api_keys=ApiKeys(database, clock),
            temporal=await lazy_client(settings, role=role),
        )
    finally:
        await database.close()
