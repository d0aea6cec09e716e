"""Every channel's real client, against the simulator."""

import asyncio
import shutil
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from activities.adapters.channels.apns import Apns
from activities.adapters.channels.channel import Channel, Content, Message, Target
from activities.adapters.channels.email import Email
from activities.adapters.channels.fcm import Fcm
from activities.adapters.channels.slack import Slack
from activities.adapters.channels.web_push import WebPush
from activities.adapters.channels.webhook import Webhook
from contracts.payloads.notification import ChannelName
from simulator.credentials import make
from simulator.stage import Simulator

SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
APNS_TOKEN = "ab" * 32


@dataclass
class Clients:
    """One client and one target per channel."""

    sim: Simulator
    channels: dict[ChannelName, Channel]
    targets: dict[ChannelName, Target]

    def message(self, *, subject: str = "Hello", text: str = "Hello, said at length.", **more: object) -> Message:
        now = datetime.now(UTC)
        made = Message(
            effect_id=str(uuid.uuid4()),
            notification_id=str(uuid.uuid4()),
            tenant="acme",
            category="news",
            urgent=False,
            created_at=now,
            expires_at=now + timedelta(hours=1),
            content=Content(subject=subject, text=text, html=f"<p>{text}</p>"),
        )
        return replace(made, **more)  # type: ignore[arg-type]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The worker's loop: its transports are not those of asyncio."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the simulator's keys, which take a while to make."""
    folder = tmp_path_factory.mktemp("credentials")
    make(folder, "")
    return folder


@pytest_asyncio.fixture
async def clients(credentials: Path, tmp_path: Path) -> AsyncIterator[Clients]:
    folder = tmp_path / "simulator"
    shutil.copytree(credentials, folder)
    async with Simulator(folder=folder) as sim:
        files = sim.credentials
        channels: list[Channel] = [
            Email(
                host="127.0.0.1",
                port=sim.smtp_port,
                tls="none",
                username=None,
                password=None,
                sender="Acme <no-reply@acme.example>",
            ),
            Slack(token="xoxb-simulator", workspace="T1", api_url=f"{sim.http_url}/slack/api"),
            Fcm(credentials_file=files.service_account, api_url=f"{sim.http_url}/fcm"),
            Apns(
                key_file=files.apns_key,
                key_id="SIMKEY1234",
                team_id="SIMTEAM123",
                topic="com.acme.app",
                url=sim.apns_url,
            ),
            WebPush(
                private_key_file=files.vapid_private,
                public_key_file=files.vapid_public,
                subject="mailto:ops@acme.example",
                allowed_hosts=(sim.http_url,),
            ),
            Webhook(allowed_networks=("127.0.0.0/8",)),
        ]
        registered = datetime(2026, 1, 1, tzinfo=UTC)
        subscription = sim.vendors.subscribe().as_json()
        sim.vendors.webhook_secrets["orders"] = SECRET
        targets = [
            Target(ChannelName.EMAIL, "ada@example.com", registered),
            Target(ChannelName.SLACK, "C1", registered),
            Target(ChannelName.FCM, "device-1", registered),
            Target(ChannelName.APNS, APNS_TOKEN, registered),
            Target(ChannelName.WEB_PUSH, subscription["endpoint"], registered, subscription["keys"]),
            Target(ChannelName.WEBHOOK, f"{sim.http_url}/webhooks/orders", registered, {"secret": SECRET}),
        ]
        yield Clients(sim, {each.name: each for each in channels}, {each.channel: each for each in targets})
        for channel in channels:
            await channel.close()
