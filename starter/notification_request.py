"""What a notification request may say; checked before anything is stored."""

from base64 import urlsafe_b64decode
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from contracts.payloads.notification import ChannelName, Route
from store.people import NewTarget

DEFAULT_LIFE = timedelta(hours=24)
LONGEST_LIFE = timedelta(days=7)  # a step's own history and the store's rows are kept longer than this
MAX_DATA_BYTES = 64 * 1024
SHORTEST_SECRET_BYTES = 24  # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
P256_POINT_BYTES = 65
PUSH_AUTH_BYTES = 16  # https://www.rfc-editor.org/rfc/rfc8291#section-3.2

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
PersonId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]


class _Request(BaseModel):
    """Unknown fields are refused: a misspelt one must not be ignored."""

    model_config = ConfigDict(extra="forbid")


class Address(_Request):
    """Where somebody can be reached.

    `details`: `p256dh` and `auth` for web_push (as browsers give them), `environment` for apns, `secret` for webhook.
    """

    channel: ChannelName
    address: str = Field(min_length=1, max_length=2048, examples=["ada@example.com"])
    details: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        CHECKS[self.channel](self)
        return self

    def target(self) -> NewTarget:
        """For the store."""
        return NewTarget(self.channel, self.address, self.details)


class AdHoc(_Request):
    """A message without a template. The forms that are left out are derived from `subject` and `text`."""

    subject: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1, max_length=20_000)
    html: str | None = Field(default=None, max_length=200_000)
    slack_blocks: list[dict[str, JsonValue]] | None = Field(default=None, max_length=50)
    push_title: str | None = Field(default=None, max_length=200)
    push_body: str | None = Field(default=None, max_length=2_000)
    url: str | None = Field(default=None, max_length=2_000, pattern=r"^https?://")


class NotificationBody(_Request):
    """One message to one person, or to one address."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "recipient": "user-17",
                "template": "invoice_paid",
                "data": {
                    "number": "2026-0042",
                    "amount_cents": 129900,
                    "currency": "EUR",
                    "url": "https://acme.example",
                },
                "dedupe_key": "invoice-paid-2026-0042",
            }
        }
    )

    recipient: PersonId | Address = Field(description="A person's id, or an address.")
    template: str | None = Field(default=None, description="A folder in templates/.")
    content: AdHoc | None = Field(default=None, description="Instead of a template.")
    data: dict[str, JsonValue] = Field(default_factory=dict, description="For the template.")
    category: Slug | None = Field(default=None, description="What preferences are about; by default the template's.")
    channels: list[Route] | None = Field(
        default=None,
        min_length=1,
        max_length=7,
        description="In order of preference: the next is used when one reaches nobody. By default the template's.",
    )
    every: bool | None = Field(default=None, description="Use all channels instead of the first that reaches somebody.")
    urgency: Literal["normal", "urgent"] = Field(default="normal", description="`urgent` ignores quiet hours.")
    expires: AwareDatetime | timedelta | None = Field(
        default=None, description="A time, or a duration such as PT2H; dropped after it. By default 24 hours."
    )
    dedupe_key: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="The same key for the same recipient within 30 days is sent once, whatever it says."
    )
    attachments: list[str] = Field(default_factory=list, max_length=10, description="Ids of uploaded files; mail only.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.template is None) == (self.content is None):
            raise ValueError("say either `template` or `content`")
        if self.content is not None and self.data:
            raise ValueError("`data` is for a template; put what you want to say into `content`")
        if isinstance(self.recipient, Address) and self.channels is not None:
            raise ValueError("`channels` is for a person; an address has its own channel")
        if self.content is not None and not isinstance(self.recipient, Address) and self.channels is None:
            raise ValueError("a message without a template to a person needs `channels`")
        if self.channels is not None and len(set(self.channels)) < len(self.channels):
            raise ValueError("`channels` names one twice")
        return self

    def expires_at(self, now: datetime) -> datetime:
        """As a time.

        Raises:
            ValueError: it is past, or further away than a week.
        """
        wanted = self.expires if self.expires is not None else DEFAULT_LIFE
        moment = now + wanted if isinstance(wanted, timedelta) else wanted
        if moment <= now:
            raise ValueError(f"`expires` {moment.isoformat()} is already past; the message was not accepted")
        if moment > now + LONGEST_LIFE:
            raise ValueError(f"`expires` may be at most {LONGEST_LIFE.days} days away")
        return moment


class QuietHoursBody(_Request):
    """Wall-clock times in the person's `time_zone`; across midnight is fine."""

    start: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["22:00"])
    end: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["07:00"])


