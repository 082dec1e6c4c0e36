"""The thread limiters of one process: the only threads are these, the committer's and none of trio's default ones.

CPU work (digests, cutting, hashing, compressing) has one slot per core, at least two so that a client's digests and
the chunk store can work on one block side by side. Disk reads have their own slots: a cold read must not hold up
CPU work, nor the other way round.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
R = TypeVar("R")

CORES = max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2)


class _Job(Generic[T, R]):
    """The items of one `FrameThreads.map`, for whoever comes to take some. Once closed it holds nothing any more."""

    def __init__(self, fn: Callable[[T], R], items: list[T]) -> None:
        self._fn = fn
        self._items = items
        self._left = deque(range(len(items)))
        self._results: dict[int, R] = {}
        self._helping = 0
        self._closed = False
        self._error: BaseException | None = None  # of a helper
        self._changed = threading.Condition()

    def help(self) -> None:
        """For the helpers. They may come late: what is queued for an executor cannot be taken back."""
        with self._changed:
            if self._closed:
                return
            self._helping += 1
        try:
            self.take()
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._helping -= 1
                self._changed.notify_all()

    def take(self) -> None:
        """Do what is left, item after item, beside others. Raises an error of the function: then nothing is left."""
        left, items, results, fn = self._left, self._items, self._results, self._fn
        try:
            while left:
                try:
                    number = left.popleft()
                except IndexError:  # another thread was faster
                    return
                results[number] = fn(items[number])
        except BaseException:
            left.clear()
            raise

    def close(self) -> tuple[dict[int, R], BaseException | None]:
        """Wait for those who help; what has come of it."""
        self._left.clear()
        with self._changed:
            self._closed = True
            while self._helping:
                self._changed.wait()
        results, self._results, self._items = self._results, {}, []
        error, self._error = self._error, None
        return results, error


class FrameThreads:
    """Helpers of the threads that compress frames (text is bound by that, at 0.1 GB/s a core), or decode them.

    Whoever maps takes part in it, and waits for no item that nobody has begun: so nothing can lock up, a short read is
    not kept waiting by a long upload, and there are never more threads at it than cores and callers.
    """

    def __init__(self) -> None:
        self._helpers = ThreadPoolExecutor(CORES - 1, thread_name_prefix="frames")

    def map(self, fn: Callable[[T], R], items: Iterable[T], /) -> list[R]:
        """`fn` of each, in order. Blocking, from any thread, from inside `fn` as well. Raises an error of `fn`."""
        work = list(items)
        job = _Job(fn, work)
        try:
            with suppress(RuntimeError):  # no thread can be started: the caller alone does it all
                for _ in range(min(CORES, len(work)) - 1):
                    self._helpers.submit(job.help)
            job.take()
        finally:
            results, error = job.close()
        if error is not None:
            raise error
        return [results[number] for number in range(len(work))]

    def shutdown(self) -> None:
        self._helpers.shutdown()


class Threads:
    """Made once per process, inside the trio loop."""

    def __init__(self) -> None:
        self._cpu = trio.CapacityLimiter(CORES)
        self._disk = trio.CapacityLimiter(2 * CORES + 4)

    def waiting(self) -> int:
        """How many blocks wait for a core. Any thread."""
        return self._cpu.statistics().tasks_waiting

    async def compute(self, fn: Callable[[], T]) -> T:
        """Run CPU work on one block (a few MiB at most, so that cancelling stays prompt)."""
        return await trio.to_thread.run_sync(fn, limiter=self._cpu)

    async def read(self, fn: Callable[[], T]) -> T:
        """Run a disk read."""
        return await trio.to_thread.run_sync(fn, limiter=self._disk)

    async def side_by_side(self, *fns: Callable[[], object]) -> None:
        """Run CPU work of one block in parallel; all end before this returns. Raises the first one's error."""
        errors: list[Exception] = []

        async def run(fn: Callable[[], object]) -> None:
            try:
                await self.compute(fn)
            except Exception as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for fn in fns[1:]:
                nursery.start_soon(run, fn)
            await run(fns[0])
        if errors:
            raise errors[0]
