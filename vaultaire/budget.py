"""The byte budget of one worker: what is held for all its clients together stays under one bound.

A stream (an upload or a download) is admitted with what it cannot do without, `GUARANTEED_BYTES` at least; beyond
that it asks before it holds more, and works in smaller pieces if refused. Never blocks: a stream that waited for others'
bytes could wait for a stalled client.

So slow clients cannot starve a normal one by holding more. Nor by being many: when there is no room for a newcomer, the
stream that has made the least of its last seconds (under `SLOW_BYTES_PER_SECOND`) is ended for it;
likewise when streams hold more than they were granted, since a chunk that is not cut yet cannot be made smaller.
Only where all are fast is a newcomer refused.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

GUARANTEED_BYTES = 32 << 10
CROWDED_STREAMS = 8  # with more than these every stream works in smaller pieces
# What a stream costs beside its bytes: tasks, headers, buffers of the connection.
STREAM_BYTES: Final = 56 << 10
SLOW_BYTES_PER_SECOND: Final = 4 << 10
PATIENCE_SECONDS: Final = 5.0


class BudgetExhausted(Exception):
    """No room for another stream now; the client should come again (503 SlowDown)."""


class MemoryBudget:
    """Used by the tasks of one trio loop only (no lock)."""

    def __init__(
        self,
        total_bytes: int,
        *,
        stream_bytes: int = 0,
        streams_changed: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stream_bytes`: counted for each stream beside what it holds. `streams_changed` is told their number."""
        self.total_bytes = total_bytes
        self.held_bytes = 0
        self.carried_bytes = 0  # of the above: see Lease.carry
        self.ended_streams = 0  # slow ones that had to go, so far
        self.clock = clock
        self._stream_bytes = stream_bytes
        self._leases: set[Lease] = set()
        self._streams_changed = streams_changed

    @property
    def streams(self) -> int:
        return len(self._leases)

    @property
    def crowded(self) -> bool:
        return self.streams > CROWDED_STREAMS

    def admit(self, end: Callable[[], None] | None = None, guaranteed: int = GUARANTEED_BYTES) -> Lease:
        """A new stream's lease. Use it in a `with`. Raises BudgetExhausted.

        `end` ends the stream soon, from outside; without it the stream is never the one that has to go.
        `guaranteed`: bytes that are its own until it is released.
        """
        if self._exceeds(guaranteed + self._stream_bytes):
            self._end_slowest()
        lease = Lease(self, end, guaranteed)
        self._leases.add(lease)
        self.held_bytes += lease.bytes
        self._streams_changed(self.streams)
        return lease

    def look(self) -> None:
        """See how fast each stream is; to be called every PATIENCE_SECONDS or so.

        Or the first one that needs to know would see what a stream has made since it came, and take the burst that its
        buffers let through for speed. O(streams), 0.3 us each.
        """
        now = self.clock()
        for lease in self._leases:
            lease.rate(now)

    def enforce(self) -> None:
        """More is held than was granted: end a slow stream if that is too much in all."""
        if self._exceeds(0):
            with contextlib.suppress(BudgetExhausted):
                self._end_slowest()

    def _exceeds(self, more: int) -> bool:
        return self.held_bytes + self.streams * self._stream_bytes + more > self.total_bytes

    def remove(self, lease: Lease) -> None:
        """For leases that are released."""
        self._leases.discard(lease)
        self._streams_changed(self.streams)

    def _end_slowest(self) -> None:
        """O(streams). Raises BudgetExhausted."""
        now = self.clock()
        slowest = min(
            (lease for lease in self._leases if lease.may_end(now)),
            key=lambda lease: lease.rate(now),
            default=None,
        )
        if slowest is None:
            raise BudgetExhausted
        self.ended_streams += 1
        slowest.end_stream()


class Lease:
    """What one stream may hold: `bytes`, at least those that are guaranteed."""

    def __init__(self, budget: MemoryBudget, end: Callable[[], None] | None, guaranteed: int) -> None:
        self._budget = budget
        self._guaranteed = guaranteed
        self._end = end
        self._look = budget.clock(), 0  # when the budget last asked, and the progress then
        self._rate = math.inf
        self._carried = 0
        self.bytes = guaranteed
        self.progress_bytes = 0  # received from, or sent to, the client; its user counts

    @property
    def crowded(self) -> bool:
        return self._budget.crowded

    def resize(self, wanted: int, *, whole: bool = False) -> bool:
        """Hold `wanted` bytes in all from now on. False: refused, nothing changed. Shrinking never fails.

        Half of the budget is kept for guaranteed bytes, however much the first streams hold and however slow they
        are. `whole`: what cannot be worked on in smaller pieces (an XML document) may take half of that, so that slow
        streams cannot keep it out either.
        """
        wanted = max(wanted, self._guaranteed)
        more = wanted - self.bytes
        budget = self._budget
        limit = budget.total_bytes * 3 // 4 if whole else budget.total_bytes // 2
        if more > 0 and budget.held_bytes + more > limit:
            return False
        self._set(wanted)
        return True

    def hold(self, held: int) -> None:
        """Count `held` bytes, whatever the bound says: they are held already. A slow stream may have to go for them."""
        self._set(max(held, self._guaranteed))
        self._budget.enforce()

    def _set(self, held: int) -> None:
        if self.bytes:  # not of a stream that is on its way out
            self._budget.held_bytes += held - self.bytes
            self.bytes = held

    def carry(self, carried: int) -> bool:
        """So many bytes are carried on from block to block, for a better cut. False: write them, all streams together
        carry more than a sixteenth of the budget.
        """
        if not self.bytes:
            return True
        self._budget.carried_bytes += carried - self._carried
        self._carried = carried
        return self._budget.carried_bytes <= self._budget.total_bytes // 16

    def keep(self) -> None:
        """The client has done its part: from now on it is not slow, however long the server takes."""
        self._end = None

    def release(self) -> None:
        """Give everything back; idempotent."""
        if self.bytes:
            self.carry(0)
            self._budget.held_bytes -= self.bytes
            self.bytes = 0
            self._end = None
            self._budget.remove(self)

    # -- what the budget asks

    def rate(self, now: float) -> float:
        """Bytes per second of late: between looks that are `PATIENCE_SECONDS` apart; infinite before there are two."""
        looked_at, progress = self._look
        if now - looked_at >= PATIENCE_SECONDS:
            self._rate = (self.progress_bytes - progress) / (now - looked_at)
            self._look = now, self.progress_bytes
        return self._rate

    def may_end(self, now: float) -> bool:
        return self._end is not None and self.rate(now) < SLOW_BYTES_PER_SECOND

    def end_stream(self) -> None:
        """It ends as soon as its task runs; its bytes count as given back at once, or more streams would go for them."""
        end = self._end
        assert end is not None
        self.release()
        end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
