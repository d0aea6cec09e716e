"""A queue's rate as people write it, and as it is told."""

import pytest

from starter.queue_rate import NotARate, in_words, per_second


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50/min", 50 / 60),
        ("50/m", 50 / 60),
        ("50/minute", 50 / 60),
        ("1.5/s", 1.5),
        ("1/sec", 1.0),
        ("1/second", 1.0),
        ("5000/h", 5_000 / 3_600),
        ("5000/hour", 5_000 / 3_600),
        ("86400/d", 1.0),
        ("0", 0.0),
        ("0/min", 0.0),
        ("0.0", 0.0),
        ("default", None),
    ],
)
def test_what_people_write(text: str, rate: float | None) -> None:
    assert per_second(text) == rate


@pytest.mark.parametrize(
    "text", ["", "50", "50/", "50/week", "-1/s", "/s", "1,5/s", "50 /min", "50/min/s", "1e3/s", "0/week", "Default"]
)
def test_anything_else_is_told_with_what_to_write(text: str) -> None:
    with pytest.raises(NotARate) as told:
        per_second(text)
    assert str(told.value) == (f"{text!r} is no rate: write 50/min, 1.5/s or 5000/h, 0 to stop the queue, or `default`")


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (None, "no limit"),
        (0.0, "stopped"),
        (1.0, "1/s"),
        (20.25, "20.25/s"),
        (50 / 60, "50/min"),
        (5_000 * 0.97 / 3_600, "1.347/s"),
        (1 / 60, "1/min"),
        (10 / 3_600, "10/h"),
    ],
)
def test_it_is_told_in_the_unit_in_which_it_is_small(rate: float | None, words: str) -> None:
    assert in_words(rate) == words


def test_what_is_told_can_be_written_again() -> None:
    for rate in (0.0033, 0.5, 1.25, 40.0):
        assert per_second(in_words(rate)) == pytest.approx(rate, rel=1e-3)
