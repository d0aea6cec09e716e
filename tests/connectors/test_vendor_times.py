"""Times in all the forms in which vendors write them, by our clock."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from activities.connectors.spec import Answer
from activities.connectors.vendor_times import LONGEST, dated, epoch, iso, number, ours, retry_after, until

NOW = datetime(2026, 11, 4, 9, 0, 0, tzinfo=UTC)


def answer(**headers: str) -> Answer:
    return Answer(429, {name.replace("_", "-"): value for name, value in headers.items()}, b"", NOW)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("17", timedelta(seconds=17)),
        (" 17 ", timedelta(seconds=17)),
        ("0.25", timedelta(milliseconds=250)),
        ("0", timedelta()),
        ("-5", timedelta()),
        ("231890", timedelta(days=2, hours=16, minutes=24, seconds=50)),
        ("99999999", LONGEST),
        ("inf", None),
        ("nan", None),
        ("1e400", None),
        ("soon", None),
        ("", None),
        ("Wed, 04 Nov 2026 09:00:42 GMT", timedelta(seconds=42)),
        ("Wednesday, 04-Nov-26 09:00:42 GMT", timedelta(seconds=42)),
        ("Wed, 04 Nov 2026 08:00:00 GMT", timedelta()),
        ("Wed, 99 Nov 2026 08:00:00 GMT", None),
        ("2026-11-04T09:30:00Z", timedelta(minutes=30)),
        ("2026-11-04T10:30:00+01:00", timedelta(minutes=30)),
    ],
)
def test_retry_after(text: str, wait: timedelta | None) -> None:
    assert retry_after(answer(retry_after=text)) == wait


def test_without_a_retry_after_there_is_none() -> None:
    assert retry_after(answer()) is None


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (epoch("1793782800"), "seconds"),
        (epoch("1793782800.0"), "seconds with a fraction"),
        (epoch("1793782800000", per_second=1000), "milliseconds"),
        (iso("2026-11-04T09:00:00Z"), "ISO"),
        (iso("2026-11-04T09:00Z"), "ISO without seconds"),
        (iso("2026-11-04T10:00:00.000+0100"), "ISO as Jira has it"),
        (iso("2026-11-04T09:00:00"), "ISO without a zone"),
        (dated(answer(date="Wed, 04 Nov 2026 09:00:00 GMT")), "an HTTP date"),
        (dated(answer(date="Wed, 04 Nov 2026 09:00:00 -0000")), "one without a zone"),
    ],
)
def test_the_same_moment_in_every_form(moment: datetime | None, written: str) -> None:
    assert moment == NOW, written


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1e300", "-1e300", "2026-13-01", "04/11/2026"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert epoch(text) is None
    assert iso(text) is None
    assert dated(answer(date=text)) is None


@pytest.mark.parametrize("skew", [timedelta(minutes=-7), timedelta(), timedelta(hours=3)])
def test_a_vendors_clock_may_be_off(skew: timedelta) -> None:
    date = (NOW + skew).strftime("%a, %d %b %Y %H:%M:%S GMT")
    reset = NOW + skew + timedelta(minutes=5)
    skewed = answer(date=date)
    assert until(skewed, reset) == timedelta(minutes=5)
    assert ours(skewed, reset) == NOW + timedelta(minutes=5)
    assert retry_after(answer(date=date, retry_after=reset.strftime("%a, %d %b %Y %H:%M:%S GMT"))) == timedelta(
        minutes=5
    )


def test_without_a_date_our_clock_counts() -> None:
    assert until(answer(), NOW + timedelta(minutes=5)) == timedelta(minutes=5)
    assert until(answer(date="today"), NOW - timedelta(minutes=5)) == timedelta()
    assert until(answer(), NOW + timedelta(days=400)) == LONGEST


@pytest.mark.parametrize(
    ("headers", "found"), [({"n": "12"}, 12), ({"n": " 12 "}, 12), ({"n": "1.5"}, None), ({"n": ""}, None), ({}, None)]
)
def test_numbers(headers: Mapping[str, str], found: int | None) -> None:
    assert number(headers, "n") == found
