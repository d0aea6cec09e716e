"""/v1/budgets: how much of the vendors' limits is used, and what rests until when."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from temporalio.service import RPCError

from activities.connectors.known import UnknownProvider, connector
from activities.connectors.spec import Connector, Holder
from activities.sync_limits import Caller as Scopes
from runtime import queue_limits
from starter.api.access import AuthenticatedCaller, Right
from starter.api.connection_views import EXAMPLE_CONNECTION
from starter.api.problems import Problem
from starter.connections import listed
from starter.queue_rate import in_words
from starter.services import Services
from store.budgets import PausedFor, Use
from store.connections import Connection

router = APIRouter(prefix="/v1/budgets", tags=["budgets"])
log = structlog.get_logger(__name__)

ANSWERS_WITHIN = 2.0  # seconds
AT_MOST = 1_000  # scopes, of a key of all tenants
READ_AT_ONCE = 200


class PauseView(BaseModel):
    """Why nothing of the scope is asked for until then. `detail` is the vendor's words."""

    why: PausedFor = Field(alias="for")
    until: datetime
    detail: str

    model_config = ConfigDict(populate_by_name=True)


class UseView(BaseModel):
    """What a scope is used for: a vendor, a connection, or a budget of one of them.

    `used` of `limit` are used in the window that ends at `resets_at`, null between windows. `limit`, `window_seconds`
    and `remaining` are null where no limit is known.
    """

    scope: str
    provider: str
    connection_id: str | None = Field(description="Null where all connections of the vendor share it.")
    account: str | None
    budget: str | None = Field(description="Null for the vendor, or the connection, as a whole.")
    limit: int | None
    window_seconds: float | None
    used: int
    remaining: int | None
    resets_at: datetime | None
    next_slot_at: datetime | None = Field(description="When the next call may go; null: now.")
    paused: PauseView | None


class QueueView(BaseModel):
    """The rates of a vendor's queue, pages a second; null: no limit, and 0: stopped."""

    provider: str
    queue: str
    per_second: float | None
    per_connection_per_second: float | None
    by_operator: bool = Field(description="Set with `holdfast queues limit`, and not by the number of connections.")
    words: str
    connections: int | None = Field(description="Active ones of all tenants; only for keys of all tenants.")


class BudgetsView(BaseModel):
    """Uses by scope. `queues` is null if Temporal does not answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "uses": [
                    {
                        "scope": f"sync:slack:{EXAMPLE_CONNECTION}:conversations.history",
                        "provider": "slack",
                        "connection_id": EXAMPLE_CONNECTION,
                        "account": "acme workspace",
                        "budget": "conversations.history",
                        "limit": 50,
                        "window_seconds": 60.0,
                        "used": 12,
                        "remaining": 38,
                        "resets_at": "2026-11-24T09:01:00Z",
                        "next_slot_at": "2026-11-24T09:00:31Z",
                        "paused": {"for": "limit", "until": "2026-11-24T09:00:31Z", "detail": "ratelimited"},
                    }
                ],
                "queues": [
                    {
                        "provider": "slack",
                        "queue": "integrations-slack",
                        "per_second": 1.5,
                        "per_connection_per_second": None,
                        "by_operator": False,
                        "words": "1.5/s",
                        "connections": None,
                    }
                ],
            }
        }
    )

    uses: list[UseView]
    queues: list[QueueView] | None


@router.get("", summary="Budgets and their use")
async def get_budgets(
    request: Request,
    caller: AuthenticatedCaller,
    provider: Annotated[str | None, Query(examples=["github"])] = None,
) -> BudgetsView:
    """What is used of each limit, what rests until when, and the rates of the queues.

    A tenant's key sees its own connections' and what all connections share.
    """
    services: Services = request.app.state.services
    caller.need(Right.SEE_JOBS)
    if provider is not None:
        try:
            connectors = {provider: connector(services.connectors, provider)}
        except UnknownProvider as error:
            raise Problem(422, "unknown_provider", str(error)) from error
    else:
        connectors = services.connectors
    every = caller.scope is None
    connections = {each.connection_id: each for each in await _connections(services, caller.scope, provider)}
    uses = await (_all_uses(services, connectors) if every else _own_uses(services, connectors, connections.values()))
    views = [_use_view(each, connections) for each in sorted(uses, key=lambda use: use.scope)]
    return BudgetsView(
        uses=[each for each in views if each is not None], queues=await _queues(services, connectors, every=every)
    )


async def _connections(services: Services, tenant: str | None, provider: str | None) -> Sequence[Connection]:
    found: list[Connection] = []
    after: str | None = None
    while True:
        page, after = await listed(services, tenant, provider=provider, after=after, limit=READ_AT_ONCE)
        found += page
        if after is None:
            return found


def _scopes(known: Connector, connection_id: str = "") -> Scopes:
    """Names the scopes as the sync job does."""
    return Scopes(known, known.resources[0], connection_id, known.settings.model_construct())


async def _all_uses(services: Services, connectors: Mapping[str, Connector]) -> list[Use]:
    found: list[Use] = []
    for known in connectors.values():
        vendor = _scopes(known).vendor
        uses = await services.budgets.uses(vendor, limit=AT_MOST)
        found += [each for each in uses if each.scope == vendor or each.scope.startswith(f"{vendor}:")]
    return found


async def _own_uses(
    services: Services, connectors: Mapping[str, Connector], connections: Iterable[Connection]
) -> list[Use]:
    found: list[Use] = []
    for known in connectors.values():
        names = _scopes(known)
        shared = {names.vendor} | {
            names.scope(budget)
            for resource in known.resources
            for budget in known.budgets_of(resource)
            if budget.holder is Holder.APP
        }
        for scope in shared:
            found += [each for each in await services.budgets.uses(scope, limit=1) if each.scope == scope]
    for each in connections:
        if each.provider in connectors:
            found += await services.budgets.uses(_scopes(connectors[each.provider], each.connection_id).account)
    return found


def _use_view(use: Use, connections: Mapping[str, Connection]) -> UseView | None:
    """None for what is left of a deleted connection."""
    _, provider, *rest = use.scope.split(":", 3)
    connection_id = rest.pop(0) if rest and _is_id(rest[0]) else None
    if connection_id is not None and connection_id not in connections:
        return None
    pause = None
    if use.paused_for is not None and use.paused_until is not None:
        pause = PauseView(why=use.paused_for, until=use.paused_until, detail=use.detail)
    return UseView(
        scope=use.scope,
        provider=provider,
        connection_id=connection_id,
        account=connections[connection_id].account if connection_id else None,
        budget=":".join(rest) or None,
        limit=use.limit,
        window_seconds=use.per.total_seconds() if use.per is not None else None,
        used=use.used,
        remaining=use.remaining,
        resets_at=use.resets_at,
        next_slot_at=use.next_slot_at,
        paused=pause,
    )


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def _queues(services: Services, connectors: Mapping[str, Connector], *, every: bool) -> list[QueueView] | None:
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            limits = await asyncio.gather(
                *(queue_limits.read(services.temporal, known.queue) for known in connectors.values())
            )
    except (RPCError, TimeoutError) as error:
        log.warning("temporal.unavailable", error=str(error) or "no answer")
        return None
    return [
        QueueView(
            provider=name,
            queue=known.queue,
            per_second=limit.per_second,
            per_connection_per_second=limit.per_key,
            by_operator=limit.by_operator,
            words=f"{in_words(limit.per_second)}, each connection {in_words(limit.per_key)}",
            connections=await services.connections.count_active(name) if every else None,
        )
        for (name, known), limit in zip(connectors.items(), limits, strict=True)
    ]
