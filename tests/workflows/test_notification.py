"""The notification job: who is reached, when, how often; with real activities and a real store, in skipped time."""

import asyncio
import json
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment

from activities.adapters.channels.channel import (
    AfterLostReply,
    CancelledBeforeSending,
    Message,
    Outcome,
    Target,
    Verdict,
)
from activities.delivery import Place
from contracts import search_attributes
from contracts.payloads.job import JobRef, JobState, Resolve, WaitUntil
from contracts.payloads.notification import (
    ChannelName,
    NotificationResult,
    Route,
    Send,
    TargetOutcome,
    TargetResult,
)
from runtime.converter import data_converter
from runtime.server import find_binary
from store.budgets import PausedFor
from store.database import DatabaseUnavailable
from store.people import NewTarget, Person, Preference
from store.suppressions import Reason, Suppression
from tests.workflows.notification_stage import SENT, Handle, NotificationStage, notification_stage, until_parked
from workflows.notification import NotificationWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="session")

EMAIL, SLACK, FCM, APNS = ChannelName.EMAIL, ChannelName.SLACK, ChannelName.FCM, ChannelName.APNS
OUTAGE = Outcome(Verdict.RETRY, "connection", "refused", scope="email")
DEAD = Outcome(Verdict.DROP_TARGET, "UNREGISTERED")
BROKEN = Outcome(Verdict.FIX_OURS, "5.6.0", "message content rejected for ada@example.com")
REFUSED = Outcome(Verdict.AUTH, "535 5.7.8", "bad password", scope="email")


@pytest_asyncio.fixture(loop_scope="session")
async def stage(client: Client, tmp_path: Path) -> AsyncIterator[NotificationStage]:
    async with notification_stage(client, tmp_path) as made:
        yield made


def quiet_now() -> tuple[str, str]:
    """Quiet hours in UTC that hold now and for at least an hour."""
    now = datetime.now(UTC)
    return f"{now - timedelta(hours=1):%H:%M}", f"{now + timedelta(hours=2):%H:%M}"


def told(handle_result: object) -> list[tuple[str, str, int, str | None]]:
    return [
        (each.channel.value, each.outcome.value, each.attempts, each.code)
        for each in handle_result.targets  # type: ignore[attr-defined]
    ]


async def test_says_it_once_and_names_the_vendors_id(stage: NotificationStage) -> None:
    await stage.person()
    result = await (await stage.submit(subject="Welcome")).result()
    assert result.outcome == "sent"
    assert [(each.vendor_id, each.attempts) for each in result.targets] == [("v-1", 1)]
    (message,) = stage.messages()
    assert message.content.subject == "Welcome"
    assert message.unsubscribe_url is not None
    assert message.unsubscribe_url.startswith("https://acme.example/v1/unsubscribe/")
    assert [record.state for record in stage.records] == [JobState.DONE]
    assert "ada@example.com" not in str(stage.records[0].result)


async def test_a_dead_target_falls_back_to_the_next_channel_and_is_not_used_again(stage: NotificationStage) -> None:
    await stage.person(reachable=((FCM, "token-1"), (EMAIL, "ada@example.com")))
    stage.channels[FCM].script = [DEAD]
    result = await (await stage.submit(routes=(Route.PUSH, Route.EMAIL))).result()
    assert result.outcome == "sent"
    assert told(result) == [("fcm", "dropped", 1, "UNREGISTERED"), ("email", "sent", 1, None)]
    again = await (await stage.submit(routes=(Route.PUSH, Route.EMAIL))).result()
    assert told(again) == [("fcm", "suppressed", 0, "dead"), ("email", "sent", 1, None)]
    assert stage.channels[FCM].addresses == ["token-1"]


async def test_all_devices_of_a_person_are_one_route(stage: NotificationStage) -> None:
    await stage.person(reachable=((FCM, "phone"), (APNS, "ab" * 32), (EMAIL, "ada@example.com")))
    stage.channels[FCM].script = [DEAD]
    result = await (await stage.submit(routes=(Route.PUSH, Route.EMAIL))).result()
    assert result.outcome == "sent"
    assert sorted(told(result)) == [("apns", "sent", 1, None), ("fcm", "dropped", 1, "UNREGISTERED")]
    assert stage.channels[EMAIL].sent == []


async def test_every_channel_is_used_where_all_are_asked_for(stage: NotificationStage) -> None:
    await stage.person(reachable=((FCM, "phone"), (EMAIL, "ada@example.com"), (SLACK, "C1")))
    result = await (await stage.submit(routes=(Route.EMAIL, Route.PUSH), every=True)).result()
    assert sorted(told(result)) == [("email", "sent", 1, None), ("fcm", "sent", 1, None)]
    assert stage.channels[SLACK].sent == []


