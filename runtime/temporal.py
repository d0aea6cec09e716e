"""The Temporal client, the same for API, worker, command line and replay."""

import asyncio
import os
import socket
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin
from temporalio.service import RPCError

from runtime.converter import data_converter
from runtime.profile import connect_config
from runtime.settings import Settings
from runtime.unreachable import UnreachableIsUnavailable

log = structlog.get_logger(__name__)

CONNECT_PAUSE = timedelta(seconds=1)


class TemporalUnreachable(Exception):
    """No Temporal service answered; the message names the address and what to check."""


async def connect(settings: Settings, *, role: str, wait: timedelta = timedelta(seconds=60)) -> Client:
    """A connected client.

    The address, namespace, TLS and API key come from the standard environment or profile; without any of them the
    embedded server's port is used.

    Args:
        settings: for the embedded server's port.
        role: goes into the identity that the Web UI shows, such as `worker`.
        wait: how long a service that does not answer yet is waited for.

    Raises:
        TemporalUnreachable: after `wait`.
    """
    deadline = asyncio.get_running_loop().time() + wait.total_seconds()
    options = _options(settings, role)
    while True:
        try:
            return await Client.connect(**options)
        except (RuntimeError, RPCError) as error:
            if asyncio.get_running_loop().time() >= deadline:
                msg = (
                    f"no Temporal service at {options['target_host']}: {error}. Start one with `holdfast up`, or set "
                    "TEMPORAL_ADDRESS (and TEMPORAL_NAMESPACE) to a running one."
                )
                raise TemporalUnreachable(msg) from error
            log.info("temporal.awaited", address=options["target_host"])
        await asyncio.sleep(CONNECT_PAUSE.total_seconds())


async def lazy_client(settings: Settings, *, role: str) -> Client:
    """A client that connects at its first call, so that the API starts and says 503 while Temporal is away."""
    return await Client.connect(**_options(settings, role), lazy=True)


def _options(settings: Settings, role: str) -> dict[str, Any]:
    config: dict[str, Any] = connect_config()
    config.setdefault("target_host", f"127.0.0.1:{settings.temporal_port}")
    return config | {
        "identity": f"{role}@{socket.gethostname()}:{os.getpid()}",
        "data_converter": data_converter(),
        "interceptors": [UnreachableIsUnavailable()],
        "plugins": [OpenTelemetryPlugin(add_temporal_spans=True)],
    }
