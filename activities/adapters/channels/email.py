"""Mail by SMTP: https://www.rfc-editor.org/rfc/rfc5321."""

import asyncio
import re
import ssl
from datetime import datetime

import structlog
from aiosmtplib import (
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)

from activities.adapters.channels.answers import smtp as answers
from activities.adapters.channels.answers.smtp import Stage
from activities.adapters.channels.channel import (
    AfterLostReply,
    CancelledBeforeSending,
    Message,
    Outcome,
    Scope,
    Target,
    Verdict,
)
from activities.adapters.channels.mail_message import build, message_id, sender_address
from activities.adapters.channels.smtp_connections import Connection, Connections, NoConnectionFree, Tls
from contracts.payloads.notification import ChannelName

log = structlog.get_logger(__name__)

SEND_SECONDS = 110.0  # a mail with all it waits for; the step's start-to-close is 2 min
# after the final dot, for relays that filter first; https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.2.6 has 10 min
VERDICT_SECONDS = 60.0
SUCCESS = 2  # the first digit
FIRST_REFUSAL = 400
CLOSING = 421
QUEUE_ID = re.compile(r"queued as ([A-Za-z0-9._-]+)|\bid[=:] ?([A-Za-z0-9._-]+)", re.IGNORECASE)  # Postfix, Exim


class Email:
    """One relay. See `Connections` for host, port, tls, username, password and ssl_context.

    Args:
        sender: `Acme <no-reply@acme.example>`; its domain is that of the Message-IDs.
        connections: at once.
    """

    name = ChannelName.EMAIL
    after_lost_reply = AfterLostReply.BY_TEMPLATE

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: Tls,
        username: str | None,
        password: str | None,
        sender: str,
        connections: int = 4,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._relay = host
        self._sender = sender_address(sender)
        self._connections = Connections(
            host=host,
            port=port,
            tls=tls,
            username=username,
            password=password,
            size=connections,
            ssl_context=ssl_context,
        )

    def scopes(self, target: Target) -> tuple[Scope, ...]:
        """The relay, and the recipient's domain at it."""
        whole = Scope(f"email:{self._relay}", f"the mail relay {self._relay}")
        return (whole, Scope(f"{whole.key}:{_domain(target.address)}", "the recipient's mail domain"))

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:  # noqa: ARG002 - the protocol's
        """Send one mail; a connection that was used before and turns out dead or closing is replaced at once."""
        body, recipient = build(message, self._sender, target.address)
        for fresh in (False, True):
            connection: Connection | None = None
            try:
                async with asyncio.timeout(SEND_SECONDS), self._connections.use(fresh=fresh) as connection:
                    return await self._transfer(connection, recipient, body, message)
            except asyncio.CancelledError as cancelled:
                if connection is not None and connection.dot_written:
                    raise
                raise CancelledBeforeSending from cancelled
            except NoConnectionFree:
                detail = f"all connections to {self._relay} are busy: see HOLDFAST_SMTP_CONNECTIONS"
                return Outcome(Verdict.RETRY, "busy", detail)
            except (SMTPException, OSError) as error:
                again = connection is not None and connection.used > 1 and not connection.dot_written and not fresh
                if not (again and _closing(error)):
                    return self._judge(error, target, dot_written=connection is not None and connection.dot_written)
        raise AssertionError("a fresh connection either sends or answers")

    async def _transfer(self, connection: Connection, recipient: str, body: bytes, message: Message) -> Outcome:
        smtp = connection.smtp
        options = []
        encoding = "ascii"
        if not recipient.isascii():
            if smtp.is_ehlo_or_helo_needed:
                await smtp.ehlo()
            if not smtp.supports_extension("smtputf8"):
                detail = f"{self._relay} lacks SMTPUTF8, which this recipient's address needs"
                return Outcome(Verdict.FIX_OURS, "smtputf8", detail)
            options, encoding = ["SMTPUTF8", "BODY=8BITMIME"], "utf-8"
        await smtp.mail(self._sender.addr_spec, options=options, encoding=encoding)
        await smtp.rcpt(recipient, encoding=encoding)
        try:
            reply = await smtp.data(body, timeout=VERDICT_SECONDS)
        except SMTPDataError as error:
            if connection.dot_written and error.code // 100 == SUCCESS:  # aiosmtplib wants 250 to the letter
                return self._sent(error.code, error.message, message)
            raise
        return self._sent(reply.code, reply.message, message)

    def _sent(self, code: int, text: str, message: Message) -> Outcome:
        found = QUEUE_ID.search(text)
        vendor_id = (found.group(1) or found.group(2)) if found else message_id(message, self._sender)
        return Outcome(Verdict.SENT, str(code), vendor_id=vendor_id)

    def _judge(self, error: SMTPException | OSError, target: Target, *, dot_written: bool) -> Outcome:
        relay = f"email:{self._relay}"
        if isinstance(error, SMTPResponseException) and error.code >= FIRST_REFUSAL:
            domain = _domain(target.address)
            return answers.judge(error.code, error.message, stage=_stage(error), relay=self._relay, domain=domain)
        detail = f"{self._relay}: {type(error).__name__} {error}"
        if dot_written:
            return Outcome(Verdict.MAYBE_SENT, "reply_lost", detail)
        if _unusable(error):
            return Outcome(Verdict.AUTH, "tls_or_login", detail, scope=relay)
        return Outcome(Verdict.RETRY, "connection", detail, scope=relay)

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """A relay does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._connections.close()


def _stage(error: SMTPResponseException) -> Stage:
    stages = {
        SMTPSenderRefused: Stage.SENDER,
        SMTPRecipientRefused: Stage.RECIPIENT,
        SMTPDataError: Stage.MESSAGE,
    }
    return stages.get(type(error), Stage.SESSION)


def _closing(error: Exception) -> bool:
    """Whether the relay gave the connection up, rather than the mail."""
    return isinstance(error, SMTPServerDisconnected) or (
        isinstance(error, SMTPResponseException) and error.code == CLOSING
    )


def _unusable(error: Exception) -> bool:
    """Whether our settings and the relay's do not go together: no TLS, no login, or a certificate nobody vouches for.

    aiosmtplib raises the bare SMTPException where the relay lacks STARTTLS or AUTH.
    """
    untrusted = ssl.SSLCertVerificationError
    return (
        isinstance(error, untrusted)
        or isinstance(error.__cause__, untrusted)
        or isinstance(error, SMTPNotSupported)
        or type(error) is SMTPException
    )


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
