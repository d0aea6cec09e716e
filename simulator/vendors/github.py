"""GitHub's REST API: repositories, issues with pull requests among them, and comments. https://docs.github.com/rest.

Kinds: repos > issues, repos > comments (`comments` is their number per issue). An issue whose comment changes, changes.
Quotas, both per account: `primary` 5,000 an hour from the first request, `secondary` 900 points a minute.
"""

import base64
import math
import random
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import ClassVar
from urllib.parse import quote, urlencode

from aiohttp import web

from simulator.quota import FixedWindow, Quota, SlidingWindow, Verdict
from simulator.vendors import github_rows
from simulator.vendors.accounts import Account
from simulator.vendors.dataset import SECOND, Collection, Item, Order, Path
from simulator.vendors.exchange import Call, Page, Refused, Reply, Row, parameters
from simulator.vendors.vendor import Endpoint, Vendor, etag, response, seconds

DOCS = "https://docs.github.com/rest"
RATE_DOCS = "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api"
CURSOR = b"cursor:v2:\x92"
PER_PAGE, MOST_PER_PAGE = 30, 100
REFRESH_SECONDS = 15_897_600  # half a year


class GitHub(Vendor):
    """See the module."""

    name: ClassVar[str] = "github"
    tree: ClassVar[Mapping[str, str | None]] = {"repos": None, "issues": "repos", "comments": "repos"}
    sizes: ClassVar[Mapping[str, int]] = {"repos": 3, "issues": 40, "comments": 2}
    limits: ClassVar[Mapping[str, float]] = {"primary": 5_000, "secondary": 900}
    token_seconds: ClassVar[float | None] = 28_800

    def endpoints(self) -> Sequence[Endpoint]:
        """By path, and by the number of a repository, where the Link header leads to."""
        made = [Endpoint("repos", "/user/repos", self.repos)]
        for repository in ("/repos/{owner}/{repo}", "/repositories/{id}"):
            made += [
                Endpoint("comments", f"{repository}/issues/comments", self.comments),
                Endpoint("issue_comments", f"{repository}/issues/{{number}}/comments", self.issue_comments),
                Endpoint("issues", f"{repository}/issues", self.issues),
                Endpoint("pulls", f"{repository}/pulls", self.pulls),
            ]
        return made

    def repos(self, call: Call) -> Page:
        """https://docs.github.com/rest/repos/repos#list-repositories-for-the-authenticated-user."""
        order, descending = self._order(call, default="full_name")
        repos = call.account.dataset.of("repos")
        return self._numbered(
            call, "/user/repos", repos.numbers(order), descending=descending, row=self._repo(call, repos)
        )

    def issues(self, call: Call) -> Page:
        """https://docs.github.com/rest/issues/issues#list-repository-issues."""
        repo = self._repository(call)
        order, descending = self._order(call, default="created")
        since, state = self._since(call), call.text("state", "open")
        size, number = self._size(call)
        collection = call.account.dataset.of("issues", (repo.number,))
        after = self._after(call, repo)
        least = (since, -1) if order == "updated" else (-1, -1)
        most = None
        if after is not None and descending:
            most = (after[0], after[1] - 1)
        elif after is not None:
            least = max(least, (after[0], after[1] + 1))
        found = (
            item
            for item in collection.between(order, least=least, most=most, descending=descending)
            if item.updated >= since and state in {"all", github_rows.state(item)}
        )
        skipped = 0 if after is not None else (number - 1) * size
        items = list(islice(found, skipped, skipped + size + 1))
        page = items[:size]
        rows = [
            github_rows.issue(call, repo, item, self._comments_of(call.account, repo.number, item)) for item in page
        ]
        path = f"/repositories/{github_rows.repo_id(call.account, repo.number)}/issues"

        def link(item: Item | None, to: int) -> str:
            given = {name: value for name, value in call.params.items() if name not in {"after", "page"}}
            cursor = {} if item is None else {"after": cursor_of(call.account, repo.number, item, order)}
            return f"{call.base_url}{path}?{urlencode(given | cursor | {'page': str(to)}, quote_via=quote)}"

        return Page(
            rows,
            self._linked,
            next=link(page[-1], number + 1) if len(items) > size else None,
            here=str(call.request.url),
        )

    def comments(self, call: Call) -> Page:
        """https://docs.github.com/rest/issues/comments#list-issue-comments-for-a-repository."""
        repo = self._repository(call)
        order: Order = "updated" if call.text("sort") == "updated" else "created"
        descending = "sort" in call.params and call.text("direction") == "desc"
        collection = call.account.dataset.of("comments", (repo.number,))
        found = collection.since(self._since(call), order)
        path = f"/repositories/{github_rows.repo_id(call.account, repo.number)}/issues/comments"
        return self._numbered(call, path, found, descending=descending, row=self._comment(call, repo, collection))

    def issue_comments(self, call: Call) -> Page:
        """https://docs.github.com/rest/issues/comments#list-issue-comments."""
        repo = self._repository(call)
        number = call.number("number", int(call.path("number")) if call.path("number").isdigit() else 0) - 1
        if number not in call.account.dataset.of("issues", (repo.number,)):
            raise not_found()
        collection = call.account.dataset.of("comments", (repo.number,))
        since = self._since(call)
        found = [
            each for each in self._numbers_of(call.account, repo.number, number) if collection[each].updated >= since
        ]
        path = f"/repositories/{github_rows.repo_id(call.account, repo.number)}/issues/{number + 1}/comments"
        return self._numbered(call, path, found, row=self._comment(call, repo, collection))

    def pulls(self, call: Call) -> Page:
        """https://docs.github.com/rest/pulls/pulls#list-pull-requests."""
        repo = self._repository(call)
        order, descending = self._order(call, default="created")
        state = call.text("state", "open")
        collection = call.account.dataset.of("issues", (repo.number,))
        found = [
            number
            for number in collection.numbers(order)
            if github_rows.is_pull(number) and state in {"all", github_rows.state(collection[number])}
        ]
        path = f"/repositories/{github_rows.repo_id(call.account, repo.number)}/pulls"

        def row(number: int) -> Row:
            return github_rows.pull(call, repo, collection[number])

        return self._numbered(call, path, found, descending=descending, row=row)

    def model(self, name: str, limit: float) -> Quota:
        """An hour from the first request, and any minute."""
        if name == "primary":
            return FixedWindow(limit, 3600, speed=self.speed)
        return SlidingWindow(limit, 60, speed=self.speed)

    def authenticate(self, account: Account | None, request: web.Request) -> Account:
        """401 where the token is not good."""
        del request
        if account is None or account.grant.revoked or account.expired():
            raise Refused(refused(401, "Bad credentials"))
        return account

    def wanted(self, call: Call, rows: int, reply: Reply) -> Sequence[tuple[str, str, float]]:
        """What has not changed since the client's ETag costs nothing of the primary quota."""
        del rows
        if reply.status == 200:
            reply.headers["ETag"] = etag(reply.body)
            if call.request.headers.get("If-None-Match") == reply.headers["ETag"]:
                reply.status, reply.body = 304, None
        primary = 0 if reply.status == 304 else 1
        return [("secondary", call.account.name, 1), ("primary", call.account.name, primary)]

    def refusal(self, call: Call, name: str, verdict: Verdict, quota: Quota) -> Reply:
        """403 for both, which only headers and words tell apart."""
        del quota
        if name == "primary":
            user = github_rows.user_id(call.account)
            return refused(403, f"API rate limit exceeded for user ID {user}.", f"{RATE_DOCS}#primary-rate-limit")
        message = (
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. "
            "For more on scraping GitHub and how it may affect your rights, please review our Terms of Service "
            "(https://docs.github.com/en/site-policy/github-terms/github-terms-of-service)"
        )
        reply = refused(403, message, f"{RATE_DOCS}#about-secondary-rate-limits")
        reply.headers["Retry-After"] = seconds(verdict.retry_after)
        return reply

    def limit_headers(self, call: Call, verdicts: Mapping[str, tuple[Quota, Verdict]]) -> dict[str, str]:
        """On every answer; reset is in seconds of the epoch."""
        del call
        quota, verdict = verdicts["primary"]
        remaining = math.floor(verdict.remaining)
        return {
            "X-GitHub-Media-Type": "github.v3; format=json",
            "X-RateLimit-Limit": str(int(quota.limit)),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(math.ceil(verdict.reset_at)),
            "X-RateLimit-Used": str(int(quota.limit) - remaining),
            "X-RateLimit-Resource": "core",
        }

    def error(self, status: int) -> Reply:
        """As its front door has it."""
        return Reply({"message": "Server Error"}, status)

    def token_path(self) -> str:
        """https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/refreshing-user-access-tokens."""
        return "/login/oauth/access_token"

    async def token(self, request: web.Request) -> web.Response:
        """Errors are answered with 200; without `Accept: application/json` all is a form."""
        given = await parameters(request)
        account = self.accounts.of_refresh_token(str(given.get("refresh_token", "")))
        if account is None or given.get("grant_type") != "refresh_token":
            body: Row = {
                "error": "bad_refresh_token",
                "error_description": "The refresh token passed is incorrect or expired.",
                "error_uri": "https://docs.github.com",
            }
        elif (given.get("client_id"), given.get("client_secret")) != (account.client_id, account.client_secret):
            body = {
                "error": "incorrect_client_credentials",
                "error_description": "The client_id and/or client_secret passed are incorrect.",
                "error_uri": "https://docs.github.com",
            }
        else:
            grant = account.rotate()
            body = {
                "access_token": grant.access_token,
                "expires_in": int(account.token_seconds or 0),
                "refresh_token": grant.refresh_token,
                "refresh_token_expires_in": REFRESH_SECONDS,
                "scope": "",
                "token_type": "bearer",
            }
        if "json" in request.headers.get("Accept", ""):
            return response(Reply(body))
        return response(Reply(text=urlencode(body), content_type="application/x-www-form-urlencoded"))

    def new_tokens(self) -> tuple[str, str]:
        """User access tokens of a GitHub App."""
        return f"ghu_{secrets.token_hex(18)}", f"ghr_{secrets.token_hex(38)}"

    def count(self, sizes: Mapping[str, int], kind: str, parents: Path) -> int:
        """Comments are counted per issue and kept per repository."""
        del parents
        return sizes["issues"] * sizes["comments"] if kind == "comments" else sizes[kind]

    def id_of(self, account: Account, kind: str, path: Path) -> str:
        """The number that is `id`."""
        return str(github_rows.repo_id(account, path[0]) if kind == "repos" else github_rows.item_id(account, path))

    def path_of(self, account: Account, kind: str, text: str) -> Path | None:
        """A repository also by its full name."""
        if kind == "repos":
            owner, _, name = text.rpartition("/")
            if owner == github_rows.login(account):
                return github_rows.repo_path(name)
            return (int(text) - github_rows.repo_id(account, 0),) if text.isdigit() else None
        return github_rows.item_path(account, int(text)) if text.isdigit() else None

    def about(self, account: Account, kind: str, parents: Path, dice: random.Random) -> int | None:
        """A comment belongs to an issue."""
        if kind != "comments":
            return None
        return next(iter(account.dataset.of("issues", parents).sample(1, dice)), None)

    def happened(self, account: Account, kind: str, path: Path) -> None:
        """A comment changes its issue."""
        if kind == "comments":
            comment = account.dataset.of("comments", path[:1])[path[1]]
            issue, issues = self._issue_of(account, comment), account.dataset.of("issues", path[:1])
            if issue in issues:
                issues.change(issue, account.now_us())

    def deleted(self, account: Account, kind: str, path: Path) -> None:
        """The comments go with their issue."""
        if kind == "issues":
            comments = account.dataset.of("comments", path[:1])
            for number in self._numbers_of(account, *path):
                comments.delete(number)

    def _issue_of(self, account: Account, comment: Item) -> int:
        per_issue = max(account.dataset.sizes["comments"], 1)
        return comment.number // per_issue if comment.about is None else comment.about

    def _numbers_of(self, account: Account, repo: int, issue: int) -> list[int]:
        comments, per_issue = account.dataset.of("comments", (repo,)), account.dataset.sizes["comments"]
        from_the_beginning = range(issue * per_issue, (issue + 1) * per_issue)
        known = from_the_beginning if issue < account.dataset.sizes["issues"] else ()
        return [number for number in known if number in comments] + comments.about(issue)

    def _comments_of(self, account: Account, repo: int, issue: Item) -> int:
        return len(self._numbers_of(account, repo, issue.number))

    def _repository(self, call: Call) -> Item:
        match = call.request.match_info
        text = match["id"] if "id" in match else f"{match['owner']}/{match['repo']}"
        path = call.account.find("repos", text)
        if path is None:
            raise not_found()
        return call.account.dataset.of("repos")[path[0]]

    def _repo(self, call: Call, repos: Collection) -> Callable[[int], Row]:
        return lambda number: github_rows.repo(call, repos[number], permissions=True)

    def _comment(self, call: Call, repo: Item, comments: Collection) -> Callable[[int], Row]:
        def row(number: int) -> Row:
            item = comments[number]
            return github_rows.comment(call, repo, self._issue_of(call.account, item), item)

        return row

    def _order(self, call: Call, *, default: str) -> tuple[Order, bool]:
        sort = call.text("sort", default)
        by_name = sort == "full_name"
        descending = call.text("direction", "asc" if by_name else "desc") == "desc"
        return ("updated" if sort in {"updated", "pushed"} else "created"), descending

    def _since(self, call: Call) -> int:
        given = call.text("since")
        if not given:
            return -1
        try:
            return int(datetime.fromisoformat(given).astimezone(UTC).timestamp()) * SECOND
        except ValueError as error:
            raise Refused(refused(422, "Validation Failed")) from error

    def _size(self, call: Call) -> tuple[int, int]:
        return call.number("per_page", PER_PAGE, least=1, most=MOST_PER_PAGE), call.number("page", 1, least=1)

    def _after(self, call: Call, repo: Item) -> tuple[int, int] | None:
        given = call.text("after")
        if not given:
            return None
        place = place_of(given)
        path = None if place is None else github_rows.item_path(call.account, place[1])
        if place is None or path is None or path[0] != repo.number:
            raise Refused(refused(422, "The cursor is invalid"))
        return place[0], path[1]

    def _numbered(
        self,
        call: Call,
        path: str,
        numbers: Sequence[int],
        *,
        row: Callable[[int], Row],
        descending: bool = False,
    ) -> Page:
        size, page = self._size(call)
        last = max(1, math.ceil(len(numbers) / size))
        start, stop = (page - 1) * size, page * size
        if descending:
            wanted = [numbers[len(numbers) - 1 - place] for place in range(start, min(stop, len(numbers)))]
        else:
            wanted = list(numbers[start:stop])
        given = {name: value for name, value in call.params.items() if name != "page"}

        def link(to: int) -> str:
            return f"{call.base_url}{path}?{urlencode(given | {'page': str(to)}, quote_via=quote)}"

        def render(rows: list[Row], following: str | None) -> Reply:
            links = {"prev": link(page - 1)} if page > 1 else {}
            if following is not None:
                links |= {"next": following, "last": link(last)}
            if page > 1:
                links["first"] = link(1)
            return linked(rows, links)

        following = link(page + 1) if page < last else None
        return Page([row(number) for number in wanted], render, next=following, here=link(page))

    def _linked(self, rows: list[Row], following: str | None) -> Reply:
        return linked(rows, {} if following is None else {"next": following})


