"""What the benchmarks share: the whole stack in a folder of its own, and tables that are printed and kept."""

import os
import platform
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from runtime.ports import free_port
from runtime.settings import Settings
from starter.services import Services, open_services
from starter.supervisor import Stack, stack
from store.api_keys import Role

RESULTS = Path(__file__).parent / "results"
WIDTH = 110


@dataclass
class Stage:
    settings: Settings
    stack: Stack
    services: Services
    client: httpx.AsyncClient


@asynccontextmanager
async def stage(*, simulator: bool = False) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        settings = Settings(
            data_dir=Path(folder),
            api_port=free_port(),
            temporal_port=free_port(),
            temporal_ui_port=free_port(),
            log_format="json",
            simulator=simulator,
            simulator_smtp_port=free_port(),
            simulator_http_port=free_port(),
            simulator_apns_port=free_port(),
        )
        async with (
            stack(settings, logs=Path(folder) / "logs") as started,
            open_services(settings, role="bench") as services,
        ):
            _, secret = await services.api_keys.create("acme", Role.SUBMIT, "bench")
            async with httpx.AsyncClient(
                base_url=settings.resolved_public_url(),
                headers={"Authorization": f"Bearer {secret}"},
                timeout=60,
                limits=httpx.Limits(max_connections=200, max_keepalive_connections=200),
            ) as client:
                yield Stage(settings, started, services, client)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def neighbours() -> float:
    """Share of all cores that other programs use now, measured over a second."""
    return psutil.cpu_percent(interval=1.0) / 100


def keep(name: str, tables: Sequence[Table], notes: Sequence[str]) -> None:
    """Print, and write bench/results/<name>.txt."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    with (RESULTS / f"{name}.txt").open("w") as file:
        for console in (Console(width=WIDTH), Console(file=file, width=WIDTH)):
            for table in tables:
                console.print(table)
            for note in (*notes, machine):
                console.print(note, highlight=False)
