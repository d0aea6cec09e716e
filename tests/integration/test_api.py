"""The API over HTTP, with a real server, worker, store and blobs behind it."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from starter.api.access import KNOWN_SECONDS
from starter.demo.samples import scanned_pdf
from store.api_keys import Role
from tests.integration.stack import Running, closed, events, picture, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 3 * 1024 * 1024  # bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(tmp_path_factory.mktemp("api"), max_upload_bytes=LIMIT) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def acme(up: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with await up.client() as client:
        yield client


async def upload(client: httpx.AsyncClient, body: bytes, name: str = "a.png", **headers: str) -> httpx.Response:
    return await client.post("/v1/files", files={"file": (name, body)}, headers=headers)


def problem(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"urn:holdfast:problem:{code}"
    return str(document["detail"])


async def test_a_file_goes_from_upload_to_thumbnails_and_searchable_text(acme: httpx.AsyncClient) -> None:
    body = picture("Quarterly walrus census")
    answer = await upload(acme, body, "census.png")
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted["deduplicated"] is False
    seen = await events(acme, accepted["job_id"])
    names = [name for name, _ in seen]
    assert names[-1] == "done"
    assert set(names[:-1]) <= {"submitted", "running"}
    job = seen[-1][1]
    assert job["progress"] == {"stage": "ocr", "done": 1, "total": 1, "unit": "pages"}
    assert job["result"]["words"] == 3
    assert job["result"]["media_type"] == "image/png"
    assert job["submitted_at"] <= job["started_at"] <= job["finished_at"]
    assert job == (await acme.get(accepted["links"]["status"])).json()

    file = (await acme.get(accepted["file"])).json()
    assert (file["filename"], file["size_bytes"], file["pages"]) == ("census.png", len(body), 1)
    assert (file["width"], file["height"], file["searchable"]) == (700, 160, True)
    assert [each["size"] for each in file["thumbnails"]] == [128, 512, 1024]
    for each, width in zip(file["thumbnails"], (128, 512, 700), strict=True):  # never enlarged
        with Image.open(io.BytesIO((await acme.get(each["url"])).content)) as image:
            assert (image.format, image.width) == ("WEBP", width)
    text = (await acme.get(file["text"], params={"words": "true"})).json()
    assert text["pages"][0]["text"] == "Quarterly walrus census"
    first = text["pages"][0]["words"][0]
    assert first["text"] == "Quarterly"
    x0, y0, x1, y1 = first["box"]
    assert 20 <= x0 <= 40 < x1 < 260
    assert 40 <= y0 < y1 <= 110
    plain = await acme.get(file["text"], headers={"Accept": "text/plain"})
    assert plain.text == "Quarterly walrus census"
    assert (await acme.get(file["content"])).content == body
    hits = (await acme.get("/v1/files", params={"q": '"walrus census" -polar'})).json()["hits"]
    assert [(hit["filename"], hit["page"]) for hit in hits] == [("census.png", 1)]
    assert "«walrus" in hits[0]["snippet"]


async def test_asking_twice_with_one_key_starts_once(acme: httpx.AsyncClient, up: Running) -> None:
    body = picture("one and only")
    answers = await asyncio.gather(*(upload(acme, body, **{"Idempotency-Key": "once"}) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({(answer.json()["job_id"], answer.json()["file_id"]) for answer in answers}) == 1
    other = await upload(acme, picture("something else"), **{"Idempotency-Key": "once"})
    assert "send a new key" in problem(other, 409, "idempotency_conflict")
    await closed(acme, answers[0].json()["job_id"])
    again = await upload(acme, body, **{"Idempotency-Key": "once"})
    assert again.json()["job_id"] == answers[0].json()["job_id"]


async def test_the_same_bytes_are_processed_once_per_tenant(acme: httpx.AsyncClient, up: Running) -> None:
    body = picture("twice the same")
    first = (await upload(acme, body, "first.png")).json()
    second = (await upload(acme, body, "second.png")).json()
    await closed(acme, first["job_id"])
    third = (await upload(acme, body, "third.png")).json()
    assert {each["job_id"] for each in (first, second, third)} == {first["job_id"]}
    assert [each["deduplicated"] for each in (first, second, third)] == [False, True, True]
    assert len({each["file_id"] for each in (first, second, third)}) == 3
    hits = (await acme.get("/v1/files", params={"q": "twice same"})).json()["hits"]
    assert {hit["filename"] for hit in hits} == {"first.png", "second.png", "third.png"}
    async with await up.client("globex") as globex:
        theirs = (await upload(globex, body, "theirs.png")).json()
        assert theirs["job_id"] != first["job_id"]
        await closed(globex, theirs["job_id"])
    sha = (await acme.get(first["file"])).json()["sha256"]
    count = await up.services.temporal.count_workflows(f"WorkflowId STARTS_WITH 'file:acme:{sha}'")
    assert count.count == 1


async def test_a_tenant_never_sees_anothers_jobs_or_files(acme: httpx.AsyncClient, up: Running) -> None:
    mine = (await upload(acme, picture("confidential giraffe"))).json()
    await closed(acme, mine["job_id"])
    async with await up.client("globex") as globex:
        problem(await globex.get(mine["links"]["status"]), 404, "job_not_found")
        problem(await globex.get(mine["links"]["events"]), 404, "job_not_found")
        problem(await globex.delete(mine["links"]["status"]), 404, "job_not_found")
        for part in ("", "/text", "/content", "/thumbnails/128"):
            problem(await globex.get(mine["file"] + part), 404, "file_not_found")
        assert (await globex.get("/v1/files", params={"q": "giraffe"})).json() == {"hits": []}
        assert mine["job_id"] not in (await globex.get("/v1/jobs")).text
        problem(await globex.get("/v1/jobs", params={"tenant": "acme"}), 403, "forbidden")


async def test_roles_may_do_what_their_table_says(acme: httpx.AsyncClient, up: Running) -> None:
    mine = (await upload(acme, picture("role play"))).json()
    await closed(acme, mine["job_id"])
    async with await up.client("acme", Role.VIEW) as view:
        assert (await view.get(mine["links"]["status"])).status_code == 200
        problem(await view.get(mine["file"] + "/text"), 403, "forbidden")
        problem(await view.get("/v1/files", params={"q": "role"}), 403, "forbidden")
        problem(await view.delete(mine["links"]["status"]), 403, "forbidden")
        problem(await upload(view, b"x"), 403, "forbidden")
    async with await up.client("acme", Role.OPERATE) as operate:
        assert (await operate.delete(mine["links"]["status"])).json()["state"] == "done"
        problem(await operate.get(mine["file"]), 403, "forbidden")
    async with await up.client("*", Role.ADMIN) as admin:
        assert (await admin.get(mine["file"])).status_code == 200
        jobs = (await admin.get("/v1/jobs", params={"tenant": "acme"})).json()["jobs"]
        assert {job["tenant"] for job in jobs} == {"acme"}
        problem(await upload(admin, b"x"), 403, "tenant_needed")


async def test_keys_are_needed_and_can_be_revoked(up: Running) -> None:
    async with httpx.AsyncClient(base_url=up.settings.resolved_public_url()) as nobody:
        answer = await nobody.get("/v1/jobs")
        assert "missing" in problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    key, secret = await up.services.api_keys.create("acme", Role.VIEW, "")
    async with up.with_key(secret) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        assert await up.services.api_keys.revoke(key.key_id)
        await asyncio.sleep(KNOWN_SECONDS + 0.1)
        assert "unknown or revoked" in problem(await client.get("/v1/jobs"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("empty.png", b"", "empty"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg"),
        ("photo.jpg", picture("png in disguise"), "wrong_extension"),
        ("cut.png", picture("cut off in the middle of it")[:-900], "truncated"),
        ("notes.txt", b"just some words", "unsupported_type"),
    ],
)
async def test_a_bad_file_fails_at_once_in_words(acme: httpx.AsyncClient, name: str, body: bytes, code: str) -> None:
    job = await closed(acme, (await upload(acme, body, name)).json()["job_id"])
    assert job["state"] == "failed"
    assert job["error"]["cause"] == code
    assert job["error"]["detail"].startswith("verify: ")
    assert job["result"] is None


async def test_a_cancelled_job_stops_reading_pages(acme: httpx.AsyncClient, up: Running, tmp_path: Any) -> None:
    sample = scanned_pdf(tmp_path / "long.pdf", pages=8, seed=5)
    accepted = (await upload(acme, sample.path.read_bytes(), "long.pdf")).json()
    content = (await up.services.files.get("acme", accepted["file_id"]) or (None, None))[1]
    assert content
    async with asyncio.timeout(90):
        while not await up.services.files.pages(content.content_id):
            await asyncio.sleep(0.1)
    assert (await acme.delete(accepted["links"]["status"])).status_code == 202
    job = await closed(acme, accepted["job_id"])
    assert job["state"] == "cancelled"
    await asyncio.sleep(4)  # a heartbeat tells the running pages; what was about to end may still be stored
    stored = len(await up.services.files.pages(content.content_id))
    await asyncio.sleep(4)
    assert len(await up.services.files.pages(content.content_id)) == stored < 8
    again = (await upload(acme, sample.path.read_bytes(), "long.pdf")).json()  # a cancelled job may run again
    assert again["job_id"] != accepted["job_id"]
    assert (await closed(acme, again["job_id"]))["result"]["pages"] == 8


async def test_jobs_are_listed_newest_first_in_pages(acme: httpx.AsyncClient) -> None:
    everything: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (await acme.get("/v1/jobs", params={"limit": 3, "type": "file", **after})).json()
        everything += [job["job_id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        assert len(page["jobs"]) == 3
        after = {"after": page["next"]}
    assert everything == sorted(set(everything), reverse=True)  # UUIDv7 sorts by time
    failed = (await acme.get("/v1/jobs", params={"state": "failed"})).json()["jobs"]
    assert {job["state"] for job in failed} == {"failed"}
    assert len(failed) >= 5
    early = (await acme.get("/v1/jobs", params={"until": "2020-01-01T00:00:00Z"})).json()
    assert early == {"jobs": [], "next": None}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"after": "nonsense"}, "invalid_cursor"),
        ({"type": "fax"}, "unknown_job_type"),
        ({"since": "2026-01-01T00:00:00"}, "invalid_request"),
        ({"state": "lost"}, "invalid_request"),
        ({"limit": "0"}, "invalid_request"),
    ],
)
async def test_a_bad_filter_is_refused_in_words(acme: httpx.AsyncClient, query: dict[str, str], code: str) -> None:
    assert problem(await acme.get("/v1/jobs", params=query), 422, code)


async def test_a_bad_upload_is_refused_in_words(acme: httpx.AsyncClient) -> None:
    assert "3 MiB" in problem(await upload(acme, b"x" * (LIMIT + 1)), 413, "too_large")
    boundary = {"Content-Type": "multipart/form-data; boundary=XX"}
    part = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'

    async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
        for each in parts:
            yield each

    over = [part, *[b"y" * 1_000_000] * 4, b"\r\n--XX--\r\n"]
    problem(await acme.post("/v1/files", content=chunks(*over), headers=boundary), 413, "too_large")
    problem(await acme.post("/v1/files", content=b"{}"), 415, "not_multipart")
    cut = await acme.post("/v1/files", content=part + b"half a pict", headers=boundary)
    problem(cut, 400, "incomplete")
    problem(await acme.post("/v1/files", content=b"rubbish", headers=boundary), 400, "malformed_multipart")
    problem(await acme.post("/v1/files", files={"other": ("a.png", b"x")}), 400, "no_file")


async def test_a_body_in_chunks_and_a_strange_name_are_accepted(acme: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        body = picture("chunky")
        head = '--XX\r\nContent-Disposition: form-data; name="file"; filename="../../Zürich\u202e 请求.png"\r\n\r\n'
        whole = b'--XX\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n' + head.encode() + body
        whole += b"\r\n--XX--\r\n"
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    accepted = (await acme.post("/v1/files", content=chunks(), headers=headers)).json()
    file = (await acme.get(accepted["file"])).json()
    assert file["filename"] == "Zürich 请求.png"
    assert (await acme.get(file["content"])).content == picture("chunky")


async def test_health_and_openapi(acme: httpx.AsyncClient) -> None:
    assert (await acme.get("/healthz")).json() == {"status": "ok"}
    assert (await acme.get("/readyz")).json() == {"status": "ok", "checks": {"store": "ok", "temporal": "ok"}}
    document = (await acme.get("/openapi.json")).json()
    assert set(document["paths"]) >= {"/v1/files", "/v1/files/{file_id}", "/v1/jobs", "/v1/jobs/{job_id}/events"}
    for name in ("JobView", "FileAccepted"):
        assert document["components"]["schemas"][name]["example"]
