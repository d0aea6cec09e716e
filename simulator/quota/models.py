"""The kinds of quotas that third parties have."""

import math
from collections import deque

from simulator.quota.base import INSTANT, Quota

AGAIN_SECONDS = 1.0  # a concurrency limit cannot know when a request ends


class FixedWindow(Quota):
    """So many in a window, all of them there again when it ends.

    The window begins with the first request; an aligned one at whole multiples of its length since the epoch, as the
    hours of UTC do.
    """

    def __init__(self, limit: float, seconds: float, *, aligned: bool = False, speed: float = 1.0) -> None:
        super().__init__(limit, speed)
        self.window = seconds / speed
        self.aligned = aligned
        self._start = float("-inf")
        self._spent = 0.0

    def room(self, now: float) -> float:
        """Of the current window."""
        return self.limit - (self._spent if self._runs(now) else 0.0)

    def spend(self, now: float, cost: float) -> None:
        """In the current window, which begins now if none runs."""
        if not self._runs(now):
            self._start = self._aligned(now) if self.aligned else now
            self._spent = 0.0
        self._spent += cost

    def full_at(self, now: float) -> float:
        """The window's end."""
        if self._runs(now):
            return self._start + self.window
        return (self._aligned(now) if self.aligned else now) + self.window

    def free_at(self, now: float, cost: float) -> float:
        """The window's end; never, were it not for the caller, if the limit is below the cost."""
        return now if self.fits(now, cost) else self.full_at(now)

    def even(self, seconds: float) -> float:
        """The limit per window, the first one whole."""
        return self.limit * max(seconds / self.window, 1.0)

    def ceiling(self, since: float, now: float) -> float:
        """The limit for each window that begins or runs in the time."""
        begun = self._aligned(since) if self.aligned else since
        return self.limit * (math.floor((now - begun + INSTANT) / self.window) + 1)

    def _runs(self, now: float) -> bool:
        return self._start <= now < self._start + self.window - INSTANT

    def _aligned(self, now: float) -> float:
        return math.floor((now + INSTANT) / self.window) * self.window


class Points(FixedWindow):
    """A fixed window whose requests cost points, which are known only when the answer is made.

    So a request is let through while a point is left, and may spend more than are left.
    """

    def fits(self, now: float, cost: float) -> bool:  # noqa: ARG002 - it is not known yet
        """While one is left."""
        return self.room(now) > 0


class SlidingWindow(Quota):
    """Never more than so many in any stretch of the window's length: the log of requests is kept."""

    def __init__(self, limit: float, seconds: float, *, speed: float = 1.0) -> None:
        super().__init__(limit, speed)
        self.window = seconds / speed
        self._spent = 0.0
        self._entries: deque[tuple[float, float]] = deque()  # when it leaves the window, and its cost

    def room(self, now: float) -> float:
        """What the requests within the window have left."""
        while self._entries and self._entries[0][0] <= now + INSTANT:
            self._spent -= self._entries.popleft()[1]
        return self.limit - self._spent

    def spend(self, now: float, cost: float) -> None:
        """Logged."""
        self._entries.append((now + self.window, cost))
        self._spent += cost

    def full_at(self, now: float) -> float:
        """When the last request leaves the window."""
        return self._entries[-1][0] if self.room(now) < self.limit else now

    def free_at(self, now: float, cost: float) -> float:
        """When enough requests have left it."""
        room = self.room(now)
        for leaves, amount in self._entries:
            if room >= cost:
                break
            room, now = room + amount, leaves
        return now

    def even(self, seconds: float) -> float:
        """The limit per window, the first one whole."""
        return self.limit * max(seconds / self.window, 1.0)

    def ceiling(self, since: float, now: float) -> float:
        """The limit at once, and again whenever the window has passed."""
        return self.limit * (math.floor((now - since + INSTANT) / self.window) + 1)


class TokenBucket(Quota):
    """Refills at `rate` a second, up to `burst`."""

    def __init__(self, rate: float, burst: float, *, speed: float = 1.0) -> None:
        super().__init__(burst, speed)
        self.rate = rate * speed
        self._level = float(burst)
        self._at = float("-inf")

    def room(self, now: float) -> float:
        """What is in it."""
        if now > self._at:
            refill = 0.0 if self._at == float("-inf") else (now - self._at) * self.rate
            self._level = min(self.limit, self._level + refill)
            self._at = now
        return self._level

    def fits(self, now: float, cost: float) -> bool:
        """To within the float's precision."""
        return self.room(now) >= cost - INSTANT * self.rate

    def spend(self, now: float, cost: float) -> None:
        """Out of it."""
        self._level = self.room(now) - cost

    def full_at(self, now: float) -> float:
        """When it has refilled."""
        return now + (self.limit - self.room(now)) / self.rate

    def free_at(self, now: float, cost: float) -> float:
        """When it has refilled as far as that."""
        return now + max(0.0, cost - self.room(now)) / self.rate

    def even(self, seconds: float) -> float:
        """The rate, but the bucket at least."""
        return max(self.rate * seconds, self.limit)

    def ceiling(self, since: float, now: float) -> float:
        """The bucket and the rate."""
        return self.limit + self.rate * (now - since)


class Concurrency(Quota):
    """So many requests at the same time; `release` ends one. What it spends and uses is counted in seconds."""

    def __init__(self, limit: float, *, speed: float = 1.0) -> None:
        super().__init__(limit, speed)
        self._running: list[float] = []  # when each began
        self._busy = 0.0

    def room(self, now: float) -> float:  # noqa: ARG002 - it does not come with time
        """Places that are free."""
        return self.limit - len(self._running)

    def spend(self, now: float, cost: float) -> None:
        """A place for each."""
        self._running.extend([now] * math.ceil(cost))

    def release(self, now: float, cost: float = 1) -> None:
        """The longest running one has ended."""
        for began in self._running[: math.ceil(cost)]:
            self._busy += now - began
        del self._running[: math.ceil(cost)]
        if isinstance(self._alone, Concurrency):
            self._alone.release(now, cost)

    def full_at(self, now: float) -> float:
        """Not before a while."""
        return now + (AGAIN_SECONDS / self.speed if self._running else 0.0)

    def free_at(self, now: float, cost: float) -> float:
        """Likewise."""
        return now if self.fits(now, cost) else now + AGAIN_SECONDS / self.speed

    def even(self, seconds: float) -> float:
        """Requests that last a second each."""
        return self.limit * max(seconds, 1.0)

    def ceiling(self, since: float, now: float) -> float:
        """Requests may be as short as they like, so there is no ceiling but what was taken."""
        return max(self.limit * (now - since), self.limit)

    def busy(self, now: float) -> float:
        """Seconds of all places together that were in use."""
        return self._busy + sum(now - began for began in self._running)
