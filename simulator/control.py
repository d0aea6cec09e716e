"""`/control`: program faults, read what was received, connect and disconnect devices."""

from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from simulator.faults import Fault, Faults
from simulator.http import Vendors
from simulator.records import Records


class Control:
    """The handlers."""

    def __init__(self, faults: Faults, records: Records, vendors: Vendors) -> None:
        self._faults = faults
        self._records = records
        self._vendors = vendors

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        return [
            web.post("/control/faults", self.add_fault),
            web.delete("/control/faults", self.clear_faults),
            web.get("/control/records", self.list_records),
            web.delete("/control/records", self.clear_records),
            web.get("/control/summary", self.summary),
            web.get("/control/devices", self.device),
            web.put("/control/devices", self.connect_device),
            web.post("/control/subscriptions", self.subscribe),
            web.put("/control/webhooks/{name}", self.register_webhook),
        ]

    async def add_fault(self, request: web.Request) -> web.Response:
        """A `Fault` as JSON."""
        try:
            self._faults.add(Fault.model_validate(await request.json()))
        except (ValidationError, KeyError) as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.Response(status=204)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """All is well again."""
        self._faults.clear()
        return web.Response(status=204)

    async def list_records(self, request: web.Request) -> web.Response:
        """`?channel=&after=<number>`."""
        found = self._records.of(request.query.get("channel"), after=int(request.query.get("after", "0")))
        return web.json_response([asdict(each) for each in found])

    async def clear_records(self, _request: web.Request) -> web.Response:
        """Forget."""
        self._records.clear()
        return web.Response(status=204)

    async def summary(self, _request: web.Request) -> web.Response:
        """Counts per channel."""
        return web.json_response(self._records.summary())

    async def device(self, request: web.Request) -> web.Response:
        """`?channel=&target=`: what the device shows."""
        device = self._records.device(request.query["channel"], request.query["target"])
        return web.json_response(
            {"online": device.online, "raw": device.raw, "shown": [asdict(each) for each in device.shown.values()]}
        )

    async def connect_device(self, request: web.Request) -> web.Response:
        """`{"channel", "target", "online"}`."""
        body: dict[str, Any] = await request.json()
        self._records.set_online(body["channel"], body["target"], online=bool(body["online"]))
        return web.Response(status=204)

    async def subscribe(self, _request: web.Request) -> web.Response:
        """A new Web Push subscription, as a browser gives it."""
        return web.json_response(self._vendors.subscribe().as_json(), status=201)

    async def register_webhook(self, request: web.Request) -> web.Response:
        """`{"secret": "whsec_…"}`; answers the URL."""
        name = request.match_info["name"]
        self._vendors.webhook_secrets[name] = str((await request.json())["secret"])
        return web.json_response({"url": f"{self._vendors.origin}/webhooks/{name}"})
