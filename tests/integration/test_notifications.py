"""Notifications over HTTP: submission, people, suppression, unsubscription, with everything real behind it."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from email import message_from_string, policy
from email.message import EmailMessage
from typing import Any

import httpx
import pytest
import pytest_asyncio

from runtime.ports import free_port
from starter.simulated import http_url
from starter.supervisor import environment
from store.api_keys import Role
from tests.integration.stack import Running, closed, picture, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADA = {"channel": "email", "address": "ada@example.com"}
TEXT = {"subject": "Hi", "text": "There."}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    ports = {name: free_port() for name in ("simulator_smtp_port", "simulator_http_port", "simulator_apns_port")}
    async with running(tmp_path_factory.mktemp("notify"), simulator=True, **ports) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def acme(up: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with await up.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def sim(up: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=http_url(up.settings)) as client:
        yield client
        await client.delete("/control/faults")
        await client.delete("/control/records")


async def post(client: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await client.post("/v1/notifications", json=body, headers=headers)


async def result(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = await post(client, body)
    assert answer.status_code == 202, answer.text
    job = await closed(client, answer.json()["job_id"])
    assert job["state"] == "done", job
    found: dict[str, Any] = job["result"]
    return found


async def mails(sim: httpx.AsyncClient) -> list[EmailMessage]:
    records = (await sim.get("/control/records", params={"channel": "email"})).json()
    return [
        message_from_string(record["body"]["raw"], policy=policy.default) for record in records if record["accepted"]
    ]


async def test_a_template_becomes_a_mail_with_all_its_headers(acme: httpx.AsyncClient, sim: httpx.AsyncClient) -> None:
    data = {"name": "Ada", "url": "https://app.example.com"}
    told = await result(acme, {"recipient": ADA, "template": "welcome", "data": data})
    assert told["outcome"] == "sent"
    (mail,) = await mails(sim)
    assert mail["Subject"] == "Welcome, Ada"
    assert mail["To"] == "ada@example.com"
    assert mail["From"] == "Acme <no-reply@acme.example>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<[0-9a-f-]{36}@acme\.example>", mail["Message-ID"])
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]


async def test_the_link_in_the_mail_unsubscribes_from_its_category_in_one_click(
    acme: httpx.AsyncClient, sim: httpx.AsyncClient
) -> None:
    bob = {"channel": "email", "address": "bob@example.com"}
    body = {"recipient": bob, "content": TEXT, "category": "offers"}
    assert (await result(acme, body))["outcome"] == "sent"
    (mail,) = await mails(sim)
    link = mail["List-Unsubscribe"].strip("<>")
    async with httpx.AsyncClient() as anybody:
        asked = await anybody.get(link)
        assert asked.status_code == 200
        assert "<b>offers</b>" in asked.text
        assert (await result(acme, body))["outcome"] == "sent"  # only looked at
        done = await anybody.post(link, data={"List-Unsubscribe": "One-Click"})
        assert done.status_code == 200
        forged = await anybody.post(link[:-2] + "xx")
        assert (forged.status_code, "This link does not work" in forged.text) == (404, True)
    told = await result(acme, body)
    assert (told["outcome"], told["targets"][0]["code"]) == ("suppressed", "unsubscribed")
    assert (await result(acme, body | {"category": "billing"}))["outcome"] == "sent"
    lift = {"channel": "email", "address": "bob@example.com", "category": "offers"}
    assert (await acme.delete("/v1/suppressions", params=lift)).status_code == 204
    assert (await result(acme, body))["outcome"] == "sent"


async def test_a_person_is_reached_by_what_is_registered(acme: httpx.AsyncClient, sim: httpx.AsyncClient) -> None:
    subscription = (await sim.post("/control/subscriptions")).json()
    person = {
        "locale": "de",
        "time_zone": "Europe/Berlin",
        "targets": [
            {"channel": "email", "address": "grace@example.com"},
            {"channel": "fcm", "address": "phone"},
            {"channel": "web_push", "address": subscription["endpoint"], "details": subscription["keys"]},
        ],
        "preferences": [{"category": "offers", "allowed": False}],
    }
    put = await acme.put("/v1/people/grace", json=person)
    assert put.status_code == 200, put.text
    assert [target["channel"] for target in put.json()["targets"]] == ["email", "fcm", "web_push"]
    body = {"recipient": "grace", "content": TEXT, "channels": ["push", "email"]}
    told = await result(acme, body)
    assert sorted((each["channel"], each["outcome"]) for each in told["targets"]) == [
        ("fcm", "sent"),
        ("web_push", "sent"),
    ]
    await sim.post("/control/faults", json={"channel": "fcm", "row": "UNREGISTERED"})
    await sim.post("/control/faults", json={"channel": "web_push", "row": "410"})
    told = await result(acme, body)
    assert sorted((each["channel"], each["outcome"]) for each in told["targets"]) == [
        ("email", "sent"),
        ("fcm", "dropped"),
        ("web_push", "dropped"),
    ]
    seen = (await acme.get("/v1/people/grace")).json()
    assert {each["channel"]: each["suppressed"] for each in seen["targets"]} == {
        "email": None,
        "fcm": "dead",
        "web_push": "dead",
    }
    again = await acme.post("/v1/people/grace/targets", json={"channel": "fcm", "address": "phone"})
    assert (again.status_code, again.json()["suppressed"]) == (201, None)
    german = {"recipient": "grace", "template": "welcome", "data": {"name": "G", "url": "https://a.example"}}
    assert (await result(acme, german))["outcome"] == "sent"
    assert (await mails(sim))[-1]["Subject"] == "Willkommen, G"
    muted = await result(acme, body | {"category": "offers"})
    assert {each["outcome"] for each in muted["targets"]} == {"muted"}


async def test_an_uploaded_file_goes_with_the_mail(acme: httpx.AsyncClient, sim: httpx.AsyncClient) -> None:
    body = picture("ATTACHED")
    uploaded = (await acme.post("/v1/files", files={"file": ("Rechnung ü.png", body)})).json()
    await closed(acme, uploaded["job_id"])
    told = await result(acme, {"recipient": ADA, "content": TEXT, "attachments": [uploaded["file_id"]]})
    assert told["outcome"] == "sent"
    (mail,) = await mails(sim)
    (attached,) = mail.iter_attachments()
    assert (attached.get_filename(), attached.get_content_type()) == ("Rechnung ü.png", "image/png")
    assert attached.get_content() == body


async def test_asking_twice_says_it_once(acme: httpx.AsyncClient, sim: httpx.AsyncClient) -> None:
    body = {"recipient": ADA, "content": TEXT}
    first, second = [await post(acme, body, **{"Idempotency-Key": "k1"}) for _ in range(2)]
    assert (second.status_code, second.json()["deduplicated"]) == (202, True)
    assert first.json()["job_id"] == second.json()["job_id"]
    other = await post(acme, body | {"urgency": "urgent"}, **{"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    deduped = body | {"dedupe_key": "welcome"}
    answers = await asyncio.gather(*(post(acme, deduped) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    changed = await post(acme, deduped | {"content": {"subject": "Other", "text": "words"}})
    assert changed.json()["deduplicated"] is True
    elsewhere = await post(acme, deduped | {"recipient": {"channel": "email", "address": "eve@example.com"}})
    assert elsewhere.json()["deduplicated"] is False
    for answer in (first, answers[0], elsewhere):
        await closed(acme, answer.json()["job_id"])
    assert len(await mails(sim)) == 3


REFUSED = [
    ({"recipient": ADA}, "say either `template` or `content`"),
    ({"recipient": ADA, "content": TEXT, "template": "welcome"}, "say either `template` or `content`"),
    ({"recipient": "nobody", "content": TEXT, "channels": ["email"]}, "PUT /v1/people/nobody"),
    ({"recipient": {"channel": "email", "address": "ada"}, "content": TEXT}, "not a mail address"),
    ({"recipient": {"channel": "email", "address": "a@b.example\nBcc: c@d"}, "content": TEXT}, "not a mail address"),
    ({"recipient": {"channel": "slack", "address": "general"}, "content": TEXT}, "C024BE91L"),
    ({"recipient": {"channel": "apns", "address": "xyz"}, "content": TEXT}, "hexadecimal"),
    ({"recipient": {"channel": "webhook", "address": "https://x.example"}, "content": TEXT}, "whsec_"),
    ({"recipient": {"channel": "web_push", "address": "https://x.example"}, "content": TEXT}, "p256dh"),
    ({"recipient": {"channel": "fax", "address": "1"}, "content": TEXT}, "channel"),
    ({"recipient": ADA, "template": "welcom"}, "there are: welcome"),
    ({"recipient": ADA, "template": "welcome", "data": {"name": "A"}}, "`url` (in body.txt, body.html)"),
    ({"recipient": ADA, "content": TEXT, "expires": "2020-01-01T00:00:00Z"}, "already past"),
    ({"recipient": ADA, "content": TEXT, "expires": "P30D"}, "at most 7 days"),
    ({"recipient": ADA, "content": TEXT, "expires": "2026-12-01T00:00:00"}, "with its time zone"),
    ({"recipient": ADA, "content": TEXT, "urgent": True}, "urgent"),
    ({"recipient": ADA, "content": TEXT, "channels": ["email"]}, "`channels` is for a person"),
    ({"recipient": ADA, "content": TEXT, "attachments": ["nothing"]}, "there is no file nothing"),
    ({"recipient": ADA, "content": TEXT, "data": {"a": 1}}, "`data` is for a template"),
]


@pytest.mark.parametrize(("body", "words"), REFUSED, ids=[words[:24] for _, words in REFUSED])
async def test_a_request_that_cannot_become_a_message_is_told_so(
    acme: httpx.AsyncClient, body: dict[str, Any], words: str
) -> None:
    answer = await post(acme, body)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


async def test_rights_and_tenants_are_kept_apart(up: Running, acme: httpx.AsyncClient) -> None:
    await acme.put("/v1/people/carl", json={"targets": [ADA | {"address": "carl@example.com"}]})
    async with await up.client("globex") as globex, await up.client("acme", Role.VIEW) as viewer:
        assert (await globex.get("/v1/people/carl")).status_code == 404
        answer = await post(globex, {"recipient": "carl", "content": TEXT, "channels": ["email"]})
        assert answer.status_code == 422
        assert (await globex.get("/v1/suppressions")).json() == []
        assert (await viewer.get("/v1/people/carl")).status_code == 403
        assert (await post(viewer, {"recipient": ADA, "content": TEXT})).status_code == 403


async def test_a_zone_that_does_not_exist_is_refused(acme: httpx.AsyncClient) -> None:
    answer = await acme.put("/v1/people/dora", json={"time_zone": "Europe/Berln"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_time_zone")
    quiet = await acme.put("/v1/people/dora", json={"quiet_hours": {"start": "22:00", "end": "07:00"}})
    assert "need a `time_zone`" in quiet.json()["detail"]


async def test_a_reported_bounce_is_respected(acme: httpx.AsyncClient) -> None:
    gone = {"channel": "email", "address": "gone@example.com"}
    assert (await acme.post("/v1/suppressions", json=gone | {"reason": "bounced"})).status_code == 204
    told = await result(acme, {"recipient": gone, "content": TEXT})
    assert (told["outcome"], told["targets"][0]["code"]) == ("suppressed", "bounced")
    listed = (await acme.get("/v1/suppressions")).json()
    assert "gone@example.com" in {each["address"] for each in listed}


async def test_temporals_history_names_no_address(up: Running, acme: httpx.AsyncClient) -> None:
    answer = await post(acme, {"recipient": ADA, "content": {"subject": "Secret subject", "text": "Secret text"}})
    job_id = answer.json()["job_id"]
    await closed(acme, job_id)
    history = await up.services.temporal.get_workflow_handle(f"notification:acme:{job_id}").fetch_history()
    text = history.to_json()
    for private in ("ada@example.com", "Secret", "U2VjcmV0"):  # the last is base64
        assert private not in text


async def test_the_command_line_sends_and_says_how_it_ended(up: Running) -> None:
    def holdfast(*words: str) -> subprocess.CompletedProcess[str]:
        values = environment(up.stack.settings) | {"PATH": "/usr/bin", "COLUMNS": "160"}
        return subprocess.run(
            [sys.executable, "-m", "starter", "notify", *words],
            env=values | {"TEMPORAL_ADDRESS": f"127.0.0.1:{up.settings.temporal_port}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    data = '{"name": "Ada", "url": "https://a.example"}'
    words = ("send", "--tenant", "acme", "--to", "ada@example.com", "--template", "welcome")
    sent = await asyncio.to_thread(holdfast, *words, "--data", data, "--wait")
    assert sent.returncode == 0, sent.stderr
    assert "done: sent" in sent.stdout
    missing = await asyncio.to_thread(holdfast, *words)
    assert missing.returncode == 1
    assert "needs data that is missing: `name`" in " ".join(missing.stderr.split())
    twice = [await asyncio.to_thread(holdfast, *words, "--data", data, "--idempotency-key", "cli") for _ in range(2)]
    assert "asked before" not in twice[0].stdout
    assert "(asked before: this is that job)" in twice[1].stdout
    shown = await asyncio.to_thread(holdfast, "preview", "welcome", "--locale", "de")
    assert shown.stdout.startswith("Willkommen, Ada\n")
    listed = await asyncio.to_thread(holdfast, "templates")
    assert "comment_mention" in listed.stdout
    assert "push, then slack, then email" in listed.stdout
