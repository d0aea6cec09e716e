"""An answer's body as JSON, whatever it really is."""

import json
from typing import Any


def mapping(body: bytes) -> dict[str, Any] | None:
    """The object that the body is; None if it is none."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def inner(parent: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """The object under `name`; an empty one if there is none."""
    found = (parent or {}).get(name)
    return found if isinstance(found, dict) else {}


def text(parent: dict[str, Any] | None, name: str) -> str:
    """The string under `name`; an empty one if there is none."""
    found = (parent or {}).get(name)
    return found if isinstance(found, str) else ""
