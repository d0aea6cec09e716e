"""Local third parties in the place of those that are not configured; see simulator/."""

import asyncio
import sys
from pathlib import Path

from pydantic import SecretStr

from activities.connectors.known import known
from runtime.settings import Settings

READY_SECONDS = 30.0
TOPIC = "com.acme.app"


class SimulatorNotReady(Exception):
    """The simulator does not listen; its log says why."""


def folder(settings: Settings) -> Path:
    """Where the simulator keeps credentials and its record of everything received."""
    return settings.data_dir.absolute() / "simulator"


def command(settings: Settings) -> list[str]:
    """How to start it."""
    ports = {
        "--smtp-port": settings.simulator_smtp_port,
        "--http-port": settings.simulator_http_port,
        "--apns-port": settings.simulator_apns_port,
    }
    options = [str(word) for name, port in ports.items() for word in (name, port)]
    return [sys.executable, "-m", "simulator", *options, "--folder", str(folder(settings))]


def http_url(settings: Settings) -> str:
    """Of the simulator's HTTP side: receivers, and `/control` to program faults and read what was received."""
    return f"http://127.0.0.1:{settings.simulator_http_port}"


def with_simulator(settings: Settings) -> Settings:
    """The settings with every channel that is not configured sent to the simulator."""
    files = folder(settings)
    replaced: dict[str, object] = {"webhook_networks": (*settings.webhook_networks, "127.0.0.0/8")}
    if settings.smtp_url is None:
        replaced |= {
            "smtp_url": SecretStr(f"smtp://127.0.0.1:{settings.simulator_smtp_port}"),
            "smtp_insecure": True,
            "mail_from": settings.mail_from or "Acme <no-reply@acme.example>",
        }
    if settings.slack_token is None:
        replaced |= {
            "slack_token": SecretStr("xoxb-simulator"),
            "slack_workspace": "simulator",
            "slack_api_url": f"{http_url(settings)}/slack/api",
        }
    if settings.fcm_credentials_file is None:
        replaced |= {
            "fcm_credentials_file": files / "service-account.json",
            "fcm_api_url": f"{http_url(settings)}/fcm",
        }
    if settings.apns_key_file is None:
        replaced |= {
            "apns_key_file": files / "apns-key.p8",
            "apns_key_id": "SIMKEY1234",
            "apns_team_id": "SIMTEAM123",
            "apns_topic": TOPIC,
            "apns_url": f"http://127.0.0.1:{settings.simulator_apns_port}",
        }
    if settings.vapid_private_key_file is None:
        replaced |= {
            "vapid_private_key_file": files / "vapid-private.pem",
            "vapid_public_key_file": files / "vapid-public.pem",
            "vapid_subject": "mailto:ops@acme.example",
            "web_push_hosts": (*settings.web_push_hosts, http_url(settings)),
        }
    vendors = {name: f"{http_url(settings)}/sim/{name}" for name in known()}
    replaced["connector_hosts"] = vendors | settings.connector_hosts
    return settings.model_copy(update=replaced)


async def until_ready(settings: Settings) -> None:
    """Wait until all three ports answer.

    Raises:
        SimulatorNotReady: one does not within 30 s.
    """
    for port in (settings.simulator_http_port, settings.simulator_smtp_port, settings.simulator_apns_port):
        try:
            async with asyncio.timeout(READY_SECONDS):
                await _answers(port)
        except TimeoutError as error:
            msg = f"the simulator does not listen on port {port} after {READY_SECONDS:.0f} s"
            raise SimulatorNotReady(msg) from error


async def _answers(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
