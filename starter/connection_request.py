"""The JSON bodies about connections. What a vendor needs, its connector says."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, JsonValue, SecretStr, StringConstraints, ValidationError

from activities.connectors.spec import Connector, Credentials, Holder, KeptBy
from activities.connectors.spec import Settings as ConnectionSettings
from starter.request_model import RequestModel, in_words

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
IN_A_HEADER = re.compile(r"[!-~]*")  # https://www.rfc-editor.org/rfc/rfc6750#section-2.1, and more than it allows

EXAMPLE: dict[str, Any] = {
    "provider": "github",
    "account": "acme-bot",
    "settings": {},
    "credentials": {"access_token": "gho_…"},
}
Model = TypeVar("Model", bound=BaseModel)


class ConnectionBody(RequestModel):
    """A new connection. `credentials` are sealed and never shown again."""

    provider: Annotated[Text, Field(examples=["github"])]
    account: Text = Field(description="The tenant's own name for it, once per provider.", examples=["acme-bot"])
    settings: dict[str, JsonValue] = Field(default={}, description="What the connector needs; nothing secret.")
    credentials: dict[str, JsonValue] = Field(
        description="`access_token`; if it expires also `refresh_token`, `expires_at`, `client_id`, `client_secret`.",
        examples=[EXAMPLE["credentials"]],
    )


class CredentialsBody(RequestModel):
    """New credentials, in the place of all that there were."""

    credentials: dict[str, JsonValue] = Field(examples=[EXAMPLE["credentials"]])


class FreezeBody(RequestModel):
    """Why."""

    reason: Reason = Field(examples=["their admin asked for a pause until Monday"])


class InvalidConnection(Exception):
    """A connector cannot work with this. `errors` are of the form of `in_words`, and never have a value in them."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{each['field']}: {each['problem']}" for each in errors))
        self.errors = errors


def checked(
    connector: Connector, settings: dict[str, JsonValue], credentials: dict[str, JsonValue]
) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """Settings and credentials to store.

    Raises:
        InvalidConnection: something is missing, unknown or of another form; all of it is named.
    """
    errors = _of_settings(connector, settings) + _of_credentials(credentials)
    if errors:
        raise InvalidConnection(errors)
    return settings, _without_nothing(credentials)


def checked_credentials(credentials: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Credentials to store.

    Raises:
        InvalidConnection: as `checked`.
    """
    errors = _of_credentials(credentials)
    if errors:
        raise InvalidConnection(errors)
    return _without_nothing(credentials)


def _of_settings(connector: Connector, settings: dict[str, JsonValue]) -> list[dict[str, str]]:
    found = _validated(connector.settings, settings, "settings")
    if not isinstance(found, ConnectionSettings):
        return found
    problems = {name: _of_limit(connector, name, limit) for name, limit in found.limits.items()}
    return [{"field": f"settings.limits.{name}", "problem": problem} for name, problem in problems.items() if problem]


def _of_limit(connector: Connector, name: str, limit: int) -> str:
    """What is wrong with the limit of a plan; empty if nothing is."""
    budgets = {each.name: each for resource in connector.resources for each in connector.budgets_of(resource)}
    budget = budgets.get(name)
    if budget is None:
        own = sorted(each.name for each in budgets.values() if each.holder is Holder.CONNECTION)
        has = f"it has {', '.join(own)}" if own else "it has none"
        return f"is no budget of {connector.name}; {has}"
    if budget.holder is Holder.APP:
        return f"is shared by all connections of {connector.name}, and no connection's plan changes it: leave it out"
    if budget.kept_by is KeptBy.QUEUE and limit > budget.limit:
        return f"may be at most {budget.limit:,}, because the queue of {connector.name} lets no connection have more"
    return ""


def _of_credentials(credentials: dict[str, JsonValue]) -> list[dict[str, str]]:
    found = _validated(Credentials, credentials, "credentials")
    if not isinstance(found, Credentials):
        return found
    errors = []
    if found.expires_at is not None and found.expires_at.tzinfo is None:
        errors.append({"field": "credentials.expires_at", "problem": "say the offset, such as 2026-11-24T09:00:00Z"})
    for name, value in found:
        secret = value.get_secret_value() if isinstance(value, SecretStr) else None
        if secret == "":
            errors.append({"field": f"credentials.{name}", "problem": "is empty"})
        elif secret and not IN_A_HEADER.fullmatch(secret):
            problem = "has a space, a line break or a letter in it that no token has: copy it again"
            errors.append({"field": f"credentials.{name}", "problem": problem})
    return errors


def _validated(model: type[Model], value: dict[str, JsonValue], place: str) -> Model | list[dict[str, str]]:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return in_words([{**each, "loc": (place, *each["loc"])} for each in found])


def _without_nothing(credentials: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in credentials.items() if value is not None}
