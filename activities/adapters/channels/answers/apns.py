"""APNs: a status and `{"reason": …}`.

https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from activities.adapters.channels.answers.json_body import mapping, text
from activities.adapters.channels.answers.retry_after import retry_after
from activities.adapters.channels.channel import Outcome, Verdict

DEAD = frozenset({"Unregistered", "ExpiredToken"})
AUTH = frozenset(
    {
        "ExpiredProviderToken",
        "InvalidProviderToken",
        "MissingProviderToken",
        "BadCertificate",
        "BadCertificateEnvironment",
        "Forbidden",
    }
)
TOKEN_WAIT = timedelta(seconds=30)  # one device got too many
CHURN_WAIT = timedelta(minutes=20)  # a provider token may change this often


def judge(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime, topic: str, same_environment: bool
) -> Outcome:
    """What an answer to POST /3/device/{token} means.

    Args:
        status: of the answer.
        headers: of the answer, names in lower case.
        body: of the answer.
        now: for Retry-After dates.
        topic: the app, for the limiter key.
        same_environment: whether the token was registered for the environment that was asked. If not, a token that is
            not known there says nothing about the token.
    """
    scope = f"apns:{topic}"
    if status == 200:
        return Outcome(Verdict.SENT, "200", vendor_id=headers.get("apns-id"))
    answer = mapping(body)
    reason = text(answer, "reason") or f"http_{status}"
    asked = retry_after(headers, now)
    if status == 410 or reason in DEAD:
        return Outcome(Verdict.DROP_TARGET, reason, dead_since=_moment((answer or {}).get("timestamp")))
    if reason == "BadDeviceToken":
        if same_environment:
            return Outcome(Verdict.DROP_TARGET, reason)
        detail = "the token belongs to the other environment: check HOLDFAST_APNS_ENVIRONMENT"
        return Outcome(Verdict.FIX_OURS, reason, detail)
    if reason == "TooManyProviderTokenUpdates":
        return Outcome(Verdict.RETRY, reason, retry_after=asked or CHURN_WAIT, scope=scope)
    if status == 429:
        return Outcome(Verdict.RETRY, reason, retry_after=asked or TOKEN_WAIT)
    if reason in AUTH or status == 403:
        detail = f"Apple refuses our provider token: {reason}; check the key, key id and team id"
        return Outcome(Verdict.AUTH, reason, detail, scope=scope)
    if reason == "IdleTimeout" or status >= 500:
        return Outcome(Verdict.RETRY, reason, retry_after=asked, scope=scope)
    return Outcome(Verdict.FIX_OURS, reason, f"Apple refuses the request: {status} {reason}")


def _moment(milliseconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
