"""The one pool of processes for CPU work on a host.

As many children as cores, started by spawn, at nice 19: on two busy cores a notification's p99 is 5,713 ms beside
children at nice 0 and 74 ms at 19. pebble can kill one child without its siblings, the standard library cannot
(https://pebble.readthedocs.io/en/latest/#pools).
"""

import asyncio
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import timedelta
from typing import ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

ArgsT = ParamSpec("ArgsT")
ResultT = TypeVar("ResultT")

NICENESS = 19
TASKS_PER_CHILD = 500  # then the child is replaced: image and model libraries keep what they once allocated


class ChildDied(Exception):
    """The child process ended by itself while it worked: out of memory, or a crash in a native library."""


class ChildTimedOut(Exception):
    """The work took longer than its limit and its child was killed."""


class CpuPool:
    """Runs module-level functions in child processes.

    Classes of work share the children: a free child goes first to a class that has none running, in order of arrival
    otherwise. So no class waits longer than one task of another.
    """

    def __init__(self, children: int | None = None) -> None:
        self._children = children or os.cpu_count() or 1
        self._running: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._children,
            max_tasks=TASKS_PER_CHILD,
            context=multiprocessing.get_context("spawn"),
            initializer=_settle_child,
        )

    @property
    def children(self) -> int:
        """How many tasks run at once."""
        return self._children

    async def run(
        self,
        work_class: str,
        limit: timedelta,
        function: Callable[ArgsT, ResultT],
        /,
        *args: ArgsT.args,
        **kwargs: ArgsT.kwargs,
    ) -> ResultT:
        """Run `function` in a child. Cancelling this call kills that child, and no other.

        Args:
            work_class: such as `files`; see the class.
            limit: of running, not of waiting for a child.
            function: importable by name; it and its arguments are pickled.
            args: positional arguments of `function`.
            kwargs: keyword arguments of `function`.

        Raises:
            ChildTimedOut: after `limit`.
            ChildDied: the child ended without an answer.
        """
        await self._admit(work_class)
        try:
            future = self._pool.schedule(function, args=args, kwargs=kwargs, timeout=limit.total_seconds())
            try:
                return await asyncio.wrap_future(future)
            except FutureTimeoutError as error:
                msg = f"{function.__name__} took longer than {limit.total_seconds():.0f} s and was stopped"
                raise ChildTimedOut(msg) from error
            except ProcessExpired as error:
                msg = f"{function.__name__}: its process ended with exit code {error.exitcode}"
                raise ChildDied(msg) from error
            except (asyncio.CancelledError, FutureCancelledError):
                future.cancel()
                raise
        finally:
            self._running[work_class] -= 1
            self._admit_next()

    async def _admit(self, work_class: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((work_class, turn))
        self._admit_next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted in the same moment: give the place back
                self._running[work_class] -= 1
            else:
                self._waiting.remove((work_class, turn))
            self._admit_next()
            raise

    def _admit_next(self) -> None:
        while self._waiting and self._running.total() < self._children:
            starved = (entry for entry in self._waiting if not self._running[entry[0]])
            entry = next(starved, self._waiting[0])
            self._waiting.remove(entry)
            work_class, turn = entry
            if not turn.cancelled():
                self._running[work_class] += 1
                turn.set_result(None)

    def warm_up(self, function: Callable[[], object]) -> None:
        """Start every child now and let it run `function`, which loads what the first task would wait for."""
        for _ in range(self._children):
            self._pool.schedule(function)

    def close(self) -> None:
        """Kill the children and wait until they are gone."""
        self._pool.stop()
        self._pool.join()


def _settle_child() -> None:
    os.nice(NICENESS)
    os.environ["OMP_NUM_THREADS"] = "1"  # one task is one core; the pool is what is parallel
