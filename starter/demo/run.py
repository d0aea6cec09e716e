"""What `make demo` does: everything started for real, real files through the public API, and what came out.

Leaves `.holdfast/demo/summary.json`:
`{"jobs": [{"type", "id", "state", "seconds", "artefacts": [...]}], "ok": true}`.
"""

import asyncio
import json
import shutil
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from runtime.ports import free_port
from runtime.settings import Settings
from starter.demo.broadcasts import broadcast, digest
from starter.demo.integrations import integrations
from starter.demo.notifications import notifications
from starter.demo.ran import Ran
from starter.demo.samples import Sample, write_samples
from starter.services import open_services
from starter.simulated import http_url
from starter.supervisor import stack
from store.api_keys import Role

TENANT = "acme"
PLAIN_WIDTH = 120  # characters, where the output is no terminal
GIVE_UP_SECONDS = 120.0  # for one job; a slow machine takes a tenth of it


async def run_demo(settings: Settings) -> int:
    """Run it; the exit code."""
    out = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    folder = settings.data_dir / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    settings = settings.model_copy(
        update={
            "data_dir": folder / "data",
            "api_port": free_port(),
            "temporal_port": free_port(),
            "temporal_ui_port": free_port(),
            "simulator": True,
            "simulator_smtp_port": free_port(),
            "simulator_http_port": free_port(),
            "simulator_apns_port": free_port(),
            "public_url": "",
            "log_format": "json",
            "log_level": "info",
        }
    )
    began = time.monotonic()
    out.print(
        "[bold]Holdfast demo[/bold]: scans and PDFs become searchable text; notifications, broadcast, digest go out; "
        "third parties are synced."
    )
    async with AsyncExitStack() as running:
        with out.status("making documents, starting Temporal, the worker and the API"):
            samples = await asyncio.to_thread(write_samples, folder / "samples")
            started = await running.enter_async_context(stack(settings, logs=folder / "logs"))
        server = started.server.address if started.server else "the configured Temporal service"
        out.print(f"Running after {time.monotonic() - began:.1f} s: Temporal at {server}, logs in {folder / 'logs'}/")
        async with open_services(settings, role="demo") as services:
            _key, secret = await services.api_keys.create(TENANT, Role.SUBMIT, "demo")
        async with httpx.AsyncClient(
            base_url=settings.resolved_public_url(), headers={"Authorization": f"Bearer {secret}"}, timeout=30
        ) as client:
            jobs, problems = await _files(client, samples, folder / "artefacts", out)
            problems += await _search(client, out)
            said, unsaid = await notifications(client, http_url(settings), folder / "artefacts", out)
            jobs += said
            problems += unsaid
            for ran, wrong in (
                await broadcast(client, http_url(settings), out),
                await digest(client, started.settings, TENANT, http_url(settings), out),
                await integrations(client, http_url(settings), out),
            ):
                jobs += ran
                problems += wrong
        out.print("Stopping.")
    _report(out, jobs, problems, folder, time.monotonic() - began)
    return 1 if problems else 0


async def _files(
    client: httpx.AsyncClient, samples: tuple[Sample, ...], artefacts: Path, out: Console
) -> tuple[list[Ran], list[str]]:
    problems: list[str] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as progress:
        answers = await asyncio.gather(
            *(_one_file(client, sample, artefacts / sample.path.stem, progress, problems) for sample in samples)
        )
    return list(answers), problems


