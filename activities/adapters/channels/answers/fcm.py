"""FCM HTTP v1: `error.details[]` decides, not the status alone.

https://firebase.google.com/docs/cloud-messaging/error-codes
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from activities.adapters.channels.answers.json_body import inner, mapping, text
from activities.adapters.channels.answers.retry_after import retry_after
from activities.adapters.channels.channel import Outcome, Verdict

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
UNSPECIFIED_TRIES = 5  # FCM gives no reason, so it is a dead letter after these
QUOTA_WAIT = timedelta(seconds=60)  # the project's bucket is refilled each minute
VERDICTS = {
    "UNREGISTERED": Verdict.DROP_TARGET,
    "SENDER_ID_MISMATCH": Verdict.DROP_TARGET,  # registered with another project
    "QUOTA_EXCEEDED": Verdict.RETRY,
    "UNAVAILABLE": Verdict.RETRY,
    "INTERNAL": Verdict.RETRY,
    "THIRD_PARTY_AUTH_ERROR": Verdict.AUTH,  # the APNs certificate or Web Push key on Firebase's side
    "INVALID_ARGUMENT": Verdict.FIX_OURS,
}
BY_STATUS = {401: Verdict.AUTH, 403: Verdict.AUTH, 404: Verdict.FIX_OURS, 429: Verdict.RETRY}


def judge(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime, project: str) -> Outcome:
    """What an answer to messages:send means."""
    scope = f"fcm:{project}"
    answer = mapping(body)
    if status == 200:
        name = text(answer, "name")
        if name:
            return Outcome(Verdict.SENT, "200", vendor_id=name)
        return Outcome(Verdict.MAYBE_SENT, "200", "FCM said 200 with a body that cannot be read")
    error = inner(answer, "error")
    message = text(error, "message")
    found = error.get("details")
    listed = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    details = {text(each, "@type"): each for each in listed}
    code = text(details.get(FCM_ERROR), "errorCode")
    if code == "INVALID_ARGUMENT" and BAD_REQUEST not in details and "registration token is not" in message:
        return Outcome(Verdict.DROP_TARGET, code, message)
    if code == "UNSPECIFIED_ERROR":
        return Outcome(Verdict.RETRY, code, message, at_most=UNSPECIFIED_TRIES)
    if code:
        verdict = VERDICTS.get(code, Verdict.FIX_OURS)
    else:
        verdict = Verdict.RETRY if status >= 500 else BY_STATUS.get(status, Verdict.FIX_OURS)
    asked = retry_after(headers, now)
    if verdict is Verdict.RETRY and (code == "QUOTA_EXCEEDED" or status == 429):
        asked = asked or QUOTA_WAIT
        if "device" in str(details.get(QUOTA_FAILURE, "")).lower():
            return Outcome(verdict, code or str(status), message, retry_after=asked)  # this device's own limit
    waits = verdict in {Verdict.RETRY, Verdict.AUTH}
    return Outcome(
        verdict,
        code or f"http_{status}",
        message,
        retry_after=asked if verdict is Verdict.RETRY else None,
        scope=scope if waits else None,
    )
