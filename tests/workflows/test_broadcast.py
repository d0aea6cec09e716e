"""Broadcasts: each recipient once, whatever is paused, cancelled, refused or lost in between."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import JsonValue
from temporalio.client import Client, WorkflowFailureError

from activities.adapters.channels.channel import Message, Outcome, Target, Verdict
from activities.broadcast_chunk import job_id_of
from activities.bulk_delivery import HOPELESS, IN_FLIGHT
from activities.notification import SEND
from contracts.payloads.broadcast import PauseBroadcast
from contracts.payloads.job import JobState
from contracts.payloads.notification import ChannelName, Route
from store.effects import EffectKey
from store.people import Preference
from store.recipients import Recipient
from tests.workflows.broadcast_stage import BroadcastStage, broadcast_stage
from tests.workflows.notification_stage import SENT, until_parked
from workflows.broadcast import AT_ONCE, BroadcastWorkflow
from workflows.notification import NotificationWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="session")
BAD = Outcome(Verdict.FIX_OURS, "INVALID_ARGUMENT", "no such field")
AWAY = Outcome(Verdict.RETRY, "UNAVAILABLE", scope="fcm")


@pytest_asyncio.fixture(loop_scope="session")
async def stage(client: Client, tmp_path: Path) -> AsyncIterator[BroadcastStage]:
    async with broadcast_stage(client, tmp_path) as made:
        yield made


def phones(number: int) -> Counter[str]:
    return Counter(f"phone-{each + 1}" for each in range(number))


async def test_each_recipient_once(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(1_200))
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 1_200}
    assert await stage.counts(new) == {"sent": 1_200}
    assert Counter(stage.fcm.addresses) == phones(1_200)
    tags = {message.notification_id for _, _, message in stage.fcm.sent}
    assert len(tags) == 1_200


async def test_paused_nothing_more_begins_and_resumed_it_goes_on_where_it_was(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(3_000))
    go = asyncio.Event()
    _hold(stage, go)
    handle = await stage.start(new)
    await stage.until(lambda: len(stage.fcm.sent) > 0)
    await handle.execute_update(BroadcastWorkflow.pause, PauseBroadcast(reason="wrong text?"))
    go.set()
    async with asyncio.timeout(30):
        while (found := await stage.broadcasts.get("acme", new.broadcast_id)) is None or found.paused is None:
            await asyncio.sleep(0.02)
    assert found.paused == "wrong text?"
    held = len(stage.fcm.sent)
    assert held == AT_ONCE * 500 == (await stage.counts(new))["sent"]
    assert (await handle.query(BroadcastWorkflow.progress)).done == held
    await handle.execute_update(BroadcastWorkflow.resume)
    assert (await handle.result()).counts == {"sent": 3_000}
    assert Counter(stage.fcm.addresses) == phones(3_000)
    again = await stage.broadcasts.get("acme", new.broadcast_id)
    assert again is not None
    assert again.paused is None


async def test_cancelled_in_mid_chunk_it_ends_what_it_began_and_counts_it(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(1_000))
    go = asyncio.Event()
    _hold(stage, go)
    handle = await stage.start(new)
    await stage.until(lambda: len(stage.fcm.sent) > 0)
    await handle.cancel()
    await asyncio.sleep(2.5)  # until a heartbeat says so
    go.set()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    await stage.job_until(new, JobState.CANCELLED)
    sent = len(stage.fcm.sent)
    assert 0 < sent <= AT_ONCE * IN_FLIGHT
    assert await stage.counts(new) == {"sent": sent}
    assert max(Counter(stage.fcm.addresses).values()) == 1


async def test_a_vendor_that_is_away_is_waited_for(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(600))
    stage.fcm.script = [*([AWAY] * 300), SENT]
    result = await (await stage.start(new)).result()
    assert result.counts["sent"] + result.counts.get("handed_over", 0) == 600
    assert result.counts.get("handed_over", 0) < 100
    assert result.failures == {}


async def test_all_bad_pauses_with_the_cause_and_makes_no_jobs(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(1_500))
    stage.fcm.script = [BAD]
    handle = await stage.start(new)
    job = await stage.job_until(new, JobState.PARKED)
    assert job.cause == "fcm: INVALID_ARGUMENT"
    assert job.error is not None
    assert "resume" in job.error
    assert HOPELESS <= len(stage.fcm.sent) <= AT_ONCE * IN_FLIGHT * 2
    assert await stage.counts(new) == {}
    assert [each.type for each in (await stage.on.jobs.list("acme"))[0]] == ["broadcast"]
    refused = len(stage.fcm.sent)
    stage.fcm.script = [SENT]
    await handle.execute_update(BroadcastWorkflow.resume)
    assert (await handle.result()).counts == {"sent": 1_500}
    assert Counter(stage.fcm.addresses[refused:]) == phones(1_500)


async def test_a_few_refused_become_jobs_of_their_own(stage: BroadcastStage) -> None:
    people = await stage.phones(1_000)
    new = await stage.store(people)
    for number in range(100, 1_000, 100):
        stage.fcm.by_address[f"phone-{number}"] = [BAD]
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 991, "handed_over": 9} == await stage.counts(new)
    assert result.failures == {"fcm: INVALID_ARGUMENT": 9}
    job_id = job_id_of(new, people[99])
    handle = stage.on.client.get_workflow_handle_for(NotificationWorkflow.run, f"notification:acme:{job_id}")
    assert [each.cause for each in await until_parked(handle)] == ["send:INVALID_ARGUMENT"]
    children = [each for each in (await stage.on.jobs.list("acme"))[0] if each.type == "notification"]
    assert len(children) == 9


async def test_above_two_percent_it_pauses_and_hands_nothing_over(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(500))
    for number in range(20, 500, 40):
        stage.fcm.by_address[f"phone-{number}"] = [BAD]
    handle = await stage.start(new)
    job = await stage.job_until(new, JobState.PARKED)
    assert job.cause == "fcm: INVALID_ARGUMENT"
    assert "12 of 500" in (job.error or "")
    assert await stage.counts(new) == {"sent": 488}
    stage.fcm.by_address.clear()
    await handle.execute_update(BroadcastWorkflow.resume)
    assert (await handle.result()).counts == {"sent": 500}
    assert len((await stage.on.jobs.list("acme"))[0]) == 1


async def test_what_is_refused_for_a_moment_is_sent_in_the_same_chunk(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(200))
    for number in range(10, 200, 10):
        stage.fcm.by_address[f"phone-{number}"] = [Outcome(Verdict.RETRY, "500"), SENT]
    assert (await (await stage.start(new)).result()).counts == {"sent": 200}


async def test_a_lost_worker_s_sends_are_settled_or_sent_again_after_their_lease(stage: BroadcastStage) -> None:
    people = await stage.phones(40)
    new = await stage.store(people)
    keys = [EffectKey(str(job_id_of(new, each)), each.target_id or "") for each in people]
    stage.on.clock.set = new.created_at
    await stage.on.effects.claim_many(SEND, keys[:20])
    done: JsonValue = {"target": "t", "channel": "fcm", "outcome": "sent"}
    await stage.on.effects.write(SEND, dict.fromkeys(keys[:10], done), [])
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 40}
    assert Counter(stage.fcm.addresses) == phones(40) - phones(10)
    at = {target.address: when for when, target, _ in stage.fcm.sent}
    assert all(at[f"phone-{number}"] >= new.created_at + timedelta(seconds=30) for number in range(11, 21))


async def test_who_is_not_reached_is_counted_for_what_it_is(stage: BroadcastStage) -> None:
    fcm = ((ChannelName.FCM, "phone-a"),)
    await stage.on.person("ada", reachable=fcm)
    await stage.on.person(
        "muted", reachable=((ChannelName.FCM, "phone-m"),), wishes=[Preference("news", "*", allowed=False)]
    )
    await stage.on.person("nowhere", reachable=())
    await stage.on.person("dead", reachable=((ChannelName.FCM, "phone-d"), (ChannelName.EMAIL, "dead@example.com")))
    await stage.on.person("sleeper", reachable=((ChannelName.FCM, "phone-s"),), quiet=("00:00", "23:59"), zone="UTC")
    stage.fcm.by_address["phone-d"] = [Outcome(Verdict.DROP_TARGET, "UNREGISTERED")]
    names = ["ada", "muted", "nowhere", "dead", "sleeper"]
    people = [Recipient(line + 1, person=name) for line, name in enumerate(names)]
    new = await stage.store(people, routes=(Route.FCM, Route.EMAIL))
    result = await (await stage.start(new)).result()
    assert result.counts == {"sent": 1, "muted": 1, "undeliverable": 1, "handed_over": 2}
    fallback = f"notification:acme:{job_id_of(new, people[3])}"
    mailed = await stage.on.client.get_workflow_handle_for(NotificationWorkflow.run, fallback).result()
    assert mailed.outcome == "sent"
    assert stage.on.channels[ChannelName.EMAIL].addresses == ["dead@example.com"]


async def test_after_its_expiry_nothing_is_sent_and_all_is_counted(stage: BroadcastStage) -> None:
    new = await stage.store(await stage.phones(30), lives=timedelta(seconds=-1))
    assert (await (await stage.start(new)).result()).counts == {"expired": 30}
    assert stage.fcm.sent == []


def _hold(stage: BroadcastStage, go: asyncio.Event) -> None:
    """Let every send wait until `go`."""
    send = stage.fcm.send

    async def held(target: Target, message: Message, **more: object) -> Outcome:
        answer = await send(target, message, **more)  # type: ignore[arg-type]
        await go.wait()
        return answer

    stage.fcm.send = held  # type: ignore[method-assign]
