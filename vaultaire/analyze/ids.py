"""The chunks seen so far, in 8 bytes each; when they become too many, a sample of them.

**Ids are cut to 64 bits.** Two different chunks pass for one with a chance of n / 2^64 per chunk: for 100 million
chunks (3 TB of new data) the expected error is 3 chunks in ten thousand runs. Nothing is stored by these ids.

**The sample.** An id has a *depth*, the number of zero bits at its end, so half of all ids have depth 1 or more. A set
of *level* k holds the ids of depth k and more: all of them from the first byte on, for those below were thrown away
when the level rose. So of 2^-k of the different chunks it is known exactly whether and how often they came again, which
is what an estimate needs (Gibbons, Distinct sampling, VLDB 2001); sampling files or blocks would not show it.

A set may also keep a *place* for each id: 8 bytes that mean something to its user.

Memory: 256 open-addressing tables that grow one by one, by half, so 8 to 16 bytes per id (with places twice that) and
no moment that needs twice as much. About 0.5 us per id. Thread-safe.
"""

from __future__ import annotations

import threading
from array import array
from enum import Enum
from itertools import repeat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DEPTHS: Final = 32  # depths from 0 on that are told apart
GROUPS: Final = 64  # random groups that ids fall into, for the variance of an estimate
LIMIT_IDS: Final = (
    6_000_000  # of a set by default: 150 MiB with places, 200 GB of new data in chunks of 32 KiB
)

_SHARDS: Final = 256
_LEAST_SLOTS: Final = 16
_SHARD_SHIFT: Final = 56
_PLACE: Final = (1 << _SHARD_SHIFT) - 1


class Seen(Enum):
    NEW = 1
    KNOWN = 2
    UNSAMPLED = 3


def short_id(chunk_id: bytes) -> int:
    """64 bits of an id, never zero."""
    return int.from_bytes(chunk_id[:8], "big") or 1


def depth_of(short: int) -> int:
    return min((short & -short).bit_length() - 1, DEPTHS - 1)


def group_of(short: int) -> int:
    """Independent of its depth and of its place in the table."""
    return (short >> 32) % GROUPS


class IdSet:
    """See the module."""

    def __init__(self, limit_ids: int = LIMIT_IDS, level: int = 0, *, places: bool = False) -> None:
        """`level`: to begin with; it rises when more than `limit_ids` are held."""
        self.level = level
        self._limit = limit_ids
        self._lock = threading.Lock()
        self._shards = [_Shard(places) for _ in range(_SHARDS)]
        self._held = 0

    def __len__(self) -> int:
        """Ids held."""
        return self._held

    def add(self, shorts: Sequence[int], places: Iterable[int] | None = None) -> list[Seen]:
        """Take these in, in order: was each one there already? `places`: of those that are new (default: 0)."""
        found = []
        shards = self._shards
        with self._lock:
            for short, place in zip(shorts, repeat(0) if places is None else places, strict=False):
                if short & ((1 << self.level) - 1):
                    found.append(Seen.UNSAMPLED)
                elif shards[short >> _SHARD_SHIFT].add(short, place):
                    found.append(Seen.NEW)
                    self._held += 1
                    if self._held > self._limit:
                        self._rise()
                else:
                    found.append(Seen.KNOWN)
        return found

    def place(self, short: int) -> int:
        """0: it is not there, or has none."""
        with self._lock:
            return self._shards[short >> _SHARD_SHIFT].place(short)

    def forget_places(self, shorts: Iterable[int]) -> None:
        """They have none any more."""
        with self._lock:
            for short in shorts:
                self._shards[short >> _SHARD_SHIFT].forget_place(short)

    def _rise(self) -> None:
        while self._held > self._limit and self.level < DEPTHS - 1:
            self.level += 1
            mask = (1 << self.level) - 1
            self._held = sum(shard.keep(mask) for shard in self._shards)


class _Shard:
    """Open addressing with linear probing; 0 is an empty slot."""

    __slots__ = ("_count", "_places", "_slots")

    def __init__(self, places: bool) -> None:
        self._slots = array("Q", bytes(8 * _LEAST_SLOTS))
        self._places = array("Q", bytes(8 * _LEAST_SLOTS)) if places else None
        self._count = 0

    def add(self, short: int, place: int) -> bool:
        """Whether it is new."""
        slots = self._slots
        at = self._find(short)
        if slots[at]:
            return False
        slots[at] = short
        if self._places is not None:
            self._places[at] = place
        self._count += 1
        if 4 * self._count > 3 * len(slots):
            self._rebuild(len(slots) + len(slots) // 2, 0)
        return True

    def _find(self, short: int) -> int:
        """Its slot, or the empty one that it would take."""
        slots = self._slots
        size = len(slots)
        at = ((short & _PLACE) * size) >> _SHARD_SHIFT
        while (found := slots[at]) and found != short:
            at += 1
            if at == size:
                at = 0
        return at

    def place(self, short: int) -> int:
        return 0 if self._places is None else self._places[self._find(short)]

    def forget_place(self, short: int) -> None:
        if self._places is not None:
            self._places[self._find(short)] = 0

    def keep(self, mask: int) -> int:
        """Throw away what has one of these bits; how many stay."""
        kept = sum(1 for each in self._slots if each and not each & mask)
        self._rebuild(max(_LEAST_SLOTS, 2 * kept), mask)
        return self._count

    def _rebuild(self, size: int, mask: int) -> None:
        slots, places = self._slots, self._places
        self._slots = array("Q", bytes(8 * size))
        if places is not None:
            self._places = array("Q", bytes(8 * size))
        self._count = 0
        for place, short in enumerate(slots):
            if short and not short & mask:
                at = self._find(short)
                self._slots[at] = short
                if places is not None and self._places is not None:
                    self._places[at] = places[place]
                self._count += 1
