"""The worker: settings in, collaborators built, one Temporal worker per queue. No logic.

    python worker.py                     all queues that have job types
    python worker.py --queue files       only these
    python worker.py --without files     all but these
    python worker.py --nice 19           at this priority of the operating system

SIGTERM and SIGINT drain: no new work, running activities finish or hand over their place, then exit code 0. A second
signal hurries.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
import uvloop
from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, UnsandboxedWorkflowRunner, Worker

from activities.adapters import images, inspection, ocr
from activities.adapters.channels.channel import Channel
from activities.adapters.channels.configured import ChannelMisconfigured, channels
from activities.broadcast import BroadcastActivities
from activities.broadcast_chunk import ChunkPlanner
from activities.bulk_delivery import BulkDelivery
from activities.connectors.engine import Engine
from activities.connectors.known import known
from activities.connectors.vendor_http import vendor_http
from activities.daily_digest import DailyDigestActivities
from activities.delivery import Delivery
from activities.file import FileActivities, FileTools
from activities.job import JobActivities
from activities.notification import SEND, NotificationActivities
from activities.scheduled import ScheduledActivities
from activities.scratch import Scratch
from activities.sync import SyncActivities
from activities.sync_all import SyncAllActivities
from activities.sync_limits import Limits
from activities.templates import TemplateBroken, Templates
from activities.unsubscribe import Unsubscribing
from contracts.catalogue import BROADCAST, FILE, NOTIFICATION, QUEUES, SYNC, Queue
from contracts.payloads.notification import ChannelName
from runtime import collector, telemetry
from runtime.clock import SystemClock
from runtime.cpu_pool import CpuPool
from runtime.drain import drain_on_signal
from runtime.log_context import LogContext
from runtime.profile import ProfileError
from runtime.settings import Settings
from runtime.temporal import TemporalUnreachable, connect
from store.blobs import Blobs
from store.broadcasts import Broadcasts
from store.budgets import Budgets
from store.connections import Connections
from store.database import Database, DatabaseUnavailable, NeedsMigration
from store.digests import Digests
from store.effects import Effects
from store.events import Events
from store.files import Files
from store.jobs import Jobs
from store.notifications import Notifications
from store.people import People
from store.recipients import Recipients
from store.sealed import Sealing
from store.suppressions import Suppressions
from store.synced import Synced
from workflows.broadcast import BroadcastWorkflow
from workflows.daily_digest import DailyDigestWorkflow
from workflows.file import FileWorkflow
from workflows.notification import NotificationWorkflow
from workflows.sync import SyncWorkflow
from workflows.sync_all import SyncAllWorkflow

log = structlog.get_logger("worker")

MAX_HEARTBEAT_WAIT = timedelta(seconds=2)  # a cancelled activity learns of it with its next heartbeat
POLLERS = 5  # of a queue: Temporal's default
WORKFLOWS = (
    BroadcastWorkflow,
    DailyDigestWorkflow,
    FileWorkflow,
    NotificationWorkflow,
    SyncAllWorkflow,
    SyncWorkflow,
)
SERVED = (NOTIFICATION.queue, BROADCAST.queue, FILE.queue, SYNC.queue)  # queues whose job types exist
REFUSALS = (
    ChannelMisconfigured,
    DatabaseUnavailable,
    NeedsMigration,
    ProfileError,
    TemplateBroken,
    TemporalUnreachable,
)


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What activities are made of; one of each per process."""

    jobs: Jobs
    file: FileActivities
    notification: NotificationActivities
    broadcast: BroadcastActivities
    scheduled: ScheduledActivities
    daily_digest: DailyDigestActivities
    sync: SyncActivities
    sync_all: SyncAllActivities

    def activities_of(self, queue: Queue) -> list[Callable[..., Any]]:
        """The activities that run on `queue`."""
        if queue.vendor:
            return [self.sync.pull_page]
        record = [JobActivities(jobs=self.jobs).record]
        notifying: list[Callable[..., Any]] = [
            self.notification.decide,
            self.notification.claim_deferred,
            self.notification.send,
        ]
        of_queue: dict[str, list[Callable[..., Any]]] = {
            FILE.queue: [
                self.file.verify,
                self.file.make_thumbnails,
                self.file.read_page,
                self.file.publish_text,
            ],
            NOTIFICATION.queue: notifying,
            BROADCAST.queue: [
                *notifying,
                self.broadcast.plan,
                self.broadcast.send_chunk,
                self.broadcast.hand_over,
                self.broadcast.note,
                self.scheduled.begin,
                self.daily_digest.pick_tenants,
                self.daily_digest.collect,
                self.daily_digest.note_started,
            ],
            SYNC.queue: [
                self.scheduled.begin,
                self.sync.begin,
                self.sync.finish,
                self.sync_all.set_limits,
                self.sync_all.start_syncs,
            ],
        }
        return [*record, *of_queue[queue.name]]


def build_workers(
    client: Client, collaborators: Collaborators, queues: Sequence[Queue], drain: timedelta
) -> list[Worker]:
    """A worker for each queue. A vendor's has one poller: each that waits could take a task of the rate."""
    return [
        Worker(
            client,
            task_queue=queue.name,
            workflows=() if queue.vendor else WORKFLOWS,
            activities=collaborators.activities_of(queue),
            interceptors=[LogContext()],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_concurrent_activities=queue.activities_at_once,
            disable_eager_activity_execution=queue.vendor,
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(1 if queue.vendor else POLLERS),
            max_heartbeat_throttle_interval=MAX_HEARTBEAT_WAIT,
            default_heartbeat_throttle_interval=MAX_HEARTBEAT_WAIT,
            graceful_shutdown_timeout=drain,
        )
        for queue in queues
    ]


