"""Slack's Web API: conversations, messages, threads and members. https://docs.slack.dev/reference/methods.

Kinds: channels > messages > replies, of every fifth message; users. A deactivated user is listed as deleted.
Identifiers of messages and replies are `<channel>/<ts>` and `<channel>/<ts of the thread>/<ts>`.
Quotas, by the name of the method, in any minute, per workspace: the tiers of Slack's pages.
Options of an account: `team_id`; `small_history` makes it an app of after May 2025 that is not in the Marketplace:
conversations.history and .replies once a minute, 15 messages at most.
"""

import base64
import binascii
import secrets
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from aiohttp import web

from simulator.quota import Quota, SlidingWindow, Verdict
from simulator.vendors import slack_rows
from simulator.vendors.accounts import Account
from simulator.vendors.dataset import Path
from simulator.vendors.exchange import Call, Page, Refused, Reply, Row, bearer, parameters
from simulator.vendors.ids import shuffled, written
from simulator.vendors.vendor import Endpoint, Vendor, response, seconds

TIER_2, TIER_3 = 20, 50  # a minute; https://docs.slack.dev/apis/web-api/rate-limits
MOST_CHANNELS, MOST_MESSAGES, MOST_REPLIES, MOST_USERS = 1000, 999, 1000, 1000
SMALL = 15
EVER = 1 << 62
THREAD_EVERY = 5


