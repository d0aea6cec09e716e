"""Web Push: RFC 8030, VAPID (RFC 8292), aes128gcm (RFC 8291)."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import webpush
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from activities.adapters.channels.answers import web_push as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, UnusableKey, Verdict
from activities.adapters.channels.http import client, exchange
from activities.adapters.channels.push_payload import fitted, words
from contracts.payloads.notification import ChannelName

DEFAULT_PUSH_HOSTS = (
    "fcm.googleapis.com",
    "*.push.services.mozilla.com",
    "*.notify.windows.com",
    "web.push.apple.com",
)
MAX_BYTES = 3993  # before encryption, of a body of 4096: https://www.rfc-editor.org/rfc/rfc8291#section-4
LONGEST_TTL_SECONDS = 28 * 86_400
AUTH_BYTES = 16  # https://www.rfc-editor.org/rfc/rfc8291#section-3.2
KEY_WORKED_WITHIN = timedelta(hours=1)
SIGNATURE_LIFE = timedelta(hours=12)  # at most 24


class WebPush:
    """Every browser whose push service is allowed: endpoints come from browsers, so they could name any host.

    Args:
        private_key_file: PEM, signs (VAPID).
        public_key_file: PEM.
        subject: `mailto:…` or `https:…`, for the push services' operators.
        allowed_hosts: host patterns; an entry with a scheme, such as `http://127.0.0.1:9000`, allows that origin.

    Raises:
        UnusableKey: the keys are no P-256 pair.
    """

    name = ChannelName.WEB_PUSH
    after_lost_reply = AfterLostReply.RESEND  # the same tag replaces what is shown, the same Topic what waits

    def __init__(
        self, *, private_key_file: Path, public_key_file: Path, subject: str, allowed_hosts: tuple[str, ...]
    ) -> None:
        self._private_key, self._public_key = _key_pair(private_key_file, public_key_file)
        self._subject = subject
        self._allowed = allowed_hosts
        self._signed: dict[str, tuple[datetime, str]] = {}
        self._took_at: dict[str, datetime] = {}
        self._http = client()

    def scopes(self, target: Target) -> tuple[Scope, ...]:
        """The push service."""
        return (Scope(f"web_push:{_host(target)}", f"the push service {_host(target)}"),)

    def allows(self, endpoint: str) -> bool:
        """Whether the endpoint belongs to an allowed push service."""
        try:
            url = httpx.URL(endpoint)
            host = url.host
        except (httpx.InvalidURL, UnicodeError):
            return False
        if url.userinfo:
            return False
        if _origin(url) in self._allowed:
            return True
        return url.scheme == "https" and url.port is None and any(fnmatch(host, pattern) for pattern in self._allowed)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Encrypt and send."""
        if not self.allows(target.address):
            detail = f"{_host(target)} is no push service that is allowed: see HOLDFAST_WEB_PUSH_HOSTS"
            return Outcome(Verdict.FIX_OURS, "endpoint_not_allowed", detail)
        subscription = _subscription(target)
        if subscription is None:
            return Outcome(Verdict.DROP_TARGET, "subscription_keys", "the subscription's keys are unusable")
        outcome = await self._post(target.address, subscription, message, now)
        if outcome.moved_to is None:
            return outcome
        if not self.allows(outcome.moved_to):
            detail = f"{_host(target)} says that the subscription moved to a host that is no allowed push service"
            return Outcome(Verdict.FIX_OURS, "moved_elsewhere", detail)
        moved = await self._post(outcome.moved_to, subscription, message, now)
        return replace(moved, moved_to=outcome.moved_to)

    async def _post(
        self, endpoint: str, subscription: webpush.WebPushSubscription, message: Message, now: datetime
    ) -> Outcome:
        body, headers = self._encrypted(endpoint, subscription, message, now)
        host = httpx.URL(endpoint).host
        answer = await exchange(self._http, endpoint, scope=f"web_push:{host}", content=body, headers=headers)
        if isinstance(answer, Outcome):
            return answer
        key_works = now - self._took_at.get(host, now - KEY_WORKED_WITHIN) < KEY_WORKED_WITHIN
        outcome = answers.judge(answer.status, answer.headers, answer.body, now=now, host=host, key_works=key_works)
        if outcome.verdict is Verdict.SENT:
            self._took_at[host] = now
        return outcome

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """A push service does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    def _encrypted(
        self, endpoint: str, subscription: webpush.WebPushSubscription, message: Message, now: datetime
    ) -> tuple[bytes, dict[str, str]]:
        content = message.content
        title, text = words(content)

        def made(body: str) -> dict[str, Any]:
            shown = {"title": title, "body": body, "url": content.url, "tag": message.notification_id}
            return {**shown, "data": dict(content.data)}

        # Its `get` keeps the subscriber of one call for the next, so one is made for each message. Of its headers only
        # the encoding is used: its signature leaves out the port, and knows no https: subject.
        library = webpush.WebPush(private_key=self._private_key, public_key=self._public_key, subscriber=self._subject)
        encrypted = library.get(fitted(made, text, MAX_BYTES), subscription)
        life = min(max(int((message.expires_at - now).total_seconds()), 0), LONGEST_TTL_SECONDS)
        topic = urlsafe_b64encode(UUID(message.notification_id).bytes).decode().rstrip("=")
        return encrypted.encrypted, {
            "content-encoding": "aes128gcm",
            "authorization": self._authorization(_origin(httpx.URL(endpoint)), now),
            "ttl": str(life),
            "topic": topic,
            "urgency": "high" if message.urgent else "normal",
        }

    def _authorization(self, origin: str, now: datetime) -> str:
        """VAPID: https://www.rfc-editor.org/rfc/rfc8292#section-2. One signature per push service and half its life."""
        expires, header = self._signed.get(origin, (now, ""))
        if expires - now < SIGNATURE_LIFE / 2:
            expires = now + SIGNATURE_LIFE
            claims = {"aud": origin, "exp": int(expires.timestamp()), "sub": self._subject}
            token = jwt.encode(claims, self._private_key, algorithm="ES256")
            public = webpush.VAPID.get_application_server_key(load_pem_public_key(self._public_key))
            header = f"vapid t={token}, k={public}"
            self._signed[origin] = (expires, header)
        return header


