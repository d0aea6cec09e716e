"""What an account holds: collections of numbered items, of which only changes are kept. Times are UTC microseconds."""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SECOND = 1_000_000
DAY = 86_400 * SECOND
HISTORY_DAYS = 90

Order = Literal["created", "updated"]
Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One item. `revision` counts its changes; `about` is the item of a sibling collection that it belongs to.

    `gone` is an item that is deleted and still listed, as such.
    """

    number: int
    created: int
    updated: int
    revision: int = 0
    about: int | None = None
    gone: bool = False

    def time(self, order: Order) -> int:
        """The time that an order goes by."""
        return self.created if order == "created" else self.updated


class Collection:
    """Items that were there from the beginning, evenly spread over the past, and what happened to them since.

    An item is computed when asked for. Numbers rise with creation and are never used again.
    """

    def __init__(self, count: int, start: int, end: int, seed: int) -> None:
        self._count = self._next = count
        self._start = start
        self._step = max((end - start) // max(count, 1), 8)
        self._salt = seed * 2_654_435_761
        self._last = start + count * self._step
        self._added: dict[int, tuple[int, int | None]] = {}
        self._changed: dict[int, tuple[int, int]] = {}
        self._gone: set[int] = set()
        self._about: dict[int, list[int]] = {}
        self._orders: dict[Order, Sequence[int]] = {"created": range(count), "updated": range(count)}

    def __len__(self) -> int:
        """Items that are not deleted."""
        return len(self._orders["created"])

    def __contains__(self, number: int) -> bool:
        """Whether there is such an item."""
        order = self._orders["created"]
        place = bisect_left(order, number)
        return place < len(order) and order[place] == number

    def __getitem__(self, number: int) -> Item:
        """An item.

        Raises:
            KeyError: there is none of that number.
        """
        if number not in self:
            raise KeyError(number)
        return self._item(number)

    def numbers(self, order: Order = "created") -> Sequence[int]:
        """Of all items, the oldest first."""
        return self._orders[order]

    def since(self, least: int, order: Order = "updated") -> Sequence[int]:
        """Numbers of what changed then or later, in order."""
        if order == "created":
            numbers = self._orders["created"]
            return numbers if least < 0 else [each for each in numbers if self._item(each).updated >= least]
        numbers = self._orders["updated"]
        return numbers[bisect_left(numbers, least, key=lambda number: self._item(number).updated) :]

    def between(
        self,
        order: Order = "created",
        *,
        least: tuple[int, int] = (-1, -1),
        most: tuple[int, int] | None = None,
        descending: bool = False,
    ) -> Iterator[Item]:
        """Items whose (time, number) is at least and at most that, in order."""
        numbers = self._orders[order]

        def key(number: int) -> tuple[int, int]:
            return self._item(number).time(order), number

        low = bisect_left(numbers, least, key=key)
        high = len(numbers) if most is None else bisect_right(numbers, most, key=key)
        places = range(low, high)
        return (self._item(numbers[place]) for place in (reversed(places) if descending else places))

    def slice(self, start: int, stop: int, order: Order = "created", *, descending: bool = False) -> list[Item]:
        """By position."""
        numbers = self._orders[order]
        size = len(numbers)
        places = range(min(start, size), min(stop, size))
        return [self._item(numbers[size - 1 - place if descending else place]) for place in places]

    def add(self, now: int, about: int | None = None) -> Item:
        """A new item."""
        number, self._next = self._next, self._next + 1
        self._last = max(now, self._last + 1)
        self._added[number] = (self._last, about)
        if about is not None:
            self._about.setdefault(about, []).append(number)
        self._list("created").append(number)
        self._list("updated").append(number)
        return self._item(number)

    def change(self, number: int, now: int) -> Item:
        """A new revision.

        Raises:
            KeyError: there is none of that number.
        """
        before = self[number]
        updated = self._list("updated")
        del updated[self._place(updated, before)]
        self._last = max(now, self._last + 1)
        self._changed[number] = (self._last, before.revision + 1)
        updated.append(number)
        return self._item(number)

    def mark(self, number: int, now: int) -> None:
        """It is deleted, and listed as such.

        Raises:
            KeyError: there is none of that number.
        """
        self.change(number, now)
        self._gone.add(number)

    def delete(self, number: int) -> None:
        """It is not there any more.

        Raises:
            KeyError: there is none of that number.
        """
        before = self[number]
        updated, created = self._list("updated"), self._list("created")
        del updated[self._place(updated, before)]
        del created[bisect_left(created, number)]

    def created_at(self, micros: int) -> int | None:
        """The number of the item that was created then."""
        numbers = self._orders["created"]
        place = bisect_left(numbers, micros, key=lambda number: self._item(number).created)
        found = place < len(numbers) and self._item(numbers[place]).created == micros
        return numbers[place] if found else None

    def was_there(self, number: int) -> bool:
        """From the beginning."""
        return number < self._count

    def about(self, number: int) -> list[int]:
        """Numbers of added items that belong to that sibling."""
        return [each for each in self._about.get(number, ()) if each in self]

    def sample(self, count: int, dice: random.Random) -> list[int]:
        """Numbers of items at random, each once."""
        numbers = self._orders["created"]
        return [numbers[place] for place in dice.sample(range(len(numbers)), min(count, len(numbers)))]

    def _item(self, number: int) -> Item:
        about = None
        if number < self._count:
            base = self._start + number * self._step
            created = base + mixed(self._salt, number) % (self._step // 2)
            updated = base + self._step // 2 + mixed(self._salt, ~number) % (self._step // 2)
        else:
            created, about = self._added[number]
            updated = created
        updated, revision = self._changed.get(number, (updated, 0))
        return Item(number, created, updated, revision, about, number in self._gone)

    def _list(self, order: Order) -> list[int]:
        numbers = self._orders[order]
        if not isinstance(numbers, list):
            numbers = self._orders[order] = list(numbers)
        return numbers

    def _place(self, updated: list[int], item: Item) -> int:
        return bisect_left(
            updated, (item.updated, item.number), key=lambda number: (self._item(number).updated, number)
        )


class Dataset:
    """The collections of an account, made when first asked for.

    What is in a parent is younger than it; a parent that was added begins empty.

    Args:
        sizes: how many there are of each kind, in each parent.
        tree: the kinds, and the kind of each one's parents.
        count: how many items the collection of a kind and parent begins with.
        seed: of the times.
        now: until when the past goes.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        tree: Mapping[str, str | None],
        count: Callable[[Mapping[str, int], str, Path], int],
        seed: int,
        now: int,
    ) -> None:
        self.sizes = dict(sizes)
        self._tree = tree
        self._count = count
        self._seed = seed
        self._now = now
        self._collections: dict[tuple[str, Path], Collection] = {}

    def of(self, kind: str, parents: Path = ()) -> Collection:
        """The items of a kind in a parent.

        Raises:
            KeyError: there is no such parent, or kind.
        """
        found = self._collections.get((kind, parents))
        if found is None:
            above = self._tree[kind]
            if above is None:
                start = self._now - HISTORY_DAYS * DAY
            else:
                start = self.of(above, parents[:-1])[parents[-1]].created
            count = self._first_count(kind, parents)
            seed = self._seed + hash_of(kind) + sum((place + 1) * number for place, number in enumerate(parents))
            found = self._collections[kind, parents] = Collection(count, start, self._now, seed)
        return found

    def size(self, kind: str, parents: Path = ()) -> int:
        """How many items there are, without making the collection."""
        found = self._collections.get((kind, parents))
        return self._first_count(kind, parents) if found is None else len(found)

    def _first_count(self, kind: str, parents: Path) -> int:
        above = self._tree[kind]
        if above is not None and not self.of(above, parents[:-1]).was_there(parents[-1]):
            return 0
        return self._count(self.sizes, kind, parents)


def hash_of(text: str) -> int:
    """The same in every process."""
    return int.from_bytes(text.encode()[:8].ljust(8), "big") % 1_000_003


def mixed(salt: int, number: int) -> int:
    """A number that looks like chance, from two that do not."""
    # https://xoshiro.di.unimi.it/splitmix64.c
    value = (salt + number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
