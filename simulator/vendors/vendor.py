"""A vendor: from a request to its answer, through faults, authentication and quotas."""

import asyncio
import hashlib
import json
import math
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, ClassVar

from aiohttp import web

from simulator.quota import Quota, Scopes, Verdict, take_all
from simulator.quota.base import INSTANT
from simulator.vendors.accounts import Account, Accounts, Clock
from simulator.vendors.dataset import Path
from simulator.vendors.exchange import Call, Page, Refused, Reply, Row, bearer, parameters
from simulator.vendors.faults import VendorFault, VendorFaults

HTML = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1><p>We are on it.</p></body></html>\n"
REASONS = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}

Model = Callable[[float, float], Quota]
Handler = Callable[[Call], Page | Reply]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path, its name in faults and statistics, and what answers."""

    name: str
    path: str
    handler: Handler
    methods: tuple[str, ...] = ("GET",)


class Vendor(ABC):
    """One third party.

    Attributes:
        accounts: who has an account here.
        quotas: by (name of the quota, scope).
        requests: counted by (account, endpoint, status).
    """

    name: ClassVar[str]
    tree: ClassVar[Mapping[str, str | None]]
    marked: ClassVar[frozenset[str]] = frozenset()
    sizes: ClassVar[Mapping[str, int]]
    limits: ClassVar[Mapping[str, float]]
    token_seconds: ClassVar[float | None]

    def __init__(self, clock: Clock, faults: VendorFaults, speed: float = 1.0) -> None:
        self.clock = clock
        self.faults = faults
        self.speed = speed
        self.accounts = Accounts()
        self.quotas = Scopes[tuple[str, str]](self._new_quota)
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._limits: dict[tuple[str, str], float] = {}

    @abstractmethod
    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers to."""

    @abstractmethod
    def model(self, name: str, limit: float) -> Quota:
        """A new quota of that name."""

    @abstractmethod
    def authenticate(self, account: Account | None, request: web.Request) -> Account:
        """The account, if its token is good.

        Raises:
            Refused: it is not.
        """

    @abstractmethod
    def wanted(self, call: Call, rows: int, reply: Reply) -> Sequence[tuple[str, str, float]]:
        """Which quotas (name, scope) an answer uses, and how much of each."""

    @abstractmethod
    def refusal(self, call: Call, name: str, verdict: Verdict, quota: Quota) -> Reply:
        """The answer where a quota has no room."""

    @abstractmethod
    def error(self, status: int) -> Reply:
        """Its own answer when it does not work."""

    @abstractmethod
    async def token(self, request: web.Request) -> web.Response:
        """The refresh of a token."""

    @abstractmethod
    def token_path(self) -> str:
        """Where."""

    @abstractmethod
    def count(self, sizes: Mapping[str, int], kind: str, parents: Path) -> int:
        """With how many items a collection begins."""

    @abstractmethod
    def id_of(self, account: Account, kind: str, path: Path) -> str:
        """The identifier of an item."""

    @abstractmethod
    def path_of(self, account: Account, kind: str, text: str) -> Path | None:
        """The item of an identifier."""

    @abstractmethod
    def new_tokens(self) -> tuple[str, str]:
        """An access token and a refresh token."""

    def about(self, account: Account, kind: str, parents: Path, dice: random.Random) -> int | None:  # noqa: ARG002 - the others'
        """It belongs to none."""
        return None

    def happened(self, account: Account, kind: str, path: Path) -> None:  # noqa: B027 - nothing else changes
        """Nothing else changes."""

    def deleted(self, account: Account, kind: str, path: Path) -> None:  # noqa: B027 - nothing else goes
        """Nothing else goes."""

    def limit_headers(self, call: Call, verdicts: Mapping[str, tuple[Quota, Verdict]]) -> dict[str, str]:  # noqa: ARG002
        """None."""
        return {}

    def options_of(self, ordinal: int) -> dict[str, Any]:  # noqa: ARG002 - the others'
        """The options that an account has if it is given no others."""
        return {}

    def row_id_of(self, endpoint: str) -> str:  # noqa: ARG002 - the others'
        """The field of a row that identifies it."""
        return "id"

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        prefix = f"/sim/{self.name}"
        made = [web.post(f"{prefix}{self.token_path()}", self.token)]
        for endpoint in self.endpoints():
            made += [
                web.route(method, f"{prefix}{endpoint.path}", self._handler(endpoint)) for method in endpoint.methods
            ]
        return made

    def quota(self, name: str, scope: str, account: Account | None = None) -> Quota:
        """The quota of a scope; a new one has the account's limit, or the vendor's."""
        self._limits.setdefault((name, scope), self.limit_of(name, account))
        return self.quotas[name, scope]

    def limit_of(self, name: str, account: Account | None) -> float:
        """The account's own limit, or the vendor's."""
        return self.limits[name] if account is None else account.limits.get(name, self.limits[name])

    def keep_limit(self, name: str, scope: str, limit: float) -> None:
        """For the quota that is made when this one is cleared."""
        self._limits[name, scope] = limit

    def reset(self) -> None:
        """All quotas are whole, nothing is counted."""
        self.quotas.clear()
        self._limits.clear()
        self.requests.clear()

    def _new_quota(self, key: tuple[str, str]) -> Quota:
        return self.model(key[0], self._limits[key])

    def _handler(self, endpoint: Endpoint) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            account = self.accounts.of_access_token(bearer(request))
            name = account.name if account else None
            faults = self.faults.due(self.name, name, endpoint.name)
            reply = await self._broken(request, account, faults)
            if reply is None:
                reply = await self._answer(endpoint, request, account, faults)
            self.requests[name or "", endpoint.name, reply.status] += 1
            # Clients compare absolute times with the vendor's clock, which may not be this computer's.
            reply.headers["Date"] = formatdate(self.clock(), usegmt=True)
            return response(reply)

        return handle

    async def _broken(
        self, request: web.Request, account: Account | None, faults: Sequence[VendorFault]
    ) -> Reply | None:
        for fault in faults:
            if fault.kind == "revoke" and account is not None:
                account.revoke()
            elif fault.kind in {"timeout", "slow"}:
                await asyncio.sleep(fault.seconds)
            if fault.kind in {"timeout", "reset"}:
                if request.transport is not None:
                    request.transport.abort()
                return Reply(status=499)
            if fault.kind == "error":
                reply = self.error(fault.status)
                if fault.html:
                    reason = f"{fault.status} {REASONS.get(fault.status, 'Error')}"
                    reply = Reply(status=fault.status, text=HTML.format(reason), content_type="text/html")
                if fault.retry_after is not None:
                    reply.headers["Retry-After"] = str(fault.retry_after)
                return reply
        return None

    async def _answer(
        self, endpoint: Endpoint, request: web.Request, account: Account | None, faults: Sequence[VendorFault]
    ) -> Reply:
        try:
            known = self.authenticate(account, request)
            base_url = f"{request.scheme}://{request.host}/sim/{self.name}"
            call = Call(request, endpoint.name, known, await parameters(request), base_url, self.clock())
            try:
                made = endpoint.handler(call)
            except Refused as refused:
                made = refused.reply
            if isinstance(made, Page):
                self._spoil(call, made, faults)
                rows, reply = len(made.rows), made.render(made.rows, made.next)
            else:
                rows, reply = 0, made
            reply = self._admitted(call, rows, reply, faults)
        except Refused as refused:
            return refused.reply
        for fault in faults:
            if fault.kind == "slow_down":
                reply.headers["Retry-After"] = str(fault.retry_after if fault.retry_after is not None else 5)
        return reply

    def _admitted(self, call: Call, rows: int, reply: Reply, faults: Sequence[VendorFault]) -> Reply:
        wanted = self.wanted(call, rows, reply)
        quotas = [(self.quota(name, scope, call.account), cost) for name, scope, cost in wanted]
        for fault in faults:
            if fault.kind == "other_client":
                amount = self.faults.dice.randint(fault.amount, max(fault.amount, fault.amount_most or 0))
                for (name, _, _), (quota, _) in zip(wanted, quotas, strict=True):
                    if fault.quota in {None, name}:
                        quota.eat(call.now, amount)
        refusing, verdicts = take_all(call.now, quotas)
        by_name = {
            name: (quota, verdict) for (name, _, _), (quota, _), verdict in zip(wanted, quotas, verdicts, strict=True)
        }
        headers = self.limit_headers(call, by_name)
        if refusing is not None:
            name = next(name for name, (quota, _) in by_name.items() if quota is refusing)
            reply = self.refusal(call, name, by_name[name][1], refusing)
        reply.headers = {**headers, **reply.headers}
        return reply

    def _spoil(self, call: Call, page: Page, faults: Sequence[VendorFault]) -> None:
        for fault in faults:
            if fault.kind == "malformed_row" and page.rows:
                place = self.faults.dice.randrange(len(page.rows))
                field = fault.field or self.row_id_of(call.endpoint)
                page.rows[place] = {**page.rows[place], field: {"oops": True} if fault.field else None}
            elif fault.kind in {"missing_field", "renamed_field"} and fault.field:
                page.rows = [without(row, fault.field, fault.to) for row in page.rows]
            elif fault.kind == "repeated_cursor" and page.here is not None:
                page.next = page.here
            elif fault.kind == "empty_page" and page.here is not None:
                page.rows, page.next = [], page.here


def without(row: Row, field: str, to: str | None = None) -> Row:
    """A copy of a row in which a field, at a dotted path, is missing or has another name."""
    name, _, rest = field.partition(".")
    if name not in row:
        return row
    if rest and isinstance(row[name], dict):
        return {**row, name: without(row[name], rest, to)}
    kept = {key: value for key, value in row.items() if key != name}
    return {**kept, to: row[name]} if to else kept


def seconds(wait: float) -> str:
    """Whole seconds, never too few."""
    return str(max(1, math.ceil(wait - INSTANT)))


def etag(body: Any) -> str:
    """Of an answer."""
    return f'W/"{hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}"'


def response(reply: Reply) -> web.Response:
    """What aiohttp sends."""
    if reply.text is not None:
        return web.Response(
            status=reply.status, text=reply.text, headers=reply.headers, content_type=reply.content_type
        )
    if reply.body is None:
        return web.Response(status=reply.status, headers=reply.headers)
    return web.json_response(reply.body, status=reply.status, headers=reply.headers)
