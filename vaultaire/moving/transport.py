"""Requests of a move: repeated while that may help, paced, and in a bounded number of threads.

A request that fails in passing (`places.Transient`) is repeated up to `ATTEMPTS` times, each time after a longer pause.
`Pacer` keeps all requests together under a rate.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from vaultaire.moving.places import Transient
from vaultaire.moving.plans import backoff_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultaire.moving.report import Report

T = TypeVar("T")

ATTEMPTS: Final = 7
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
