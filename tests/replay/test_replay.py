"""Every recorded history replays on today's workflows, and every payload in it still decodes."""

import inspect
import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from temporalio.api.common.v1 import Payload as WirePayload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from activities.broadcast import BroadcastActivities
from activities.daily_digest import DailyDigestActivities
from activities.file import FileActivities
from activities.job import JobActivities
from activities.notification import NotificationActivities
from activities.scheduled import ScheduledActivities
from activities.sync import SyncActivities
from activities.sync_all import SyncAllActivities
from runtime.converter import data_converter
from tests.replay.record import BROADCASTS, DIGESTS, NOTIFICATIONS, SYNCS
from worker import WORKFLOWS
from workflows.broadcast import BroadcastWorkflow
from workflows.step import Job

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*/*.json"))
ACTIVITIES = {
    f"{prefix}.{name}": method
    for prefix, owner in (
        ("broadcast", BroadcastActivities),
        ("daily_digest", DailyDigestActivities),
        ("file", FileActivities),
        ("job", JobActivities),
        ("notification", NotificationActivities),
        ("scheduled", ScheduledActivities),
        ("sync", SyncActivities),
        ("sync_all", SyncAllActivities),
    )
    for name, method in inspect.getmembers(owner, inspect.isfunction)
    if not name.startswith("_")
}
UPDATES = {"pause": BroadcastWorkflow.pause, "resume": BroadcastWorkflow.resume, "resolve": Job._resolve}


def history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(f"{path.parent.name}:{path.stem}", path.read_text())


def test_there_is_a_history_of_every_shape() -> None:
    shapes = {path.stem for path in HISTORIES if path.parent.name == "file"}
    assert shapes >= {"done", "failed", "parked", "retried", "discarded", "cancelled", "running"}
    assert {path.stem for path in HISTORIES if path.parent.name == "notification"} >= set(NOTIFICATIONS)
    assert {path.stem for path in HISTORIES if path.parent.name == "broadcast"} >= set(BROADCASTS)
    assert {path.stem for path in HISTORIES if path.parent.name == "daily_digest"} >= set(DIGESTS)
    assert {path.stem for path in HISTORIES if path.parent.name == "sync"} >= set(SYNCS)
    assert {path.stem for path in HISTORIES if path.parent.name == "sync_all"} == {"done"}


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_replays(path: Path) -> None:
    replayer = Replayer(workflows=WORKFLOWS, data_converter=data_converter())
    await replayer.replay_workflow(history(path))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_every_recorded_payload_decodes_to_the_type_its_code_names(path: Path) -> None:
    converter = data_converter().payload_converter
    scheduled: dict[int, str] = {}
    decoded = 0
    for event in history(path).events:
        for payload, wanted in _payloads(event, scheduled):
            value = converter.from_payload(payload, wanted)
            if isinstance(wanted, type):
                assert isinstance(value, wanted)
            decoded += 1
    assert decoded >= 2  # the request and one answer


def _payloads(event: HistoryEvent, scheduled: dict[int, str]) -> list[tuple[WirePayload, Any]]:
    if event.HasField("workflow_execution_started_event_attributes"):
        started = event.workflow_execution_started_event_attributes
        scheduled[0] = started.workflow_type.name
        return [(started.input.payloads[0], get_type_hints(_run(started.workflow_type.name))["request"])]
    if event.HasField("activity_task_scheduled_event_attributes"):
        ordered = event.activity_task_scheduled_event_attributes
        scheduled[event.event_id] = ordered.activity_type.name
        return [(ordered.input.payloads[0], get_type_hints(ACTIVITIES[ordered.activity_type.name])["order"])]
    if event.HasField("activity_task_completed_event_attributes"):
        done = event.activity_task_completed_event_attributes
        method = ACTIVITIES[scheduled[done.scheduled_event_id]]
        return [(done.result.payloads[0], get_type_hints(method)["return"])]
    if event.HasField("workflow_execution_completed_event_attributes"):
        ended = event.workflow_execution_completed_event_attributes
        return [(ended.result.payloads[0], get_type_hints(_run(scheduled[0]))["return"])]
    return _more_payloads(event)


def _more_payloads(event: HistoryEvent) -> list[tuple[WirePayload, Any]]:
    if event.HasField("marker_recorded_event_attributes"):
        return _local_result(event)
    if event.HasField("start_child_workflow_execution_initiated_event_attributes"):
        child = event.start_child_workflow_execution_initiated_event_attributes
        return [(child.input.payloads[0], get_type_hints(_run(child.workflow_type.name))["request"])]
    if event.HasField("workflow_execution_update_accepted_event_attributes"):
        asked = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
        hints = get_type_hints(UPDATES[asked.name])
        wanted = [hint for name, hint in hints.items() if name != "return"]
        return list(zip(asked.args.payloads, wanted, strict=True))
    return []


def _local_result(event: HistoryEvent) -> list[tuple[WirePayload, Any]]:
    marker = event.marker_recorded_event_attributes
    assert marker.marker_name == "core_local_activity"
    if "result" not in marker.details:
        return []
    kind = json.loads(marker.details["data"].payloads[0].data)["activity_type"]
    return [(marker.details["result"].payloads[0], get_type_hints(ACTIVITIES[kind])["return"])]


def _run(name: str) -> Any:
    return next(each.run for each in WORKFLOWS if each.__name__.lower() == f"{name.replace('_', '')}workflow")
