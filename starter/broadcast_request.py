"""What a broadcast request may say of its message, and whether a recipient's line fits it."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from activities.templates import TemplateDataError, Templates
from contracts.payloads.notification import Route
from starter.notification_request import MessageBody
from starter.person_request import Slug
from starter.recipient_intake import AddressLine, Spoken
from starter.request_model import RequestModel

RENDERED_AT_MOST = 20  # lines, until one fits; the others are only asked for the names of their data: 2 us, not 2 ms
EXAMPLE: dict[str, Any] = {
    "template": "comment_mention",
    "data": {"author": "Ada", "subject": "Q3 plan", "excerpt": "What do you think?", "url": "https://acme.example/q3"},
    "channels": ["push", "email"],
}


class BroadcastBody(MessageBody):
    """One message to many: the first line of an NDJSON body, whose further lines are the recipients."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    @model_validator(mode="after")
    def _has_channels(self) -> Self:
        if self.content is not None and self.channels is None:
            raise ValueError("a message without a template needs `channels`")
        return self


class AudienceBroadcastBody(BroadcastBody):
    """One message to a saved audience."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE | {"audience": "beta-testers"}})

    audience: Slug = Field(description="As saved with PUT /v1/audiences/{name}.")


class PauseBody(RequestModel):
    """`reason` is shown to who looks at the broadcast."""

    reason: str = Field(default="", max_length=500, examples=["the text has a mistake"])


class Fit:
    """Whether recipients' lines fit a message; called with one, the answer is what is wrong, in words.

    The first lines are rendered, until one renders; if the first 20 do not, the message itself is refused.
    """

    def __init__(self, templates: Templates, body: BroadcastBody, routes: tuple[Route, ...]) -> None:
        self._templates = templates
        self._body = body
        self._routes = routes
        self._channels = {channel for route in routes for channel in route.channels}
        self._needed = names_needed(templates, body.template) if body.template else frozenset()
        self._lacking = self._needed - _given(body.data)
        self._tried = 0
        self._rendered = body.template is None

    def __call__(self, said: Spoken) -> str | None:
        """What is wrong with the line, or None.

        Raises:
            TemplateDataError: of 20 lines none rendered.
        """
        if isinstance(said, AddressLine) and said.channel not in self._channels:
            mine = ", ".join(self._routes)
            return f"{said.channel.value} is none of this message's channels ({mine}): name it in `channels`"
        return self.why_data_unfit({} if isinstance(said, str) else said.data)

    def why_data_unfit(self, data: Mapping[str, JsonValue]) -> str | None:
        """What is wrong with a recipient's own data, or None. Raises as the call does."""
        if data and self._body.template is None:
            return "`data` is for a template, and this message has none"
        lacking = (self._lacking - _given(data)) | {each for each in self._needed & data.keys() if data[each] is None}
        if lacking:
            names = ", ".join(f"`{each}`" for each in sorted(lacking))
            return f"lacks data that the template {self._body.template!r} needs: {names}"
        return None if self._rendered else self._render(data)

    def _render(self, data: Mapping[str, JsonValue]) -> str | None:
        self._tried += 1
        try:
            self._templates.check_data(str(self._body.template), {**self._body.data, **data})
        except TemplateDataError as error:
            if self._tried == RENDERED_AT_MOST:
                raise
            return str(error)
        self._rendered = True
        return None


def names_needed(templates: Templates, name: str) -> frozenset[str]:
    """The names of data without which the template does not render: those that its own example cannot do without.

    Raises:
        UnknownTemplate: there is none of this name.
        TemplateBroken: a form cannot be compiled.
    """
    example = templates.get(name).example
    if not _renders(templates, name, example):
        return frozenset()
    return frozenset(
        each for each in example if not _renders(templates, name, {k: v for k, v in example.items() if k != each})
    )


def _renders(templates: Templates, name: str, data: Mapping[str, JsonValue]) -> bool:
    try:
        templates.check_data(name, data)
    except TemplateDataError:
        return False
    return True


def _given(data: Mapping[str, JsonValue]) -> frozenset[str]:
    return frozenset(name for name, value in data.items() if value is not None)
