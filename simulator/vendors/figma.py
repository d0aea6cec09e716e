"""Figma's REST API: projects, files, comments, versions and components. https://developers.figma.com/docs/rest-api.

Kinds: projects > files > comments, files > versions; components of the team. A version changes its file.
Quotas: `tier2` 50 and `tier3` 100 in any minute, per account, which is a user.
Options of an account: `team_id`; `plan` and `rate_limit_type`, which refusals tell.
"""

import secrets
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from aiohttp import web

from simulator.quota import Quota, SlidingWindow, Verdict
from simulator.vendors import figma_rows
from simulator.vendors.accounts import Account
from simulator.vendors.dataset import SECOND, Item, Path
from simulator.vendors.exchange import Call, Page, Refused, Reply, Row, parameters
from simulator.vendors.vendor import Endpoint, Vendor, response, seconds

TIERS = {"projects": "tier2", "files": "tier2", "comments": "tier2", "versions": "tier2", "components": "tier3"}
VERSIONS, MOST_VERSIONS = 30, 50
COMPONENTS, MOST_COMPONENTS = 30, 1000
BOOLEAN = "components"  # the endpoint whose errors have `error` and `message`
PAYWALL = "https://www.figma.com/files?api_paywall=true"


class Figma(Vendor):
    """See the module."""

    name: ClassVar[str] = "figma"
    tree: ClassVar[Mapping[str, str | None]] = {
        "projects": None,
        "files": "projects",
        "comments": "files",
        "versions": "files",
        "components": None,
    }
    sizes: ClassVar[Mapping[str, int]] = {"projects": 2, "files": 5, "comments": 3, "versions": 4, "components": 40}
    limits: ClassVar[Mapping[str, float]] = {"tier2": 50, "tier3": 100}
    token_seconds: ClassVar[float | None] = 7_776_000

    def row_id_of(self, endpoint: str) -> str:
        """Files and components have keys."""
        return "key" if endpoint in {"files", "components"} else "id"

    def endpoints(self) -> Sequence[Endpoint]:
        """All of version 1."""
        return [
            Endpoint("projects", "/v1/teams/{team}/projects", self.projects),
            Endpoint("files", "/v1/projects/{project}/files", self.files),
            Endpoint("comments", "/v1/files/{file}/comments", self.comments),
            Endpoint("versions", "/v1/files/{file}/versions", self.versions),
            Endpoint("components", "/v1/teams/{team}/components", self.components),
        ]

    def projects(self, call: Call) -> Page:
        """All at once."""
        self._team(call)
        items = list(call.account.dataset.of("projects").between())
        name = f"{call.account.name}'s team"
        rows = [figma_rows.project(call.account, item) for item in items]
        return Page(rows, lambda rows, _: Reply({"name": name, "projects": rows}))

    def files(self, call: Call) -> Page:
        """All at once."""
        path = call.account.find("projects", call.path("project"))
        if path is None:
            raise Refused(failed(call.endpoint, 404, "Not found"))
        project = figma_rows.project(call.account, call.account.dataset.of("projects")[path[0]])
        items = call.account.dataset.of("files", path).between()
        rows = [figma_rows.file(call.account, (*path, item.number), item) for item in items]
        return Page(rows, lambda rows, _: Reply({"name": project["name"], "files": rows}))

    def comments(self, call: Call) -> Page:
        """All at once, the newest first."""
        path = self._file(call)
        items = call.account.dataset.of("comments", path).between(descending=True)
        rows = [figma_rows.comment(call.account, (*path, item.number), item) for item in items]
        return Page(rows, lambda rows, _: Reply({"comments": rows}))

    def versions(self, call: Call) -> Page:
        """The newest first, so what it calls the previous page is older, and the next one newer.

        The URLs are whole, with spaces in them. The first page has a prev_page even if nothing is older, which then
        leads to the same versions again, without a prev_page: https://developers.figma.com/docs/rest-api/version-history-endpoints.
        """
        path = self._file(call)
        size = call.number("page_size", VERSIONS, least=1, most=MOST_VERSIONS)
        collection = call.account.dataset.of("versions", path)
        before, after = self._version(call, path, "before"), self._version(call, path, "after")
        numbers = collection.numbers()
        older = [number for number in numbers if before is None or number < before]
        if after is not None:
            found = [number for number in numbers if number > after][:size]
        elif before is not None and not older:
            found = list(numbers[:size])
        else:
            found = older[-size:]
        items = [collection[number] for number in reversed(found)]

        def link(direction: str, item: Item) -> str:
            at = datetime.fromtimestamp(item.created // SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            return (
                f"{call.base_url}/v1/files/{call.path('file')}/versions?page_size={size}&column=date"
                f"&secondary_column=default&{direction}={at}"
                f"&secondary_{direction}={figma_rows.version_id(call.account, (*path, item.number))}"
            )

        first = before is None and after is None
        more = bool(items) and (first or (bool(older) and items[-1].number > numbers[0]))

        def render(rows: list[Row], following: str | None) -> Reply:
            pagination = {} if following is None else {"prev_page": following}
            if items and not first:
                pagination["next_page"] = link("after", items[0])
            return Reply({"versions": rows, "pagination": pagination})

        return Page(
            [figma_rows.version(call.account, (*path, item.number), item) for item in items],
            render,
            next=link("before", items[-1]) if more else None,
            here=str(call.request.url),
        )

    def components(self, call: Call) -> Page:
        """In `meta`, with a number to go on from, which is not there on the last page."""
        self._team(call)
        size = call.number("page_size", COMPONENTS, least=1, most=MOST_COMPONENTS)
        after = call.number("after", 0)
        collection = call.account.dataset.of("components")
        found = [number for number in collection.numbers() if number >= after][: size + 1]
        rows = [figma_rows.component(call.account, collection[number]) for number in found[:size]]

        def render(rows: list[Row], following: str | None) -> Reply:
            cursor = {"before": after} if after else {}
            if following is not None:
                cursor["after"] = int(following)
            return Reply({"error": False, "status": 200, "meta": {"cursor": cursor, "components": rows}, "i18n": None})

        return Page(rows, render, next=str(found[size]) if len(found) > size else None, here=str(after))

    def model(self, name: str, limit: float) -> Quota:
        """Any minute."""
        del name
        return SlidingWindow(limit, 60, speed=self.speed)

    def authenticate(self, account: Account | None, request: web.Request) -> Account:
        """403 where the token is not good."""
        shape = BOOLEAN if request.path.endswith(BOOLEAN) else ""
        if account is None:
            account = self.accounts.of_access_token(request.headers.get("X-Figma-Token", ""))
        if account is None or account.grant.revoked:
            raise Refused(failed(shape, 403, "Invalid token"))
        if account.expired():
            raise Refused(failed(shape, 403, "Token expired"))
        return account

    def wanted(self, call: Call, rows: int, reply: Reply) -> Sequence[tuple[str, str, float]]:
        """Endpoints of a tier share its budget."""
        del rows, reply
        return [(TIERS[call.endpoint], call.account.name, 1)]

    def refusal(self, call: Call, name: str, verdict: Verdict, quota: Quota) -> Reply:
        """429; nothing is said of it before."""
        del name, quota
        reply = failed(call.endpoint, 429, "Rate limit exceeded")
        reply.headers = {
            "Retry-After": seconds(verdict.retry_after),
            "X-Figma-Plan-Tier": call.account.options["plan"],
            "X-Figma-Rate-Limit-Type": call.account.options["rate_limit_type"],
            "X-Figma-Upgrade-Link": PAYWALL,
        }
        return reply

    def error(self, status: int) -> Reply:
        """The shorter of its two forms."""
        return failed("", status, "Internal server error" if status >= 500 else "Rate limit exceeded")

    def token_path(self) -> str:
        """Not where the first token is had: https://developers.figma.com/docs/rest-api/authentication."""
        return "/v1/oauth/refresh"

    async def token(self, request: web.Request) -> web.Response:
        """The client says who it is by Basic authentication; the refresh token stays the same."""
        given = await parameters(request)
        account = self.accounts.of_refresh_token(str(given.get("refresh_token", "")))
        kind, _, pair = request.headers.get("Authorization", "").partition(" ")
        try:
            client = b64decode(pair).decode() if kind.lower() == "basic" else ""
        except ValueError:
            client = ""
        if account is None:
            return response(failed(BOOLEAN, 400, "Invalid refresh token"))
        if client != f"{account.client_id}:{account.client_secret}":
            return response(failed(BOOLEAN, 401, "Invalid client credentials"))
        grant = account.renew()
        lasts = int(account.token_seconds or 0)
        return response(Reply({"access_token": grant.access_token, "token_type": "bearer", "expires_in": lasts}))

    def new_tokens(self) -> tuple[str, str]:
        """As OAuth gives them."""
        return f"figu_{secrets.token_urlsafe(30)}", f"figur_{secrets.token_urlsafe(30)}"

    def options_of(self, ordinal: int) -> dict[str, Any]:
        """A team of its own."""
        return {
            "team_id": str(1_639_747_348_117_609_000 + ordinal),
            "plan": "pro",
            "rate_limit_type": "high",
        }

    def count(self, sizes: Mapping[str, int], kind: str, parents: Path) -> int:
        """The same in every parent."""
        del parents
        return sizes[kind]

    def id_of(self, account: Account, kind: str, path: Path) -> str:
        """`id`, or `key` of a file or component."""
        return figma_rows.id_of(account, kind, path)

    def path_of(self, account: Account, kind: str, text: str) -> Path | None:
        """The item of an id or key."""
        return figma_rows.path_of(account, kind, text)

    def happened(self, account: Account, kind: str, path: Path) -> None:
        """A version changes its file."""
        if kind == "versions":
            account.dataset.of("files", path[:1]).change(path[1], account.now_us())

    def _team(self, call: Call) -> None:
        if call.path("team") != call.account.options["team_id"]:
            raise Refused(failed(call.endpoint, 404, "Not found"))

    def _file(self, call: Call) -> Path:
        path = call.account.find("files", call.path("file"))
        if path is None:
            raise Refused(failed(call.endpoint, 404, "Not found"))
        return path

    def _version(self, call: Call, path: Path, direction: str) -> int | None:
        given = call.text(f"secondary_{direction}")
        if not given:
            return None
        found = figma_rows.path_of(call.account, "versions", given)
        if found is None or found[:-1] != path:
            raise Refused(failed(call.endpoint, 400, f"Invalid {direction}"))
        return found[-1]


def failed(endpoint: str, status: int, message: str) -> Reply:
    """An error, in the one or the other of Figma's forms."""
    if endpoint == BOOLEAN:
        return Reply({"error": True, "status": status, "message": message, "i18n": None}, status)
    return Reply({"status": status, "err": message}, status)
