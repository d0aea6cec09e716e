"""The words every channel shares: what is sent, where to, and the six things an answer can mean."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from pydantic import JsonValue

from contracts.payloads.notification import ChannelName


class Verdict(StrEnum):
    """What a vendor's answer means.

    SENT          the vendor took responsibility
    RETRY         not now; nothing was sent. No attempt is burnt
    DROP_TARGET   this address is dead: do not use it again
    FIX_OURS      the vendor will never accept this message or our configuration; the address is fine
    AUTH          our credential was refused: the channel pauses until somebody acts
    MAYBE_SENT    the connection was lost after the message went out
    """

    SENT = "sent"
    RETRY = "retry"
    DROP_TARGET = "drop_target"
    FIX_OURS = "fix_ours"
    AUTH = "auth"
    MAYBE_SENT = "maybe_sent"


class AfterLostReply(StrEnum):
    """What to do about an effect that was claimed and never settled.

    RESEND        the vendor shows or accepts the same message once, by its own id
    CHECK         ask the vendor (`Channel.find`), then send or accept
    BY_TEMPLATE   the template's policy decides: resend with the same Message-ID, or leave
    """

    RESEND = "resend"
    CHECK = "check"
    BY_TEMPLATE = "by_template"


class UnusableKey(ValueError):
    """A key file holds something else than what the channel signs with; the text says what it should be."""


class CancelledBeforeSending(asyncio.CancelledError):
    """Cancelled while waiting for a connection or on one, and certainly nothing was sent."""


MAX_CODE_CHARACTERS = 100
MAX_DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judged answer.

    `code` groups equal answers (`550 5.1.1`, `UNREGISTERED`, `ratelimited`); `detail` is for people. Both are cut, and
    freed of what is no Unicode, because they come from outside and go into Temporal and the store.

    `retry_after` is what the vendor asked for, None where it named no time. `scope` is the limiter key that has to
    wait, None where only this target has. `dead_since` is when the vendor saw the address die: a registration after it
    is alive. `soft_bounce` marks a full or unwilling mailbox, to be counted. `at_most` bounds how often a RETRY is
    tried before it counts as FIX_OURS. `moved_to` is the target's new address.
    """

    verdict: Verdict
    code: str
    detail: str = ""
    vendor_id: str | None = None
    retry_after: timedelta | None = None
    scope: str | None = None
    dead_since: datetime | None = None
    soft_bounce: bool = False
    at_most: int | None = None
    moved_to: str | None = None

    def __post_init__(self) -> None:
        """Make it fit to be kept."""
        for name, limit in (("code", MAX_CODE_CHARACTERS), ("detail", MAX_DETAIL_CHARACTERS), ("vendor_id", 200)):
            text = getattr(self, name)
            if text is not None:
                object.__setattr__(self, name, text[:limit].encode("utf-8", "replace").decode().replace("\0", "?"))


@dataclass(frozen=True, slots=True)
class Target:
    """Where to. `address` is a mail address, a Slack channel or user id, a device token, a push endpoint or a URL.

    `details`: `p256dh` and `auth` of a Web Push subscription; `environment` (`production` or `sandbox`) of an APNs
    token; `secret` (`whsec_…`) of a webhook.
    """

    channel: ChannelName
    address: str
    registered_at: datetime
    details: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail; other channels leave it out."""

    filename: str
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """The forms of one message. A form that is None is derived from `subject` and `text` by its channel."""

    subject: str
    text: str
    html: str | None = None
    slack_blocks: tuple[dict[str, JsonValue], ...] | None = None
    push_title: str | None = None
    push_body: str | None = None
    url: str | None = None
    data: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """What to send to one target.

    `effect_id` (a UUID's text) is one per notification and target and the same at every repetition: Message-ID,
    apns-id and webhook-id are made of it. `notification_id` (a UUID's text) is what a device replaces by: FCM
    notification tag, apns-collapse-id, Web Push Topic and tag. `unsubscribe_url` takes a one-click POST (RFC 8058).
    """

    effect_id: str
    notification_id: str
    tenant: str
    category: str
    urgent: bool
    created_at: datetime
    expires_at: datetime
    content: Content
    unsubscribe_url: str | None = None
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """A limiter key such as `slack:T0:C1`, with `label` for people: the key may name somebody, and the label must not.

    `interval` is the least time between two sends; None is unpaced.
    """

    key: str
    label: str
    interval: timedelta | None = None
    burst: int = 1


class Channel(Protocol):
    """One way to reach somebody. A channel keeps its connections and tokens; it keeps no state about messages."""

    @property
    def name(self) -> ChannelName:
        """Of the catalogue of channels."""
        ...

    @property
    def after_lost_reply(self) -> AfterLostReply:
        """How a repetition stays harmless."""
        ...

    def scopes(self, target: Target) -> tuple[Scope, ...]:
        """What must allow a send to this target."""
        ...

    async def send(self, target: Target, message: Message, *, now: datetime) -> Outcome:
        """Send once and judge the answer. Raises nothing that the vendor or the network can cause.

        Raises:
            CancelledBeforeSending: cancelled, and certainly nothing was sent.
        """
        ...

    async def find(self, target: Target, message: Message, *, since: datetime) -> Outcome | None:
        """What became of a message sent at or after `since`: SENT, RETRY if it did not arrive, None if unknowable."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
