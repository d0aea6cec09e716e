"""Times as vendors write them, by our clock: theirs may be off, and the Date header says how much.

A wait is never longer than LONGEST: what a vendor says beyond it is a mistake, or an account that needs a person.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from activities.connectors.spec import Answer

LONGEST = timedelta(days=31)


def retry_after(answer: Answer) -> timedelta | None:
    """Retry-After in seconds or as a date; None where it is missing or no time.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    text = answer.headers.get("retry-after", "").strip()
    try:
        return _bounded(timedelta(seconds=float(text)))
    except (ValueError, OverflowError):
        moment = _http_date(text) or iso(text)
        return None if moment is None else until(answer, moment)


def until(answer: Answer, moment: datetime) -> timedelta:
    """How long from the answer to the vendor's `moment`, by the vendor's own clock where it shows that."""
    return _bounded(moment - (dated(answer) or answer.at))


def ours(answer: Answer, moment: datetime) -> datetime:
    """The vendor's `moment` by our clock."""
    return answer.at + until(answer, moment)


def dated(answer: Answer) -> datetime | None:
    """The vendor's clock, in whole seconds."""
    return _http_date(answer.headers.get("date", ""))


def epoch(text: str, *, per_second: int = 1) -> datetime | None:
    """Seconds since 1970, or other units of which a second has so many; None where it is no number."""
    try:
        return datetime.fromtimestamp(float(text) / per_second, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def iso(text: str) -> datetime | None:
    """ISO 8601; without a zone it is UTC. None where it is no time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def number(headers: Mapping[str, str], name: str) -> int | None:
    """A whole number; None where it is missing or none."""
    try:
        return int(headers.get(name, ""))
    except ValueError:
        return None


def _http_date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)


def _bounded(wait: timedelta) -> timedelta:
    return min(max(wait, timedelta()), LONGEST)
