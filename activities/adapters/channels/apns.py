"""APNs: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm
from jwt.utils import der_to_raw_signature

from activities.adapters.channels.answers import apns as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target
from activities.adapters.channels.http import CONNECT_SECONDS, OVERALL_SECONDS, exchange
from activities.adapters.channels.push_payload import fitted, words
from contracts.payloads.notification import ChannelName

URLS = {"production": "https://api.push.apple.com", "sandbox": "https://api.sandbox.push.apple.com"}
MAX_BYTES = 4096
# Apple refuses a token older than 1 h, and changes more often than every 20 min. All workers must send the same token,
# so its age is not counted from when one of them made it: it is issued at the last half hour of the clock.
TOKEN_PERIOD = timedelta(minutes=30)


class Apns:
    """One app.

    Args:
        key_file: the .p8 key.
        key_id: of the key.
        team_id: of the developer account.
        topic: the app's bundle id.
        environment: where the tokens that are sent to come from.
        url: another server for tests.
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
        self._key = key_file.read_text()
        self._key_id = key_id
        self._team_id = team_id
        self._topic = topic
        self._environment = environment
        self._url = url or URLS[environment]
        self._token = ""
        self._issued_at: datetime | None = None
        self._http = httpx.AsyncClient(
            http1=False,
            http2=True,
            timeout=httpx.Timeout(OVERALL_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=600),
            trust_env=False,
        )

    def scopes(self, target: Target) -> tuple[Scope, ...]:  # noqa: ARG002 - the protocol's
        """The app."""
        return (Scope(f"apns:{self._topic}"),)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Send over the shared HTTP/2 connection."""
        headers = {
            "authorization": f"bearer {self.provider_token(now)}",
            "apns-id": message.effect_id,
            "apns-collapse-id": message.notification_id,
            "apns-topic": self._topic,
            "apns-push-type": "alert",
            "apns-expiration": str(int(message.expires_at.timestamp())),
            "apns-priority": "10",
        }
        request = self._http.build_request(
            "POST", f"{self._url}/3/device/{target.address}", content=_body(message), headers=headers
        )
        answer = await exchange(self._http, request, scope=f"apns:{self._topic}")
        if isinstance(answer, Outcome):
            return answer
        return answers.judge(
            answer.status,
            answer.headers,
            answer.body,
            now=now,
            topic=self._topic,
            same_environment=target.details.get("environment", "production") == self._environment,
        )

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """APNs does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    def provider_token(self, now: datetime) -> str:
        """The token of this half hour, the same in every process."""
        seconds = int(TOKEN_PERIOD.total_seconds())
        issued_at = datetime.fromtimestamp(int(now.timestamp()) // seconds * seconds, UTC)
        if issued_at != self._issued_at:
            claims = {"iss": self._team_id, "iat": int(issued_at.timestamp())}
            jws = jwt.PyJWS(algorithms=[])
            jws.register_algorithm("ES256", _Deterministic(_Deterministic.SHA256))
            payload = json.dumps(claims, separators=(",", ":")).encode()
            self._token = jws.encode(payload, self._key, algorithm="ES256", headers={"kid": self._key_id})
            self._issued_at = issued_at
        return self._token


class _Deterministic(ECAlgorithm):
    """ES256 with signatures by RFC 6979, so that equal claims are equal tokens."""

    def sign(self, msg: bytes, key: EllipticCurvePrivateKey) -> bytes:
        """Raw R and S."""
        signature = key.sign(msg, ECDSA(SHA256(), deterministic_signing=True))
        return der_to_raw_signature(signature, key.curve)


def _body(message: Message) -> bytes:
    content = message.content
    title, text = words(content)

    def made(body: str) -> dict[str, Any]:
        payload: dict[str, Any] = {"aps": {"alert": {"title": title, "body": body}, "sound": "default"}}
        if content.url:
            payload["url"] = content.url
        return payload | {name: value for name, value in content.data.items() if name != "aps"}

    return fitted(made, text, MAX_BYTES)
