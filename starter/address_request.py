"""An address in a request: normalised, and refused where no vendor could take it."""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Self

from email_validator import EmailNotValidError, validate_email
from pydantic import Field, JsonValue, model_validator

from activities.web_url import InvalidUrl, web_url
from contracts.addresses import normalised
from contracts.payloads.notification import ChannelName
from starter.request_model import RequestModel
from store.people import NewTarget

MAX_ADDRESS_CHARACTERS = 2048
MAX_DETAILS_BYTES = 8 * 1024
SHORTEST_SECRET_BYTES = 24  # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
P256_POINT_BYTES = 65
PUSH_AUTH_BYTES = 16  # https://www.rfc-editor.org/rfc/rfc8291#section-3.2

# The first letter of an id says what it is: https://docs.slack.dev/reference/objects/conversation-object
SLACK = re.compile(r"[CDGUW][A-Z0-9]{2,}|#[^\s#<>@&|,]{1,80}")
# Firebase documents no form (https://firebase.google.com/docs/cloud-messaging); today's are base64url and a colon.
FCM = re.compile(r"[A-Za-z0-9:_.=+-]+")
APNS = re.compile(r"(?:[0-9a-f]{2}){32,}")  # 32 bytes; Apple says that they may become more

Check = Callable[[str], None]
DetailsCheck = Callable[[Mapping[str, JsonValue]], None]


class Address(RequestModel):
    """Where somebody can be reached.

    `details`: `p256dh` and `auth` for web_push (as browsers give them), `environment` for apns, `secret` for webhook.
    """

    channel: ChannelName
    address: str = Field(min_length=1, max_length=MAX_ADDRESS_CHARACTERS, examples=["ada@example.com"])
    details: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        self.address = checked_address(self.channel, self.address)
        if len(json.dumps(self.details, ensure_ascii=False).encode()) > MAX_DETAILS_BYTES:
            raise ValueError(f"`details` may have {MAX_DETAILS_BYTES // 1024} KiB")
        if self.channel in DETAILS:
            DETAILS[self.channel](self.details)
        return self

    def target(self) -> NewTarget:
        """For the store."""
        return NewTarget(self.channel, self.address, self.details)


def checked_address(channel: ChannelName, address: str) -> str:
    """The address as it is stored.

    Raises:
        ValueError: it is none of this channel; the text says what one looks like.
    """
    stored = normalised(channel, address)
    ADDRESSES[channel](stored)
    return stored


def _email(address: str) -> None:
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"not a mail address: {error}") from error


def _slack(address: str) -> None:
    if not SLACK.fullmatch(address):
        raise ValueError(
            "a Slack address is the id of a channel or user, such as C024BE91L or U024BE7LH, or a channel's #name"
        )


def _fcm(address: str) -> None:
    if not FCM.fullmatch(address):
        raise ValueError("an FCM registration token consists of letters, digits and : _ - . = +")


def _apns(address: str) -> None:
    if not APNS.fullmatch(address):
        raise ValueError("an APNs device token is hexadecimal, at least 64 digits without spaces")


def _url(address: str) -> None:
    try:
        web_url(address)
    except InvalidUrl as error:
        raise ValueError(f"the address must be the endpoint's URL: {error}") from error


def _apns_details(details: Mapping[str, JsonValue]) -> None:
    if details.get("environment", "production") not in {"production", "sandbox"}:
        raise ValueError("`details.environment` is production or sandbox")


def _web_push_details(details: Mapping[str, JsonValue]) -> None:
    for name, length in (("p256dh", P256_POINT_BYTES), ("auth", PUSH_AUTH_BYTES)):
        if _decoded_length(details.get(name)) != length:
            raise ValueError(f"`details.{name}` must be the subscription's key, {length} bytes in base64url")


def _webhook_details(details: Mapping[str, JsonValue]) -> None:
    secret = details.get("secret")
    if not isinstance(secret, str) or not secret.startswith("whsec_"):
        raise ValueError("`details.secret` must be `whsec_` and at least 24 bytes in base64")
    if _decoded_length(secret.removeprefix("whsec_")) < SHORTEST_SECRET_BYTES:
        raise ValueError("`details.secret` is shorter than 24 bytes")


def _decoded_length(value: Any) -> int:
    if not isinstance(value, str):
        return -1
    bare = value.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return len(urlsafe_b64decode(bare + "=" * (-len(bare) % 4)))
    except ValueError:
        return -1


ADDRESSES: dict[ChannelName, Check] = {
    ChannelName.EMAIL: _email,
    ChannelName.SLACK: _slack,
    ChannelName.FCM: _fcm,
    ChannelName.APNS: _apns,
    ChannelName.WEB_PUSH: _url,
    ChannelName.WEBHOOK: _url,
}
DETAILS: dict[ChannelName, DetailsCheck] = {
    ChannelName.APNS: _apns_details,
    ChannelName.WEB_PUSH: _web_push_details,
    ChannelName.WEBHOOK: _webhook_details,
}
