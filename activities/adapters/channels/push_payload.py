"""What all push channels share: a payload that fits."""

from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from activities.adapters.channels.channel import Content

SHORTEST_BODY = 20  # characters; a shorter one says nothing


def words(content: Content) -> tuple[str, str]:
    """Title and body."""
    return content.push_title or content.subject, content.push_body or " ".join(content.text.split())


def fitted(make: Callable[[str], dict[str, Any]], body: str, limit: int) -> bytes:
    """The payload as JSON of at most `limit` bytes: the body is cut, with an ellipsis, if it is longer.

    Where the rest alone is too long it is returned as it is: the vendor's refusal names the limit.
    """
    encoded = _json(make(body))
    while len(encoded) > limit and len(body) > SHORTEST_BODY:
        keep = max(SHORTEST_BODY, len(body) - max(1, (len(encoded) - limit) // 4) - 1)
        body = body[: keep - 1] + "…" if keep < len(body) else body[: len(body) - 2] + "…"
        encoded = _json(make(body))
    return encoded


def _json(value: dict[str, Any]) -> bytes:
    return to_json(value)
