"""Taking in recipients, line by line: read, checked, stored in small batches, each once, with a report.

    "user-17"                                                   a person
    {"person": "user-17", "data": {"name": "Ada"}}              with data of their own
    {"channel": "fcm", "address": "…", "data": {…}}             an address; web_push, apns and webhook have `details`

What was stored of a set that is not kept is deleted again.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import structlog
from pydantic import BaseModel, Discriminator, Field, JsonValue, Tag, TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from starter.address_request import Address
from starter.body_lines import LONGEST_LINE_BYTES, BodyLines
from starter.person_request import PersonId
from starter.request_model import OF_A_UNION, RequestModel, in_words
from starter.services import Services
from store.database import MAX_ROWS_PER_WRITE, DatabaseUnavailable
from store.ids import new_id
from store.recipients import Recipient

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.02  # between two writes: back to back they hold up everybody else's
MAX_LISTED = 1_000  # lines of one kind in a report
MAX_PROBLEM_CHARACTERS = 300
AT_COLUMN = re.compile(r" at line \d+ column (\d+)$")  # the parser sees one line only


class PersonLine(RequestModel):
    """A person, and what the message says to them alone."""

    person: PersonId
    data: dict[str, JsonValue] = Field(default_factory=dict)


class AddressLine(Address):
    """An address, and what the message says to it alone."""

    data: dict[str, JsonValue] = Field(default_factory=dict)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"{OF_A_UNION}id"
    return f"{OF_A_UNION}address" if isinstance(value, dict) and "channel" in value else f"{OF_A_UNION}person"


Spoken = str | PersonLine | AddressLine
_LINE: TypeAdapter[Spoken] = TypeAdapter(
    Annotated[
        Annotated[PersonId, Tag(f"{OF_A_UNION}id")]
        | Annotated[PersonLine, Tag(f"{OF_A_UNION}person")]
        | Annotated[AddressLine, Tag(f"{OF_A_UNION}address")],
        Discriminator(_kind),
    ]
)

Check = Callable[[Spoken], str | None]


class BadLine(BaseModel):
    """A line that was left out. Lines are counted from 1, blank ones too."""

    line: int
    problem: str


class BadLines(BaseModel):
    """All of them are counted; the first 1,000 are listed."""

    count: int = 0
    lines: list[BadLine] = Field(default_factory=list)


class Duplicates(BaseModel):
    """Lines whose recipient an earlier line named, counted and listed alike. That recipient is sent to once."""

    count: int = 0
    lines: list[int] = Field(default_factory=list)


class Report(BaseModel):
    """What became of the lines."""

    recipients: int = 0
    duplicates: Duplicates = Field(default_factory=Duplicates)
    bad: BadLines = Field(default_factory=BadLines)

    def refuse(self, line: int, problem: str) -> None:
        """Note a bad line."""
        self.bad.count += 1
        if len(self.bad.lines) < MAX_LISTED:
            self.bad.lines.append(BadLine(line=line, problem=problem[:MAX_PROBLEM_CHARACTERS]))

    def repeated(self, lines: list[int]) -> None:
        """Note duplicates."""
        self.duplicates.count += len(lines)
        self.duplicates.lines += lines[: MAX_LISTED - len(self.duplicates.lines)]


class RecipientsRefused(ValueError):
    """Nothing was kept. `report` names the bad lines; duplicates are not counted in it."""

    def __init__(self, words: str, report: Report) -> None:
        super().__init__(words)
        self.report = report


class TooManyRecipients(ValueError):
    """Nothing was kept; the text says how many lines there may be."""


@dataclass
class Taken:
    """A set that is in the store, and is dropped unless it is kept."""

    set_id: str
    report: Report = field(default_factory=Report)
    kept: bool = False


@asynccontextmanager
async def take_in(
    services: Services, tenant: str, lines: BodyLines, *, check: Check | None = None, strict: bool = False
) -> AsyncIterator[Taken]:
    """The recipients of these lines as a set, which the block has to `keep`.

    Args:
        services: the store, the clock, the limit.
        tenant: whose.
        lines: of the body.
        check: what is wrong with a line that is right by itself, in words.
        strict: refuse all for one bad line.

    Raises:
        RecipientsRefused: no line is good, or one is not and this is `strict`.
        TooManyRecipients: more lines than HOLDFAST_MAX_RECIPIENTS.
        DatabaseUnavailable: the store does not answer.
    """
    taken = Taken(str(new_id()))
    try:
        async with services.database.write() as connection:
            await services.recipients.begin(connection, tenant, taken.set_id)
        await _Intake(services, tenant, taken, check or _anything, strict=strict).run(lines)
        yield taken
    except BaseException:
        taken.kept = False
        raise
    finally:
        if not taken.kept:
            drop_soon(services, taken.set_id)


async def keep(services: Services, connection: AsyncConnection, taken: Taken) -> None:
    """Make it a set that can be used, within the caller's write transaction."""
    await services.recipients.complete(
        connection, taken.set_id, taken.report.recipients, taken.report.model_dump(mode="json")
    )
    taken.kept = True


