"""Who may do what. A key names a tenant and a role; a tenant never sees another's jobs or files.

role     submit   see jobs   see contents (texts, pictures, names, synced rows)   cancel   other tenants
submit   yes      yes        yes                                                  yes      no
view     no       yes        no                                                   no       with a key for tenant `*`
operate  yes      yes        no                                                   yes      with a key for tenant `*`
admin    yes      yes        yes                                                  yes      with a key for tenant `*`

Submit is also to connect accounts and to renew them; see jobs is also connections and budgets; cancel is also to pause
and to freeze.
"""

import hashlib
import time
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from structlog.contextvars import bind_contextvars

from starter.api.problems import Problem
from starter.tenant import ALL_TENANTS
from store.api_keys import ApiKey, ApiKeys, Role

KNOWN_SECONDS = 2.0  # how long a revoked key may still be accepted by an API process that just saw it
KNOWN_AT_MOST = 10_000  # keys


class Right(Enum):
    """What a role may do."""

    SUBMIT = "submit jobs or connect accounts"
    SEE_JOBS = "see jobs"
    SEE_CONTENTS = "see contents, such as texts, names and synced rows"
    CANCEL = "pause, resume or cancel jobs, or freeze connections"


RIGHTS = {
    Role.SUBMIT: {Right.SUBMIT, Right.SEE_JOBS, Right.SEE_CONTENTS, Right.CANCEL},
    Role.VIEW: {Right.SEE_JOBS},
    Role.OPERATE: {Right.SUBMIT, Right.SEE_JOBS, Right.CANCEL},
    Role.ADMIN: set(Right),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The key behind a request."""

    key_id: str
    tenant: str
    role: Role

    @property
    def scope(self) -> str | None:
        """The one tenant whose data it may touch; None for all."""
        return None if self.tenant == ALL_TENANTS else self.tenant

    def may(self, right: Right) -> bool:
        """Whether the role has the right."""
        return right in RIGHTS[self.role]

    def need(self, right: Right) -> None:
        """Refuse unless the role has the right.

        Raises:
            Problem: 403.
        """
        if not self.may(right):
            raise Problem(403, "forbidden", f"A key with the role {self.role.value!r} may not {right.value}.")

    def own_tenant(self) -> str:
        """The tenant to submit for.

        Raises:
            Problem: 403 for a key of all tenants.
        """
        if self.scope is None:
            raise Problem(403, "tenant_needed", "This key is for all tenants; submit with a key of one tenant.")
        return self.scope


class KnownKeys:
    """Keys looked up in the last seconds, by their hash, so that a busy caller costs no query each time."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys
        self._known: dict[str, tuple[float, ApiKey]] = {}

    async def authenticate(self, secret: str) -> ApiKey | None:
        """As `ApiKeys.authenticate`; a key is refused at the latest `KNOWN_SECONDS` after it was revoked."""
        digest, now = hashlib.sha256(secret.encode()).hexdigest(), time.monotonic()
        seen_at, key = self._known.get(digest, (float("-inf"), None))
        if now - seen_at < KNOWN_SECONDS:
            return key
        found = await self._keys.authenticate(secret)
        if len(self._known) >= KNOWN_AT_MOST:
            self._known.clear()
        if found:
            self._known[digest] = (now, found)
        else:
            self._known.pop(digest, None)
        return found


_bearer = HTTPBearer(auto_error=False, description="An API key: `holdfast keys create --tenant acme --role submit`.")


async def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """The caller, or 401."""
    key = await request.app.state.known_keys.authenticate(credentials.credentials) if credentials else None
    if key is None:
        raise Problem(
            401,
            "unauthenticated",
            "Send `Authorization: Bearer <API key>`. Keys are made by `holdfast keys create`; this one is "
            + ("unknown or revoked." if credentials else "missing."),
            headers={"WWW-Authenticate": "Bearer"},
        )
    bind_contextvars(tenant=key.tenant, key_id=key.key_id)
    return Caller(key.key_id, key.tenant, key.role)


AuthenticatedCaller = Annotated[Caller, Depends(authenticate)]
