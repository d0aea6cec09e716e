"""Slack: pace, blocks, escaping, and finding a message whose reply was lost."""

from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from activities.adapters.channels.channel import Content, Scope, Verdict
from contracts.payloads.notification import ChannelName
from simulator.faults import Fault
from tests.channels.conftest import Clients

SLACK = ChannelName.SLACK


def test_a_channel_has_its_own_pace_within_the_workspace(clients: Clients) -> None:
    assert clients.channels[SLACK].scopes(clients.targets[SLACK]) == (
        Scope("slack:T1"),
        Scope("slack:T1:C1", interval=timedelta(seconds=1), burst=3),
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
    for _ in range(30):
        assert (await slack.send(target, clients.message(), now=began)).verdict is Verdict.SENT
    found = await slack.find(target, lost, since=began)
    assert found is not None
    assert found.verdict is Verdict.SENT
    assert found.vendor_id == clients.sim.vendors.slack_messages["C1"][0]["ts"]
    assert await slack.find(target, never, since=began) is None
