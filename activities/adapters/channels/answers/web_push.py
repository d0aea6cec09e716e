"""Web Push: https://www.rfc-editor.org/rfc/rfc8030#section-5, https://mozilla-push-service.readthedocs.io/en/latest/errors/."""

import json
from collections.abc import Mapping
from datetime import datetime

from activities.adapters.channels.answers.retry_after import retry_after
from activities.adapters.channels.channel import Outcome, Verdict

SENT = frozenset({200, 201, 202})
GONE = frozenset({404, 410})
REFUSED = frozenset({401, 403})  # a 403 for one subscription alone means that it was made with another key


def judge(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime, host: str) -> Outcome:
    """What a push service's answer means; `host` is the service, which is the limiter key."""
    scope = f"web_push:{host}"
    code = _code(status, body)
    if status in SENT:
        return Outcome(Verdict.SENT, code, vendor_id=headers.get("location"))
    if status in GONE:
        return Outcome(Verdict.DROP_TARGET, code)
    if status in REFUSED:
        detail = f"{host} refuses our VAPID signature; check the keys, or whether they were changed"
        return Outcome(Verdict.AUTH, code, detail, scope=scope)
    if status == 429 or status >= 500:
        return Outcome(Verdict.RETRY, code, retry_after=retry_after(headers, now), scope=scope)
    return Outcome(Verdict.FIX_OURS, code, f"{host} refuses the message with HTTP {status}")


def _code(status: int, body: bytes) -> str:
    try:
        return f"{status} errno {json.loads(body)['errno']}"
    except (ValueError, KeyError, TypeError):
        return str(status)
