"""The words in which a connector's module of samples says what its vendor is asked and answers.

`{host}` in headers and bodies stands for where the vendor is. Answers have the Date of NOW unless they say another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from activities.connectors.engine import Parent
from activities.connectors.spec import Meaning, Observed

NOW = datetime(2026, 11, 4, 9, 0, 0, tzinfo=UTC)
SINCE = datetime(2026, 11, 4, 8, 30, 15, tzinfo=UTC)
TOKEN = "token-that-nobody-may-see"


@dataclass(frozen=True)
class Reply:
    """What the vendor answers. A text as body is sent as it is."""

    status: int = 200
    body: JsonValue = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exchange:
    """One request, all of its query, and the answer."""

    path: str
    query: Mapping[str, str]
    reply: Reply


@dataclass(frozen=True)
class ResourceSample:
    """A whole list: at least two pages where there can be more than one.

    Args:
        exchanges: from the first page to the last.
        ids: of all rows, in order.
        deleted: those of them that the vendor says are gone.
        parent: whose rows these are.
        since: the parameters of the first request that differ when it asks for what changed since SINCE.
    """

    exchanges: tuple[Exchange, ...]
    ids: tuple[str, ...]
    deleted: tuple[str, ...] = ()
    parent: Parent | None = None
    since: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """An answer that is no page, and all that it is to be taken for."""

    reply: Reply
    meaning: Meaning
    code: str
    wait: timedelta | None = None
    budget: str = ""


@dataclass(frozen=True)
class VendorSample:
    """All samples of a connector.

    Args:
        resources: by name; every one of the connector's.
        refusals: by what they are; at least one throttle, revoked token and overload.
        settings: of a connection.
        headers: of a good answer that say how much of a budget is left, and what they say.
    """

    resources: Mapping[str, ResourceSample]
    refusals: Mapping[str, Refusal]
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    observed: tuple[Observed, ...] = ()
