"""What an answer means where a vendor has no rule of its own: https://www.rfc-editor.org/rfc/rfc9110#name-status-codes."""

from activities.connectors.spec import OK, Answer, Connector, Judgement, Meaning
from activities.connectors.vendor_times import retry_after

THROTTLES = frozenset({420, 429})
MISSING = frozenset({403, 404, 410, 451})
TIMEOUTS = frozenset({408, 425})
SAYS = ("message", "error_description", "error.message", "err", "error", "detail", "errorMessages")
MAX_WORDS = 300


def judge(connector: Connector, answer: Answer) -> Judgement:
    """What it means, by the connector's rule or the usual ones."""
    return connector.judge(answer) or usual(answer)


def usual(answer: Answer) -> Judgement:
    """By status. An OK answer that asks to wait is a wish to be asked less."""
    wait = retry_after(answer)
    if answer.status in range(200, 300):
        return OK if wait is None else Judgement(Meaning.OK, "slow_down", wait=wait)
    code, detail = f"http_{answer.status}", words(answer)
    if answer.status in THROTTLES:
        return Judgement(Meaning.THROTTLED, code, detail, wait)
    if answer.status in TIMEOUTS or answer.status >= 500:  # noqa: PLR2004 - the vendor's own errors
        return Judgement(Meaning.OVERLOADED, code, detail, wait)
    if answer.status == 401:  # noqa: PLR2004 - unauthorized
        return Judgement(Meaning.UNAUTHORIZED, code, detail)
    if answer.status in MISSING:
        return Judgement(Meaning.MISSING, code, detail)
    return Judgement(Meaning.PERMANENT, code, detail)


def words(answer: Answer) -> str:
    """What the vendor says, for people."""
    for path in SAYS:
        found = answer.find(path)
        if found and not isinstance(found, dict | bool):
            return str(found)[:MAX_WORDS]
    return answer.content[:MAX_WORDS].decode(errors="replace").strip()
