"""Figma's samples: lists without pages, and versions, whose older page is the previous one."""

from datetime import timedelta

from pydantic import JsonValue

from activities.connectors.engine import Parent
from activities.connectors.spec import Meaning
from tests.connectors.sample import Exchange, Refusal, Reply, ResourceSample, VendorSample

FILE = Parent("Fk1", {"key": "Fk1", "name": "Hull", "last_modified": "2026-11-01T08:00:00Z"}, "801")
OLDER = "/v1/files/Fk1/versions?page_size=50&column=date&before=2026-10-01 08:00:02 UTC&secondary_before=32"
NEWER = "/v1/files/Fk1/versions?page_size=50&column=date&after=2026-10-01 08:00:01 UTC&secondary_after=31"


def _file(key: str) -> JsonValue:
    thumbnail = f"https://images.example/{key}?signature=of-this-minute"
    return {"key": key, "name": "Hull", "last_modified": "2026-11-01T08:00:00Z", "thumbnail_url": thumbnail}


def _comment(number: int) -> JsonValue:
    return {"id": str(number), "message": "Wider", "created_at": "2026-11-01T08:00:00.500Z", "resolved_at": None}


def _version(number: int) -> JsonValue:
    created = f"2026-10-01T08:00:{number - 30:02}Z"
    return {"id": str(number), "created_at": created, "label": None, "thumbnail_url": "https://images.example/x?s=1"}


def _refused(status: int, message: str, **headers: str) -> Reply:
    return Reply(status, {"status": status, "err": message}, {n.replace("_", "-"): v for n, v in headers.items()})


VENDOR = VendorSample(
    settings={"team_id": "1639"},
    resources={
        "projects": ResourceSample(
            (
                Exchange(
                    "/v1/teams/1639/projects",
                    {},
                    Reply(body={"name": "Yard", "projects": [{"id": "801", "name": "A"}, {"id": "802", "name": "B"}]}),
                ),
            ),
            ids=("801", "802"),
        ),
        "files": ResourceSample(
            (Exchange("/v1/projects/801/files", {}, Reply(body={"name": "A", "files": [_file("Fk1"), _file("Fk2")]})),),
            ids=("Fk1", "Fk2"),
            parent=Parent("801", {"id": "801", "name": "A"}),
        ),
        "comments": ResourceSample(
            (Exchange("/v1/files/Fk1/comments", {}, Reply(body={"comments": [_comment(2), _comment(1)]})),),
            ids=("2", "1"),
            parent=FILE,
        ),
        "versions": ResourceSample(
            (
                Exchange(
                    "/v1/files/Fk1/versions",
                    {"page_size": "50"},
                    Reply(
                        body={"versions": [_version(33), _version(32)], "pagination": {"prev_page": "{host}" + OLDER}}
                    ),
                ),
                Exchange(
                    "/v1/files/Fk1/versions",
                    {
                        "page_size": "50",
                        "column": "date",
                        "before": "2026-10-01 08:00:02 UTC",
                        "secondary_before": "32",
                    },
                    Reply(body={"versions": [_version(31)], "pagination": {"next_page": "{host}" + NEWER}}),
                ),
            ),
            ids=("33", "32", "31"),
            parent=FILE,
        ),
    },
    refusals={
        "a minute's limit": Refusal(
            _refused(429, "Rate limit exceeded", Retry_After="17", X_Figma_Rate_Limit_Type="high"),
            Meaning.THROTTLED,
            "http_429",
            timedelta(seconds=17),
        ),
        "a month's limit": Refusal(
            _refused(429, "Rate limit exceeded", Retry_After="231890", X_Figma_Rate_Limit_Type="low"),
            Meaning.THROTTLED,
            "http_429",
            timedelta(days=2, hours=16, minutes=24, seconds=50),
        ),
        "without a time": Refusal(
            _refused(429, "Rate limit exceeded"), Meaning.THROTTLED, "http_429", timedelta(minutes=1)
        ),
        "an expired token": Refusal(_refused(403, "Token expired"), Meaning.UNAUTHORIZED, "http_403"),
        "a revoked token, in the other shape": Refusal(
            Reply(403, {"error": True, "status": 403, "message": "Invalid token", "i18n": None}),
            Meaning.UNAUTHORIZED,
            "http_403",
        ),
        "a team of others": Refusal(_refused(403, "File not exportable"), Meaning.MISSING, "http_403"),
        "not found": Refusal(_refused(404, "Not found"), Meaning.MISSING, "http_404"),
        "too much for it": Refusal(_refused(400, "Request timed out"), Meaning.OVERLOADED, "too_slow"),
        "its own error": Refusal(_refused(500, "Internal server error"), Meaning.OVERLOADED, "http_500"),
        "asked badly": Refusal(_refused(400, "Invalid parameter"), Meaning.PERMANENT, "http_400"),
    },
)
