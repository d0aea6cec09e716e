"""Slack answers 200 to almost everything; `error` says what it means.

https://docs.slack.dev/reference/methods/chat.postMessage#errors, https://docs.slack.dev/apis/web-api/rate-limits
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from activities.adapters.channels.answers.json_body import inner, mapping, text
from activities.adapters.channels.answers.retry_after import retry_after
from activities.adapters.channels.channel import Outcome, Verdict

HOURS = timedelta(hours=1)
LIMITED = frozenset({"ratelimited", "rate_limited"})
RETRY = frozenset(
    {"service_unavailable", "request_timeout", "team_added_to_org", "org_login_required", "message_limit_exceeded"}
)
MAYBE_SENT = frozenset({"fatal_error", "internal_error"})  # "some aspect of the operation may have succeeded"
DROP = frozenset(
    {
        "channel_not_found",
        "is_archived",
        "not_in_channel",
        "messages_tab_disabled",
        "ekm_access_denied",
        "user_not_found",
    }
)
AUTH = frozenset(
    {
        "account_inactive",
        "token_revoked",
        "token_expired",
        "invalid_auth",
        "not_authed",
        "app_access_restricted",
        "two_factor_setup_required",
        "missing_scope",
        "no_permission",
        "not_allowed_token_type",
        "accesslimited",
        "access_denied",
    }
)


def judge(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime, workspace: str, channel: str
) -> Outcome:
    """What an answer to chat.postMessage means. A limit is the channel's; anything else that waits, the workspace's."""
    whole, one = f"slack:{workspace}", f"slack:{workspace}:{channel}"
    asked = retry_after(headers, now)
    if status == 429:
        return Outcome(Verdict.RETRY, "429 ratelimited", retry_after=asked or timedelta(seconds=1), scope=one)
    answer = mapping(body)
    if answer is None:
        detail = f"HTTP {status}, and a body that is no JSON"
        if status < 300:
            return Outcome(Verdict.MAYBE_SENT, f"http_{status}", detail)
        return Outcome(Verdict.RETRY, f"http_{status}", detail, retry_after=asked, scope=whole)
    error = text(answer, "error")
    if answer.get("ok") is True:
        return Outcome(Verdict.SENT, "ok", vendor_id=text(answer, "ts"))
    if error in LIMITED:
        return Outcome(Verdict.RETRY, error, retry_after=asked or timedelta(seconds=1), scope=one)
    if error == "message_limit_exceeded":
        return Outcome(Verdict.RETRY, error, retry_after=HOURS, scope=whole)
    if error in RETRY:
        return Outcome(Verdict.RETRY, error, retry_after=asked, scope=whole)
    if error in MAYBE_SENT:
        return Outcome(Verdict.MAYBE_SENT, error)
    if error in DROP or error.startswith("restricted_action"):
        return Outcome(Verdict.DROP_TARGET, error)
    needed = f"; needed: {answer['needed']}" if answer.get("needed") else ""
    if error in AUTH:
        return Outcome(Verdict.AUTH, error, f"Slack refuses the token: {error}{needed}", scope=whole)
    if status >= 500:
        return Outcome(Verdict.RETRY, error or f"http_{status}", retry_after=asked, scope=whole)
    said = inner(answer, "response_metadata").get("messages", "")
    return Outcome(Verdict.FIX_OURS, error or f"http_{status}", f"Slack refuses the message: {error} {said}".strip())
