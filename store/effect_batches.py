"""Claims and ends of many sends at once, written together: one transaction at a time, whatever came meanwhile.

A transaction costs a flush to the disk and a millisecond of CPU, however many rows it has.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import JsonValue

from store.database import MAX_ROWS_PER_WRITE
from store.effects import Claim, EffectKey, Effects

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.02  # an end waits so long for others, or for
GATHER_ROWS = 64
AGAIN_SECONDS = (0.1, 0.5, 2.0)  # what was sent and is not settled may be sent again


@dataclass(frozen=True, slots=True)
class _Wanted:
    keys: list[EffectKey]
    claims: asyncio.Future[list[Claim]]


class EffectBatches:
    """The effects of one step, of all who send in this process."""

    def __init__(self, effects: Effects, step: str) -> None:
        self._effects = effects
        self._step = step
        self._wanted: deque[_Wanted] = deque()
        self._ended: dict[EffectKey, tuple[JsonValue, asyncio.Future[None]]] = {}
        self._enough = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def claim(self, keys: Sequence[EffectKey]) -> list[Claim]:
        """Claim at most MAX_ROWS_PER_WRITE effects, each named once: one claim for each, in order.

        Raises:
            DatabaseUnavailable: nothing was claimed.
        """
        assert len(keys) <= MAX_ROWS_PER_WRITE
        wanted = _Wanted(list(keys), asyncio.get_running_loop().create_future())
        self._wanted.append(wanted)
        self._enough.set()
        self._write()
        return await wanted.claims

    def settle(self, key: EffectKey, outcome: JsonValue) -> asyncio.Future[None]:
        """Note how an effect ended; done when it is stored.

        The future raises:
            DatabaseUnavailable: it is not stored, and was tried for seconds.
        """
        if key in self._ended:  # two executions of one chunk: both wait for one row
            return self._ended[key][1]
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended[key] = (outcome, settled)
        if len(self._ended) >= GATHER_ROWS:
            self._enough.set()
        self._write()
        return settled

    def _write(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._wanted or self._ended:
            if not self._enough.is_set():
                try:
                    async with asyncio.timeout(GATHER_SECONDS):
                        await self._enough.wait()
                except TimeoutError:
                    pass
            self._enough.clear()
            await self._write_batch()
            if self._wanted or len(self._ended) >= GATHER_ROWS:
                self._enough.set()

    async def _write_batch(self) -> None:
        wanted: list[_Wanted] = []
        asked: dict[EffectKey, None] = {}
        while self._wanted and len(asked) + len(self._wanted[0].keys) <= MAX_ROWS_PER_WRITE:
            if not asked.keys().isdisjoint(self._wanted[0].keys):
                break  # of two who claim one effect, the second must see that the first did
            wanted.append(self._wanted.popleft())
            asked.update(dict.fromkeys(wanted[-1].keys))
        ended = dict(list(self._ended.items())[: MAX_ROWS_PER_WRITE - len(asked)])
        for key in ended:
            del self._ended[key]
        outcomes = {key: outcome for key, (outcome, _) in ended.items()}
        settled = [future for _, future in ended.values()]
        try:
            claims = dict(zip(asked, await self._effects.write(self._step, outcomes, list(asked)), strict=True))
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            for each in wanted:
                _tell([each.claims], error)
            if ended:
                await self._settle_again(outcomes, settled, error)
            return
        for each in wanted:
            if not each.claims.done():
                each.claims.set_result([claims[key] for key in each.keys])
        _tell(settled, None)

    async def _settle_again(
        self, outcomes: dict[EffectKey, JsonValue], waiting: list[asyncio.Future[None]], error: Exception
    ) -> None:
        for pause in AGAIN_SECONDS:
            log.warning("effects.not_settled", effects=len(outcomes), reason=str(error))
            await asyncio.sleep(pause)
            try:
                await self._effects.write(self._step, outcomes, [])
            except Exception as again:  # noqa: BLE001 - whoever waits is told, of whatever it was
                error = again
            else:
                _tell(waiting, None)
                return
        _tell(waiting, error)


def _tell(waiting: Iterable[asyncio.Future[Any]], error: Exception | None) -> None:
    for each in waiting:
        if each.done():  # whoever waited was cancelled
            continue
        if error is None:
            each.set_result(None)
        else:
            each.set_exception(error)