async def test_preferences_and_suppressions_leave_targets_out_and_say_why(stage: NotificationStage) -> None:
    wishes = (Preference("news", "email", allowed=False),)
    await stage.person(reachable=((EMAIL, "ada@example.com"), (SLACK, "C1")), wishes=wishes)
    await stage.suppressions.add("acme", SLACK, "C1", Reason.COMPLAINED)
    result = await (await stage.submit(routes=(Route.EMAIL, Route.SLACK))).result()
    assert result.outcome == "suppressed"
    assert told(result) == [("email", "muted", 0, "preference"), ("slack", "suppressed", 0, "complained")]
    other = await (await stage.submit(category="billing")).result()
    assert other.outcome == "sent"
    mandatory = await (await stage.submit(mandatory=True)).result()
    assert mandatory.outcome == "sent"
    assert stage.messages()[-1].unsubscribe_url is None


async def test_a_person_without_an_address_is_undeliverable(stage: NotificationStage) -> None:
    await stage.person(reachable=())
    assert (await (await stage.submit()).result()).outcome == "undeliverable"


async def test_quiet_hours_are_waited_out_and_urgent_messages_do_not_wait(stage: NotificationStage) -> None:
    start, end = quiet_now()
    await stage.person(quiet=(start, end), zone="UTC")
    result = await (await stage.submit(subject="Later")).result()
    assert result.outcome == "sent"
    at, _, _ = stage.channels[EMAIL].sent[0]
    assert f"{at:%H:%M}" == end
    before = datetime.now(UTC)
    await (await stage.submit(subject="Now", urgent=True)).result()
    at, _, message = stage.channels[EMAIL].sent[1]
    assert message.content.subject == "Now"
    assert at - before < timedelta(minutes=1)


async def test_what_waited_for_the_same_person_becomes_one_digest(stage: NotificationStage) -> None:
    start, end = quiet_now()
    await stage.person(quiet=(start, end), zone="UTC")
    await stage.person("grace", reachable=((EMAIL, "grace@example.com"),), quiet=(start, end), zone="UTC")
    until = (datetime.now(UTC) + timedelta(hours=2)).replace(second=0, microsecond=0)
    # every workflow has a clock of its own here: the others wait already
    second, third, muted, other = [
        await stage.waiting(until, subject=subject, **more)
        for subject, more in (
            ("Second", {}),
            ("Third", {}),
            ("Muted", {"category": "offers"}),
            ("Other person", {"person": "grace"}),
        )
    ]
    await stage.people.put(
        (await stage.people.get("acme", "ada")) or pytest.fail("no ada"),
        wishes=[Preference("offers", "*", allowed=False)],
    )
    first = await stage.submit(subject="First")
    result = await first.result()
    assert result.outcome == "sent"
    assert set(result.merged) == {second, third}
    (message,) = stage.messages()
    assert message.content.subject == "3 new messages"
    assert [line for line in message.content.text.splitlines() if line in {"First", "Second", "Third", "Muted"}] == [
        "Second",
        "Third",
        "First",
    ]
    for each in (second, third):
        merged = await (await stage.start(each)).result()
        assert (merged.outcome, merged.merged_into) == ("merged", uuid.UUID(first.id.rpartition(":")[2]))
    assert (await (await stage.start(muted)).result()).outcome == "suppressed"
    assert (await (await stage.start(other)).result()).outcome == "sent"
    assert stage.channels[EMAIL].addresses == ["ada@example.com", "grace@example.com"]


async def test_a_preference_that_changes_during_the_wait_counts(stage: NotificationStage) -> None:
    start, end = quiet_now()
    await stage.person(quiet=(start, end), zone="UTC")
    held = stage.hold_after_defer()
    handle = await stage.submit()
    await held.reached.wait()
    person = await stage.people.get("acme", "ada")
    assert person is not None
    await stage.people.put(person, wishes=[Preference("*", "*", allowed=False)])
    held.go.set()
    result = await handle.result()
    assert result.outcome == "suppressed"
    assert stage.channels[EMAIL].sent == []


async def test_a_message_that_would_wait_past_its_expiry_is_dropped(stage: NotificationStage) -> None:
    start, end = quiet_now()
    await stage.person(quiet=(start, end), zone="UTC")
    result = await (await stage.submit(lives=timedelta(minutes=30))).result()
    assert result.outcome == "expired"
    assert stage.channels[EMAIL].sent == []
    assert stage.records[-1].state is JobState.DONE


