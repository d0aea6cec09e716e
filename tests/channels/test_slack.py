"""Slack: pace, blocks, escaping, and finding a message whose reply was lost."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from activities.adapters.channels.channel import Content, Scope, Verdict
from activities.adapters.channels.slack import Slack
from contracts.payloads.notification import ChannelName
from simulator.faults import Fault
from tests.channels.conftest import Clients

SLACK = ChannelName.SLACK


def test_a_channel_has_its_own_pace_within_the_workspace(clients: Clients) -> None:
    assert clients.channels[SLACK].scopes(clients.targets[SLACK]) == (
        Scope("slack:T1", "the Slack workspace T1"),
        Scope("slack:T1:C1", "the Slack channel", interval=timedelta(seconds=1), burst=3),
    )


async def test_text_cannot_address_anybody(clients: Clients) -> None:
    content = Content(subject="A & B", text="<!channel> look <@U1>")
    await clients.channels[SLACK].send(clients.targets[SLACK], clients.message(content=content), now=datetime.now(UTC))
    (record,) = clients.sim.records.accepted("slack")
    assert record.body["text"] == "A &amp; B"
    (block,) = record.body["blocks"]
    assert block["text"]["text"] == "*A &amp; B*\n&lt;!channel&gt; look &lt;@U1&gt;"


async def test_blocks_of_a_template_go_as_they_are(clients: Clients) -> None:
    blocks: tuple[dict[str, JsonValue], ...] = (
        {"type": "divider"},
        {"type": "section", "text": {"type": "plain_text", "text": "Hi"}},
    )
    content = Content(subject="S", text="T", slack_blocks=blocks)
    await clients.channels[SLACK].send(clients.targets[SLACK], clients.message(content=content), now=datetime.now(UTC))
    (record,) = clients.sim.records.accepted("slack")
    assert record.body["blocks"] == list(blocks)


async def test_a_message_whose_reply_was_lost_is_found_in_the_history_and_another_is_not(clients: Clients) -> None:
    slack, target, began = clients.channels[SLACK], clients.targets[SLACK], datetime.now(UTC)
    lost, never = clients.message(), clients.message()
    clients.sim.faults.add(Fault(channel="slack", kind="close_after_data"))
    assert (await slack.send(target, lost, now=began)).verdict is Verdict.MAYBE_SENT
    others = clients.sim.vendors.slack_messages["C1"]
    others += [{"ts": f"{began.timestamp() + number + 1:.6f}", "text": "another"} for number in range(450)]
    found = await slack.find(target, lost, since=began)
    assert found is not None
    assert found.verdict is Verdict.SENT
    assert found.vendor_id == clients.sim.vendors.slack_messages["C1"][0]["ts"]
    missing = await slack.find(target, never, since=began)
    assert missing is not None
    assert (missing.verdict, missing.code) == (Verdict.RETRY, "not_in_history")


async def test_a_question_that_cannot_be_answered_stays_open(clients: Clients) -> None:
    began = datetime.now(UTC)
    others = clients.sim.vendors.slack_messages["C1"]
    others += [{"ts": f"{began.timestamp() + number + 1:.6f}", "text": "another"} for number in range(1_001)]
    slack = clients.channels[SLACK]
    assert await slack.find(clients.targets[SLACK], clients.message(), since=began) is None
    stranger = Slack(token="xoxb-wrong", api_url=f"{clients.sim.http_url}/slack/api")
    assert await stranger.find(clients.targets[SLACK], clients.message(), since=began) is None
    await stranger.close()


async def test_more_than_the_pace_is_refused_for_the_channel_alone(clients: Clients) -> None:
    slack, target, now = clients.channels[SLACK], clients.targets[SLACK], datetime.now(UTC)
    outcomes = [await slack.send(target, clients.message(), now=now) for _ in range(7)]
    assert [each.verdict for each in outcomes[:5]] == [Verdict.SENT] * 5
    assert (outcomes[-1].verdict, outcomes[-1].scope) == (Verdict.RETRY, "slack:T1:C1")
    other = replace(target, address="C2")
    assert (await slack.send(other, clients.message(), now=now)).verdict is Verdict.SENT
