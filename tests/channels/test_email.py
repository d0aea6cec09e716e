"""The mail client against a relay that insists on TLS and a login, closes connections, and counts them."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import IPv4Address

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from activities.adapters.channels.channel import Attachment, Content, Target, Verdict
from activities.adapters.channels.email import Email
from activities.adapters.channels.mail_message import InvalidSender, build, message_id, sender_address
from activities.adapters.channels.smtp_connections import Tls
from contracts.payloads.notification import ChannelName
from simulator.faults import Fault
from tests.channels.conftest import Clients

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ADA = Target(ChannelName.EMAIL, "ada@example.com", NOW)


@dataclass
class Certificate:
    server: ssl.SSLContext
    trusted: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    pem = folder / "relay.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + made.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return Certificate(server, ssl.create_default_context(cafile=str(pem)))


class Taken:
    """What a relay of these tests took, over how many connections, and whether each mail came encrypted."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.encrypted: list[bool] = []
        self.connections = 0

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - the library's
        content = envelope.original_content or b""
        self.raw.append(content)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.encrypted.append(session.ssl is not None)
        return f"250 2.0.0 OK: queued as Q{len(self.mails)}"


@asynccontextmanager
async def relay(
    *, tls: ssl.SSLContext | None = None, implicit: bool = False, password: str | None = None
) -> AsyncIterator[tuple[int, Taken]]:
    taken = Taken()

    def check(
        _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=(given.login, given.password) == (b"user", (password or "").encode()), handled=False)

    def one() -> SMTP:
        taken.connections += 1
        return SMTP(
            taken,
            tls_context=None if implicit else tls,
            require_starttls=tls is not None and not implicit,
            authenticator=check if password else None,
            auth_required=bool(password),
            auth_require_tls=not implicit,  # aiosmtpd does not know that the socket is already encrypted
            enable_SMTPUTF8=True,
        )

    server = await asyncio.get_running_loop().create_server(one, "127.0.0.1", 0, ssl=tls if implicit else None)
    try:
        yield server.sockets[0].getsockname()[1], taken
    finally:
        server.close()


def email(
    port: int,
    *,
    tls: Tls = "starttls",
    password: str | None = None,
    context: ssl.SSLContext | None = None,
    connections: int = 4,
) -> Email:
    return Email(
        host="127.0.0.1",
        port=port,
        tls=tls,
        username="user" if password else None,
        password=password,
        sender="Acme <no-reply@acme.example>",
        ssl_context=context,
        connections=connections,
    )


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_logs_in_over_tls_and_keeps_the_connection(tls: Tls, certificate: Certificate, clients: Clients) -> None:
    async with relay(tls=certificate.server, implicit=tls == "implicit", password="right") as (port, taken):
        client = email(port, tls=tls, password="right", context=certificate.trusted)
        for number in range(1, 4):
            outcome = await client.send(ADA, clients.message(), now=NOW)
            assert (outcome.verdict, outcome.vendor_id) == (Verdict.SENT, f"Q{number}")
        await client.close()
    assert taken.connections == 1
    assert taken.encrypted == [tls == "starttls"] * 3  # aiosmtpd knows of its own STARTTLS only


async def test_a_wrong_password_is_our_credential(certificate: Certificate, clients: Clients) -> None:
    async with relay(tls=certificate.server, password="right") as (port, taken):
        client = email(port, password="wrong", context=certificate.trusted)
        outcome = await client.send(ADA, clients.message(), now=NOW)
        assert (outcome.verdict, outcome.code, outcome.scope) == (Verdict.AUTH, "535 5.7.8", "email:127.0.0.1")
        await client.close()
    assert taken.mails == []


async def test_a_relay_without_tls_gets_neither_password_nor_mail(clients: Clients) -> None:
    async with relay() as (port, taken):
        client = email(port, password="right")
        outcome = await client.send(ADA, clients.message(), now=NOW)
        assert (outcome.verdict, outcome.code) == (Verdict.AUTH, "tls_or_login")
        await client.close()
    assert taken.mails == []


