"""One page: build the request, send it, judge the answer, parse the rows. It never retries and never sleeps."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import quote

import httpx
from pydantic import JsonValue, SecretStr, ValidationError

from activities.connectors.judging import MAX_WORDS, judge, words
from activities.connectors.spec import (
    OK,
    PARENT,
    Answer,
    Connector,
    Credentials,
    Judgement,
    Meaning,
    Observed,
    Request,
    Resource,
    Settings,
    filled,
    find,
)
from activities.connectors.vendor_times import dated, retry_after
from runtime.clock import Clock
from store.synced import SyncedRow

MAX_BODY_BYTES = 32 * 1024 * 1024
REDIRECTS = 3
ENOUGH_ROWS = 3  # of one parent, none of them good, tell of a changed schema; fewer may be odd ones
LATER = frozenset({"server_error", "temporarily_unavailable"})  # https://www.rfc-editor.org/rfc/rfc6749#section-4.1.2.1


@dataclass(frozen=True, slots=True)
class Parent:
    """A row of the parent resource."""

    row_id: str
    data: Mapping[str, JsonValue]
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Which page. `since` is None in a full pass; `cursor` is None for the first page."""

    resource: Resource
    settings: Settings
    since: datetime | None = None
    parent: Parent | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What came of it. All but the first two are empty unless the judgement is OK.

    `malformed` are rows that lack what a row must have, and why, without their contents. `received` are all rows of the
    list, so that an empty page can be told from one of which no row is good. `dated` is the vendor's clock.
    """

    judgement: Judgement
    observed: tuple[Observed, ...] = ()
    rows: tuple[SyncedRow, ...] = ()
    cursor: str | None = None
    malformed: tuple[str, ...] = ()
    received: int = 0
    dated: datetime | None = None


class Engine:
    """Speaks to vendors. `http` follows no redirect and has its own time limits."""

    def __init__(self, http: httpx.AsyncClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def pull(self, connector: Connector, ask: Ask, credentials: Credentials) -> Page:
        """One page."""
        try:
            request = build(connector, ask)
        except (KeyError, ValueError, httpx.InvalidURL) as error:
            return Page(Judgement(Meaning.PERMANENT, "request", f"this request cannot be made: {error}"))
        token = credentials.access_token.get_secret_value()
        if not token.isascii() or not token.isprintable():
            return Page(Judgement(Meaning.UNAUTHORIZED, "token", "the access token has characters that no header has"))
        answer = await self._send(connector, request, {"authorization": f"Bearer {token}"})
        if isinstance(answer, Judgement):
            return Page(answer)
        observed = connector.limits(answer)
        judgement = judge(connector, answer)
        if judgement.meaning is Meaning.OK:
            judgement = _unreadable(answer) or judgement
        if judgement.meaning is not Meaning.OK:
            return Page(_discreet(judgement, credentials), observed)
        return parse(ask, request, answer, judgement, observed)

    async def refresh(self, connector: Connector, credentials: Credentials) -> Credentials | Judgement:
        """The next access token, and refresh token where the vendor rotates it.

        UNAUTHORIZED means that the customer has to connect again.
        """
        if credentials.refresh_token is None:
            return Judgement(Meaning.UNAUTHORIZED, "no_refresh_token", "the connection has no refresh token")
        form = {"grant_type": "refresh_token", "refresh_token": credentials.refresh_token.get_secret_value()}
        secret = credentials.client_secret.get_secret_value() if credentials.client_secret else ""
        headers = {"accept": "application/json"}
        if connector.auth.basic:
            pair = base64.b64encode(f"{credentials.client_id}:{secret}".encode()).decode()
            headers["authorization"] = f"Basic {pair}"
        else:
            form |= {"client_id": credentials.client_id, "client_secret": secret}
        request = Request(connector.auth.host + connector.auth.path, "POST")
        answer = await self._send(connector, request, headers, form)
        if isinstance(answer, Judgement):
            return answer
        return _next_credentials(connector, answer, credentials)

    async def _send(
        self, connector: Connector, request: Request, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> Answer | Judgement:
        url = httpx.URL(request.target)
        try:
            if request.params:
                url = url.copy_merge_params(dict(request.params))
            for _ in range(REDIRECTS + 1):
                answer = await self._once(request, url, {**connector.headers, **request.headers, **headers}, form)
                place = answer.headers.get("location") if answer.status in {301, 302, 307, 308} else None
                if place is None:
                    return answer
                moved = url.join(place)
                if _origin(moved) != _origin(url):
                    return Judgement(Meaning.PERMANENT, "redirect", f"it redirects to another host, {moved.host}")
                url = moved if moved.query else moved.copy_with(query=url.query or None)
        except httpx.InvalidURL as error:
            return Judgement(Meaning.PERMANENT, "request", f"this request cannot be made: {error}")
        except (httpx.HTTPError, TimeoutError) as error:
            # Without the error's words: they may repeat a header.
            return Judgement(Meaning.OVERLOADED, "connection", f"{url.host} does not answer: {type(error).__name__}")
        return Judgement(Meaning.PERMANENT, "redirect", "it redirects in a circle")

    async def _once(
        self, request: Request, url: httpx.URL, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Answer:
        async with self._http.stream(request.method, url, headers=dict(headers), data=form) as response:
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    break
            received = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, received, bytes(content), self._clock.now())


def build(connector: Connector, ask: Ask) -> Request:
    """The page's request.

    Raises:
        KeyError: the path names what neither parent nor settings have.
        ValueError: a cursor leads to another host, where the token must not go.
    """
    resource = ask.resource
    values: dict[str, JsonValue] = ask.settings.model_dump(mode="json")
    if ask.parent is not None:
        for name, path in resource.of_parent.items():
            values[name] = ask.parent.parent_id if path == PARENT else find(dict(ask.parent.data), path)
    base = connector.host + filled(connector.base, values, _quoted)
    path = filled(resource.path, values, _quoted)
    params = {name: filled(text, values, str) for name, text in resource.params.items()}
    request = Request(base + path, params=params)
    if ask.since is not None and resource.since is not None:
        request = resource.since.apply(request, ask.since, ask.settings)
    if ask.cursor is None:
        return resource.paging.first(request)
    request = resource.paging.after(request, ask.cursor)
    target = httpx.URL(request.target)
    if _origin(target) != _origin(httpx.URL(connector.host)):
        msg = f"the next page is said to be at another host, {target.host!r}"
        raise ValueError(msg)
    return request


def parse(
    ask: Ask, request: Request, answer: Answer, judgement: Judgement = OK, observed: tuple[Observed, ...] = ()
) -> Page:
    """The rows of a good answer. Without the list, or with no good row in it, the schema has changed: PERMANENT."""
    resource = ask.resource
    items = answer.find(resource.items)
    if not isinstance(items, list):
        names = sorted(answer.body) if isinstance(answer.body, dict) else type(answer.body).__name__
        detail = f"{resource.name}: no list at {resource.items or 'the top'!r} of the answer, which has {names}"
        return Page(Judgement(Meaning.PERMANENT, "schema", detail[:MAX_WORDS]), observed)
    rows, malformed = [], []
    for position, item in enumerate(items):
        try:
            rows.append(_row(ask, item))
        except (ValidationError, ValueError) as error:
            malformed.append(f"row {position}: {_faults(error)}")
    if malformed and not rows and (ask.parent is None or len(items) >= ENOUGH_ROWS):
        detail = f"{resource.name}: none of {len(items)} rows is as it should be; {malformed[0]}"
        return Page(Judgement(Meaning.PERMANENT, "schema", detail[:MAX_WORDS]), observed)
    return Page(
        judgement=judgement,
        observed=observed,
        rows=tuple(rows),
        cursor=resource.paging.next(request, answer, len(items)),
        malformed=tuple(malformed),
        received=len(items),
        dated=dated(answer),
    )


def _unreadable(answer: Answer) -> Judgement | None:
    """A page of HTML, or one cut short, is what a proxy sends while the vendor does not work."""
    if len(answer.content) > MAX_BODY_BYTES:
        return Judgement(Meaning.PERMANENT, "too_large", f"the answer is larger than {MAX_BODY_BYTES:,} bytes")
    if answer.body is None:
        detail = f"status {answer.status}, and {len(answer.content):,} bytes that are no JSON"
        return Judgement(Meaning.OVERLOADED, "no_json", detail)
    return None


def _row(ask: Ask, item: JsonValue) -> SyncedRow:
    resource = ask.resource
    resource.row.model_validate(item)
    assert isinstance(item, dict)
    row_id = find(item, resource.row_id)
    if row_id is None or row_id == "":
        msg = f"no id at {resource.row_id!r}"
        raise ValueError(msg)
    parent_id = ask.parent.row_id if ask.parent else None
    updated = find(item, resource.updated) if resource.updated else None
    return SyncedRow(
        row_id=f"{parent_id}/{row_id}" if resource.id_in_parent else str(row_id),
        data={name: value for name, value in item.items() if name not in resource.omit},
        parent_id=parent_id,
        vendor_updated_at=None if updated is None else str(updated),
        deleted=resource.deleted(item),
    )


def _faults(error: ValidationError | ValueError) -> str:
    """Which fields, never what was in them."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['type']}" for each in error.errors())[
        :MAX_WORDS
    ]


