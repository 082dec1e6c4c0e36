"""Earlier bytes of the source, read again: what a new frame would be compressed against (`cas.prefix`).

A store takes a frame's bases from its packs. Here nothing is kept, so the place where a chunk was seen first is kept
instead, and the bytes that follow it there are read from the source once more: they are what the store would have behind
that chunk in its pack, or nearly. As there, a chunk of a frame that has bases itself is no anchor.

A place is the number of an object and an offset, in 64 bits. Memory: the names of the last `REMEMBERED` objects of more
than `LEAST_BYTES`; older ones cannot be read again, so nothing is found behind their chunks.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from cas.catalog import placement_rows
from cas.chunk import ChunkId
from cas.frame import MAX_BASES, Codec
from cas.prefix import BACK_BYTES, MAX_SKIP_BYTES, PREFIX_BYTES, BaseFinder, Chosen
from vaultaire.analyze.sources import Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cas.prefix import Run
    from vaultaire.analyze.sources import Item

    ReadAgain = Callable[[Item, int, int], bytes]

REMEMBERED: Final = 100_000
LEAST_BYTES: Final = 32 << 10  # shorter ones have nothing behind a chunk
BASE_BYTES: Final = 32 << 10  # a chunk, on average

_OFFSET_BITS: Final = 36
_UNIT_BITS: Final = 6  # an offset is kept in units of 64 bytes: 4 TiB fit
_MAX_NUMBER: Final = (1 << 64 - _OFFSET_BITS) - 1
_MAX_OFFSET: Final = 1 << _OFFSET_BITS + _UNIT_BITS

_SOME_PACK: Final = 1
# Rows as an ingest knows them, as far as it looks at them; in the rest of the first kind lies the place.
_ANCHOR: Final = placement_rows(_SOME_PACK, 0, Codec.ZSTD, 0, 0, [0], 0)[0]
NO_ANCHOR: Final = placement_rows(_SOME_PACK, 0, Codec.ZSTD, 0, 0, [0], 0, has_bases=True)[0]
_PLACE_AT: Final = 9  # behind the version and the pack
_PLACE: Final = struct.Struct(">QQ")  # and up to where its object was looked at then


def place_of(number: int, end: int) -> int:
    """The place of a chunk that ends there; 0: none, for object 0 or one that cannot be told."""
    return number << _OFFSET_BITS | end >> _UNIT_BITS if number and end < _MAX_OFFSET else 0


def anchor_row(place: int, limit: int) -> bytes:
    """A row for the chunk there; what follows it up to `limit` may be taken."""
    return _ANCHOR[:_PLACE_AT] + _PLACE.pack(place, limit) + _ANCHOR[_PLACE_AT + _PLACE.size :]


class Earlier:
    """Objects that can be read again, by number, as far as they were looked at. Thread-safe."""

    def __init__(self, read_again: ReadAgain) -> None:
        self._read_again = read_again
        self._items: OrderedDict[int, Item] = OrderedDict()
        self._ends: dict[int, int] = {}
        self._number = 0
        self._lock = threading.Lock()

    def begin(self, item: Item) -> int:
        """Its number; 0: it is not worth one."""
        if item.size < LEAST_BYTES or self._number == _MAX_NUMBER:
            return 0
        with self._lock:
            self._number += 1
            self._items[self._number] = item
            self._ends[self._number] = 0
            if len(self._items) > REMEMBERED:
                oldest, _ = self._items.popitem(last=False)
                del self._ends[oldest]
            return self._number

    def advance(self, number: int, end: int) -> None:
        """The chunks before that are known from now on: objects that are read side by side count as one after the other."""
        with self._lock:
            if number in self._ends:
                self._ends[number] = end

    def row(self, place: int, own: int) -> bytes:
        """For a chunk that was seen there first. Object `own` asks; what an upload stores itself is not published yet."""
        number = place >> _OFFSET_BITS
        end = self._ends.get(number)
        return anchor_row(place, end) if end is not None and number != own else NO_ANCHOR

    def read(self, number: int, start: int, length: int) -> bytes:
        """Those bytes, or fewer; none if they cannot be read any more. Blocking."""
        with self._lock:
            item = self._items.get(number)
        if item is None:
            return b""
        try:
            return self._read_again(item, start, length)
        except Unread:
            return b""  # whoever counts the object names it


class EarlierFinder(BaseFinder):
    """Chooses as a store's finder does, from the source. Thread-safe."""

    def __init__(self, earlier: Earlier) -> None:
        self._earlier = earlier

    def find(self, runs: Sequence[Run]) -> Chosen | None:
        """See `BaseFinder`. There are as many ids as there would be; they are those of no chunk."""
        pieces: list[bytes] = []
        left = PREFIX_BYTES
        taken: dict[int, int] = {}  # object -> up to where
        for run in runs:
            if run.skip > MAX_SKIP_BYTES:
                continue
            place, limit = _PLACE.unpack_from(run.anchor, _PLACE_AT)
            number, end = place >> _OFFSET_BITS, (place & (1 << _OFFSET_BITS) - 1) << _UNIT_BITS
            start = end + max(0, run.skip - BACK_BYTES)
            stop = start + run.length + run.length // 2 + BASE_BYTES  # whole chunks are taken
            start = max(start, taken.get(number, 0))
            length = min(stop - start, limit - start, left)
            if length > 0:
                pieces.append(self._earlier.read(number, start, length))
                taken[number] = start + length
                left -= len(pieces[-1])
        prefix = b"".join(pieces)
        if not prefix:
            return None
        count = min(-(-len(prefix) // BASE_BYTES), MAX_BASES)
        return Chosen(tuple(ChunkId(number.to_bytes(32, "big")) for number in range(count)), prefix)
