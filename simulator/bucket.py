"""A token bucket: https://en.wikipedia.org/wiki/Token_bucket."""

from dataclasses import dataclass, field


@dataclass
class Bucket:
    """Full at first; `size` tokens at most."""

    per_second: float
    size: int
    _tokens: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Fill it."""
        self._tokens = float(self.size)

    def allows(self, now: float) -> bool:
        """Take a token if there is one; `now` in seconds."""
        if self._at:
            self._tokens = min(self.size, self._tokens + (now - self._at) * self.per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
