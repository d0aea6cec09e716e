"""Signed webhooks: the signature, and what they must never reach."""

import hmac
import json
import socket
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from aiohttp import web

from activities.adapters.channels.channel import Target, Verdict
from activities.adapters.channels.public_addresses import NotPublic, PublicAddresses
from activities.adapters.channels.webhook import Webhook
from contracts.payloads.notification import ChannelName
from simulator.faults import Fault
from tests.channels.conftest import SECRET, Clients

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
WEBHOOK = ChannelName.WEBHOOK


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://10.0.0.8/x",
        "https://172.16.0.1/x",
        "https://192.168.1.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/x",
        "https://0.0.0.0/x",
        "https://224.0.0.1/x",
        "https://255.255.255.255/x",
        "https://[::1]/x",
        "https://[::]/x",
        "https://[fe80::1]/x",
        "https://[fd00::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[::ffff:8.8.8.8]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://[2002:7f00:1::]/x",
        "https://0x7f.1/x",
        "https://2130706433/x",
        "https://127.1/x",
        "https://017700000001/x",
        "http://example.com/x",
        "https://example.com:22/x",
        "https://example.com:80/x",
        "https://user@example.com/x",
    ],
)
def test_private_addresses_and_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(NotPublic):
        PublicAddresses(()).check(url)


@pytest.mark.parametrize("url", ["https://example.com/x", "https://8.8.8.8:8443/x", "https://[2600::1]/x"])
def test_public_ones_are_not(url: str) -> None:
    PublicAddresses(()).check(url)


async def test_a_name_that_leads_inside_is_refused_without_a_request(clients: Clients) -> None:
    webhook = Webhook()
    for host in ("localhost", socket.gethostname()):
        target = Target(WEBHOOK, f"https://{host}:8443/x", NOW, {"secret": SECRET})
        outcome = await webhook.send(target, clients.message(), now=NOW)
        assert (outcome.verdict, outcome.code) == (Verdict.FIX_OURS, "address_not_allowed"), outcome
    await webhook.close()


async def test_what_an_operator_allows_is_reached(clients: Clients) -> None:
    outcome = await clients.channels[WEBHOOK].send(clients.targets[WEBHOOK], clients.message(), now=datetime.now(UTC))
    assert outcome.verdict is Verdict.SENT
    strict = Webhook()
    outcome = await strict.send(clients.targets[WEBHOOK], clients.message(), now=datetime.now(UTC))
    assert (outcome.verdict, outcome.code) == (Verdict.FIX_OURS, "address_not_allowed")
    await strict.close()


async def test_the_signature_is_that_of_the_specification_and_the_id_stays(clients: Clients) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=204)

    runner, url = await _server(take)
    target = Target(WEBHOOK, url, NOW, {"secret": SECRET})
    message = clients.message()
    for _ in range(2):
        assert (await clients.channels[WEBHOOK].send(target, message, now=NOW)).vendor_id == message.effect_id
    await runner.cleanup()
    assert len(seen) == 2
    for headers, body in seen:
        signed = f"{message.effect_id}.{int(NOW.timestamp())}.".encode() + body
        mac = hmac.new(b64decode(SECRET.removeprefix("whsec_")), signed, sha256).digest()
        assert headers["webhook-id"] == message.effect_id
        assert headers["webhook-signature"] == f"v1,{b64encode(mac).decode()}"
        event = json.loads(body)
        assert event["type"] == "news"
        assert event["data"]["subject"] == "Hello"


async def test_a_redirect_is_not_followed(clients: Clients) -> None:
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/inside"})

    runner, url = await _server(redirect)
    target = Target(WEBHOOK, url, NOW, {"secret": SECRET})
    outcome = await clients.channels[WEBHOOK].send(target, clients.message(), now=NOW)
    await runner.cleanup()
    assert (outcome.verdict, outcome.code) == (Verdict.FIX_OURS, "307")
    assert asked == ["/hook"]


@pytest.mark.parametrize("secret", [None, "plain", "whsec_", "whsec_!!!", 7])
async def test_an_unusable_secret_is_told(secret: Any, clients: Clients) -> None:
    target = Target(WEBHOOK, clients.targets[WEBHOOK].address, NOW, {"secret": secret})
    outcome = await clients.channels[WEBHOOK].send(target, clients.message(), now=NOW)
    assert (outcome.verdict, outcome.code) == (Verdict.FIX_OURS, "secret")


async def test_a_receiver_that_never_ends_its_answer_is_given_up(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.adapters.channels.http.OVERALL_SECONDS", 0.5)
    clients.sim.faults.add(Fault(channel="webhook", kind="timeout"))
    outcome = await clients.channels[WEBHOOK].send(clients.targets[WEBHOOK], clients.message(), now=datetime.now(UTC))
    assert (outcome.verdict, outcome.code) == (Verdict.MAYBE_SENT, "reply_lost")


async def _server(handler: Any) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
