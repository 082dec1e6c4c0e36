"""The byte budget of one worker: what is held for all its clients together stays under one bound.

A stream (an upload or a download) is admitted with `GUARANTEED_BYTES` of its own, so slow clients that hold more
cannot starve a normal one; beyond that it asks before it holds more, and works in smaller pieces if refused.
Never blocks: a stream that waited for others' bytes could wait for a stalled client.
"""

from __future__ import annotations

from typing import Self

GUARANTEED_BYTES = 64 << 10
CROWDED_STREAMS = 8  # with more than these every stream works in smaller pieces


class BudgetExhausted(Exception):
    """No room for another stream now; the client should come again (503 SlowDown)."""


class MemoryBudget:
    """Used by the tasks of one trio loop only (no lock)."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.held_bytes = 0
        self.streams = 0

    @property
    def crowded(self) -> bool:
        return self.streams > CROWDED_STREAMS

    def admit(self) -> Lease:
        """A new stream's lease. Use it in a `with`. Raises BudgetExhausted."""
        if self.held_bytes + GUARANTEED_BYTES > self.total_bytes:
            raise BudgetExhausted
        return Lease(self)


class Lease:
    """What one stream may hold: `bytes`, at least GUARANTEED_BYTES."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.bytes = GUARANTEED_BYTES
        budget.held_bytes += GUARANTEED_BYTES
        budget.streams += 1

    @property
    def crowded(self) -> bool:
        return self._budget.crowded

    def resize(self, wanted: int, *, whole: bool = False) -> bool:
        """Hold `wanted` bytes in all from now on. False: refused, nothing changed. Shrinking never fails.

        Half of the budget is kept for guaranteed bytes: by default that admits 1,500 streams, however much the
        first ones hold and however slow they are. `whole`: what cannot be worked on in smaller pieces (an XML
        document) may take half of that, so that slow streams cannot keep it out either.
        """
        wanted = max(wanted, GUARANTEED_BYTES)
        more = wanted - self.bytes
        budget = self._budget
        limit = budget.total_bytes * 3 // 4 if whole else budget.total_bytes // 2
        if more > 0 and budget.held_bytes + more > limit:
            return False
        budget.held_bytes += more
        self.bytes = wanted
        return True

    def release(self) -> None:
        """Give everything back; idempotent."""
        if self.bytes:
            self._budget.held_bytes -= self.bytes
            self._budget.streams -= 1
            self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
