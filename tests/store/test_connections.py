import asyncio
import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import JsonValue
from sqlalchemy import text

from runtime.clock import FixedClock
from store.connections import Connection, Connections, ConnectionState, DuplicateConnection, NoSuchConnection
from store.database import MAX_ROWS_PER_WRITE, Database
from store.ids import new_id
from store.jobs import InvalidCursor
from store.sealed import CannotUnseal, Sealing
from store.synced import Synced, SyncedRow
from tests.store.conftest import NOW

pytestmark = pytest.mark.asyncio
MINUTE = timedelta(minutes=1)
SECRET = "ghp-very-secret"
TOKENS: dict[str, JsonValue] = {"access_token": SECRET, "refresh_token": "r1"}
KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def connections(database: Database, clock: FixedClock) -> Connections:
    return Connections(database, clock, Sealing([KEY]))


@pytest.fixture
def synced(database: Database, clock: FixedClock) -> Synced:
    return Synced(database, clock)


async def connect(
    connections: Connections, account: str = "main", tenant: str = "acme", provider: str = "github"
) -> Connection:
    return await connections.create(tenant, provider, account, settings={"repos": ["a/b"]}, credentials=TOKENS)


async def test_a_connection_is_one_tenants_and_shows_no_secret(database: Database, connections: Connections) -> None:
    made = await connect(connections)
    assert made == Connection(
        connection_id=made.connection_id,
        tenant="acme",
        provider="github",
        account="main",
        settings={"repos": ["a/b"]},
        credentials_version=1,
        state=ConnectionState.ACTIVE,
        reason=None,
        frozen_at=None,
        created_at=NOW,
        updated_at=NOW,
        last_synced_at=None,
        last_job_id=None,
    )
    assert await connections.get("acme", made.connection_id) == made
    assert await connections.get(None, made.connection_id) == made
    assert await connections.get("globex", made.connection_id) is None
    assert await connections.credentials(made) == (TOKENS, 1)
    assert SECRET not in repr(made)
    async with database.read() as connection:
        stored = (await connection.execute(text("SELECT * FROM connections"))).one()
    assert SECRET not in repr(stored)


