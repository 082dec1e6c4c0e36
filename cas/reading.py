"""Reading: byte ranges of manifests -> placements -> verified bytes.

Guarantees: a chunk's id is recomputed before the first of its bytes is returned; wrong bytes are never returned,
CorruptChunk or MissingChunk names pack, frame and chunk instead. Frames that lie close together are read with one
request; of a raw frame only the chunks that are wanted are read. Decoded frames are kept in a small cache (their
chunks are verified again at every use). No snapshot is held while packs are read. A frame that fails is read once
more through its pack's parity, if there is any (`cas.healing`); what then comes is verified in the same way.

A frame with bases is decoded behind their raw bytes, which are read the same way (and are in frames without bases, or
refused: no chain, no loop). At most MAX_RAW_BYTES are held for a frame and its bases together.

The caller holds an operation (`cas.ports.Operations`) from before `locate` until its bytes are read: that keeps
collection from removing the packs in between.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from awscrt.checksums import crc64nvme

from cas.catalog import PLACEMENTS, Placement, decode_placement
from cas.chunk import MAX_RAW_BYTES
from cas.errors import (
    CasError,
    CorruptChunk,
    CorruptFrame,
    MissingChunk,
    MissingPack,
    PackUnreadable,
    UnsupportedFormat,
)
from cas.frame import decode_header, decompress, raw_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from cas.chunk import ChunkId
    from cas.frame import FrameHeader
    from cas.healing import Healer
    from cas.manifest import Entry
    from cas.ports import Buffer, PackPlace, Reader

    ChunkIdOf = Callable[[memoryview], ChunkId]
    Snapshots = Callable[[], AbstractContextManager[Reader]]

CACHE_BYTES: Final = 16 << 20
_MAX_GAP_BYTES: Final = 32 << 10  # bytes read for nothing rather than asking twice
_MAX_READ_BYTES: Final = 4 << 20


class Span(NamedTuple):
    """Bytes [start, stop) of a chunk, and where the chunk is."""

    chunk: ChunkId
    start: int
    stop: int
    placement: Placement


class _Part(NamedTuple):
    """What must be read of one frame: bytes [offset, offset + length) of its pack; the first is raw byte `base`."""

    pack: int
    frame: int
    offset: int
    length: int
    base: int
    raw: bool
    has_bases: bool  # the header is read as well: it names them


def resolve(reader: Reader, entries: Sequence[Entry]) -> list[Span]:
    """Where the chunks of level-0 entries are; one round trip. Raises MissingChunk, CorruptRow."""
    ids = sorted({entry.id for entry in entries})
    rows = dict(zip(ids, reader.get_many(PLACEMENTS, ids), strict=True))
    placements: dict[ChunkId, Placement] = {}
    for chunk, row in rows.items():
        if row is None:
            raise MissingChunk(chunk)
        placements[chunk] = decode_placement(chunk, row)
    return [Span(e.id, e.start, e.start + e.length, placements[e.id]) for e in entries]


class FrameReader:
    """Reads spans. Thread-safe."""

    def __init__(
        self,
        place: PackPlace,
        snapshot: Snapshots,
        base_id: ChunkIdOf,
        healer: Healer | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """`base_id`: computes the ids of data chunks, whatever kind `read` is asked for."""
        self._place = place
        self._snapshot = snapshot
        self._base_id = base_id
        self._healer = healer
        self._cache = _Cache(cache_bytes)

    def read(self, spans: Sequence[Span], chunk_id: ChunkIdOf) -> list[memoryview]:
        """The bytes of each span, in order, every chunk verified. Raises CorruptChunk, MissingChunk, PackUnreadable."""
        frames: dict[tuple[int, int], list[Span]] = {}
        for span in spans:
            frames.setdefault((span.placement.pack, span.placement.frame), []).append(span)
        verified: dict[ChunkId, memoryview] = {}
        missing = []
        for key, wanted in frames.items():
            cached = self._cache.get(key)
            if cached is None:
                missing.append(wanted)
                continue
            try:
                _verify(wanted, cached, 0, chunk_id, verified)
            except CorruptChunk as error:
                self._heal(wanted, error, chunk_id, verified)
        spans_of = {(spans[0].placement.pack, spans[0].placement.frame): spans for spans in missing}
        for group in _coalesce(sorted(map(_part, missing))):
            self._read_group(group, spans_of, chunk_id, verified)
        return [verified[span.chunk][span.start : span.stop] for span in spans]

    def read_unverified(self, span: Span) -> bytes | None:
        """Bytes of a raw frame as they are in the pack now; None if there are none."""
        first = span.placement
        begin = first.frame + first.header_length + first.inside + span.start
        try:
            (data,) = self._place.read(first.pack, [(begin, span.stop - span.start)])
        except (MissingPack, PackUnreadable):
            return None
        return bytes(data)

    def forget(self) -> None:
        """Drop every decoded frame."""
        self._cache.clear()

    def prefix(self, bases: Sequence[ChunkId]) -> bytes:
        """The raw bytes of these, one after the other, every one verified. Raises CorruptFrame, and as `read`."""
        with self._snapshot() as reader:
            rows = reader.get_many(PLACEMENTS, bases)
        spans = []
        for base, row in zip(bases, rows, strict=True):
            if row is None:
                raise MissingChunk(base)
            placement = decode_placement(base, row)
            if placement.has_bases:
                raise CorruptFrame(f"base {base.hex()} is itself in a frame with bases")
            spans.append(Span(base, 0, placement.length, placement))
        if sum(span.stop for span in spans) > MAX_RAW_BYTES:
            raise CorruptFrame("the bases of a frame are too long")
        return b"".join(self.read(spans, self._base_id))

    def prefix_of(self, header: FrameHeader) -> bytes:
        """`prefix`, for the bases that a frame's header names."""
        return self.prefix(header.bases)

    def _read_group(
        self,
        group: Sequence[_Part],
        spans_of: Mapping[tuple[int, int], list[Span]],
        chunk_id: ChunkIdOf,
        verified: dict[ChunkId, memoryview],
    ) -> None:
        """Frames that lie close together, by one request."""
        first, last = group[0], group[-1]
        data: memoryview | None = None
        failed: CasError | None = None
        try:
            data = self._fetch(first, last.offset + last.length, spans_of[first.pack, first.frame][0].chunk)
        except (MissingChunk, PackUnreadable) as error:
            failed = error
        for part in group:
            wanted = spans_of[part.pack, part.frame]
            try:
                if data is None:
                    # Together they could not be read: alone some of them can.
                    alone = len(group) > 1 and isinstance(failed, PackUnreadable)
                    if not alone:
                        assert failed is not None
                        raise failed
                    stored = self._fetch(part, part.offset + part.length, wanted[0].chunk)
                else:
                    stored = data[part.offset - first.offset :][: part.length]
                raw = self._decode(part, stored, wanted[0].chunk)
                _verify(wanted, raw, part.base, chunk_id, verified)
            except (CorruptChunk, MissingChunk, PackUnreadable) as error:
                self._heal(wanted, error, chunk_id, verified)

    def _heal(
        self,
        wanted: Sequence[Span],
        error: CasError,
        chunk_id: ChunkIdOf,
        verified: dict[ChunkId, memoryview],
    ) -> None:
        """Take the frame from its pack's parity, or raise `error`."""
        placement = wanted[0].placement
        self._cache.drop((placement.pack, placement.frame))
        if self._healer is None:
            raise error
        try:
            raw = self._healer.frame(placement, error, self.prefix_of)
            _verify(wanted, raw, 0, chunk_id, verified)
        except CasError as second:
            self._healer.lost({span.chunk for span in wanted}, placement, chunk_id, self.prefix_of)
            raise error from second

    def _fetch(self, first: _Part, end: int, chunk: ChunkId) -> memoryview:
        try:
            (data,) = self._place.read(first.pack, [(first.offset, end - first.offset)])
        except MissingPack as error:
            raise MissingChunk(chunk, first.pack, first.frame) from error
        return memoryview(data)

    def _decode(self, part: _Part, stored: memoryview, chunk: ChunkId) -> Buffer:
        if len(stored) != part.length:
            raise CorruptChunk(part.pack, part.frame, chunk, "the pack ends before its frame does")
        if part.raw:
            return stored
        try:
            raw = self._behind_bases(stored) if part.has_bases else decompress(stored)
        except (CorruptFrame, UnsupportedFormat) as error:
            raise CorruptChunk(part.pack, part.frame, chunk, str(error)) from error
        self._cache.put((part.pack, part.frame), raw)
        return raw

    def _behind_bases(self, frame: memoryview) -> bytes:
        header = decode_header(frame)
        payload = frame[header.header_length : header.total_length]
        return bytes(raw_bytes(header, payload, self.prefix_of))


