"""Jira's samples: offsets with and without a total, and tokens, in one product."""

from datetime import timedelta

from pydantic import JsonValue

from activities.connectors.engine import Parent
from activities.connectors.jira import FIELDS
from activities.connectors.spec import Meaning, Observed
from tests.connectors.sample import NOW, Exchange, Refusal, Reply, ResourceSample, VendorSample

BASE = "/ex/jira/5f3c9a/rest/api/3"
ISSUES = {"fields": FIELDS, "jql": 'updated >= "1970-01-01 00:00" ORDER BY updated ASC', "maxResults": "100"}


def _projects(start: int, keys: list[str], *, last: bool) -> Reply:
    rows: list[JsonValue] = [
        {"id": str(10_000 + start + place), "key": key, "name": key.title(), "style": "classic"}
        for place, key in enumerate(keys)
    ]
    return Reply(body={"startAt": start, "maxResults": 50, "total": 3, "isLast": last, "values": rows})


def _user(number: int) -> JsonValue:
    name = f"712020:{number:04}"
    return {"accountId": name, "accountType": "atlassian", "displayName": f"Person {number}", "active": number != 2}


def _issue(number: int) -> JsonValue:
    fields: JsonValue = {"summary": "Leak", "updated": f"2026-11-0{number}T10:00:00.000+0100", "labels": ["hull"]}
    return {"id": str(20_000 + number), "key": f"SAIL-{number}", "fields": fields}


def _comment(number: int) -> JsonValue:
    updated = "2026-11-01T08:00:00.000+0000"
    return {"id": str(number), "created": updated, "updated": updated, "body": {"type": "doc", "version": 1}}


def _comments(start: int, *numbers: int) -> Reply:
    rows = [_comment(each) for each in numbers]
    return Reply(body={"startAt": start, "maxResults": 100, "total": 3, "comments": rows})


def _limited(reason: str, **headers: str) -> Reply:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    body: JsonValue = {"errorMessages": ["Rate limit exceeded"], "errors": {}}
    return Reply(429, body, {"RateLimit-Reason": reason, "X-RateLimit-Remaining": "0", **told})


def _refused(status: int, *messages: str) -> Reply:
    return Reply(status, {"errorMessages": list(messages), "errors": {}})


VENDOR = VendorSample(
    settings={"cloud_id": "5f3c9a", "time_zone": "UTC"},
    headers={
        "X-RateLimit-Limit": "350",
        "X-RateLimit-Remaining": "349",
        "Beta-RateLimit-Policy": '"global-app-quota";q=65000;w=3600',
        "Beta-RateLimit": '"global-app-quota";r=9000;t=1800',
    },
    observed=(Observed(9000, NOW + timedelta(minutes=30), budget="points"),),
    resources={
        "projects": ResourceSample(
            (
                Exchange(
                    f"{BASE}/project/search",
                    {"orderBy": "key", "startAt": "0", "maxResults": "50"},
                    _projects(0, ["HULL", "MAST"], last=False),
                ),
                Exchange(
                    f"{BASE}/project/search",
                    {"orderBy": "key", "startAt": "2", "maxResults": "50"},
                    _projects(2, ["SAIL"], last=True),
                ),
            ),
            ids=("10000", "10001", "10002"),
        ),
        "users": ResourceSample(
            (
                Exchange(
                    f"{BASE}/users/search", {"startAt": "0", "maxResults": "100"}, Reply(body=[_user(1), _user(2)])
                ),
                Exchange(f"{BASE}/users/search", {"startAt": "2", "maxResults": "100"}, Reply(body=[_user(3)])),
                Exchange(f"{BASE}/users/search", {"startAt": "3", "maxResults": "100"}, Reply(body=[])),
            ),
            ids=("712020:0001", "712020:0002", "712020:0003"),
        ),
        "issues": ResourceSample(
            (
                Exchange(
                    f"{BASE}/search/jql",
                    ISSUES,
                    Reply(body={"issues": [_issue(1), _issue(2)], "nextPageToken": "Ch0jU3", "isLast": False}),
                ),
                Exchange(
                    f"{BASE}/search/jql",
                    {**ISSUES, "nextPageToken": "Ch0jU3"},
                    Reply(body={"issues": [_issue(3)], "isLast": True}),
                ),
            ),
            ids=("20001", "20002", "20003"),
            since={"jql": 'updated >= "2026-11-04 08:30" ORDER BY updated ASC'},
        ),
        "comments": ResourceSample(
            (
                Exchange(
                    f"{BASE}/issue/20001/comment",
                    {"orderBy": "created", "startAt": "0", "maxResults": "100"},
                    _comments(0, 1, 2),
                ),
                Exchange(
                    f"{BASE}/issue/20001/comment",
                    {"orderBy": "created", "startAt": "2", "maxResults": "100"},
                    _comments(2, 3),
                ),
            ),
            ids=("1", "2", "3"),
            parent=Parent("20001", {"id": "20001", "key": "SAIL-1", "fields": {}}),
        ),
    },
    refusals={
        "an endpoint's second": Refusal(
            _limited("jira-burst-based", Retry_After="1", X_RateLimit_Reset="2026-11-04T09:00:01Z"),
            Meaning.THROTTLED,
            "jira-burst-based",
            timedelta(seconds=1),
        ),
        "the app's hour": Refusal(
            _limited("jira-quota-global-based", Retry_After="1847", X_RateLimit_Reset="2026-11-04T09:30:47Z"),
            Meaning.THROTTLED,
            "jira-quota-global-based",
            timedelta(seconds=1847),
            "points",
        ),
        "the tenant's hour, by reset alone": Refusal(
            _limited("jira-quota-tenant-based", X_RateLimit_Reset="2026-11-04T10:00Z"),
            Meaning.THROTTLED,
            "jira-quota-tenant-based",
            timedelta(hours=1),
        ),
        "without a reason": Refusal(Reply(429, "Too many"), Meaning.THROTTLED, "http_429"),
        "an old page token": Refusal(
            _refused(400, "The provided next page token is invalid or has expired."),
            Meaning.GONE_CURSOR,
            "page_token",
        ),
        "a bad query": Refusal(_refused(400, "Error in the JQL Query"), Meaning.PERMANENT, "http_400"),
        "revoked": Refusal(Reply(401, {"code": 401, "message": "Unauthorized"}), Meaning.UNAUTHORIZED, "http_401"),
        "an issue that is gone": Refusal(_refused(404, "Issue does not exist"), Meaning.MISSING, "http_404"),
        "away, with a time": Refusal(
            Reply(503, "", {"Retry-After": "20"}), Meaning.OVERLOADED, "http_503", timedelta(seconds=20)
        ),
    },
)
