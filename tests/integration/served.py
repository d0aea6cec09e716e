"""A real Temporal server, a migrated store and no worker, for tests of what the API and the command line ask of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from temporalio.client import Client

from runtime.converter import data_converter
from runtime.server import EmbeddedServer, ServerOptions
from starter.bootstrap import bootstrap
from starter.services import Services, open_services
from tests.integration.stack import settings_in


@asynccontextmanager
async def served(folder: Path, **more: Any) -> AsyncIterator[Services]:
    settings = settings_in(folder, **more)
    options = ServerOptions(folder, settings.temporal_port, settings.temporal_ui_port)
    async with EmbeddedServer(options) as server, open_services(settings, role="test") as services:
        # workers take no lazy client, and no plugin without a tracer
        connected = await Client.connect(server.address, data_converter=data_converter())
        await bootstrap(connected, services.database, settings)
        yield replace(services, temporal=connected)
