"""A queue's rate as people write it: `50/min`."""

import re

UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3_600, "hour": 3_600, "d": 86_400}
RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/([a-z]+))?")


class NotARate(ValueError):
    """The text says how to write one."""


def per_second(text: str) -> float | None:
    """Activities a second; 0 stops the queue, None is `default`.

    Raises:
        NotARate: it is none.
    """
    if text == "default":
        return None
    found = RATE.fullmatch(text)
    unit = found[2] if found else None
    if found and float(found[1]) == 0 and unit in {None, *UNITS}:
        return 0.0
    if not found or unit not in UNITS:
        msg = f"{text!r} is no rate: write 50/min, 1.5/s or 5000/h, 0 to stop the queue, or `default`"
        raise NotARate(msg)
    return float(found[1]) / UNITS[unit]


def in_words(rate: float | None) -> str:
    """In the unit in which it is a number between 1 and 100 or so."""
    if rate is None:
        return "no limit"
    if rate == 0:
        return "stopped"
    if rate >= 1:
        return f"{rate:.4g}/s"
    return f"{rate * 60:.4g}/min" if rate * 60 >= 1 else f"{rate * 3_600:.4g}/h"
