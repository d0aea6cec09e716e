"""How far a broadcast is, how fast, and when it will be done."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.payloads.broadcast import HANDED_OVER
from contracts.payloads.job import JobState
from starter.job_state import LiveJob
from starter.services import Services
from store.broadcasts import Broadcast

RATE_WINDOW = timedelta(seconds=60)
SHORTEST_WINDOW = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class BroadcastState:
    """`counts` are recipients by outcome. `rate_per_second`, `eta` and `left` are None where nothing moves.

    `paused` is why, in words; `cause` is what refused too many, and also what made a job fail.
    """

    live: LiveJob
    broadcast: Broadcast
    counts: Mapping[str, int]
    rate_per_second: float | None
    left: timedelta | None
    eta: datetime | None
    paused: str | None

    @property
    def done(self) -> int:
        """Recipients whose outcome is known, or who have a job of their own now."""
        return sum(self.counts.values())

    @property
    def handed_over(self) -> int:
        """Recipients whose message became a notification job."""
        return self.counts.get(HANDED_OVER, 0)

    @property
    def changed(self) -> object:
        """Equal as long as nothing happens; the rate changes by itself."""
        return self.live.job.state, self.live.job.cause, self.live.live, dict(self.counts), self.paused


async def state_of(services: Services, live: LiveJob) -> BroadcastState | None:
    """The state of the broadcast whose job this is; None if it is not in the store."""
    broadcast = await services.broadcasts.get(live.job.tenant, live.job.job_id)
    if broadcast is None:
        return None
    now = services.clock.now()
    reached = await services.broadcasts.reached(broadcast.broadcast_id, since=now - RATE_WINDOW)
    job = live.job
    paused = None if job.state.closed else broadcast.paused or None
    if job.state is JobState.PARKED:
        paused = job.error or job.cause or paused
    rate = left = None
    if not job.state.closed and paused is None and reached.since:
        window = min(RATE_WINDOW, max(SHORTEST_WINDOW, now - (job.started_at or job.submitted_at)))
        rate = reached.since / window.total_seconds()
        left = timedelta(seconds=max(0, broadcast.total - reached.done) / rate)
    return BroadcastState(
        live=live,
        broadcast=broadcast,
        counts=reached.counts,
        rate_per_second=rate,
        left=left,
        eta=now + left if left is not None else None,
        paused=paused,
    )
