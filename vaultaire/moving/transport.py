"""Requests of a move: repeated while that may help, paced, and in a bounded number of threads.

A request that fails in passing (`places.Transient`) is repeated up to `ATTEMPTS` times, each time after a longer pause.
`Pacer` keeps all requests together under a rate, `share_out` gives units of work to tasks.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from vaultaire.moving.places import Transient
from vaultaire.moving.plans import backoff_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultaire.moving.report import Report

T = TypeVar("T")

ATTEMPTS: Final = 7
QUEUED: Final = 2  # units per consumer that wait for one
FIRST_ATTEMPTS: Final = 3  # of the very first request: an address that was never there needs no patience


class Pacer:
    """At most `bytes_per_second` over all tasks, in the long run; None: no limit."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def wait(self, size: int) -> None:
        if self._rate is None:
            return
        now = trio.current_time()
        self._free_at = max(self._free_at, now) + size / self._rate
        await trio.sleep(self._free_at - size / self._rate - now)


class Requests:
    """Blocking calls of a place, in threads. Made inside the trio loop."""

    def __init__(self, parallel: int, report: Report, pacer: Pacer | None = None) -> None:
        self._limiter = trio.CapacityLimiter(parallel)
        self._report = report
        self.pacer = pacer or Pacer(None)

    async def run(self, call: Callable[[], T], *, attempts: int = ATTEMPTS, reads_store: bool = False) -> T:
        """What `call` returns. Raises what it raises; Transient only after the last attempt.

        `reads_store`: a thread that reads the store must end before that is closed; others are left behind when
        cancelled, for a stalled server must not hold up Ctrl-C.
        """
        for attempt in range(attempts):
            try:
                return await trio.to_thread.run_sync(
                    call, limiter=self._limiter, abandon_on_cancel=not reads_store
                )
            except Transient as error:
                if attempt == attempts - 1:
                    raise
                self._report.retries += 1
                await trio.sleep(backoff_seconds(attempt, error.retry_after_seconds, random.random()))
        raise AssertionError("no attempt at all")


async def share_out(
    parallel: int,
    produce: Callable[[trio.MemorySendChannel[T]], Awaitable[None]],
    consume: Callable[[trio.MemoryReceiveChannel[T]], Awaitable[None]],
) -> None:
    """Run one producer and `parallel` consumers; each closes its channel. The first error of any ends all, bare."""
    failures: list[Exception] = []
    sender, receiver = trio.open_memory_channel[T](QUEUED * parallel)
    async with trio.open_nursery() as nursery:

        async def guarded(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except Exception as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        for _ in range(parallel):
            nursery.start_soon(guarded, partial(consume, receiver.clone()))
        receiver.close()
        nursery.start_soon(guarded, partial(produce, sender))
    if failures:
        raise failures[0]
