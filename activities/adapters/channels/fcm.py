"""FCM HTTP v1: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2.service_account import Credentials

from activities.adapters.channels.answers import fcm as answers
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, Verdict
from activities.adapters.channels.direct_http import DirectHttp
from activities.adapters.channels.http import Answer
from activities.adapters.channels.push_payload import fitted, words
from contracts.payloads.notification import ChannelName

log = structlog.get_logger(__name__)

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
USUAL_LIFE = timedelta(hours=1)  # of an access token
RENEW_BEFORE = timedelta(minutes=5)
TOKEN_SECONDS = 10  # for the token endpoint, per try
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
        self._http = DirectHttp()
        self._renewing = asyncio.Lock()
        self._renew_at: datetime | None = None
        self._access_token = ""
        self._request = partial(Request(), timeout=TOKEN_SECONDS)

    def scopes(self, target: Target) -> tuple[Scope, ...]:  # noqa: ARG002 - the protocol's
        """The project."""
        return (Scope(self._scope, f"FCM for {self._project}"),)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Send; once more with a new access token if the token was refused."""
        body = self._body(target, message, now)
        used = self._access_token
        answer = await self._post(body, now, refused=None)
        if isinstance(answer, Answer) and answer.status == UNAUTHENTICATED and THIRD_PARTY not in answer.body:
            answer = await self._post(body, now, refused=used or self._access_token)
        if isinstance(answer, Outcome):
            return answer
        return answers.judge(answer.status, answer.headers, answer.body, now=now, project=self._project)

    async def _post(self, body: bytes, now: datetime, *, refused: str | None) -> Answer | Outcome:
        try:
            token = await self._token(now, refused=refused)
        except Exception as error:  # noqa: BLE001 - google-auth lets through whatever an odd answer makes it raise
            return self._no_token(error)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return await self._http.post(self._url, scope=self._scope, content=body, headers=headers)

    async def find(self, target: Target, message: Message, *, since: datetime) -> None:
        """FCM does not tell."""

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    async def _token(self, now: datetime, *, refused: str | None) -> str:
        """The access token all sends share; one renews it, the others wait."""
        async with self._renewing:
            if self._renew_at is None or now >= self._renew_at or self._access_token == refused:
                await asyncio.to_thread(self._credentials.refresh, self._request)
                expiry = self._credentials.expiry
                lifetime = expiry.replace(tzinfo=UTC) - datetime.now(UTC) if expiry else USUAL_LIFE  # naive, in UTC
                self._renew_at = now + max(lifetime - RENEW_BEFORE, timedelta(minutes=1))
                self._access_token = str(self._credentials.token)
            return self._access_token

    def _no_token(self, error: Exception) -> Outcome:
        if isinstance(error, RefreshError) and not error.retryable:
            detail = f"Google gives no access token for the service account: {error}"
            return Outcome(Verdict.AUTH, "token_refused", detail, scope=self._scope)
        detail = f"no access token: {type(error).__name__} {error}"
        return Outcome(Verdict.RETRY, "token_endpoint", detail, scope=self._scope)

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
                    "apns": {
                        "headers": {
                            "apns-collapse-id": message.notification_id,
                            "apns-expiration": str(int(message.expires_at.timestamp())),
                        }
                    },
                    "webpush": {
                        "headers": {"TTL": str(int(life.total_seconds()))},
                        "notification": {"tag": message.notification_id},
                    },
                }
            }

        return fitted(made, text, MAX_BYTES)
