"""Broadcasts: each recipient once, whatever is paused, cancelled, refused or lost in between."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import JsonValue
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError

from activities.adapters.channels.channel import Message, Outcome, Scope, Target, Verdict
from activities.broadcast import CHUNK
from activities.broadcast_chunk import job_id_of
from activities.bulk_delivery import AT_ONCE as PROCESS
from activities.bulk_delivery import HOPELESS, IN_FLIGHT, _Run
from activities.delivery import LEASE
from activities.notification import SEND
from contracts.payloads.broadcast import BroadcastRequest, Cursor, PauseBroadcast, Paused
from contracts.payloads.job import JobState
from contracts.payloads.notification import ChannelName, Route
from runtime.converter import data_converter
from store.broadcasts import Broadcasts
from store.budgets import PausedFor
from store.database import DatabaseUnavailable
from store.effect_batches import EffectBatches
from store.effects import Claim, EffectKey
from store.people import Preference
from store.recipients import Recipient, Recipients
from store.suppressions import Reason
from tests.workflows.broadcast_stage import BroadcastStage, broadcast_stage, effect_of
from tests.workflows.notification_stage import SENT
from workflows.broadcast import AT_ONCE, BroadcastWorkflow
from workflows.notification import NotificationWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="session")
BAD = Outcome(Verdict.FIX_OURS, "INVALID_ARGUMENT", "no such field")
AWAY = Outcome(Verdict.RETRY, "UNAVAILABLE", scope="fcm")
CAUSE = "fcm: INVALID_ARGUMENT"
ACCEPTS = "who is refused for this cause then becomes a job."


@pytest_asyncio.fixture(loop_scope="session")
async def stage(client: Client, tmp_path: Path) -> AsyncIterator[BroadcastStage]:
    async with broadcast_stage(client, tmp_path) as made:
        yield made


def phones(number: int) -> Counter[str]:
    return Counter(f"phone-{each + 1}" for each in range(number))


async def test_each_recipient_once(stage: BroadcastStage) -> None:
    people = await stage.phones(1_200)
    new = await stage.store(people)
    handle = await stage.start(new)
    result = await handle.result()
    assert (result.counts, result.failures) == ({"sent": 1_200}, {})
    assert await stage.counts(new) == {"sent": 1_200}
    progress = await handle.query(BroadcastWorkflow.progress)
    assert (progress.total, progress.done, progress.counts, progress.paused) == (1_200, 1_200, {"sent": 1_200}, "")
    assert Counter(stage.fcm.addresses) == phones(1_200)
    tags = {target.address: message.notification_id for _, target, message in stage.fcm.sent}
    assert tags == {f"phone-{each.line}": str(job_id_of(new, each)) for each in people}
    assert await stage.ledger(new, people) == {"settled": 1_200}
    assert await stage.jobs() == {"broadcast": 1}


async def test_paused_nothing_more_begins_and_resumed_it_goes_on_where_it_was(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(3_000))
    go = _hold(stage)
    handle = await stage.start(new)
    await stage.until(lambda: len(stage.fcm.sent) > 0)
    await handle.execute_update(BroadcastWorkflow.pause, PauseBroadcast(reason="wrong text?"))
    await handle.execute_update(BroadcastWorkflow.pause, PauseBroadcast(reason="the first reason stays"))
    go.set()
    assert await stage.until_paused(new) == "wrong text?"
    held = len(stage.fcm.sent)
    assert held == AT_ONCE * CHUNK
    assert await stage.counts(new) == {"sent": held}
    progress = await handle.query(BroadcastWorkflow.progress)
    assert (progress.done, progress.counts, progress.paused) == (held, {"sent": held}, "wrong text?")
    job = await stage.on.jobs.get("acme", new.broadcast_id)
    assert job is not None
    assert (job.state is JobState.PARKED, job.cause) == (False, None)  # it waits for nobody's repair
    await asyncio.sleep(0.3)
    assert len(stage.fcm.sent) == held
    await handle.execute_update(BroadcastWorkflow.resume)
    assert (await handle.result()).counts == {"sent": 3_000}
    assert Counter(stage.fcm.addresses) == phones(3_000)
    assert await stage.paused(new) is None


async def test_paused_before_it_begins_nothing_is_planned_or_sent(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(30))
    handle = await stage.start(new, Cursor(paused=Paused(words="not yet")))
    assert await stage.until_paused(new) == "not yet"
    await asyncio.sleep(0.3)
    assert (stage.fcm.sent, await stage.counts(new)) == ([], {})
    await handle.execute_update(BroadcastWorkflow.resume)
    assert (await handle.result()).counts == {"sent": 30}
    assert Counter(stage.fcm.addresses) == phones(30)
    assert await stage.paused(new) is None


async def test_cancelled_in_mid_chunk_it_ends_what_it_began_and_counts_it(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = await stage.phones(1_000)
    new = await stage.store(people)
    go, landing, land = _hold(stage), Counter[str](), _Run._land

    async def landed(run: _Run) -> None:
        landing["chunks"] += 1
        await land(run)

    monkeypatch.setattr(_Run, "_land", landed)
    handle = await stage.start(new)
    # As many of each of both chunks as are begun side by side, of which as many as the process sends at once.
    await stage.until(lambda: len(stage.fcm.sent) == min(PROCESS, 2 * IN_FLIGHT))
    await handle.cancel()
    await stage.until(lambda: landing["chunks"] == 2)
    go.set()
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, CancelledError)
    await stage.job_until(new.broadcast_id, JobState.CANCELLED)
    sent = len(stage.fcm.sent)
    assert sent == 2 * IN_FLIGHT
    assert await stage.counts(new) == {"sent": sent}
    assert await stage.ledger(new, people) == {"settled": sent}
    assert max(Counter(stage.fcm.addresses).values()) == 1
    await asyncio.sleep(0.3)
    assert len(stage.fcm.sent) == sent
    assert await stage.jobs() == {"broadcast": 1}


async def test_cancelled_while_it_plans_it_ends_and_begins_nothing_more(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.broadcast.PLANNED", 2)
    people = await stage.phones(2_500)
    new = await stage.store(people)
    planning, bounds = asyncio.Event(), Recipients.bounds

    async def slow(self: Recipients, set_id: str, from_line: int, *more: int) -> list[tuple[int, int]]:
        if from_line > 1:
            planning.set()
            await asyncio.sleep(0.5)
        return await bounds(self, set_id, from_line, *more)

    monkeypatch.setattr(Recipients, "bounds", slow)
    handle = await stage.start(new)
    await asyncio.wait_for(planning.wait(), 30)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(handle.result(), 30)
    assert isinstance(failed.value.cause, CancelledError)
    await stage.job_until(new.broadcast_id, JobState.CANCELLED)
    sent = len(stage.fcm.sent)
    assert sent <= 2 * CHUNK
    assert await stage.counts(new) == ({"sent": sent} if sent else {})
    assert await stage.ledger(new, people) == ({"settled": sent} if sent else {})
    await asyncio.sleep(0.3)
    assert len(stage.fcm.sent) == sent


@pytest.mark.parametrize("final", [False, True], ids=["for a moment", "for good"])
async def test_a_pause_that_the_store_does_not_take_fails_no_broadcast(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch, final: bool
) -> None:
    new = await stage.store(await stage.phones(30))
    note, refused = Broadcasts.note_pause, 0

    async def away(self: Broadcasts, broadcast_id: UUID, why: str | None) -> None:
        nonlocal refused
        refused += 1
        if final:
            raise ApplicationError("the store is read-only", non_retryable=True)
        if refused <= 5:  # more than the attempts of a step
            raise DatabaseUnavailable("the store does not answer")
        await note(self, broadcast_id, why)

    monkeypatch.setattr(Broadcasts, "note_pause", away)
    handle = await stage.start(new, Cursor(paused=Paused(words="not yet")))
    if not final:
        assert await stage.until_paused(new) == "not yet"
    await stage.until(lambda: refused > 0)
    await handle.execute_update(BroadcastWorkflow.resume)
    assert (await handle.result()).counts == {"sent": 30}
    assert await stage.paused(new) is None


async def test_plans_and_hand_overs_wait_for_the_store(stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch) -> None:
    people = await stage.phones(30)
    new = await stage.store(people)
    stage.fcm.by_address["phone-7"] = [BAD]
    refused = Counter[str]()
    for name in ("bounds", "of_lines"):
        monkeypatch.setattr(Recipients, name, _away_for(5, getattr(Recipients, name), refused))
    result = await asyncio.wait_for((await stage.start(new)).result(), 60)
    assert result.counts == {"sent": 29, "handed_over": 1}
    assert refused == {"bounds": 5, "of_lines": 5}
    mine = [each.state for each in stage.on.records if each.job.job_id == new.broadcast_id]
    assert mine == [JobState.DONE]  # it was not parked


async def test_a_note_of_a_pause_that_comes_late_is_taken_back(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(3_000))
    go = _hold(stage)
    handle = await stage.start(new)
    await stage.until(lambda: len(stage.fcm.sent) > 0)
    await stage.broadcasts.note_pause(new.broadcast_id, "somebody resumed it before this was written")
    go.set()
    assert (await handle.result()).counts == {"sent": 3_000}
    assert await stage.paused(new) is None


async def test_a_vendor_that_is_away_is_waited_for(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(600))
    stage.fcm.script = [*([AWAY] * 300), SENT]
    result = await (await stage.start(new)).result()
    assert (result.counts, result.failures) == ({"sent": 600}, {})
    assert await stage.counts(new) == {"sent": 600}
    assert Counter(stage.fcm.addresses[300:]) == phones(600)
    assert stage.fcm.sent[-1][0] - stage.fcm.sent[0][0] >= timedelta(seconds=3)  # pauses of 1 s and 2 s at least
    assert await stage.jobs() == {"broadcast": 1}


async def test_one_receiver_that_wants_to_wait_stops_nobody_else(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.broadcast.CHUNK", 50)
    stage.fcm.scopes = lambda target: (Scope(f"webhook:{target.address}", "the receiver"),)  # type: ignore[method-assign]
    people = await stage.phones(300)
    new = await stage.store(people)
    later = Outcome(Verdict.RETRY, "429", retry_after=timedelta(hours=1), scope="webhook:phone-7")
    stage.fcm.by_address["phone-7"] = [later, SENT]
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 299, "handed_over": 1} == await stage.counts(new)
    first = [at for at, target, _ in stage.fcm.sent if target.address != "phone-7"]
    assert len(first) == 299
    assert max(first) - new.created_at < timedelta(minutes=1)
    job = f"notification:acme:{job_id_of(new, people[6])}"
    await stage.on.client.get_workflow_handle_for(NotificationWorkflow.run, job).result()
    at = [at for at, target, _ in stage.fcm.sent if target.address == "phone-7"]
    assert len(at) == 2
    assert at[1] - at[0] >= timedelta(minutes=59)


async def test_a_vendor_that_is_away_for_some_is_waited_for_and_makes_no_jobs(stage: BroadcastStage) -> None:
    people = await stage.phones(600)
    new = await stage.store(people)
    apns = {f"phone-{each.line}" for each in people[2::3]}
    vendor = {True: (Scope("apns", "APNs"),), False: (Scope("fcm", "FCM"),)}
    stage.fcm.scopes = lambda target: vendor[target.address in apns]  # type: ignore[method-assign]
    stage.on.clock.set = new.created_at
    back_at = await stage.on.budgets.pause("apns", PausedFor.LIMIT, asked=timedelta(minutes=30), detail="503")
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 600} == await stage.counts(new)
    assert Counter(stage.fcm.addresses) == phones(600)
    assert {target.address for at, target, _ in stage.fcm.sent if at < back_at}.isdisjoint(apns)
    assert await stage.jobs() == {"broadcast": 1}


async def test_a_receiver_that_takes_longer_than_an_execution_becomes_a_job(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.broadcast.LONGEST_SECONDS", 0.3)
    people = await stage.phones(40)
    new = await stage.store(people, lives=timedelta(minutes=10))
    tries, send = Counter[str](), stage.fcm.send

    async def slow(target: Target, message: Message, *, now: datetime) -> Outcome:
        answer = await send(target, message, now=now)
        tries[target.address] += 1
        if target.address == "phone-7" and tries["phone-7"] == 1:
            await asyncio.sleep(0.5)
            return Outcome(Verdict.MAYBE_SENT, "reply_lost")
        return answer

    stage.fcm.send = slow  # type: ignore[method-assign]
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 39, "handed_over": 1} == await stage.counts(new)
    job = f"notification:acme:{job_id_of(new, people[6])}"
    await stage.on.client.get_workflow_handle_for(NotificationWorkflow.run, job).result()
    assert Counter(stage.fcm.addresses) == phones(40) + Counter(["phone-7"])


async def test_what_was_begun_twice_and_never_ended_becomes_a_job(stage: BroadcastStage) -> None:
    people = await stage.phones(3)
    new = await stage.store(people)
    stage.on.clock.set = new.created_at - LEASE
    first, second = effect_of(new, people[0]), effect_of(new, people[1])
    claims = await stage.on.effects.claim_many(SEND, [first, second])
    stage.on.clock.set += timedelta(seconds=1)
    assert await stage.on.effects.take_over(second.first_run_id, SEND, claims[1]) is not None
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 2, "handed_over": 1} == await stage.counts(new)
    job = f"notification:acme:{job_id_of(new, people[1])}"
    await stage.on.client.get_workflow_handle_for(NotificationWorkflow.run, job).result()
    assert Counter(stage.fcm.addresses) == phones(3)


async def test_a_claim_that_grew_old_in_the_line_is_given_back_and_not_sent(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = 0.2
    monkeypatch.setattr("activities.bulk_delivery.FRESH_SECONDS", fresh)
    monkeypatch.setattr("activities.bulk_delivery.BETWEEN_ROUNDS", timedelta(milliseconds=20))
    people = await stage.phones(6)
    new = await stage.store(people)
    claimed_at: dict[str, float] = {}
    ages: list[float] = []
    claim, send = EffectBatches.claim, stage.fcm.send

    async def noted(self: EffectBatches, keys: Sequence[EffectKey]) -> list[Claim]:
        claimed_at.update(dict.fromkeys([key.first_run_id for key in keys], time.monotonic()))
        return await claim(self, keys)

    async def slow(target: Target, message: Message, *, now: datetime) -> Outcome:
        ages.append(time.monotonic() - claimed_at[message.notification_id])
        await asyncio.sleep(0.15)
        return await send(target, message, now=now)

    monkeypatch.setattr(EffectBatches, "claim", noted)
    stage.delivery.at_once = asyncio.Semaphore(1)
    stage.fcm.send = slow  # type: ignore[method-assign]
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 6} == await stage.counts(new)
    assert Counter(stage.fcm.addresses) == phones(6)
    assert max(ages) < fresh + 0.05
    assert await stage.ledger(new, people) == {"settled": 6}


async def test_all_bad_pauses_with_the_cause_and_makes_no_jobs(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(2_100))
    stage.fcm.script = [BAD]
    handle = await stage.start(new)
    job = await stage.job_until(new.broadcast_id, JobState.PARKED)
    assert job.cause == CAUSE
    assert (
        job.error == f"Paused, because refused: {CAUSE}. The update `resume` goes on and tries them again; " + ACCEPTS
    )
    assert await stage.paused(new) == f"refused: {CAUSE}"
    refused = len(stage.fcm.sent)
    assert HOPELESS <= refused <= AT_ONCE * (HOPELESS + IN_FLIGHT)
    assert max(Counter(stage.fcm.addresses).values()) == 1
    assert await stage.counts(new) == {}
    assert (await handle.query(BroadcastWorkflow.progress)).done == 0
    await asyncio.sleep(0.3)
    assert len(stage.fcm.sent) == refused
    stage.fcm.script = [SENT]
    await handle.execute_update(BroadcastWorkflow.resume)
    result = await handle.result()
    assert (result.counts, result.failures) == ({"sent": 2_100}, {})
    assert Counter(stage.fcm.addresses[refused:]) == phones(2_100)
    done = await stage.job_until(new.broadcast_id, JobState.DONE)
    assert (done.cause, done.error) == (None, None)
    assert await stage.paused(new) is None
    assert await stage.jobs() == {"broadcast": 1}


async def test_a_few_refused_become_jobs_of_their_own(stage: BroadcastStage) -> None:
    people = await stage.phones(1_200)
    new = await stage.store(people)
    refused = people[99::100]
    for each in refused:
        stage.fcm.by_address[f"phone-{each.line}"] = [BAD]
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 1_188, "handed_over": 12} == await stage.counts(new)
    assert result.failures == {CAUSE: 12}
    await stage.job_until(new.broadcast_id, JobState.DONE)
    expected = {job_id_of(new, each): "send:INVALID_ARGUMENT" for each in refused}
    await stage.until(lambda: stage.parked() == expected)
    assert await stage.jobs() == {"broadcast": 1, "notification": 12}
    # Those are refused once by the broadcast and once by the job.
    twice = Counter(f"phone-{each.line}" for each in refused)
    assert Counter(stage.fcm.addresses) == phones(1_200) + twice


async def test_above_two_percent_it_pauses_and_hands_nothing_over(stage: BroadcastStage) -> None:
    people = await stage.phones(1_000)
    new = await stage.store(people)
    refused = people[9::33][:30]
    for each in refused:
        stage.fcm.by_address[f"phone-{each.line}"] = [BAD]
    handle = await stage.start(new)
    job = await stage.job_until(new.broadcast_id, JobState.PARKED)
    assert job.cause == CAUSE
    assert f"15 of 500 recipients refused: {CAUSE}" in (job.error or "")
    assert await stage.counts(new) == {"sent": 970}
    assert Counter(stage.fcm.addresses) == phones(1_000)
    stage.fcm.by_address.clear()
    await handle.execute_update(BroadcastWorkflow.resume)
    result = await handle.result()
    assert (result.counts, result.failures) == ({"sent": 1_000}, {})
    assert Counter(stage.fcm.addresses[1_000:]) == Counter(f"phone-{each.line}" for each in refused)
    assert await stage.jobs() == {"broadcast": 1}


async def test_what_was_refused_before_a_pause_does_not_pause_again(stage: BroadcastStage) -> None:
    people = await stage.phones(1_000)
    new = await stage.store(people)
    few, many = people[9:500:50], people[519:1_000:20][:20]
    for each in few + many:
        stage.fcm.by_address[f"phone-{each.line}"] = [BAD]
    handle = await stage.start(new)
    await stage.job_until(new.broadcast_id, JobState.PARKED)
    assert await stage.counts(new) == {"sent": 970, "handed_over": 10}
    for each in many[:5]:
        del stage.fcm.by_address[f"phone-{each.line}"]
    await handle.execute_update(BroadcastWorkflow.resume)
    result = await handle.result()
    assert result.counts == {"sent": 975, "handed_over": 25} == await stage.counts(new)
    assert result.failures == {CAUSE: 15}
    assert await stage.jobs() == {"broadcast": 1, "notification": 25}


async def test_resumed_it_accepts_the_cause_and_more_than_two_percent_become_jobs(stage: BroadcastStage) -> None:
    people = await stage.phones(500)
    new = await stage.store(people)
    for each in people[9::33][:15]:
        stage.fcm.by_address[f"phone-{each.line}"] = [BAD]
    handle = await stage.start(new)
    await stage.job_until(new.broadcast_id, JobState.PARKED)
    await handle.execute_update(BroadcastWorkflow.resume)
    result = await asyncio.wait_for(handle.result(), 30)
    assert result.counts == {"sent": 485, "handed_over": 15} == await stage.counts(new)
    assert result.failures == {CAUSE: 15}
    assert await stage.jobs() == {"broadcast": 1, "notification": 15}


async def test_what_a_run_before_accepted_does_not_pause_this_one(stage: BroadcastStage) -> None:
    people = await stage.phones(500)
    new = await stage.store(people)
    for each in people[9::33][:15]:
        stage.fcm.by_address[f"phone-{each.line}"] = [BAD]
    handle = await stage.start(new, Cursor(accepted=(CAUSE,)))
    result = await asyncio.wait_for(handle.result(), 30)
    assert result.counts == {"sent": 485, "handed_over": 15} == await stage.counts(new)


async def test_what_is_refused_for_a_moment_is_sent_in_the_same_chunk(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(600))
    for number in range(1, 601):
        stage.fcm.by_address[f"phone-{number}"] = [Outcome(Verdict.RETRY, "500"), SENT]
    assert (await (await stage.start(new)).result()).counts == {"sent": 600}
    assert Counter(stage.fcm.addresses) == phones(600) + phones(600)
    assert len({at for at, _, _ in stage.fcm.sent}) <= 2  # two chunks, each executed once
    assert await stage.jobs() == {"broadcast": 1}


async def test_a_lost_worker_s_sends_are_settled_or_sent_again_after_their_lease(stage: BroadcastStage) -> None:
    people = await stage.phones(40)
    new = await stage.store(people)
    keys = [effect_of(new, each) for each in people]
    stage.on.clock.set = new.created_at
    await stage.on.effects.claim_many(SEND, keys[:20])
    done: JsonValue = {"target": "t", "channel": "fcm", "outcome": "sent"}
    await stage.on.effects.write(SEND, dict.fromkeys(keys[:10], done), [])
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 40}
    assert Counter(stage.fcm.addresses) == phones(40) - phones(10)
    at = {target.address: when for when, target, _ in stage.fcm.sent}
    leased_until = new.created_at + LEASE
    assert {name for name, when in at.items() if when >= leased_until} == {f"phone-{n}" for n in range(11, 21)}
    assert await stage.ledger(new, people) == {"settled": 40}


async def test_who_is_not_reached_is_counted_for_what_it_is(stage: BroadcastStage) -> None:
    for name, reachable in (
        ("ada", [(ChannelName.FCM, "phone-a")]),
        ("nowhere", []),
        ("bounced", [(ChannelName.FCM, "phone-b")]),
        ("dead", [(ChannelName.FCM, "phone-d"), (ChannelName.EMAIL, "dead@example.com")]),
    ):
        await stage.on.person(name, reachable=reachable)
    muted = [Preference("news", "*", allowed=False)]
    await stage.on.person("muted", reachable=[(ChannelName.FCM, "phone-m")], wishes=muted)
    await stage.on.person("sleeper", reachable=[(ChannelName.FCM, "phone-s")], quiet=("00:00", "23:59"), zone="UTC")
    await stage.on.suppressions.add("acme", ChannelName.FCM, "phone-b", Reason.COMPLAINED)
    stage.fcm.by_address["phone-d"] = [Outcome(Verdict.DROP_TARGET, "UNREGISTERED")]
    names = ["ada", "muted", "nowhere", "bounced", "dead", "sleeper"]
    people = [Recipient(line + 1, person=name) for line, name in enumerate(names)]
    new = await stage.store(people, routes=(Route.FCM, Route.EMAIL))
    result = await (await stage.start(new)).result()
    expected = {"sent": 1, "muted": 1, "undeliverable": 1, "suppressed": 1, "handed_over": 2}
    assert result.counts == expected == await stage.counts(new)
    assert result.failures == {}
    fallback = f"notification:acme:{job_id_of(new, people[4])}"
    mailed = await stage.on.client.get_workflow_handle_for(NotificationWorkflow.run, fallback).result()
    assert mailed.outcome == "sent"
    assert stage.on.channels[ChannelName.EMAIL].addresses == ["dead@example.com"]
    assert stage.fcm.addresses[:2] in (["phone-a", "phone-d"], ["phone-d", "phone-a"])
    assert {"phone-m", "phone-b"}.isdisjoint(stage.fcm.addresses)
    assert await stage.jobs() == {"broadcast": 1, "notification": 2}


async def test_an_address_of_a_channel_that_the_message_does_not_name_is_not_sent_to(stage: BroadcastStage) -> None:
    await stage.on.person("ada")
    people = [*await stage.phones(3), Recipient(4, person="ada")]
    new = await stage.store(people, routes=(Route.EMAIL,))
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 1, "undeliverable": 3} == await stage.counts(new)
    assert stage.fcm.sent == []
    assert stage.on.channels[ChannelName.EMAIL].addresses == ["ada@example.com"]


async def test_after_its_expiry_nothing_is_sent_and_all_is_counted(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(30), lives=timedelta(seconds=-1))
    assert (await (await stage.start(new)).result()).counts == {"expired": 30} == await stage.counts(new)
    assert stage.fcm.sent == []


async def test_a_vendor_that_stays_away_is_waited_for_until_the_expiry(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.bulk_delivery.BETWEEN_ROUNDS", timedelta(milliseconds=20))
    people = await stage.phones(100)
    new = await stage.store(people, lives=timedelta(seconds=40))
    for each in people[50:]:
        stage.fcm.by_address[f"phone-{each.line}"] = [AWAY]
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 50, "expired": 50} == await stage.counts(new)
    tries = Counter(stage.fcm.addresses)
    assert [tries[f"phone-{each.line}"] for each in people[:50]] == [1] * 50
    last = max(at for at, _, _ in stage.fcm.sent)
    assert last - new.created_at >= timedelta(seconds=1 + 2 + 4 + 8 + 16)
    assert last < new.expires_at
    assert await stage.jobs() == {"broadcast": 1}


async def test_a_long_one_continues_as_new_between_chunks(
    stage: BroadcastStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once only: a second time, the server adds all the time that it has skipped so far to its clock.
    suggested = lambda info: info.workflow_type == "broadcast" and info.continued_run_id is None  # noqa: E731
    monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", suggested)
    people = await stage.phones(3_000)
    new = await stage.store(people)
    stage.fcm.by_address["phone-700"] = [BAD]
    handle = await stage.start(new, Cursor(accepted=("apns: BadTopic",)))
    result = await handle.result()
    first = await stage.on.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id).describe()
    assert first.status is not None
    assert first.status.name == "CONTINUED_AS_NEW"
    second = await stage.on.client.get_workflow_handle(handle.id).fetch_history()
    given = second.events[0].workflow_execution_started_event_attributes.input.payloads[0]
    request = data_converter().payload_converter.from_payload(given, BroadcastRequest)
    assert request.cursor.accepted == ("apns: BadTopic",)
    assert result.counts == {"sent": 2_999, "handed_over": 1} == await stage.counts(new)
    assert result.failures == {CAUSE: 1}
    # A job that another test left asleep may wake in this one's worker.
    await stage.until(lambda: stage.parked().get(job_id_of(new, people[699])) == "send:INVALID_ARGUMENT")
    assert Counter(stage.fcm.addresses) == phones(3_000) + Counter(["phone-700"])


async def test_a_run_goes_on_where_the_one_before_stood(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(1_300))
    stood = Cursor(next_line=1_001, again=((11, 20), (501, 600)), counts={"sent": 890}, failures={CAUSE: 3})
    result = await (await stage.start(new, stood)).result()
    assert (result.counts, result.failures) == ({"sent": 1_300}, {CAUSE: 3})
    lines = [*range(11, 21), *range(501, 601), *range(1_001, 1_301)]
    assert Counter(stage.fcm.addresses) == Counter(f"phone-{line}" for line in lines)


def _away_for(
    times: int, method: Callable[..., Awaitable[Any]], refused: Counter[str]
) -> Callable[..., Awaitable[Any]]:
    """The method, of a store that does not answer at first."""

    async def away(*args: Any) -> Any:
        if refused[method.__name__] < times:
            refused[method.__name__] += 1
            raise DatabaseUnavailable("the store does not answer")
        return await method(*args)

    return away


def _hold(stage: BroadcastStage) -> asyncio.Event:
    """Let every send wait until that."""
    send, go = stage.fcm.send, asyncio.Event()

    async def held(target: Target, message: Message, **more: object) -> Outcome:
        answer = await send(target, message, **more)  # type: ignore[arg-type]
        await go.wait()
        return answer

    stage.fcm.send = held  # type: ignore[method-assign]
    return go
