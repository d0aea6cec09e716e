import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import JsonValue
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import FixedClock
from store.connections import Connections
from store.database import MAX_ROWS_PER_WRITE, Database
from store.sealed import Sealing
from store.synced import Counts, Held, Place, StoredRow, Synced, SyncedRow
from tests.store.conftest import NOW

pytestmark = pytest.mark.asyncio
MINUTE = timedelta(minutes=1)
END: Place = {"page": "end"}


@pytest.fixture
def synced(database: Database, clock: FixedClock) -> Synced:
    return Synced(database, clock)


@pytest.fixture
def connections(database: Database, clock: FixedClock) -> Connections:
    return Connections(database, clock, Sealing([base64.b64encode(b"k" * 32).decode()]))


@pytest.fixture
async def github(connections: Connections) -> str:
    return (await connections.create("acme", "github", "main", settings={}, credentials={})).connection_id


def some(number: int, start: int = 0, **more: Any) -> list[SyncedRow]:
    return [SyncedRow(f"{each:05}", {"n": each}, **more) for each in range(start, start + number)]


async def test_a_page_and_its_repetition(synced: Synced, github: str, clock: FixedClock) -> None:
    place: Place = {"cursor": "p2"}
    assert await synced.place(github, "issues") is None
    assert await synced.save_page(github, "issues", some(5), place, pass_id="pass-1") == Counts(created=5)
    assert await synced.place(github, "issues") == place
    clock.advance(MINUTE)
    assert await synced.save_page(github, "issues", some(5), place, pass_id="pass-1") == Counts(unchanged=5)
    changed = [replace(row, data={"n": -1}) if row.row_id == "00003" else row for row in some(6)]
    assert await synced.save_page(github, "issues", changed, END, pass_id=None) == Counts(1, 1, 4)
    assert await synced.place(github, "issues") == END
    assert await synced.place(github, "comments") is None
    kept = await synced.rows(github, "issues")
    at = clock.now()
    assert [(row.row_id, row.data["n"], row.first_seen_at, row.changed_at) for row in kept] == [
        ("00000", 0, NOW, NOW),
        ("00001", 1, NOW, NOW),
        ("00002", 2, NOW, NOW),
        ("00003", -1, NOW, at),
        ("00004", 4, NOW, NOW),
        ("00005", 5, at, at),
    ]


async def test_the_order_of_fields_is_no_change_and_any_json_is_kept(synced: Synced, github: str) -> None:
    data: dict[str, JsonValue] = {
        "z": 1,
        "a": {"y": [1, 2.5, None, True], "b": "ä\u0000\ud800€"},
        "": "",
        "é": "'); --",
    }
    turned = {name: data[name] for name in reversed(data)}
    assert await synced.save_page(github, "r", [SyncedRow("x", data)], END, pass_id=None) == Counts(created=1)
    assert await synced.save_page(github, "r", [SyncedRow("x", turned)], END, pass_id=None) == Counts(unchanged=1)
    assert await synced.rows(github, "r") == [StoredRow("x", data, None, None, None, NOW, NOW)]


async def test_rows_of_one_id_are_kept_apart_by_resource_and_connection(
    synced: Synced, connections: Connections, github: str
) -> None:
    other = (await connections.create("globex", "github", "main", settings={}, credentials={})).connection_id
    for connection_id in (github, other):
        for resource in ("issues", "comments"):
            page = [SyncedRow("1", {"of": connection_id, "is": resource})]
            assert await synced.save_page(connection_id, resource, page, END, pass_id=None) == Counts(created=1)
    assert (await synced.rows(other, "issues"))[0].data == {"of": other, "is": "issues"}
    await synced.save_page(github, "issues", [], {"page": 1}, pass_id=None)
    assert await synced.place(other, "issues") == END
    assert await synced.counts(github) == {"issues": Held(1, 0), "comments": Held(1, 0)}


async def test_a_row_that_is_twice_in_a_page_counts_once_and_the_last_holds(synced: Synced, github: str) -> None:
    page = [SyncedRow("a", {"v": 1}), SyncedRow("b", {"v": 1}), SyncedRow("a", {"v": 2})]
    assert await synced.save_page(github, "r", page, END, pass_id=None) == Counts(created=2)
    assert [row.data for row in await synced.rows(github, "r")] == [{"v": 2}, {"v": 1}]
    page = [SyncedRow("a", {"v": 3}, vendor_updated_at="20"), SyncedRow("a", {"v": 2}, vendor_updated_at="9")]
    assert await synced.save_page(github, "r", page, END, pass_id=None) == Counts(updated=1)
    assert (await synced.rows(github, "r"))[0].data == {"v": 3}