async def test_an_outage_of_ten_minutes_burns_no_attempt_and_parks_nothing(stage: NotificationStage) -> None:
    await stage.person()
    began = datetime.now(UTC)
    stage.channels[EMAIL].during = lambda now: OUTAGE if now - began < timedelta(minutes=10) else SENT
    handle = await stage.submit()
    result = await handle.result()
    assert result.outcome == "sent"
    at, _, _ = stage.channels[EMAIL].sent[-1]
    assert timedelta(minutes=10) <= at - began < timedelta(minutes=12)
    attempts = [
        event.activity_task_started_event_attributes.attempt
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert set(attempts) == {1}
    assert [record.state for record in stage.records] == [JobState.DONE]
    waits = [at - began for at, _, _ in stage.channels[EMAIL].sent]
    assert len(waits) <= 16, waits


async def test_an_outage_past_the_expiry_is_told_as_expired(stage: NotificationStage) -> None:
    await stage.person()
    stage.channels[EMAIL].script = [OUTAGE]
    result = await (await stage.submit(lives=timedelta(minutes=20))).result()
    assert result.outcome == "expired"
    assert [(each.outcome, each.code) for each in result.targets] == [(TargetOutcome.EXPIRED, "deadline")]
    assert result.targets[0].attempts == len(stage.channels[EMAIL].sent) > 5


async def test_an_unexpected_error_is_tried_three_times_and_then_parked(stage: NotificationStage) -> None:
    await stage.person()
    stage.channels[EMAIL].script = [RuntimeError("boom")]
    handle = await stage.submit()
    (parked,) = await until_parked(handle)
    assert parked.step.startswith("send email ")
    assert parked.cause == "send:RuntimeError"
    times = [at for at, _, _ in stage.channels[EMAIL].sent]
    waits = [(after - before).total_seconds() for before, after in pairwise(times)]
    assert waits == pytest.approx([5, 10], abs=2)


async def test_a_refusal_parks_without_naming_the_address_and_a_fallback_takes_over(
    stage: NotificationStage, env: WorkflowEnvironment
) -> None:
    await stage.person(reachable=((EMAIL, "ada@example.com"), (SLACK, "C1")))
    stage.channels[EMAIL].script = [BROKEN]
    with env.with_time_skipping_disabled():  # or a parked job jumps over its seven days
        handle = await stage.submit()
        other = await stage.submit()
    (parked,) = await until_parked(handle)
    assert parked.error == "email: message content rejected for <address>"
    await until_parked(other)
    await handle.execute_update("resolve", Resolve(action="discard", reason="stale"))
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ApplicationError)
    assert raised.value.cause.type == "5.6.0"
    stage.channels[EMAIL].script = [SENT]
    await other.execute_update("resolve", Resolve(action="retry"))
    assert (await other.result()).outcome == "sent"
    stage.channels[EMAIL].script = [BROKEN]
    result = await (await stage.submit(routes=(Route.EMAIL, Route.SLACK))).result()
    assert result.outcome == "partly_sent"
    assert told(result) == [("email", "failed", 1, "5.6.0"), ("slack", "sent", 1, None)]


async def test_a_refused_credential_parks_one_job_and_pauses_the_channel_for_the_others(
    stage: NotificationStage,
) -> None:
    await stage.person(reachable=((EMAIL, "ada@example.com"), (SLACK, "C1")))
    stage.channels[EMAIL].script = [REFUSED, SENT]
    first = await stage.submit()
    (parked,) = await until_parked(first)
    assert parked.cause == "send:535 5.7.8"
    (paused,) = (await stage.budgets.paused()).values()
    assert paused.paused_for is PausedFor.AUTH
    fallback = await (await stage.submit(routes=(Route.EMAIL, Route.SLACK))).result()
    assert told(fallback) == [("email", "failed", 0, "credential_refused"), ("slack", "sent", 1, None)]
    second = await (await stage.submit()).result()
    assert second.outcome == "sent"
    assert len(stage.channels[EMAIL].sent) == 2
    assert stage.channels[EMAIL].sent[1][0] - stage.channels[EMAIL].sent[0][0] > timedelta(minutes=4)


LOST = Outcome(Verdict.MAYBE_SENT, "reply_lost")


async def test_a_push_whose_reply_was_lost_is_sent_again_with_the_same_ids(stage: NotificationStage) -> None:
    await stage.person(reachable=((FCM, "phone"),))
    stage.channels[FCM].script = [LOST, SENT]
    result = await (await stage.submit(routes=(Route.PUSH,))).result()
    assert told(result) == [("fcm", "sent", 2, None)]
    first, second = stage.messages(FCM)
    assert (first.effect_id, first.notification_id) == (second.effect_id, second.notification_id)


