"""Mail by SMTP: https://www.rfc-editor.org/rfc/rfc5321."""

import re
import ssl
from datetime import datetime

import structlog
from aiosmtplib import (
    SMTPAuthenticationError,
    SMTPException,
    SMTPNotSupported,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from activities.adapters.channels.answers import smtp as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, Verdict
from activities.adapters.channels.mail_message import build, message_id, sender_address
from activities.adapters.channels.smtp_connections import Connection, Connections, Tls
from contracts.payloads.notification import ChannelName

log = structlog.get_logger(__name__)

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
        return (Scope(f"email:{self._relay}"), Scope(f"email:{self._relay}:{_domain(target.address)}"))

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:  # noqa: ARG002 - the protocol's
        """Send one mail; a connection that was used before and turns out dead is replaced at once."""
        body = build(message, self._sender, target.address)
        for fresh in (False, True):
            connection: Connection | None = None
            try:
                async with self._connections.use(fresh=fresh) as connection:
                    return await self._transfer(connection, target.address, body, message)
            except SMTPResponseException as error:
                return self._refused(error, target)
            except (SMTPException, OSError) as error:
                if _unusable(error):
                    return Outcome(
                        Verdict.AUTH, "tls_or_login", f"{self._relay}: {error}"[:500], scope=f"email:{self._relay}"
                    )
                if connection is not None and connection.dot_written:
                    detail = f"{type(error).__name__} after the mail, before the relay's answer"
                    return Outcome(Verdict.MAYBE_SENT, "reply_lost", detail)
                reused = connection is not None and connection.used > 1
                if not reused or fresh or not isinstance(error, SMTPServerDisconnected):
                    return Outcome(
                        Verdict.RETRY,
                        "connection",
                        f"{self._relay}: {type(error).__name__} {error}"[:500],
                        scope=f"email:{self._relay}",
                    )
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
        reply = await smtp.data(body)
        found = QUEUE_ID.search(reply.message)
        vendor_id = (found.group(1) or found.group(2)) if found else message_id(message, self._sender)
        return Outcome(Verdict.SENT, str(reply.code), vendor_id=vendor_id)

    def _refused(self, error: SMTPResponseException, target: Target) -> Outcome:
        outcome = answers.judge(error.code, error.message, relay=self._relay, domain=_domain(target.address))
        if isinstance(error, SMTPAuthenticationError) and outcome.verdict is Verdict.FIX_OURS:
            return Outcome(Verdict.AUTH, outcome.code, outcome.detail, scope=f"email:{self._relay}")
        return outcome

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """A relay does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._connections.close()


def _unusable(error: Exception) -> bool:
    """Whether our settings and the relay's do not go together: no TLS, no login, or a certificate nobody vouches for.

    aiosmtplib raises the bare SMTPException where the relay lacks STARTTLS or AUTH.
    """
    certificate = isinstance(error, ssl.SSLCertVerificationError) or isinstance(
        error.__cause__, ssl.SSLCertVerificationError
    )
    return certificate or type(error) is SMTPException or isinstance(error, SMTPNotSupported)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
