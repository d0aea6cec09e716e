"""What requests about people and suppressions may say; checked before anything is stored."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from contracts.payloads.notification import ChannelName
from starter.address_request import MAX_ADDRESS_CHARACTERS, Address, checked_address
from starter.request_model import RequestModel
from store.people import ANY
from store.suppressions import Reason

REPORTED = (Reason.BOUNCED, Reason.COMPLAINED, Reason.UNSUBSCRIBED, Reason.MAILBOX_FULL)  # DEAD is the vendor's word
MAX_DETAIL_CHARACTERS = 500

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
SlugOrAny = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z0-9][a-z0-9_.-]{0,63})$")]
PersonId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]


def _reported(value: Any) -> Any:
    if value not in REPORTED:
        raise ValueError(f"{value!r} cannot be reported; say {', '.join(REPORTED[:-1])} or {REPORTED[-1]}")
    return value


class QuietHoursBody(RequestModel):
    """Wall-clock times in the person's `time_zone`; across midnight is fine."""

    start: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["22:00"])
    end: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["07:00"])


class PreferenceBody(RequestModel):
    """The most specific one counts: category and channel, category, channel, neither."""

    category: SlugOrAny = ANY
    channel: Literal["*", "email", "slack", "fcm", "apns", "web_push", "webhook"] = "*"
    allowed: bool


class PersonBody(RequestModel):
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


class SuppressionBody(RequestModel):
    """For bounces and complaints that a mail provider reports, and to lift one."""

    channel: ChannelName
    address: str = Field(min_length=1, max_length=MAX_ADDRESS_CHARACTERS)
    reason: Annotated[
        Reason, BeforeValidator(_reported, json_schema_input_type=Literal[*(each.value for each in REPORTED)])
    ] = Reason.BOUNCED
    category: Slug | None = None
    detail: str = Field(default="", description=f"Kept up to {MAX_DETAIL_CHARACTERS} characters.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        self.address = checked_address(self.channel, self.address)
        return self
