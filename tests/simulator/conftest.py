import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from simulator.vendors import Account, ThirdParties, VendorControl

BEGIN = 1_790_000_005.25  # 21 September 2026, 14:13:25 UTC


@dataclass
class Got:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


class World:
    """The vendors, with a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.thirds = ThirdParties(clock=lambda: self.now)
        self.client: TestClient[web.Request, web.Application]

    async def get(
        self,
        account: Account,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Got:
        """A path below the vendor's base URL, or a whole URL that it gave."""
        if path.startswith("http"):
            path = path.removeprefix(self.thirds.base_url(account.vendor))
        sent = {"Authorization": f"Bearer {account.access_token if token is None else token}"} | dict(headers or {})
        async with self.client.get(f"/sim/{account.vendor}{path}", params=params, headers=sent) as answer:
            return Got(answer.status, answer.headers, await answer.text())

    async def post(self, account: Account, path: str, *, auth: bool = True, **body: Any) -> Got:
        sent = {"Authorization": f"Bearer {account.access_token}"} if auth else {}
        sent |= body.pop("headers", {})
        async with self.client.post(f"/sim/{account.vendor}{path}", headers=sent, **body) as answer:
            return Got(answer.status, answer.headers, await answer.text())

    async def control(self, method: str, path: str, body: Any = None) -> Got:
        async with self.client.request(method, f"/control/vendors{path}", json=body) as answer:
            return Got(answer.status, answer.headers, await answer.text())


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    application = web.Application()
    application.add_routes(made.thirds.routes())
    application.add_routes(VendorControl(made.thirds).routes())
    async with TestClient(TestServer(application)) as client:
        made.client = client
        made.thirds.origin = str(client.make_url("")).rstrip("/")
        yield made