def _next_credentials(connector: Connector, answer: Answer, before: Credentials) -> Credentials | Judgement:
    # Some vendors refuse with 200 and an error in the body, so what counts is whether there is a token.
    token = answer.said("access_token")
    if token and answer.status < 400:  # noqa: PLR2004 - not refused
        rotated = answer.said("refresh_token")
        return before.model_copy(
            update={
                "access_token": SecretStr(token),
                "refresh_token": SecretStr(rotated) if rotated else before.refresh_token,
                "expires_at": _expiry(answer),
            }
        )
    return _discreet(judge_refusal(connector, answer), before)


def _expiry(answer: Answer) -> datetime | None:
    lasts = answer.find("expires_in")  # seconds; a text at some
    try:
        return answer.at + timedelta(seconds=float(lasts)) if isinstance(lasts, int | float | str) else None
    except (ValueError, OverflowError):
        return None


def judge_refusal(connector: Connector, answer: Answer) -> Judgement:
    """What a token endpoint's answer without a token means."""
    code = answer.said("error") or f"http_{answer.status}"
    later = judge(connector, answer).meaning in {Meaning.THROTTLED, Meaning.OVERLOADED}
    if later or code in LATER or not isinstance(answer.body, dict):
        detail = f"the token endpoint: {words(answer)}"
        return Judgement(Meaning.OVERLOADED, code[:MAX_WORDS], detail, retry_after(answer))
    return Judgement(Meaning.UNAUTHORIZED, code[:MAX_WORDS], f"the refresh token is not taken: {words(answer)}")


def _discreet(judgement: Judgement, credentials: Credentials) -> Judgement:
    """Without the secrets, should the vendor have repeated one."""
    code, detail = judgement.code, judgement.detail
    for secret in (credentials.access_token, credentials.refresh_token, credentials.client_secret):
        if secret is not None and secret.get_secret_value():
            code = code.replace(secret.get_secret_value(), "<secret>")
            detail = detail.replace(secret.get_secret_value(), "<secret>")
    return replace(judgement, code=code, detail=detail)


def _origin(url: httpx.URL) -> tuple[str, bytes, str, int | None]:
    return url.scheme, url.userinfo, url.host, url.port


def _quoted(text: str) -> str:
    return quote(text, safe="")
