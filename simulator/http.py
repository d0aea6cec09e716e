"""The vendors that speak HTTP/1.1: Slack, Google's token endpoint, FCM, a push service, receivers of webhooks."""

import asyncio
import hmac
import json
import secrets
import time
from base64 import b64decode, b64encode
from collections import defaultdict
from hashlib import sha256
from itertools import count
from typing import Any

import jwt
from aiohttp import web

from simulator import web_push
from simulator.bucket import Bucket
from simulator.credentials import PROJECT, SLACK_TOKEN, Credentials
from simulator.faults import Faults
from simulator.records import Records
from simulator.rows import ROWS, Answer

FCM_BYTES = 4096
TOKEN_SECONDS = 3599
TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"  # noqa: S105 - wherever the endpoint is
SLACK_BURST = 5  # "one message per second per channel", and short bursts are let through
TOLERANCE_SECONDS = 300  # of a webhook's timestamp


class Vendors:
    """The handlers and what they remember."""

    def __init__(self, faults: Faults, records: Records) -> None:
        self._faults = faults
        self._records = records
        self._slack_times = count(1)
        self._slack_paces: dict[str, Bucket] = defaultdict(lambda: Bucket(per_second=1, size=SLACK_BURST))
        self.credentials: Credentials
        self.origin = ""
        self.token_answer: tuple[int, bytes] | None = None  # of the token endpoint, in the place of its own
        self.access_tokens: dict[str, float] = {}
        self.slack_messages: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.subscriptions: dict[str, web_push.Subscription] = {}
        self.webhook_secrets: dict[str, str] = {}

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        return [
            web.post("/slack/api/chat.postMessage", self.slack_post),
            web.get("/slack/api/conversations.history", self.slack_history),
            web.post("/oauth/token", self.token),
            web.post("/fcm/v1/projects/{project}/messages:send", self.fcm),
            web.post("/web-push/{name}", self.web_push),
            web.post("/webhooks/{name}", self.webhook),
        ]

    def subscribe(self) -> web_push.Subscription:
        """A browser's new subscription."""
        made = web_push.subscribe(self.origin)
        self.subscriptions[made.endpoint] = made
        return made

    async def slack_post(self, request: web.Request) -> web.StreamResponse:
        """chat.postMessage."""
        body = await request.json()
        channel = str(body.get("channel", ""))

        def take() -> tuple[Answer, Any, str, str, str]:
            if request.headers.get("Authorization") != f"Bearer {SLACK_TOKEN}":
                return ROWS["slack"]["invalid_auth"], None, "", "", ""
            if not body.get("text") and not body.get("blocks"):
                return ROWS["slack"]["no_text"], None, "", "", ""
            if not self._slack_paces[channel].allows(time.monotonic()):
                return ROWS["slack"]["429"], None, "", "", ""
            stamp = f"{time.time():.6f}"
            message = {
                "ts": stamp,
                "text": body.get("text"),
                "blocks": body.get("blocks"),
                "metadata": body.get("metadata"),
            }
            self.slack_messages[channel].append(message)
            effect = ((body.get("metadata") or {}).get("event_payload") or {}).get("effect_id", stamp)
            answer = Answer(200, {"ok": True, "channel": channel, "ts": stamp, "message": message})
            return answer, body, effect, f"{effect}:{next(self._slack_times)}", str(body.get("text"))

        return await self._take(request, "slack", channel, take)

    async def slack_history(self, request: web.Request) -> web.StreamResponse:
        """conversations.history, newest first."""
        if request.headers.get("Authorization") != f"Bearer {SLACK_TOKEN}":
            return web.json_response(ROWS["slack"]["invalid_auth"].body)
        oldest = float(request.query.get("oldest", "0"))
        start, limit = int(request.query.get("cursor", "0")), int(request.query.get("limit", "100"))
        found = [each for each in self.slack_messages[request.query["channel"]] if float(each["ts"]) > oldest][::-1]
        page = found[start : start + limit]
        if request.query.get("include_all_metadata") != "true":
            page = [{name: value for name, value in each.items() if name != "metadata"} for each in page]
        more = len(found) > start + limit
        cursor = {"next_cursor": str(start + limit) if more else ""}
        return web.json_response({"ok": True, "messages": page, "has_more": more, "response_metadata": cursor})

    async def token(self, request: web.Request) -> web.StreamResponse:
        """https://developers.google.com/identity/protocols/oauth2/service-account#httprest."""
        if self.token_answer is not None:
            status, raw = self.token_answer
            return web.Response(status=status, body=raw, content_type="application/json")
        form = await request.post()
        try:
            claims = jwt.decode(
                str(form.get("assertion", "")),
                self.credentials.service_account_public_key(),
                algorithms=["RS256"],
                audience=TOKEN_AUDIENCE,
            )
        except jwt.PyJWTError as error:
            return web.json_response({"error": "invalid_grant", "error_description": str(error)}, status=400)
        if "firebase.messaging" not in str(claims.get("scope")):
            return web.json_response({"error": "invalid_scope"}, status=400)
        made = secrets.token_urlsafe(24)
        self.access_tokens[made] = time.time() + TOKEN_SECONDS
        return web.json_response({"access_token": made, "expires_in": TOKEN_SECONDS, "token_type": "Bearer"})

    async def fcm(self, request: web.Request) -> web.StreamResponse:
        """messages:send."""
        raw = await request.read()
        body = json.loads(raw)
        message = body.get("message", {})
        target = str(message.get("token", ""))

        def take() -> tuple[Answer, Any, str, str, str]:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if self.access_tokens.get(token, 0) < time.time():
                return ROWS["fcm"]["UNAUTHENTICATED"], None, "", "", ""
            if not target or len(raw) > FCM_BYTES or request.match_info["project"] != PROJECT:
                return ROWS["fcm"]["BadRequest"], None, "", "", ""
            number = secrets.token_hex(8)
            tag = (message.get("android", {}).get("notification", {})).get("tag")
            answer = Answer(200, {"name": f"projects/{PROJECT}/messages/{number}"})
            title = str(message.get("notification", {}).get("title"))
            # Only the notification's tag replaces what a device shows; collapse_key is for what waits on the server.
            return answer, body, tag or number, tag or number, title

        return await self._take(request, "fcm", target, take)

    async def web_push(self, request: web.Request) -> web.StreamResponse:
        """https://www.rfc-editor.org/rfc/rfc8030#section-5."""
        raw = await request.read()
        endpoint = f"{self.origin}{request.path}"

        def take() -> tuple[Answer, Any, str, str, str]:
            subscription = self.subscriptions.get(endpoint)
            if subscription is None:
                return ROWS["web_push"]["404"], None, "", "", ""
            headers = {name.lower(): value for name, value in request.headers.items()}
            answer, payload = web_push.judge(subscription, headers, raw)
            if payload is None:
                return answer, None, "", "", ""
            tag = str(payload.get("tag") or secrets.token_hex(8))
            body = payload | {name: headers.get(name) for name in ("topic", "ttl", "urgency")}
            return answer, body, tag, tag, str(payload.get("title"))

        return await self._take(request, "web_push", endpoint, take)

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        """A customer's server: signature checked, the same id taken once."""
        raw = await request.read()
        name = request.match_info["name"]
        target = f"{self.origin}{request.path}"

        def take() -> tuple[Answer, Any, str, str, str]:
            effect, stamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "0")
            secret = self.webhook_secrets.get(name, "whsec_")
            key = b64decode(secret.removeprefix("whsec_"))
            signed = b64encode(hmac.new(key, f"{effect}.{stamp}.".encode() + raw, sha256).digest()).decode()
            sent = [each.removeprefix("v1,") for each in request.headers.get("webhook-signature", "").split(" ")]
            fresh = abs(time.time() - int(stamp)) < TOLERANCE_SECONDS
            if not key or not fresh or not any(hmac.compare_digest(signed, each) for each in sent):
                return Answer(401, {"error": "signature"}), None, "", "", ""
            body = json.loads(raw)
            return Answer(204), body, effect, effect, str(body.get("type"))

        return await self._take(request, "webhook", target, take)

    async def _take(self, request: web.Request, channel: str, target: str, take: Any) -> web.StreamResponse:
        fault = self._faults.take(channel, target)
        name = (fault.row or fault.kind) if fault else None
        if fault is not None:
            if fault.kind == "timeout":
                await asyncio.Event().wait()
            await asyncio.sleep(fault.delay_s)
            if fault.kind in {"reset", "close_before_data"}:
                _abort(request)
                return web.Response(status=500)
            if fault.kind == "answer":
                self._records.add(channel, target, accepted=False, effect="", body=None, fault=name)
                return _response(fault.answer())
        answer, body, effect, key, title = take()
        accepted = body is not None
        self._records.add(channel, target, accepted=accepted, effect=effect, body=body, fault=name)
        if accepted:
            pending = body.get("topic") if channel == "web_push" else None
            self._records.show(channel, target, key, title, pending_key=pending)
        if fault is not None and fault.kind == "close_after_data":
            _abort(request)
        return _response(answer)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _response(answer: Answer) -> web.Response:
    if answer.body is None or isinstance(answer.body, str):
        return web.Response(status=answer.status, text=answer.body, headers=answer.headers)
    return web.json_response(answer.body, status=answer.status, headers=answer.headers)
