"""OCR and thumbnails through the workflow against a plain loop over the same files with as many processes.

Rounds alternate. The loop's processes have the same nice value and warm models. The workflow's time counts from the
first CPU step scheduled to the last completed, as Temporal's histories say: for scanned pages that is OCR alone, for
photos it is inspection, thumbnails and OCR, and the loop does these three as well.

    python -m bench.file_throughput
"""

import asyncio
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from activities.adapters import images, inspection, ocr
from activities.file import LIMITS
from bench.stage import Stage, keep, neighbours, stage
from contracts.payloads.file import THUMBNAIL_SIZES_PX
from runtime.cpu_pool import CpuPool
from starter.demo.samples import scanned_pdf

ROUNDS = 2
PDFS, PAGES = 2, 8
PHOTOS = 30
PHOTO_SIZE = (2400, 1800)
MINUTE = timedelta(minutes=1)
PHOTO_STEPS = {"file.verify", "file.make_thumbnails", "file.read_page"}


def photo(path: Path, seed: int) -> None:
    """Blank but for noise in one corner: next to nothing to read, all of a photo to decode and shrink."""
    noise = np.random.default_rng(seed)
    small = noise.integers(180, 256, (18, 24, 3), dtype=np.uint8)
    Image.fromarray(small).resize(PHOTO_SIZE, Image.Resampling.BICUBIC).save(path, quality=85)


async def through_workflow(on: Stage, files: list[Path], steps: set[str]) -> float:
    async def one(path: Path) -> str:
        body = path.read_bytes() + os.urandom(8) if path.suffix == ".jpg" else path.read_bytes()
        answer = await on.client.post("/v1/files", files={"file": (path.name, body)})
        accepted = answer.raise_for_status().json()
        while True:
            job = (await on.client.get(f"/v1/jobs/{accepted['job_id']}")).json()
            if job["state"] == "done":
                return str(job["links"]["web_ui"]).split("/workflows/")[1].split("/")[0]
            assert job["state"] in {"submitted", "running"}, job
            await asyncio.sleep(3)  # seconds; asking costs CPU that the work needs, and is not what is measured

    workflows = await asyncio.gather(*(one(path) for path in files))
    scheduled: list[float] = []
    completed: list[float] = []
    for workflow_id in workflows:
        history = await on.services.temporal.get_workflow_handle(workflow_id).fetch_history()
        ours: set[int] = set()
        for event in history.events:
            at = event.event_time.ToMicroseconds() / 1e6
            if event.HasField("activity_task_scheduled_event_attributes"):
                if event.activity_task_scheduled_event_attributes.activity_type.name in steps:
                    ours.add(event.event_id)
                    scheduled.append(at)
            elif event.activity_task_completed_event_attributes.scheduled_event_id in ours:
                completed.append(at)
    return max(completed) - min(scheduled)


async def loop_pages(pool: CpuPool, files: list[Path]) -> float:
    began = time.perf_counter()
    await asyncio.gather(
        *(
            pool.run("loop", MINUTE, ocr.read_page, str(path), "application/pdf", page)
            for path in files
            for page in range(1, PAGES + 1)
        )
    )
    return time.perf_counter() - began


async def loop_photos(pool: CpuPool, files: list[Path]) -> float:
    async def one(path: Path) -> None:
        await pool.run("loop", MINUTE, inspection.inspect, str(path), path.name, LIMITS)
        await pool.run("loop", MINUTE, images.thumbnails, str(path), "image/jpeg", THUMBNAIL_SIZES_PX)
        await pool.run("loop", MINUTE, ocr.read_page, str(path), "image/jpeg", 1)

    began = time.perf_counter()
    await asyncio.gather(*(one(path) for path in files))
    return time.perf_counter() - began


async def main() -> None:
    rows: dict[str, list[tuple[float, float]]] = {"OCR": [], "photos": []}
    with tempfile.TemporaryDirectory() as folder:
        photos = [Path(folder) / f"{number}.jpg" for number in range(PHOTOS)]
        for number, path in enumerate(photos):
            photo(path, number)
        before = neighbours()
        async with stage() as on:
            pool = CpuPool()
            pool.warm_up(ocr.warm)
            await asyncio.gather(*(pool.run("loop", MINUTE, ocr.warm) for _ in range(pool.children)))
            for number in range(ROUNDS):
                pdfs = [Path(folder) / f"{number}-{each}.pdf" for each in range(PDFS)]
                for each, path in enumerate(pdfs):
                    scanned_pdf(path, pages=PAGES, seed=100 + 10 * number + each)
                plain = await loop_pages(pool, pdfs)
                rows["OCR"].append((plain, await through_workflow(on, pdfs, {"file.read_page"})))
                plain = await loop_photos(pool, photos)
                rows["photos"].append((plain, await through_workflow(on, photos, PHOTO_STEPS)))
            children = pool.children
            pool.close()
    table = Table("work", "round", "plain loop s", "workflow s", "workflow / loop", title=f"{children} processes each")
    notes = []
    for name, results in rows.items():
        for number, (plain, workflow) in enumerate(results, 1):
            table.add_row(name, str(number), f"{plain:.2f}", f"{workflow:.2f}", f"{plain / workflow:.2f}")
        total = sum(plain for plain, _ in results) / sum(workflow for _, workflow in results)
        notes.append(f"{name}: throughput through the workflow is {total:.2f} of the plain loop; wanted 0.90")
    notes.append(
        f"a round is {PDFS * PAGES} scanned pages, or {PHOTOS} photos of {PHOTO_SIZE[0]} x {PHOTO_SIZE[1]} pixels"
    )
    notes.append(f"other programs used {before:.0%} of the cores before; repeat above 10 %")
    keep("file_throughput", [table], notes)


if __name__ == "__main__":
    asyncio.run(main())