async def run(settings: Settings, names: Sequence[str], without: Sequence[str]) -> int:
    """Work until a signal; the exit code."""
    connectors = known(settings.connector_hosts, settings.connector_speed)
    served = [queue for queue in QUEUES if queue.name in SERVED]
    served += [Queue(each.queue, settings.vendor_pages_at_once, vendor=True) for each in connectors.values()]
    queues = [queue for queue in served if (not names or queue.name in names) and queue.name not in without]
    unknown = {*names, *without} - {queue.name for queue in served}
    if unknown:
        log.error("queue.unknown", unknown=sorted(unknown), known=[queue.name for queue in served])
        return 2
    database = Database.open(settings.resolved_database_url(), settings.resolved_ledger_url())
    pool = CpuPool(settings.cpu_processes)
    reachable: dict[ChannelName, Channel] = {}
    vendors = vendor_http()
    try:
        reachable = channels(settings)
        templates = Templates(settings.templates_dir)
        templates.check()
        await database.ping()
        client = await connect(settings, role="worker")
        clock = SystemClock()
        jobs = Jobs(database, clock)
        blobs = Blobs.open(settings.resolved_blobs_url())
        people = People(database, clock)
        suppressions = Suppressions(database, clock, max_drops_an_hour=settings.max_drops_per_hour)
        notifications, effects, budgets = (
            Notifications(database, clock),
            Effects(database, clock),
            Budgets(database, clock),
        )
        connections = Connections(database, clock, Sealing(settings.resolved_credentials_keys()))
        unsubscribing = Unsubscribing(settings.resolved_signing_key(), settings.resolved_public_url())
        collaborators = Collaborators(
            jobs=jobs,
            broadcast=BroadcastActivities(
                database=database,
                broadcasts=Broadcasts(database, clock),
                recipients=Recipients(database, clock),
                jobs=jobs,
                notifications=notifications,
                people=people,
                planner=ChunkPlanner(
                    people=people,
                    suppressions=suppressions,
                    templates=templates,
                    unsubscribing=unsubscribing,
                    configured=frozenset(reachable),
                ),
                delivery=BulkDelivery(
                    step=SEND,
                    channels=reachable,
                    effects=effects,
                    budgets=budgets,
                    suppressions=suppressions,
                    people=people,
                    clock=clock,
                ),
                clock=clock,
            ),
            scheduled=ScheduledActivities(database=database, jobs=jobs),
            sync=SyncActivities(
                connectors=connectors,
                engine=Engine(vendors, clock),
                connections=connections,
                synced=Synced(database, clock),
                limits=Limits(budgets, clock),
                database=database,
                jobs=jobs,
                clock=clock,
            ),
            sync_all=SyncAllActivities(connectors=connectors, connections=connections, database=database, jobs=jobs),
            daily_digest=DailyDigestActivities(
                database=database,
                events=Events(database, clock),
                digests=Digests(database, clock),
                recipients=Recipients(database, clock),
                broadcasts=Broadcasts(database, clock),
                jobs=jobs,
                templates=templates,
                clock=clock,
            ),
            notification=NotificationActivities(
                notifications=notifications,
                jobs=jobs,
                people=people,
                suppressions=suppressions,
                delivery=Delivery(
                    channels=reachable,
                    effects=effects,
                    budgets=budgets,
                    suppressions=suppressions,
                    people=people,
                    clock=clock,
                ),
                templates=templates,
                unsubscribing=unsubscribing,
                blobs=blobs,
                clock=clock,
            ),
            file=FileActivities(
                files=Files(database, clock, jobs),
                blobs=blobs,
                scratch=Scratch(blobs=blobs, folder=settings.data_dir / "scratch" / str(os.getpid())),
                pool=pool,
                tools=FileTools(inspect=inspection.inspect, thumbnails=images.thumbnails, read_page=ocr.read_page),
            ),
        )
        drain = timedelta(seconds=settings.drain_seconds)
        workers = build_workers(client, collaborators, queues, drain)
        if any(queue.name == FILE.queue for queue in queues):
            pool.warm_up(ocr.warm)
        log.info(
            "worker.started",
            queues=[queue.name for queue in queues],
            cpu_processes=pool.children,
            channels=sorted(reachable),
        )
        collector.started()
        await drain_on_signal(workers, drain)
    except REFUSALS as error:
        log.error("worker.refused", reason=str(error))  # noqa: TRY400 - the sentence says what to do
        return 1
    finally:
        pool.close()
        for channel in reachable.values():
            await channel.close()
        await vendors.aclose()
        await database.close()
    log.info("worker.stopped")
    return 0


def main() -> None:
    """Parse, run, and leave by os._exit: the interpreter can abort at exit after a worker was used.

    https://github.com/temporalio/sdk-python/issues/300
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queue", action="append", default=[], help="a queue to serve; may be repeated")
    parser.add_argument("--without", action="append", default=[], help="a queue not to serve; may be repeated")
    parser.add_argument("--nice", type=int, default=0, help="how much to yield to other processes, 0 to 19")
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    settings = Settings()
    telemetry.configure_logging(settings)
    telemetry.configure_tracing("holdfast-worker", settings)
    code = uvloop.run(run(settings, arguments.queue, arguments.without))
    telemetry.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
