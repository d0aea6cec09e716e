"""GitHub's samples. A path changes after the first page, and the last page has no `next`."""

from datetime import timedelta

from pydantic import JsonValue

from activities.connectors.engine import Parent
from activities.connectors.spec import Meaning, Observed
from tests.connectors.sample import NOW, Exchange, Refusal, Reply, ResourceSample, VendorSample

REPOSITORY = Parent("41", {"id": 41, "name": "sails", "full_name": "harbour/sails", "owner": {"login": "harbour"}})
ISSUES = {"state": "all", "sort": "updated", "direction": "asc", "per_page": "100"}
COMMENTS = {"sort": "updated", "direction": "desc", "per_page": "100"}
RESET = NOW + timedelta(minutes=17)


def _repository(number: int, name: str) -> JsonValue:
    owner: JsonValue = {"login": "harbour", "id": 7}
    return {
        "id": number,
        "name": name,
        "full_name": f"harbour/{name}",
        "owner": owner,
        "private": True,
        "temp_clone_token": f"clone-{number}",
    }


def _issue(number: int, **more: JsonValue) -> JsonValue:
    updated = f"2026-11-0{number % 4 + 1}T10:00:00Z"
    return {"id": 900 + number, "number": number, "title": "Leak", "state": "open", "updated_at": updated, **more}


def _comment(number: int) -> JsonValue:
    about = "https://api.github.com/repos/harbour/sails/issues/1"
    return {"id": number, "issue_url": about, "updated_at": "2026-11-01T08:00:00Z", "body": "Sewn."}


def _linked(rows: list[JsonValue], link: str) -> Reply:
    return Reply(body=rows, headers={"Link": link} if link else {})


def _limited(status: int, message: str, **headers: str) -> Reply:
    body: JsonValue = {"message": message, "documentation_url": "https://docs.github.com/rest"}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


VENDOR = VendorSample(
    headers={
        "X-RateLimit-Limit": "5000",
        "X-RateLimit-Remaining": "4321",
        "X-RateLimit-Reset": str(int(RESET.timestamp())),
        "X-RateLimit-Resource": "core",
    },
    observed=(Observed(4321, RESET, 5000),),
    resources={
        "repositories": ResourceSample(
            (
                Exchange(
                    "/user/repos",
                    {"sort": "full_name", "per_page": "100"},
                    _linked(
                        [_repository(41, "sails"), _repository(42, "ropes")],
                        '<{host}/user/repos?per_page=100&page=2>; rel="next", '
                        '<{host}/user/repos?per_page=100&page=2>; rel="last"',
                    ),
                ),
                Exchange(
                    "/user/repos",
                    {"per_page": "100", "page": "2"},
                    _linked([_repository(43, "masts")], '<{host}/user/repos?per_page=100&page=1>; rel="prev"'),
                ),
            ),
            ids=("41", "42", "43"),
        ),
        "issues": ResourceSample(
            (
                Exchange(
                    "/repos/harbour/sails/issues",
                    ISSUES,
                    _linked(
                        [_issue(1), _issue(2, pull_request={"url": "https://api.github.com/pulls/2"})],
                        '<{host}/repositories/41/issues?state=all&after=Y3Vyc29y%3D&page=2>; rel="next"',
                    ),
                ),
                Exchange(
                    "/repositories/41/issues",
                    {"state": "all", "after": "Y3Vyc29y=", "page": "2"},
                    _linked([_issue(3)], '<{host}/repositories/41/issues?state=all&page=1>; rel="first"'),
                ),
            ),
            ids=("901", "902", "903"),
            parent=REPOSITORY,
            since={"since": "2026-11-04T08:30:15Z"},
        ),
        "comments": ResourceSample(
            (
                Exchange(
                    "/repos/harbour/sails/issues/comments",
                    COMMENTS,
                    _linked([_comment(11)], '<{host}/repositories/41/issues/comments?page=2>; rel="next"'),
                ),
                Exchange("/repositories/41/issues/comments", {"page": "2"}, _linked([_comment(12)], "")),
            ),
            ids=("11", "12"),
            parent=REPOSITORY,
            since={"since": "2026-11-04T08:30:15Z"},
        ),
    },
    refusals={
        "primary, by reset": Refusal(
            _limited(
                403,
                "API rate limit exceeded for user ID 7.",
                X_RateLimit_Remaining="0",
                X_RateLimit_Reset=str(int(RESET.timestamp())),
            ),
            Meaning.THROTTLED,
            "primary",
            timedelta(minutes=17),
        ),
        "secondary, by retry-after": Refusal(
            _limited(403, "You have exceeded a secondary rate limit.", Retry_After="90", X_RateLimit_Remaining="4000"),
            Meaning.THROTTLED,
            "secondary",
            timedelta(seconds=90),
        ),
        "secondary, by its words alone": Refusal(
            _limited(403, "You have exceeded a secondary rate limit."),
            Meaning.THROTTLED,
            "secondary",
            timedelta(seconds=60),
        ),
        "429": Refusal(_limited(429, "slow down"), Meaning.THROTTLED, "secondary", timedelta(seconds=60)),
        "no permission": Refusal(
            _limited(403, "Resource not accessible by integration", X_RateLimit_Remaining="4999"),
            Meaning.MISSING,
            "http_403",
        ),
        "issues are off": Refusal(_limited(410, "Issues are disabled for this repo"), Meaning.MISSING, "http_410"),
        "revoked": Refusal(_limited(401, "Bad credentials"), Meaning.UNAUTHORIZED, "http_401"),
        "unicorn": Refusal(Reply(502, "<html>Unicorn!</html>"), Meaning.OVERLOADED, "http_502"),
        "refused for good": Refusal(_limited(422, "Validation Failed"), Meaning.PERMANENT, "http_422"),
    },
)
