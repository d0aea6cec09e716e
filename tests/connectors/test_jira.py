"""Jira reads the times of a query in the zone of who connected it, whose clocks jump."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from activities.connectors.engine import Ask, build
from activities.connectors.jira import JIRA, Settings
from activities.connectors.spec import Answer, Observed

ISSUES = JIRA.resource("issues")
NOW = datetime(2026, 11, 4, 9, 0, 0, tzinfo=UTC)


def asked(since: datetime, zone: str) -> str:
    settings = Settings(cloud_id="5f3c9a", time_zone=zone)
    jql = build(JIRA, Ask(ISSUES, settings, since=since)).params["jql"]
    found = re.fullmatch(r'updated >= "(\d{4}-\d\d-\d\d \d\d:\d\d)" ORDER BY updated ASC', jql)
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("zone", "since", "text"),
    [
        ("UTC", "2026-11-04 08:30:59", "2026-11-04 08:30"),
        ("Europe/Warsaw", "2026-04-28 13:33:15", "2026-04-28 15:33"),
        ("Asia/Kolkata", "2026-04-28 20:00:00", "2026-04-29 01:30"),
        ("America/New_York", "2026-03-08 06:59:00", "2026-03-08 01:59"),
        ("America/New_York", "2026-03-08 07:00:00", "2026-03-08 03:00"),
        (
            "America/New_York",
            "2026-11-01 05:30:00",
            "2026-11-01 00:30",
        ),  # the first 01:30, which may be read as the other
        ("America/New_York", "2026-11-01 06:30:00", "2026-11-01 01:30"),  # the second, which may be read as the first
        ("America/New_York", "2026-11-01 07:00:00", "2026-11-01 02:00"),
        ("Australia/Lord_Howe", "2026-04-04 14:45:00", "2026-04-05 01:15"),  # half an hour
    ],
)
def test_the_query_is_in_the_users_zone(zone: str, since: str, text: str) -> None:
    assert asked(datetime.fromisoformat(since).replace(tzinfo=UTC), zone) == text


@pytest.mark.parametrize("name", ["America/New_York", "Europe/Lisbon", "Australia/Lord_Howe", "Asia/Kolkata"])
def test_however_the_time_is_read_nothing_is_lost_and_little_is_asked_twice(name: str) -> None:
    zone = ZoneInfo(name)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    while moment < datetime(2027, 1, 1, tzinfo=UTC):
        read = datetime.fromisoformat(asked(moment, name))
        for fold in (0, 1):
            instant = read.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            assert moment - timedelta(hours=1, minutes=1) < instant <= moment
        moment += timedelta(minutes=47)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="time_zone"):
        Settings(cloud_id="5f3c9a", time_zone=zone)


@pytest.mark.parametrize("cloud_id", ["", "..", "a/b", "a b", "{cloud_id}"])
def test_a_site_is_a_plain_word(cloud_id: str) -> None:
    with pytest.raises(ValidationError, match="cloud_id"):
        Settings(cloud_id=cloud_id, time_zone="UTC")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"x-ratelimit-limit": "350", "x-ratelimit-remaining": "349"}, ()),  # of the endpoint's second
        ({"beta-ratelimit": '"global-app-quota";t=1800'}, ()),  # more than a fifth is left
        ({"ratelimit": '"global-app-quota";r=90;t=60'}, (Observed(90, NOW + timedelta(minutes=1), budget="points"),)),
        ({"beta-ratelimit": '"tenant-app-quota";r=0;t=60'}, (Observed(0, NOW + timedelta(minutes=1)),)),
        ({"beta-ratelimit": '"jira-burst-based";r=1;t=1'}, ()),
    ],
)
def test_only_the_hours_quota_is_news(headers: dict[str, str], found: tuple[Observed, ...]) -> None:
    assert JIRA.limits(Answer(200, headers, b"{}", NOW)) == found


def test_a_page_costs_a_point_and_one_for_each_row() -> None:
    points = next(each for each in JIRA.budgets if each.name == "points")
    assert points.points is not None
    assert (points.points(0), points.points(100)) == (1, 101)
