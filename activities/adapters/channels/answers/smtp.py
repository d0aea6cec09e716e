"""SMTP replies. The enhanced code (RFC 3463) overrides the bare one.

https://www.iana.org/assignments/smtp-enhanced-status-codes/smtp-enhanced-status-codes.xhtml
https://www.rfc-editor.org/rfc/rfc5321#section-4.2
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from activities.adapters.channels.channel import Outcome, Verdict

NO_CASE = re.IGNORECASE
ENHANCED = re.compile(r"^\s*([245])\.(\d{1,3})\.(\d{1,3})\b")
FULL = re.compile(
    r"quota|mailbox (is )?full|storage (allocation|limit)|over ?quota|insufficient (disk )?(space|storage)",
    NO_CASE,
)
TOO_BIG = re.compile(r"message (size|is too (big|large))|size limit|too large|exceeds.*(size|limit)", NO_CASE)
SPAM = re.compile(r"spam|block(ed|list)|blacklist|reputation|policy|spf|dkim|dmarc|reverse dns|ptr record", NO_CASE)
UNKNOWN_MAILBOX = re.compile(
    r"user (is )?unknown|unknown (user|recipient|mailbox)|no such (user|recipient|mailbox)|(does not|doesn't) exist"
    r"|mailbox (unavailable|not found)|recipient (address )?rejected: user|invalid (mailbox|recipient)",
    NO_CASE,
)
GREYLIST_WAIT = timedelta(minutes=5)  # common greylists accept after 5 min
MAILBOX_WAIT = timedelta(minutes=15)


class Waits(Enum):
    """Who has to wait: the relay, one recipient's domain, or the one mailbox."""

    RELAY = "relay"
    DOMAIN = "domain"
    MAILBOX = "mailbox"


@dataclass(frozen=True, slots=True)
class Row:
    """What a code means."""

    verdict: Verdict
    waits: Waits = Waits.RELAY
    after: timedelta | None = None
    soft_bounce: bool = False


RETRY_RELAY = Row(Verdict.RETRY)
RETRY_DOMAIN = Row(Verdict.RETRY, Waits.DOMAIN, GREYLIST_WAIT)
SOFT = Row(Verdict.RETRY, Waits.MAILBOX, MAILBOX_WAIT, soft_bounce=True)
DROP = Row(Verdict.DROP_TARGET)
FIX = Row(Verdict.FIX_OURS)
AUTH = Row(Verdict.AUTH)

# Enhanced codes: exact first, then by `class.subject`.
BY_ENHANCED = {
    "5.1.1": DROP,  # bad destination mailbox
    "5.1.2": DROP,  # bad destination system
    "5.1.3": DROP,  # bad address syntax
    "5.1.6": DROP,  # mailbox has moved
    "5.1.10": DROP,  # null MX
    "5.2.1": DROP,  # mailbox disabled
    "5.2.2": SOFT,  # mailbox full
    "4.2.2": SOFT,
    "4.2.1": Row(Verdict.RETRY, Waits.MAILBOX, MAILBOX_WAIT),  # disabled for now, or receives too fast
    "5.3.4": FIX,  # message too big for the system
    "5.2.3": FIX,  # message too long for the mailbox
    "5.7.0": AUTH,  # "Must issue a STARTTLS command first", "Authentication required"
    "5.7.8": AUTH,  # credentials invalid
    "5.7.9": AUTH,  # mechanism too weak
    "5.7.3": AUTH,
    "4.7.0": RETRY_DOMAIN,  # greylisting, rate
    "4.7.1": RETRY_DOMAIN,
}
BY_SUBJECT = {
    "4.1": Row(Verdict.RETRY, Waits.DOMAIN, GREYLIST_WAIT),
    "4.2": Row(Verdict.RETRY, Waits.MAILBOX, MAILBOX_WAIT),
    "4.3": RETRY_RELAY,
    "4.4": RETRY_RELAY,
    "4.5": RETRY_RELAY,
    "4.6": RETRY_RELAY,
    "4.7": RETRY_DOMAIN,
    "5.1": FIX,  # of the sender's address, such as 5.1.8
    "5.2": FIX,
    "5.3": FIX,
    "5.4": FIX,
    "5.5": FIX,  # protocol
    "5.6": FIX,  # content
    "5.7": FIX,  # policy, SPF (5.7.23), DMARC (5.7.26), reputation: the address is fine, somebody must look
}
BY_CODE = {
    421: RETRY_RELAY,  # closing: on a new connection
    450: RETRY_DOMAIN,
    451: RETRY_DOMAIN,
    452: RETRY_RELAY,
    454: RETRY_RELAY,  # temporary authentication failure, TLS not available
    455: RETRY_RELAY,
    530: AUTH,
    534: AUTH,
    535: AUTH,
    538: AUTH,
}


def judge(code: int, text: str, *, relay: str, domain: str) -> Outcome:
    """What a reply means.

    Args:
        code: of three digits.
        text: the reply's lines, joined by newlines; an enhanced code stands at its beginning.
        relay: the relay's host, for the limiter key.
        domain: the recipient's.
    """
    found = ENHANCED.match(text)
    enhanced = ".".join(found.groups()) if found else None
    row = _row(code, enhanced, text)
    scopes = {Waits.RELAY: f"email:{relay}", Waits.DOMAIN: f"email:{relay}:{domain}", Waits.MAILBOX: None}
    return Outcome(
        row.verdict,
        code=f"{code} {enhanced}" if enhanced else str(code),
        detail=" ".join(text.split())[:500],
        retry_after=row.after if row.verdict is Verdict.RETRY else None,
        scope=scopes[row.waits] if row.verdict in {Verdict.RETRY, Verdict.AUTH} else None,
        soft_bounce=row.soft_bounce,
    )


def _row(code: int, enhanced: str | None, text: str) -> Row:
    if code == 454:
        return RETRY_RELAY
    if enhanced:
        if enhanced == "5.7.0" and code not in {530, 534, 535, 538}:
            return FIX  # "message blocked by policy"
        row = BY_ENHANCED.get(enhanced) or BY_SUBJECT.get(enhanced.rpartition(".")[0])
        if row is not None:
            return row
    if code in BY_CODE:
        return SOFT if code in {450, 452} and FULL.search(text) else BY_CODE[code]
    if 400 <= code < 500:
        return RETRY_RELAY
    return _permanent(code, text)


def _permanent(code: int, text: str) -> Row:
    """A 5yz without an enhanced code: servers use them loosely, so the text decides."""
    if code == 552:
        return FIX if TOO_BIG.search(text) and not FULL.search(text) else SOFT
    if FULL.search(text):
        return SOFT
    if code in {550, 551, 553} and UNKNOWN_MAILBOX.search(text) and not SPAM.search(text):
        return DROP
    return FIX