def _key_pair(private_file: Path, public_file: Path) -> tuple[bytes, bytes]:
    """PEM of both.

    Raises:
        UnusableKey: not a P-256 key each, or not one pair.
    """
    private = load_pem_private_key(private_file.read_bytes(), None)
    public = load_pem_public_key(public_file.read_bytes())
    if not (isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1)):
        msg = f"{private_file} must be a P-256 private key in PEM"
        raise UnusableKey(msg)
    if private.public_key() != public:
        msg = f"{public_file} is not the public key of {private_file}"
        raise UnusableKey(msg)
    return private_file.read_bytes(), public_file.read_bytes()


def _subscription(target: Target) -> webpush.WebPushSubscription | None:
    """The browser's keys; None if they are no point on the curve or no secret."""
    keys = {"p256dh": target.details.get("p256dh"), "auth": target.details.get("auth")}
    try:
        made = webpush.WebPushSubscription.model_validate({"endpoint": target.address, "keys": keys})
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), _decoded(made.keys.p256dh))
        return made if len(_decoded(made.keys.auth)) == AUTH_BYTES else None
    except ValueError:
        return None


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _origin(url: httpx.URL) -> str:
    """https://www.rfc-editor.org/rfc/rfc6454#section-6.1: without the scheme's own port."""
    port = f":{url.port}" if url.port is not None else ""
    return f"{url.scheme}://{url.host}{port}"


def _host(target: Target) -> str:
    try:
        return httpx.URL(target.address).host or "?"
    except (httpx.InvalidURL, UnicodeError):
        return "?"
