"""Web Push: https://www.rfc-editor.org/rfc/rfc8030#section-5, https://mozilla-push-service.readthedocs.io/en/latest/errors/."""

from collections.abc import Mapping
from datetime import datetime

from activities.adapters.channels.answers.json_body import mapping
from activities.adapters.channels.answers.retry_after import retry_after
from activities.adapters.channels.channel import Outcome, Verdict

SENT = frozenset({200, 201, 202})
GONE = frozenset({404, 410})
MOVED = frozenset({301, 308})  # the subscription lives on under another URL
REFUSED = frozenset({401, 403})


def judge(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime, host: str, key_works: bool
) -> Outcome:
    """What a push service's answer means.

    Args:
        status: of the answer.
        headers: of the answer, names in lower case.
        body: of the answer.
        now: for Retry-After dates.
        host: the service, which is the limiter key.
        key_works: whether the service took another message of ours lately. Then a 403 is about this subscription,
            which was made with another VAPID key.
    """
    scope = f"web_push:{host}"
    code = _code(status, body)
    if status in SENT:
        return Outcome(Verdict.SENT, code, vendor_id=headers.get("location"))
    if status in GONE or (status == 403 and key_works):
        return Outcome(Verdict.DROP_TARGET, code)
    if status in MOVED and headers.get("location"):
        return Outcome(Verdict.RETRY, code, moved_to=headers["location"])
    if status in REFUSED:
        detail = f"{host} refuses our VAPID signature; check the keys, or whether they were changed"
        return Outcome(Verdict.AUTH, code, detail, scope=scope)
    if status == 429 or status >= 500:
        return Outcome(Verdict.RETRY, code, retry_after=retry_after(headers, now), scope=scope)
    return Outcome(Verdict.FIX_OURS, code, f"{host} refuses the message with HTTP {status}")


def _code(status: int, body: bytes) -> str:
    errno = (mapping(body) or {}).get("errno")
    return f"{status} errno {errno}" if isinstance(errno, int) else str(status)
