"""The catalogue's numbers are promises: each is written here a second time, so that none changes by accident."""

from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.workflow import _Definition as Definition

from contracts.catalogue import (
    HEARTBEAT,
    JOB_TYPES,
    NAMESPACE_RETENTION,
    QUEUES,
    RECORD,
    Retry,
    WhenExhausted,
    exponential,
    fixed,
    job_type,
    steps,
)
from worker import WORKFLOWS

PARK, FAIL, PAUSE = WhenExhausted.PARK, WhenExhausted.FAIL, WhenExhausted.PAUSE
# queue, attempts, first wait in s, factor, newest completed, completed days, failed days, when exhausted, priority
TABLE = {
    "notification": ("notifications", 3, 5, 2, 5_000, None, 7, PARK, 3),
    "broadcast": ("notifications-bulk", 3, 5, 2, 100, None, 14, PAUSE, 5),
    "daily_digest": ("notifications-bulk", 3, 5, 2, 100, None, 7, FAIL, 5),
    "sync": ("integrations", 5, 60, 2, 2_000, None, 14, FAIL, 3),
    "sync_all": ("integrations", 5, 60, 2, 200, None, 14, FAIL, 3),
    "report": ("reports", 2, 30, 1, None, 1, 14, PARK, 3),
    "weekly_usage": ("reports", 2, 30, 1, None, 10, 14, FAIL, 3),
    "file": ("files", 3, 10, 2, 1_000, None, 14, PARK, 2),
    "erase": ("maintenance", 5, 10, 2, None, 30, 30, PARK, 3),
    "export": ("maintenance", 5, 10, 2, None, 30, 30, PARK, 3),
    "cleanup": ("maintenance", 5, 10, 2, 200, None, 14, FAIL, 3),
    "retention": ("maintenance", 5, 10, 2, 200, None, 14, FAIL, 3),
    "redrive": ("maintenance", 5, 10, 2, 200, None, 14, FAIL, 3),
}


def test_every_job_type_has_the_promised_numbers() -> None:
    found = {
        row.name: (
            row.queue,
            row.retry.attempts,
            row.retry.first.total_seconds(),
            row.retry.factor,
            row.keep.completed_newest,
            row.keep.completed_age.days if row.keep.completed_age else None,
            row.keep.failed.days,
            row.when_exhausted,
            row.priority.value,
        )
        for row in JOB_TYPES
    }
    assert found == TABLE


def test_overall_four_times_as_many_are_kept() -> None:
    assert job_type("notification").keep.completed_newest_overall == 20_000
    assert job_type("report").keep.completed_newest_overall is None


def test_every_step_that_may_exceed_five_seconds_heartbeats() -> None:
    for row, step in steps():
        assert step.schedule_to_close >= step.start_to_close, (row.name, step.name)
        if step.start_to_close > timedelta(seconds=5) and replace(RECORD, name=step.name) != step:
            assert step.heartbeat == HEARTBEAT, (row.name, step.name)


def test_every_queue_of_a_job_type_exists_and_every_name_is_used_once() -> None:
    assert {row.queue for row in JOB_TYPES} == {queue.name for queue in QUEUES}
    assert len({row.name for row in JOB_TYPES}) == len(JOB_TYPES)
    for row in JOB_TYPES:
        names = [step.name for step in row.steps]
        assert len(set(names)) == len(names)


def test_histories_outlive_every_line_of_the_table() -> None:
    lines = [age for row in JOB_TYPES for age in (row.keep.failed, row.keep.completed_age) if age]
    assert max(lines) < NAMESPACE_RETENTION


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        (exponential(3, first_seconds=5), [5, 10]),
        (exponential(5, first_seconds=60), [60, 120, 240, 480]),
        (fixed(2, seconds=30), [30]),
        (Retry(10, timedelta(minutes=20)), [1200, 2400, 3600, 3600]),
    ],
)
def test_waits_between_attempts(retry: Retry, waits: list[int]) -> None:
    assert [retry.wait_after(error + 1).total_seconds() for error in range(len(waits))] == waits


def test_temporals_policy_goes_on_where_a_lost_worker_left_off() -> None:
    policy = job_type("sync").step("pull_page").policy(errors_before=2)
    assert (policy.maximum_attempts, policy.initial_interval) == (3, timedelta(seconds=240))
    assert policy.non_retryable_error_types == ("WorkerShutdown", "TemporalTimeout:Heartbeat")


def test_without_heartbeats_the_first_sign_of_a_lost_worker_is_the_start_to_close_timeout() -> None:
    policy = job_type("notification").step("decide").policy()
    assert policy.non_retryable_error_types == ("WorkerShutdown", "TemporalTimeout:StartToClose")


def test_an_unknown_row_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="known are notification, broadcast"):
        job_type("fax")
    with pytest.raises(KeyError, match="read_page"):
        job_type("file").step("ocr")


def test_every_workflow_is_a_job_type_and_every_job_type_records() -> None:
    for workflow in WORKFLOWS:
        assert job_type(Definition.must_from_class(workflow).name or "")
    assert job_type("file").step("record") == RECORD
