"""When a daily digest is due, on the days on which wall clocks skip or repeat an hour, and on others."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from activities.digest_due import CATCH_UP, Due, instant, latest

EIGHT = time(8)
TICK = timedelta(minutes=15)
# zone, a day on which its clocks change, when 08:00 of the day before, of that day and of the day after are in UTC
CHANGES = [
    ("America/New_York", date(2026, 3, 8), ("13:00", "12:00", "12:00")),
    ("America/New_York", date(2026, 11, 1), ("12:00", "13:00", "13:00")),
    ("Europe/Lisbon", date(2027, 3, 28), ("08:00", "07:00", "07:00")),
    ("Europe/Lisbon", date(2026, 10, 25), ("07:00", "08:00", "08:00")),
    ("Australia/Lord_Howe", date(2026, 4, 5), ("21:00", "21:30", "21:30")),  # of the day before, in UTC
    ("Australia/Lord_Howe", date(2027, 10, 3), ("21:30", "21:00", "21:00")),
    ("Asia/Kolkata", date(2026, 11, 1), ("02:30", "02:30", "02:30")),
    ("America/Sao_Paulo", date(2027, 3, 14), ("11:00", "11:00", "11:00")),
    ("Pacific/Auckland", date(2026, 9, 27), ("20:00", "19:00", "19:00")),
    ("Pacific/Auckland", date(2027, 4, 4), ("19:00", "20:00", "20:00")),
]


def picked(
    zone: ZoneInfo, at: time, begin: datetime, end: datetime, every: timedelta = TICK
) -> list[tuple[datetime, Due]]:
    """What a run at each tick would find, with each day done once."""
    done: dict[date, tuple[datetime, Due]] = {}
    now = begin
    while now < end:
        due = latest(at, zone, now)
        if due is not None and due.day not in done:
            done[due.day] = (now, due)
        now += every
    return list(done.values())


@pytest.mark.parametrize(("name", "day", "utc"), CHANGES)
def test_each_local_day_is_due_once_at_eight_by_the_clock_there(name: str, day: date, utc: tuple[str, ...]) -> None:
    zone = ZoneInfo(name)
    begin = instant(day - timedelta(days=2), EIGHT, zone) + CATCH_UP
    found = picked(zone, EIGHT, begin, begin + timedelta(days=3))
    assert [due.day for _, due in found] == [day + timedelta(days=days) for days in (-1, 0, 1)]
    for tick, due in found:
        assert tick == due.at
        assert due.at.astimezone(zone).replace(tzinfo=None) == datetime.combine(due.day, EIGHT)
    assert tuple(f"{due.at:%H:%M}" for _, due in found) == utc
    assert [due.next_at for _, due in found[:2]] == [due.at for _, due in found[1:]]


@pytest.mark.parametrize(
    ("name", "day", "at", "utc"),
    [
        ("America/New_York", date(2026, 3, 8), time(2, 30), datetime(2026, 3, 8, 7, 30, tzinfo=UTC)),  # is 03:30
        ("America/New_York", date(2026, 11, 1), time(1, 30), datetime(2026, 11, 1, 5, 30, tzinfo=UTC)),  # the first
        ("Australia/Lord_Howe", date(2026, 10, 4), time(2, 15), datetime(2026, 10, 3, 15, 45, tzinfo=UTC)),  # is 02:45
        ("Australia/Lord_Howe", date(2026, 4, 5), time(1, 45), datetime(2026, 4, 4, 14, 45, tzinfo=UTC)),  # the first
        ("America/Havana", date(2026, 11, 1), time(0, 30), datetime(2026, 11, 1, 4, 30, tzinfo=UTC)),  # the first
    ],
)
def test_a_time_that_is_skipped_or_doubled_is_due_once_too(name: str, day: date, at: time, utc: datetime) -> None:
    zone = ZoneInfo(name)
    assert instant(day, at, zone) == utc
    begin = instant(day - timedelta(days=1), at, zone) + CATCH_UP
    found = picked(zone, at, begin, begin + timedelta(days=2), timedelta(minutes=1))
    assert [due.day for _, due in found] == [day, day + timedelta(days=1)]
    assert found[0][0] == utc


def test_a_clock_set_back_over_midnight_does_not_bring_a_day_back() -> None:
    zone = ZoneInfo("America/Scoresbysund")  # 2026-10-25 00:00 -01 becomes 2026-10-24 23:00 -02
    before, after = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1))
    assert [f"{each.astimezone(zone):%d %H:%M}" for each in (before, after)] == ["24 23:30", "24 23:30"]
    found = picked(zone, time(23, 15), before - timedelta(hours=3), after + timedelta(hours=8))
    assert [due.day for _, due in found] == [date(2026, 10, 24)]


def test_up_to_twelve_hours_late_and_no_more() -> None:
    zone = ZoneInfo("America/New_York")
    at = datetime(2026, 11, 25, 13, tzinfo=UTC)
    due = Due(date(2026, 11, 25), at, at + timedelta(days=1))
    second = timedelta(seconds=1)
    assert latest(EIGHT, zone, at - second) is None
    assert [latest(EIGHT, zone, now) for now in (at, at + second, at + CATCH_UP - second)] == [due] * 3
    assert latest(EIGHT, zone, at + CATCH_UP) is None
