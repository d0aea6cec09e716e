"""Strict quotas, as third parties keep them. The time is an argument everywhere; this package imports nothing of ours.

A quota is asked with `take(now, cost)`, and its `Verdict` has what limit headers and refusals need. Windows are divided
by `speed`, so that an hour's quota can be met in minutes. `eat(now, amount)` is another client that uses the same
quota: a surprise. `counts()` says what was taken and refused, and which refusals the surprises caused.
"""

from simulator.quota.base import Counts, Quota, Verdict, take_all
from simulator.quota.models import Concurrency, FixedWindow, Points, SlidingWindow, TokenBucket
from simulator.quota.scopes import Scopes

__all__ = [
    "Concurrency",
    "Counts",
    "FixedWindow",
    "Points",
    "Quota",
    "Scopes",
    "SlidingWindow",
    "TokenBucket",
    "Verdict",
    "take_all",
]
