"""One quota for each scope."""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from simulator.quota.base import Quota

K = TypeVar("K", bound=Hashable)


class Scopes(Generic[K]):
    """Quotas by scope key, made when first asked for."""

    def __init__(self, make: Callable[[K], Quota]) -> None:
        self._make = make
        self._quotas: dict[K, Quota] = {}

    def __getitem__(self, key: K) -> Quota:
        """The quota of a scope."""
        if key not in self._quotas:
            self._quotas[key] = self._make(key)
        return self._quotas[key]

    def __contains__(self, key: object) -> bool:
        """Whether it was asked for yet."""
        return key in self._quotas

    def __iter__(self) -> Iterator[K]:
        """Keys."""
        return iter(tuple(self._quotas))

    def __len__(self) -> int:
        """Scopes so far."""
        return len(self._quotas)

    def items(self) -> Iterator[tuple[K, Quota]]:
        """Keys and quotas."""
        return iter(tuple(self._quotas.items()))

    def clear(self) -> None:
        """All quotas are whole again, and uncounted."""
        self._quotas.clear()
