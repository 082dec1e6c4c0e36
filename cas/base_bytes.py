"""The raw bytes of bases, as a frame that was compressed behind them needs them: fast, and not verified.

What is decoded behind wrong bytes has wrong ids, and whoever reads it verifies those; so a base's own id need not be
computed once more for every frame that stands behind it (a frame of bases that is read here is checked by its CRC; one
that comes from the cache is not). Who *writes* behind bases takes verified ones
(`FrameReader.prefix`): nobody could ever decode a frame that was compressed against damage.

Neighbours in the prefix are mostly in one frame: only the first of them costs a look at the catalog.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.catalog import PLACEMENTS, decode_placement
from cas.chunk import MAX_RAW_BYTES
from cas.errors import CorruptFrame, MissingChunk
from cas.frame import Codec, decode_frame, decode_header
from cas.frame_cache import Listing

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cas.catalog import Placement
    from cas.chunk import ChunkId
    from cas.frame import FrameHeader
    from cas.frame_cache import FrameCache
    from cas.ports import PackPlace, Reader


_RECENT_FRAMES: Final = 3  # a prefix may go to and fro between them


class _Frame(NamedTuple):
    raw: memoryview
    listing: Listing


class BaseBytes:
    """Thread-safe. Holds _RECENT_FRAMES of the bases beside what it returns."""

    def __init__(
        self, place: PackPlace, snapshot: Callable[[], AbstractContextManager[Reader]], cache: FrameCache
    ) -> None:
        self._place = place
        self._snapshot = snapshot
        self._cache = cache

    def prefix_of(self, header: FrameHeader) -> bytes:
        """The bytes of the bases that a frame's header names, one after the other. Blocking.

        Raises CorruptFrame, MissingChunk, MissingPack, PackUnreadable, UnsupportedFormat, CorruptRow.
        """
        bases = header.bases
        pieces: list[bytes] = []  # copies: a view would hold its whole frame
        length = 0
        recent: deque[_Frame] = deque(maxlen=_RECENT_FRAMES)
        taken = 0
        while taken < len(bases):
            frame = next((each for each in recent if bases[taken] in each.listing.numbers), None)
            if frame is None:
                frame = self._find(bases[taken])
                recent.appendleft(frame)
            first, after = frame.listing.run(bases, taken)
            taken += after - first
            pieces.append(bytes(frame.raw[frame.listing.bounds[first] : frame.listing.bounds[after]]))
            length += len(pieces[-1])
            if length > MAX_RAW_BYTES:
                raise CorruptFrame("the bases of a frame are too long")
        return b"".join(pieces)

    def _find(self, base: ChunkId) -> _Frame:
        """The frame that a base is in."""
        with self._snapshot() as reader:
            row = reader.get(PLACEMENTS, base)
        if row is None:
            raise MissingChunk(base)
        placement = decode_placement(base, row)
        if placement.has_bases:  # no chain, no loop
            raise CorruptFrame(f"base {base.hex()} is itself in a frame with bases")
        frame = self._frame(placement)
        if base not in frame.listing.numbers:
            raise CorruptFrame(f"base {base.hex()} is not where its placement says")
        return frame

    def _frame(self, placement: Placement) -> _Frame:
        key = placement.pack, placement.frame
        kept = self._cache.get_listed(key)
        if kept is not None:
            known, listing = kept
            if listing is None:
                (head,) = self._place.read(placement.pack, [(placement.frame, placement.header_length)])
                listing = Listing.of(decode_header(head))
                self._cache.put(key, known, listing)
            return _Frame(memoryview(known), listing)
        length = placement.frame_end - placement.frame
        (frame,) = self._place.read(placement.pack, [(placement.frame, length)])
        header, raw = decode_frame(frame)  # refuses one with bases
        listing = Listing.of(header)
        if header.codec != Codec.RAW:
            self._cache.put(key, bytes(raw), listing)  # no copy
        return _Frame(memoryview(raw), listing)
