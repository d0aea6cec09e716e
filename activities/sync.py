"""The sync job's steps: one page of a third-party API at a time.

Repeating a page is safe: rows are known by their ids and contents, and the place of the next page is stored in the
transaction of the last row of this one, never ahead of it.
"""

import asyncio
from dataclasses import asdict, dataclass
from datetime import timedelta

import structlog
from pydantic import JsonValue
from temporalio import activity

from activities.connectors.engine import Ask, Engine, Page
from activities.connectors.known import UnknownProvider, connector
from activities.connectors.spec import Connector, Credentials, Judgement, Meaning
from activities.heartbeat import heartbeating
from activities.sync_limits import Caller, Limits, is_away, page_size
from activities.sync_place import Place, Walk, opened, parent_of
from contracts.errors import FailureKind, failure
from contracts.payloads.job import WaitUntil
from contracts.payloads.sync import (
    BeginSync,
    FinishSync,
    PagePulled,
    PullPage,
    ResourceCounts,
    SyncBegun,
    SyncFinished,
)
from runtime.clock import Clock
from store.connections import Connection, Connections, ConnectionState
from store.database import Database, DatabaseUnavailable
from store.jobs import Jobs
from store.synced import PAUSE, Counts, StoredRow, Synced

log = structlog.get_logger(__name__)

REFRESH_BEFORE = timedelta(minutes=1)  # an access token's end
STORE_AWAY = timedelta(seconds=5)  # until it is asked again
FROZEN = "connection_frozen"
MAX_RESTARTS = 3  # of a pass whose cursor is gone
MAX_TROUBLES = 20  # failures of the vendor at one page, some 15 minutes; a vendor that is away is waited for
NO_PAGE = frozenset({Meaning.GONE_CURSOR, Meaning.MISSING, Meaning.PERMANENT})  # answers that cost no rows
AFTER_CANCEL_SECONDS = 10.0
STORE_AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class _Work:
    """A page that is to be pulled."""

    order: PullPage
    connection: Connection
    caller: Caller