def read(raw: bytes) -> Spoken:
    """What a line says.

    Raises:
        ValueError: it is none; the text says what is wrong with it.
    """
    try:
        return _LINE.validate_json(raw)
    except ValidationError as error:
        raise ValueError("; ".join(_problems(error, raw))) from error


def why_no_json(error: ValidationError, raw: bytes) -> str | None:
    """Why these bytes, in which no line ends, are no JSON; None where they are and something else is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] != "json_invalid":
        return None
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return f"is not UTF-8 at byte {wrong.start}"
    words = AT_COLUMN.sub(r", at character \1", str(first["ctx"]["error"]))
    return f"is no JSON: {words}"


def _problems(error: ValidationError, raw: bytes) -> list[str]:
    unreadable = why_no_json(error, raw)
    if unreadable is not None:
        return [unreadable]
    found = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "model_type":
        return ["must be a person's id (a text) or an object with `person`, or with `channel` and `address`"]
    told = in_words(found)
    return [f"{each['field']}: {each['problem']}".removeprefix(": ") for each in told]


def _anything(_said: Spoken) -> None:
    return None


class _Intake:
    def __init__(self, services: Services, tenant: str, taken: Taken, check: Check, *, strict: bool) -> None:
        self._services = services
        self._tenant = tenant
        self._taken = taken
        self._report = taken.report
        self._check = check
        self._strict = strict
        self._limit = services.settings.max_recipients
        self._lines = 0
        self._batch: list[tuple[int, Spoken]] = []
        self._rows = 0
        self._next_write = 0.0

    async def run(self, lines: BodyLines) -> None:
        async for block in lines:
            self._lines += len(block)
            if self._lines > self._limit:
                msg = f"there are more than {self._limit:,} lines (HOLDFAST_MAX_RECIPIENTS): send several broadcasts"
                raise TooManyRecipients(msg)
            for number, raw in block:
                said = self._said(number, raw)
                if said is None:
                    continue
                rows = 2 if isinstance(said, AddressLine) else 1  # an address is registered
                if self._rows + rows > MAX_ROWS_PER_WRITE:
                    await self._write()
                self._batch.append((number, said))
                self._rows += rows
        await self._write()
        self._judge()

    def _said(self, number: int, raw: bytes | None) -> Spoken | None:
        if raw is None:
            self._report.refuse(number, f"is longer than {LONGEST_LINE_BYTES // 1024} KiB")
            return None
        if not raw.strip():
            return None
        try:
            said = read(raw)
        except ValueError as error:
            self._report.refuse(number, str(error))
            return None
        problem = self._check(said)
        if problem is not None:
            self._report.refuse(number, problem)
            return None
        return said

    async def _write(self) -> None:
        batch, self._batch, self._rows = self._batch, [], 0
        if not batch or (self._strict and self._report.bad.count):  # nothing will be kept
            return
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._next_write - clock()))
        direct = [said for _, said in batch if isinstance(said, AddressLine)]
        services = self._services
        async with services.database.write() as connection:
            new = [said.target() for said in direct]
            ids = iter(await services.people.register_many(connection, self._tenant, new))
            rows = [_recipient(number, said, ids) for number, said in batch]
            again = await services.recipients.add(connection, self._taken.set_id, rows)
        self._next_write = clock() + PAUSE_SECONDS
        self._report.recipients += len(batch) - len(again)
        self._report.repeated(again)

    def _judge(self) -> None:
        bad = self._report.bad
        first = f"line {bad.lines[0].line} {bad.lines[0].problem}" if bad.lines else "there is no line"
        if self._strict and bad.count:
            words = f"bad lines: {bad.count:,}, and strict takes none; the first: {first}"
            raise RecipientsRefused(words, Report(bad=bad))
        if not self._report.recipients:
            raise RecipientsRefused(f"no line names a recipient; the first problem: {first}", Report(bad=bad))


def _recipient(number: int, said: Spoken, ids: Iterator[str]) -> Recipient:
    if isinstance(said, str):
        return Recipient(number, person=said)
    if isinstance(said, PersonLine):
        return Recipient(number, person=said.person, data=said.data or None)
    return Recipient(number, target_id=next(ids), data=said.data or None)


_DROPPING: set[asyncio.Task[None]] = set()


def drop_soon(services: Services, set_id: str) -> None:
    """Delete a set in the background, paced, unless it is read. What a process that ends leaves of it nobody reads."""
    task = asyncio.get_running_loop().create_task(_drop(services, set_id))
    _DROPPING.add(task)
    task.add_done_callback(_DROPPING.discard)


async def all_dropped() -> None:
    """Wait for what `drop_soon` began."""
    while _DROPPING:
        await asyncio.gather(*_DROPPING)


async def _drop(services: Services, set_id: str) -> None:
    try:
        if await services.recipients.used(set_id):  # cancelled while it was committed
            return
        while await services.recipients.drop(set_id):  # noqa: ASYNC110 - a pace, not a wait
            await asyncio.sleep(PAUSE_SECONDS)
    except DatabaseUnavailable as error:
        log.warning("recipients.not_dropped", set_id=set_id, error=str(error))
