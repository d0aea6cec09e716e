"""Jira Cloud's REST API, version 3. https://developer.atlassian.com/cloud/jira/platform/rest/v3.

Kinds: projects, issues of the site (spread over its projects) > comments, users. A comment changes its issue.
Quotas: `points` 65,000 an hour of UTC, of an app over all its sites; `burst` 100 a second per site, endpoint and
method. An answer costs a point, one more for each issue, project and comment in it, and two for each user.
Options of an account: `cloud_id`, and `zone`, the time zone of the user, in which queries and answers have their times.
"""

import base64
import binascii
import hashlib
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web

from simulator.quota import Points, Quota, TokenBucket, Verdict
from simulator.vendors import jira_rows, jql
from simulator.vendors.accounts import Account
from simulator.vendors.dataset import DAY, Item, Path
from simulator.vendors.exchange import Call, Page, Refused, Reply, Row, parameters, zulu
from simulator.vendors.ids import uuid
from simulator.vendors.vendor import Endpoint, Vendor, response, seconds

BASE = "/ex/jira/{cloud}/rest/api/3"
MOST_ISSUES, MOST_IDS = 100, 5_000
CURSOR_DAYS = 7
NEAR = 0.2  # of a limit is left
REASONS = {"points": "jira-quota-global-based", "burst": "jira-burst-based"}
COSTS = {"users": 2}


