"""Slack: https://docs.slack.dev/reference/methods/chat.postMessage."""

from datetime import datetime, timedelta

import structlog

from activities.adapters.channels.answers import slack as answers
from activities.adapters.channels.answers.json_body import inner, mapping, text
from activities.adapters.channels.channel import AfterLostReply, Message, Outcome, Scope, Target, Verdict
from activities.adapters.channels.http import Answer, client, exchange
from contracts.payloads.notification import ChannelName

log = structlog.get_logger(__name__)

PACE = timedelta(seconds=1)  # https://docs.slack.dev/apis/web-api/rate-limits: one message a second per channel
BURST = 3
MAX_HISTORY_PAGES = 5  # newest first; beyond a thousand later messages the question stays open
CLOCKS_DIFFER = timedelta(seconds=5)
MAX_SECTION_CHARACTERS = 3_000  # https://docs.slack.dev/reference/block-kit/blocks/section-block
EVENT_TYPE = "holdfast_notification"


class Slack:
    """One workspace.

    Args:
        token: a bot token with chat:write; channels:history lets a lost reply be checked.
        workspace: names it in limiter keys.
        api_url: another one for tests.
    """

    name = ChannelName.SLACK
    after_lost_reply = AfterLostReply.CHECK

    def __init__(self, *, token: str, workspace: str = "default", api_url: str = "https://slack.com/api") -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._workspace = workspace
        self._api_url = api_url
        self._http = client()

    def scopes(self, target: Target) -> tuple[Scope, ...]:
        """The workspace, and the channel at its pace."""
        whole = f"slack:{self._workspace}"
        one = Scope(f"{whole}:{target.address}", "the Slack channel", interval=PACE, burst=BURST)
        return (Scope(whole, f"the Slack workspace {self._workspace}"), one)

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Post; `text` is what notifications and screen readers show."""
        content = message.content
        blocks = content.slack_blocks or (_section(f"*{escape(content.subject)}*\n{escape(content.text)}"),)
        body = {
            "channel": target.address,
            "text": escape(content.subject),
            "blocks": list(blocks),
            "unfurl_links": False,
            "unfurl_media": False,
            "metadata": {"event_type": EVENT_TYPE, "event_payload": {"effect_id": message.effect_id}},
        }
        url = f"{self._api_url}/chat.postMessage"
        answer = await exchange(self._http, url, scope=f"slack:{self._workspace}", json=body, headers=self._headers)
        if isinstance(answer, Outcome):
            return answer
        return answers.judge(
            answer.status, answer.headers, answer.body, now=now, workspace=self._workspace, channel=target.address
        )

    async def find(self, target: Target, message: Message, *, since: datetime) -> Outcome | None:
        """Look for the message in the channel's history: https://docs.slack.dev/reference/methods/conversations.history."""
        params: dict[str, str | int] = {
            "channel": target.address,
            "oldest": f"{(since - CLOCKS_DIFFER).timestamp():.6f}",
            "include_all_metadata": "true",
            "limit": 200,
        }
        for _ in range(MAX_HISTORY_PAGES):
            answer = await exchange(
                self._http,
                f"{self._api_url}/conversations.history",
                scope="",
                method="GET",
                params=params,
                headers=self._headers,
            )
            page = mapping(answer.body) if isinstance(answer, Answer) else None
            if page is None or page.get("ok") is not True or not isinstance(page.get("messages"), list):
                log.warning("slack.history_unreadable", effect=message.effect_id, error=text(page, "error"))
                return None
            for each in page["messages"]:
                found = each if isinstance(each, dict) else {}
                if text(inner(inner(found, "metadata"), "event_payload"), "effect_id") == message.effect_id:
                    return Outcome(Verdict.SENT, "ok", vendor_id=text(found, "ts"))
            cursor = text(inner(page, "response_metadata"), "next_cursor")
            if not cursor:
                return Outcome(Verdict.RETRY, "not_in_history")
            params["cursor"] = cursor
        return None

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()


def escape(text: str) -> str:
    """https://docs.slack.dev/messaging/formatting-message-text#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:MAX_SECTION_CHARACTERS]}}
