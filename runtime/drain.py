"""Running workers until a signal, then stopping all of them side by side.

Nested `async with Worker` would stop them one after the other, the outer one taking work meanwhile.
"""

import asyncio
import signal
from collections.abc import Sequence
from datetime import timedelta

import structlog
from temporalio.worker import Worker

log = structlog.get_logger(__name__)

BEYOND_DRAIN = timedelta(seconds=15)  # for activities that were cancelled to report so
# A worker that never stopped after SIGTERM: https://github.com/temporalio/sdk-python/issues/1557


async def drain_on_signal(workers: Sequence[Worker], drain: timedelta) -> None:
    """Run all; on SIGTERM or SIGINT let activities finish for `drain`, then interrupt them.

    A second signal ends the wait at once; what was running is then run again elsewhere.

    Raises:
        Exception: that of a worker which ended by itself.
    """
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
    log.info("worker.draining", seconds=drain.total_seconds())
    shutdowns = asyncio.create_task(_shut_down(workers))
    hurrying = asyncio.create_task(hurry.wait())
    limit = (drain + BEYOND_DRAIN).total_seconds()
    await asyncio.wait([shutdowns, hurrying], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    if not shutdowns.done():
        log.warning(
            "worker.abandoned", reason="second signal" if hurry.is_set() else f"not stopped after {limit:.0f} s"
        )
        return
    for ended in running:
        ended.result()


async def _shut_down(workers: Sequence[Worker]) -> None:
    await asyncio.gather(*(worker.shutdown() for worker in workers))
