"""The sync job on a real store with skipped time."""

import zlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError

from contracts.catalogue import SYNC
from contracts.payloads.job import JobRef, JobState
from contracts.payloads.sync import (
    ResourceCounts,
    SyncAllRequest,
    SyncRequest,
    SyncResult,
    SyncSoFar,
    sync_workflow_id,
)
from store.connections import ConnectionState
from store.database import DatabaseUnavailable
from store.synced import SyncedRow
from tests.workflows.sync_stage import REFRESH, SyncStage, a_minute, refused, sync_stage
from workflows.sync import SyncWorkflow
from workflows.sync_all import SyncAllWorkflow

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOUR = timedelta(hours=1)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(client: Client, tmp_path: Path) -> AsyncIterator[SyncStage]:
    async with sync_stage(client, tmp_path) as made:
        yield made


def counts(result: SyncResult, resource: str) -> dict[str, int]:
    """Those that are not 0."""
    return {name: count for name, count in result.counts[resource].model_dump().items() if count}


async def failure_of(stage: SyncStage, handle: object) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()  # type: ignore[attr-defined]
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause


async def test_a_first_sync_brings_everything_and_the_next_only_what_changed(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1", "a2", "a3")
    stage.vendor.add("b")
    stage.vendor.add("c", "c1")
    to = await stage.connect()
    first = await stage.sync(to)
    assert counts(first, "shelves") == {"created": 3, "pages": 2}
    assert counts(first, "books") == {"created": 4, "pages": 4}
    asked = ["/shelves", "/shelves?cursor=2", "/shelves/a/books", "/shelves/a/books?cursor=2"]
    assert stage.vendor.paths == [*asked, "/shelves/b/books", "/shelves/c/books"]
    assert await stage.ids(to, "books") == ["a1", "a2", "a3", "c1"]
    job = await stage.last_job()
    assert (job.state, job.result) == (JobState.DONE, first.model_dump(mode="json"))
    assert (job.stage, job.progress_done, job.progress_unit) == ("books", 4, "rows")
    synced = await stage.connections.get("acme", to.connection_id)
    assert synced is not None
    assert synced.last_job_id == job.job_id

    began = stage.vendor.asked[0][0]
    stage.vendor.asked.clear()
    stage.vendor.books["a"][1] |= {"updated": (datetime.now(UTC) + HOUR).isoformat(), "title": "new"}
    second = await stage.sync(to)
    assert counts(second, "shelves") == {"unchanged": 3, "pages": 2}
    assert counts(second, "books") == {"updated": 1, "pages": 3}
    since = httpx.QueryParams({"since": (began.replace(microsecond=0) - timedelta(minutes=1)).isoformat()})
    assert stage.vendor.paths[2:] == [f"/shelves/{each}/books?{since}" for each in "abc"]


async def test_what_is_gone_is_deleted_with_what_hangs_on_it(stage: SyncStage) -> None:
    for shelf in "abc":
        stage.vendor.add(shelf, f"{shelf}1", f"{shelf}2")
    to = await stage.connect()
    await stage.sync(to)
    stage.vendor.shelves.remove({"id": "b"})
    result = await stage.sync(to)
    assert counts(result, "shelves") == {"unchanged": 2, "deleted": 1, "pages": 1}
    assert await stage.ids(to, "books") == ["a1", "a2", "c1", "c2"]
    stage.vendor.books["a"].pop()
    assert counts(await stage.sync(to), "books") == {"pages": 2}, "an incremental pass does not see deletions"
    full = await stage.sync(to, full=True)
    assert counts(full, "books") == {"unchanged": 3, "deleted": 1, "pages": 2}
    assert await stage.ids(to, "books") == ["a1", "c1", "c2"]


async def test_a_new_parent_is_asked_for_everything_that_it_has(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1")
    to = await stage.connect()
    await stage.sync(to)
    stage.vendor.asked.clear()
    stage.vendor.add("b", "b1", at=datetime(2020, 1, 1, tzinfo=UTC))
    result = await stage.sync(to)
    assert stage.vendor.paths[-1] == "/shelves/b/books"
    assert counts(result, "books") == {"created": 1, "pages": 2}


async def test_a_throttled_page_waits_as_long_as_the_vendor_says_and_is_asked_for_once_more(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1", "a2", "a3")
    to = await stage.connect()
    stage.vendor.next_answers = [None, None, refused(429, Retry_After="3600")]
    result = await stage.sync(to)
    assert counts(result, "books") == {"created": 3, "pages": 2}
    assert stage.vendor.paths == ["/shelves", "/shelves/a/books", *["/shelves/a/books?cursor=2"] * 2]
    waited = stage.vendor.asked[3][0] - stage.vendor.asked[2][0]
    assert HOUR <= waited < HOUR + timedelta(seconds=5)


@pytest.mark.parametrize("away", [refused(503), httpx.ConnectError("refused")])
async def test_a_vendor_that_is_away_is_waited_for(stage: SyncStage, away: httpx.Response | Exception) -> None:
    stage.vendor.add("a", "a1")
    to = await stage.connect()
    stage.vendor.next_answers = [away] * 5
    assert counts(await stage.sync(to), "books") == {"created": 1, "pages": 1}
    waits = [later[0] - sooner[0] for sooner, later in pairwise(stage.vendor.asked)]
    assert len(stage.vendor.asked) == 7
    assert waits[0] < timedelta(seconds=5)
    assert timedelta(seconds=15) < waits[4] < timedelta(seconds=20)


async def test_pages_keep_to_a_budget_of_the_store(client: Client, tmp_path: Path) -> None:
    async with sync_stage(client, tmp_path, a_minute(6)) as stage:
        stage.vendor.add("a", *(f"a{number:02}" for number in range(14)))
        to = await stage.connect()
        assert counts(await stage.sync(to), "books") == {"created": 14, "pages": 7}
    times = [at for at, path in stage.vendor.asked if "books" in path]
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert min(gaps) > timedelta(seconds=9.9)
    assert times[-1] - times[0] < timedelta(seconds=6 * 10 + 5)


async def test_refused_credentials_freeze_the_connection_and_new_ones_go_on_where_it_was(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1", "a2", "a3", "a4", "a5")
    to = await stage.connect()
    stage.vendor.next_answers = [None, None, refused(401)]
    error = await failure_of(stage, await stage.start(to))
    assert error.type == "connection_frozen"
    assert "renew them" in error.message
    frozen = await stage.connections.get("acme", to.connection_id)
    assert frozen is not None
    assert (frozen.state, frozen.reason) == (ConnectionState.FROZEN, error.message.split("frozen: ")[1])
    job = await stage.last_job()
    assert (job.state, job.cause) == (JobState.FAILED, "connection_frozen")

    again = await failure_of(stage, await stage.start(to))
    assert again.type == "connection_frozen"
    assert len(stage.vendor.asked) == 3, "nobody asks with a frozen connection"

    stage.vendor.asked.clear()
    stage.vendor.tokens = {"access-2"}
    await stage.connections.renew("acme", to.connection_id, {"access_token": "access-2"})
    result = await stage.sync(to)
    assert stage.vendor.paths == ["/shelves", "/shelves/a/books?cursor=2", "/shelves/a/books?cursor=4"]
    assert counts(result, "books") == {"created": 5, "pages": 3}
    assert await stage.ids(to, "books") == ["a1", "a2", "a3", "a4", "a5"]


async def test_an_access_token_that_is_at_its_end_is_refreshed_and_stored_before_it_is_used(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1")
    stage.vendor.tokens = set()
    stage.vendor.refresh_tokens = {REFRESH: "access-2"}
    to = await stage.connect(refresh_token=REFRESH)
    await stage.sync(to)
    assert stage.vendor.paths == ["/shelves", "/token", "/shelves", "/token", "/shelves/a/books"]
    kept, version = await stage.connections.credentials(to)
    assert version == 3
    assert kept["access_token"] == "access-last"


async def test_a_refresh_token_that_is_not_taken_freezes_and_one_that_cannot_be_asked_about_waits(
    stage: SyncStage,
) -> None:
    stage.vendor.add("a")
    stage.vendor.tokens = set()
    to = await stage.connect(refresh_token="old")
    stage.vendor.next_answers = [None, refused(503), None, None]
    error = await failure_of(stage, await stage.start(to))
    assert error.type == "connection_frozen"
    assert "invalid_grant" in error.message
    assert stage.vendor.paths == ["/shelves", "/token"] * 2


async def test_a_cursor_that_is_gone_begins_the_list_again_in_full(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1", "a2", "a3")
    to = await stage.connect()
    stage.vendor.next_answers = [None, None, httpx.Response(410, json={"error": "gone"})]
    result = await stage.sync(to)
    books = ["/shelves/a/books", "/shelves/a/books?cursor=2"]
    assert stage.vendor.paths == ["/shelves", *books, *books]
    assert counts(result, "books") == {"created": 3, "unchanged": 2, "pages": 3}


async def test_a_cursor_that_is_always_gone_ends(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1", "a2", "a3")
    to = await stage.connect()
    gone = [None, httpx.Response(410, json={"error": "gone"})]
    stage.vendor.next_answers = [None, *gone * 5]
    assert (await failure_of(stage, await stage.start(to))).type == "cursor"
    assert len(stage.vendor.asked) == 1 + 2 * 4


async def test_a_list_that_comes_back_to_a_page_it_had_fails_and_the_others_have_their_turn(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1")
    to = await stage.connect()
    await stage.sync(to)
    turn = [{"rows": [{"id": f"s{number}"}], "next": cursor} for number, cursor in enumerate(["x", "y", "x"])]
    stage.vendor.next_answers = [httpx.Response(200, json=each) for each in turn]
    stage.vendor.asked.clear()
    error = await failure_of(stage, await stage.start(to))
    assert error.type == "repeated_cursor"
    assert "1 of 2 resources failed: shelves: pull_page shelves" in error.message
    assert [path.split("?")[0] for path in stage.vendor.paths[3:]] == [
        f"/shelves/{each}/books" for each in ("a", "s0", "s1")
    ]
    job = await stage.last_job()
    assert job.result is not None, "what came before is told"


async def test_a_malformed_row_is_left_out_and_counted(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1", "a2")
    stage.vendor.books["a"][0] = {"id": "a1"}
    to = await stage.connect()
    assert counts(await stage.sync(to), "books") == {"created": 1, "malformed": 1, "pages": 1}


async def test_a_parent_that_is_not_there_any_more_is_left_out(stage: SyncStage) -> None:
    for shelf in "abc":
        stage.vendor.add(shelf, f"{shelf}1")
    to = await stage.connect()
    stage.vendor.next_answers = [None, None, None, refused(404)]
    assert counts(await stage.sync(to), "books") == {"created": 2, "pages": 2}
    assert await stage.ids(to, "books") == ["a1", "c1"]


async def test_a_parent_that_was_left_out_is_asked_for_everything_the_next_time(stage: SyncStage) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)
    for shelf in "ab":
        stage.vendor.add(shelf, f"{shelf}1", at=old)
    to = await stage.connect()
    stage.vendor.next_answers = [None, None, refused(404)]
    await stage.sync(to)
    assert await stage.ids(to, "books") == ["a1"]
    for in_full in (True, False):  # once, and then only what changed
        stage.vendor.asked.clear()
        await stage.sync(to)
        assert stage.vendor.paths[-1].startswith("/shelves/b/books")
        assert ("since=" not in stage.vendor.paths[-1]) is in_full
        assert await stage.ids(to, "books") == ["a1", "b1"]


async def test_a_left_out_parent_is_still_asked_for_everything_if_its_rows_could_not_be_stored(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.vendor.add("a", "a1", at=datetime(2020, 1, 1, tzinfo=UTC))
    to = await stage.connect()
    stage.vendor.next_answers = [None, refused(404)]
    await stage.sync(to)
    save, tries = stage.synced.save_page, 0

    async def away_once(connection_id: str, resource: str, rows: Sequence[SyncedRow], *place: Any, **more: Any) -> Any:
        nonlocal tries
        if resource == "books" and rows:
            tries += 1
            if tries == 1:
                raise DatabaseUnavailable("the store does not answer")
        return await save(connection_id, resource, rows, *place, **more)

    monkeypatch.setattr(stage.synced, "save_page", away_once)
    await stage.sync(to)
    assert tries == 2
    assert await stage.ids(to, "books") == ["a1"]


async def test_parents_that_come_back_bring_their_children_again(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1", at=datetime(2020, 1, 1, tzinfo=UTC))
    to = await stage.connect()
    await stage.sync(to)
    shelves, stage.vendor.shelves = stage.vendor.shelves, []
    await stage.sync(to)
    assert await stage.ids(to, "books") == []
    stage.vendor.shelves = shelves
    await stage.sync(to)
    assert await stage.ids(to, "books") == ["a1"]


async def test_one_parent_that_is_always_refused_keeps_no_other_from_its_turn(stage: SyncStage) -> None:
    for shelf in "abc":
        stage.vendor.add(shelf, f"{shelf}1")
    to = await stage.connect()
    stage.vendor.next_answers = [None, None, refused(422)]
    error = await failure_of(stage, await stage.start(to))
    assert error.type == "http_422"
    assert "1 of 2 resources failed: books: " in error.message
    assert "(under shelves a)" in error.message
    assert await stage.ids(to, "books") == ["b1", "c1"]
    unsynced = await stage.connections.get("acme", to.connection_id)
    assert unsynced is not None
    assert unsynced.last_synced_at is None


async def test_a_page_at_which_the_vendor_always_fails_is_given_up(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.sync.MAX_TROUBLES", 3)
    for shelf in "ab":
        stage.vendor.add(shelf, f"{shelf}1")
    to = await stage.connect()
    stage.vendor.next_answers = [None, *[refused(500)] * 4]
    error = await failure_of(stage, await stage.start(to))
    assert error.type == "http_500"
    assert await stage.ids(to, "books") == ["b1"]


async def test_new_tokens_are_not_lost_while_the_store_is_away(
    stage: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.vendor.add("a")
    stage.vendor.tokens = set()
    stage.vendor.refresh_tokens = {REFRESH: "access-2"}
    to = await stage.connect(refresh_token=REFRESH)
    replace, tries = stage.connections.replace_credentials, 0

    async def away_once(*arguments: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DatabaseUnavailable("the store does not answer")
        return await replace(*arguments)

    monkeypatch.setattr(stage.connections, "replace_credentials", away_once)
    await stage.sync(to)
    assert (await stage.connections.credentials(to))[0]["access_token"] == "access-last"


async def test_who_asks_while_one_runs_joins_it(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1")
    to = await stage.connect()
    stage.vendor.next_answers = [refused(429, Retry_After="60")]
    first = await stage.start(to)
    second = await stage.client.start_workflow(
        SyncWorkflow.run,
        SyncRequest(
            job=JobRef(job_id=(await stage.last_job()).job_id, tenant="acme"),
            connection_id=to.connection_id,
            provider=stage.provider,
        ),
        id=sync_workflow_id("acme", to.connection_id),
        task_queue=SYNC.queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    assert second.result_run_id == first.result_run_id
    assert await second.result() == await first.result()
    assert len(stage.vendor.asked) == 3


async def test_a_run_that_continues_another_goes_on_with_what_is_left(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1")
    to = await stage.connect()
    await stage.sync(to)
    stage.vendor.asked.clear()
    began = datetime(2026, 11, 25, tzinfo=UTC)
    so_far = SyncSoFar(started_at=began, left=("books",), counts={"shelves": ResourceCounts(created=7)})
    result = await (await stage.start(to, so_far=so_far)).result()
    assert counts(result, "shelves") == {"created": 7}
    assert [path.split("?")[0] for path in stage.vendor.paths] == ["/shelves/a/books"]
    assert stage.records[-1].started_at == began


async def test_an_unknown_provider_and_a_deleted_connection_are_told(stage: SyncStage) -> None:
    to = await stage.connect()
    other = await stage.connections.create("acme", "myspace", "x", settings={}, credentials={"access_token": "t"})
    error = await failure_of(stage, await stage.start(other))
    assert error.type == "unknown_provider"
    assert "There is no connector for 'myspace'. There are connectors for library-" in error.message
    assert await stage.connections.delete("acme", to.connection_id) is False
    error = await failure_of(stage, await stage.start(to))
    assert error.type == "connection_missing"
    assert stage.vendor.asked == []


async def test_everybody_is_synced_in_the_slice_that_is_theirs(stage: SyncStage) -> None:
    stage.vendor.add("a", "a1")
    made = [await stage.connect(f"account {number}") for number in range(6)]
    await stage.connections.freeze("acme", made[0].connection_id, "an operator")
    running = await stage.start(made[1], queue="nobody-polls-it")
    handle = await stage.client.start_workflow(
        SyncAllWorkflow.run,
        SyncAllRequest(window_seconds=840, slices=7),
        id=f"sync-all-{stage.provider}",
        task_queue=SYNC.queue,
    )
    result = await handle.result()
    assert (result.started, result.running) == (4, 1)
    await running.terminate()
    for each in made[2:]:
        await stage.client.get_workflow_handle(sync_workflow_id("acme", each.connection_id)).result()
    began = (await handle.describe()).start_time
    jobs, _ = await stage.jobs.list(None, limit=50)
    assert sorted(each.state.value for each in jobs) == ["done"] * 5 + ["running"]
    submitted = {each.workflow_id: each.submitted_at for each in jobs}
    for each in made[2:]:
        late = submitted[sync_workflow_id("acme", each.connection_id)] - began
        number = zlib.crc32(each.connection_id.encode()) % 7
        assert timedelta() <= late - timedelta(minutes=2) * number < timedelta(seconds=20)
