"""Counting requests and bytes of limited keys and tenants, exactly, among all workers: one small shared file.

Requests: a window of 60 seconds that slides by half seconds. A client may use its whole minute at once; no 60 seconds
ever see more than the limit. Bytes: an account that fills at the rate and is charged when a transfer is over, so that one
transfer may overdraw it; nothing new begins until it is even again. Over any longer time the rate is exact.

The file `run/rates` is a table of slots, found by a hash of the name, shared as mapped memory; a `flock` around a few
microseconds makes the workers take turns. If a process is stopped inside them the others do not wait for it: a request
is let in after a tenth of a second, not held up. Nothing in it is durable: whoever opens the store alone removes it, and a full disk makes
every worker count by itself. Time is the monotonic clock, which the processes of one machine share.

A slot (native byte order, 528 bytes): name's hash (16), newest half second (u64), time at which the account of bytes is
even again (f64), last use (f64), 121 counters of a half second each (u32).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import math
import mmap
import os
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vaultaire.plans import Plan

    Charge = tuple[str, Plan]  # whose account, and what limits it

FILE: Final = "rates"
SLOTS: Final = 2048
_PROBES: Final = 16  # slots that a name may be in; the one unused for longest gives way
_TICKS: Final = 121  # of half a second: 60 seconds, and the running one
_HEAD: Final = struct.Struct("=16sQdd")
_SLOT_BYTES: Final = 528
_RING: Final = _HEAD.size // 4  # first word of the ring
_BYTES_AHEAD_SECONDS: Final = 1.0  # so long may an account be overdrawn before it counts
_LOCK_SECONDS: Final = 0.1

log = logging.getLogger("vaultaire.rates")


class Rates:
    """See the module. One thread per instance; any number of processes."""

    def __init__(self, directory: Path) -> None:
        """`directory`: the store's `run/`. The file is opened when the first limit is met."""
        self._path = directory / FILE
        self._fd = -1
        self._memory: mmap.mmap | None = None
        self._words = memoryview(b"")

    def admit(self, charges: Sequence[Charge], now: float) -> float:
        """Count one request for all of these, if all of them allow it.

        0.0: it may go on. Otherwise nothing was counted, and it is worth trying again after so many seconds. `now`:
        the monotonic clock.
        """
        with self._locked():
            slots = [self._find(name, now) for name, _ in charges]
            waits = [self._wait(slot, plan, now) for slot, (_, plan) in zip(slots, charges, strict=True)]
            if any(waits):
                return max(waits)
            for slot in slots:
                newest = _HEAD.unpack_from(self._map, slot)[1]
                self._words[slot // 4 + _RING + newest % _TICKS] += 1
        return 0.0

    def spend(self, charges: Sequence[Charge], count: int, now: float) -> None:
        """Charge `count` bytes that were transferred."""
        with self._locked():
            for name, plan in charges:
                if plan.bytes_per_second is None:
                    continue
                slot = self._find(name, now)
                identity, last, even, _ = _HEAD.unpack_from(self._map, slot)
                even = max(even, now) + count / plan.bytes_per_second
                _HEAD.pack_into(self._map, slot, identity, last, even, now)

    def close(self) -> None:
        """Idempotent."""
        self._words.release()
        self._words = memoryview(b"")
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- one slot

    def _wait(self, slot: int, plan: Plan, now: float) -> float:
        """Seconds until this account allows a request; 0.0: now. Brings the ring up to date."""
        tick, even = self._roll(slot, now)
        wait = 0.0
        if plan.bytes_per_second is not None:
            wait = max(0.0, even - now - _BYTES_AHEAD_SECONDS)
        if plan.requests_per_minute is not None:
            wait = max(wait, self._window_wait(slot, plan.requests_per_minute, tick, now))
        return wait

    def _roll(self, slot: int, now: float) -> tuple[int, float]:
        """Forget the counters that have left the window: (the newest half second, when the account of bytes is even)."""
        identity, last, even, _ = _HEAD.unpack_from(self._map, slot)
        first = slot // 4 + _RING
        tick = int(now * 2)
        if 0 < last - tick < _TICKS:
            tick = last  # another worker read the clock after us, and came first
        # What is far ahead is another boot's clock: nothing of it counts.
        if not 0 <= tick - last < _TICKS:
            self._words[first : first + _TICKS] = memoryview(bytes(4 * _TICKS)).cast("I")
            even = min(even, now)
        else:
            for passed in range(last + 1, tick + 1):
                self._words[first + passed % _TICKS] = 0
        _HEAD.pack_into(self._map, slot, identity, tick, even, now)
        return tick, float(even)

    def _window_wait(self, slot: int, limit: int, tick: int, now: float) -> float:
        first = slot // 4 + _RING
        counted = sum(self._words[first : first + _TICKS])
        if counted < limit:
            return 0.0
        for age in range(_TICKS - 1, -1, -1):
            counted -= self._words[first + (tick - age) % _TICKS]
            if counted < limit:
                return max((tick - age + _TICKS) / 2 - now, 0.001)
        return 60.0

    # -- the table

    def _find(self, name: str, now: float) -> int:
        """Where the slot of `name` begins; made if it is not there."""
        identity = hashlib.blake2b(name.encode(), digest_size=16).digest()
        home = int.from_bytes(identity[:4], "little")
        oldest, oldest_use = 0, math.inf
        for probe in range(_PROBES):
            slot = (home + probe) % SLOTS * _SLOT_BYTES
            found, _, _, used = _HEAD.unpack_from(self._map, slot)
            if found == identity:
                return slot
            if used < oldest_use:
                oldest, oldest_use = slot, used
        self._map[oldest : oldest + _SLOT_BYTES] = bytes(_SLOT_BYTES)
        _HEAD.pack_into(self._map, oldest, identity, 0, 0.0, now)
        return oldest

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._memory is None:
            self._open()
        held = self._fd >= 0 and self._lock()
        try:
            yield
        finally:
            if held:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        until = 0.0
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                until = until or now + _LOCK_SECONDS
                if now > until:
                    return False
                time.sleep(
                    0.0001
                )  # its holder, which is in there for microseconds, may have lost the processor
            else:
                return True

    @property
    def _map(self) -> mmap.mmap:
        assert self._memory is not None
        return self._memory

    def _open(self) -> None:
        size = SLOTS * _SLOT_BYTES
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(
                    self._fd, 0, size
                )  # a hole that a full disk cannot fill would kill the process
            elif os.fstat(self._fd).st_size < size:
                os.pwrite(self._fd, bytes(size), 0)
            self._memory = mmap.mmap(self._fd, size)
        except OSError as error:
            log.warning("rates are counted by each worker for itself: %s", error)
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            self._memory = mmap.mmap(-1, size)
        self._words = memoryview(self._memory).cast("I")
