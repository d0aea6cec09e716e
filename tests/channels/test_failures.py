"""What a server or the network can do to a client: it is told right whether the message may have gone out."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from activities.adapters.channels import direct_http
from activities.adapters.channels.answers import apns, fcm, slack, smtp, web_push
from activities.adapters.channels.answers.retry_after import retry_after
from activities.adapters.channels.answers.smtp import Stage
from activities.adapters.channels.channel import CancelledBeforeSending, Channel, Outcome, Target, Verdict
from activities.adapters.channels.direct_http import DirectHttp
from activities.adapters.channels.email import Email
from activities.adapters.channels.webhook import Webhook
from contracts.payloads.notification import ChannelName
from simulator.faults import Fault
from tests.channels.conftest import SECRET, Clients

NOW = datetime(2026, 11, 25, tzinfo=UTC)
WEBHOOK, EMAIL = ChannelName.WEBHOOK, ChannelName.EMAIL
RETRY, MAYBE, SENT, FIX = Verdict.RETRY, Verdict.MAYBE_SENT, Verdict.SENT, Verdict.FIX_OURS
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[int]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    started = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield started.sockets[0].getsockname()[1]
    finally:
        started.close()


def answering(raw: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        await reader.readexactly(length)
        writer.write(raw)
        await writer.drain()

    return handle


def at(port: int, path: str = "/hook") -> Target:
    return Target(WEBHOOK, f"http://127.0.0.1:{port}{path}", NOW, {"secret": SECRET})


@pytest.mark.parametrize(
    ("raw", "verdict"),
    [
        (b"", MAYBE),
        (b"garbage\r\n\r\n", MAYBE),
        (b"SSH-2.0-OpenSSH_9.2\r\n", MAYBE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n", MAYBE),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", MAYBE),
        (b"HTTP/1.1 200 Tr\xe8s bien\r\nContent-Length: 0\r\n\r\n", MAYBE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", SENT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", MAYBE),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nnot", SENT),
        (b"HTTP/1.1 503 No\r\nRetry-After: 3\r\nRetry-After: 9\r\nContent-Length: 50\r\n\r\nshort", RETRY),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 50\r\n\r\n", Verdict.DROP_TARGET),
    ],
)
async def test_odd_answers_over_http(raw: bytes, verdict: Verdict, clients: Clients) -> None:
    async with server(answering(raw)) as port:
        outcome = await clients.channels[WEBHOOK].send(at(port), clients.message(), now=NOW)
    assert outcome.verdict is verdict, outcome
    if b"Retry-After" in raw:
        assert outcome.retry_after is not None
        assert outcome.retry_after.total_seconds() == 3


async def test_a_reset_before_the_answer_may_have_been_sent(clients: Clients) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with server(reset) as port:
        outcome = await clients.channels[WEBHOOK].send(at(port), clients.message(), now=NOW)
    assert (outcome.verdict, outcome.code) == (MAYBE, "reply_lost")


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


@pytest.mark.parametrize(
    ("handle", "scheme", "verdict", "code"),
    [
        (answering(b""), "http", MAYBE, "reply_lost"),
        (answering(b"garbage\r\n\r\n"), "http", MAYBE, "reply_lost"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"), "http", MAYBE, "reply_lost"),
        (abort, "http", MAYBE, "reply_lost"),
        (hang, "http", MAYBE, "reply_lost"),
        (hang, "https", RETRY, "connection"),
    ],
)
async def test_the_direct_client_tells_a_lost_reply_from_no_connection(
    handle: Handler, scheme: str, verdict: Verdict, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_http, "OVERALL_SECONDS", 1.0)
    monkeypatch.setattr(direct_http, "CONNECT_SECONDS", 0.5)
    http = DirectHttp()
    async with server(handle) as port:
        url = f"{scheme}://127.0.0.1:{port}/x"
        got = await http.post(url, scope="vendor", content=b"{}", headers={"a": "b"})
    assert isinstance(got, Outcome)
    assert (got.verdict, got.code, got.scope) == (verdict, code, "vendor" if verdict is RETRY else None), got
    await http.close()


async def test_the_direct_client_waits_for_a_connection_and_then_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_http, "OVERALL_SECONDS", 1.5)
    monkeypatch.setattr(direct_http, "POOL_SECONDS", 0.5)
    monkeypatch.setattr(direct_http, "CONNECTIONS", 2)
    http = DirectHttp()
    async with server(hang) as port:
        sends = [http.post(f"http://127.0.0.1:{port}/", scope="v", content=b"", headers={}) for _ in range(4)]
        verdicts = sorted(each.verdict for each in await asyncio.gather(*sends) if isinstance(each, Outcome))
    assert verdicts == sorted([MAYBE, MAYBE, RETRY, RETRY])
    await http.close()


async def test_the_direct_client_gives_the_answer_as_it_is() -> None:
    http = DirectHttp()
    raw = b"HTTP/1.1 302 Found\r\nLocation: /y\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nab"
    async with server(answering(raw)) as port:
        got = await http.post(f"http://127.0.0.1:{port}/", scope="v", content=b"1", headers={})
        bad = await http.post("no url", scope="v", content=b"", headers={})
        odd = await http.post(f"http://127.0.0.1:{port}/", scope="v", content=b"", headers={"a": "line\nbreak"})
    await http.close()
    assert not isinstance(got, Outcome)
    assert (got.status, got.headers["location"], got.headers["x-a"], got.body) == (302, "/y", "1", b"ab")
    assert [each.verdict for each in (bad, odd) if isinstance(each, Outcome)] == [FIX, FIX]


@pytest.mark.parametrize("channel", list(ChannelName))
async def test_a_refused_connection_sent_nothing(channel: ChannelName, clients: Clients) -> None:
    client, target = clients.channels[channel], clients.targets[channel]
    await clients.sim.stop_listening()
    outcome = await client.send(target, clients.message(), now=datetime.now(UTC))
    assert (outcome.verdict, outcome.code) in {(RETRY, "connection"), (RETRY, "token_endpoint")}, outcome
    assert outcome.scope == client.scopes(target)[0].key


async def test_a_name_that_does_not_resolve_sent_nothing(clients: Clients) -> None:
    webhook = Webhook()
    target = Target(WEBHOOK, "https://does-not-exist.invalid/hook", NOW, {"secret": SECRET})
    outcome = await webhook.send(target, clients.message(), now=NOW)
    assert (outcome.verdict, outcome.code) == (RETRY, "connection")
    await webhook.close()


async def test_a_server_that_does_not_speak_tls_got_nothing(clients: Clients) -> None:
    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with server(say_nothing) as port:
        target = Target(WEBHOOK, f"https://127.0.0.1:{port}/hook", NOW, {"secret": SECRET})
        outcome = await clients.channels[WEBHOOK].send(target, clients.message(), now=NOW)
    assert (outcome.verdict, outcome.code) == (RETRY, "connection")


async def test_who_waits_for_a_connection_sent_nothing(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.adapters.channels.http.OVERALL_SECONDS", 2.0)
    monkeypatch.setattr("activities.adapters.channels.http.TIMEOUT", httpx.Timeout(2.0, connect=0.5, pool=0.5))
    monkeypatch.setattr("activities.adapters.channels.public_addresses.CONNECTIONS", 2)
    webhook = Webhook(allowed_networks=("127.0.0.0/8",))
    clients.sim.faults.add(Fault(channel="webhook", kind="timeout", times=2))
    sends = [webhook.send(clients.targets[WEBHOOK], clients.message(), now=datetime.now(UTC)) for _ in range(5)]
    verdicts = [each.verdict for each in await asyncio.gather(*sends)]
    assert sorted(verdicts) == sorted([MAYBE, MAYBE, RETRY, RETRY, RETRY])
    await webhook.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://a..b/x",
        "https://.example.com/x",
        f"https://{'a' * 64}.com/x",
        "https://xn--a.com/x",
        "https://exa mple.com/x",
        "https://127。0。0。1:8443/x",
        "https://１２７.0.0.1/x",
        "https://[v1.a]/x",
        "https://[::1/x",
        "https://h:99999/x",
        "https://h:0/x",
        "https:///x",
        "\x00",
        "",
    ],
)
@pytest.mark.parametrize("channel", [WEBHOOK, ChannelName.WEB_PUSH])
async def test_an_impossible_url_is_ours_to_mend(url: str, channel: ChannelName, clients: Clients) -> None:
    client = Webhook() if channel is WEBHOOK else clients.channels[channel]
    target = replace(clients.targets[channel], address=url)
    assert client.scopes(target)
    assert (await client.send(target, clients.message(), now=NOW)).verdict is FIX
    await client.close()


async def test_no_cookie_travels_from_one_message_to_the_next(clients: Clients) -> None:
    seen: list[bytes] = []

    async def set_cookie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 x\r\nSet-Cookie: session=acme; Path=/\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with server(set_cookie) as port:
        for _ in range(2):
            await clients.channels[WEBHOOK].send(at(port), clients.message(), now=NOW)
    assert len(seen) == 2
    assert not any(b"cookie" in head.lower() for head in seen)


async def test_a_cancelled_send_says_whether_anything_went_out(clients: Clients) -> None:
    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with server(hang) as port:
        relay = Email(
            host="127.0.0.1",
            port=port,
            tls="none",
            username=None,
            password=None,
            sender="a@acme.example",
            connections=1,
        )
        for client, target, expected in (
            (relay, clients.targets[EMAIL], CancelledBeforeSending),
            (clients.channels[WEBHOOK], at(port), asyncio.CancelledError),
        ):
            sending = asyncio.create_task(client.send(target, clients.message(), now=NOW))
            await asyncio.sleep(0.3)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as raised:
                await sending
            assert raised.type is expected


# --- SMTP ---


def scripted(
    replies: dict[bytes, bytes], *, greeting: bytes = b"220 hi\r\n", after_dot: bytes = b"250 ok\r\n"
) -> Handler:
    """A relay that answers a command as told, else well; an empty answer closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        if not greeting:
            return
        while line := await reader.readline():
            verb = line[:4].upper()
            answer = replies.get(verb, b"354 go on\r\n" if verb == b"DATA" else b"250 ok\r\n")
            writer.write(answer)
            await writer.drain()
            if not answer:
                return
            if answer.startswith(b"354"):
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(after_dot)
                await writer.drain()
                if not after_dot:
                    return

    return handle


