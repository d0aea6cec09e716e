"""Signed webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md."""

import hmac
import json
from base64 import b64decode, b64encode
from datetime import datetime
from hashlib import sha256

from activities.adapters.channels.answers import webhook as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, Verdict
from activities.adapters.channels.http import client, exchange
from activities.adapters.channels.public_addresses import NotPublic, PublicAddresses
from contracts.payloads.notification import ChannelName

SHORTEST_KEY_BYTES = 24  # the specification's least


class Webhook:
    """Customers' servers. Their URLs could name anything, so only public addresses are reached.

    Args:
        allowed_networks: private ones that may be reached all the same, such as `10.1.0.0/16`.
    """

    name = ChannelName.WEBHOOK
    after_lost_reply = AfterLostReply.RESEND  # webhook-id is the receiver's idempotency key

    def __init__(self, *, allowed_networks: tuple[str, ...] = ()) -> None:
        self._addresses = PublicAddresses(allowed_networks)
        self._http = client(self._addresses.connector)

    def scopes(self, target: Target) -> tuple[Scope, ...]:
        """The one endpoint: a host may serve many customers."""
        return (Scope(_scope(target), "the webhook's receiver"),)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Sign and post. The timestamp is that of this attempt; the id is the same at every one."""
        try:
            host = self._addresses.check(target.address)
            key = _key(target)
        except NotPublic as error:
            return Outcome(Verdict.FIX_OURS, "address_not_allowed", str(error))
        except ValueError as error:
            return Outcome(Verdict.FIX_OURS, "secret", str(error))
        body = _body(message)
        stamp = str(int(now.timestamp()))
        signed = hmac.new(key, f"{message.effect_id}.{stamp}.".encode() + body, sha256).digest()
        headers = {
            "content-type": "application/json",
            "user-agent": "Holdfast/1",
            "webhook-id": message.effect_id,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{b64encode(signed).decode()}",
        }
        answer = await exchange(self._http, target.address, scope=_scope(target), content=body, headers=headers)
        if isinstance(answer, Outcome):
            if NotPublic.__name__ in answer.detail:
                return Outcome(Verdict.FIX_OURS, "address_not_allowed", f"{host} does not resolve to a public address")
            return answer
        outcome = answers.judge(answer.status, answer.headers, now=now, host=host, scope=_scope(target))
        if outcome.verdict is Verdict.SENT:
            return Outcome(Verdict.SENT, outcome.code, vendor_id=message.effect_id)
        return outcome

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """A receiver does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()


def _key(target: Target) -> bytes:
    secret = target.details.get("secret")
    if not isinstance(secret, str) or not secret.startswith("whsec_"):
        raise ValueError("the webhook has no secret that begins with whsec_: register it again with one")
    text = secret.removeprefix("whsec_").replace("-", "+").replace("_", "/").rstrip("=")
    key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    if len(key) < SHORTEST_KEY_BYTES:
        raise ValueError(f"the webhook's secret has {len(key)} bytes: register it again with one of at least 24")
    return key


def _scope(target: Target) -> str:
    digest = sha256(target.address.encode(errors="replace")).hexdigest()[:12]
    return f"webhook:{target.address.partition('://')[2].partition('/')[0][:60]}:{digest}"


def _body(message: Message) -> bytes:
    content = message.content
    data = {
        "notification_id": message.notification_id,
        "subject": content.subject,
        "text": content.text,
        "url": content.url,
        **content.data,
    }
    event = {"type": message.category, "timestamp": message.created_at.isoformat(), "data": data}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