async def test_a_certificate_that_is_not_trusted_gets_neither(certificate: Certificate, clients: Clients) -> None:
    async with relay(tls=certificate.server, password="right") as (port, taken):
        client = email(port, password="right")
        outcome = await client.send(ADA, clients.message(), now=NOW)
        assert (outcome.verdict, outcome.code) == (Verdict.AUTH, "tls_or_login")
        assert "certificate verify failed" in outcome.detail
        await client.close()
    assert taken.mails == []


async def test_never_more_connections_than_allowed(clients: Clients) -> None:
    async with relay() as (port, taken):
        client = email(port, tls="none", connections=3)
        outcomes = await asyncio.gather(*(client.send(ADA, clients.message(), now=NOW) for _ in range(40)))
        assert {each.verdict for each in outcomes} == {Verdict.SENT}
        await client.close()
    assert taken.connections == 3
    assert len(taken.mails) == 40


async def test_a_cancelled_mail_takes_its_connection_with_it(clients: Clients) -> None:
    """Or the next mail would be written into the middle of its conversation."""
    client = clients.channels[ChannelName.EMAIL]
    clients.sim.faults.add(Fault(channel="email", kind="slow", delay_s=30))
    sending = asyncio.create_task(client.send(ADA, clients.message(), now=NOW))
    await asyncio.sleep(0.3)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    outcomes = await asyncio.gather(*(client.send(ADA, clients.message(), now=NOW) for _ in range(8)))
    assert {each.verdict for each in outcomes} == {Verdict.SENT}


UNSUBSCRIBE = "https://api.acme.example/v1/unsubscribe/" + "WyJhY21lIl0." * 15
MAIL = {
    "subject": "Grüße\r\nBcc: eve@example.com",
    "text": ".\n..two dots\nFrom here\n" + "long " * 400 + "\nÄnderung ✓\n",
}


async def test_any_text_arrives_as_it_was_written(clients: Clients) -> None:
    async with relay() as (port, taken):
        client = email(port, tls="none")
        message = clients.message(
            content=Content(subject=MAIL["subject"], text=MAIL["text"], html=f"<p>{MAIL['text']}</p>"),
            attachments=(Attachment("Rechnung\r\nX: y ü.pdf", "application/pdf", b"%PDF-1.7\n.\n"),),
            unsubscribe_url=UNSUBSCRIBE,
        )
        assert (await client.send(ADA, message, now=NOW)).verdict is Verdict.SENT
        await client.close()
    (mail,) = taken.mails
    assert mail["Subject"] == "Grüße Bcc: eve@example.com"
    assert mail["Bcc"] is None
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n") == MAIL["text"]
    assert html.get_content().replace("\r\n", "\n").strip() == f"<p>{MAIL['text']}</p>"
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == "Rechnung_X: y ü.pdf"
    assert attached.get_content() == b"%PDF-1.7\n.\n"
    assert f"\r\nList-Unsubscribe: <{UNSUBSCRIBE}>\r\n".encode() in taken.raw[0]
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert max(len(line) for line in taken.raw[0].split(b"\r\n")) <= 998


async def test_an_address_beyond_ascii_needs_smtputf8_and_gets_it(clients: Clients) -> None:
    async with relay() as (port, taken):
        client = email(port, tls="none")
        target = Target(ChannelName.EMAIL, "käthe@exämple.com", NOW)
        assert (await client.send(target, clients.message(), now=NOW)).verdict is Verdict.SENT
        await client.close()
    assert taken.mails[0]["To"] == "käthe@exämple.com"


def test_a_repetition_is_the_same_mail_to_the_byte(clients: Clients) -> None:
    sender = sender_address("Acme <no-reply@acme.example>")
    message = clients.message(attachments=(Attachment("a.txt", "text/plain", b"a"),))
    assert build(message, sender, "ada@example.com") == build(message, sender, "ada@example.com")
    assert message_id(message, sender) == f"<{message.effect_id}@acme.example>"


@pytest.mark.parametrize("text", ["", "Acme", "Acme <no-reply>", "@acme.example"])
def test_a_sender_must_be_an_address(text: str) -> None:
    with pytest.raises(InvalidSender, match="is no mail address such as"):
        sender_address(text)
