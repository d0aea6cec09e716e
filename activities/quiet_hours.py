"""Quiet hours in a person's time zone, as instants.

Wall clocks skip and repeat an hour twice a year. A start that comes twice counts the first time and an end the last
time, so that nobody is woken in the second 01:10. A time that does not exist means the instant of the change.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAY = timedelta(days=1)


class UnknownTimeZone(ValueError):
    """No such IANA time zone."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` to `end` by the wall clock in `zone`, across midnight where `end` is earlier. Equal means none."""

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, start: str, end: str, zone: str) -> "QuietHours":
        """From `22:00`, `07:00`, `Europe/Berlin`.

        Raises:
            UnknownTimeZone: `zone` is not one.
            ValueError: a time is not `HH:MM`.
        """
        return cls(time.fromisoformat(start), time.fromisoformat(end), time_zone(zone))


def time_zone(name: str) -> ZoneInfo:
    """The IANA time zone.

    Raises:
        UnknownTimeZone: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"{name!r} is no IANA time zone; write it like Europe/Berlin or America/New_York"
        raise UnknownTimeZone(msg) from error


def ends_at(quiet: QuietHours, now: datetime) -> datetime | None:
    """When the quiet hours that hold at `now` end, in UTC; None if none do. At the end itself they are over.

    Args:
        quiet: whose.
        now: aware.
    """
    if quiet.start == quiet.end:
        return None
    today = now.astimezone(quiet.zone).date()
    nights = [_interval(quiet, today + days * DAY) for days in range(-2, 3)]  # a zone may skip a whole day
    until = now
    for begin, end in nights:
        if begin <= until < end:  # the next night begins where this one ends if the day between was skipped
            until = end
    return until if until > now else None


def _interval(quiet: QuietHours, day: date) -> tuple[datetime, datetime]:
    last = day if quiet.start < quiet.end else day + DAY
    return (
        _instant(datetime.combine(day, quiet.start), quiet.zone, fold=0),
        _instant(datetime.combine(last, quiet.end), quiet.zone, fold=1),
    )


def _instant(wall: datetime, zone: ZoneInfo, *, fold: int) -> datetime:
    """The wall-clock time as an instant, its first (fold 0) or last (1) occurrence, or the change that skips it."""
    found = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == wall:
        return found
    # In a gap the two folds lie on both sides of the change (https://peps.python.org/pep-0495/#the-fold-attribute).
    before, after = sorted(wall.replace(tzinfo=zone, fold=side).astimezone(UTC) for side in (0, 1))
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
