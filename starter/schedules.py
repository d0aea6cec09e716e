"""The Temporal Schedules of this system, as values, and what brings the server in line with them.

https://docs.temporal.io/develop/python/schedules
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes

from activities.digest_due import CATCH_UP
from contracts.catalogue import DAILY_DIGEST, SYNC_ALL, JobType
from contracts.payloads.daily_digest import DailyDigestRequest
from contracts.payloads.model import Order
from contracts.payloads.scheduled import OF_NO_TENANT
from contracts.payloads.sync import SyncAllRequest
from contracts.search_attributes import JOB_TYPE, TENANT
from workflows.daily_digest import DailyDigestWorkflow
from workflows.sync_all import SyncAllWorkflow


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A schedule. Its runs' workflow ids are `schedule_id` and the nominal time.

    `catch_up`: runs missed for longer, while the server was down, are left out. Temporal's own default is a year.
    """

    schedule_id: str
    job_type: JobType
    run: Callable[[Any, Any], Awaitable[Any]]
    request: Order
    spec: ScheduleSpec
    catch_up: timedelta
    note: str

    def schedule(self) -> Schedule:
        """Temporal's form. A run that is due while the one before it runs is left out."""
        return Schedule(
            action=ScheduleActionStartWorkflow(
                self.run,
                self.request,
                id=self.schedule_id,
                task_queue=self.job_type.queue,
                typed_search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(TENANT, OF_NO_TENANT),
                        SearchAttributePair(JOB_TYPE, self.job_type.name),
                    ]
                ),
                priority=Priority(priority_key=self.job_type.priority.value, fairness_key=OF_NO_TENANT),
            ),
            spec=self.spec,
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=self.catch_up),
            state=ScheduleState(note=self.note),
        )


SCHEDULES = (
    Scheduled(
        "daily-digest",
        DAILY_DIGEST,
        DailyDigestWorkflow.run,
        DailyDigestRequest(),
        # Zones differ from UTC by multiples of 15 minutes, so a digest at a quarter hour goes out on time.
        ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(minutes=15))]),
        CATCH_UP,
        "digests of the tenants whose local time has come",
    ),
    Scheduled(
        "sync-all",
        SYNC_ALL,
        SyncAllWorkflow.run,
        SyncAllRequest(),
        ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(minutes=15))]),
        timedelta(minutes=15),
        "each connection, once in a quarter of an hour",
    ),
)


async def apply(client: Client, schedules: tuple[Scheduled, ...] = SCHEDULES) -> list[str]:
    """Make or change the server's schedules; what was done, nothing where all was so.

    A pause, the note that says why, and a number of remaining runs are the operator's and stay.
    """
    changed = []
    for each in schedules:
        try:
            await client.create_schedule(each.schedule_id, each.schedule())
        except ScheduleAlreadyRunningError:
            if await _update(client, each):
                changed.append(f"{each.schedule_id} changed")
        else:
            changed.append(f"{each.schedule_id} made")
    return changed


async def _update(client: Client, wanted: Scheduled) -> bool:
    handle = client.get_schedule_handle(wanted.schedule_id)
    found = (await handle.describe()).schedule
    action = found.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    request = await client.data_converter.decode(action.args, [type(wanted.request)])
    if [_told(found), *request] == [_told(wanted.schedule()), wanted.request]:
        return False

    def changed(now: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule = wanted.schedule()
        schedule.state = now.description.schedule.state
        return ScheduleUpdate(schedule)

    await handle.update(changed)
    return True


def _told(schedule: Schedule) -> tuple[object, ...]:
    """All that `Scheduled` says besides the request; the server adds more.

    A cron expression comes back as a calendar and would always look changed: write calendars.
    """
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    return (
        schedule.spec,
        schedule.policy,
        action.workflow,
        action.id,
        action.task_queue,
        action.priority,
        action.typed_search_attributes,
    )
