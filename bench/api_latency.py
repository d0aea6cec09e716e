"""How fast the API answers while the worker is busy: 1 MB uploads at 10 a second, status requests at 20 a second.

Arrivals are fixed in time (open loop) and a latency counts from the planned arrival, so a slow answer cannot hide the
ones behind it. The load generator runs on the same cores.

    python -m bench.api_latency [seconds]
"""

import asyncio
import io
import random
import sys
import time

import numpy as np
from PIL import Image
from rich.table import Table

from bench.stage import Stage, keep, neighbours, percentile, stage

UPLOADS_PER_SECOND = 10
STATUSES_PER_SECOND = 20
SIDE_PX = 590  # random RGB pixels: a PNG of 1.04 MB


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "PNG", compress_level=1)
    return body.getvalue()


async def load(on: Stage, files: list[bytes], seconds: int) -> tuple[list[float], list[float]]:
    uploads: list[float] = []
    statuses: list[float] = []
    jobs: list[str] = []
    start = time.perf_counter() + 0.5

    async def until(moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))

    async def upload(number: int) -> None:
        planned = start + number / UPLOADS_PER_SECOND
        await until(planned)
        answer = await on.client.post("/v1/files", files={"file": (f"{number}.png", files[number])})
        uploads.append(time.perf_counter() - planned)
        jobs.append(answer.raise_for_status().json()["job_id"])

    async def status(number: int) -> None:
        planned = start + 1 + number / STATUSES_PER_SECOND
        await until(planned)
        answer = await on.client.get(f"/v1/jobs/{random.choice(jobs)}")
        statuses.append(time.perf_counter() - planned)
        answer.raise_for_status()

    await asyncio.gather(
        *(upload(number) for number in range(seconds * UPLOADS_PER_SECOND)),
        *(status(number) for number in range((seconds - 1) * STATUSES_PER_SECOND)),
    )
    return uploads, statuses


async def main(seconds: int) -> None:
    files = [picture(seed) for seed in range(seconds * UPLOADS_PER_SECOND)]
    before = neighbours()
    async with stage() as on:
        await on.client.get("/v1/jobs")
        uploads, statuses = await load(on, files, seconds)
    table = Table(
        "request", "count", "p50 ms", "p95 ms", "p99 ms", "max ms", "wanted", title="API answers, worker busy"
    )
    for name, values, wanted in (("upload of 1 MB", uploads, 100), ("status", statuses, 50)):
        figures = [f"{percentile(values, share) * 1000:.0f}" for share in (0.5, 0.95, 0.99)]
        table.add_row(name, str(len(values)), *figures, f"{max(values) * 1000:.0f}", f"p99 < {wanted}")
    keep("api_latency", [table], [f"other programs used {before:.0%} of the cores before; repeat above 10 %"])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30))
