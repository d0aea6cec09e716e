"""Garbage collection of a process that serves: https://docs.python.org/3/library/gc.html#gc.freeze."""

import gc

YOUNGEST = 10_000  # allocations between looks at the youngest objects; Python's own 700 suits short programs
OLDER = 20  # of those looks between two at the older ones


def started() -> None:
    """Call once everything is imported and built: what is there now is never looked at again.

    A full collection of what a worker has loaded took a sixth of its CPU under load, and stopped it for as long.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST, OLDER, OLDER)
