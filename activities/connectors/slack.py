"""Slack: public channels, users, and what is said in the channels that the app was invited to. https://docs.slack.dev/reference/methods."""

from datetime import UTC, datetime, timedelta

from activities.connectors.paging import TokenInBody
from activities.connectors.spec import (
    MINUTE,
    PARENT,
    Answer,
    Budget,
    Connector,
    Judgement,
    Meaning,
    OAuth,
    Request,
    Resource,
    Row,
    Settings,
    Since,
)
from activities.connectors.vendor_times import retry_after

LIMITS = "https://docs.slack.dev/apis/web-api/rate-limits"
PAGES = TokenInBody("cursor", "response_metadata.next_cursor", "limit", 200)
MAX_CODE = 60
MEANINGS = {
    **dict.fromkeys(("ratelimited", "rate_limited"), Meaning.THROTTLED),
    **dict.fromkeys(
        ("invalid_auth", "token_revoked", "token_expired", "account_inactive", "not_authed"), Meaning.UNAUTHORIZED
    ),
    **dict.fromkeys(
        (
            "channel_not_found",
            "not_in_channel",
            "is_archived",
            "thread_not_found",
            "message_not_found",
            "method_not_supported_for_channel_type",
        ),
        Meaning.MISSING,
    ),
    **dict.fromkeys(("internal_error", "fatal_error", "service_unavailable", "request_timeout"), Meaning.OVERLOADED),
    "invalid_cursor": Meaning.GONE_CURSOR,
}


class Channel(Row):
    """https://docs.slack.dev/reference/objects/conversation-object."""

    id: str
    name: str


class User(Row):
    """https://docs.slack.dev/reference/objects/user-object."""

    id: str
    name: str


class Message(Row):
    """https://docs.slack.dev/reference/events/message."""

    ts: str


def _since(request: Request, since: datetime, _settings: Settings) -> Request:
    return request.having(oldest=f"{since.astimezone(UTC).timestamp():.6f}", inclusive="true")


def _judge(answer: Answer) -> Judgement | None:
    """All but 429 and the vendor's own errors are a 200 with `"ok": false`."""
    if answer.status != 200 or answer.find("ok") is not False:  # noqa: PLR2004 - ok
        return None
    code = answer.said("error")[:MAX_CODE] or "not_ok"
    needed = answer.said("needed")
    detail = f"the app lacks the scope {needed}" if needed else ""
    return Judgement(MEANINGS.get(code, Meaning.PERMANENT), code, detail, retry_after(answer))


def _per_minute(method: str, limit: int) -> tuple[Budget, ...]:
    """For apps of the Marketplace and a customer's own ones. Others have 1 a minute for messages and replies."""
    return (Budget(method, limit, MINUTE, LIMITS),)


SLACK = Connector(
    name="slack",
    host="https://slack.com",
    base="/api",
    docs="https://docs.slack.dev/reference/methods",
    auth=OAuth("https://slack.com", "/api/oauth.v2.access"),
    budgets=(),
    judge=_judge,
    resources=(
        Resource(
            "channels",
            "/conversations.list",
            Channel,
            PAGES,
            items="channels",
            params={"types": "public_channel"},
            budgets=_per_minute("conversations.list", 20),
        ),
        Resource(
            "users",
            "/users.list",
            User,
            PAGES,
            items="members",
            deleted=lambda row: row.get("deleted") is True,
            budgets=_per_minute("users.list", 20),
        ),
        Resource(
            "messages",
            "/conversations.history",
            Message,
            PAGES,
            row_id="ts",
            id_in_parent=True,
            items="messages",
            params={"channel": "{channel}"},
            # A message that is edited keeps its place: edits of the last day are found, and older ones in full passes.
            since=Since(_since, overlap=timedelta(days=1)),
            parent="channels",
            of_parent={"channel": "id"},
            visit=lambda row: row.get("is_member") is True,
            budgets=_per_minute("conversations.history", 50),
        ),
        Resource(
            "replies",  # the first is the message itself, as Slack has it
            "/conversations.replies",
            Message,
            PAGES,
            row_id="ts",
            id_in_parent=True,
            items="messages",
            params={"channel": "{channel}", "ts": "{ts}"},
            parent="messages",
            of_parent={"channel": PARENT, "ts": "ts"},
            visit=lambda row: bool(row.get("reply_count")),
            changed=True,
            budgets=_per_minute("conversations.replies", 50),
        ),
    ),
)
