"""Lines of recipients: how a body is cut into them, what a line may say, and what is told of one that may not."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from activities.templates import TemplateDataError, Templates
from contracts.payloads.notification import ChannelName, Route
from runtime.settings import BUILT_IN_TEMPLATES
from starter.body_lines import BodyLines, Line
from starter.broadcast_request import RENDERED_AT_MOST, AudienceBroadcastBody, BroadcastBody, Fit, names_needed
from starter.recipient_intake import MAX_LISTED, AddressLine, PersonLine, Report, read
from starter.request_model import in_words

TEMPLATES = Templates(BUILT_IN_TEMPLATES)
NAMED = {"name": "Ada", "url": "https://acme.example"}


def lines_of(*blocks: bytes, longest: int = 10) -> tuple[list[Line], BodyLines]:
    async def run() -> tuple[list[Line], BodyLines]:
        lines = BodyLines(sent(blocks), longest)
        return [line async for block in lines for line in block], lines

    return asyncio.run(run())


async def sent(blocks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", []),
        (b"\n", [(1, b"")]),
        (b"a", [(1, b"a")]),
        (b"a\n", [(1, b"a")]),
        (b"a\r\n\r\nb\r\n", [(1, b"a"), (2, b""), (3, b"b")]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [(1, b"a"), (2, b"\xef\xbb\xbfb")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        (b"1234567890\n1234567890\r\nx", [(1, b"1234567890"), (2, b"1234567890"), (3, b"x")]),
        (b"12345678901\nx", [(1, None), (2, b"x")]),
        (b"x\n" + b"9" * 40, [(1, b"x"), (2, None)]),
    ],
)
def test_lines_are_the_same_however_the_body_is_cut(body: bytes, lines: list[Line]) -> None:
    for size in (1, 2, 3, 7, 1_000):
        found, read_lines = lines_of(*(body[start : start + size] for start in range(0, len(body), size)))
        assert found == lines
        assert read_lines.sha256 == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", [1, 2, 5, 1_000])
@pytest.mark.parametrize(
    ("body", "first", "rest"),
    [
        (b"\xef\xbb\xbf{}\n1\n2", b"{}", [(2, b"1"), (3, b"2")]),
        (b"\r\n \n{}\r\n\n1", b"{}", [(4, b""), (5, b"1")]),
        (b"{}", b"{}", []),
        (b"", b"", []),
        (b"{" + b"a" * 17 + b"}\n" + b"b" * 11, b"{" + b"a" * 17 + b"}", [(2, None)]),
    ],
)
def test_the_first_line_is_longer_and_not_part_of_the_hash(
    size: int, body: bytes, first: bytes, rest: list[Line]
) -> None:
    async def run() -> None:
        lines = BodyLines(sent(tuple(body[start : start + size] for start in range(0, len(body), size))), 10)
        assert await lines.first(19) == first
        assert [line async for block in lines for line in block] == rest
        after = body.partition(first + b"\r\n")[2] or body.partition(first + b"\n")[2] if first else b""
        assert lines.sha256 == hashlib.sha256(after).hexdigest()

    asyncio.run(run())


def test_a_first_line_that_never_ends_is_not_read_on() -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"x" * 10

    assert asyncio.run(BodyLines(endless()).first(100)) is None
    assert asked == 11


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'"user-17"', "user-17"),
        (b' "user-17"\t', "user-17"),
        (b'{"person":"user-17"}', PersonLine(person="user-17")),
        (b'{"person":"u","data":{"name":"\xc3\x84"}}', PersonLine(person="u", data={"name": "Ä"})),
        (
            b'{"channel":"email","address":" Ada@EXAMPLE.com ","data":{"n":1}}',
            AddressLine(channel=ChannelName.EMAIL, address="ada@example.com", data={"n": 1}),
        ),
    ],
)
def test_a_line_names_a_person_or_an_address(line: bytes, said: Any) -> None:
    assert read(line) == said


NEITHER = "must be a person's id (a text) or an object with `person`, or with `channel` and `address`"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"17", NEITHER),
        (b"null", NEITHER),
        (b'["a"]', NEITHER),
        (b'"a b"', "String should match pattern '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$'"),
        (b'""', "String should match pattern '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$'"),
        (b"{}", "person: is missing"),
        (b'{"person":"a","dta":{}}', "dta: is no field of this request; is it misspelt?"),
        (b'{"person":"a","data":[]}', "data: must be a JSON object"),
        (b'{"channel":"fcm"}', "address: is missing"),
        (b'{"channel":"fcm","address":"a","person":"b"}', "person: is no field of this request; is it misspelt?"),
        (b'{"channel":"fcm","address":"a b"}', "an FCM registration token consists of letters, digits and : _ - . = +"),
        (b'{"channel":"webhook","address":"https://a.example"}', "`details.secret` must be `whsec_` and at least 24"),
        (b'{"person":', "is no JSON: EOF while parsing a value, at character 10"),
        (b'"a" "b"', "is no JSON: trailing characters, at character 5"),
        (b'\xef\xbb\xbf"a"', "is no JSON: expected value, at character 1"),
        (b'"\xff"', "is not UTF-8 at byte 1"),
        (b'"\\ud800"', "is no JSON: unexpected end of hex escape, at character 8"),
        (b'"a\x00"', "is no JSON: control character (\\u0000-\\u001F) found while parsing a string, at character 3"),
        (b'{"person":"a","data":{"b":"\\u0000"}}', "data.b contains a NUL character (\\u0000), which cannot be stored"),
        (b'{"person":"a","data":{"b":1e400}}', "data.b is NaN or Infinity, which JSON does not have"),
        (b'{"person":"a","data":{"b":NaN}}', "data.b is NaN or Infinity, which JSON does not have"),
        (b'{"person":"a","data":{"b":' + b"1" * 5_000 + b"}}", "is no JSON: number out of range, at character 43"),
        (b"[" * 60_000, "is no JSON: recursion limit exceeded, at character 20"),
        (b'{"person":"a","data":{"b":' + b"[" * 60 + b"]" * 60 + b"}}", "data.b[0][0]"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_in_words(line: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        read(line)
    assert str(raised.value).startswith(problem)


def test_a_report_counts_all_and_lists_a_thousand_of_each() -> None:
    report = Report()
    for line in range(1, 1_501):
        report.refuse(line, "x" * 1_000)
    for line in range(1, 1_501, 300):
        report.repeated(list(range(line, line + 300)))
    assert (report.bad.count, len(report.bad.lines), report.bad.lines[-1].line) == (1_500, MAX_LISTED, 1_000)
    assert {len(each.problem) for each in report.bad.lines} == {300}
    assert (report.duplicates.count, report.duplicates.lines) == (1_500, list(range(1, MAX_LISTED + 1)))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, ": say either `template` or `content`"),
        ({"content": {"subject": "s", "text": "t"}}, ": a message without a template needs `channels`"),
        ({"template": "welcome", "recipient": "ada"}, "recipient: is no field of this request; is it misspelt?"),
        ({"template": "welcome", "channels": ["email", "email"]}, ": `channels` names one twice"),
    ],
)
def test_a_message_has_no_recipient_and_knows_its_channels(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as raised:
        BroadcastBody.model_validate(body)
    (told,) = in_words(raised.value.errors())
    assert f"{told['field']}: {told['problem']}" == problem


def test_an_audience_has_a_name() -> None:
    assert AudienceBroadcastBody.model_validate({"template": "welcome", "audience": "vip"}).audience == "vip"
    with pytest.raises(ValidationError):
        AudienceBroadcastBody.model_validate({"template": "welcome", "audience": "V I P"})


@pytest.mark.parametrize("name", TEMPLATES.names())
def test_the_names_a_template_needs_are_found_for_every_template(name: str) -> None:
    example = TEMPLATES.get(name).example
    needed = names_needed(TEMPLATES, name)
    TEMPLATES.check_data(name, {each: example[each] for each in needed})
    with pytest.raises(TemplateDataError) as raised:
        TEMPLATES.check_data(name, {})
    assert all(f"`{each}`" in str(raised.value) for each in needed)


def fit(**body: Any) -> Fit:
    asked = BroadcastBody.model_validate({"template": "welcome"} | body)
    return Fit(TEMPLATES, asked, tuple(asked.channels or [Route.EMAIL]))


def test_data_that_a_line_lacks_is_named_and_the_messages_own_counts() -> None:
    lacks = "lacks data that the template 'welcome' needs: "
    assert fit()("ada") == f"{lacks}`name`, `url`"
    assert fit()(PersonLine(person="a", data={"name": "Ada"})) == f"{lacks}`url`"
    assert fit(data=NAMED)("ada") is None
    assert fit(data=NAMED)(PersonLine(person="a", data={"name": None})) == f"{lacks}`name`"
    assert fit(data={"url": NAMED["url"]})(PersonLine(person="a", data={"name": "Ada"})) is None


def test_an_address_needs_one_of_the_messages_channels() -> None:
    token = AddressLine(channel=ChannelName.FCM, address="t")
    told = "fcm is none of this message's channels (email): name it in `channels`"
    assert fit(data=NAMED)(token) == told
    assert fit(data=NAMED, channels=["email", "push"])(token) is None


def test_data_is_for_a_template() -> None:
    plain = fit(template=None, content={"subject": "s", "text": "t"}, channels=["email"])
    assert plain("ada") is None
    told = "`data` is for a template, and this message has none"
    assert plain(PersonLine(person="a", data={"b": 1})) == told


def test_lines_are_rendered_until_one_renders_and_the_message_is_refused_if_none_of_the_first_does() -> None:
    wrong = PersonLine(person="a", data={"url": "no link"})
    asked = fit(data=NAMED)
    assert "no link" in (asked(wrong) or "")
    assert asked("ada") is None
    assert asked(wrong) is None  # only its names are asked for now
    asked = fit(data=NAMED)
    for _ in range(RENDERED_AT_MOST - 1):
        assert asked(wrong) is not None
    with pytest.raises(TemplateDataError, match="no link"):
        asked(wrong)
