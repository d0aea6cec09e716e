"""FCM, APNs and Web Push: tokens, connections, payloads, and what a device shows."""

import asyncio
import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest

from activities.adapters.channels.apns import Apns
from activities.adapters.channels.channel import Content, Target, Verdict
from activities.adapters.channels.push_payload import fitted
from activities.adapters.channels.web_push import DEFAULT_PUSH_HOSTS, WebPush
from contracts.payloads.notification import ChannelName
from simulator.faults import Fault
from simulator.stage import Simulator
from tests.channels.conftest import Clients

FCM, APNS, WEB_PUSH = ChannelName.FCM, ChannelName.APNS, ChannelName.WEB_PUSH
LONG = "Zeile für Zeile. " * 600


def received(clients: Clients, channel: ChannelName) -> list[dict[str, Any]]:
    return [record.body for record in clients.sim.records.accepted(channel.value)]


async def test_fcm_gets_one_access_token_for_all_and_another_once_it_is_refused(clients: Clients) -> None:
    fcm, now = clients.channels[FCM], datetime.now(UTC)
    targets = [Target(FCM, f"phone-{number}", now) for number in range(20)]
    sent = await asyncio.gather(*(fcm.send(each, clients.message(), now=now) for each in targets))
    assert {each.verdict for each in sent} == {Verdict.SENT}
    assert len(clients.sim.vendors.access_tokens) == 1
    clients.sim.vendors.access_tokens.clear()  # revoked: Google answers 401
    sent = await asyncio.gather(*(fcm.send(each, clients.message(), now=now) for each in targets))
    assert {each.verdict for each in sent} == {Verdict.SENT}
    assert len(clients.sim.vendors.access_tokens) == 1
    later = now + timedelta(minutes=56)  # it lives an hour, and is renewed before that
    assert (await fcm.send(targets[0], clients.message(), now=later)).verdict is Verdict.SENT
    assert len(clients.sim.vendors.access_tokens) == 2


async def test_fcm_is_told_what_replaces_what_and_how_long_it_counts(clients: Clients) -> None:
    now = datetime.now(UTC)
    content = Content(
        subject="S", text="T", push_title="Title", push_body="Body", url="https://a.example", data={"n": 1}
    )
    message = clients.message(urgent=True, content=content, expires_at=now + timedelta(seconds=90))
    await clients.channels[FCM].send(clients.targets[FCM], message, now=now)
    (body,) = received(clients, FCM)
    assert body["message"] == {
        "token": "device-1",
        "notification": {"title": "Title", "body": "Body"},
        "data": {"n": "1", "url": "https://a.example"},
        "android": {"priority": "high", "ttl": "90s", "notification": {"tag": message.notification_id}},
        "apns": {
            "headers": {
                "apns-collapse-id": message.notification_id,
                "apns-expiration": str(int(message.expires_at.timestamp())),
            }
        },
        "webpush": {"headers": {"TTL": "90"}, "notification": {"tag": message.notification_id}},
    }


async def test_apns_tokens_are_the_same_in_every_worker_and_change_every_half_hour(clients: Clients) -> None:
    first, second = (
        Apns(key_file=clients.sim.credentials.apns_key, key_id="K", team_id="T", topic="t") for _ in range(2)
    )
    at = datetime(2026, 11, 25, 8, 10, tzinfo=UTC)
    token = first.provider_token(at)
    assert second.provider_token(at + timedelta(minutes=19)) == token
    assert second.provider_token(at + timedelta(minutes=20)) == token  # the clocks may differ by a minute
    assert first.provider_token(at + timedelta(minutes=21)) != token
    claims = jwt.decode(
        token, clients.sim.credentials.apns_public_key(), algorithms=["ES256"], options={"verify_iat": False}
    )
    assert claims == {"iss": "T", "iat": int(datetime(2026, 11, 25, 8, 0, tzinfo=UTC).timestamp())}
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "K", "typ": "JWT"}
    for each in (first, second):
        await each.close()


async def test_apns_sends_many_over_one_connection_and_opens_another_after_goaway(clients: Clients) -> None:
    apns, now = clients.channels[APNS], datetime.now(UTC)
    targets = [Target(APNS, f"{number:064x}", now) for number in range(60)]
    sent = await asyncio.gather(*(apns.send(each, clients.message(), now=now) for each in targets))
    assert {each.verdict for each in sent} == {Verdict.SENT}
    before = clients.sim.apns_connections
    assert before <= 4
    for _ in range(before):
        clients.sim.faults.add(Fault(channel="apns", row="Shutdown"))
        assert (await apns.send(targets[0], clients.message(), now=now)).code == "Shutdown"
    assert (await apns.send(targets[0], clients.message(), now=now)).verdict is Verdict.SENT
    assert clients.sim.apns_connections > before


