"""What all quotas have in common: the verdict, the counts, and whose fault a refusal is."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

INSTANT = 1e-6  # seconds; a float of this age of the epoch is not finer
IN_FLIGHT_SECONDS = 0.5  # for so long after a refusal, requests that were sent before it may still arrive


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is let through.

    Attributes:
        allowed: it is.
        remaining: what is left after it.
        reset_at: when all of the quota is there again, in seconds of the caller's clock.
        retry_after: seconds until the same request would be let through; 0 if it was.
    """

    allowed: bool
    remaining: float
    reset_at: float
    retry_after: float = 0.0


@dataclass(slots=True)
class Counts:
    """Since the quota was made.

    Attributes:
        taken: requests that were let through.
        spent: what they cost.
        refused: requests that were not; the sum of the following three.
        refused_own: refused, and they would have been without other clients.
        refused_surprise: refused only because other clients had used the quota, which nobody had told.
        refused_again: refused though a refusal had said to come later.
        surprises: how often other clients used the quota, and `eaten`: how much.
        used: of what an even client could have spent in the time, other clients' part taken off; a burst at the
            beginning of a window may be above 1.
        used_at_most: of what any client could have spent in the time; never above 1.

    The time of both goes from the first request to the last, or to the time that was asked for.
    """

    taken: int = 0
    spent: float = 0.0
    refused: int = 0
    refused_own: int = 0
    refused_surprise: int = 0
    refused_again: int = 0
    surprises: int = 0
    eaten: float = 0.0
    used: float = 0.0
    used_at_most: float = 0.0


@dataclass(slots=True)
class _Told:
    """The last refusal: when it was, and until when it said to wait."""

    at: float = float("-inf")
    until: float = float("-inf")


@dataclass(slots=True)
class _Log:
    counts: Counts = field(default_factory=Counts)
    told: _Told = field(default_factory=_Told)
    since: float | None = None
    last: float = float("-inf")


class Quota(ABC):
    """A limit and what was used of it."""

    def __init__(self, limit: float, speed: float = 1.0) -> None:
        if limit <= 0 or speed <= 0:
            raise ValueError("a limit and a speed are above 0")
        self.limit = limit
        self.speed = speed
        self._log = _Log()
        self._alone: Quota | None = None  # the same without other clients, kept from the first surprise on

    @abstractmethod
    def room(self, now: float) -> float:
        """What is left."""

    @abstractmethod
    def spend(self, now: float, cost: float) -> None:
        """Use some, whether or not it is there."""

    @abstractmethod
    def full_at(self, now: float) -> float:
        """When all of it is there again, if nothing more is used."""

    @abstractmethod
    def free_at(self, now: float, cost: float) -> float:
        """When a request of this cost is let through, if nothing more is used; `now` if it is already."""

    @abstractmethod
    def even(self, seconds: float) -> float:
        """What an even client can spend in a time."""

    @abstractmethod
    def ceiling(self, since: float, now: float) -> float:
        """What any client can have spent from one time to another, both included."""

    def fits(self, now: float, cost: float) -> bool:
        """Whether a request is let through."""
        return self.room(now) >= cost

    def ask(self, now: float, cost: float = 1) -> Verdict:
        """The verdict, with nothing taken or counted."""
        return self._verdict(now, None if self.fits(now, cost) else cost)

    def take(self, now: float, cost: float = 1) -> Verdict:
        """One request."""
        if not self.fits(now, cost):
            return self.refuse(now, cost)
        self._note(now)
        self.spend(now, cost)
        if self._alone is not None:
            self._alone.spend(now, cost)
        self._log.counts.taken += 1
        self._log.counts.spent += cost
        return self._verdict(now)

    def refuse(self, now: float, cost: float = 1) -> Verdict:
        """Count a request as refused, and say until when."""
        self._note(now)
        verdict = self._verdict(now, cost)
        counts, told = self._log.counts, self._log.told
        counts.refused += 1
        if told.at + IN_FLIGHT_SECONDS < now < told.until - INSTANT:
            counts.refused_again += 1
            return verdict
        if self._alone is not None and self._alone.fits(now, cost):
            counts.refused_surprise += 1
        else:
            counts.refused_own += 1
        if now >= told.until - INSTANT:
            told.at = now
        told.until = max(told.until, now + verdict.retry_after)
        return verdict

    def eat(self, now: float, amount: float) -> None:
        """Another client uses some of what is left."""
        if self._alone is None:
            self._alone = copy.copy(self)
            self._alone.__dict__.update(
                {name: copy.deepcopy(value) for name, value in self.__dict__.items() if name not in {"_log", "_alone"}}
            )
        eaten = min(amount, max(0.0, self.room(now)))
        self.spend(now, eaten)
        self._log.counts.surprises += 1
        self._log.counts.eaten += eaten

    def counts(self, until: float | None = None) -> Counts:
        """What was taken and refused."""
        made = copy.copy(self._log.counts)
        since, now = self._log.since, self._log.last if until is None else until
        if since is not None:
            made.used = made.spent / max(self.even(now - since) - made.eaten, 1.0)
            made.used_at_most = made.spent / max(self.ceiling(since, now) - made.eaten, made.spent, 1.0)
        return made

    def _verdict(self, now: float, refused: float | None = None) -> Verdict:
        wait = 0.0 if refused is None else max(self.free_at(now, refused) - now, 0.0)
        return Verdict(refused is None, max(0.0, self.room(now)), self.full_at(now), wait)

    def _note(self, now: float) -> None:
        if self._log.since is None:
            self._log.since = now
        self._log.last = max(self._log.last, now)


def take_all(now: float, wanted: Sequence[tuple[Quota, float]]) -> tuple[Quota | None, list[Verdict]]:
    """One request under several quotas: taken from all, or refused by the first that has no room, and taken from none.

    Returns:
        The quota that refused, if one did, and a verdict for each.
    """
    refusing = next((quota for quota, cost in wanted if not quota.fits(now, cost)), None)
    if refusing is None:
        return None, [quota.take(now, cost) for quota, cost in wanted]
    return refusing, [quota.refuse(now, cost) if quota is refusing else quota.ask(now, cost) for quota, cost in wanted]
