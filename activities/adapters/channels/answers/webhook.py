"""A receiver of webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md."""

from collections.abc import Mapping
from datetime import datetime

from activities.adapters.channels.answers.retry_after import retry_after
from activities.adapters.channels.channel import Outcome, Verdict


def judge(status: int, headers: Mapping[str, str], *, now: datetime, host: str, scope: str) -> Outcome:
    """2xx is taken, 410 asks to stop, 408, 409, 425, 429 and 5xx are tried again; anything else somebody must mend.

    `scope` is the limiter key: the one endpoint, since a host may serve many customers.
    """
    if 200 <= status < 300:
        return Outcome(Verdict.SENT, str(status))
    if status == 410:
        return Outcome(Verdict.DROP_TARGET, "410")
    if status in {408, 409, 425, 429} or status >= 500:
        return Outcome(Verdict.RETRY, str(status), retry_after=retry_after(headers, now), scope=scope)
    detail = f"the receiver {host} answers {status}; redirects are not followed"
    return Outcome(Verdict.FIX_OURS, str(status), detail)
