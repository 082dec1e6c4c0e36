"""Group commit: one committer per process gathers what is waiting, makes it durable in one step, releases all.

One round: take every waiting request (up to `MAX_BATCH`); write what their uploads left for this moment, in frames
that they share (`cas.gathering`), and make the bytes of their packs durable (one barrier per pack); run all their
functions in one commit of the ordered map; wake every waiter with its own result. The next round's batch gathers while
this one flushes, so no delay is added on purpose.

A request is (publications, function). In its transaction the publications are applied first (are the packs still
there? then the placements), then the function (preconditions, records). If anything raises, this request alone
fails. If not all bytes can be written and made durable together, each request is tried by itself: it fails with the
error of its own, and nothing of it is committed; a failed sync is never retried. When packs fail in a row the disk is
failing: the store becomes read-only.

`commit` is shielded: once handed over, a request is decided whatever happens to the client, so the caller learns
the truth, and never half of it. After `run` has ended nothing is taken any more: who waited for it would wait for ever.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from cas.errors import CasError
from index.kv import OrderedMap, Outcome, StorePoisoned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cas.store import ChunkStore, Publication
    from index.kv import Transaction

T = TypeVar("T")

log = logging.getLogger("vaultaire.commit")

MAX_PACK_FAILURES = 2  # in a row: the second pack was a new file, so it is not one bad spot
MAX_BATCH = 256  # requests per round; bounds how long LMDB's write lock is held (some 20 us each)


class ReadOnlyMap(OrderedMap, Protocol):
    """An ordered map that can be told to take no more writes (`index.lmdb_kv`)."""

    def read_only_reason(self) -> str | None: ...

    def make_read_only(self, reason: str) -> Exception: ...


@dataclass(slots=True, eq=False)
class _Request:
    publications: Sequence[Publication]
    fn: Callable[[Transaction], Any]
    task: trio.lowlevel.Task
    outcome: Outcome[Any] | None = None

    def __call__(self, txn: Transaction) -> Any:  # noqa: ANN401  # whatever fn returns
        for publication in self.publications:
            publication.apply(txn)
        return self.fn(txn)


class CommitterEnded(Exception):
    """The process is stopping and takes no commit any more; nothing was changed."""


class Committer:
    """See the module. `run` is started once in the process's main nursery; `commit` may be called by any task."""

    def __init__(self, kv: ReadOnlyMap, chunks: ChunkStore, on_poisoned: Callable[[], None]) -> None:
        """`on_poisoned` is called when a sync of the metadata failed: this process must end soon."""
        self._kv = kv
        self._chunks = chunks
        self._on_poisoned = on_poisoned
        self._waiting: list[_Request] = []
        self._wake = trio.Event()
        self._ended = False
        self._thread = trio.CapacityLimiter(1)  # one writer thread per process

    async def commit(self, fn: Callable[[Transaction], T], publications: Sequence[Publication] = ()) -> T:
        """Commit `fn` (after `publications`), durably. Raises what the function, the map or the packs raise.

        Returns only when decided, even if cancelled meanwhile (the cancellation is delivered afterwards).
        Raises CommitterEnded.
        """
        if self._ended:
            raise CommitterEnded("this process is stopping")
        request = _Request(publications, fn, trio.lowlevel.current_task())
        self._waiting.append(request)
        self._wake.set()
        # What a shielded scope around an event would do, at a fifth of the price: 64 clients, 64 waits a round.
        await trio.lowlevel.wait_task_rescheduled(_not_now)
        assert request.outcome is not None
        result: T = request.outcome.unwrap()
        return result

    async def run(self) -> None:
        """Serve requests until cancelled; what is in hand then is finished first."""
        self._ended = False
        try:
            while True:
                if not self._waiting:
                    self._wake = trio.Event()
                    await self._wake.wait()
                await self._round()
        finally:
            with trio.CancelScope(shield=True):
                while self._waiting:
                    await self._round()
            self._ended = True

    async def _round(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._commit_batch, batch, limiter=self._thread)
        except Exception as error:
            # Nothing was committed (the map says so), or a bug: every waiter must learn of it either way.
            for request in batch:
                if request.outcome is None:
                    request.outcome = Outcome(None, error, 0)
        if any(r.outcome is not None and isinstance(r.outcome.error, StorePoisoned) for r in batch):
            self._on_poisoned()
        for request in batch:
            trio.lowlevel.reschedule(request.task)

    def _commit_batch(self, batch: list[_Request]) -> None:
        ready = self._sync(batch)
        if not ready:
            return
        try:
            outcomes = self._kv.commit_many(ready)
        except Exception:
            for request in ready:
                _settle(request, committed=False)
            raise
        # All outcomes first: what is committed stays so, whatever settling one of them may raise.
        for request, outcome in zip(ready, outcomes, strict=True):
            request.outcome = outcome
        for request, outcome in zip(ready, outcomes, strict=True):
            _settle(request, committed=outcome.error is None)

    def _sync(self, batch: list[_Request]) -> list[_Request]:
        """Write and flush what they need; the requests whose bytes are safe. The others get their error here."""
        with_packs = [request for request in batch if request.publications]
        if not with_packs:
            return batch
        try:
            self._chunks.sync([p for request in with_packs for p in request.publications])
        except CasError:
            ready = [request for request in batch if self._sync_one(request)]
            give_up_if_packs_fail(self._kv, self._chunks)
            return ready
        return batch

    def _sync_one(self, request: _Request) -> bool:
        try:
            if request.publications:
                self._chunks.sync(request.publications)
        except CasError as error:
            request.outcome = Outcome(None, error, 0)
            _settle(request, committed=False)
            return False
        return True


def give_up_if_packs_fail(kv: ReadOnlyMap, chunks: ChunkStore) -> None:
    """Make the store read-only if the disk has failed several packs in a row. Call it after a failure, and in between."""
    failures = chunks.failures_in_a_row
    if failures >= MAX_PACK_FAILURES and kv.read_only_reason() is None:
        error = kv.make_read_only(f"the disk failed {failures} packs in a row")
        log.critical("%s; mend the disk, then restart the server", error)


def _not_now(_: object) -> trio.lowlevel.Abort:
    """A cancellation waits until the commit is decided."""
    return trio.lowlevel.Abort.FAILED


def _settle(request: _Request, *, committed: bool) -> None:
    for publication in request.publications:
        publication.settle(committed)
