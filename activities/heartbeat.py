"""Heartbeats beside work that cannot send them itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from pydantic import JsonValue
from temporalio import activity

from contracts.payloads.job import Heartbeat

EVERY = timedelta(seconds=2)  # how soon a cancelled job's work stops; the heartbeat timeout is 10 s


def heartbeat(place: JsonValue = None) -> None:
    """Report that this step is alive and where it is; a lost worker's step resumes at `place`."""
    activity.heartbeat(Heartbeat(attempt=activity.info().attempt, place=place))


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat every two seconds until the block ends; at once only if there were errors to remember.

    Most steps end sooner, and a heartbeat costs the server as much as a tenth of a short step.
    """
    if activity.info().attempt > 1:
        heartbeat()
    beats = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beats.cancel()
        with suppress(asyncio.CancelledError):
            await beats


async def _beat() -> None:
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        heartbeat()