async def _one_file(
    client: httpx.AsyncClient, sample: Sample, artefacts: Path, progress: Progress, problems: list[str]
) -> Ran:
    shown = progress.add_task(f"{sample.path.name}: uploading", total=sample.pages)
    began = time.monotonic()
    with sample.path.open("rb") as body:
        answer = await client.post(
            "/v1/files", files={"file": (sample.path.name, body)}, headers={"Idempotency-Key": sample.path.name}
        )
    answer.raise_for_status()
    accepted = answer.json()
    job: dict[str, Any] = {}
    async with (
        asyncio.timeout(GIVE_UP_SECONDS),
        client.stream("GET", f"/v1/jobs/{accepted['job_id']}/events", timeout=GIVE_UP_SECONDS) as events,
    ):
        async for line in events.aiter_lines():
            if line.startswith("data:"):
                job = json.loads(line.removeprefix("data:"))
                now = job["progress"] or {"stage": "verifying", "done": 0}
                stage = now["stage"] if job["state"] == "running" else job["state"]
                progress.update(shown, completed=now["done"], description=f"{sample.path.name}: {stage}")
    seconds = time.monotonic() - began
    paths: list[str] = []
    came_out = (job["error"] or {}).get("detail", "")
    if job["state"] == "done":
        paths, missing = await _fetch(client, accepted["file_id"], artefacts, sample)
        result = job["result"]
        pages = f"{result['pages']} page{'s' if result['pages'] > 1 else ''}"
        read = f"{result['pages_ocr']} by OCR, {result['pages'] - result['pages_ocr']} by text layer"
        came_out = f"{pages} ({read}), {result['words']} words, {len(result['thumbnails_px'])} thumbnails"
        if missing:
            problems.append(f"{sample.path.name}: not read: {', '.join(missing)}")
    else:
        problems.append(f"{sample.path.name}: {job['state']}: {came_out}")
    return Ran("file", job["job_id"], job["state"], round(seconds, 2), paths, came_out, job["links"]["web_ui"])


async def _fetch(
    client: httpx.AsyncClient, file_id: str, artefacts: Path, sample: Sample
) -> tuple[list[str], list[str]]:
    """Save thumbnails and text; the paths, and the sample's words that are not in the text."""
    artefacts.mkdir(parents=True)
    file = (await client.get(f"/v1/files/{file_id}")).raise_for_status().json()
    paths = []
    for thumbnail in file["thumbnails"]:
        path = artefacts / f"{thumbnail['size']}.webp"
        path.write_bytes((await client.get(thumbnail["url"])).raise_for_status().content)
        paths.append(str(path))
    text = (await client.get(file["text"], headers={"Accept": "text/plain"})).raise_for_status().text
    path = artefacts / "text.txt"
    path.write_text(text)
    paths.append(str(path))
    return paths, [word for word in sample.words if word.lower() not in text.lower()]


async def _search(client: httpx.AsyncClient, out: Console) -> list[str]:
    problems = []
    for query, expected in (
        ('"total due"', {"invoice-scan.jpg", "contract.pdf"}),
        ("brackets", {"delivery-note-photo.jpg"}),
    ):
        hits = (await client.get("/v1/files", params={"q": query})).raise_for_status().json()["hits"]
        found = {hit["filename"] for hit in hits}
        out.print(f"Search {query}:", highlight=False)
        for hit in hits:
            snippet = " ".join(hit["snippet"].split())
            out.print(
                f"  {hit['filename']}, page {hit['page']}: {snippet}",
                highlight=False,
                no_wrap=True,
                overflow="ellipsis",
            )
        if found != expected:
            problems.append(f"search {query} found {sorted(found)}, not {sorted(expected)}")
    return problems


def _report(out: Console, jobs: list[Ran], problems: list[str], folder: Path, seconds: float) -> None:
    table = Table("job", "state", "seconds", "what came out")
    for job in jobs:
        name = Path(job.artefacts[0]).parent.name if job.artefacts else ""
        table.add_row(f"{job.type}  {name}".strip(), job.state, f"{job.seconds:.1f}", job.came_out)
    out.print(table)
    summary = folder / "summary.json"
    entries = [{key: value for key, value in asdict(job).items() if key != "came_out"} for job in jobs]
    summary.write_text(json.dumps({"jobs": entries, "ok": not problems}, indent=2))
    for problem in problems:
        out.print(f"[red]problem:[/red] {escape(problem)}", highlight=False)
    out.print(f"Thumbnails and texts: {folder / 'artefacts'}/   Summary: {summary}", highlight=False)
    out.print(f"{'All well' if not problems else 'Not well'}, {seconds:.0f} s. `make dev` leaves everything running.")
