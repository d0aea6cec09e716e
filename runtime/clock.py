"""Time, injected. Stored times are UTC integer microseconds."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Aware, in UTC."""
        ...


class SystemClock:
    """This machine's clock."""

    def now(self) -> datetime:
        """Aware, in UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is moved; for tests."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """Aware, in UTC."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move it forward."""
        self._now += by


def micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exact."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(value: int) -> datetime:
    """The inverse of `micros`."""
    return EPOCH + value * MICROSECOND