class PreferenceBody(_Request):
    """The most specific one counts: category and channel, category, channel, neither."""

    category: Slug | Literal["*"] = "*"
    channel: ChannelName | Literal["*"] = "*"
    allowed: bool


class PersonBody(_Request):
    """A person as the product knows them. `targets` and `preferences` that are given replace those there were."""

    locale: str | None = Field(default=None, pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", examples=["de"])
    time_zone: str | None = Field(default=None, examples=["Europe/Berlin"])
    quiet_hours: QuietHoursBody | None = None
    targets: list[Address] | None = Field(default=None, max_length=50)
    preferences: list[PreferenceBody] | None = Field(default=None, max_length=500)

    @model_validator(mode="after")
    def _zone_for_quiet_hours(self) -> Self:
        if self.quiet_hours is not None and self.time_zone is None:
            raise ValueError("`quiet_hours` need a `time_zone` such as Europe/Berlin")
        return self


def _email(address: Address) -> None:
    try:
        validate_email(address.address, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"not a mail address: {error}") from error


def _slack(address: Address) -> None:
    if address.address[0] not in "CDGUW#" or not address.address.isascii():
        raise ValueError("a Slack address is the id of a channel or user, such as C024BE91L or U024BE7LH")


def _token(address: Address) -> None:
    if not address.address.isascii() or any(character.isspace() for character in address.address):
        raise ValueError("a device token has no spaces and is ASCII")


def _apns(address: Address) -> None:
    try:
        bytes.fromhex(address.address)
    except ValueError as error:
        raise ValueError("an APNs device token is hexadecimal") from error
    if address.details.get("environment", "production") not in {"production", "sandbox"}:
        raise ValueError("`details.environment` is production or sandbox")


def _web_push(address: Address) -> None:
    _url(address)
    for name, length in (("p256dh", P256_POINT_BYTES), ("auth", PUSH_AUTH_BYTES)):
        if _decoded_length(address.details.get(name)) != length:
            raise ValueError(f"`details.{name}` must be the subscription's key, {length} bytes in base64url")


def _webhook(address: Address) -> None:
    _url(address)
    secret = address.details.get("secret")
    if not isinstance(secret, str) or not secret.startswith("whsec_"):
        raise ValueError("`details.secret` must be `whsec_` and at least 24 bytes in base64")
    if _decoded_length(secret.removeprefix("whsec_")) < SHORTEST_SECRET_BYTES:
        raise ValueError("`details.secret` is shorter than 24 bytes")


def _url(address: Address) -> None:
    parts = urlsplit(address.address)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username:
        raise ValueError("the address must be an https URL without a user name")


def _decoded_length(value: Any) -> int:
    if not isinstance(value, str):
        return -1
    try:
        return len(
            urlsafe_b64decode(
                value.replace("+", "-").replace("/", "_").rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
            )
        )
    except ValueError:
        return -1


CHECKS = {
    ChannelName.EMAIL: _email,
    ChannelName.SLACK: _slack,
    ChannelName.FCM: _token,
    ChannelName.APNS: _apns,
    ChannelName.WEB_PUSH: _web_push,
    ChannelName.WEBHOOK: _webhook,
}