async def test_a_name_is_taken_once_per_tenant_and_provider(connections: Connections) -> None:
    made = await connect(connections)
    with pytest.raises(DuplicateConnection, match="acme has a connection to github named 'main' already"):
        await connect(connections)
    await connect(connections, provider="jira")
    await connect(connections, tenant="globex")
    raced = await asyncio.gather(*(connect(connections, "raced") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(each, Connection) for each in raced) == 1
    assert sum(isinstance(each, DuplicateConnection) for each in raced) == 9
    assert await connections.credentials(made) == (TOKENS, 1)


async def test_a_frozen_one_is_told_once_and_renewed(connections: Connections, clock: FixedClock) -> None:
    made = await connect(connections)
    clock.advance(MINUTE)
    assert not await connections.freeze("globex", made.connection_id, "revoked")
    told = await asyncio.gather(*(connections.freeze("acme", made.connection_id, "revoked") for _ in range(8)))
    assert told.count(True) == 1
    frozen = await connections.get("acme", made.connection_id)
    at = clock.now()
    assert frozen == replace(made, state=ConnectionState.FROZEN, reason="revoked", frozen_at=at, updated_at=at)
    clock.advance(MINUTE)
    assert await connections.renew("globex", made.connection_id, {"access_token": "n"}) is None
    renewed = await connections.renew("acme", made.connection_id, {"access_token": "n"})
    assert renewed == replace(made, credentials_version=2, updated_at=clock.now())
    assert await connections.get("acme", made.connection_id) == renewed
    assert await connections.credentials(made) == ({"access_token": "n"}, 2)
    assert await connections.renew("acme", "nobody", {}) is None


async def test_a_refusal_of_replaced_credentials_freezes_nothing(connections: Connections) -> None:
    made = await connect(connections)
    await connections.renew("acme", made.connection_id, {"access_token": "n"})
    assert not await connections.freeze("acme", made.connection_id, "revoked", version=1)
    assert await connections.freeze("acme", made.connection_id, "revoked", version=2)


async def test_of_those_who_refresh_at_once_one_stores_its_tokens(connections: Connections) -> None:
    made = await connect(connections)
    new: list[dict[str, JsonValue]] = [{"access_token": f"t{number}"} for number in range(8)]
    stored = await asyncio.gather(
        *(connections.replace_credentials("acme", made.connection_id, 1, each) for each in new)
    )
    assert stored.count(True) == 1
    assert await connections.credentials(made) == (new[stored.index(True)], 2)
    assert not await connections.replace_credentials("acme", made.connection_id, 1, TOKENS)
    assert not await connections.replace_credentials("globex", made.connection_id, 2, TOKENS)
    assert await connections.replace_credentials("acme", made.connection_id, 2, TOKENS)
    assert await connections.credentials(made) == (TOKENS, 3)


async def test_credentials_moved_to_another_connection_do_not_open(
    database: Database, connections: Connections
) -> None:
    mine, other = await connect(connections), await connect(connections, tenant="globex")
    async with database.write() as connection:
        await connection.execute(
            text("UPDATE connections SET credentials = (SELECT credentials FROM connections WHERE connection_id = :a)"),
            {"a": mine.connection_id},
        )
    assert await connections.credentials(mine) == (TOKENS, 1)
    with pytest.raises(CannotUnseal):
        await connections.credentials(other)


async def test_pages_are_newest_first_and_hold_each_once(connections: Connections, clock: FixedClock) -> None:
    made = []
    for number in range(7):
        made.append(await connect(connections, f"a{number}"))
        clock.advance(MINUTE * (number % 2))
    await connect(connections, tenant="globex", provider="jira")
    names: list[str] = []
    after, pages = None, 0
    while pages == 0 or after is not None:
        page, after = await connections.list("acme", after=after, limit=3)
        names += [each.account for each in page]
        pages += 1
    assert pages == 3
    assert names == [each.account for each in reversed(made)]
    assert len((await connections.list(None))[0]) == 8
    assert len((await connections.list(None, provider="jira"))[0]) == 1
    await connections.freeze("acme", made[2].connection_id, "revoked")
    frozen, _ = await connections.list("acme", state=ConnectionState.FROZEN)
    assert [each.account for each in frozen] == ["a2"]
    for wrong in ("x", "bm90OmE", "", "ä"):
        with pytest.raises(InvalidCursor):
            await connections.list("acme", after=wrong)


async def test_due_are_active_ones_of_all_tenants_the_longest_ago_first(
    connections: Connections, clock: FixedClock
) -> None:
    made = [await connect(connections, f"a{number}", tenant=f"t{number % 3}") for number in range(8)]
    for number in (5, 3, 6):
        clock.advance(MINUTE)
        job = new_id()
        assert await connections.note_synced(made[number].tenant, made[number].connection_id, job)
        found = await connections.get(None, made[number].connection_id)
        assert found is not None
        assert (found.last_synced_at, found.last_job_id) == (clock.now(), job)
    assert not await connections.note_synced("nobody", made[0].connection_id, new_id())
    await connections.freeze(None, made[1].connection_id, "revoked")
    assert await connections.count_active("github") == 7
    assert await connections.count_active("jira") == 0


async def test_deleting_goes_in_batches_and_takes_everything(
    database: Database, connections: Connections, synced: Synced
) -> None:
    made, other = await connect(connections), await connect(connections, "other")
    rows = [SyncedRow(f"{number:04}", {"n": number}) for number in range(MAX_ROWS_PER_WRITE + 50)]
    for each in (made, other):
        for resource in ("issues", "comments"):
            await synced.save_page(each.connection_id, resource, rows, {}, pass_id=None)
    assert not await connections.delete("globex", made.connection_id)
    assert await connections.get("acme", made.connection_id) == made
    more = []
    while True:
        more.append(await connections.delete("acme", made.connection_id))
        found = await connections.get("acme", made.connection_id)
        if not more[-1]:
            break
        assert found is not None
        assert found.state is ConnectionState.FROZEN
    assert more == [True, True, False]
    assert found is None
    assert not await connections.delete("acme", made.connection_id)
    assert await synced.counts(made.connection_id) == {}
    assert await synced.place(made.connection_id, "issues") is None
    assert {each.live for each in (await synced.counts(other.connection_id)).values()} == {MAX_ROWS_PER_WRITE + 50}
    assert await synced.place(other.connection_id, "issues") == {}
    with pytest.raises(NoSuchConnection):
        await connections.credentials(made)


async def test_a_page_that_races_a_deletion_leaves_nothing_behind(
    database: Database, connections: Connections, synced: Synced
) -> None:
    made = await connect(connections)
    rows = [SyncedRow(str(number), {"n": number}) for number in range(20)]

    async def delete() -> None:
        while await connections.delete("acme", made.connection_id):
            pass

    saving = [synced.save_page(made.connection_id, f"r{each}", rows, {}, pass_id=None) for each in range(6)]
    saved = await asyncio.gather(*saving[:3], delete(), *saving[3:], return_exceptions=True)
    assert all(each is None or isinstance(each, NoSuchConnection) or each.created == 20 for each in saved)  # type: ignore[union-attr]
    assert await synced.counts(made.connection_id) == {}
    for page in (rows, []):
        with pytest.raises(NoSuchConnection):
            await synced.save_page(made.connection_id, "late", page, {}, pass_id=None)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM sync_places"))).scalar() == 0
