"""Heartbeats beside work that cannot send them itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from pydantic import JsonValue
from temporalio import activity

from contracts.payloads.job import Heartbeat

EVERY = timedelta(seconds=2)  # how soon a cancelled job's work stops; the heartbeat timeout is 10 s


def heartbeat(place: JsonValue = None) -> None:
    """Report that this step is alive and where it is; a lost worker's step resumes at `place`."""
    activity.heartbeat(Heartbeat(attempt=activity.info().attempt, place=place))


def resumed(resume: JsonValue) -> JsonValue:
    """Where to go on: the place of the last heartbeat of an attempt before, or the order's `resume`."""
    for beat in activity.info().heartbeat_details:
        place = Heartbeat.model_validate(beat).place
        if place is not None:
            return place
    return resume


@asynccontextmanager
async def heartbeating(
    place: Callable[[], JsonValue] = lambda: None, at_error: Callable[[], JsonValue] | None = None
) -> AsyncIterator[None]:
    """Heartbeat every two seconds until the block ends; at once only if there were errors to remember.

    Most steps end sooner, and a heartbeat costs the server as much as a tenth of a short step. An error leaves the
    block with a last one, so that the next attempt can take up at `place`, or at `at_error`, which may say more: this
    execution is then known to be over, while one that is silent may still be at work.
    """
    if activity.info().attempt > 1:
        heartbeat(place())
    beats = asyncio.create_task(_beat(place))
    try:
        yield
    except Exception:
        heartbeat((at_error or place)())
        raise
    finally:
        beats.cancel()
        with suppress(asyncio.CancelledError):
            await beats


async def _beat(place: Callable[[], JsonValue]) -> None:
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        heartbeat(place())
