import hashlib
import re
from datetime import timedelta

import pytest
from sqlalchemy import text

from runtime.clock import FixedClock
from store.api_keys import ApiKeys, Role
from store.database import Database


@pytest.fixture
def api_keys(database: Database, clock: FixedClock) -> ApiKeys:
    return ApiKeys(database, clock)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.asyncio
async def test_a_secret_authenticates_as_its_key(api_keys: ApiKeys, clock: FixedClock, role: Role) -> None:
    key, secret = await api_keys.create("acme", role, "backend")
    assert re.fullmatch(r"hf_[A-Za-z0-9_-]{43}", secret)
    assert await api_keys.authenticate(secret) == key
    assert (key.tenant, key.role, key.label, key.revoked_at) == ("acme", role, "backend", None)
    assert key.created_at == clock.now()


@pytest.mark.asyncio
async def test_only_a_digest_of_the_secret_is_stored(database: Database, api_keys: ApiKeys) -> None:
    _key, secret = await api_keys.create("acme", Role.SUBMIT, "backend")
    async with database.read() as connection:
        row = (await connection.execute(text("SELECT * FROM api_keys"))).mappings().one()
    assert row["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert not any(secret in str(value) or secret[3:] in str(value) for value in row.values())


@pytest.mark.parametrize("secret", ["", "hf_", "hf_" + "A" * 43, "ü\x00", "' OR 1=1 --"])
@pytest.mark.asyncio
async def test_an_unknown_secret_is_nobody(api_keys: ApiKeys, secret: str) -> None:
    await api_keys.create("acme", Role.ADMIN, "ops")
    assert await api_keys.authenticate(secret) is None


@pytest.mark.asyncio
async def test_a_revoked_key_is_refused_and_still_listed(api_keys: ApiKeys, clock: FixedClock) -> None:
    key, secret = await api_keys.create("acme", Role.SUBMIT, "backend")
    clock.advance(timedelta(days=1))
    assert await api_keys.revoke(key.key_id)
    assert not await api_keys.revoke(key.key_id)
    assert not await api_keys.revoke("unknown")
    assert await api_keys.authenticate(secret) is None
    assert [each.revoked_at for each in await api_keys.list("acme")] == [clock.now()]


@pytest.mark.asyncio
async def test_keys_are_listed_by_tenant_oldest_first(api_keys: ApiKeys, clock: FixedClock) -> None:
    made = []
    for tenant in ("acme", "globex", "acme"):
        made.append((await api_keys.create(tenant, Role.VIEW, "x"))[0])
        clock.advance(timedelta(seconds=1))
    assert await api_keys.list() == made
    assert await api_keys.list("acme") == [made[0], made[2]]
    assert await api_keys.list("initech") == []