async def test_apns_drops_a_token_of_the_other_environment_never(clients: Clients) -> None:
    now = datetime.now(UTC)
    clients.sim.faults.add(Fault(channel="apns", row="BadDeviceToken"))
    sandbox = Target(APNS, "ab" * 32, now, {"environment": "sandbox"})
    outcome = await clients.channels[APNS].send(sandbox, clients.message(), now=now)
    assert (outcome.verdict, outcome.code) == (Verdict.FIX_OURS, "BadDeviceToken")
    assert "HOLDFAST_APNS_ENVIRONMENT" in outcome.detail


@pytest.mark.parametrize("channel", [FCM, APNS, WEB_PUSH])
async def test_a_long_text_is_cut_to_what_the_vendor_takes(channel: ChannelName, clients: Clients) -> None:
    now = datetime.now(UTC)
    content = Content(subject="Long", text=LONG, data={"keep": "this"})
    outcome = await clients.channels[channel].send(clients.targets[channel], clients.message(content=content), now=now)
    assert outcome.verdict is Verdict.SENT, outcome
    (body,) = received(clients, channel)
    text = {
        FCM: lambda: body["message"]["notification"]["body"],
        APNS: lambda: body["aps"]["alert"]["body"],
        WEB_PUSH: lambda: body["body"],
    }[channel]()
    assert text.endswith("…")
    assert LONG.startswith(text[:-1])
    assert len(text) > 3_000


@pytest.mark.parametrize("length", [0, 1, 19, 20, 21, 500, 4_000])
@pytest.mark.parametrize("letter", ["a", "ü", "😀", '"', "\n"])
def test_what_fits_is_whole_and_what_does_not_is_cut_to_fit(length: int, letter: str) -> None:
    made = json.loads(fitted(lambda body: {"b": body}, letter * length, 600))
    if len(json.dumps({"b": letter * length}, ensure_ascii=False, separators=(",", ":")).encode()) <= 600:
        assert made == {"b": letter * length}
    else:
        encoded = json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()
        assert 560 < len(encoded) <= 600
        assert made["b"] == letter * (len(made["b"]) - 1) + "…"


async def test_web_push_says_how_long_how_urgent_and_what_it_replaces(clients: Clients) -> None:
    push, target, now = clients.channels[WEB_PUSH], clients.targets[WEB_PUSH], datetime.now(UTC)
    message = clients.message(urgent=True, expires_at=now + timedelta(seconds=90))
    await push.send(target, message, now=now)
    (body,) = received(clients, WEB_PUSH)
    assert (body["title"], body["tag"]) == ("Hello", message.notification_id)
    assert (body["ttl"], body["urgency"]) == ("90", "high")
    assert UUID(bytes=urlsafe_b64decode(body["topic"] + "==")) == UUID(message.notification_id)


async def test_a_push_that_waits_for_a_sleeping_browser_is_replaced_by_its_repetition(clients: Clients) -> None:
    push, target, now = clients.channels[WEB_PUSH], clients.targets[WEB_PUSH], datetime.now(UTC)
    clients.sim.records.set_online("web_push", target.address, online=False)
    message = clients.message()
    for each in (message, message, clients.message(subject="Another")):
        assert (await push.send(target, each, now=now)).verdict is Verdict.SENT
    clients.sim.records.set_online("web_push", target.address, online=True)
    device = clients.sim.records.device("web_push", target.address)
    assert device.raw == 2
    assert [each.title for each in device.shown.values()] == ["Hello", "Another"]


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("https://fcm.googleapis.com/fcm/send/abc", True),
        ("https://updates.push.services.mozilla.com/wpush/v2/x", True),
        ("https://db5p.notify.windows.com/w/?token=x", True),
        ("https://web.push.apple.com/x", True),
        ("https://FCM.googleapis.com/x", True),
        ("http://fcm.googleapis.com/x", False),
        ("https://fcm.googleapis.com:8443/x", False),
        ("https://fcm.googleapis.com@evil.example/x", False),
        ("https://fcm.googleapis.com.evil.example/x", False),
        ("https://evil.example/?fcm.googleapis.com", False),
        ("https://evil.example#.push.services.mozilla.com", False),
        ("https://push.services.mozilla.com.evil.example/", False),
        ("https://127.0.0.1/x", False),
        ("https://[::1]/x", False),
        ("https:///x", False),
        ("ftp://fcm.googleapis.com/x", False),
        ("", False),
    ],
)
def test_only_push_services_are_posted_to(endpoint: str, allowed: bool, push: WebPush) -> None:
    assert push.allows(endpoint) is allowed