class SyncActivities:
    """Collaborators are injected by worker.py. `connectors` are by name."""

    def __init__(
        self,
        *,
        connectors: dict[str, Connector],
        engine: Engine,
        connections: Connections,
        synced: Synced,
        limits: Limits,
        database: Database,
        jobs: Jobs,
        clock: Clock,
    ) -> None:
        self._connectors = connectors
        self._database = database
        self._jobs = jobs
        self._engine = engine
        self._connections = connections
        self._synced = synced
        self._limits = limits
        self._clock = clock
        self._walk = Walk(synced)

    @activity.defn(name="sync.begin")
    async def begin(self, order: BeginSync) -> SyncBegun:
        """The connection's resources.

        Raises:
            ApplicationError: the provider is unknown, or the connection is frozen or deleted.
        """
        connection = await self._connection(order.job.tenant, order.connection_id)
        known = self._connector(connection.provider)
        return SyncBegun(resources=tuple(each.name for each in known.resources))

    @activity.defn(name="sync.pull_page")
    async def pull_page(self, order: PullPage) -> PagePulled | WaitUntil:
        """One request and its rows, or when to come back for it.

        Raises:
            ApplicationError: the vendor will refuse it again, or the connection is frozen.
        """
        async with heartbeating():
            try:
                connection = await self._connection(order.job.tenant, order.connection_id)
                known = self._connector(connection.provider)
                resource = known.resource(order.resource)
                settings = known.settings.model_validate(connection.settings)
                caller = Caller(known, resource, connection.connection_id, settings, expected=page_size(resource))
                return await self._pull(_Work(order, connection, caller))
            except DatabaseUnavailable as error:
                log.warning("store.away", reason=str(error))
                until = self._clock.now() + STORE_AWAY
                return WaitUntil(until=until, waiting_for="the store, which does not answer", place=order.resume)

    @activity.defn(name="sync.finish")
    async def finish(self, order: FinishSync) -> SyncFinished:
        """Delete what hangs on deleted parents, and note when the connection was synced."""
        connection = await self._connection(order.job.tenant, order.connection_id)
        async with heartbeating():
            for resource in self._connector(connection.provider).resources:
                if resource.parent:
                    await self._sweep_orphans(connection.connection_id, resource.name, resource.parent)
        if order.synced:
            await self._connections.note_synced(order.job.tenant, order.connection_id, order.job.job_id)
        return SyncFinished()

    async def _sweep_orphans(self, connection_id: str, resource: str, parents: str) -> None:
        while await self._synced.sweep_orphans(connection_id, resource, parents):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(PAUSE.total_seconds())

    async def _pull(self, work: _Work) -> PagePulled | WaitUntil:
        resource = work.caller.resource
        place = opened(
            await self._place(work),
            resource,
            job_id=str(work.order.job.job_id),
            full=work.order.full,
            now=self._clock.now(),
        )
        if place.sweeping:
            place = await self._sweep(work, place)
        place, parent = await self._at_parent(work, place)
        if place.finished:
            return await self._saved(work, place)
        admitted = await self._limits.admit(work.caller, work.order.resume)
        if isinstance(admitted, WaitUntil):
            return admitted
        left_out = parent is not None and await self._synced.is_left_out(
            work.connection.connection_id, resource.name, parent.row_id
        )
        since = place.asks_since(parent, left_out=left_out)
        ask = Ask(resource, work.caller.settings, since, parent_of(parent) if parent else None, place.cursor)
        page, version = await self._ask(work, ask)
        if page.judgement.meaning is Meaning.UNAUTHORIZED:
            return await self._freeze(work, place, page.judgement, version)
        if page.judgement.meaning is not Meaning.OK:
            return await self._not_ok(work, place, page)
        await self._limits.went_well(work.caller, admitted, page.received, page.observed, page.judgement.wait)
        return await self._keep(work, place, page, listed_all=since is None, left_out=left_out)

    async def _at_parent(self, work: _Work, place: Place) -> tuple[Place, StoredRow | None]:
        """The parent whose rows are listed now; the next one where there is none, or it is gone."""
        resource, connection_id = work.caller.resource, work.connection.connection_id
        if not resource.parent or place.finished:
            return place, None
        if place.parent is not None:
            row = await self._synced.row(connection_id, resource.parent, place.parent)
            if row is not None and row.deleted_at is None:
                return place, row
            place = place.behind_list()
        return await self._walk.to_next(connection_id, resource, place)

    async def _ask(self, work: _Work, ask: Ask) -> tuple[Page, int]:
        """The page, and the version of the credentials that it was asked for with.

        With a new access token where the old one is at its end or is not taken.
        """
        known = work.caller.connector
        sealed, version = await self._connections.credentials(work.connection)
        credentials = Credentials.model_validate(sealed)
        ends = credentials.expires_at
        can_refresh = credentials.refresh_token is not None
        if can_refresh and ends is not None and ends - self._clock.now() < REFRESH_BEFORE:
            renewed, version = await self._refresh(work, credentials, version)
            if isinstance(renewed, Judgement):
                return Page(renewed), version
            return await self._engine.pull(known, ask, renewed), version
        page = await self._engine.pull(known, ask, credentials)
        if page.judgement.meaning is not Meaning.UNAUTHORIZED or not can_refresh:
            return page, version
        renewed, version = await self._refresh(work, credentials, version)
        if isinstance(renewed, Judgement):
            return Page(renewed), version
        return await self._engine.pull(known, ask, renewed), version

    async def _refresh(
        self, work: _Work, credentials: Credentials, version: int
    ) -> tuple[Credentials | Judgement, int]:
        """Stored before it is used: a vendor that rotates refresh tokens takes each only once.

        Cancelled, it still stores what the vendor gave: there is no other copy.
        """
        renewing = asyncio.create_task(self._renew(work, credentials, version))
        try:
            return await asyncio.shield(renewing)
        except asyncio.CancelledError:
            await asyncio.wait({renewing}, timeout=AFTER_CANCEL_SECONDS)
            raise

    async def _renew(self, work: _Work, credentials: Credentials, version: int) -> tuple[Credentials | Judgement, int]:
        connection = work.connection
        renewed = await self._engine.refresh(work.caller.connector, credentials)
        if isinstance(renewed, Credentials) and await self._replace(connection, version, renewed):
            return renewed, version + 1
        if isinstance(renewed, Judgement) and renewed.meaning is not Meaning.UNAUTHORIZED:
            return renewed, version
        sealed, newest = await self._connections.credentials(connection)
        if newest != version:  # the customer, or another worker, was faster
            return Credentials.model_validate(sealed), newest
        return renewed, version

    async def _replace(self, connection: Connection, version: int, renewed: Credentials) -> bool:
        """Store new credentials, patiently: the old ones are of no use any more."""
        for pause in STORE_AGAIN_SECONDS:
            try:
                return await self._connections.replace_credentials(
                    connection.tenant, connection.connection_id, version, _told(renewed)
                )
            except DatabaseUnavailable as error:
                log.warning("credentials.not_stored", connection=connection.connection_id, reason=str(error))
                await asyncio.sleep(pause)
        return await self._connections.replace_credentials(
            connection.tenant, connection.connection_id, version, _told(renewed)
        )

    async def _freeze(self, work: _Work, place: Place, judgement: Judgement, version: int) -> PagePulled:
        """Nobody asks with these credentials again. If they were renewed meanwhile, the page is asked for again."""
        connection, name = work.connection, work.caller.connector.name
        reason = f"{name} does not take the credentials any more ({_said(judgement)}): renew them"
        log.warning("credentials.refused", connection=connection.connection_id, vendor=name, code=judgement.code)
        if await self._connections.freeze(connection.tenant, connection.connection_id, reason, version=version):
            raise failure(FailureKind.AUTH, FROZEN, f"the connection is frozen: {reason}")
        await self._connection(connection.tenant, connection.connection_id)
        return PagePulled(counts=place.counts, finished=False)

    async def _not_ok(self, work: _Work, place: Place, page: Page) -> PagePulled | WaitUntil:
        judgement, resource = page.judgement, work.caller.resource
        name = work.caller.connector.name
        said = _said(judgement)
        await self._limits.heed(work.caller, page.observed)
        if judgement.meaning in NO_PAGE:
            await self._limits.settle(work.caller, 0)
        match judgement.meaning:
            case Meaning.THROTTLED:
                return await self._limits.refused(work.caller, judgement)
            case Meaning.OVERLOADED if is_away(judgement) or place.troubles < MAX_TROUBLES:
                if not is_away(judgement):
                    await self._saved(work, place.having(troubles=place.troubles + 1))
                return await self._limits.refused(work.caller, judgement)
            case Meaning.GONE_CURSOR if place.restarts < MAX_RESTARTS:
                log.warning("cursor.gone", vendor=name, resource=resource.name, why=said)
                again = opened(None, resource, job_id=place.job_id, full=True, now=self._clock.now())
                return await self._saved(work, again.having(restarts=place.restarts + 1, counts=place.counts))
            case Meaning.MISSING if place.parent is not None:
                log.info("parent.left_out", vendor=name, resource=resource.name, parent=place.parent, why=said)
                await self._synced.leave_out(work.connection.connection_id, resource.name, [place.parent])
                return await self._saved(work, await self._onwards(work, place))
        kind = FailureKind.UNREADABLE if judgement.code == "schema" else FailureKind.REJECTED
        return await self._give_up(work, place, kind, judgement.code, said)

    async def _give_up(self, work: _Work, place: Place, kind: FailureKind, code: str, said: str) -> PagePulled:
        """Nobody stands at this page again: the next parent has its turn, or the next job begins the list anew."""
        name, resource = work.caller.connector.name, work.caller.resource
        log.warning("page.given_up", vendor=name, resource=resource.name, parent=place.parent, code=code, why=said)
        message = f"{name}, {resource.name}: {said}"
        if place.parent is None:
            await self._saved(work, place.having(cursor=None, cursors=(), troubles=0))
            raise failure(kind, code, message)
        await self._synced.leave_out(work.connection.connection_id, resource.name, [place.parent])
        pulled = await self._saved(work, await self._onwards(work, place))
        return pulled.model_copy(
            update={"refused": f"{message} (under {resource.parent} {place.parent})", "cause": code}
        )

    async def _keep(self, work: _Work, place: Place, page: Page, *, listed_all: bool, left_out: bool) -> PagePulled:
        resource = work.caller.resource
        place = place.having(dated=place.dated or page.dated, spoiled=place.spoiled or bool(page.malformed))
        found = ResourceCounts(malformed=len(page.malformed), pages=1)
        if page.malformed:
            log.warning(
                "rows.malformed",
                vendor=work.caller.connector.name,
                resource=resource.name,
                rows=len(page.malformed),
                first=page.malformed[0],
            )
        if page.cursor is not None and place.repeats(page.cursor):
            said = "the list comes back to a page that it had before"
            return await self._give_up(work, place, FailureKind.UNREADABLE, "repeated_cursor", said)
        seen_by = place.pass_id if listed_all else None
        if page.cursor is not None:
            return await self._saved(work, place.at(page.cursor), page, found, seen_by)
        if not listed_all or place.spoiled:
            return await self._saved(work, await self._onwards(work, place), page, found, seen_by)
        sweeping = place.having(cursor=None, sweeping=True)
        saved = await self._saved(work, sweeping, page, found, seen_by)
        if left_out and place.parent is not None:
            await self._synced.take_in(work.connection.connection_id, resource.name, place.parent)
        swept = await self._sweep(work, sweeping.having(counts=saved.counts))
        return await self._saved(work, (await self._at_parent(work, swept))[0])

    async def _onwards(self, work: _Work, place: Place) -> Place:
        """Behind this list, at the next parent or at the end."""
        return (await self._at_parent(work, place.behind_list()))[0]

    async def _sweep(self, work: _Work, place: Place) -> Place:
        """Delete what this list did not show; the place behind it."""
        deleted = 0
        while swept := await self._synced.sweep(
            work.connection.connection_id, work.caller.resource.name, pass_id=place.pass_id, parent_id=place.parent
        ):
            deleted += swept
            await asyncio.sleep(PAUSE.total_seconds())
        counts = place.counts.plus(ResourceCounts(deleted=deleted))
        return place.having(counts=counts).behind_list()

    async def _place(self, work: _Work) -> Place | None:
        stored = await self._synced.place(work.connection.connection_id, work.caller.resource.name)
        return None if stored is None else Place.model_validate(stored)

    async def _saved(
        self,
        work: _Work,
        place: Place,
        page: Page | None = None,
        found: ResourceCounts | None = None,
        seen_by: str | None = None,
    ) -> PagePulled:
        """Rows and place, in one transaction; the counts of the pass are part of the place."""
        kept = place

        def told(saved: Counts) -> dict[str, JsonValue]:
            nonlocal kept
            counts = place.counts.plus(found or ResourceCounts()).plus(ResourceCounts(**asdict(saved)))
            kept = place.having(counts=counts)
            stored: dict[str, JsonValue] = kept.model_dump(mode="json")
            return stored

        name = work.caller.resource.name
        rows = page.rows if page else ()
        await self._synced.save_page(work.connection.connection_id, name, rows, told, pass_id=seen_by)
        if page is not None:
            done = kept.counts.created + kept.counts.updated + kept.counts.unchanged
            async with self._database.write() as connection:
                await self._jobs.progress(
                    connection, work.order.job.job_id, stage=name, done=done, total=0, unit="rows"
                )
        return PagePulled(counts=kept.counts, finished=kept.finished)

    async def _connection(self, tenant: str, connection_id: str) -> Connection:
        found = await self._connections.get(tenant, connection_id)
        if found is None:
            msg = (
                f"connection {connection_id} is not in the store: it was deleted, or this worker uses another database"
            )
            raise failure(FailureKind.REJECTED, "connection_missing", msg)
        if found.state is ConnectionState.FROZEN:
            raise failure(FailureKind.AUTH, FROZEN, f"the connection is frozen: {found.reason}")
        return found

    def _connector(self, name: str) -> Connector:
        try:
            return connector(self._connectors, name)
        except UnknownProvider as error:
            raise failure(FailureKind.REJECTED, "unknown_provider", str(error)) from error


def _said(judgement: Judgement) -> str:
    return f"{judgement.code}: {judgement.detail}" if judgement.detail else judgement.code


def _told(credentials: Credentials) -> dict[str, JsonValue]:
    """With the secrets in the open, to be sealed."""
    told: dict[str, JsonValue] = credentials.model_dump(mode="json", exclude_none=True)
    for name in ("access_token", "refresh_token", "client_secret"):
        secret = getattr(credentials, name)
        if secret is not None:
            told[name] = secret.get_secret_value()
    return told