@pytest.mark.parametrize(("resend", "sends", "outcome"), [(True, 2, "sent"), (False, 1, "maybe_sent")])
async def test_a_mail_whose_reply_was_lost_follows_the_templates_policy(
    stage: NotificationStage, resend: bool, sends: int, outcome: str
) -> None:
    await stage.person()
    stage.channels[EMAIL].after_lost_reply = AfterLostReply.BY_TEMPLATE
    stage.channels[EMAIL].script = [LOST, SENT]
    result = await (await stage.submit(resend=resend)).result()
    assert [each.outcome.value for each in result.targets] == [outcome]
    messages = stage.messages()
    assert len(messages) == sends
    assert len({message.effect_id for message in messages}) == 1


async def test_a_mail_whose_replies_are_always_lost_is_not_sent_for_ever(stage: NotificationStage) -> None:
    await stage.person()
    stage.channels[EMAIL].after_lost_reply = AfterLostReply.BY_TEMPLATE
    stage.channels[EMAIL].script = [LOST]
    result = await (await stage.submit()).result()
    assert told(result) == [("email", "maybe_sent", 4, "reply_lost")]


async def test_slack_is_asked_whether_the_lost_message_arrived(stage: NotificationStage) -> None:
    await stage.person(reachable=((SLACK, "C1"),))
    slack = stage.channels[SLACK]
    slack.after_lost_reply = AfterLostReply.CHECK
    slack.script, slack.found = [LOST], Outcome(Verdict.SENT, "ok", vendor_id="17.4")
    result = await (await stage.submit(routes=(Route.SLACK,))).result()
    assert [(each.outcome.value, each.vendor_id, each.attempts) for each in result.targets] == [("sent", "17.4", 1)]
    assert len(slack.sent) == 1


async def test_a_full_mailbox_is_counted_once_per_message(stage: NotificationStage) -> None:
    await stage.person()
    full = Outcome(Verdict.RETRY, "452 4.2.2", retry_after=timedelta(minutes=15), soft_bounce=True)
    stage.channels[EMAIL].script = [full]
    for _ in range(5):
        assert (await (await stage.submit(lives=timedelta(minutes=20))).result()).outcome == "expired"
    result = await (await stage.submit()).result()
    assert result.outcome == "suppressed"
    assert told(result) == [("email", "suppressed", 0, "mailbox_full")]


async def test_slack_messages_of_one_channel_keep_its_pace(stage: NotificationStage) -> None:
    await stage.person(reachable=((SLACK, "C1"),))
    stage.channels[SLACK].interval = timedelta(seconds=1)
    handles: list[Handle] = [await stage.submit(routes=(Route.SLACK,)) for _ in range(6)]
    for handle in handles:
        assert (await handle.result()).outcome == "sent"
    times = sorted(at for at, _, _ in stage.channels[SLACK].sent)
    assert times[-1] - times[0] > timedelta(seconds=4.5)


# --- what a crash, a stalled worker or an outage must not break ---


async def run_send(stage: NotificationStage, job_id: uuid.UUID, place: Place | None = None) -> TargetResult | WaitUntil:
    """One execution of the step outside of Temporal, at the stage's own time."""
    (target,) = stage.targets["ada"]
    order = Send(job=JobRef(job_id=job_id, tenant="acme"), target=target.target_id, channel=target.channel)
    if place is not None:
        order = order.model_copy(update={"resume": place.model_dump(mode="json")})
    env = ActivityEnvironment()
    env.info = replace(env.info, activity_type="notification.send", current_attempt_scheduled_time=stage.clock.set)
    result: TargetResult | WaitUntil = await env.run(stage.activities.send, order)
    return result


async def stored(stage: NotificationStage, **more: Any) -> uuid.UUID:
    await stage.person()
    return await stage.waiting(datetime.now(UTC), subject="Once", **more)


class WorkerKilledError(BaseException):
    """In the middle of a send."""


async def kill_in_send(stage: NotificationStage, job_id: uuid.UUID) -> None:
    stage.channels[EMAIL].script = [WorkerKilledError(), SENT]
    with pytest.raises(WorkerKilledError):
        await run_send(stage, job_id)


async def test_another_workers_claim_is_respected_for_half_a_minute(stage: NotificationStage) -> None:
    """It may be cut off from Temporal and still be sending."""
    job_id = await stored(stage)
    await kill_in_send(stage, job_id)
    waits = await run_send(stage, job_id)
    assert isinstance(waits, WaitUntil)
    assert waits.until == stage.clock.set + timedelta(seconds=30)
    assert waits.waiting_for == "the outcome of a send that a lost worker began"
    stage.clock.set += timedelta(seconds=30)
    sent = await run_send(stage, job_id, Place.model_validate(waits.place))
    assert isinstance(sent, TargetResult)
    assert (sent.outcome, sent.attempts) == (TargetOutcome.SENT, 1)
    assert len(stage.channels[EMAIL].sent) == 2


