"""Slack's limits on blocks, checked before a message is accepted: the whole message is refused later otherwise.

https://docs.slack.dev/reference/block-kit/blocks and https://docs.slack.dev/reference/block-kit/block-elements
"""

from collections.abc import Iterator, Mapping
from typing import Any

MAX_BLOCKS = 50
MAX_TEXT = {"section": 3_000, "header": 150, "button": 75}  # characters, as sent: `&` counts as `&amp;`
MAX_FIELD = 2_000
MAX_URL = 3_000
URL_KEYS = frozenset({"url", "image_url"})


def too_long(blocks: list[Any]) -> str | None:
    """What Slack would refuse, in words; None if nothing."""
    if len(blocks) > MAX_BLOCKS:
        return f"{len(blocks)} blocks; Slack takes {MAX_BLOCKS}"
    for part in _parts(blocks):
        kind = str(part.get("type"))
        for name, text, limit in _limited(part, kind):
            if len(text) > limit:
                return f"the {name} of a {kind} has {len(text):,} characters; Slack takes {limit:,}"
    return None


def with_plain_urls(value: Any) -> Any:
    """The same blocks with `&amp;`, `&lt;` and `&gt;` undone in URLs: Slack reads them in texts only."""
    if isinstance(value, list):
        return [with_plain_urls(each) for each in value]
    if isinstance(value, dict):
        return {
            name: _unescaped(each) if name in URL_KEYS and isinstance(each, str) else with_plain_urls(each)
            for name, each in value.items()
        }
    return value


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _limited(part: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str, int]]:
    if kind in MAX_TEXT:
        yield "text", _text(part.get("text")), MAX_TEXT[kind]
    for field in part["fields"] if isinstance(part.get("fields"), list) else []:
        yield "field", _text(field), MAX_FIELD
    for name in URL_KEYS & part.keys():
        yield name, str(part[name]), MAX_URL


def _text(value: Any) -> str:
    return str(value.get("text") or "") if isinstance(value, Mapping) else ""


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in the blocks."""
    if isinstance(value, Mapping):
        yield value
        for each in value.values():
            yield from _parts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _parts(each)
