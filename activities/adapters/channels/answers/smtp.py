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
ENHANCED = re.compile(r"^\s*\(?#?([245])\.(\d{1,3})\.(\d{1,3})\b")
ADDRESS = re.compile(r"[^\s<>\"'();,]*@[^\s<>\"'();,]+")  # its words say nothing about the reason
FULL = re.compile(
    r"\bquota\b|mailbox (is )?full|storage (allocation|limit)|over ?quota|insufficient (disk )?(space|storage)",
    NO_CASE,
)
TOO_BIG = re.compile(r"message (size|is too (big|large))|size limit|too large|exceeds.*(size|limit)", NO_CASE)
# about the sender or the content, not the recipient
POLICY = re.compile(
    r"spam|\bblock(ed|list)|blacklist|reputation|policy|\b(spf|dkim|dmarc|ptr)\b|reverse dns|dns mx|\bsender\b", NO_CASE
)
UNKNOWN_MAILBOX = re.compile(
    r"user (is )?unknown|unknown (user|recipient|mailbox)|no such (user|recipient|mailbox)|(does not|doesn't) exist"
    r"|mailbox (unavailable|not found)|recipient (address )?rejected: (user|access denied)|invalid (mailbox|recipient)",
    NO_CASE,
)
GREYLIST_WAIT = timedelta(minutes=5)  # common greylists accept after 5 min
MAILBOX_WAIT = timedelta(minutes=15)
FIRST_PERMANENT = 500
LOGIN_CODES = frozenset({530, 534, 535, 538})


class Stage(Enum):
    """What the reply is about.

    SESSION    us: the greeting, EHLO, STARTTLS, the login
    SENDER     MAIL FROM
    RECIPIENT  RCPT TO
    MESSAGE    DATA and what follows
    """

    SESSION = "session"
    SENDER = "sender"
    RECIPIENT = "recipient"
    MESSAGE = "message"

    @property
    def of_recipient(self) -> bool:
        """Whether a refusal can mean that the address is dead."""
        return self in {Stage.RECIPIENT, Stage.MESSAGE}


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
    "5.7.8": AUTH,  # credentials invalid; other 5.7.z are ours to mend unless the code is one of a login
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
LOOSE = frozenset({"5.4.1", "5.5.0"})  # what Exchange Online and Outlook.com say of unknown recipients, among others
BY_CODE = {
    421: RETRY_RELAY,  # closing: on a new connection
    450: RETRY_DOMAIN,
    451: RETRY_DOMAIN,
    452: RETRY_RELAY,
    454: RETRY_RELAY,  # temporary authentication failure, TLS not available
    455: RETRY_RELAY,
}


def judge(code: int, text: str, *, stage: Stage, relay: str, domain: str) -> Outcome:
    """What a reply means.

    Args:
        code: of three digits, 400 or more.
        text: the reply's lines, joined by newlines; an enhanced code stands at its beginning.
        stage: what was asked.
        relay: the relay's host, for the limiter key.
        domain: the recipient's.
    """
    found = ENHANCED.match(text)
    enhanced = ".".join(found.groups()) if found else None
    row = _of_stage(_row(code, enhanced, ADDRESS.sub("", text), stage), stage, temporary=code < FIRST_PERMANENT)
    scopes = {Waits.RELAY: f"email:{relay}", Waits.DOMAIN: f"email:{relay}:{domain}", Waits.MAILBOX: None}
    return Outcome(
        row.verdict,
        code=f"{code} {enhanced}" if enhanced else str(code),
        detail=f"{code} {' '.join(text.split())}",
        retry_after=row.after if row.verdict is Verdict.RETRY else None,
        scope=scopes[row.waits] if row.verdict in {Verdict.RETRY, Verdict.AUTH} else None,
        soft_bounce=row.soft_bounce,
    )


def _of_stage(row: Row, stage: Stage, *, temporary: bool) -> Row:
    """A refusal of us says nothing about the recipient, and holds for everything that goes through the relay."""
    if stage.of_recipient:
        return row
    if temporary:
        return Row(Verdict.RETRY, Waits.RELAY, row.after if row.waits is Waits.DOMAIN else None)
    return AUTH if stage is Stage.SESSION or row.verdict is Verdict.AUTH else FIX


def _row(code: int, enhanced: str | None, text: str, stage: Stage) -> Row:
    if code in LOGIN_CODES:
        return AUTH
    if code == 454:
        return RETRY_RELAY
    if enhanced in LOOSE and UNKNOWN_MAILBOX.search(text) and not POLICY.search(text):
        return DROP
    if enhanced:
        row = BY_ENHANCED.get(enhanced) or BY_SUBJECT.get(enhanced.rpartition(".")[0])
        if row is not None:
            return row
    if code in BY_CODE:
        return SOFT if code in {450, 452} and FULL.search(text) else BY_CODE[code]
    if 400 <= code < 500:
        return RETRY_RELAY
    return _permanent(code, text, stage)


def _permanent(code: int, text: str, stage: Stage) -> Row:
    """A 5yz without an enhanced code: servers use them loosely, so the text decides."""
    if FULL.search(text):
        return SOFT
    if code == 552:
        return FIX if TOO_BIG.search(text) or stage is Stage.MESSAGE else SOFT
    if code in {550, 551, 553} and UNKNOWN_MAILBOX.search(text) and not POLICY.search(text):
        return DROP
    return FIX
