"""What waited for the same person goes as one message, and nothing is lost whatever becomes of who carries it."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowFailureError
from temporalio.testing import WorkflowEnvironment

from activities.adapters.channels.channel import Outcome, Verdict
from contracts.payloads.job import JobRef, JobState, RecordJob, Resolve
from contracts.payloads.notification import (
    ChannelName,
    ClaimDeferred,
    Decide,
    Decided,
    NotificationResult,
    TargetOutcome,
    TargetResult,
)
from store.effects import EffectKey
from store.notifications import AttachedFile
from tests.workflows.notification_stage import SENT, Handle, NotificationStage, notification_stage, until_parked

pytestmark = pytest.mark.asyncio(loop_scope="session")
EMAIL = ChannelName.EMAIL
BROKEN = Outcome(Verdict.FIX_OURS, "5.6.0", "content rejected")


@pytest_asyncio.fixture(loop_scope="session")
async def stage(client: Client, tmp_path: Path) -> AsyncIterator[NotificationStage]:
    async with notification_stage(client, tmp_path) as made:
        await made.person()
        yield made


def past() -> datetime:
    """The end of quiet hours that are just over."""
    return datetime.now(UTC) - timedelta(minutes=1)


def merged_into(result: NotificationResult, carrier: uuid.UUID) -> bool:
    return (result.outcome, result.merged_into) == ("merged", carrier)


def subjects(stage: NotificationStage) -> list[str]:
    return [message.content.subject for message in stage.messages()]


async def ended(stage: NotificationStage, job_id: uuid.UUID, state: JobState, outcome: str | None = None) -> None:
    now = datetime.now(UTC)
    result = {"outcome": outcome} if outcome else None
    ref = JobRef(job_id=job_id, tenant="acme")
    await stage.jobs.record(RecordJob(job=ref, state=state, first_run_id="r", started_at=now, at=now, result=result))


async def claim(stage: NotificationStage, job_id: uuid.UUID) -> None:
    """What the workflow does first, by a worker that dies before Temporal hears of it."""
    job = JobRef(job_id=job_id, tenant="acme")
    decided = await stage.activities.decide(Decide(job=job))
    assert isinstance(decided, Decided)
    await stage.activities.claim_deferred(ClaimDeferred(job=job, routes=decided.routes))


async def test_a_worker_that_dies_after_merging_loses_nothing(stage: NotificationStage) -> None:
    carrier, *others = [await stage.waiting(past(), subject=each) for each in ("First", "Second", "Third")]
    await claim(stage, carrier)
    late = await stage.waiting(past(), subject="Late")
    result = await (await stage.start(carrier)).result()
    assert (result.outcome, set(result.merged)) == ("sent", set(others))
    for each in others:
        assert merged_into(await (await stage.start(each)).result(), carrier)
    assert (await (await stage.start(late)).result()).outcome == "sent"
    assert subjects(stage) == ["3 new messages", "Late"]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [(JobState.FAILED, None), (JobState.CANCELLED, None), (JobState.DONE, "expired"), (JobState.DONE, "undeliverable")],
)
async def test_who_is_carried_by_a_job_that_reaches_nobody_goes_without_it(
    stage: NotificationStage, state: JobState, outcome: str | None
) -> None:
    carrier, one, two = [await stage.waiting(past(), subject=each) for each in ("Carrier", "One", "Two")]
    await claim(stage, carrier)
    await ended(stage, carrier, state, outcome)
    results = [await (await stage.start(each)).result() for each in (one, two)]
    assert [each.outcome for each in results] == ["sent", "sent"]
    assert subjects(stage) == ["One", "Two"]


async def test_who_is_carried_waits_for_the_end_of_its_carrier(
    stage: NotificationStage, env: WorkflowEnvironment
) -> None:
    stage.channels[EMAIL].script = [BROKEN, SENT]
    carrier, other = [await stage.waiting(past(), subject=each) for each in ("Carrier", "Other")]
    with env.with_time_skipping_disabled():
        first, second = await stage.start(carrier), await stage.start(other)
        await until_parked(first)
        await first.execute_update("resolve", Resolve(action="retry"))
        assert (await first.result()).outcome == "sent"
        assert merged_into(await second.result(), carrier)
    assert subjects(stage) == ["2 new messages"] * 2


async def test_what_its_carrier_does_not_send_in_time_goes_alone_at_the_end_of_its_life(
    stage: NotificationStage, env: WorkflowEnvironment
) -> None:
    """As where the carrier is parked, or was terminated in Temporal without a word to the store."""
    stage.channels[EMAIL].script = [BROKEN, SENT]
    carrier = await stage.waiting(past(), subject="Carrier")
    other = await stage.waiting(past(), subject="Other", lives=timedelta(minutes=2))
    with env.with_time_skipping_disabled():
        first = await stage.start(carrier)
        await until_parked(first)
        second = await stage.start(other)
    await env.fast_forward(second, timedelta(minutes=5))
    assert (await second.result()).outcome == "sent"
    at, _, message = stage.channels[EMAIL].sent[-1]
    assert message.content.subject == "Other"
    assert timedelta() < message.expires_at - at < timedelta(seconds=5)
    await first.execute_update("resolve", Resolve(action="retry"))
    assert (await first.result()).outcome == "sent"
    assert subjects(stage)[1:] == ["Other", "Carrier"]


async def test_what_left_with_a_carrier_stays_sent_whatever_became_of_the_carrier(stage: NotificationStage) -> None:
    for state in (JobState.CANCELLED, JobState.FAILED, JobState.RUNNING):
        carrier, other = [await stage.waiting(past(), subject=each) for each in ("Carrier", "Other")]
        await claim(stage, carrier)
        sent = TargetResult(target="phone", channel=ChannelName.FCM, outcome=TargetOutcome.SENT)
        await stage.effects.claim_many(
            "notification.send", [EffectKey(str(carrier), "phone"), EffectKey(str(carrier), "tablet")]
        )
        await stage.effects.settle(str(carrier), "notification.send", "phone", sent.model_dump(mode="json"))
        if state.closed:
            await ended(stage, carrier, state)
        assert merged_into(await (await stage.start(other)).result(), carrier)
    assert stage.messages() == []


async def test_who_wakes_after_its_life_learns_that_it_was_carried(stage: NotificationStage) -> None:
    carrier = await stage.waiting(past(), subject="Carrier")
    other = await stage.waiting(past(), subject="Other", lives=timedelta(seconds=1))
    assert (await (await stage.start(carrier)).result()).merged == (other,)
    await asyncio.sleep(1)
    assert merged_into(await (await stage.start(other)).result(), carrier)


async def test_what_is_cancelled_after_it_was_merged_is_not_said(stage: NotificationStage) -> None:
    carrier, other = [await stage.waiting(past(), subject=each) for each in ("Carrier", "Other")]
    await claim(stage, carrier)
    await ended(stage, other, JobState.CANCELLED)
    await (await stage.start(carrier)).result()
    assert subjects(stage) == ["Carrier"]


async def test_of_a_crowd_that_wakes_at_once_one_looks_at_the_others(
    stage: NotificationStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await stage.waiting(past(), subject=f"Message {number}") for number in range(40)]
    looks = []
    waiting = stage.notifications.waiting

    async def counted(*args: Any, **more: Any) -> Any:
        looks.append(1)
        return await waiting(*args, **more)

    monkeypatch.setattr(stage.notifications, "waiting", counted)
    handles = [await stage.start(each) for each in ids]
    outcomes = Counter([(await handle.result()).outcome for handle in handles])
    assert outcomes == {"sent": 1, "merged": 39}
    assert len(looks) == 1
    assert subjects(stage) == ["40 new messages"]


async def test_what_would_be_cut_in_a_digest_goes_alone(stage: NotificationStage) -> None:
    words = "word " * 300
    alone = await stage.waiting(past(), subject="Long", content={"subject": "Long", "text": words})
    linked = {"subject": "Linked", "text": words, "url": "https://app.example.com"}
    carried = await stage.waiting(past(), subject="Linked", content=linked)
    result = await (await stage.submit_deferred(past(), subject="Carrier")).result()
    assert result.merged == (carried,)
    assert (await (await stage.start(alone)).result()).merged == ()


async def test_a_discarded_carrier_lets_the_others_go(stage: NotificationStage, env: WorkflowEnvironment) -> None:
    stage.channels[EMAIL].script = [BROKEN, SENT]
    carrier, other = [await stage.waiting(past(), subject=each) for each in ("Carrier", "Other")]
    with env.with_time_skipping_disabled():
        first: Handle = await stage.start(carrier)
        await until_parked(first)
        await first.execute_update("resolve", Resolve(action="discard", reason="wrong"))
        with pytest.raises(WorkflowFailureError):
            await first.result()
    assert (await (await stage.start(other)).result()).outcome == "sent"
    assert subjects(stage)[-1] == "Other"


async def test_what_cannot_be_part_of_a_digest_goes_alone(stage: NotificationStage) -> None:
    stored = AttachedFile("a.txt", "text/plain", await blob(stage))
    for more in (
        {"mandatory": True},
        {"attachments": (stored,)},
        {"every": True},
        {"template": "does_not_exist", "content": None},
    ):
        alone = await stage.waiting(past(), subject="Alone", **more)
        await stage.waiting(past(), subject="Other")
        result = await (await stage.submit_deferred(past(), subject="Carrier")).result()
        assert (result.outcome, alone in result.merged) == ("sent", False), more
        if "template" not in more:
            told = await (await stage.start(alone)).result()
            assert (told.outcome, told.merged) == ("sent", ())
            assert stage.messages()[-1].content.subject == "Alone"


async def blob(stage: NotificationStage) -> str:
    await stage.blobs.put("k", b"attached")
    return "k"


async def test_a_job_that_was_cancelled_while_it_waited_is_in_no_digest(stage: NotificationStage) -> None:
    gone, kept = [await stage.waiting(past(), subject=each) for each in ("Gone", "Kept")]
    await ended(stage, gone, JobState.CANCELLED)
    result = await (await stage.submit_deferred(past(), subject="Carrier")).result()
    assert result.merged == (kept,)


async def test_no_digest_is_larger_than_fifty_messages(stage: NotificationStage) -> None:
    waiting = [await stage.waiting(past(), subject=f"Message {number}") for number in range(60)]
    result = await (await stage.start(waiting[0])).result()
    assert len(result.merged) == 49
    left = [each for each in waiting[1:] if each not in result.merged]
    second = await (await stage.start(left[0])).result()
    assert set(second.merged) == set(left[1:])
    assert subjects(stage) == ["50 new messages", "10 new messages"]


async def test_the_link_of_a_digest_is_for_all_its_categories(stage: NotificationStage) -> None:
    await stage.waiting(past(), subject="Offer", category="offers")
    await (await stage.submit_deferred(past(), subject="News", category="news")).result()
    (message,) = stage.messages()
    assert message.unsubscribe_url is not None
    link = stage.unsubscribing.read(message.unsubscribe_url.rpartition("/")[2])
    assert link.categories == ("news", "offers")
