"""A vendor on a local port that answers what a test says, and the engine that asks it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime

import httpx
import pytest
import pytest_asyncio
import uvloop
from aiohttp import web
from pydantic import JsonValue

from activities.connectors.engine import Engine
from activities.connectors.vendor_http import vendor_http
from runtime.clock import FixedClock
from tests.connectors.sample import NOW, Reply


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    text: str


@dataclass
class Vendor:
    """Gives its replies one after the other, the last one again and again."""

    host: str = ""
    date: datetime = NOW
    replies: list[Reply] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(
            Asked(request.method, request.path, dict(request.query), dict(request.headers), await request.text())
        )
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        headers = {"Date": format_datetime(self.date, usegmt=True), "Content-Type": "application/json"}
        headers |= {name: str(self.at_home(value)) for name, value in reply.headers.items()}
        body = self.at_home(reply.body)
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=reply.status, headers=headers, body=text.encode())

    def at_home(self, value: JsonValue) -> JsonValue:
        """With `{host}` replaced."""
        if isinstance(value, str):
            return value.replace("{host}", self.host)
        if isinstance(value, dict):
            return {name: self.at_home(each) for name, each in value.items()}
        return [self.at_home(each) for each in value] if isinstance(value, list) else value


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The worker's loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def _one_ssl_context() -> Iterator[None]:
    """Every client makes one, which takes 20 ms and is not used here."""
    context = httpx.create_ssl_context()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "create_ssl_context", lambda *_args, **_named: context)
        yield


@pytest_asyncio.fixture
async def vendor() -> AsyncIterator[Vendor]:
    made = Vendor()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest_asyncio.fixture
async def engine(clock: FixedClock) -> AsyncIterator[Engine]:
    async with vendor_http() as http:
        yield Engine(http, clock)
