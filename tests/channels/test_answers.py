"""Every row of simulator/rows.py, through the channel's real client, means what the table here says."""

from datetime import UTC, datetime, timedelta

import pytest

from activities.adapters.channels.channel import Outcome, Verdict
from contracts.payloads.notification import ChannelName
from simulator.faults import Fault
from simulator.rows import ROWS
from tests.channels.conftest import Clients

SENT, RETRY, DROP, FIX, AUTH, MAYBE = (
    Verdict.SENT,
    Verdict.RETRY,
    Verdict.DROP_TARGET,
    Verdict.FIX_OURS,
    Verdict.AUTH,
    Verdict.MAYBE_SENT,
)
Row = tuple[Verdict, str | None, float | None]
RELAY, DOMAIN = "email:127.0.0.1", "email:127.0.0.1:example.com"
# row -> verdict, who waits (a limiter key, or None for the target alone), seconds that were asked for
EMAIL: dict[str, Row] = {
    "421 shutting down": (RETRY, RELAY, None),
    **dict.fromkeys(("421 at rcpt", "421 at data", "421 after data"), (RETRY, RELAY, None)),
    "421 too many": (RETRY, RELAY, 300),
    "450 greylisted": (RETRY, DOMAIN, 300),
    "450 busy": (RETRY, None, 900),
    "451 local error": (RETRY, RELAY, None),
    "451 bare": (RETRY, DOMAIN, 300),
    "452 mailbox full": (RETRY, None, 900),
    "452 storage": (RETRY, RELAY, None),
    "454 auth": (RETRY, RELAY, None),
    "455": (RETRY, RELAY, None),
    "4.4.1": (RETRY, RELAY, None),
    **dict.fromkeys(("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "550 bare"), (DROP, None, None)),
    **dict.fromkeys(("550 two lines", "553 unknown", "5.4.1 exchange", "5.5.0 outlook"), (DROP, None, None)),
    **dict.fromkeys(("500", "501", "502", "503", "504", "551 bare", "553 bare", "555"), (FIX, None, None)),
    **dict.fromkeys(("554 content", "550 dns of the sender", "5.7.9 of a message"), (FIX, None, None)),
    **dict.fromkeys(("5.1.1 of the sender", "5.2.2 of the sender", "5.1.8"), (FIX, None, None)),
    "554 no service": (AUTH, RELAY, None),
    "530 auth": (AUTH, RELAY, None),
    "552 at rcpt": (RETRY, None, 900),
    "5.2.2": (RETRY, None, 900),
    "552 bare quota": (RETRY, None, 900),
    **dict.fromkeys(("5.3.4", "552 too big", "5.5.2", "5.6.0"), (FIX, None, None)),
    "530 starttls": (AUTH, RELAY, None),
    "535": (AUTH, RELAY, None),
    **dict.fromkeys(("5.7.1", "5.7.23", "5.7.25", "5.7.26", "550 spam"), (FIX, None, None)),
}
SLACK: dict[str, Row] = {
    "429": (RETRY, "slack:T1:C1", 2),
    "ratelimited": (RETRY, "slack:T1:C1", 1),
    "rate_limited": (RETRY, "slack:T1:C1", 1),
    "message_limit_exceeded": (RETRY, "slack:T1", 3600),
    "fatal_error": (MAYBE, None, None),
    "internal_error": (MAYBE, None, None),
    **dict.fromkeys(
        ("service_unavailable", "request_timeout", "team_added_to_org", "org_login_required", "500", "502 html"),
        (RETRY, "slack:T1", None),
    ),
    "503": (RETRY, "slack:T1", 3),
    **dict.fromkeys(
        (
            "channel_not_found",
            "is_archived",
            "not_in_channel",
            "messages_tab_disabled",
            "restricted_action",
            "restricted_action_read_only_channel",
            "ekm_access_denied",
            "user_not_found",
        ),
        (DROP, None, None),
    ),
    **dict.fromkeys(
        (
            "account_inactive",
            "token_revoked",
            "invalid_auth",
            "not_authed",
            "app_access_restricted",
            "two_factor_setup_required",
            "token_expired",
            "missing_scope",
            "no_permission",
            "not_allowed_token_type",
            "accesslimited",
            "access_denied",
        ),
        (AUTH, "slack:T1", None),
    ),
    **dict.fromkeys(
        (
            "no_text",
            "invalid_blocks",
            "msg_blocks_too_long",
            "msg_too_long",
            "too_many_attachments",
            "metadata_too_large",
            "invalid_arg_name",
        ),
        (FIX, None, None),
    ),
}
PROJECT = "fcm:holdfast-sim"
FCM: dict[str, Row] = {
    "UNREGISTERED": (DROP, None, None),
    "SENDER_ID_MISMATCH": (DROP, None, None),
    "INVALID_ARGUMENT token": (DROP, None, None),
    "INVALID_ARGUMENT other": (FIX, None, None),
    "BadRequest": (FIX, None, None),
    "QUOTA_EXCEEDED": (RETRY, PROJECT, 7),
    "QUOTA_EXCEEDED bare": (RETRY, PROJECT, 60),
    "QUOTA_EXCEEDED device": (RETRY, None, 60),
    "UNAVAILABLE": (RETRY, PROJECT, 4),
    "INTERNAL": (RETRY, PROJECT, None),
    "THIRD_PARTY_AUTH_ERROR": (AUTH, PROJECT, None),
    "UNAUTHENTICATED": (AUTH, PROJECT, None),
    "UNSPECIFIED_ERROR": (RETRY, None, None),
    "502 html": (RETRY, PROJECT, None),
}
APP = "apns:com.acme.app"
APNS: dict[str, Row] = {
    **dict.fromkeys(("410 Unregistered", "410 ExpiredToken", "410 before", "BadDeviceToken"), (DROP, None, None)),
    **dict.fromkeys(
        (
            "DeviceTokenNotForTopic",
            "TopicDisallowed",
            "BadTopic",
            "MissingTopic",
            "BadExpirationDate",
            "BadPriority",
            "BadCollapseId",
            "BadMessageId",
            "DuplicateHeaders",
            "PayloadEmpty",
            "InvalidPushType",
            "MissingDeviceToken",
            "PayloadTooLarge",
            "BadPath",
            "MethodNotAllowed",
        ),
        (FIX, None, None),
    ),
    "IdleTimeout": (RETRY, APP, None),
    **dict.fromkeys(
        (
            "ExpiredProviderToken",
            "InvalidProviderToken",
            "MissingProviderToken",
            "BadCertificate",
            "BadCertificateEnvironment",
            "Forbidden",
        ),
        (AUTH, APP, None),
    ),
    "TooManyRequests": (RETRY, None, 30),
    "TooManyProviderTokenUpdates": (RETRY, APP, 1200),
    **dict.fromkeys(("InternalServerError", "ServiceUnavailable", "Shutdown"), (RETRY, APP, None)),
}
SERVICE = "web_push:127.0.0.1"
WEB_PUSH: dict[str, Row] = {
    **dict.fromkeys(("200", "202"), (SENT, None, None)),
    **dict.fromkeys(("404", "410", "410 invalid", "410 no subscription"), (DROP, None, None)),
    **dict.fromkeys(
        ("400 crypto", "400 ttl", "400 topic", "400 urgency", "400 unauthorized", "413"), (FIX, None, None)
    ),
    "401": (AUTH, SERVICE, None),
    "403": (DROP, None, None),  # the service took others before
    "429": (RETRY, SERVICE, 12.5),
    "500": (RETRY, SERVICE, None),
    "502": (RETRY, SERVICE, None),
    "503": (RETRY, SERVICE, 9),
}
ENDPOINT = "the endpoint"  # whose key has the simulator's port in it
WEBHOOK: dict[str, Row] = {
    "204": (SENT, None, None),
    **dict.fromkeys(("301", "400", "401", "403", "404", "413"), (FIX, None, None)),
    "410": (DROP, None, None),
    **dict.fromkeys(("408", "409", "425", "429 bare", "500", "502", "503"), (RETRY, ENDPOINT, None)),
    "429": (RETRY, ENDPOINT, 11),
    "429 date": (RETRY, ENDPOINT, 3600),
}
TABLE: dict[str, dict[str, Row]] = {
    "email": EMAIL,
    "slack": SLACK,
    "fcm": FCM,
    "apns": APNS,
    "web_push": WEB_PUSH,
    "webhook": WEBHOOK,
}
TWICE = {("fcm", "UNAUTHENTICATED"), ("apns", "ExpiredProviderToken")}  # the client asks once more with a new token


def test_every_row_that_the_simulator_knows_is_in_the_table() -> None:
    assert {channel: set(rows) for channel, rows in TABLE.items()} == {name: set(rows) for name, rows in ROWS.items()}


@pytest.mark.parametrize("channel", TABLE)
async def test_every_answer_means_what_the_table_says(channel: str, clients: Clients) -> None:
    wrong = []
    name = ChannelName(channel)
    for row, (verdict, scope, seconds) in TABLE[channel].items():
        clients.sim.faults.clear()
        clients.sim.faults.add(Fault(channel=channel, row=row, times=2 if (channel, row) in TWICE else 1))
        seen = await clients.channels[name].send(clients.targets[name], clients.message(), now=datetime.now(UTC))
        asked = None if seconds is None else timedelta(seconds=seconds)
        endpoint = clients.channels[name].scopes(clients.targets[name])[0].key
        waits = endpoint if scope == ENDPOINT else scope
        if (seen.verdict, seen.scope, seen.retry_after) != (verdict, waits, asked):
            wrong.append((row, seen))
    assert wrong == []


async def test_codes_say_which_answer_it_was(clients: Clients) -> None:
    expected = {
        ("email", "5.1.1"): "550 5.1.1",
        ("email", "550 bare"): "550",
        ("slack", "missing_scope"): "missing_scope",
        ("fcm", "UNREGISTERED"): "UNREGISTERED",
        ("fcm", "502 html"): "http_502",
        ("apns", "BadDeviceToken"): "BadDeviceToken",
        ("web_push", "410"): "410 errno 106",
        ("web_push", "403"): "403",
        ("webhook", "404"): "404",
    }
    seen = {}
    for channel, row in expected:
        clients.sim.faults.add(Fault(channel=channel, row=row))
        name = ChannelName(channel)
        outcome = await clients.channels[name].send(clients.targets[name], clients.message(), now=datetime.now(UTC))
        seen[channel, row] = outcome.code
    assert seen == expected


@pytest.mark.parametrize("row", ["452 mailbox full", "5.2.2", "552 bare quota"])
async def test_a_full_mailbox_is_counted_and_nothing_else_is(row: str, clients: Clients) -> None:
    async def soft(name: str) -> bool:
        clients.sim.faults.add(Fault(channel="email", row=name))
        email = clients.channels[ChannelName.EMAIL]
        outcome = await email.send(clients.targets[ChannelName.EMAIL], clients.message(), now=datetime.now(UTC))
        return outcome.soft_bounce

    assert await soft(row)
    assert not await soft("451 local error")


async def test_apple_tells_since_when_a_token_is_dead(clients: Clients) -> None:
    clients.sim.faults.add(Fault(channel="apns", row="410 before"))
    apns = clients.channels[ChannelName.APNS]
    outcome = await apns.send(clients.targets[ChannelName.APNS], clients.message(), now=datetime.now(UTC))
    assert outcome == Outcome(DROP, "Unregistered", dead_since=datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC))


@pytest.mark.parametrize("channel", TABLE)
async def test_a_good_message_is_taken_once_and_shown_once(channel: str, clients: Clients) -> None:
    name = ChannelName(channel)
    target = clients.targets[name]
    outcome = await clients.channels[name].send(target, clients.message(), now=datetime.now(UTC))
    assert outcome.verdict is SENT, outcome
    assert outcome.vendor_id
    assert len(clients.sim.records.accepted(channel)) == 1
    assert [each.deliveries for each in clients.sim.records.device(channel, target.address).shown.values()] == [1]


async def test_the_first_403_of_a_push_service_is_about_our_key(clients: Clients) -> None:
    push, target, now = clients.channels[ChannelName.WEB_PUSH], clients.targets[ChannelName.WEB_PUSH], datetime.now(UTC)
    clients.sim.faults.add(Fault(channel="web_push", row="403"))
    outcome = await push.send(target, clients.message(), now=now)
    assert (outcome.verdict, outcome.scope) == (AUTH, SERVICE)
    assert (await push.send(target, clients.message(), now=now)).verdict is SENT
    for later, verdict in ((timedelta(minutes=59), DROP), (timedelta(minutes=61), AUTH)):
        clients.sim.faults.add(Fault(channel="web_push", row="403"))
        assert (await push.send(target, clients.message(), now=now + later)).verdict is verdict


@pytest.mark.parametrize("channel", [each for each in TABLE if each != "apns"])
async def test_a_lost_reply_may_have_been_sent(channel: str, clients: Clients) -> None:
    name = ChannelName(channel)
    target, now = clients.targets[name], datetime.now(UTC)
    client = clients.channels[name]
    for _ in range(2):  # on a fresh connection, and on one that was used before
        clients.sim.faults.add(Fault(channel=channel, kind="close_after_data"))
        assert (await client.send(target, clients.message(), now=now)).verdict is MAYBE
        assert (await client.send(target, clients.message(), now=now)).verdict is SENT
    assert len(clients.sim.records.accepted(channel)) == 4


async def test_a_lost_reply_of_apple_is_asked_for_again_at_once(clients: Clients) -> None:
    apns, target, now = clients.channels[ChannelName.APNS], clients.targets[ChannelName.APNS], datetime.now(UTC)
    clients.sim.faults.add(Fault(channel="apns", kind="close_after_data"))
    assert (await apns.send(target, clients.message(), now=now)).verdict is SENT
    (shown,) = clients.sim.records.device("apns", target.address).shown.values()
    assert shown.deliveries == 2
    clients.sim.faults.add(Fault(channel="apns", kind="close_after_data", times=2))
    assert (await apns.send(target, clients.message(), now=now)).verdict is MAYBE


@pytest.mark.parametrize("channel", ["fcm", "apns", "web_push"])
async def test_the_same_push_again_is_shown_once(channel: str, clients: Clients) -> None:
    name = ChannelName(channel)
    target, now, message = clients.targets[name], datetime.now(UTC), clients.message()
    for _ in range(3):
        assert (await clients.channels[name].send(target, message, now=now)).verdict is SENT
    (shown,) = clients.sim.records.device(channel, target.address).shown.values()
    assert shown.deliveries == 3
    await clients.channels[name].send(target, clients.message(), now=now)
    assert len(clients.sim.records.device(channel, target.address).shown) == 2
