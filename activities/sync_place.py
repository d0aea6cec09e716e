"""Where a pass over a resource stands: kept in the store, and never in history."""

import hashlib
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from activities.connectors.engine import Parent
from activities.connectors.spec import Resource
from contracts.payloads.sync import ResourceCounts
from store.synced import StoredRow, Synced

CURSORS = 50  # of a list, by which a circle is noticed
PARENTS = 100  # read at once


class Place(BaseModel):
    """A pass.

    Args:
        pass_id: marks the rows that it saw.
        job_id: that worked at it last.
        begun: by our clock.
        dated: when it began by the vendor's clock, which says what changed since.
        full: whether it lists all there is.
        since: what is asked for in a pass that is not full.
        before: when the pass before it began, by our clock.
        parent: whose rows are listed now.
        after: the last parent that is done.
        cursor: of the next page; None: the first.
        cursors: digests of those behind us in this list.
        spoiled: a row of this list was malformed, so what it did not show cannot be told.
        sweeping: the list has ended, and what it did not show is being deleted.
        finished: the pass is done.
        restarts: how often its cursor was gone.
        troubles: how often the vendor failed at this very page.
        counts: of the pass.
    """

    model_config = ConfigDict(frozen=True)

    pass_id: str
    job_id: str
    begun: datetime
    dated: datetime | None = None
    full: bool = True
    since: datetime | None = None
    before: datetime | None = None
    parent: str | None = None
    after: str | None = None
    cursor: str | None = None
    cursors: tuple[str, ...] = ()
    spoiled: bool = False
    sweeping: bool = False
    finished: bool = False
    restarts: int = 0
    troubles: int = 0
    counts: ResourceCounts = ResourceCounts()

    def having(self, **changes: object) -> "Place":
        """With these changes."""
        return self.model_copy(update=changes)

    def repeats(self, cursor: str) -> bool:
        """Whether this list was at the cursor before."""
        return _digest(cursor) in self.cursors

    def at(self, cursor: str) -> "Place":
        """On the list's next page."""
        return self.having(cursor=cursor, cursors=(*self.cursors, _digest(cursor))[-CURSORS:], troubles=0)

    def behind_list(self) -> "Place":
        """The list is done: of one parent, or of the whole resource."""
        done = self.having(cursor=None, cursors=(), spoiled=False, sweeping=False, troubles=0)
        return done.having(finished=True) if self.parent is None else done.having(after=self.parent, parent=None)

    def asks_since(self, parent: StoredRow | None, *, left_out: bool) -> datetime | None:
        """What to ask for. A parent that the pass before did not see, or left out, is asked for everything."""
        new = parent is not None and self.before is not None and parent.first_seen_at >= self.before
        return None if self.full or new or left_out else self.since


def opened(stored: Place | None, resource: Resource, *, job_id: str, full: bool, now: datetime) -> Place:
    """The pass to go on with, or a new one.

    One that an earlier job left unfinished goes on, unless everything is asked for again.
    """
    if stored is not None and stored.job_id == job_id:
        return stored  # finished: its last answer was lost
    if stored is not None and not stored.finished and not full:
        return stored.having(job_id=job_id, restarts=0, troubles=0)
    fresh = Place(pass_id=job_id, job_id=job_id, begun=now)
    if stored is None or full:
        return fresh
    if resource.since is None:
        return fresh.having(before=stored.begun)
    since = (stored.dated or stored.begun) - resource.since.overlap
    return fresh.having(full=False, since=since, before=stored.begun)


class Walk:
    """From one parent to the next, in the order of their ids."""

    def __init__(self, synced: Synced) -> None:
        self._synced = synced

    async def to_next(self, connection_id: str, resource: Resource, place: Place) -> tuple[Place, StoredRow | None]:
        """The next parent that is to be visited; without one, the pass is finished."""
        after = place.after
        changed_since = place.before if resource.changed else None
        while True:
            found = await self._synced.parents(
                connection_id,
                resource.parent,
                after=after,
                changed_since=changed_since,
                left_out_of=resource.name,
                limit=PARENTS,
            )
            passed: list[str] = []
            following = None
            for row in found:
                if resource.visit(row.data):
                    following = row
                    break
                passed.append(row.row_id)
            if passed and resource.since is not None:  # should it be visited one day, it is asked for everything
                await self._synced.leave_out(connection_id, resource.name, passed)
            after = passed[-1] if passed else after
            if following is not None:
                return place.having(parent=following.row_id, after=after), following
            if len(found) < PARENTS:
                return place.having(after=after, finished=True), None


def parent_of(row: StoredRow) -> Parent:
    """As the engine wants it."""
    return Parent(row.row_id, row.data, row.parent_id)


def _digest(cursor: str) -> str:
    return hashlib.sha256(cursor.encode()).hexdigest()[:12]
