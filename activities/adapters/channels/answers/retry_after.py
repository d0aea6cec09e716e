"""Retry-After: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

LONGEST = timedelta(hours=1)  # a vendor that says more is asked again after this


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """What the header asks for: seconds, fractions kept, or a date; None without a header that can be read."""
    text = headers.get("retry-after", "").strip()
    try:
        asked = timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return None
        asked = moment.replace(tzinfo=moment.tzinfo or UTC) - now
    return min(max(asked, timedelta()), LONGEST)
