"""Quiet hours by the wall clock: across midnight, both daylight-saving changes, and zones with odd rules."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from activities.quiet_hours import QuietHours, UnknownTimeZone, ends_at, time_zone

SECOND = timedelta(seconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CASES = [
    ("across midnight, in the evening", "22:00", "07:00", "UTC", "2026-01-10T23:30", "2026-01-11T07:00"),
    ("across midnight, in the morning", "22:00", "07:00", "UTC", "2026-01-11T06:59:59", "2026-01-11T07:00"),
    ("at the start", "22:00", "07:00", "UTC", "2026-01-10T22:00", "2026-01-11T07:00"),
    ("at the end", "22:00", "07:00", "UTC", "2026-01-11T07:00", None),
    ("before the start", "22:00", "07:00", "UTC", "2026-01-10T21:59:59", None),
    ("within a day", "12:00", "14:00", "UTC", "2026-01-10T13:00", "2026-01-10T14:00"),
    ("start is end: none", "07:00", "07:00", "UTC", "2026-01-10T07:00", None),
    # Berlin leaves 02:00 for 03:00 on 2026-03-29 at 01:00 UTC: the night is an hour shorter.
    ("night of the spring change", "22:00", "07:00", "Europe/Berlin", "2026-03-28T22:00", "2026-03-29T05:00"),
    ("an end that is skipped is the change", "22:00", "02:30", "Europe/Berlin", "2026-03-29T00:30", "2026-03-29T01:00"),
    (
        "a start that is skipped is the change",
        "02:30",
        "06:00",
        "Europe/Berlin",
        "2026-03-29T01:00",
        "2026-03-29T04:00",
    ),
    ("before a start that is skipped", "02:30", "06:00", "Europe/Berlin", "2026-03-29T00:59:59", None),
    # Berlin repeats 02:00-03:00 on 2026-10-25, the second time from 01:00 UTC: the night is an hour longer.
    ("night of the autumn change", "22:00", "07:00", "Europe/Berlin", "2026-10-24T21:00", "2026-10-25T06:00"),
    ("an end that comes twice is the last", "22:00", "02:30", "Europe/Berlin", "2026-10-25T00:45", "2026-10-25T01:30"),
    (
        "a start that comes twice is the first",
        "02:30",
        "06:00",
        "Europe/Berlin",
        "2026-10-25T00:30",
        "2026-10-25T05:00",
    ),
    ("New York, spring", "21:00", "08:00", "America/New_York", "2026-03-08T03:00", "2026-03-08T12:00"),
    ("New York, autumn", "21:00", "08:00", "America/New_York", "2026-11-01T03:00", "2026-11-01T13:00"),
    (
        "half an hour of daylight saving",
        "22:00",
        "02:15",
        "Australia/Lord_Howe",
        "2026-10-03T15:00",
        "2026-10-03T15:30",
    ),
    ("no midnight that day", "00:00", "06:00", "America/Sao_Paulo", "2018-11-04T03:00", "2018-11-04T08:00"),
    ("quarter-hour zone", "22:00", "07:00", "Asia/Kathmandu", "2026-01-10T18:00", "2026-01-11T01:15"),
    ("a skipped day", "22:00", "07:00", "Pacific/Apia", "2011-12-30T09:00", "2011-12-30T17:00"),
]


@pytest.mark.parametrize(
    ("start", "end", "zone", "now", "until"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_ends(start: str, end: str, zone: str, now: str, until: str | None) -> None:
    assert ends_at(QuietHours.parse(start, end, zone), utc(now)) == (utc(until) if until else None)


def test_an_unknown_zone_is_named_with_an_example() -> None:
    with pytest.raises(UnknownTimeZone, match=r"'Europe/Berln' is no IANA time zone; write it like Europe/Berlin"):
        time_zone("Europe/Berln")


def test_at_the_end_it_is_over_and_just_before_it_is_not() -> None:
    dice = random.Random(7)
    zones = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "UTC")
    within = 0
    for _ in range(4000):
        zone = dice.choice(zones)
        start, end = (f"{dice.randrange(24):02}:{dice.choice((0, 15, 30, 59)):02}" for _ in range(2))
        quiet = QuietHours.parse(start, end, zone)
        now = utc("2026-01-01T00:00") + timedelta(seconds=dice.randrange(365 * 86_400))
        until = ends_at(quiet, now)
        if until is None:
            wall = now.astimezone(ZoneInfo(zone)).time()
            within_by_clock = (
                quiet.start <= wall < quiet.end if quiet.start < quiet.end else not quiet.end <= wall < quiet.start
            )
            assert not within_by_clock or quiet.start == quiet.end
            continue
        within += 1
        assert now < until <= now + timedelta(hours=25)
        assert ends_at(quiet, until) is None or quiet.start == quiet.end
        assert ends_at(quiet, until - SECOND) == until
        assert ends_at(quiet, now + (until - now) / 2) == until
    assert within > 1000
