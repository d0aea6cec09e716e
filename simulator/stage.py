"""All third parties in one process."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from simulator.apns import Apns, ProviderTokens
from simulator.control import Control
from simulator.credentials import Credentials, make
from simulator.faults import Faults
from simulator.http import Vendors
from simulator.records import Records
from simulator.smtp import Relay
from simulator.vendors import ThirdParties, VendorControl

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 30 * 1024 * 1024


class Simulator:
    """`async with Simulator() as sim`: listens on loopback; a port of 0 is chosen by the system.

    Attributes:
        smtp_port: of the mail relay.
        http_url: of everything that speaks HTTP/1.1, with `/control` beside the vendors.
        apns_url: of APNs.
        faults: what goes wrong.
        records: what was received, and what devices show.
        credentials: files for clients.
        vendors: to make subscriptions and register webhooks.
        thirds: the APIs that are synced, below `/sim`; see simulator/vendors.
        apns_connections: opened so far.
    """

    def __init__(
        self,
        *,
        smtp_port: int = 0,
        http_port: int = 0,
        apns_port: int = 0,
        folder: Path | None = None,
        seed: int = 1,
        clock: Callable[[], float] = time.time,
        speed: float = 1.0,
    ) -> None:
        self._ports = (smtp_port, http_port, apns_port)
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="simulator-")
        self.folder = folder or Path(self._temporary.name if self._temporary else ".")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.faults = Faults(seed)
        self.records = Records(folder)
        self.vendors = Vendors(self.faults, self.records)
        self.thirds = ThirdParties(clock=clock, seed=seed, speed=speed)
        self.credentials: Credentials
        self._servers: list[asyncio.Server] = []
        self._runner: web.AppRunner | None = None
        self.smtp_port = 0
        self.http_url = self.apns_url = ""
        self.apns_connections = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        loop = asyncio.get_running_loop()
        smtp_port, http_port, apns_port = self._ports
        application = web.Application(client_max_size=MAX_REQUEST_BYTES)
        application.add_routes(self.vendors.routes())
        application.add_routes(self.thirds.routes())
        application.add_routes(VendorControl(self.thirds).routes())
        application.add_routes(Control(self.faults, self.records, self.vendors).routes())
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, http_port)
        await site.start()
        self.http_url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        self.vendors.origin = self.thirds.origin = self.http_url
        self.credentials = self.vendors.credentials = make(self.folder, f"{self.http_url}/oauth/token")
        tokens = ProviderTokens(self.credentials.apns_public_key())

        def connected() -> Apns:
            self.apns_connections += 1
            return Apns(self.faults, self.records, tokens)

        apns = await loop.create_server(connected, HOST, apns_port)
        smtp = await loop.create_server(lambda: Relay(self.faults, self.records), HOST, smtp_port)
        self._servers = [apns, smtp]
        self.apns_url = f"http://{HOST}:{apns.sockets[0].getsockname()[1]}"
        self.smtp_port = smtp.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop_listening()
        self.records.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def stop_listening(self) -> None:
        """Refuse connections from now on."""
        for server in self._servers:
            server.close()
        if self._runner is not None:
            await self._runner.cleanup()
