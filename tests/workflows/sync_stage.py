"""Syncs of a scripted vendor into a real store, with skipped time."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import JsonValue
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.connectors.engine import Engine
from activities.connectors.paging import TokenInBody
from activities.connectors.spec import (
    MINUTE,
    Answer,
    Budget,
    Connector,
    Judgement,
    KeptBy,
    Meaning,
    OAuth,
    Request,
    Resource,
    Row,
    Settings,
    Since,
)
from activities.scheduled import CLOSED, ScheduledActivities
from activities.sync import SyncActivities
from activities.sync_all import SyncAllActivities
from activities.sync_limits import Limits
from contracts.catalogue import SYNC
from contracts.payloads.job import JobRecorded, JobRef, RecordJob
from contracts.payloads.sync import SyncRequest, SyncResult, SyncSoFar, sync_workflow_id
from store.budgets import Budgets
from store.connections import Connection, Connections
from store.database import Database
from store.jobs import Job, Jobs, NewJob
from store.migrate import migrate
from store.sealed import Sealing
from store.synced import Synced
from tests.workflows.notification_stage import ServerClock, _Times
from workflows.sync import SyncWorkflow
from workflows.sync_all import SyncAllWorkflow

Handle = WorkflowHandle[SyncWorkflow, SyncResult]
TOKEN, REFRESH = "access-1-secret", "refresh-1-secret"
KEYS = ["YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY="]


class Shelf(Row):
    id: str


class Book(Row):
    id: str
    updated: datetime


def _since(request: Request, since: datetime, _settings: Settings) -> Request:
    return request.having(since=since.isoformat())


def _judge(answer: Answer) -> Judgement | None:
    return Judgement(Meaning.GONE_CURSOR, "cursor") if answer.said("error") == "gone" else None


def library(provider: str) -> Connector:
    """Shelves, all of them each time, and what changed of the books on each; a page has two rows."""
    token = TokenInBody("cursor", "next")
    return Connector(
        name=provider,
        host="https://library.example",
        base="/v1",
        docs="https://library.example/docs",
        auth=OAuth("https://library.example", "/token"),
        budgets=(),
        judge=_judge,
        resources=(
            Resource("shelves", "/shelves", Shelf, token, items="rows"),
            Resource(
                "books",
                "/shelves/{shelf}/books",
                Book,
                token,
                items="rows",
                since=Since(_since),
                updated="updated",
                parent="shelves",
                of_parent={"shelf": "id"},
            ),
        ),
    )


@dataclass
class Vendor:
    """Answers requests from `shelves` and `books`, or with what `next_answers` has first; an event is waited for."""

    now: Callable[[], datetime]
    shelves: list[dict[str, JsonValue]] = field(default_factory=list)
    books: dict[str, list[dict[str, JsonValue]]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    next_answers: list[httpx.Response | Exception | asyncio.Event | None] = field(default_factory=list)
    asked: list[tuple[datetime, str]] = field(default_factory=list)

    def add(self, shelf: str, *books: str, at: datetime | None = None) -> None:
        if {"id": shelf} not in self.shelves:
            self.shelves.append({"id": shelf})
        updated = (at or datetime.now(UTC) - timedelta(days=1)).isoformat()
        self.books.setdefault(shelf, []).extend({"id": each, "updated": updated} for each in books)

    @property
    def paths(self) -> list[str]:
        return [path for _, path in self.asked]

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().removeprefix("/v1")
        self.asked.append((self.now(), path))
        scripted = self.next_answers.pop(0) if self.next_answers else None
        if isinstance(scripted, Exception):
            raise scripted
        if isinstance(scripted, asyncio.Event):
            await scripted.wait()
        elif scripted is not None:
            return scripted
        if request.url.path == "/token":
            return self._refresh(dict(httpx.QueryParams(request.content.decode())))
        if request.headers["authorization"].removeprefix("Bearer ") not in self.tokens:
            return httpx.Response(401, json={"message": "bad credentials"})
        since = request.url.params.get("since")
        rows = self.shelves
        if request.url.path.endswith("/books"):
            rows = self.books.get(request.url.path.split("/")[3], [])
            rows = [each for each in rows if since is None or str(each["updated"]) >= since]
        start = int(request.url.params.get("cursor", "0"))
        after = start + 2
        body = {"rows": rows[start:after], "next": str(after) if after < len(rows) else ""}
        return httpx.Response(200, json=body, headers={"date": format_datetime(self.now(), usegmt=True)})

    def _refresh(self, form: dict[str, str]) -> httpx.Response:
        new = self.refresh_tokens.pop(form["refresh_token"], None)
        if new is None:
            return httpx.Response(400, json={"error": "invalid_grant"})
        self.tokens = {new}
        self.refresh_tokens[f"refresh-of-{new}"] = "access-last"
        return httpx.Response(200, json={"access_token": new, "refresh_token": f"refresh-of-{new}", "expires_in": 60})


@dataclass
class SyncStage:
    """Connections of the tenant acme."""

    client: Client
    database: Database
    clock: ServerClock
    jobs: Jobs
    connections: Connections
    synced: Synced
    vendor: Vendor
    connectors: dict[str, Connector]
    provider: str
    records: list[RecordJob] = field(default_factory=list)

    async def connect(self, account: str = "main", **credentials: Any) -> Connection:
        sealed = {"access_token": TOKEN, **credentials}
        return await self.connections.create("acme", self.provider, account, settings={}, credentials=sealed)

    async def start(
        self, to: Connection, *, full: bool = False, so_far: SyncSoFar | None = None, queue: str = SYNC.queue
    ) -> Handle:
        workflow_id = sync_workflow_id("acme", to.connection_id)
        new = NewJob(uuid.uuid4(), "acme", SYNC.name, workflow_id)
        async with self.database.write() as connection:
            job, _ = await self.jobs.submit(connection, new, again_after=CLOSED)
        return await self.client.start_workflow(
            SyncWorkflow.run,
            SyncRequest(
                job=JobRef(job_id=job.job_id, tenant="acme"),
                connection_id=to.connection_id,
                provider=self.provider,
                full=full,
                so_far=so_far,
            ),
            id=workflow_id,
            task_queue=queue,
            memo={"job_id": str(job.job_id)},
        )

    async def sync(self, to: Connection, *, full: bool = False) -> SyncResult:
        return await (await self.start(to, full=full)).result()

    async def ids(self, to: Connection, resource: str) -> list[str]:
        """Of live rows."""
        found = await self.synced.rows(to.connection_id, resource, limit=1_000)
        return [each.row_id for each in found if each.deleted_at is None]

    async def last_job(self) -> Job:
        found, _ = await self.jobs.list("acme", limit=1)
        return found[0]

    @activity.defn(name="job.record")
    async def record(self, order: RecordJob) -> JobRecorded:
        self.records.append(order)
        return JobRecorded(changed=await self.jobs.record(order))


@asynccontextmanager
async def sync_stage(client: Client, folder: Path, *budgets: Budget) -> AsyncIterator[SyncStage]:
    """With these budgets of the books."""
    database = Database.open(f"sqlite:///{folder}/store.db")
    await migrate(database)
    clock = ServerClock(datetime.now(UTC))
    vendor = Vendor(clock.now)
    provider = f"library-{uuid.uuid4()}"
    connector = library(provider)
    shelves, books = connector.resources
    connector = replace(connector, resources=(shelves, replace(books, budgets=budgets)))
    connections, jobs = Connections(database, clock, Sealing(KEYS)), Jobs(database, clock)
    synced = Synced(database, clock)
    stage = SyncStage(
        client=client,
        database=database,
        clock=clock,
        jobs=jobs,
        connections=connections,
        synced=synced,
        vendor=vendor,
        connectors={provider: connector},
        provider=provider,
    )
    async with httpx.AsyncClient(transport=httpx.MockTransport(vendor.answer)) as http:
        activities = SyncActivities(
            connectors=stage.connectors,
            engine=Engine(http, clock),
            connections=connections,
            synced=synced,
            limits=Limits(Budgets(database, clock), clock),
            database=database,
            jobs=jobs,
            clock=clock,
        )
        everybody = SyncAllActivities(
            connectors=stage.connectors, connections=connections, database=database, jobs=jobs
        )
        scheduled = ScheduledActivities(database=database, jobs=jobs)
        async with (
            Worker(
                client,
                task_queue=SYNC.queue,
                workflows=[SyncWorkflow, SyncAllWorkflow],
                activities=[
                    stage.record,
                    scheduled.begin,
                    activities.begin,
                    activities.finish,
                    everybody.set_limits,
                    everybody.start_syncs,
                ],
                interceptors=[_Times()],
                workflow_runner=UnsandboxedWorkflowRunner(),  # so that it shares SCHEDULED_AT with the activities
            ),
            Worker(client, task_queue=connector.queue, activities=[activities.pull_page]),
        ):
            yield stage
    await database.close()


def a_minute(limit: int) -> Budget:
    """So many books' pages a minute, kept by the store; all of them may be used."""
    return Budget("pages", limit, MINUTE, "https://library.example/limits", kept_by=KeptBy.STORE, share=1.0)


def refused(status: int, **headers: str) -> httpx.Response:
    """An answer that is no page."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=json.dumps({"message": f"no: {status}"}), headers=named)
