"""What passes between a vendor's endpoints and the server around them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from simulator.vendors.accounts import Account
from simulator.vendors.dataset import SECOND

Row = dict[str, Any]


@dataclass(slots=True)
class Reply:
    """An answer. `text` stands in for `body` where it is not JSON."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    content_type: str = "application/json"


class Refused(Exception):
    """The request is not one that gets a good answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status, reply.body)
        self.reply = reply


@dataclass(slots=True)
class Page:
    """Some rows of a list, and how an answer is made of them.

    `next` is the vendor's name of the page behind this one, None on the last; `here` is that of this one, None where
    the vendor has none.
    """

    rows: list[Row]
    render: Callable[[list[Row], str | None], Reply]
    next: str | None = None
    here: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request. `params` are those of the query, the form or the JSON body."""

    request: web.Request
    endpoint: str
    account: Account
    params: Mapping[str, Any]
    base_url: str
    now: float

    def text(self, name: str, default: str = "") -> str:
        """A parameter."""
        return str(self.params.get(name, default))

    def number(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        """A whole number, within bounds; what is none is the default."""
        try:
            given = int(self.params.get(name, default))
        except (TypeError, ValueError):
            given = default
        return max(least, given if most is None else min(given, most))

    def path(self, name: str) -> str:
        """A part of the path."""
        return self.request.match_info[name]


def zulu(micros: int, *, millis: bool = False) -> str:
    """2026-05-22T20:10:33Z."""
    made = datetime.fromtimestamp(micros // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{made}.{micros // 1000 % 1000:03d}Z" if millis else f"{made}Z"


async def parameters(request: web.Request) -> dict[str, Any]:
    """Of the query, and of a body that is JSON or a form."""
    found: dict[str, Any] = dict(request.query)
    if request.method == "POST":
        if request.content_type == "application/json":
            try:
                body = json.loads(await request.read())
            except ValueError:
                body = None
            found |= body if isinstance(body, dict) else {}
        else:
            found |= {name: str(value) for name, value in (await request.post()).items()}
    return found


def bearer(request: web.Request) -> str:
    """The token, empty where there is none."""
    return request.headers.get("Authorization", "").partition(" ")[2].strip()
