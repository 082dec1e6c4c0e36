"""An open store under trio, for a command that writes as the server does: commits, housekeeping, bounded memory.

The command is a process of the store like any other: it may run beside the server or alone. Once a second its run file
is brought up to date and a quiet pack sealed; when the journal has grown enough it writes a checkpoint (if a server's
maintenance is at it, that one does).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from cas.errors import CasError
from index.kv import KvError, StorePoisoned
from vaultaire.budget import MemoryBudget
from vaultaire.commit import Committer, give_up_if_packs_fail
from vaultaire.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultaire.store import Store

T = TypeVar("T")

TICK_SECONDS: Final = 1.0
METADATA_SECONDS: Final = 15.0
STREAM_BUDGET_BYTES: Final = 40 << 20  # two windows at work, two arriving, and an ingest

log = logging.getLogger("vaultaire.moving")


@dataclass(frozen=True, slots=True)
class Bench:
    store: Store
    committer: Committer
    threads: Threads
    budget: MemoryBudget

    @property
    def now_ms(self) -> int:
        return int(time.time() * 1000)


async def with_bench(store: Store, streams: int, work: Callable[[Bench], Awaitable[T]]) -> T:
    """What `work` returns or raises; what it committed is durable. `streams`: uploads at a time."""
    committer = Committer(store.kv, store.chunks, lambda: None)  # each commit raises StorePoisoned by itself
    bench = Bench(store, committer, Threads(), MemoryBudget(streams * STREAM_BUDGET_BYTES))
    results: list[T] = []
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        nursery.start_soon(_keep_house, store)
        try:
            results.append(await work(bench))
        except Exception as error:
            failures.append(error)  # bare, not in a group
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return results[0]


async def _keep_house(store: Store) -> None:
    limiter = trio.CapacityLimiter(1)
    next_look = time.monotonic() + METADATA_SECONDS

    def once() -> None:
        nonlocal next_look
        store.run_file.tick()
        store.packs.close_removed()
        store.chunks.seal_idle(time.monotonic())
        give_up_if_packs_fail(store.kv, store.chunks)
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + METADATA_SECONDS
            if store.kv.checkpoint_due() and store.has_room_to_recover():
                store.kv.write_checkpoint()

    while True:
        await trio.sleep(TICK_SECONDS)
        try:
            await trio.to_thread.run_sync(once, limiter=limiter)
        except StorePoisoned:
            return  # the next commit says so
        except (CasError, KvError, OSError):
            log.exception("housekeeping failed; it will be tried again")