class Slices:
    """Parts of chunks, for who can hold no more of a large one (of noise, up to 2 MiB): read in order, each a copy.

    A large chunk is read and verified whole for its first part. Of the others a checksum is taken then, and they are read
    alone and held against that; if it does not match, the whole is read and verified again. So a chunk is
    read about twice, whatever the number of its parts. One stream, one thread at a time.
    """

    def __init__(self, frames: FrameReader, chunk_id: ChunkIdOf, part_bytes: int) -> None:
        """`part_bytes`: the length of all parts of a chunk but its last, counted from the first that is asked for."""
        self._frames = frames
        self._chunk_id = chunk_id
        self._part_bytes = part_bytes
        self._chunk: ChunkId | None = None  # whose parts these are
        self._first = 0  # where the first of them begins
        self._checksums = array("Q")

    def read(self, span: Span) -> bytes:
        """Raises as `FrameReader.read`."""
        part, rest = divmod(span.start - self._first, self._part_bytes)
        if span.chunk == self._chunk and not rest and 0 <= part < len(self._checksums):
            data = self._frames.read_unverified(span)
            if data is not None and crc64nvme(data) == self._checksums[part]:
                return data
        (chunk,) = self._frames.read([span._replace(start=0, stop=span.placement.length)], self._chunk_id)
        self._take_checksums(span, chunk)
        return bytes(chunk[span.start : span.stop])

    def _take_checksums(self, span: Span, chunk: memoryview) -> None:
        starts = (
            range(span.start, span.placement.length, self._part_bytes) if span.placement.raw_frame else ()
        )
        self._chunk, self._first = span.chunk, span.start
        self._checksums = array("Q", [crc64nvme(chunk[start : start + self._part_bytes]) for start in starts])


