"""Decoded frames that are kept for a while. Nothing here is verified: whoever takes bytes of a frame does that."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cas.bases import FrameKey
    from cas.chunk import ChunkId
    from cas.frame import FrameHeader

CACHE_BYTES: Final = 16 << 20
_ENTRY_BYTES: Final = 300  # of Python's own
_LISTED_CHUNK_BYTES: Final = 200  # an id, two offsets, and Python's share of them


@dataclass(frozen=True, slots=True)
class Listing:
    """What a frame holds: the chunk with number n is at [`bounds[n]`, `bounds[n + 1]`) of its raw bytes."""

    numbers: Mapping[ChunkId, int]
    bounds: Sequence[int]

    @classmethod
    def of(cls, header: FrameHeader) -> Listing:
        numbers = {chunk: number for number, chunk in enumerate(header.ids)}
        return cls(numbers, list(accumulate(header.lengths, initial=0)))

    def run(self, ids: Sequence[ChunkId], start: int) -> tuple[int, int]:
        """[first, after): the numbers of `ids[start]`, which is here, and of those that follow it here as they do there."""
        numbers = self.numbers
        first = after = numbers[ids[start]]
        for chunk in islice(ids, start, None):
            if numbers.get(chunk) != after:
                break
            after += 1
        return first, after


@dataclass(slots=True)
class _Kept:
    raw: bytes
    listing: Listing | None

    @property
    def cost(self) -> int:
        listed_bytes = _LISTED_CHUNK_BYTES * len(self.listing.bounds) if self.listing else 0
        return _ENTRY_BYTES + len(self.raw) + listed_bytes


class FrameCache:
    """Least recently used out first. Thread-safe."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._frames: OrderedDict[FrameKey, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: FrameKey) -> bytes | None:
        with self._lock:
            kept = self._used(key)
            return None if kept is None else kept.raw

    def get_listed(self, key: FrameKey) -> tuple[bytes, Listing | None] | None:
        """The raw bytes, and what they are, if that was put as well."""
        with self._lock:
            kept = self._used(key)
            return None if kept is None else (kept.raw, kept.listing)

    def clear(self) -> None:
        with self._lock:
            self._frames.clear()
            self._held = 0

    def drop(self, key: FrameKey) -> None:
        with self._lock:
            self._remove(key)

    def put(self, key: FrameKey, raw: bytes, listing: Listing | None = None) -> None:
        if len(raw) > self._limit // 4:
            return
        kept = _Kept(raw, listing)
        with self._lock:
            if key in self._frames:
                if listing is None:
                    return
                self._remove(key)
            self._frames[key] = kept
            self._held += kept.cost
            while self._held > self._limit:
                self._remove(next(iter(self._frames)))

    def _used(self, key: FrameKey) -> _Kept | None:
        kept = self._frames.get(key)
        if kept is not None:
            self._frames.move_to_end(key)
        return kept

    def _remove(self, key: FrameKey) -> None:
        kept = self._frames.pop(key, None)
        if kept is not None:
            self._held -= kept.cost
