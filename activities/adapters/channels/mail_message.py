"""A message as the bytes of a mail: the same bytes at every repetition."""

import hashlib
import re
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime, parseaddr

from activities.adapters.channels.channel import Message
from contracts.addresses import a_labels

CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")  # all that str.splitlines takes for a line's end


class _OneLine(UnstructuredHeader, BaseHeader):
    """A header of one URL: folding would turn it into an encoded word, which no mail program reads as a URL."""

    def fold(self, *, policy: Policy) -> str:
        """As it is."""
        return f"{self.name}: {self}{policy.linesep}"


_HEADERS = HeaderRegistry()
_HEADERS.map_to_type("list-unsubscribe", _OneLine)
POLICY = SMTP.clone(header_factory=_HEADERS)


class InvalidSender(ValueError):
    """The sender is no mail address."""


def sender_address(text: str) -> Address:
    """`Acme <no-reply@acme.example>`, parsed.

    Raises:
        InvalidSender: it is not one address.
    """
    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    if not (local and at and domain):
        msg = f"{text!r} is no mail address such as `Acme <no-reply@acme.example>`"
        raise InvalidSender(msg)
    return Address(name, local, domain)


def build(message: Message, sender: Address, recipient: str) -> tuple[bytes, str]:
    """The mail, with CRLF line ends and no line above 998 bytes; and the recipient for RCPT TO.

    `Message-ID` is made of the effect's id, so that receiving systems recognise a repetition. The one-click headers are
    those of https://www.rfc-editor.org/rfc/rfc8058. A domain beyond ASCII goes as A-labels, which every relay takes; a
    local part beyond ASCII needs SMTPUTF8 (https://www.rfc-editor.org/rfc/rfc6532).
    """
    local, _, domain = recipient.rpartition("@")
    if local.isascii():
        domain = a_labels(domain)
    mail = EmailMessage(policy=POLICY if local.isascii() else POLICY.clone(utf8=True))
    mail["From"] = sender
    mail["To"] = Address("", local, domain)
    mail["Subject"] = CONTROL.sub(" ", message.content.subject).strip()
    mail["Date"] = format_datetime(message.created_at)
    mail["Message-ID"] = message_id(message, sender)
    mail["Auto-Submitted"] = "auto-generated"  # https://www.rfc-editor.org/rfc/rfc3834: no vacation replies
    if message.unsubscribe_url:
        mail["List-Unsubscribe"] = f"<{message.unsubscribe_url}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(message.content.text, cte="quoted-printable")
    if message.content.html is not None:
        mail.add_alternative(message.content.html, subtype="html", cte="quoted-printable")
    for attachment in message.attachments:
        kind, _, subtype = attachment.media_type.partition("/")
        if kind in {"message", "multipart"} or not subtype:
            kind, subtype = "application", "octet-stream"  # those may not be encoded, and a file's bytes must be
        name = CONTROL.sub("_", attachment.filename)
        mail.add_attachment(attachment.body, maintype=kind, subtype=subtype, filename=name)
    seed = hashlib.sha256(message.effect_id.encode()).hexdigest()[:32]
    for number, part in enumerate(each for each in mail.walk() if each.is_multipart()):
        part.set_boundary(f"=_{seed}_{number}")
    return mail.as_bytes(), f"{local}@{domain}"


def message_id(message: Message, sender: Address) -> str:
    """Stable: one per notification and recipient."""
    return f"<{message.effect_id}@{sender.domain}>"
