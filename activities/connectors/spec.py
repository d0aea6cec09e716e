"""The words in which a third-party API is described: a connector is a value of these, and engine.py acts on it."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr

from contracts.payloads.sync import vendor_queue

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
PARENT = "@parent"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target` is a path below the base URL, or a whole URL that the vendor gave."""

    target: str
    method: str = "GET"
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def having(self, **params: str) -> "Request":
        """With these parameters besides its own."""
        return replace(self, params={**self.params, **params})


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are in lower case; `at` is when it came, by our clock."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    at: datetime

    @cached_property
    def body(self) -> JsonValue:
        """The JSON, None where it is none."""
        try:
            return json.loads(self.content)  # type: ignore[no-any-return]
        except (ValueError, RecursionError):
            return None

    def find(self, path: str) -> JsonValue:
        """The value at a dotted path of the body, None where there is none."""
        return find(self.body, path)

    def said(self, path: str) -> str:
        """The text at a dotted path of the body, empty where there is none."""
        found = self.find(path)
        return found if isinstance(found, str) else ""


def find(value: JsonValue, path: str) -> JsonValue:
    """The value at a dotted path, None where there is none; the empty path is the value itself."""
    for name in path.split(".") if path else ():
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


class Meaning(StrEnum):
    """What an answer means.

    OK            the page is good
    THROTTLED     a limit was met: nothing of this scope before a time
    OVERLOADED    the vendor does not work now
    UNAUTHORIZED  the access token is not taken: refresh it, or the customer has to connect again
    GONE_CURSOR   the cursor or sync token has expired: begin this resource anew, in full
    MISSING       what was asked about is not there, or not for us: leave this parent out
    PERMANENT     it will be refused again: somebody has to mend the connector or the connection
    """

    OK = "ok"
    THROTTLED = "throttled"
    OVERLOADED = "overloaded"
    UNAUTHORIZED = "unauthorized"
    GONE_CURSOR = "gone_cursor"
    MISSING = "missing"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judged answer.

    `code` groups equal ones, `detail` is the vendor's words. `wait` is how long a THROTTLED or OVERLOADED scope is to
    rest, None where the vendor names no time; on an OK answer it is a wish to be asked less. `budget` names the budget
    that was used up; empty: the resource's own, or the whole connection where it has none.
    """

    meaning: Meaning
    code: str = ""
    detail: str = ""
    wait: timedelta | None = None
    budget: str = ""


OK = Judgement(Meaning.OK)


@dataclass(frozen=True, slots=True)
class Observed:
    """What limit headers say of a budget: so many are left until then. `budget` empty: the connection's own."""

    remaining: int
    resets_at: datetime
    limit: int | None = None
    budget: str = ""


class Holder(StrEnum):
    """Who shares a budget: one connection, or all connections of the vendor together."""

    CONNECTION = "connection"
    APP = "app"


class KeptBy(StrEnum):
    """Who keeps a budget.

    QUEUE   the Temporal server, as the rate of the vendor's task queue (APP) or of its fairness keys (CONNECTION)
    STORE   store/budgets.py: for endpoints, points, days, and windows under a minute
    """

    QUEUE = "queue"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Budget:
    """How many calls, or points, a scope may make in a window.

    Args:
        name: of the budget, unique in the connector.
        limit: calls or points.
        per: the window.
        source: the vendor's page that says so.
        holder: who shares it.
        kept_by: who keeps it; at most one of each holder is kept by the queue.
        points: what a page costs, by how many rows it had; None: one.
        share: how much of it is used; the rest is for clocks and networks that are not even.
    """

    name: str
    limit: int
    per: timedelta
    source: str
    holder: Holder = Holder.CONNECTION
    kept_by: KeptBy = KeptBy.STORE
    points: Callable[[int], int] | None = None
    share: float = 0.97

    @property
    def interval(self) -> timedelta:
        """The least mean time between calls, or between points."""
        return self.per / (self.limit * self.share)

    def having(self, limits: Mapping[str, int]) -> "Budget":
        """With the limit of a connection's own plan, which is none of what all connections share."""
        if self.holder is Holder.APP:
            return self
        return replace(self, limit=limits.get(self.name, self.limit))

    @property
    def per_second(self) -> float:
        """Calls."""
        return 1 / self.interval.total_seconds()


class Paging(Protocol):
    """How a list goes on. A cursor is a text; None is the end."""

    def first(self, request: Request) -> Request:
        """The first page's request."""

    def after(self, request: Request, cursor: str) -> Request:
        """The request of the page that `cursor` names."""

    def next(self, request: Request, answer: Answer, rows: int) -> str | None:
        """The cursor behind this page, which had so many rows; `request` is the one that was sent."""


@dataclass(frozen=True, slots=True)
class Since:
    """How a resource is asked for what changed.

    Args:
        apply: a request for what changed at that instant or later.
        overlap: how far before the last pass's beginning the next one begins: the vendor's resolution, and how late it
            shows a change.
    """

    apply: Callable[[Request, datetime, "Settings"], Request]
    overlap: timedelta = timedelta(minutes=1)


class Row(BaseModel):
    """What a row must have at least; all of it is kept."""

    model_config = ConfigDict(extra="allow")


