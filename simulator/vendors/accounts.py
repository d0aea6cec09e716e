"""Accounts at the vendors: their tokens, their data, and what happens to it over time."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from simulator.vendors.dataset import Collection, Dataset, Path, hash_of

Clock = Callable[[], float]


class Kinds(Protocol):
    """What kinds of items a vendor has, and how they are named."""

    name: ClassVar[str]
    tree: ClassVar[Mapping[str, str | None]]
    marked: ClassVar[frozenset[str]]

    def count(self, sizes: Mapping[str, int], kind: str, parents: Path) -> int:
        """With how many items a collection begins."""

    def id_of(self, account: "Account", kind: str, path: Path) -> str:
        """The vendor's identifier of an item."""

    def path_of(self, account: "Account", kind: str, text: str) -> Path | None:
        """The item of an identifier, whether or not it is there."""

    def about(self, account: "Account", kind: str, parents: Path, dice: random.Random) -> int | None:
        """The sibling that a new item belongs to, if it is of a kind that does."""

    def happened(self, account: "Account", kind: str, path: Path) -> None:
        """An item was added or changed: others may have to change too."""

    def deleted(self, account: "Account", kind: str, path: Path) -> None:
        """An item was deleted: others may have to go too."""

    def new_tokens(self) -> tuple[str, str]:
        """An access token and a refresh token in the vendor's form."""


@dataclass(slots=True)
class Grant:
    """Which tokens are good."""

    access_token: str
    refresh_token: str
    expires_at: float | None
    revoked: bool = False


