"""A relay: https://www.rfc-editor.org/rfc/rfc5321."""

import asyncio
from email import message_from_bytes, policy
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from simulator.faults import Fault, Faults
from simulator.records import Records

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
        assert isinstance(transport, asyncio.Transport)
        fault = self._faults.take("email", stage="connect")
        if fault is not None and fault.kind == "answer":
            transport.write(_reply(fault).encode() + b"\r\n")
            transport.close()
        if fault is not None and fault.kind != "answer":
            transport.abort()
        super().connection_made(transport)

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - the library's name
        """The command, before the mail."""
        fault = self._faults.take("email", _recipient(self.envelope), stage="data")
        if fault is None:
            await super().smtp_DATA(arg)
        elif fault.kind == "answer":
            await self.push(_reply(fault))
        else:
            _abort(self)


class Mailboxes:
    """aiosmtpd's hooks: https://aiosmtpd.aio-libs.org/en/latest/handlers.html."""

    def __init__(self, faults: Faults, records: Records) -> None:
        self._faults = faults
        self._records = records

    async def handle_MAIL(  # noqa: N802 - the library's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """MAIL FROM."""
        fault = self._faults.take("email", stage="mail")
        if fault is not None:
            return _reply(fault)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """RCPT TO."""
        fault = self._faults.take("email", address, stage="rcpt")
        if fault is not None:
            self._records.add("email", address, accepted=False, effect="", body=None, fault=_name(fault))
            return _reply(fault)
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the library's name
        """After the final dot."""
        target = _recipient(envelope)
        fault = self._faults.take("email", target, stage="end_of_data")
        content = envelope.original_content or b""
        if fault is not None:
            if fault.kind == "timeout":
                await asyncio.Event().wait()
            await asyncio.sleep(fault.delay_s)
            if fault.kind == "answer":
                self._records.add("email", target, accepted=False, effect="", body=None, fault=_name(fault))
                return _reply(fault)
            if fault.kind in {"reset", "close_before_data"}:
                _abort(server)
                return "421 closing"
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


def _abort(server: SMTP) -> None:
    if isinstance(server.transport, asyncio.Transport):
        server.transport.abort()


def _recipient(envelope: Envelope | None) -> str:
    return envelope.rcpt_tos[0] if envelope and envelope.rcpt_tos else ""


def _reply(fault: Fault) -> str:
    answer = fault.answer()
    return f"{answer.status} {answer.body}"


def _name(fault: Fault) -> str:
    return fault.row or fault.kind


def _body(mail: Any, content: bytes) -> dict[str, Any]:
    return {"subject": str(mail["Subject"]), "raw": content.decode(errors="replace")}