EARLIER_AND_LATER = (
    ("2026-11-24T09:00:00Z", "2026-11-24T09:00:01Z"),
    ("2026-11-24T09:30:00+01:00", "2026-11-24T09:00:00Z"),
    ("2026-11-24T09:00:00.123+0000", "2026-11-24T09:00:00.124+0000"),
    ("2026-11-24T09:00:00", "2026-11-24T09:00:00.5Z"),
    ("2026-11-24", "2026-11-24T00:00:01Z"),
    ("999", "1000"),
    ("1700000000.000100", "1700000000.000200"),
)


async def test_what_the_vendor_updated_earlier_does_not_overwrite(synced: Synced, github: str) -> None:
    for number, (older, newer) in enumerate(EARLIER_AND_LATER):
        name = f"r{number}"
        page = [SyncedRow("a", {"v": "new"}, vendor_updated_at=newer)]
        assert await synced.save_page(github, name, page, END, pass_id=None) == Counts(created=1)
        for stale in (SyncedRow("a", {"v": "old"}, None, older), SyncedRow("a", {}, None, older, deleted=True)):
            assert await synced.save_page(github, name, [stale], END, pass_id="p") == Counts(unchanged=1), older
        (kept,) = await synced.rows(github, name)
        assert (kept.data, kept.vendor_updated_at, kept.deleted_at) == ({"v": "new"}, newer, None)
        assert await synced.sweep(github, name, pass_id="p") == 0  # it was seen, though it was stale
        page = [SyncedRow("a", {"v": "next"})]  # says nothing of its time
        assert await synced.save_page(github, name, page, END, pass_id=None) == Counts(updated=1)
        (kept,) = await synced.rows(github, name)
        assert (kept.data, kept.vendor_updated_at) == ({"v": "next"}, newer)


async def test_times_that_cannot_be_compared_do_not_hold_a_change_up(synced: Synced, github: str) -> None:
    stamps = ["2026-11-24T09:00:00Z", "1700000000", "yesterday", "2020-01-01T00:00:00Z"]
    for number, stamp in enumerate(stamps):
        page = [SyncedRow("a", {"v": number}, vendor_updated_at=stamp)]
        counts = await synced.save_page(github, "r", page, END, pass_id=None)
        assert counts == (Counts(updated=1) if number else Counts(created=1))


async def test_a_deletion_counts_once_keeps_the_data_and_can_be_undone(
    synced: Synced, github: str, clock: FixedClock
) -> None:
    await synced.save_page(github, "r", [SyncedRow("a", {"v": 1}, "p", "1"), SyncedRow("b", {})], END, pass_id=None)
    clock.advance(MINUTE)
    gone = [SyncedRow("a", {"id": "a"}, None, "2", deleted=True), SyncedRow("never-seen", {"x": 1}, deleted=True)]
    assert await synced.save_page(github, "r", gone, END, pass_id=None) == Counts(deleted=2)
    assert await synced.save_page(github, "r", gone, END, pass_id=None) == Counts(unchanged=2)
    assert await synced.counts(github) == {"r": Held(1, 2)}
    kept = (await synced.rows(github, "r"))[0]
    assert kept == StoredRow("a", {"v": 1}, "p", "2", clock.now(), NOW, clock.now())
    stale = [SyncedRow("a", {"v": 0}, "p", "1")]
    assert await synced.save_page(github, "r", stale, END, pass_id=None) == Counts(unchanged=1)
    clock.advance(MINUTE)
    back = [SyncedRow("a", {"v": 1}, "p", "3"), SyncedRow("never-seen", {"x": 1})]
    assert await synced.save_page(github, "r", back, END, pass_id=None) == Counts(updated=2)
    kept = (await synced.rows(github, "r"))[0]
    assert kept == StoredRow("a", {"v": 1}, "p", "3", None, clock.now(), clock.now())
    assert await synced.counts(github) == {"r": Held(3, 0)}


async def test_another_parent_is_a_change(synced: Synced, github: str) -> None:
    await synced.save_page(github, "r", [SyncedRow("a", {}, "one")], END, pass_id=None)
    moved = [SyncedRow("a", {}, "two")]
    assert await synced.save_page(github, "r", moved, END, pass_id=None) == Counts(updated=1)
    assert await synced.save_page(github, "r", moved, END, pass_id=None) == Counts(unchanged=1)