class Slack(Vendor):
    """See the module."""

    name: ClassVar[str] = "slack"
    tree: ClassVar[Mapping[str, str | None]] = {
        "channels": None,
        "messages": "channels",
        "replies": "messages",
        "users": None,
    }
    marked: ClassVar[frozenset[str]] = frozenset({"users"})
    sizes: ClassVar[Mapping[str, int]] = {"channels": 4, "messages": 50, "replies": 3, "users": 12}
    limits: ClassVar[Mapping[str, float]] = {
        "conversations.list": TIER_2,
        "conversations.history": TIER_3,
        "conversations.replies": TIER_3,
        "users.list": TIER_2,
    }
    token_seconds: ClassVar[float | None] = 43_200

    def row_id_of(self, endpoint: str) -> str:
        """Messages have times."""
        return "ts" if endpoint in {"conversations.history", "conversations.replies"} else "id"

    def endpoints(self) -> Sequence[Endpoint]:
        """Methods may be called by GET or POST."""
        handlers = {
            "conversations.list": self.channels,
            "conversations.history": self.history,
            "conversations.replies": self.replies,
            "users.list": self.users,
        }
        return [Endpoint(name, f"/api/{name}", handler, ("GET", "POST")) for name, handler in handlers.items()]

    def channels(self, call: Call) -> Page:
        """https://docs.slack.dev/reference/methods/conversations.list."""
        collection, size = call.account.dataset.of("channels"), call.number("limit", 100, least=1, most=MOST_CHANNELS)
        types = {each.strip() for each in call.text("types", "public_channel").split(",")}
        without_archived = call.text("exclude_archived") in {"true", "1"}
        start = self._start(call, "team", "channels")
        found = [
            number
            for number in collection.numbers()
            if number >= start
            and "public_channel" in types
            and not (without_archived and slack_rows.is_archived(number))
        ]
        rows = [slack_rows.channel(call.account, collection[number]) for number in found[:size]]
        return self._listed(call, "channels", "team", rows, found, size)

    def users(self, call: Call) -> Page:
        """https://docs.slack.dev/reference/methods/users.list."""
        collection, size = call.account.dataset.of("users"), call.number("limit", 200, least=1, most=MOST_USERS)
        start = self._start(call, "user", "users")
        found = [number for number in collection.numbers() if number >= start]
        rows = [slack_rows.user(call.account, collection[number]) for number in found[:size]]
        return self._listed(call, "members", "user", rows, found, size)

    def history(self, call: Call) -> Page:
        """https://docs.slack.dev/reference/methods/conversations.history: the newest first, without replies."""
        path = self._channel(call)
        size = self._size(call, 100, MOST_MESSAGES)
        least, most = self._bounds(call)
        cursor = self._next_ts(call)
        collection = call.account.dataset.of("messages", path)
        found = collection.between(
            least=(least, -1), most=(most if cursor is None else min(most, cursor), EVER), descending=True
        )
        items = list(islice(found, size + 1))
        rows = [slack_rows.message(call.account, (*path, item.number), item) for item in items[:size]]

        def render(rows: list[Row], following: str | None) -> Reply:
            body = {
                "ok": True,
                "messages": rows,
                "has_more": following is not None,
                "pin_count": 0,
                "channel_actions_ts": None,
                "channel_actions_count": 0,
            }
            return Reply(body if following is None else body | {"response_metadata": {"next_cursor": following}})

        return Page(
            rows,
            render,
            next=cursor_of("next_ts", str(items[size].created)) if len(items) > size else None,
            here=cursor_of("next_ts", str(items[0].created)) if items else None,
        )

    def replies(self, call: Call) -> Page:
        """https://docs.slack.dev/reference/methods/conversations.replies: the thread's message, then the oldest."""
        channel = self._channel(call)
        path = slack_rows.path_of(call.account, "messages", f"{call.text('channel')}/{call.text('ts')}")
        if path is None or not call.account.has("messages", path):
            raise Refused(said("thread_not_found"))
        size = self._size(call, 1000, MOST_REPLIES)
        least, most = self._bounds(call)
        cursor = self._next_ts(call)
        parent = call.account.dataset.of("messages", channel)[path[1]]
        collection = call.account.dataset.of("replies", path)
        room = size + 1 if cursor is not None else size
        found = collection.between(least=(max(least, cursor or 0), -1), most=(most, EVER))
        items = list(islice(found, room))
        shown, behind = items[: room - 1], items[room - 1 :]
        rows = [] if cursor is not None else [slack_rows.message(call.account, path, parent)]
        rows += [slack_rows.reply(call.account, (*path, item.number), item) for item in shown]

        def render(rows: list[Row], following: str | None) -> Reply:
            body = {"ok": True, "messages": rows, "has_more": following is not None}
            return Reply(body if following is None else body | {"response_metadata": {"next_cursor": following}})

        following = cursor_of("next_ts", str(behind[0].created)) if behind else None
        here = cursor_of("next_ts", str(shown[0].created)) if cursor is not None and shown else None
        return Page(rows, render, next=following, here=here)

    def model(self, name: str, limit: float) -> Quota:
        """Any minute."""
        del name
        return SlidingWindow(limit, 60, speed=self.speed)

    def authenticate(self, account: Account | None, request: web.Request) -> Account:
        """Answered with 200."""
        token = bearer(request) or request.query.get("token", "")
        known = account or self.accounts.of_access_token(token)
        if not token:
            raise Refused(said("not_authed"))
        if known is None:
            raise Refused(said("invalid_auth"))
        if known.grant.revoked:
            raise Refused(said("token_revoked"))
        if known.expired():
            raise Refused(said("token_expired"))
        return known

    def wanted(self, call: Call, rows: int, reply: Reply) -> Sequence[tuple[str, str, float]]:
        """Each method has its own budget in each workspace."""
        del rows, reply
        return [(call.endpoint, call.account.name, 1)]

    def limit_of(self, name: str, account: Account | None) -> float:
        """Once a minute for some."""
        if account is not None and name not in account.limits and self._small(account) and self.limits[name] == TIER_3:
            return 1
        return super().limit_of(name, account)

    def refusal(self, call: Call, name: str, verdict: Verdict, quota: Quota) -> Reply:
        """The only answer that is not 200."""
        del call, name, quota
        body = {"ok": False, "error": "ratelimited"}
        return Reply(body, 429, {"Retry-After": seconds(verdict.retry_after)})

    def error(self, status: int) -> Reply:
        """`fatal_error` where it answers with 200."""
        return Reply({"ok": False, "error": "fatal_error" if status < 400 else "internal_error"}, status)

    def token_path(self) -> str:
        """https://docs.slack.dev/authentication/using-token-rotation."""
        return "/api/oauth.v2.access"

    async def token(self, request: web.Request) -> web.Response:
        """Rotation: a refresh token is good once."""
        given = await parameters(request)
        account = self.accounts.of_refresh_token(str(given.get("refresh_token", "")))
        if given.get("grant_type") != "refresh_token" or account is None:
            return response(said("invalid_refresh_token"))
        if (given.get("client_id"), given.get("client_secret")) != (account.client_id, account.client_secret):
            return response(said("bad_client_secret"))
        grant = account.rotate()
        body = {
            "ok": True,
            "access_token": grant.access_token,
            "expires_in": int(account.token_seconds or 0),
            "refresh_token": grant.refresh_token,
            "token_type": "bot",
            "scope": "channels:history,channels:read,users:read",
            "bot_user_id": slack_rows.id_of(account, "users", (0,)),
            "app_id": f"A0{written(shuffled(account.ordinal, 46), 9, 36)}",
            "team": {"name": account.name, "id": account.options["team_id"]},
            "enterprise": None,
            "is_enterprise_install": False,
        }
        return response(Reply(body))

    def new_tokens(self) -> tuple[str, str]:
        """Tokens that expire."""
        return f"xoxe.xoxb-1-{secrets.token_urlsafe(60)}", f"xoxe-1-{secrets.token_urlsafe(50)}"

    def options_of(self, ordinal: int) -> dict[str, Any]:
        """A workspace of its own, and the usual limits."""
        return {"team_id": slack_rows.team_id(ordinal), "small_history": False}

    def count(self, sizes: Mapping[str, int], kind: str, parents: Path) -> int:
        """Only some messages have replies."""
        if kind == "replies" and parents[-1] % THREAD_EVERY:
            return 0
        return sizes[kind]

    def id_of(self, account: Account, kind: str, path: Path) -> str:
        """See the module."""
        return slack_rows.id_of(account, kind, path)

    def path_of(self, account: Account, kind: str, text: str) -> Path | None:
        """See the module."""
        return slack_rows.path_of(account, kind, text)

    def _channel(self, call: Call) -> Path:
        path = call.account.find("channels", call.text("channel"))
        if path is None:
            raise Refused(said("channel_not_found"))
        return path

    def _small(self, account: Account) -> bool:
        return bool(account.options["small_history"])

    def _size(self, call: Call, default: int, most: int) -> int:
        if self._small(call.account):
            return call.number("limit", SMALL, least=1, most=SMALL)
        return call.number("limit", default, least=1, most=most)

    def _bounds(self, call: Call) -> tuple[int, int]:
        """Of creation, both included."""
        inclusive = call.text("inclusive") in {"true", "1"}
        oldest, latest = slack_rows.micros(call.text("oldest", "0")), slack_rows.micros(call.text("latest"))
        if oldest is None:
            raise Refused(said("invalid_ts_oldest"))
        least = oldest if inclusive else oldest + 1
        return least, EVER if latest is None else latest if inclusive else latest - 1

    def _start(self, call: Call, prefix: str, kind: str) -> int:
        cursor = call.text("cursor")
        if not cursor:
            return 0
        path = slack_rows.path_of(call.account, kind, place_of(prefix, cursor) or "")
        if path is None:
            raise Refused(said("invalid_cursor"))
        return path[0]

    def _next_ts(self, call: Call) -> int | None:
        cursor = call.text("cursor")
        if not cursor:
            return None
        place = place_of("next_ts", cursor)
        if place is None or not place.isdigit():
            raise Refused(said("invalid_cursor"))
        return int(place)

    def _listed(self, call: Call, field: str, prefix: str, rows: list[Row], numbers: Sequence[int], size: int) -> Page:
        kind = "users" if field == "members" else field

        def cursor(number: int) -> str:
            return cursor_of(prefix, slack_rows.id_of(call.account, kind, (number,)))

        def render(rows: list[Row], following: str | None) -> Reply:
            body: Row = {"ok": True, field: rows}
            if field == "members":
                body["cache_ts"] = int(call.now)
            return Reply(body | {"response_metadata": {"next_cursor": following or ""}})

        following = cursor(numbers[size]) if len(numbers) > size else None
        return Page(rows, render, next=following, here=cursor(numbers[0]) if numbers else None)


def said(error: str) -> Reply:
    """What goes wrong is answered with 200."""
    return Reply({"ok": False, "error": error})


def cursor_of(prefix: str, place: str) -> str:
    """As Slack has them: base64 of `team:C0AJ54WP615`."""
    return base64.b64encode(f"{prefix}:{place}".encode()).decode()


def place_of(prefix: str, cursor: str) -> str | None:
    """What is in a cursor, None where it is none of this kind."""
    try:
        name, _, place = base64.b64decode(cursor, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return place if name == prefix else None
