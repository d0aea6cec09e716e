"""Web Push: RFC 8030, VAPID (RFC 8292), aes128gcm (RFC 8291)."""

from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import jwt
import webpush
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import ValidationError

from activities.adapters.channels.answers import web_push as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, Verdict
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
SIGNATURE_LIFE = timedelta(hours=12)  # at most 24


class WebPush:
    """Every browser whose push service is allowed: endpoints come from browsers, so they could name any host.

    Args:
        private_key_file: PEM, signs (VAPID).
        public_key_file: PEM.
        subject: `mailto:…` or `https:…`, for the push services' operators.
        allowed_hosts: host patterns; an entry with a scheme, such as `http://127.0.0.1:9000`, allows that origin.
    """

    name = ChannelName.WEB_PUSH
    after_lost_reply = AfterLostReply.RESEND  # the same tag replaces what is shown, the same Topic what waits

    def __init__(
        self, *, private_key_file: Path, public_key_file: Path, subject: str, allowed_hosts: tuple[str, ...]
    ) -> None:
        self._private_key = private_key_file.read_bytes()
        self._public_key = public_key_file.read_bytes()
        self._subject = subject
        self._allowed = allowed_hosts
        self._signed: dict[str, tuple[datetime, str]] = {}
        self._http = client()

    def scopes(self, target: Target) -> tuple[Scope, ...]:
        """The push service."""
        return (Scope(f"web_push:{_host(target)}"),)

    def allows(self, endpoint: str) -> bool:
        """Whether the endpoint belongs to an allowed push service."""
        parts = urlsplit(endpoint)
        if f"{parts.scheme}://{parts.netloc}" in self._allowed:
            return True
        host = parts.hostname or ""
        plain = parts.scheme == "https" and parts.port in {None, 443} and not parts.username
        return plain and any(fnmatch(host, pattern) for pattern in self._allowed)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Encrypt and send."""
        if not self.allows(target.address):
            detail = f"{_host(target)} is no push service that is allowed: see HOLDFAST_WEB_PUSH_HOSTS"
            return Outcome(Verdict.FIX_OURS, "endpoint_not_allowed", detail)
        try:
            body, headers = self._encrypted(target, message, now)
        except (ValidationError, ValueError, webpush.WebPushException) as error:
            return Outcome(Verdict.DROP_TARGET, "subscription_keys", f"the subscription's keys are unusable: {error}")
        request = self._http.build_request("POST", target.address, content=body, headers=headers)
        answer = await exchange(self._http, request, scope=f"web_push:{_host(target)}")
        if isinstance(answer, Outcome):
            return answer
        return answers.judge(answer.status, answer.headers, answer.body, now=now, host=_host(target))

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """A push service does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    def _encrypted(self, target: Target, message: Message, now: datetime) -> tuple[bytes, dict[str, str]]:
        content = message.content
        title, text = words(content)

        def made(body: str) -> dict[str, Any]:
            shown = {"title": title, "body": body, "url": content.url, "tag": message.notification_id}
            return {**shown, "data": dict(content.data)}

        subscription = webpush.WebPushSubscription.model_validate(
            {
                "endpoint": target.address,
                "keys": {"p256dh": target.details.get("p256dh"), "auth": target.details.get("auth")},
            }
        )
        # Its `get` keeps the subscriber of one call for the next, so one is made for each message. Of its headers only
        # the encoding is used: its signature leaves out the port, and knows no https: subject.
        library = webpush.WebPush(private_key=self._private_key, public_key=self._public_key, subscriber=self._subject)
        encrypted = library.get(fitted(made, text, MAX_BYTES), subscription)
        life = min(max(int((message.expires_at - now).total_seconds()), 0), LONGEST_TTL_SECONDS)
        topic = urlsafe_b64encode(UUID(message.notification_id).bytes).decode().rstrip("=")
        return encrypted.encrypted, {
            "content-encoding": "aes128gcm",
            "authorization": self._authorization(target.address, now),
            "ttl": str(life),
            "topic": topic,
            "urgency": "high" if message.urgent else "normal",
        }

    def _authorization(self, endpoint: str, now: datetime) -> str:
        """VAPID: https://www.rfc-editor.org/rfc/rfc8292#section-2. One signature per push service and half its life."""
        parts = urlsplit(endpoint)
        origin = f"{parts.scheme}://{parts.netloc}"
        expires, header = self._signed.get(origin, (now, ""))
        if expires - now < SIGNATURE_LIFE / 2:
            expires = now + SIGNATURE_LIFE
            claims = {"aud": origin, "exp": int(expires.timestamp()), "sub": self._subject}
            token = jwt.encode(claims, self._private_key, algorithm="ES256")
            public = webpush.VAPID.get_application_server_key(load_pem_public_key(self._public_key))
            header = f"vapid t={token}, k={public}"
            self._signed[origin] = (expires, header)
        return header


def _host(target: Target) -> str:
    return urlsplit(target.address).hostname or "?"
