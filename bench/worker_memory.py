"""Whether the worker's memory stays flat over 200 files: its own and that of its CPU children.

python -m bench.worker_memory
"""

import asyncio
import io
import random
import statistics
import tempfile
from pathlib import Path

import psutil
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from bench.stage import keep, stage
from starter.demo.samples import scanned_pdf

FILES = 200
AT_ONCE = 4
MEGABYTE = 1024 * 1024


def document(number: int, folder: Path) -> tuple[str, bytes]:
    """Every twentieth a two-page scan; else a picture of a size of its own."""
    if number % 20 == 0:
        path = scanned_pdf(folder / "scan.pdf", pages=2, seed=number + 1).path
        return path.name, path.read_bytes()
    chance = random.Random(number)
    image = Image.new("RGB", (chance.randrange(400, 1600), chance.randrange(200, 900)), "white")
    text = f"Receipt {number}: total {chance.randrange(10_000) / 100} EUR"
    ImageDraw.Draw(image).text((20, 60), text, font=ImageFont.load_default(26), fill="black")
    body = io.BytesIO()
    image.save(body, "PNG")
    return f"{number}.png", body.getvalue()


async def main() -> None:
    own: list[float] = []
    children: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with stage() as on:
            leash = on.stack.worker.process
            assert leash
            worker = psutil.Process(leash.pid).children()[0]
            slots = asyncio.Semaphore(AT_ONCE)

            async def one(number: int) -> None:
                async with slots:
                    name, body = document(number, Path(folder))
                    answer = await on.client.post("/v1/files", files={"file": (name, body)})
                    job_id = answer.raise_for_status().json()["job_id"]
                    while (await on.client.get(f"/v1/jobs/{job_id}")).json()["state"] != "done":
                        await asyncio.sleep(0.1)
                    own.append(worker.memory_info().rss / MEGABYTE)
                    family = worker.children(recursive=True)
                    children.append(sum(child.memory_info().rss for child in family) / MEGABYTE)

            await asyncio.gather(*(one(number) for number in range(FILES)))
    table = Table(
        "process", "files 20-70 MB", "last 50 MB", "ratio", "max MB", title=f"Resident memory over {FILES} files"
    )
    for name, values in (("worker", own), ("CPU children together", children)):
        first, last = statistics.median(values[20:70]), statistics.median(values[-50:])
        table.add_row(name, f"{first:.0f}", f"{last:.0f}", f"{last / first:.2f}", f"{max(values):.0f}")
    keep("worker_memory", [table], ["medians; the first 20 files warm caches and models"])


if __name__ == "__main__":
    asyncio.run(main())
