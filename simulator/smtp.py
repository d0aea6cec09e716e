"""A relay: https://www.rfc-editor.org/rfc/rfc5321."""

import asyncio
from email import message_from_bytes, policy
from typing import Any, AnyStr, cast

from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from simulator.faults import Fault, Faults
from simulator.records import Records

NEVER_S = 3600.0
MAX_MAIL_BYTES = 25 * 1024 * 1024


class Relay(SMTP):
    """One connection."""

    def __init__(self, faults: Faults, records: Records) -> None:
        self._faults = faults
        super().__init__(
            Mailboxes(faults, records), data_size_limit=MAX_MAIL_BYTES, enable_SMTPUTF8=True, hostname="relay.simulator"
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, unless a fault says otherwise."""
        fault = self._faults.take("email", stage="connect")
        raw = cast("asyncio.Transport", transport)  # uvloop's are not derived from it
        if fault is None:
            super().connection_made(transport)
        elif fault.kind == "answer":
            raw.write(_reply(fault).encode() + b"\r\n")
            raw.close()
        elif fault.kind in {"timeout", "slow"}:
            delay = fault.delay_s if fault.kind == "slow" else NEVER_S
            asyncio.get_running_loop().call_later(delay, super().connection_made, transport)
        else:
            raw.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """A connection that was never greeted has nothing to end."""
        if self.transport is not None:
            super().connection_lost(error)

    async def push(self, status: AnyStr) -> None:
        """Reply; a 421 closes the connection: https://www.rfc-editor.org/rfc/rfc5321#section-3.8."""
        await super().push(status)
        text = status if isinstance(status, str) else status.decode()
        if text.startswith("421") and self.transport is not None:
            self.transport.close()

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - the library's name
        """The command, before the mail."""
        refused = await met(self, self._faults.take("email", _recipient(self.envelope), stage="data"))
        if refused is None:
            await super().smtp_DATA(arg)
        else:
            await self.push(refused)


class Mailboxes:
    """aiosmtpd's hooks: https://aiosmtpd.aio-libs.org/en/latest/handlers.html."""

    def __init__(self, faults: Faults, records: Records) -> None:
        self._faults = faults
        self._records = records

    async def handle_MAIL(  # noqa: N802 - the library's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """MAIL FROM."""
        refused = await met(server, self._faults.take("email", stage="mail"))
        if refused is not None:
            return refused
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """RCPT TO."""
        fault = self._faults.take("email", address, stage="rcpt")
        refused = await met(server, fault)
        if fault is not None and refused is not None:
            self._records.add("email", address, accepted=False, effect="", body=None, fault=_name(fault))
            return refused
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the library's name
        """After the final dot."""
        target = _recipient(envelope)
        fault = self._faults.take("email", target, stage="end_of_data")
        content = envelope.original_content or b""
        refused = await met(server, fault)
        if fault is not None and refused is not None:
            if fault.kind == "answer":
                self._records.add("email", target, accepted=False, effect="", body=None, fault=_name(fault))
            return refused
        mail = message_from_bytes(content, policy=policy.default)
        effect = str(mail["Message-ID"])
        for address in envelope.rcpt_tos:
            self._records.add(
                "email",
                address,
                accepted=True,
                effect=effect,
                body=_body(mail, content),
                fault=_name(fault) if fault else None,
            )
            self._records.show("email", address, effect, str(mail["Subject"]))
        if fault is not None and fault.kind == "close_after_data":
            _abort(server)
        return f"250 2.0.0 OK: queued as {abs(hash(effect)):X}"


async def met(server: SMTP, fault: Fault | None) -> str | None:
    """What a fault does at this point: a reply in the place of the relay's own, or None to go on."""
    if fault is None or fault.kind == "close_after_data":
        return None
    if fault.kind == "timeout":
        await asyncio.sleep(NEVER_S)
    await asyncio.sleep(fault.delay_s)
    if fault.kind == "slow":
        return None
    if fault.kind == "answer":
        return _reply(fault)
    _abort(server)
    return "421 closing"


def _abort(server: SMTP) -> None:
    if server.transport is not None:
        cast("asyncio.Transport", server.transport).abort()


def _recipient(envelope: Envelope | None) -> str:
    return envelope.rcpt_tos[0] if envelope and envelope.rcpt_tos else ""


def _reply(fault: Fault) -> str:
    """Lines of a reply: all but the last have a hyphen after the code."""
    answer = fault.answer()
    lines = str(answer.body or "").split("\n")
    return "\r\n".join([*(f"{answer.status}-{line}" for line in lines[:-1]), f"{answer.status} {lines[-1]}"])


def _name(fault: Fault) -> str:
    return fault.row or fault.kind


def _body(mail: Any, content: bytes) -> dict[str, Any]:
    return {"subject": str(mail["Subject"]), "raw": content.decode(errors="replace")}
