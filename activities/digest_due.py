"""When a tenant's daily digest is due: a wall-clock time in its zone, as an instant.

Wall clocks skip and repeat an hour twice a year. A time that comes twice means the first one; a time that does not
exist is read with the offset before the change: https://www.rfc-editor.org/rfc/rfc5545#section-3.3.5
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

CATCH_UP = timedelta(hours=12)  # a digest later than this is left out; the next one says what it would have said
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Due:
    """A local day, when its digest is due, and when the next one is; both in UTC."""

    day: date
    at: datetime
    next_at: datetime


def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The wall-clock time of that day in UTC."""
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)


def latest(at: time, zone: ZoneInfo, now: datetime) -> Due | None:
    """The day whose digest was due last, at `now` or before; None if that is CATCH_UP or longer ago.

    Args:
        at: of the wall clock.
        zone: of the tenant.
        now: aware.
    """
    today = now.astimezone(zone).date()
    for day in (today + DAY, today, today - DAY, today - 2 * DAY):  # near midnight a clock may be set back a day
        due = instant(day, at, zone)
        if due <= now:
            return Due(day, due, instant(day + DAY, at, zone)) if now - due < CATCH_UP else None
    return None
