"""What requests about activity events and the daily digest may say; checked before anything is stored."""

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
)

from activities.web_url import web_url
from starter.notification_request import ISO_TIME
from starter.person_request import PersonId, Slug
from starter.request_model import RequestModel
from store.digests import DEFAULT_AT, DEFAULT_ZONE, DigestSettings
from store.events import Event
from store.ids import new_id

MAX_EVENTS = 1_000
MAX_TITLE_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 2_000
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("must be more than spaces")
    return text


def _written_out(value: Any) -> Any:
    """Bare numbers are refused: some count seconds, others milliseconds."""
    if not isinstance(value, str) or not ISO_TIME.match(value):
        raise ValueError("say a time with its time zone such as 2026-11-24T09:00:00Z")
    return value


def _storable(moment: datetime) -> datetime:
    if not EARLIEST <= moment < LATEST:
        raise ValueError(f"must lie between {EARLIEST.year} and {LATEST.year}")
    return moment


@cache
def _zones() -> frozenset[str]:
    """As for people: places and UTC."""
    return frozenset(name for name in available_timezones() if "/" in name or name == "UTC")


def _known_zone(name: str) -> str:
    if name not in _zones():
        raise ValueError(f"{name[:64]!r} is no IANA time zone such as Europe/Berlin, and not UTC")
    return name


class EventBody(RequestModel):
    """One thing that happened to one person, who need not be known yet."""

    person: PersonId
    kind: Slug = Field(description="What sort of thing, such as comment_added.")
    title: Annotated[str, AfterValidator(_says_something)] = Field(min_length=1, max_length=MAX_TITLE_CHARACTERS)
    text: str | None = Field(default=None, max_length=MAX_TEXT_CHARACTERS)
    url: Annotated[str, AfterValidator(web_url)] | None = None
    id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="Yours: the same id is stored once. Without it, a repeated request stores it again."
    )
    at: Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_storable)] | None = Field(
        default=None, description="When it happened; by default now. Says the order only, not in which digest it is."
    )

    def event(self) -> Event:
        """For the store."""
        return Event(self.id or str(new_id()), self.person, self.kind, self.title, self.text, self.url, self.at)


class EventsBody(RequestModel):
    """A batch. The first event that is refused is named by its number, counted from 0, and nothing is stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "events": [
                    {
                        "person": "user-17",
                        "kind": "comment_added",
                        "title": "Grace commented on Roadmap 2027",
                        "text": "Could you check the second milestone?",
                        "url": "https://app.example.com/documents/7#comment-12",
                        "id": "comment-12",
                    }
                ]
            }
        }
    )

    # One refusal is enough, or a wrong batch would be answered with a thousand of them.
    events: Annotated[list[EventBody], FailFast()] = Field(min_length=1, max_length=MAX_EVENTS)


class DigestBody(RequestModel):
    """When the people of a tenant get their daily digest."""

    model_config = ConfigDict(json_schema_extra={"example": {"zone": "Europe/Lisbon", "at": "08:00"}})

    enabled: bool = True
    zone: Annotated[str, AfterValidator(_known_zone)] = DEFAULT_ZONE
    at: str = Field(default=DEFAULT_AT, pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="Of the wall clock there.")

    def settings(self) -> DigestSettings:
        """For the store."""
        return DigestSettings(self.enabled, self.zone, self.at)