@pytest.mark.parametrize(
    ("relay", "verdict", "code"),
    [
        (scripted({}, greeting=b""), RETRY, "connection"),
        (scripted({}, greeting=b"554 no\r\n"), Verdict.AUTH, "554"),
        (scripted({}, greeting=b"421 busy\r\n"), RETRY, "421"),
        (scripted({}, greeting=b"garbage\r\n"), RETRY, "connection"),
        (scripted({b"EHLO": b"", b"HELO": b""}), RETRY, "connection"),
        (scripted({b"MAIL": b""}), RETRY, "connection"),
        (scripted({b"MAIL": b"550 5.1.1 unknown sender\r\n"}), FIX, "550 5.1.1"),
        (scripted({b"RCPT": b""}), RETRY, "connection"),
        (scripted({b"RCPT": b"garbage\r\n"}), RETRY, "connection"),
        (scripted({b"RCPT": b"550-5.1.1 unknown\r\n550 5.1.1 user\r\n"}), Verdict.DROP_TARGET, "550 5.1.1"),
        (scripted({b"RCPT": "451 défaut général\r\n".encode("latin-1")}), RETRY, "451"),
        (scripted({b"DATA": b""}), RETRY, "connection"),
        (scripted({b"DATA": b"451 4.3.0 no\r\n"}), RETRY, "451 4.3.0"),
        (scripted({}, after_dot=b""), MAYBE, "reply_lost"),
        (scripted({}, after_dot=b"garbage\r\n"), MAYBE, "reply_lost"),
        (scripted({}, after_dot=b"251 will forward\r\n"), SENT, "251"),
        (scripted({}, after_dot=b"421 4.3.0 closing\r\n"), RETRY, "421 4.3.0"),
        (scripted({}, after_dot="550 5.7.1 refusé\r\n".encode("latin-1")), FIX, "550 5.7.1"),
    ],
)
async def test_a_relay_at_every_stage(relay: Handler, verdict: Verdict, code: str, clients: Clients) -> None:
    async with server(relay) as port:
        email = mailer(port)
        outcome = await email.send(clients.targets[EMAIL], clients.message(), now=NOW)
        await email.close()
    assert (outcome.verdict, outcome.code) == (verdict, code), outcome
    json.dumps(outcome.detail).encode()
    outcome.detail.encode()