class Jira(Vendor):
    """See the module."""

    name: ClassVar[str] = "jira"
    tree: ClassVar[Mapping[str, str | None]] = {"projects": None, "issues": None, "comments": "issues", "users": None}
    sizes: ClassVar[Mapping[str, int]] = {"projects": 3, "issues": 120, "comments": 2, "users": 12}
    marked: ClassVar[frozenset[str]] = frozenset({"users"})
    limits: ClassVar[Mapping[str, float]] = {"points": 65_000, "burst": 100}
    token_seconds: ClassVar[float | None] = 3_600

    def row_id_of(self, endpoint: str) -> str:
        """Users have accounts."""
        return "accountId" if endpoint == "users" else "id"

    def endpoints(self) -> Sequence[Endpoint]:
        """Below the site."""
        return [
            Endpoint("issues", f"{BASE}/search/jql", self.search, ("GET", "POST")),
            Endpoint("projects", f"{BASE}/project/search", self.projects),
            Endpoint("users", f"{BASE}/users/search", self.users),
            Endpoint("comments", f"{BASE}/issue/{{issue}}/comment", self.comments),
        ]

    def search(self, call: Call) -> Page:
        """Search by JQL: a token names the next page, and is not there on the last one."""
        account = call.account
        text = call.text("jql")
        try:
            query = jql.parse(text, int(call.now * 1_000_000), zone_of(account))
        except jql.Unreadable as error:
            raise Refused(refused(400, str(error))) from error
        given = call.params.get("fields", "")
        names = {each.strip() for each in (given if isinstance(given, list) else str(given).split(",")) if each.strip()}
        most = MOST_IDS if names <= {"id", "key"} else MOST_ISSUES
        size = call.number("maxResults", 50, least=1, most=most)
        collection, projects = account.dataset.of("issues"), max(account.dataset.sizes["projects"], 1)
        least, most_ = (query.least.get(query.order, -1), -1), (query.most.get(query.order, 1 << 62), 1 << 62)
        cursor = call.text("nextPageToken")
        if cursor:
            place = self._place(cursor, text, call)
            least, most_ = (least, min(most_, place)) if query.descending else (max(least, place), most_)
        found = (
            item
            for item in collection.between(query.order, least=least, most=most_, descending=query.descending)
            if matches(query, item, jira_rows.project_key(item.number % projects))
        )
        items = list(islice(found, size + 1))
        page = items[:size]

        def render(rows: list[Row], following: str | None) -> Reply:
            body: Row = {"issues": rows}
            if following is not None:
                body["nextPageToken"] = following
            return Reply(body | {"isLast": following is None})

        following = token_of(items[size], query.order, text, call) if len(items) > size else None
        here = cursor or (token_of(page[0], query.order, text, call) if page else None)
        return Page([jira_rows.issue(call, item, names) for item in page], render, next=following, here=here)

    def projects(self, call: Call) -> Page:
        """A page that says where it is, how many there are and whether it is the last."""
        collection = call.account.dataset.of("projects")
        start, size = call.number("startAt", 0), call.number("maxResults", 50, least=1, most=50)
        items = collection.slice(start, start + size)
        more = start + len(items) < len(collection)
        path = f"{jira_rows.site(call)}/rest/api/3/project/search"

        def link(at: int) -> str:
            return f"{path}?{urlencode({**call.params, 'maxResults': size, 'startAt': at})}"

        def render(rows: list[Row], _following: str | None) -> Reply:
            body: Row = {"self": link(start)}
            if more:
                body["nextPage"] = link(start + size)
            return Reply(
                body
                | {
                    "maxResults": size,
                    "startAt": start,
                    "total": len(collection),
                    "isLast": not more,
                    "values": rows,
                }
            )

        return Page([jira_rows.project(call, item, full=True) for item in items], render)

    def users(self, call: Call) -> Page:
        """A bare array; only an empty one is surely behind the end."""
        start, size = call.number("startAt", 0), call.number("maxResults", 50, least=1, most=1000)
        items = call.account.dataset.of("users").slice(start, start + size)
        return Page([jira_rows.listed_user(call, item) for item in items], lambda rows, _: Reply(rows))

    def comments(self, call: Call) -> Page:
        """A page that says where it is and how many there are."""
        path = call.account.find("issues", call.path("issue"))
        if path is None:
            raise Refused(refused(404, "Issue does not exist or you do not have permission to see it."))
        collection = call.account.dataset.of("comments", path)
        start, size = call.number("startAt", 0), call.number("maxResults", 100, least=1, most=5000)
        items = collection.slice(start, start + size, descending=call.text("orderBy") == "-created")

        def render(rows: list[Row], _following: str | None) -> Reply:
            return Reply({"startAt": start, "maxResults": size, "total": len(collection), "comments": rows})

        return Page([jira_rows.comment(call, path[0], item) for item in items], render)

    def model(self, name: str, limit: float) -> Quota:
        """The hour of UTC, and a second's bucket."""
        if name == "points":
            return Points(limit, 3600, aligned=True, speed=self.speed)
        return TokenBucket(limit, limit, speed=self.speed)

    def authenticate(self, account: Account | None, request: web.Request) -> Account:
        """401 where the token is not good, 404 where the site is not one of its."""
        if account is None or account.grant.revoked or account.expired():
            raise Refused(Reply({"code": 401, "message": "Unauthorized"}, 401))
        if request.match_info["cloud"] != account.options["cloud_id"]:
            raise Refused(Reply({"code": 404, "message": "Not Found"}, 404))
        return account

    def wanted(self, call: Call, rows: int, reply: Reply) -> Sequence[tuple[str, str, float]]:
        """The burst first: what it refuses costs no points."""
        del reply
        scope = f"{call.account.name} {call.endpoint} {call.request.method}"
        return [("burst", scope, 1), ("points", call.account.app, 1 + rows * COSTS.get(call.endpoint, 1))]

    def refusal(self, call: Call, name: str, verdict: Verdict, quota: Quota) -> Reply:
        """429 with the reason in a header; the reset is ISO 8601."""
        headers = {
            "Retry-After": seconds(verdict.retry_after),
            "X-RateLimit-Limit": str(int(quota.limit)),
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": zulu(math.ceil(call.now + verdict.retry_after) * 1_000_000),
            "RateLimit-Reason": REASONS[name],
        }
        return Reply({"errorMessages": ["Rate limit exceeded."], "errors": {}}, 429, headers)

    def limit_headers(self, call: Call, verdicts: Mapping[str, tuple[Quota, Verdict]]) -> dict[str, str]:
        """X-RateLimit-* are of the burst, as in recorded answers; the hour's points are in Beta-RateLimit."""
        (burst, of_burst), (points, of_points) = verdicts["burst"], verdicts["points"]
        wait, window = seconds(of_points.reset_at - call.now), int(3600 / self.speed)
        made = {
            "X-RateLimit-Limit": str(int(burst.limit)),
            "X-RateLimit-Remaining": str(math.floor(of_burst.remaining)),
            "Beta-RateLimit-Policy": f'"global-app-quota";q={int(points.limit)};w={window}',
            "Beta-RateLimit": f'"global-app-quota";r={math.floor(of_points.remaining)};t={wait}',
        }
        if any(verdict.remaining < quota.limit * NEAR for quota, verdict in verdicts.values()):
            made["X-RateLimit-NearLimit"] = "true"
        return made

    def error(self, status: int) -> Reply:
        """As the gateway has it."""
        return Reply({"errorMessages": ["Internal server error"], "errors": {}}, status)

    def token_path(self) -> str:
        """https://developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens."""
        return "/oauth/token"

    async def token(self, request: web.Request) -> web.Response:
        """Each refresh gives a new refresh token, and the old one is good no more."""
        given = await parameters(request)
        account = self.accounts.of_refresh_token(str(given.get("refresh_token", "")))
        if account is None or given.get("grant_type") != "refresh_token":
            body = {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}
            return response(Reply(body, 403))
        if (given.get("client_id"), given.get("client_secret")) != (account.client_id, account.client_secret):
            return response(Reply({"error": "access_denied", "error_description": "Unauthorized"}, 401))
        grant = account.rotate()
        return response(
            Reply(
                {
                    "access_token": grant.access_token,
                    "refresh_token": grant.refresh_token,
                    "expires_in": int(account.token_seconds or 0),
                    "token_type": "Bearer",
                    "scope": "offline_access read:jira-user read:jira-work",
                }
            )
        )

    def new_tokens(self) -> tuple[str, str]:
        """They look like JSON web tokens."""
        return f"eyJraWQiOiJhdXRo.{secrets.token_urlsafe(60)}", f"eyJraWQiOiJyZWZy.{secrets.token_urlsafe(40)}"

    def options_of(self, ordinal: int) -> dict[str, Any]:
        """A site of its own, and UTC."""
        return {"cloud_id": uuid(7, ordinal), "zone": "UTC"}

    def count(self, sizes: Mapping[str, int], kind: str, parents: Path) -> int:
        """Issues that were added have no comments yet."""
        if kind == "comments":
            return sizes["comments"] if parents[0] < sizes["issues"] else 0
        return sizes[kind]

    def id_of(self, account: Account, kind: str, path: Path) -> str:
        """The text that is `id`, of a user `accountId`."""
        return jira_rows.id_of(account, kind, path)

    def path_of(self, account: Account, kind: str, text: str) -> Path | None:
        """A project also by its key, an issue also by its."""
        return jira_rows.path_of(account, kind, text)

    def happened(self, account: Account, kind: str, path: Path) -> None:
        """A comment changes its issue."""
        if kind == "comments":
            account.dataset.of("issues").change(path[0], account.now_us())

    def _place(self, cursor: str, text: str, call: Call) -> tuple[int, int]:
        try:
            made, query, time, number = json.loads(base64.urlsafe_b64decode(cursor))
        except (binascii.Error, ValueError, TypeError) as error:
            raise Refused(refused(400, "The provided next page token is invalid.")) from error
        if query != digest(text) or made + CURSOR_DAYS * DAY / 1_000_000 < call.now:
            raise Refused(refused(400, "The provided next page token is invalid or expired."))
        return int(time), int(number)


def zone_of(account: Account) -> ZoneInfo:
    """The user's."""
    return ZoneInfo(account.options["zone"])


def matches(query: jql.Query, item: Item, project: str) -> bool:
    """Whether an issue is asked for."""
    times: dict[jql.Field, int] = {"created": item.created, "updated": item.updated}
    return (
        all(times[field] >= bound for field, bound in query.least.items())
        and all(times[field] <= bound for field, bound in query.most.items())
        and (not query.projects or project in query.projects)
    )


def digest(text: str) -> str:
    """Of a query: a token is good for its own only."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def token_of(item: Item, order: jql.Field, text: str, call: Call) -> str:
    """Of the page that begins with this item."""
    place = [int(call.now), digest(text), item.time(order), item.number]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def refused(status: int, message: str) -> Reply:
    """Jira's error."""
    return Reply({"errorMessages": [message], "errors": {}}, status)
