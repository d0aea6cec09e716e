"""FCM HTTP v1: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2.service_account import Credentials

from activities.adapters.channels.answers import fcm as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, Verdict
from activities.adapters.channels.http import Answer, client, exchange
from activities.adapters.channels.push_payload import fitted, words
from contracts.payloads.notification import ChannelName

log = structlog.get_logger(__name__)

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
RENEW_BEFORE = timedelta(minutes=5)  # an access token lives an hour
MAX_BYTES = 4096
LONGEST_TTL = timedelta(days=28)
UNAUTHENTICATED = 401
THIRD_PARTY = b"THIRD_PARTY_AUTH_ERROR"  # a new access token does not help


class Fcm:
    """One Firebase project.

    Args:
        credentials_file: the service account's JSON key.
        api_url: another one for tests.
    """

    name = ChannelName.FCM
    after_lost_reply = AfterLostReply.RESEND  # a notification with the same tag replaces the one that is shown

    def __init__(self, *, credentials_file: Path, api_url: str = "https://fcm.googleapis.com") -> None:
        self._project = str(json.loads(credentials_file.read_text())["project_id"])
        self._credentials = Credentials.from_service_account_file(str(credentials_file), scopes=[SCOPE])
        self._url = f"{api_url}/v1/projects/{self._project}/messages:send"
        self._scope = f"fcm:{self._project}"
        self._http = client()
        self._renewing = asyncio.Lock()
        self._renew_at: datetime | None = None

    def scopes(self, target: Target) -> tuple[Scope, ...]:  # noqa: ARG002 - the protocol's
        """The project."""
        return (Scope(self._scope),)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Send; once more with a new access token if the token was refused."""
        body = self._body(target, message, now)
        answer = await self._post(body, now, renew=False)
        if isinstance(answer, Answer) and answer.status == UNAUTHENTICATED and THIRD_PARTY not in answer.body:
            answer = await self._post(body, now, renew=True)
        if isinstance(answer, Outcome):
            return answer
        return answers.judge(answer.status, answer.headers, answer.body, now=now, project=self._project)

    async def _post(self, body: bytes, now: datetime, *, renew: bool) -> Answer | Outcome:
        try:
            token = await self._token(now, renew=renew)
        except GoogleAuthError as error:
            return self._no_token(error)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = self._http.build_request("POST", self._url, content=body, headers=headers)
        return await exchange(self._http, request, scope=self._scope)

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """FCM does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def _token(self, now: datetime, *, renew: bool) -> str:
        """The access token all sends share; one renews it, the others wait."""
        used = self._credentials.token
        async with self._renewing:
            stale = self._renew_at is None or now >= self._renew_at
            if stale or (renew and self._credentials.token == used):
                await asyncio.to_thread(self._credentials.refresh, Request())
                lifetime = self._credentials.expiry - _utc_naive()
                self._renew_at = now + max(lifetime - RENEW_BEFORE, timedelta(minutes=1))
            return str(self._credentials.token)

    def _no_token(self, error: GoogleAuthError) -> Outcome:
        if getattr(error, "retryable", False):
            return Outcome(Verdict.RETRY, "token_endpoint", str(error)[:500], scope=self._scope)
        detail = f"Google gives no access token for the service account: {error}"
        return Outcome(Verdict.AUTH, "token_refused", detail[:500], scope=self._scope)

    def _body(self, target: Target, message: Message, now: datetime) -> bytes:
        content = message.content
        title, text = words(content)
        life = min(max(message.expires_at - now, timedelta()), LONGEST_TTL)
        data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in content.data.items()}
        if content.url:
            data["url"] = content.url

        def made(body: str) -> dict[str, Any]:
            return {
                "message": {
                    "token": target.address,
                    "notification": {"title": title, "body": body},
                    "data": data,
                    "android": {
                        "priority": "high" if message.urgent else "normal",
                        "ttl": f"{int(life.total_seconds())}s",
                        "notification": {"tag": message.notification_id},
                    },
                    "apns": {"headers": {"apns-collapse-id": message.notification_id}},
                    "webpush": {"notification": {"tag": message.notification_id}},
                }
            }

        return fitted(made, text, MAX_BYTES)


def _utc_naive() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)  # google-auth's expiry is naive UTC