def _part(spans: Sequence[Span]) -> _Part:
    first = spans[0].placement
    payload = first.frame + first.header_length
    if first.has_bases:
        whole = first.frame_end - first.frame
        return _Part(first.pack, first.frame, first.frame, whole, 0, raw=False, has_bases=True)
    if not first.raw_frame:
        return _Part(first.pack, first.frame, payload, first.stored_length, 0, raw=False, has_bases=False)
    begin = min(span.placement.inside for span in spans)
    end = max(span.placement.inside + span.placement.length for span in spans)
    return _Part(first.pack, first.frame, payload + begin, end - begin, begin, raw=True, has_bases=False)


def _coalesce(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Neighbours (of sorted parts) that one request shall read."""
    groups: list[list[_Part]] = []
    for part in parts:
        group = groups[-1] if groups else None
        if (
            group is not None
            and group[0].pack == part.pack
            and part.offset - (group[-1].offset + group[-1].length) <= _MAX_GAP_BYTES
            and part.offset + part.length - group[0].offset <= _MAX_READ_BYTES
        ):
            group.append(part)
        else:
            groups.append([part])
    return groups


def _verify(
    wanted: Sequence[Span],
    raw: Buffer,
    base: int,
    chunk_id: ChunkIdOf,
    verified: dict[ChunkId, memoryview],
) -> None:
    """Add the chunks of one frame to `verified`, or raise CorruptChunk."""
    view = memoryview(raw)
    for chunk, _, stop, placement in wanted:
        if stop > placement.length:
            reason = f"byte {stop} of {placement.length} is asked for"
            raise CorruptChunk(placement.pack, placement.frame, chunk, reason)
        if chunk not in verified:
            begin = placement.inside - base
            data = view[begin : begin + placement.length]
            if len(data) != placement.length or chunk_id(data) != chunk:
                raise CorruptChunk(placement.pack, placement.frame, chunk, "its bytes have another id")
            verified[chunk] = data


class _Cache:
    """Decoded frames, least recently used out first. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._frames: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> bytes | None:
        with self._lock:
            raw = self._frames.get(key)
            if raw is not None:
                self._frames.move_to_end(key)
            return raw

    def clear(self) -> None:
        with self._lock:
            self._frames.clear()
            self._held = 0

    def drop(self, key: tuple[int, int]) -> None:
        with self._lock:
            raw = self._frames.pop(key, None)
            if raw is not None:
                self._held -= len(raw)

    def put(self, key: tuple[int, int], raw: bytes) -> None:
        if len(raw) > self._limit // 4:
            return
        with self._lock:
            if key not in self._frames:
                self._frames[key] = raw
                self._held += len(raw)
            while self._held > self._limit:
                self._held -= len(self._frames.popitem(last=False)[1])