def mailer(port: int, connections: int = 4) -> Email:
    return Email(
        host="127.0.0.1",
        port=port,
        tls="none",
        username=None,
        password=None,
        sender="Acme <no-reply@acme.example>",
        connections=connections,
    )


async def test_a_relay_that_closes_between_mails_costs_nothing(clients: Clients) -> None:
    """As relays do after a number of mails or seconds, with 421 or without a word."""
    opened = 0

    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        writer.write(b"220 hi\r\n")
        mails = 0
        while line := await reader.readline():
            if mails and line.startswith(b"MAIL"):
                writer.write(b"421 4.4.2 enough for one connection\r\n" if opened % 2 else b"")
                await writer.drain()
                return
            writer.write(b"354 go on\r\n" if line.startswith(b"DATA") else b"250 ok\r\n")
            await writer.drain()
            if line.startswith(b"DATA"):
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 ok\r\n")
                mails += 1

    async with server(one_each) as port:
        email = mailer(port)
        for number in range(1, 6):
            assert (await email.send(clients.targets[EMAIL], clients.message(), now=NOW)).verdict is SENT
            assert opened == number
        await email.close()


async def test_a_mail_that_left_only_in_part_was_not_sent(clients: Clients) -> None:
    async def stop_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            writer.write(b"354 go on\r\n" if line.startswith(b"DATA") else b"250 ok\r\n")
            await writer.drain()
            if line.startswith(b"DATA"):
                await reader.read(1000)
                writer.transport.abort()
                return

    async with server(stop_reading) as port:
        email = mailer(port)
        outcome = await email.send(clients.targets[EMAIL], clients.message(text="x" * 8_000_000), now=NOW)
        await email.close()
    assert (outcome.verdict, outcome.code) == (RETRY, "connection")