async def test_a_sweep_marks_what_the_pass_has_not_seen(synced: Synced, github: str, clock: FixedClock) -> None:
    await synced.save_page(github, "r", some(10), END, pass_id="one")
    await synced.save_page(github, "r", some(5, 10), END, pass_id=None)  # came in between, by an incremental sync
    await synced.save_page(github, "other", some(3), END, pass_id="one")
    clock.advance(MINUTE)
    await synced.save_page(github, "r", some(4), END, pass_id="two")
    await synced.save_page(github, "r", some(1, 4) + some(1, 20), END, pass_id="two")
    swept = [await synced.sweep(github, "r", pass_id="two", limit=4) for _ in range(4)]
    assert swept == [4, 4, 2, 0]
    assert await synced.counts(github) == {"r": Held(6, 10), "other": Held(3, 0)}
    gone = [row for row in await synced.rows(github, "r") if row.deleted_at]
    assert [row.row_id for row in gone] == [f"{each:05}" for each in range(5, 15)]
    assert {(row.deleted_at, row.changed_at) for row in gone} == {(clock.now(), clock.now())}
    assert await synced.save_page(github, "r", some(15), END, pass_id="three") == Counts(updated=10, unchanged=5)
    assert await synced.sweep(github, "r", pass_id="three") == 1


async def test_a_sweep_of_one_parent_leaves_the_others(synced: Synced, github: str) -> None:
    for parent, start in (("p", 0), ("q", 10)):
        await synced.save_page(github, "r", some(5, start, parent_id=parent), END, pass_id="one")
    await synced.save_page(github, "r", some(2, parent_id="p"), END, pass_id="two")
    assert await synced.sweep(github, "r", pass_id="two", parent_id="p") == 3
    assert await synced.sweep(github, "r", pass_id="two", parent_id="p") == 0
    assert await synced.counts(github) == {"r": Held(7, 3)}


async def test_rows_of_deleted_parents_are_swept_and_others_stay(synced: Synced, github: str) -> None:
    parents = [SyncedRow("p", {}, deleted=True), SyncedRow("q", {}), SyncedRow("r", {}, deleted=True)]
    await synced.save_page(github, "repos", parents, END, pass_id=None)
    for start, parent in enumerate(("p", "q", "r", "unknown", None)):
        await synced.save_page(github, "issues", some(3, 10 * start, parent_id=parent), END, pass_id=None)
    assert [await synced.sweep_orphans(github, "issues", "repos", limit=4) for _ in range(3)] == [4, 2, 0]
    assert await synced.counts(github) == {"repos": Held(1, 2), "issues": Held(9, 6)}


async def test_a_place_can_depend_on_what_became_of_the_page(synced: Synced, github: str) -> None:
    page = some(MAX_ROWS_PER_WRITE + 50)
    for created in (len(page), 0):
        await synced.save_page(github, "r", page, lambda counts: {"created": counts.created}, pass_id=None)
        assert await synced.place(github, "r") == {"created": created}


async def test_parents_are_walked_in_the_order_of_their_ids(synced: Synced, github: str, clock: FixedClock) -> None:
    rows = some(9)
    random.Random(1).shuffle(rows)
    await synced.save_page(github, "repos", rows, END, pass_id=None)
    clock.advance(MINUTE)
    changes = [SyncedRow("00002", {"n": 2, "new": 1}, "org"), SyncedRow("00004", {}, deleted=True)]
    await synced.save_page(github, "repos", changes, END, pass_id=None)
    walked: list[StoredRow] = []
    while True:
        page = await synced.parents(github, "repos", after=walked[-1].row_id if walked else None, limit=3)
        walked += page
        if len(page) < 3:
            break
    assert [row.row_id for row in walked] == [f"{each:05}" for each in range(9) if each != 4]
    assert (walked[2].data, walked[2].parent_id, walked[2].changed_at) == ({"n": 2, "new": 1}, "org", clock.now())
    assert walked[2].first_seen_at == clock.now() - MINUTE
    assert await synced.row(github, "repos", "00002") == walked[2]
    assert await synced.row(github, "repos", "no") is None
    assert await synced.parents(github, "repos", after=None, changed_since=clock.now()) == [walked[2]]
    assert await synced.parents(github, "repos", after=None, changed_since=clock.now() + MINUTE) == []
    behind = await synced.rows(github, "repos", after="00003", limit=2)
    assert [(row.row_id, row.deleted_at is not None) for row in behind] == [("00004", True), ("00005", False)]


async def test_what_hangs_on_deleted_parents_is_deleted(synced: Synced, github: str) -> None:
    parents = [SyncedRow("gone", {}), SyncedRow("there", {})]
    await synced.save_page(github, "repos", parents, END, pass_id=None)
    await synced.save_page(github, "repos", [SyncedRow("gone", {}, deleted=True)], END, pass_id=None)
    issues = [SyncedRow(f"{each}", {}, "gone" if each < 5 else "there") for each in range(7)]
    await synced.save_page(github, "issues", [*issues, SyncedRow("7", {}, "unknown")], END, pass_id=None)
    assert await synced.sweep_orphans(github, "issues", "repos", limit=3) == 3
    assert await synced.sweep_orphans(github, "issues", "repos") == 2
    assert await synced.sweep_orphans(github, "issues", "repos") == 0
    assert (await synced.counts(github))["issues"] == Held(live=3, deleted=5)


