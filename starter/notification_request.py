"""What a notification request may say; checked before anything is stored."""

import json
import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from activities.web_url import web_url
from contracts.payloads.notification import Route
from starter.address_request import Address
from starter.person_request import PersonId, Slug
from starter.request_model import OF_A_UNION, RequestModel

DEFAULT_LIFE = timedelta(hours=24)
LONGEST_LIFE = timedelta(days=7)  # a step's own history and the store's rows are kept longer than this
MAX_DATA_BYTES = 64 * 1024
ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")  # its beginning; the rest is for the parser
EXPIRES = "a time with its time zone such as 2026-11-24T09:00:00Z, or a duration such as PT2H (ISO 8601)"

_DURATION: TypeAdapter[timedelta] = TypeAdapter(timedelta)
_TIME: TypeAdapter[datetime] = TypeAdapter(datetime)


def _kind_of_recipient(value: Any) -> str | None:
    if isinstance(value, str):
        return f"{OF_A_UNION}person"
    return f"{OF_A_UNION}address" if isinstance(value, dict | Address) else None


def _moment_or_duration(value: Any) -> datetime | timedelta | None:
    """Bare numbers are refused: some count seconds from now, others since 1970."""
    if value is None or isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, str) and value.lstrip("+-").startswith("P"):
            return _DURATION.validate_python(value)
        if isinstance(value, datetime) or (isinstance(value, str) and ISO_TIME.match(value)):
            moment = _TIME.validate_python(value)
            if moment.tzinfo is not None:
                return moment
    except (ValidationError, OverflowError):
        pass
    raise ValueError(f"say {EXPIRES}, not {value!r}")


Recipient = Annotated[
    Annotated[PersonId, Tag(f"{OF_A_UNION}person")] | Annotated[Address, Tag(f"{OF_A_UNION}address")],
    Discriminator(
        _kind_of_recipient,
        custom_error_type="recipient",
        custom_error_message="say a person's id (a text), or an address (an object with `channel` and `address`)",
    ),
]
Expires = Annotated[
    datetime | timedelta | None, BeforeValidator(_moment_or_duration, json_schema_input_type=str | None)
]


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("must be more than spaces")
    return text


class AdHoc(RequestModel):
    """A message without a template. The forms that are left out are derived from `subject` and `text`."""

    subject: Annotated[str, AfterValidator(_says_something)] = Field(min_length=1, max_length=200)
    text: Annotated[str, AfterValidator(_says_something)] = Field(min_length=1, max_length=20_000)
    html: str | None = Field(default=None, max_length=200_000)
    slack_blocks: list[dict[str, JsonValue]] | None = Field(default=None, max_length=50)
    push_title: str | None = Field(default=None, max_length=200)
    push_body: str | None = Field(default=None, max_length=2_000)
    url: Annotated[str, AfterValidator(web_url)] | None = None


class MessageBody(RequestModel):
    """What is said, and how; to whom is said by what is built on it."""

    template: str | None = Field(default=None, description="A folder in templates/.")
    content: AdHoc | None = Field(default=None, description="Instead of a template.")
    data: dict[str, JsonValue] = Field(default_factory=dict, description="For the template; at most 64 KiB as JSON.")
    category: Slug | None = Field(default=None, description="What preferences are about; by default the template's.")
    channels: list[Route] | None = Field(
        default=None,
        min_length=1,
        max_length=7,
        description="In order of preference: the next is used when one reaches nobody. By default the template's.",
    )
    every: bool | None = Field(default=None, description="Use all channels instead of the first that reaches somebody.")
    urgency: Literal["normal", "urgent"] = Field(default="normal", description="`urgent` ignores quiet hours.")
    expires: Expires = Field(
        default=None, description=f"{EXPIRES}; dropped after it. By default 24 hours.".capitalize()
    )

    @field_validator("data")
    @classmethod
    def _small(cls, data: dict[str, JsonValue]) -> dict[str, JsonValue]:
        size = len(json.dumps(data, ensure_ascii=False).encode())
        if size > MAX_DATA_BYTES:
            raise ValueError(f"has {size:,} bytes as JSON, of at most {MAX_DATA_BYTES:,}: attach or link the rest")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.template is None) == (self.content is None):
            raise ValueError("say either `template` or `content`")
        if self.content is not None and self.data:
            raise ValueError("`data` is for a template; put what you want to say into `content`")
        if self.channels is not None and len(set(self.channels)) < len(self.channels):
            raise ValueError("`channels` names one twice")
        return self

    def expires_at(self, now: datetime) -> datetime:
        """As a time.

        Raises:
            ValueError: it is past, or further away than a week.
        """
        wanted = self.expires if self.expires is not None else DEFAULT_LIFE
        if isinstance(wanted, timedelta):
            wanted = now + max(-LONGEST_LIFE, min(wanted, 2 * LONGEST_LIFE))  # an absurd one would overflow
        if wanted <= now:
            raise ValueError(f"`expires` {wanted.isoformat()} is already past; the message was not accepted")
        if wanted > now + LONGEST_LIFE:
            raise ValueError(f"`expires` may be at most {LONGEST_LIFE.days} days away")
        return wanted


class NotificationBody(MessageBody):
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

    recipient: Recipient = Field(description="A person's id, or an address.")
    dedupe_key: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="The same key for the same recipient within 30 days is sent once, whatever it says."
    )
    attachments: list[str] = Field(default_factory=list, max_length=10, description="Ids of uploaded files; mail only.")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if isinstance(self.recipient, Address) and self.channels is not None:
            raise ValueError("`channels` is for a person; an address has its own channel")
        if self.content is not None and not isinstance(self.recipient, Address) and self.channels is None:
            raise ValueError("a message without a template to a person needs `channels`")
        return self
