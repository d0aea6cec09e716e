"""All vendors that are synced, and their programming interface."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from simulator.quota import Counts
from simulator.vendors.accounts import Account, Clock
from simulator.vendors.faults import VendorFault, VendorFaults
from simulator.vendors.figma import Figma
from simulator.vendors.github import GitHub
from simulator.vendors.jira import Jira
from simulator.vendors.slack import Slack
from simulator.vendors.vendor import Vendor

VENDORS: tuple[type[Vendor], ...] = (GitHub, Jira, Figma, Slack)
NAME = re.compile(r"[a-z0-9][a-z0-9-]*$")


@dataclass(frozen=True, slots=True)
class ScopeStatistics:
    """One quota of one scope. `counts` are explained at `simulator.quota.Counts`."""

    vendor: str
    quota: str
    scope: str
    limit: float
    counts: Counts


@dataclass(frozen=True, slots=True)
class VendorStatistics:
    """One vendor, all scopes together.

    Attributes:
        requests: that came, with or without a good token.
        refusals: for a quota; the sum of the following three.
        refused_own: the client asked too much.
        refused_surprise: another client had used the quota, and nobody had told.
        refused_again: the client had been told to come later.
        surprises: how often other clients used a quota.
        by_status: requests by HTTP status.
        by_endpoint: requests by endpoint.
    """

    vendor: str
    requests: int
    refusals: int
    refused_own: int
    refused_surprise: int
    refused_again: int
    surprises: int
    by_status: dict[int, int]
    by_endpoint: dict[str, int]


class ThirdParties:
    """The vendors. See the package for how to use it.

    Attributes:
        faults: what goes wrong.
        vendors: by name.
        origin: where they are served; the simulator sets it.
    """

    def __init__(self, *, clock: Clock = time.time, seed: int = 1, speed: float = 1.0) -> None:
        self.clock = clock
        self.seed = seed
        self.origin = ""
        self.faults = VendorFaults(seed)
        self.vendors: dict[str, Vendor] = {made.name: made(clock, self.faults, speed) for made in VENDORS}

    @property
    def speed(self) -> float:
        """By how much all windows are shorter than the vendors'."""
        return next(iter(self.vendors.values())).speed

    @speed.setter
    def speed(self, speed: float) -> None:
        for vendor in self.vendors.values():
            vendor.speed = speed
            vendor.reset()

    def base_url(self, vendor: str) -> str:
        """Where a client finds a vendor."""
        return f"{self.origin}/sim/{vendor}"

    def account(
        self,
        vendor: str,
        name: str | None = None,
        *,
        sizes: Mapping[str, int] | None = None,
        limits: Mapping[str, float] | None = None,
        token_seconds: float | None = None,
        app: str = "holdfast",
        seed: int | None = None,
        **options: Any,
    ) -> Account:
        """A new account at a vendor.

        Args:
            vendor: github, jira, figma or slack.
            name: unique at the vendor; small letters, digits and hyphens.
            sizes: how many items of each kind in each parent, what is not named as the vendor's module says.
            limits: by the name of the quota, what is not named as the vendor's module says.
            token_seconds: how long its access tokens last; as the vendor's if not given.
            app: the OAuth client it is connected to.
            seed: of its data.
            **options: the vendor's own, see its module.

        Raises:
            KeyError: there is no such vendor.
            ValueError: a name, kind, quota or option that it does not have.
        """
        of = self.vendors[vendor]
        ordinal = len(of.accounts) + 1
        name = name or f"{vendor}-{ordinal}"
        usual = of.options_of(ordinal)
        for given, known in ((sizes or {}, of.sizes), (limits or {}, of.limits), (options, usual)):
            if not set(given) <= set(known):
                raise ValueError(f"{vendor} has {sorted(known)}, not {sorted(set(given) - set(known))}")
        if not NAME.match(name):
            raise ValueError(f"{name!r} cannot be in a URL")
        if any(each.name == name for each in of.accounts):
            raise ValueError(f"{vendor} has an account {name!r} already")
        made = Account(
            of,
            self.clock,
            name=name,
            ordinal=ordinal,
            seed=self.seed if seed is None else seed,
            sizes={**of.sizes, **(sizes or {})},
            limits=limits or {},
            token_seconds=of.token_seconds if token_seconds is None else token_seconds,
            app=app,
            options={**usual, **options},
            base_url=self.base_url(vendor),
        )
        of.accounts.add(made)
        return made

    def accounts(self) -> Iterator[Account]:
        """Of all vendors."""
        for vendor in self.vendors.values():
            yield from vendor.accounts

    def set_limits(self, account: Account, limits: Mapping[str, float]) -> None:
        """Other limits from now on; what was used in the current windows stays used.

        Raises:
            ValueError: the vendor has no such quota.
        """
        vendor = self.vendors[account.vendor]
        if not set(limits) <= set(vendor.limits):
            raise ValueError(f"{account.vendor} has {sorted(vendor.limits)}")
        account.limits |= limits
        for name, scope, quota in self._quotas(account):
            if name in limits:
                quota.limit = vendor.limit_of(name, account)
                vendor.keep_limit(name, scope, quota.limit)

    def eat(self, account: Account, quota: str, amount: float, scope: str | None = None) -> None:
        """Another client uses so much of a quota of an account, in one scope or in all that were used yet."""
        vendor = self.vendors[account.vendor]
        if scope is not None:
            vendor.quota(quota, scope, account).eat(self.clock(), amount)
            return
        for name, _, found in self._quotas(account):
            if name == quota:
                found.eat(self.clock(), amount)

    def statistics(self, vendor: str | None = None) -> list[ScopeStatistics]:
        """Of every quota that was used."""
        return [
            ScopeStatistics(of.name, name, scope, quota.limit, quota.counts())
            for of in self.vendors.values()
            if vendor in {None, of.name}
            for (name, scope), quota in of.quotas.items()
        ]

    def summary(self) -> dict[str, VendorStatistics]:
        """Of every vendor."""
        return {name: self._summary(name) for name in self.vendors}

    def reset_statistics(self) -> None:
        """All quotas are whole, nothing is counted; accounts and data stay."""
        for vendor in self.vendors.values():
            vendor.reset()

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        return [route for vendor in self.vendors.values() for route in vendor.routes()]

    def fault(self, kind: str, **details: Any) -> None:
        """Program a fault, see `VendorFault`."""
        self.faults.add(VendorFault.model_validate({"kind": kind, **details}))

    def _summary(self, name: str) -> VendorStatistics:
        vendor = self.vendors[name]
        counts = [each.counts for each in self.statistics(name)]
        by_status: dict[int, int] = {}
        by_endpoint: dict[str, int] = {}
        for (_, endpoint, status), count in vendor.requests.items():
            by_status[status] = by_status.get(status, 0) + count
            by_endpoint[endpoint] = by_endpoint.get(endpoint, 0) + count
        return VendorStatistics(
            vendor=name,
            requests=sum(by_status.values()),
            refusals=sum(each.refused for each in counts),
            refused_own=sum(each.refused_own for each in counts),
            refused_surprise=sum(each.refused_surprise for each in counts),
            refused_again=sum(each.refused_again for each in counts),
            surprises=sum(each.surprises for each in counts),
            by_status=by_status,
            by_endpoint=by_endpoint,
        )

    def _quotas(self, account: Account) -> Iterator[tuple[str, str, Any]]:
        for (name, scope), quota in self.vendors[account.vendor].quotas.items():
            if scope.split(" ")[0] in {account.name, account.app}:
                yield name, scope, quota


def as_json(statistics: ScopeStatistics | VendorStatistics) -> dict[str, Any]:
    """For the control."""
    return asdict(statistics)
