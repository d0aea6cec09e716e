"""`/control/vendors`: accounts, limits, changes, faults and statistics of the vendors that are synced."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulator.vendors.accounts import Account
from simulator.vendors.faults import VendorFault
from simulator.vendors.third_parties import ThirdParties, as_json

Handler = Callable[[web.Request], Awaitable[web.Response]]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewAccount(_Body):
    """See `ThirdParties.account`."""

    name: str | None = None
    sizes: dict[str, int] = Field(default_factory=dict)
    limits: dict[str, float] = Field(default_factory=dict)
    token_seconds: float | None = None
    app: str = "holdfast"
    seed: int | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class Change(_Body):
    """See `Account.add`, `.change` and `.delete`."""

    action: Literal["add", "change", "delete"]
    kind: str
    ids: list[str] | None = None
    parent: str | None = None
    count: int = Field(default=1, ge=0)
    about: str | None = None


class Settings(_Body):
    """What changes for an account."""

    sizes: dict[str, int] | None = None
    limits: dict[str, float] | None = None
    token: Literal["revoke", "expire", "restore"] | None = None


class Eat(_Body):
    """See `ThirdParties.eat`."""

    quota: str
    amount: float = Field(gt=0)
    scope: str | None = None


class Speed(_Body):
    """By how much windows are shorter."""

    speed: float = Field(gt=0)


class VendorControl:
    """The handlers."""

    def __init__(self, thirds: ThirdParties) -> None:
        self._thirds = thirds

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        account = "/control/vendors/accounts/{vendor}/{name}"
        return [
            web.get("/control/vendors/accounts", self.list_accounts),
            web.post("/control/vendors/accounts/{vendor}", checked(self.add_account)),
            web.get(account, checked(self.show_account)),
            web.patch(account, checked(self.set_account)),
            web.post(f"{account}/items", checked(self.change_items)),
            web.get(f"{account}/items/{{kind}}", checked(self.list_items)),
            web.post(f"{account}/eat", checked(self.eat)),
            web.put("/control/vendors/speed", checked(self.set_speed)),
            web.post("/control/vendors/faults", checked(self.add_fault)),
            web.delete("/control/vendors/faults", self.clear_faults),
            web.get("/control/vendors/statistics", self.statistics),
            web.delete("/control/vendors/statistics", self.reset_statistics),
        ]

    async def list_accounts(self, _request: web.Request) -> web.Response:
        """All, with their tokens."""
        return web.json_response([each.as_json() for each in self._thirds.accounts()])

    async def add_account(self, request: web.Request) -> web.Response:
        """A `NewAccount`; answers it with its tokens."""
        given = NewAccount.model_validate(await request.json() if request.can_read_body else {})
        fields = given.model_dump(exclude={"options"})
        account = self._thirds.account(request.match_info["vendor"], **fields, **given.options)
        return web.json_response(account.as_json(), status=201)

    async def show_account(self, request: web.Request) -> web.Response:
        """One, with its tokens."""
        return web.json_response(self._account(request).as_json())

    async def set_account(self, request: web.Request) -> web.Response:
        """`Settings`; answers the account."""
        account, given = self._account(request), Settings.model_validate(await request.json())
        if given.sizes is not None:
            account.resize(given.sizes)
        if given.limits is not None:
            self._thirds.set_limits(account, given.limits)
        if given.token == "revoke":  # noqa: S105 - an order
            account.revoke()
        elif given.token == "expire":  # noqa: S105 - an order
            account.expire()
        elif given.token == "restore":  # noqa: S105 - an order
            account.restore()
        return web.json_response(account.as_json())

    async def change_items(self, request: web.Request) -> web.Response:
        """A `Change`; answers the identifiers."""
        account, given = self._account(request), Change.model_validate(await request.json())
        if given.action == "add":
            ids = account.add(given.kind, parent=given.parent, count=given.count, about=given.about)
        elif given.action == "change":
            ids = account.change(given.kind, given.ids, parent=given.parent, count=given.count)
        else:
            ids = account.delete(given.kind, given.ids, parent=given.parent, count=given.count)
        return web.json_response({"ids": ids})

    async def list_items(self, request: web.Request) -> web.Response:
        """`?parent=`: the identifiers of a kind."""
        ids = self._account(request).ids(request.match_info["kind"], request.query.get("parent"))
        return web.json_response({"ids": ids, "count": len(ids)})

    async def eat(self, request: web.Request) -> web.Response:
        """An `Eat`."""
        given = Eat.model_validate(await request.json())
        self._thirds.eat(self._account(request), given.quota, given.amount, given.scope)
        return web.Response(status=204)

    async def set_speed(self, request: web.Request) -> web.Response:
        """A `Speed`. All quotas begin anew."""
        self._thirds.speed = Speed.model_validate(await request.json()).speed
        return web.Response(status=204)

    async def add_fault(self, request: web.Request) -> web.Response:
        """A `VendorFault`."""
        self._thirds.faults.add(VendorFault.model_validate(await request.json()))
        return web.Response(status=204)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """All is well again."""
        self._thirds.faults.clear()
        return web.Response(status=204)

    async def statistics(self, request: web.Request) -> web.Response:
        """`?vendor=`: of vendors and of quotas."""
        vendor = request.query.get("vendor")
        vendors = [as_json(each) for name, each in self._thirds.summary().items() if vendor in {None, name}]
        return web.json_response(
            {"vendors": vendors, "quotas": [as_json(each) for each in self._thirds.statistics(vendor)]}
        )

    async def reset_statistics(self, _request: web.Request) -> web.Response:
        """All quotas are whole, nothing is counted."""
        self._thirds.reset_statistics()
        return web.Response(status=204)

    def _account(self, request: web.Request) -> Account:
        return self._thirds.vendors[request.match_info["vendor"]].accounts[request.match_info["name"]]


def checked(handler: Handler) -> Handler:
    """Answers what is not there with 404, and nonsense with 422."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except KeyError as error:
            return web.json_response({"error": f"there is no {error}"}, status=404)
        except (ValidationError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=422)

    return handle