class Settings(BaseModel):
    """What a connection needs besides credentials: nothing secret.

    `limits` are those of its own plan, by the name of the budget, where they differ from the connector's.
    """

    model_config = ConfigDict(extra="forbid", str_min_length=1, str_max_length=500)

    limits: dict[str, Annotated[int, Field(gt=0)]] = {}


@dataclass(frozen=True, slots=True)
class Resource:
    """A list of rows.

    Args:
        name: of the resource, as it is stored.
        path: below the base URL. `{name}` is a value of `of_parent`, or of the settings.
        row: what a row must have.
        paging: how the list goes on.
        row_id: where in a row its id is.
        id_in_parent: the id is unique only under one parent.
        items: where in the body the rows are; empty: the body is the list.
        params: of every request; they have `{name}`s as the path does.
        since: how to ask for changes; None: every pass lists all there is, and what is missing from it was deleted.
        updated: where in a row the time of its last change is; an older version never replaces a newer one.
        omit: fields that are not kept: secrets, and what every answer has anew, by which all rows seem to change.
        deleted: whether a row says that it was deleted.
        parent: the resource whose rows this one is listed for, one after the other.
        of_parent: names in `path` and `params`, and where in the parent's row their values are; PARENT is the id of the
            parent's own parent.
        visit: which parents.
        changed: only parents that changed since the last pass.
        budgets: that its requests use, besides the connector's.
    """

    name: str
    path: str
    row: type[Row]
    paging: Paging
    row_id: str = "id"
    id_in_parent: bool = False
    items: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    since: Since | None = None
    updated: str = ""
    omit: tuple[str, ...] = ()
    deleted: Callable[[Mapping[str, JsonValue]], bool] = lambda _row: False
    parent: str = ""
    of_parent: Mapping[str, str] = field(default_factory=dict)
    visit: Callable[[Mapping[str, JsonValue]], bool] = lambda _row: True
    changed: bool = False
    budgets: tuple[Budget, ...] = ()

    @property
    def swept(self) -> bool:
        """Whether rows that a pass does not show were deleted."""
        return self.since is None


@dataclass(frozen=True, slots=True)
class OAuth:
    """Bearer tokens, and how to get the next one: https://www.rfc-editor.org/rfc/rfc6749#section-6.

    Args:
        host: of the token endpoint.
        path: of the token endpoint.
        basic: whether the client names itself by Basic authentication, and not in the form.
    """

    host: str
    path: str
    basic: bool = False


class Credentials(BaseModel):
    """What a customer's connection has: a token, and for OAuth what refreshes it."""

    model_config = ConfigDict(extra="forbid")

    access_token: SecretStr
    refresh_token: SecretStr | None = None
    expires_at: datetime | None = None
    client_id: str = ""
    client_secret: SecretStr | None = None


def _no_judgement(_answer: Answer) -> Judgement | None:
    return None


def _no_limits(_answer: Answer) -> tuple[Observed, ...]:
    return ()


@dataclass(frozen=True)
class Connector:
    """One third-party API.

    Args:
        name: as the API and the queue have it.
        host: scheme and host.
        base: what every path begins with; `{name}` is taken from the settings.
        docs: where its reference is.
        auth: how tokens are refreshed.
        resources: in the order they are synced; parents before children.
        budgets: that every request uses.
        settings: what a connection has to say.
        headers: of every request.
        judge: what an answer means where that is not told by the usual rules (judging.py); None: it is.
        limits: what an answer's headers say of budgets.
    """

    name: str
    host: str
    base: str
    docs: str
    auth: OAuth
    resources: tuple[Resource, ...]
    budgets: tuple[Budget, ...]
    settings: type[Settings] = Settings
    headers: Mapping[str, str] = field(default_factory=dict)
    judge: Callable[[Answer], Judgement | None] = _no_judgement
    limits: Callable[[Answer], tuple[Observed, ...]] = _no_limits

    @property
    def queue(self) -> str:
        """The task queue of its pages."""
        return vendor_queue(self.name)

    def resource(self, name: str) -> Resource:
        """By name.

        Raises:
            KeyError: there is none; the message names those there are.
        """
        for each in self.resources:
            if each.name == name:
                return each
        msg = f"{self.name} has no resource {name!r}; it has {', '.join(each.name for each in self.resources)}"
        raise KeyError(msg)

    def budgets_of(self, resource: Resource) -> tuple[Budget, ...]:
        """All that a request for it uses."""
        return (*self.budgets, *resource.budgets)

    def at(self, host: str = "", speed: float = 1.0) -> "Connector":
        """The same at another host, tokens too; `speed` divides every window, for tests in scaled time."""

        def faster(budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
            return tuple(replace(each, per=each.per / speed) for each in budgets)

        return replace(
            self,
            host=host or self.host,
            auth=replace(self.auth, host=host or self.auth.host),
            budgets=faster(self.budgets),
            resources=tuple(replace(each, budgets=faster(each.budgets)) for each in self.resources),
        )


def filled(template: str, values: Mapping[str, Any], quote: Callable[[str], str]) -> str:
    """A path or URL with its `{name}`s replaced.

    Raises:
        KeyError: a name has no value.
    """

    def value(name: re.Match[str]) -> str:
        found = values.get(name[1])
        if found is None or found == "":
            raise KeyError(name[1])
        return quote(str(found))

    return re.sub(r"\{(\w+)\}", value, template)