def linked(rows: list[Row], links: Mapping[str, str]) -> Reply:
    """A bare array, with the other pages in the Link header."""
    header = ", ".join(f'<{url}>; rel="{name}"' for name, url in links.items())
    return Reply(rows, headers={"Link": header} if header else {})


def refused(status: int, message: str, docs: str = DOCS) -> Reply:
    """GitHub's error."""
    return Reply({"message": message, "documentation_url": docs, "status": str(status)}, status)


def not_found() -> Refused:
    """What is not there, or not for this token."""
    return Refused(refused(404, "Not Found"))


def cursor_of(account: Account, repo: int, item: Item, order: Order) -> str:
    """Where a page of issues ended: two unsigned numbers in MessagePack, as GitHub has them."""
    numbers = (item.time(order), github_rows.item_id(account, (repo, item.number)))
    packed = b"".join(b"\xcf" + struct.pack(">Q", number) for number in numbers)
    return base64.b64encode(CURSOR + packed).decode()


def place_of(cursor: str) -> tuple[int, int] | None:
    """The time and identifier in a cursor, None where it is none."""
    try:
        packed = base64.b64decode(cursor, validate=True)
        return struct.unpack(">xQxQ", packed.removeprefix(CURSOR))
    except (ValueError, struct.error):
        return None
