"""APNs: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm
from jwt.utils import der_to_raw_signature

from activities.adapters.channels.answers import apns as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, UnusableKey, Verdict
from activities.adapters.channels.http import Answer, Wire, exchange
from activities.adapters.channels.push_payload import fitted, words
from contracts.payloads.notification import ChannelName

URLS = {"production": "https://api.push.apple.com", "sandbox": "https://api.sandbox.push.apple.com"}
MAX_BYTES = 4096
# Apple refuses a token older than 1 h, and changes more often than every 20 min. All workers must send the same token,
# so its age is not counted from when one of them made it: it is issued at the last half hour of the clock.
TOKEN_PERIOD = timedelta(minutes=30)
CLOCKS_DIFFER = timedelta(minutes=1)  # a token must not be issued in Apple's future
RENEWAL_STEP = timedelta(minutes=5)  # workers that renew at about the same time make the same token


class Apns:
    """One app.

    Args:
        key_file: the .p8 key.
        key_id: of the key.
        team_id: of the developer account.
        topic: the app's bundle id.
        environment: where the tokens that are sent to come from.
        url: another server for tests.

    Raises:
        UnusableKey: key_file holds no P-256 private key.
    """

    name = ChannelName.APNS
    after_lost_reply = AfterLostReply.RESEND  # the same apns-collapse-id replaces the one that is shown

    def __init__(
        self,
        *,
        key_file: Path,
        key_id: str,
        team_id: str,
        topic: str,
        environment: Literal["production", "sandbox"] = "production",
        url: str | None = None,
    ) -> None:
        key = load_pem_private_key(key_file.read_bytes(), None)
        if not (isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)):
            msg = f"{key_file} must be the .p8 file that Apple gave: a P-256 private key in PEM"
            raise UnusableKey(msg)
        self._key = key
        self._key_id = key_id
        self._team_id = team_id
        self._topic = topic
        self._environment = environment
        self._url = url or URLS[environment]
        self._token = ""
        self._issued_at = datetime.fromtimestamp(0, UTC)
        self._tls = httpx.create_ssl_context()  # 18 ms to make
        self._connection = _Connection(self._tls)

    def scopes(self, target: Target) -> tuple[Scope, ...]:  # noqa: ARG002 - the protocol's
        """The app."""
        return (Scope(f"apns:{self._topic}", f"APNs for {self._topic}"),)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Send over the shared HTTP/2 connection; once more where that connection ended, or the token was too old.

        A repetition has the same apns-id and apns-collapse-id, and so shows nothing twice.
        """
        same_environment = target.details.get("environment", "production") == self._environment
        for again in (True, False):
            answer = await self._post(target, message, now)
            if isinstance(answer, Outcome):
                outcome = answer
                repeat = outcome.verdict is Verdict.MAYBE_SENT
            else:
                outcome = answers.judge(
                    answer.status,
                    answer.headers,
                    answer.body,
                    now=now,
                    topic=self._topic,
                    same_environment=same_environment,
                )
                repeat = outcome.code == "ExpiredProviderToken" and self._renew(now)
            if not (again and repeat):
                return outcome
        raise AssertionError("the second round returns")

    async def _post(self, target: Target, message: Message, now: datetime) -> Answer | Outcome:
        headers = {
            "authorization": f"bearer {self.provider_token(now)}",
            "apns-id": message.effect_id,
            "apns-collapse-id": message.notification_id,
            "apns-topic": self._topic,
            "apns-push-type": "alert",
            "apns-expiration": str(int(message.expires_at.timestamp())),
            "apns-priority": "10",
        }
        url = f"{self._url}/3/device/{target.address}"
        connection = self._connection
        try:
            answer = await connection.post(url, _body(message), headers, scope=f"apns:{self._topic}")
        except asyncio.CancelledError:
            await self._replace(connection)
            raise
        if isinstance(answer, Outcome) and answer.verdict is not Verdict.FIX_OURS:
            # httpcore counts a stream that was given up as open for ever, and keeps a connection that said goodbye:
            # https://github.com/encode/httpcore/issues/943
            await self._replace(connection)
        return answer

    async def _replace(self, connection: "_Connection") -> None:
        if self._connection is connection:
            self._connection = _Connection(self._tls)
        await connection.retire()

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """APNs does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._connection.retire()

    def provider_token(self, now: datetime) -> str:
        """The token of this half hour, the same in every process."""
        issued_at = _floor(now - CLOCKS_DIFFER, TOKEN_PERIOD)
        if issued_at > self._issued_at:
            self._issue(issued_at)
        return self._token

    def _renew(self, now: datetime) -> bool:
        """Make a token that is as young as may be; false if there is none younger."""
        issued_at = _floor(now - CLOCKS_DIFFER, RENEWAL_STEP)
        if issued_at <= self._issued_at:
            return False
        self._issue(issued_at)
        return True

    def _issue(self, issued_at: datetime) -> None:
        claims = {"iss": self._team_id, "iat": int(issued_at.timestamp())}
        jws = jwt.PyJWS(algorithms=[])
        jws.register_algorithm("ES256", _Deterministic(_Deterministic.SHA256))
        payload = json.dumps(claims, separators=(",", ":")).encode()
        self._token = jws.encode(payload, self._key, algorithm="ES256", headers={"kid": self._key_id})
        self._issued_at = issued_at


class _Connection:
    """An HTTP/2 connection that is closed once it is retired and its last request has ended."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._http = Wire(
            httpx.AsyncHTTPTransport(
                verify=tls,
                http1=False,
                http2=True,
                limits=httpx.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=600),
                trust_env=False,
            )
        )
        self._in_flight = 0
        self._retired = False

    async def post(self, url: str, content: bytes, headers: dict[str, str], *, scope: str) -> Answer | Outcome:
        """One request; see `exchange`."""
        self._in_flight += 1
        try:
            return await exchange(self._http, url, scope=scope, content=content, headers=headers)
        finally:
            self._in_flight -= 1
            await self._close_if_idle()

    async def retire(self) -> None:
        """Take no part in anything new."""
        self._retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._retired and not self._in_flight:
            await self._http.aclose()


class _Deterministic(ECAlgorithm):
    """ES256 with signatures by RFC 6979, so that equal claims are equal tokens."""

    def sign(self, msg: bytes, key: EllipticCurvePrivateKey) -> bytes:
        """Raw R and S."""
        signature = key.sign(msg, ECDSA(SHA256(), deterministic_signing=True))
        return der_to_raw_signature(signature, key.curve)


def _floor(moment: datetime, step: timedelta) -> datetime:
    seconds = int(step.total_seconds())
    return datetime.fromtimestamp(int(moment.timestamp()) // seconds * seconds, UTC)


def _body(message: Message) -> bytes:
    content = message.content
    title, text = words(content)

    def made(body: str) -> dict[str, Any]:
        payload: dict[str, Any] = {"aps": {"alert": {"title": title, "body": body}, "sound": "default"}}
        if content.url:
            payload["url"] = content.url
        return payload | {name: value for name, value in content.data.items() if name != "aps"}

    return fitted(made, text, MAX_BYTES)
