"""The whole thing, started as `holdfast up` starts it, on free ports and in a folder of its own."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw, ImageFont

from runtime.ports import free_port
from runtime.settings import Settings
from starter.services import Services, open_services
from starter.supervisor import Stack, stack
from store.api_keys import Role

PATIENCE = 120.0  # seconds; for machines that are busy with something else


@dataclass
class Running:
    """The stack, its services and a client per key."""

    stack: Stack
    services: Services
    settings: Settings

    async def key(self, tenant: str = "acme", role: Role = Role.SUBMIT) -> str:
        _, secret = await self.services.api_keys.create(tenant, role, "test")
        return secret

    async def client(self, tenant: str = "acme", role: Role = Role.SUBMIT) -> httpx.AsyncClient:
        return self.with_key(await self.key(tenant, role))

    def with_key(self, secret: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.AsyncClient(base_url=self.settings.resolved_public_url(), headers=headers, timeout=PATIENCE)


def settings_in(folder: Path, **more: Any) -> Settings:
    return Settings(
        data_dir=folder,
        api_port=free_port(),
        temporal_port=free_port(),
        temporal_ui_port=free_port(),
        log_format="json",
        **more,
    )


@asynccontextmanager
async def running(folder: Path, **more: Any) -> AsyncIterator[Running]:
    settings = settings_in(folder, **more)
    async with (
        stack(settings, logs=folder / "logs") as started,
        open_services(settings, role="test") as services,
    ):
        yield Running(started, services, settings)


def picture(text: str, *, size: tuple[int, int] = (700, 160), kind: str = "PNG") -> bytes:
    """A small picture with one line of text."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((30, 50), text, font=ImageFont.load_default(40), fill="black")
    body = io.BytesIO()
    image.save(body, kind)
    return body.getvalue()


async def events(client: httpx.AsyncClient, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    """The job's events until the stream ends: name and data."""
    seen: list[tuple[str, dict[str, Any]]] = []
    name = ""
    async with asyncio.timeout(PATIENCE), client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                seen.append((name, json.loads(line.removeprefix("data:"))))
    return seen


async def closed(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """The job when it is closed."""
    return (await events(client, job_id))[-1][1]
