"""What every JSON body has in common, from the API and from the command line."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

MAX_DEPTH = 50  # of lists and objects in each other; Slack's deepest blocks have ten
MAX_PLACE_CHARACTERS = 80  # of where something stands, in an error
OF_A_UNION = "|"  # begins a tag that only tells the kinds of a field apart and is no part of its name


class RequestModel(BaseModel):
    """Unknown fields are refused, as a misspelt one must not be ignored; and so is what the store cannot hold."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        refused = why_unstorable(value)
        if refused:
            raise ValueError(refused)
        return value


def why_unstorable(value: Any) -> str | None:
    """The first thing in a decoded JSON value that cannot be stored or sent, in words; None if there is none.

    PostgreSQL has no NUL (https://www.postgresql.org/docs/current/datatype-character.html), half a surrogate pair is no
    text, and NaN and Infinity are no JSON (https://www.rfc-editor.org/rfc/rfc8259#section-6), though Python reads them.
    """
    left: list[tuple[str, Any, int]] = [("", value, 0)]
    while left:
        place, each, depth = left.pop()
        refused = _why_not(each) if depth <= MAX_DEPTH else f"is nested deeper than {MAX_DEPTH} levels"
        if refused:
            shown = place if len(place) <= MAX_PLACE_CHARACTERS else f"{place[:MAX_PLACE_CHARACTERS]}…"
            return f"{shown or 'the body'} {refused}".encode(errors="backslashreplace").decode()
        if isinstance(each, Mapping):
            left += [("the name of a field", name, depth) for name in each]
            left += [(f"{place}.{name}".lstrip("."), inner, depth + 1) for name, inner in each.items()]
        elif isinstance(each, list):
            left += [(f"{place}[{number}]", inner, depth + 1) for number, inner in enumerate(each)]
    return None


def _why_not(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "is NaN or Infinity, which JSON does not have: give a number, a text or null"
    if not isinstance(value, str):
        return None
    if "\0" in value:
        return "contains a NUL character (\\u0000), which cannot be stored: leave it out"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "contains half a surrogate pair (\\ud800 to \\udfff), which is no text: send the whole character"
    return None


def in_words(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Pydantic's errors as `field`, `body` or the like first, and `problem`, without what only Python knows."""
    return [{"field": _field(each), "problem": _problem(each)} for each in errors]


REWORDED = {
    "model_attributes_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "extra_forbidden": "is no field of this request; is it misspelt?",
    "missing": "is missing",
}


def _field(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":  # its place is a number of characters
        return str(error["loc"][0])
    return ".".join(str(part) for part in error["loc"] if not str(part).startswith(OF_A_UNION))


def _problem(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"is no JSON: {error['ctx']['error']}, at character {error['loc'][-1]}"
    return REWORDED.get(error["type"], str(error["msg"]).removeprefix("Value error, "))