async def test_mails_do_not_wait_for_ever_behind_a_relay_that_hangs(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.adapters.channels.smtp_connections.MAX_WAIT_SECONDS", 0.3)
    monkeypatch.setattr("activities.adapters.channels.email.SEND_SECONDS", 1.0)

    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with server(hang) as port:
        email = mailer(port, connections=1)
        sends = [email.send(clients.targets[EMAIL], clients.message(), now=NOW) for _ in range(4)]
        outcomes = await asyncio.gather(*sends)
        assert sorted((each.verdict, each.code, each.scope) for each in outcomes if each.scope) == [
            (RETRY, "connection", "email:127.0.0.1")
        ]
        assert [each.code for each in outcomes if not each.scope] == ["busy"] * 3
        await email.close()


# --- whatever a body may be ---

ODD: list[Any] = [None, True, 0, -1, 10**30, 1e308, "", "x" * 70_000, "\ud800", [], [[]], {}, {"error": []}]
FIELDS = (
    "error",
    "reason",
    "ok",
    "ts",
    "name",
    "details",
    "errno",
    "timestamp",
    "needed",
    "response_metadata",
    "messages",
)


def bodies() -> list[bytes]:
    dice = random.Random(7)
    made = [b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"<html>", b'{"ok":true', b"NaN"]
    made += [json.dumps(each).encode() for each in ODD]
    for _ in range(1_500):
        body = {name: dice.choice(ODD) for name in dice.sample(FIELDS, dice.randint(0, 6))}
        if dice.random() < 0.5:
            kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
            detail = {
                "@type": dice.choice([*ODD, kind]) if dice.random() < 0.5 else kind,
                "errorCode": dice.choice(ODD),
            }
            body["error"] = {"details": [detail, dice.choice(ODD)], "message": dice.choice(ODD)}
        made.append(json.dumps(body).encode())
    return made


def test_every_judge_judges_any_body() -> None:
    dice = random.Random(8)
    for body in bodies():
        status = dice.choice([200, 201, 204, 301, 400, 401, 403, 404, 410, 413, 429, 500, 503])
        outcomes = [
            slack.judge(status, {}, body, now=NOW, workspace="T", channel="C"),
            fcm.judge(status, {}, body, now=NOW, project="p"),
            apns.judge(status, {}, body, now=NOW, topic="t", same_environment=True),
            web_push.judge(status, {}, body, now=NOW, host="h", key_works=False),
            smtp.judge(
                max(status, 400),
                body[:300].decode("utf-8", "surrogateescape"),
                stage=Stage.RECIPIENT,
                relay="r",
                domain="d",
            ),
        ]
        for outcome in outcomes:
            assert isinstance(outcome, Outcome)
            assert len(outcome.code) <= 100
            assert len(outcome.detail) <= 500
            (outcome.code + outcome.detail + (outcome.vendor_id or "")).encode()


async def test_a_large_answer_of_slack_is_still_read(clients: Clients) -> None:
    blocks: list[dict[str, JsonValue]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 2_900}} for _ in range(50)
    ]
    content = replace(clients.message().content, slack_blocks=tuple(blocks))
    slack_channel: Channel = clients.channels[ChannelName.SLACK]
    outcome = await slack_channel.send(
        clients.targets[ChannelName.SLACK], clients.message(content=content), now=datetime.now(UTC)
    )
    assert outcome.verdict is SENT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("2.5", 2.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("999999999", 3600.0),
        ("Wed, 25 Nov 2026 00:01:00 GMT", 60.0),
        ("Wed, 25 Nov 2020 00:01:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    asked = retry_after({"retry-after": text}, NOW)
    assert (asked.total_seconds() if asked is not None else None) == seconds


# --- Google's token endpoint ---


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"[]", RETRY),
        (200, b"null", RETRY),
        (200, b"<html>", RETRY),
        (200, b"\xff\xfe", RETRY),
        (200, b'{"access_token":"a","expires_in":null}', Verdict.AUTH),
        (500, b"oops", RETRY),
        (400, b"null", RETRY),
        (400, b'{"error":"invalid_grant"}', Verdict.AUTH),
        (401, b'{"error":"invalid_client"}', Verdict.AUTH),
    ],
)
async def test_an_odd_token_endpoint_raises_nothing(
    status: int, body: bytes, verdict: Verdict, clients: Clients
) -> None:
    clients.sim.vendors.token_answer = (status, body)
    now = datetime.now(UTC)
    outcome = await clients.channels[ChannelName.FCM].send(clients.targets[ChannelName.FCM], clients.message(), now=now)
    assert outcome.verdict is verdict, outcome
    assert outcome.scope == "fcm:holdfast-sim"