@pytest.fixture
async def push(clients: Clients) -> WebPush:
    files = clients.sim.credentials
    return WebPush(
        private_key_file=files.vapid_private,
        public_key_file=files.vapid_public,
        subject="mailto:ops@acme.example",
        allowed_hosts=DEFAULT_PUSH_HOSTS,
    )


async def test_an_endpoint_elsewhere_is_refused_without_a_request(push: WebPush, clients: Clients) -> None:
    outcome = await push.send(clients.targets[WEB_PUSH], clients.message(), now=datetime.now(UTC))
    assert (outcome.verdict, outcome.code) == (Verdict.FIX_OURS, "endpoint_not_allowed")
    assert clients.sim.records.of("web_push") == []


@pytest.mark.parametrize("keys", [{}, {"p256dh": "AAAA", "auth": "AAAA"}, {"p256dh": 7, "auth": None}])
async def test_unusable_keys_are_a_dead_subscription(keys: dict[str, Any], clients: Clients) -> None:
    broken = Target(WEB_PUSH, clients.targets[WEB_PUSH].address, datetime.now(UTC), keys)
    outcome = await clients.channels[WEB_PUSH].send(broken, clients.message(), now=datetime.now(UTC))
    assert (outcome.verdict, outcome.code) == (Verdict.DROP_TARGET, "subscription_keys")


async def test_the_simulator_refuses_two_apns_tokens_within_twenty_minutes() -> None:
    async with Simulator() as sim:
        apns = Apns(
            key_file=sim.credentials.apns_key,
            key_id="SIMKEY1234",
            team_id="SIMTEAM123",
            topic="com.acme.app",
            url=sim.apns_url,
        )
        clients = Clients(sim, {}, {})
        now = datetime.now(UTC)
        target = Target(APNS, "ab" * 32, now)
        assert (await apns.send(target, clients.message(), now=now)).verdict is Verdict.SENT
        churned = Apns(
            key_file=sim.credentials.apns_key,
            key_id="SIMKEY1234",
            team_id="SIMTEAM123",
            topic="com.acme.app",
            url=sim.apns_url,
        )
        churned.provider_token = lambda now: _another(sim, now)  # type: ignore[method-assign]
        outcome = await churned.send(target, clients.message(), now=now)
        assert (outcome.verdict, outcome.code) == (Verdict.RETRY, "TooManyProviderTokenUpdates")
        await apns.close()
        await churned.close()


def _another(sim: Simulator, at: datetime) -> str:
    issued_at = (int(at.timestamp()) - 60) // 1800 * 1800 - 60  # a minute before that of the client, so never to come
    claims = {"iss": "SIMTEAM123", "iat": issued_at}
    return jwt.encode(claims, sim.credentials.apns_key.read_text(), algorithm="ES256", headers={"kid": "SIMKEY1234"})


async def test_a_subscription_that_moved_is_followed_once_to_an_allowed_host(clients: Clients) -> None:
    push, target, now = clients.channels[WEB_PUSH], clients.targets[WEB_PUSH], datetime.now(UTC)
    moved = f"{clients.sim.http_url}/web-push/moved"
    clients.sim.vendors.subscriptions[moved] = clients.sim.vendors.subscriptions[target.address]
    clients.sim.faults.add(Fault(channel="web_push", status=301, headers={"Location": moved}, target=target.address))
    outcome = await push.send(target, clients.message(), now=now)
    assert (outcome.verdict, outcome.moved_to) == (Verdict.SENT, moved)
    assert [record.target for record in clients.sim.records.accepted("web_push")] == [moved]
    elsewhere = {"Location": "https://evil.example/x"}
    clients.sim.faults.add(Fault(channel="web_push", status=301, headers=elsewhere, target=target.address))
    outcome = await push.send(target, clients.message(), now=now)
    assert (outcome.verdict, outcome.code) == (Verdict.FIX_OURS, "moved_elsewhere")
