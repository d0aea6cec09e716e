"""GitHub: repositories, issues with pull requests among them, and comments. https://docs.github.com/rest."""

from datetime import UTC, datetime, timedelta

from activities.connectors.judging import words
from activities.connectors.paging import LinkHeader
from activities.connectors.spec import (
    HOUR,
    Answer,
    Budget,
    Connector,
    Holder,
    Judgement,
    KeptBy,
    Meaning,
    OAuth,
    Observed,
    Request,
    Resource,
    Row,
    Settings,
    Since,
)
from activities.connectors.vendor_times import epoch, number, ours, retry_after, until

LIMITS = "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api"
SECONDARY_WAIT = timedelta(seconds=60)  # the least where the answer names no time


class Owner(Row):
    """Whose repository."""

    login: str


class Repository(Row):
    """https://docs.github.com/rest/repos/repos#list-repositories-for-the-authenticated-user."""

    id: int
    name: str
    full_name: str
    owner: Owner


class Issue(Row):
    """An issue, or a pull request, which has `pull_request`: https://docs.github.com/rest/issues/issues."""

    id: int
    number: int
    title: str
    state: str
    updated_at: datetime


class Comment(Row):
    """https://docs.github.com/rest/issues/comments."""

    id: int
    issue_url: str
    updated_at: datetime


def _since(request: Request, since: datetime, _settings: Settings) -> Request:
    return request.having(since=since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def _judge(answer: Answer) -> Judgement | None:
    """403 is a limit or a missing permission; only headers and words tell."""
    if answer.status not in {403, 429}:
        return None
    wait = retry_after(answer)
    if wait is not None:
        return Judgement(Meaning.THROTTLED, "secondary", words(answer), wait)
    reset = epoch(answer.headers.get("x-ratelimit-reset", ""))
    if number(answer.headers, "x-ratelimit-remaining") == 0 and reset is not None:
        return Judgement(Meaning.THROTTLED, "primary", words(answer), until(answer, reset))
    if answer.status == 429 or "secondary rate limit" in words(answer).lower():  # noqa: PLR2004 - too many requests
        return Judgement(Meaning.THROTTLED, "secondary", words(answer), SECONDARY_WAIT)
    return None


def _limits(answer: Answer) -> tuple[Observed, ...]:
    remaining, limit = number(answer.headers, "x-ratelimit-remaining"), number(answer.headers, "x-ratelimit-limit")
    reset = epoch(answer.headers.get("x-ratelimit-reset", ""))
    if remaining is None or reset is None or answer.headers.get("x-ratelimit-resource", "core") != "core":
        return ()
    return (Observed(remaining, ours(answer, reset), limit),)


OF_REPOSITORY = {"owner": "owner.login", "repo": "name"}
CHANGES = Since(_since)

GITHUB = Connector(
    name="github",
    host="https://api.github.com",
    base="",
    docs="https://docs.github.com/rest",
    auth=OAuth("https://github.com", "/login/oauth/access_token"),
    headers={"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"},
    budgets=(Budget("requests", 5_000, HOUR, LIMITS, Holder.CONNECTION, KeptBy.QUEUE),),
    judge=_judge,
    limits=_limits,
    resources=(
        Resource(
            "repositories",
            "/user/repos",
            Repository,
            LinkHeader("per_page"),
            params={"sort": "full_name"},
            omit=("temp_clone_token",),
        ),
        Resource(
            "issues",
            "/repos/{owner}/{repo}/issues",
            Issue,
            LinkHeader("per_page"),
            params={"state": "all", "sort": "updated", "direction": "asc"},
            since=CHANGES,
            updated="updated_at",
            parent="repositories",
            of_parent=OF_REPOSITORY,
        ),
        Resource(
            "comments",
            "/repos/{owner}/{repo}/issues/comments",
            Comment,
            LinkHeader("per_page"),
            # Its pages have numbers: one that changes meanwhile must move to where we have been, or another is missed.
            params={"sort": "updated", "direction": "desc"},
            since=CHANGES,
            updated="updated_at",
            parent="repositories",
            of_parent=OF_REPOSITORY,
        ),
    ),
)
