"""API keys: 256 random bits, kept as SHA-256 only. A fast hash is enough for a key nobody can guess."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import insert, select, update
from sqlalchemy.engine import RowMapping

from runtime.clock import Clock, from_micros, micros
from store.database import Database
from store.ids import new_id
from store.tables import api_keys

PREFIX = "hf_"  # so that a leaked one is recognised by secret scanners
RANDOM_BYTES = 32


class Role(StrEnum):
    """See starter/api/access.py for what each may do."""

    SUBMIT = "submit"
    VIEW = "view"
    OPERATE = "operate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. The tenant `*` is all of them."""

    key_id: str
    tenant: str
    role: Role
    label: str
    created_at: datetime
    revoked_at: datetime | None


def _key(row: RowMapping) -> ApiKey:
    revoked = row["revoked_at"]
    return ApiKey(
        key_id=row["key_id"],
        tenant=row["tenant"],
        role=Role(row["role"]),
        label=row["label"],
        created_at=from_micros(row["created_at"]),
        revoked_at=None if revoked is None else from_micros(revoked),
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeys:
    """Queries on API keys."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, tenant: str, role: Role, label: str) -> tuple[ApiKey, str]:
        """A new key and its secret, which is never seen again."""
        secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        row = {
            "key_id": str(new_id()),
            "sha256": _digest(secret),
            "tenant": tenant,
            "role": role.value,
            "label": label,
            "created_at": micros(self._clock.now()),
            "revoked_at": None,
        }
        async with self._database.write() as connection:
            made = await connection.execute(insert(api_keys).values(row).returning(api_keys))
            key = _key(made.mappings().one())
        return key, secret

    async def authenticate(self, secret: str) -> ApiKey | None:
        """The key of a secret, unless unknown or revoked."""
        query = select(api_keys).where(api_keys.c.sha256 == _digest(secret), api_keys.c.revoked_at.is_(None))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _key(row) if row else None

    async def list(self, tenant: str | None = None) -> list[ApiKey]:
        """Oldest first; `tenant` None is all."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id)
        if tenant is not None:
            query = query.where(api_keys.c.tenant == tenant)
        async with self._database.read() as connection:
            return [_key(row) for row in (await connection.execute(query)).mappings()]

    async def revoke(self, key_id: str) -> bool:
        """Refuse the key from now on; false if it is unknown or revoked already."""
        async with self._database.write() as connection:
            done = await connection.execute(
                update(api_keys)
                .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=micros(self._clock.now()))
            )
        return done.rowcount > 0
