"""The thread limiters of one process: the only threads are these, the committer's and none of trio's default ones.

CPU work (digests, cutting, hashing, compressing) has one slot per core, at least two so that a client's digests and
the chunk store can work on one block side by side. Disk reads have their own slots: a cold read must not hold up
CPU work, nor the other way round.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
R = TypeVar("R")

CORES = max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2)


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
        results: dict[int, R] = {}
        left = deque(range(len(work)))

        def take() -> None:
            while left:
                try:
                    number = left.popleft()
                except IndexError:  # another thread was faster
                    return
                results[number] = fn(work[number])

        helpers = [self._helpers.submit(take) for _ in range(min(CORES, len(work)) - 1)]
        try:
            take()
        finally:
            left.clear()
            begun = [helper for helper in helpers if not helper.cancel()]
            wait(begun)
        for helper in begun:
            helper.result()
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
