"""Slack's samples: nearly every refusal is a 200, and an empty `next_cursor` is the end."""

from datetime import timedelta

from pydantic import JsonValue

from activities.connectors.engine import Parent
from activities.connectors.spec import Meaning
from tests.connectors.sample import Exchange, Refusal, Reply, ResourceSample, VendorSample

CHANNEL = Parent("C01", {"id": "C01", "name": "deck", "is_member": True})
THREAD = Parent("C01/1762160000.000100", {"ts": "1762160000.000100", "reply_count": 2}, "C01")
REPLIES = {"channel": "C01", "ts": "1762160000.000100", "limit": "200"}


def _listed(name: str, rows: list[JsonValue], cursor: str | None) -> Reply:
    body: dict[str, JsonValue] = {"ok": True, name: rows}
    if cursor is not None:
        body["response_metadata"] = {"next_cursor": cursor}
    return Reply(body=body)


def _channel(number: int) -> JsonValue:
    return {"id": f"C0{number}", "name": f"deck-{number}", "is_member": number == 1, "num_members": 3}


def _user(number: int) -> JsonValue:
    return {"id": f"U0{number}", "name": f"person-{number}", "deleted": number == 2, "profile": {"title": "Mate"}}


def _message(number: int) -> JsonValue:
    return {"type": "message", "user": "U01", "text": "Ahoy", "ts": f"17621600{number:02}.000100"}


def _refused(error: str, status: int = 200, **headers: str) -> Reply:
    return Reply(status, {"ok": False, "error": error}, {name.replace("_", "-"): v for name, v in headers.items()})


VENDOR = VendorSample(
    resources={
        "channels": ResourceSample(
            (
                Exchange(
                    "/api/conversations.list",
                    {"types": "public_channel", "limit": "200"},
                    _listed("channels", [_channel(1), _channel(2)], "dGVhbTpDMDM="),
                ),
                Exchange(
                    "/api/conversations.list",
                    {"types": "public_channel", "limit": "200", "cursor": "dGVhbTpDMDM="},
                    _listed("channels", [_channel(3)], ""),
                ),
            ),
            ids=("C01", "C02", "C03"),
        ),
        "users": ResourceSample(
            (
                Exchange("/api/users.list", {"limit": "200"}, _listed("members", [_user(1), _user(2)], "dXNlcjpVMDM=")),
                Exchange(
                    "/api/users.list", {"limit": "200", "cursor": "dXNlcjpVMDM="}, _listed("members", [_user(3)], "")
                ),
            ),
            ids=("U01", "U02", "U03"),
            deleted=("U02",),
        ),
        "messages": ResourceSample(
            (
                Exchange(
                    "/api/conversations.history",
                    {"channel": "C01", "limit": "200"},
                    _listed("messages", [_message(3), _message(2)], "bmV4dF90czox"),
                ),
                Exchange(
                    "/api/conversations.history",
                    {"channel": "C01", "limit": "200", "cursor": "bmV4dF90czox"},
                    _listed("messages", [_message(1)], None),
                ),
            ),
            ids=("C01/1762160003.000100", "C01/1762160002.000100", "C01/1762160001.000100"),
            parent=CHANNEL,
            since={"oldest": "1793781015.000000", "inclusive": "true"},
        ),
        "replies": ResourceSample(
            (
                Exchange(
                    "/api/conversations.replies", REPLIES, _listed("messages", [_message(0), _message(4)], "bmV4dA==")
                ),
                Exchange(
                    "/api/conversations.replies",
                    {**REPLIES, "cursor": "bmV4dA=="},
                    _listed("messages", [_message(5)], None),
                ),
            ),
            ids=tuple(f"C01/1762160000.000100/17621600{number:02}.000100" for number in (0, 4, 5)),
            parent=THREAD,
        ),
    },
    refusals={
        "429": Refusal(
            _refused("ratelimited", 429, Retry_After="30"), Meaning.THROTTLED, "http_429", timedelta(seconds=30)
        ),
        "429 as a 200": Refusal(_refused("ratelimited"), Meaning.THROTTLED, "ratelimited"),
        "429 as a 200, with a time": Refusal(
            _refused("rate_limited", Retry_After="5"), Meaning.THROTTLED, "rate_limited", timedelta(seconds=5)
        ),
        **{
            error: Refusal(_refused(error), Meaning.UNAUTHORIZED, error)
            for error in ("invalid_auth", "token_revoked", "token_expired", "account_inactive", "not_authed")
        },
        **{
            error: Refusal(_refused(error), Meaning.MISSING, error)
            for error in ("channel_not_found", "not_in_channel", "thread_not_found", "is_archived")
        },
        **{
            error: Refusal(_refused(error), Meaning.OVERLOADED, error)
            for error in ("internal_error", "fatal_error", "service_unavailable")
        },
        "an old cursor": Refusal(_refused("invalid_cursor"), Meaning.GONE_CURSOR, "invalid_cursor"),
        "a scope too few": Refusal(
            Reply(body={"ok": False, "error": "missing_scope", "needed": "channels:history"}),
            Meaning.PERMANENT,
            "missing_scope",
        ),
        "one we do not know": Refusal(_refused("a_new_error"), Meaning.PERMANENT, "a_new_error"),
        "no error at all": Refusal(Reply(body={"ok": False}), Meaning.PERMANENT, "not_ok"),
        "a page of its proxy": Refusal(Reply(503, "<html>Sorry</html>"), Meaning.OVERLOADED, "http_503"),
    },
)
