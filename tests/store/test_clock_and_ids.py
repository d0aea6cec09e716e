from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from runtime.clock import FixedClock, SystemClock, from_micros, micros
from store.ids import new_id


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(2026, 11, 24, 10, 0, 0, 123_457, tzinfo=timezone(timedelta(hours=1))), 1_795_510_800_123_457),
    ],
)
def test_microseconds_are_exact_and_reversible(moment: datetime, expected: int) -> None:
    assert micros(moment) == expected
    assert from_micros(expected) == moment
    assert from_micros(expected).tzinfo is UTC


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        micros(datetime(2026, 11, 24))  # noqa: DTZ001 - on purpose


def test_a_fixed_clock_stands_still_until_it_is_moved() -> None:
    clock = FixedClock(datetime(2026, 11, 24, tzinfo=UTC))
    assert clock.now() == clock.now()
    clock.advance(timedelta(minutes=5))
    assert clock.now() == datetime(2026, 11, 24, 0, 5, tzinfo=UTC)
    assert SystemClock().now().tzinfo is UTC


def test_ids_are_version_7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(2_000)]
    assert all(type(each) is UUID and each.version == 7 for each in ids)
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