async def test_the_place_can_tell_what_became_of_its_page(synced: Synced, github: str) -> None:
    page = some(MAX_ROWS_PER_WRITE + 1)
    await synced.save_page(github, "r", page, lambda counts: {"created": counts.created}, pass_id=None)
    assert await synced.place(github, "r") == {"created": MAX_ROWS_PER_WRITE + 1}


class Killed(BaseException):
    """As the process was."""


async def test_a_page_that_was_killed_halfway_is_repeated(
    database: Database, synced: Synced, github: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = some(2 * MAX_ROWS_PER_WRITE + 50)
    before: Place = {"cursor": "p1"}
    await synced.save_page(github, "r", [], before, pass_id="p")
    assert await synced.place(github, "r") == before
    write, begun = database.write, 0

    @asynccontextmanager
    async def killed_before_its_last_commit() -> AsyncIterator[AsyncConnection]:
        nonlocal begun
        begun += 1
        async with write() as connection:
            yield connection
            if begun == 3:  # rows and place are written, and not committed
                raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(database, "write", killed_before_its_last_commit)
        await synced.save_page(github, "r", page, {"cursor": "p2"}, pass_id="p")
    assert await synced.place(github, "r") == before
    assert await synced.counts(github) == {"r": Held(2 * MAX_ROWS_PER_WRITE, 0)}
    counts = await synced.save_page(github, "r", page, {"cursor": "p2"}, pass_id="p")
    assert counts == Counts(created=50, unchanged=2 * MAX_ROWS_PER_WRITE)
    assert await synced.place(github, "r") == {"cursor": "p2"}
    assert await synced.sweep(github, "r", pass_id="p") == 0


async def test_the_place_is_never_ahead_of_its_rows(synced: Synced, github: str) -> None:
    """A reader that runs beside the writer, at every moment."""
    pages = [some(450, 450 * number) for number in range(4)]
    done = False

    async def write() -> None:
        nonlocal done
        for number, page in enumerate(pages, 1):
            await synced.save_page(github, "r", page, {"pages": number}, pass_id="p")
        done = True

    writing = asyncio.create_task(write())
    looks = 0
    while not done:
        place = await synced.place(github, "r")
        held = (await synced.counts(github)).get("r", Held(0, 0))
        assert held.live >= (450 * int(str(place["pages"])) if place else 0)
        looks += 1
    await writing
    assert looks > 10
    assert await synced.counts(github) == {"r": Held(1_800, 0)}


async def test_one_page_saved_by_several_at_once_is_created_once(synced: Synced, github: str) -> None:
    page = some(250)
    shuffled = [random.Random(seed).sample(page, len(page)) for seed in range(6)]
    counts = await asyncio.gather(*(synced.save_page(github, "r", each, END, pass_id="p") for each in shuffled))
    assert sum(counts, Counts()) == Counts(created=250, unchanged=5 * 250)
    assert await synced.counts(github) == {"r": Held(250, 0)}


async def test_the_newest_of_racing_versions_is_kept(synced: Synced, github: str) -> None:
    versions = [SyncedRow("a", {"v": each}, vendor_updated_at=str(each)) for each in range(20)]
    random.Random(3).shuffle(versions)
    await asyncio.gather(*(synced.save_page(github, "r", [each], END, pass_id=None) for each in versions))
    assert [row.data for row in await synced.rows(github, "r")] == [{"v": 19}]


async def test_a_page_takes_few_statements(database: Database, synced: Synced, github: str) -> None:
    said: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement.split(maxsplit=1)[0])

    mixed = [replace(row, data={}) if number % 2 else row for number, row in enumerate(some(200))]
    event.listen(database.main.sync_engine, "before_cursor_execute", note)
    try:
        for page, pass_id, writes in (
            (some(200), "p", ["INSERT", "INSERT"]),  # rows, place
            (some(200), "p", ["INSERT"]),
            (some(200), "q", ["UPDATE", "INSERT"]),  # seen again, place
            (mixed, "r", ["INSERT", "UPDATE", "INSERT"]),
        ):
            said.clear()
            await synced.save_page(github, "r", page, END, pass_id=pass_id)
            assert [each for each in said if each in {"INSERT", "UPDATE"}] == writes
            assert len([each for each in said if each == "SELECT"]) == 1 + (
                database.dialect == "postgresql"
            )  # the lock
    finally:
        event.remove(database.main.sync_engine, "before_cursor_execute", note)