class Account:
    """One customer's account at one vendor.

    Attributes:
        name: unique at the vendor.
        vendor: its name.
        ordinal: a small number that is in all its identifiers, so that accounts share none.
        app: the OAuth client that it is connected to; `client_id` and `client_secret` are the app's.
        grant: the tokens that are good now.
        token_seconds: how long an access token lasts; None: for ever.
        limits: its own, by the name of the quota.
        options: the vendor's own, see there.
        base_url: where a client finds the vendor.
    """

    def __init__(
        self,
        kinds: Kinds,
        clock: Clock,
        *,
        name: str,
        ordinal: int,
        seed: int,
        sizes: Mapping[str, int],
        limits: Mapping[str, float],
        token_seconds: float | None,
        app: str,
        options: Mapping[str, Any],
        base_url: str,
    ) -> None:
        self._kinds, self._clock, self._seed = kinds, clock, seed
        self._dice = random.Random(f"{seed} {name}")  # noqa: S311 - no secret
        self.name, self.vendor, self.ordinal, self.app = name, kinds.name, ordinal, app
        self.client_id, self.client_secret = f"client-{app}", f"secret-{app}"
        self.token_seconds = token_seconds
        self.limits = dict(limits)
        self.options = dict(options)
        self.base_url = base_url
        self.seed = hash_of(name) + seed
        self.dataset = Dataset(sizes, kinds.tree, kinds.count, self.seed, self.now_us())
        self.grant = self._granted()

    @property
    def access_token(self) -> str:
        """The one that is good now."""
        return self.grant.access_token

    @property
    def refresh_token(self) -> str:
        """The one that is good now."""
        return self.grant.refresh_token

    def now_us(self) -> int:
        """The vendor's clock, in microseconds."""
        return int(self._clock() * 1_000_000)

    def resize(self, sizes: Mapping[str, int]) -> None:
        """All new data of these sizes, what is not named as before."""
        self.dataset = Dataset(
            {**self.dataset.sizes, **sizes}, self._kinds.tree, self._kinds.count, self.seed, self.now_us()
        )

    def rotate(self) -> Grant:
        """New tokens; the old refresh token is good no more, nor is the old access token."""
        self.grant = self._granted()
        return self.grant

    def renew(self) -> Grant:
        """A new access token; the refresh token stays."""
        self.grant = replace(self._granted(), refresh_token=self.grant.refresh_token)
        return self.grant

    def revoke(self) -> None:
        """The customer has taken the grant back: no token is good any more."""
        self.grant.revoked = True

    def restore(self) -> Grant:
        """The customer has connected again."""
        return self.rotate()

    def expire(self) -> None:
        """The access token's time is over, the refresh token is good."""
        self.grant.expires_at = self._clock()

    def expired(self) -> bool:
        """Whether the access token's time is over."""
        return self.grant.expires_at is not None and self._clock() >= self.grant.expires_at

    def find(self, kind: str, text: str) -> Path | None:
        """The path of an item by its identifier, None where there is no such item, or it or a parent is deleted."""
        path = self._kinds.path_of(self, kind, text)
        return path if path is not None and self.has(kind, path) else None

    def has(self, kind: str, path: Path) -> bool:
        """Whether the item and all its parents are there."""
        above = self._kinds.tree[kind]
        if above is not None and not self.has(above, path[:-1]):
            return False
        return path[-1] in self.dataset.of(kind, path[:-1])

    def count(self, kind: str, parent: str | None = None) -> int:
        """Items, in one parent or in all."""
        return sum(self.dataset.size(kind, parents) for parents in self._parents(kind, parent))

    def ids(self, kind: str, parent: str | None = None) -> list[str]:
        """The vendor's identifiers of items, the oldest of each parent first."""
        return [
            self._kinds.id_of(self, kind, (*parents, number))
            for parents in self._parents(kind, parent)
            for number in self.dataset.of(kind, parents).numbers()
        ]

    def add(self, kind: str, *, parent: str | None = None, count: int = 1, about: str | None = None) -> list[str]:
        """New items, in the parent of that identifier or in any; `about`: a sibling that they belong to.

        Raises:
            KeyError: there is no such kind or parent.
        """
        made = []
        for _ in range(count):
            parents = self._parent(kind, parent)
            sibling = self._kinds.about(self, kind, parents, self._dice) if about is None else self._number(about)
            number = self.dataset.of(kind, parents).add(self.now_us(), sibling).number
            made.append(self._told(kind, (*parents, number)))
        return made

    def change(
        self, kind: str, ids: Sequence[str] | None = None, *, parent: str | None = None, count: int = 1
    ) -> list[str]:
        """New revisions of these items, or of any.

        Raises:
            KeyError: there is no such kind, parent or item.
        """
        made = []
        for path in self._chosen(kind, ids, parent, count):
            self.dataset.of(kind, path[:-1]).change(path[-1], self.now_us())
            made.append(self._told(kind, path))
        return made

    def delete(
        self, kind: str, ids: Sequence[str] | None = None, *, parent: str | None = None, count: int = 1
    ) -> list[str]:
        """These items, or any, are gone, and what is below them; users stay, marked as deleted.

        Raises:
            KeyError: there is no such kind, parent or item.
        """
        made = []
        for path in self._chosen(kind, ids, parent, count):
            made.append(self._kinds.id_of(self, kind, path))
            items = self.dataset.of(kind, path[:-1])
            if kind in self._kinds.marked:
                items.mark(path[-1], self.now_us())
            else:
                items.delete(path[-1])
            self._kinds.deleted(self, kind, path)
        return made

    def as_json(self) -> dict[str, Any]:
        """What a client has to know."""
        return {
            "vendor": self.vendor,
            "name": self.name,
            "base_url": self.base_url,
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "expires_at": self.grant.expires_at,
            "revoked": self.grant.revoked,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "sizes": self.dataset.sizes,
            "limits": self.limits,
            "options": self.options,
        }

    def _granted(self) -> Grant:
        access, refresh = self._kinds.new_tokens()
        return Grant(access, refresh, None if self.token_seconds is None else self._clock() + self.token_seconds)

    def _told(self, kind: str, path: Path) -> str:
        self._kinds.happened(self, kind, path)
        return self._kinds.id_of(self, kind, path)

    def _number(self, about: str) -> int:
        for kind in self._kinds.tree:
            path = self.find(kind, about)
            if path is not None:
                return path[-1]
        raise KeyError(about)

    def _parents(self, kind: str, parent: str | None) -> Iterator[Path]:
        above = self._kinds.tree[kind]
        if above is None:
            yield ()
        elif parent is not None:
            path = self.find(above, parent)
            if path is None:
                raise KeyError(parent)
            yield path
        else:
            for parents in self._parents(above, None):
                for number in self.dataset.of(above, parents).numbers():
                    yield (*parents, number)

    def _parent(self, kind: str, parent: str | None) -> Path:
        above = self._kinds.tree[kind]
        if above is None or parent is not None:
            return next(self._parents(kind, parent))
        parents = self._parent(above, None)
        found = self.dataset.of(above, parents).sample(1, self._dice)
        if not found:
            raise KeyError(above)
        return (*parents, *found)

    def _chosen(self, kind: str, ids: Sequence[str] | None, parent: str | None, count: int) -> list[Path]:
        if ids is not None:
            paths = [self.find(kind, each) for each in ids]
            if None in paths:
                raise KeyError(ids[paths.index(None)])
            return [path for path in paths if path is not None]
        if parent is not None or self._kinds.tree[kind] is None:
            parents = self._parent(kind, parent)
            return [(*parents, number) for number in self.dataset.of(kind, parents).sample(count, self._dice)]
        found: dict[Path, None] = {}
        for _ in range(count * 20):
            if len(found) == count:
                break
            parents = self._parent(kind, None)
            items: Collection = self.dataset.of(kind, parents)
            found |= {(*parents, number): None for number in items.sample(1, self._dice)}
        return list(found)


class Accounts:
    """All accounts of a vendor."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def __iter__(self) -> Iterator[Account]:
        """In the order in which they were made."""
        return iter(tuple(self._accounts.values()))

    def __len__(self) -> int:
        """How many."""
        return len(self._accounts)

    def __getitem__(self, name: str) -> Account:
        """By name.

        Raises:
            KeyError: there is none.
        """
        return self._accounts[name]

    def add(self, account: Account) -> None:
        """One more, or in the place of the one of that name."""
        self._accounts[account.name] = account

    def of_access_token(self, token: str) -> Account | None:
        """Whose it is, good or not."""
        return next((each for each in self if each.access_token == token), None)

    def of_refresh_token(self, token: str) -> Account | None:
        """Whose it is, if it is good."""
        for each in self:
            if each.refresh_token == token and not each.grant.revoked:
                return each
        return None