async def test_of_two_workers_that_race_for_one_effect_one_sends(stage: NotificationStage) -> None:
    job_id = await stored(stage)
    both = await asyncio.gather(run_send(stage, job_id), run_send(stage, job_id))
    assert len(stage.channels[EMAIL].sent) == 1
    assert {type(each) for each in both} <= {TargetResult, WaitUntil}
    assert sum(isinstance(each, TargetResult) for each in both) >= 1
    again = await run_send(stage, job_id)
    assert isinstance(again, TargetResult)
    assert again.outcome is TargetOutcome.SENT
    assert len(stage.channels[EMAIL].sent) == 1


async def test_what_was_sent_stays_sent_whatever_changes_afterwards(stage: NotificationStage) -> None:
    job_id = await stored(stage)
    first = await run_send(stage, job_id)
    (target,) = stage.targets["ada"]
    await stage.suppressions.add("acme", EMAIL, "ada@example.com", Reason.COMPLAINED)
    stage.clock.set += timedelta(days=2)  # past its expiry
    assert await run_send(stage, job_id) == first
    await stage.people.remove_target("acme", "ada", target.target_id)
    assert await run_send(stage, job_id) == first
    assert len(stage.channels[EMAIL].sent) == 1


@pytest.mark.parametrize("resend", [True, False])
async def test_a_store_that_goes_away_after_the_send_does_not_send_twice(
    stage: NotificationStage, monkeypatch: pytest.MonkeyPatch, resend: bool
) -> None:
    monkeypatch.setattr("activities.delivery.SETTLE_AGAIN_SECONDS", (0.01, 0.01))
    job_id = await stored(stage, resend=resend)
    stage.channels[EMAIL].after_lost_reply = AfterLostReply.BY_TEMPLATE
    settle, failures = stage.effects.settle, [3]

    async def away(*args: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise DatabaseUnavailable("away")
        await settle(*args)

    monkeypatch.setattr(stage.effects, "settle", away)
    waits = await run_send(stage, job_id)
    assert isinstance(waits, WaitUntil)
    assert waits.waiting_for == "the store, which does not answer"
    sent = await run_send(stage, job_id, Place.model_validate(waits.place))
    assert isinstance(sent, TargetResult)
    assert (sent.outcome, sent.vendor_id, sent.attempts) == (TargetOutcome.SENT, "v-1", 1)
    assert await run_send(stage, job_id) == sent
    assert len(stage.channels[EMAIL].sent) == 1


async def test_a_claim_that_could_not_be_given_back_is_not_maybe_sent(
    stage: NotificationStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stored(stage, resend=False)
    stage.channels[EMAIL].after_lost_reply = AfterLostReply.BY_TEMPLATE
    stage.channels[EMAIL].script = [OUTAGE, SENT]
    release, failures = stage.effects.release, [1]

    async def away(*args: Any, **more: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise DatabaseUnavailable("away")
        await release(*args, **more)

    monkeypatch.setattr(stage.effects, "release", away)
    waits = await run_send(stage, job_id)
    assert isinstance(waits, WaitUntil)
    stage.clock.set += timedelta(minutes=1)
    sent = await run_send(stage, job_id, Place.model_validate(waits.place))
    assert isinstance(sent, TargetResult)
    assert (sent.outcome, sent.attempts) == (TargetOutcome.SENT, 2)


def test_who_may_still_be_sending_does_not_say_whose_claim_it_is() -> None:
    """Or the next worker would take the claim for its own, and not wait."""
    place = Place(attempts=1, owner="me")
    assert place.kept(without={"owner"}) == {"attempts": 1}
    assert place.kept() == {"attempts": 1, "owner": "me"}


@pytest.mark.parametrize("then", [BROKEN, REFUSED, DEAD])
async def test_what_may_have_arrived_needs_no_fallback(stage: NotificationStage, then: Outcome) -> None:
    await stage.person(reachable=((EMAIL, "ada@example.com"), (FCM, "phone")))
    stage.channels[EMAIL].script = [LOST, then]
    result = await (await stage.submit(routes=(Route.EMAIL, Route.PUSH))).result()
    assert [(each.channel.value, each.outcome.value) for each in result.targets] == [("email", "maybe_sent")]
    assert stage.channels[FCM].sent == []


async def test_workers_that_are_always_late_send_all_the_same(stage: NotificationStage) -> None:
    stage.channels[EMAIL].interval = timedelta(seconds=1)
    await stage.person()
    ids = [await stage.waiting(datetime.now(UTC), subject=f"Message {number}") for number in range(10)]
    places: dict[uuid.UUID, Place | None] = dict.fromkeys(ids)
    due = dict.fromkeys(ids, stage.clock.set)
    began = stage.clock.set
    while due and stage.clock.set < began + timedelta(minutes=5):
        job_id = min(due, key=lambda each: due[each])
        stage.clock.set = max(stage.clock.set, due[job_id] + timedelta(seconds=6))
        answer = await run_send(stage, job_id, places[job_id])
        if isinstance(answer, WaitUntil):
            places[job_id], due[job_id] = Place.model_validate(answer.place), answer.until
        else:
            del due[job_id]
    assert due == {}


async def test_news_of_a_success_cannot_repeat_it(stage: NotificationStage, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = await stored(stage)
    await stage.budgets.pause("email", PausedFor.OUTAGE)
    stage.clock.set += timedelta(minutes=1)

    async def away(_scope: str) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(stage.budgets, "succeeded", away)
    sent = await run_send(stage, job_id)
    assert isinstance(sent, TargetResult)
    assert sent.outcome is TargetOutcome.SENT


@pytest.mark.parametrize("resend", [True, False])
async def test_who_is_cancelled_before_anything_left_is_not_maybe_sent(stage: NotificationStage, resend: bool) -> None:
    job_id = await stored(stage, resend=resend)
    stage.channels[EMAIL].after_lost_reply = AfterLostReply.BY_TEMPLATE
    stage.channels[EMAIL].script = [CancelledBeforeSending(), SENT]
    with pytest.raises(asyncio.CancelledError):
        await run_send(stage, job_id)
    sent = await run_send(stage, job_id)
    assert isinstance(sent, TargetResult)
    assert sent.outcome is TargetOutcome.SENT


async def test_a_shared_device_does_not_show_the_messages_of_who_had_it_before(stage: NotificationStage) -> None:
    job_id = await stored(stage)
    await stage.people.put(Person("acme", "grace"), [NewTarget(EMAIL, "ada@example.com")])
    told_ = await run_send(stage, job_id)
    assert isinstance(told_, TargetResult)
    assert (told_.outcome, told_.code) == (TargetOutcome.DROPPED, "target_of_another_person")
    assert stage.channels[EMAIL].sent == []


async def test_who_complains_during_an_outage_gets_nothing_after_it(stage: NotificationStage) -> None:
    job_id = await stored(stage)
    stage.channels[EMAIL].script = [OUTAGE, SENT]
    waits = await run_send(stage, job_id)
    assert isinstance(waits, WaitUntil)
    await stage.suppressions.add("acme", EMAIL, "ada@example.com", Reason.COMPLAINED)
    stage.clock.set = waits.until
    told_ = await run_send(stage, job_id, Place.model_validate(waits.place))
    assert isinstance(told_, TargetResult)
    assert (told_.outcome, told_.code) == (TargetOutcome.SUPPRESSED, "complained")


async def test_a_device_of_two_routes_gets_the_message_once(stage: NotificationStage) -> None:
    await stage.person(reachable=((FCM, "phone"),))
    result = await (await stage.submit(routes=(Route.PUSH, Route.FCM), every=True)).result()
    assert told(result) == [("fcm", "sent", 1, None)]
    assert len(stage.channels[FCM].sent) == 1


async def test_a_discarded_target_takes_nothing_from_the_others(
    stage: NotificationStage, env: WorkflowEnvironment
) -> None:
    await stage.person(reachable=((EMAIL, "ada@example.com"), (SLACK, "C1")))
    stage.channels[EMAIL].script = [BROKEN]
    stage.channels[SLACK].script = [Outcome(Verdict.RETRY, "429", retry_after=timedelta(seconds=2)), SENT]
    with env.with_time_skipping_disabled():
        handle = await stage.submit(routes=(Route.EMAIL, Route.SLACK), every=True)
        await until_parked(handle)
        await handle.execute_update("resolve", Resolve(action="discard", reason="wrong"))
        result = await handle.result()
    assert result.outcome == "partly_sent"
    assert told(result) == [("email", "failed", 0, "5.6.0"), ("slack", "sent", 2, None)]


async def test_a_job_that_fails_says_what_became_of_every_target(
    stage: NotificationStage, env: WorkflowEnvironment
) -> None:
    await stage.person(reachable=((EMAIL, "ada@example.com"), (FCM, "phone")))
    stage.channels[EMAIL].script, stage.channels[FCM].script = [BROKEN], [DEAD]
    with env.with_time_skipping_disabled():
        handle = await stage.submit(routes=(Route.EMAIL, Route.PUSH), every=True)
        await until_parked(handle)
        await handle.execute_update("resolve", Resolve(action="discard"))
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    last = stage.records[-1]
    assert last.state is JobState.FAILED
    result = NotificationResult.model_validate(last.result)
    assert sorted(told(result)) == [("email", "failed", 0, "5.6.0"), ("fcm", "dropped", 1, "UNREGISTERED")]


async def test_a_channel_that_fails_again_and_again_falls_back(stage: NotificationStage) -> None:
    await stage.person(reachable=((FCM, "phone"), (EMAIL, "ada@example.com")))
    stage.channels[FCM].script = [RuntimeError("a bug")]
    result = await (await stage.submit(routes=(Route.PUSH, Route.EMAIL))).result()
    assert result.outcome == "partly_sent"
    assert [(each.channel.value, each.outcome.value) for each in result.targets] == [
        ("fcm", "failed"),
        ("email", "sent"),
    ]
    assert len(stage.channels[FCM].sent) == 3


async def test_a_step_that_decides_is_parked_like_any_other(
    stage: NotificationStage, env: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.person()
    calls = []

    async def broken(_targets: object) -> list[Suppression]:
        calls.append(1)
        raise RuntimeError("a bug in deciding")

    monkeypatch.setattr(stage.suppressions, "of", broken)
    handle = await stage.submit()
    (parked,) = await until_parked(handle)
    assert (parked.step, parked.cause, parked.error) == ("decide", "decide:RuntimeError", "a bug in deciding")
    assert len(calls) == 3
    monkeypatch.undo()
    await handle.execute_update("resolve", Resolve(action="retry"))
    assert (await handle.result()).outcome in {"sent", "expired"}  # its clock may have skipped past its life


async def test_a_store_that_is_away_is_waited_for(stage: NotificationStage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.person()
    get, failures = stage.notifications.get, [6]

    async def away(tenant: str, notification_id: uuid.UUID) -> Any:
        if failures[0] and activity.in_activity():
            failures[0] -= 1
            raise DatabaseUnavailable("away")
        return await get(tenant, notification_id)

    monkeypatch.setattr(stage.notifications, "get", away)
    result = await (await stage.submit()).result()
    assert (result.outcome, failures) == ("sent", [0])


async def test_a_worker_without_the_channel_parks_what_it_cannot_send(
    stage: NotificationStage, env: WorkflowEnvironment
) -> None:
    await stage.person(reachable=((EMAIL, "ada@example.com"), (FCM, "phone")))
    del stage.channels[EMAIL]
    result = await (await stage.submit(routes=(Route.EMAIL, Route.PUSH))).result()
    assert told(result) == [("email", "suppressed", 0, "channel_not_configured"), ("fcm", "sent", 1, None)]
    with env.with_time_skipping_disabled():
        handle = await stage.submit(routes=(Route.EMAIL,))
        (parked,) = await until_parked(handle)
    assert parked.cause == "decide:channel_not_configured"
    assert "this worker has no settings for email" in parked.error


async def test_a_lost_reply_at_the_end_of_its_life_is_maybe_sent(stage: NotificationStage) -> None:
    await stage.person()
    stage.channels[EMAIL].script = [LOST]
    result = await (await stage.submit(lives=timedelta(seconds=4))).result()
    assert told(result) == [("email", "maybe_sent", 1, "reply_lost")]


async def test_a_full_mailbox_that_took_the_mail_in_the_end_is_not_counted(stage: NotificationStage) -> None:
    await stage.person()
    full = Outcome(Verdict.RETRY, "452 4.2.2", retry_after=timedelta(minutes=15), soft_bounce=True)
    for _ in range(6):
        stage.channels[EMAIL].script = [full, SENT]
        assert (await (await stage.submit()).result()).outcome == "sent"
    assert await stage.suppressions.list("acme") == []


async def test_one_message_that_is_refused_for_itself_does_not_stop_the_others(stage: NotificationStage) -> None:
    await stage.person()
    greylisted = Outcome(Verdict.RETRY, "450 4.1.1", retry_after=timedelta(minutes=5), scope="email")
    bad, *good = [await stage.waiting(datetime.now(UTC), subject=f"Message {number}") for number in range(6)]
    refused: list[datetime] = []

    async def send(target: Target, message: Message, *, now: datetime) -> Outcome:
        if message.notification_id == str(bad):
            refused.append(now)
            return greylisted
        return SENT

    stage.channels[EMAIL].send = send  # type: ignore[method-assign]
    began = stage.clock.set
    places: dict[uuid.UUID, Place | None] = dict.fromkeys([bad, *good])
    due = dict.fromkeys(places, began)
    while places and stage.clock.set < began + timedelta(hours=2):
        job_id = min(due, key=lambda each: (due[each], each == bad))
        stage.clock.set = max(stage.clock.set, due[job_id])
        answer = await run_send(stage, job_id, places[job_id])
        if isinstance(answer, WaitUntil):
            places[job_id], due[job_id] = Place.model_validate(answer.place), answer.until
        else:
            del places[job_id], due[job_id]
    assert set(places) == {bad}
    assert len(refused) > 5


async def test_a_vendor_that_gives_no_reason_is_tried_a_few_times(
    stage: NotificationStage, env: WorkflowEnvironment
) -> None:
    await stage.person(reachable=((FCM, "phone"),))
    stage.channels[FCM].script = [Outcome(Verdict.RETRY, "UNSPECIFIED_ERROR", at_most=2)]
    with env.with_time_skipping_disabled():
        handle = await stage.submit(routes=(Route.FCM,))
        (parked,) = await until_parked(handle)
    assert parked.cause == "send:UNSPECIFIED_ERROR"
    assert len(stage.channels[FCM].sent) == 2


async def test_a_subscription_that_moved_is_known_by_its_new_address(stage: NotificationStage) -> None:
    job_id = await stored(stage)
    stage.channels[EMAIL].script = [Outcome(Verdict.SENT, "250", moved_to="new@example.com")]
    await run_send(stage, job_id)
    assert [each.address for each in await stage.people.targets("acme", "ada")] == ["new@example.com"]


def payloads(value: Any) -> str:
    """Every payload of a history, decoded, and every other text."""
    if isinstance(value, dict):
        if set(value) >= {"metadata", "data"}:
            return b64decode(value["data"]).decode(errors="replace")
        return " ".join(payloads(each) for each in value.values())
    return " ".join(payloads(each) for each in value) if isinstance(value, list) else str(value)


async def test_waits_name_neither_person_nor_address(stage: NotificationStage) -> None:
    await stage.person(reachable=((SLACK, "U024BE7LH"),))
    slack = stage.channels[SLACK]
    slack.scope = "slack:T1:U024BE7LH"
    slack.script = [Outcome(Verdict.RETRY, "429", retry_after=timedelta(seconds=2), scope=slack.scope), SENT]
    first, second = await stage.submit(routes=(Route.SLACK,)), await stage.submit(routes=(Route.SLACK,))
    for handle in (first, second):
        assert (await handle.result()).outcome == "sent"
        assert "U024BE7LH" not in payloads(json.loads((await handle.fetch_history()).to_json()))


@asynccontextmanager
async def short_histories(folder: Path) -> AsyncIterator[tuple[WorkflowEnvironment, NotificationStage]]:
    """Where a run is asked to continue as new after 60 events."""
    async with (
        await WorkflowEnvironment.start_time_skipping_v2(
            data_converter=data_converter(),
            dev_server_existing_path=find_binary(),
            dev_server_startup_timeout=timedelta(seconds=60),
            dev_server_log_level="error",
            search_attributes=list(search_attributes.ALL),
            dev_server_extra_args=[
                *("--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"),
                *("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60"),
            ],
        ) as env,
        notification_stage(env.client, folder) as stage,
    ):
        yield env, stage


async def test_a_long_outage_continues_as_new_and_remembers_what_is_done(tmp_path: Path) -> None:
    async with short_histories(tmp_path) as (env, stage):
        await stage.person(reachable=((EMAIL, "ada@example.com"), (FCM, "phone"), (APNS, "ab" * 32)))
        stage.channels[EMAIL].script = [*[OUTAGE] * 12, SENT]
        stage.channels[APNS].script = [BROKEN]
        with env.with_time_skipping_disabled():
            handle = await stage.submit(routes=(Route.EMAIL, Route.PUSH), every=True)
            await until_parked(handle)
            await handle.execute_update("resolve", Resolve(action="discard", reason="wrong"))
        first_started = (await handle.describe()).start_time
        await env.fast_forward(handle, timedelta(hours=1))
        newest = env.client.get_workflow_handle_for(NotificationWorkflow.run, handle.id)
        result = await newest.result()
        assert sorted(told(result)) == [
            ("apns", "failed", 0, "5.6.0"),
            ("email", "sent", 13, None),
            ("fcm", "sent", 1, None),
        ]
        assert result.outcome == "partly_sent"
        assert (len(stage.channels[FCM].sent), len(stage.channels[APNS].sent)) == (1, 1)
        described = await newest.describe()
        assert described.run_id != handle.first_execution_run_id
        last = stage.records[-1]
        assert last.first_run_id == handle.first_execution_run_id
        assert abs(last.started_at - first_started) < timedelta(seconds=1)
