"""Reading: byte ranges of manifests -> placements -> verified bytes.

Guarantees: a chunk's id is recomputed before the first of its bytes is returned; wrong bytes are never returned,
CorruptChunk or MissingChunk names pack, frame and chunk instead. Frames that lie close together are read with one
request; of a raw frame only the chunks that are wanted are read. Decoded frames are kept in a small cache (their
chunks are verified again at every use). No snapshot is held while packs are read. A frame that fails is read once
more through its pack's parity, if there is any (`cas.healing`); what then comes is verified in the same way.

A frame with bases is decoded behind their raw bytes (`cas.base_bytes`), which are in frames without bases, or refused: no
chain, no loop.

Memory: what is returned holds at most twice as many bytes as are asked for, or four times where raw frames are read with
little between them. Meanwhile whole chunks, a batch of stored bytes (_BATCH_BYTES, and one request more), and of
as many frames at once as `parallel_map` has threads the raw bytes (MAX_RAW_BYTES) and what they stand behind (twice as
much; `cas.base_bytes`).

The caller holds an operation (`cas.ports.Operations`) from before `locate` until its bytes are read: that keeps
collection from removing the packs in between.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.base_bytes import BaseBytes
from cas.catalog import PLACEMENTS, Placement, decode_placement
from cas.chunk import MAX_RAW_BYTES
from cas.errors import (
    CasError,
    CorruptChunk,
    CorruptFrame,
    CorruptRow,
    MissingChunk,
    MissingPack,
    PackUnreadable,
    UnsupportedFormat,
)
from cas.frame import decode_header, decompress, raw_bytes
from cas.frame_cache import FrameCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from cas.bases import FrameKey
    from cas.chunk import ChunkId
    from cas.frame import FrameHeader
    from cas.healing import Healer
    from cas.manifest import Entry
    from cas.ports import Buffer, PackPlace, ParallelMap, Reader

    ChunkIdOf = Callable[[memoryview], ChunkId]
    Chunks = dict[ChunkId, memoryview]
    Snapshots = Callable[[], AbstractContextManager[Reader]]

log = logging.getLogger("vaultaire.reading")

_MAX_GAP_BYTES: Final = 32 << 10  # bytes read for nothing rather than asking twice
_MAX_READ_BYTES: Final = 4 << 20
_BATCH_BYTES: Final = 1 << 20  # stored bytes that are held at once, and more by less than one request


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
    placements: dict[ChunkId, Placement] = {}
    for chunk, row in zip(ids, reader.get_many(PLACEMENTS, ids), strict=True):
        if row is None:
            raise MissingChunk(chunk)
        placements[chunk] = decode_placement(chunk, row)
    make = Span._make
    return [make((chunk, start, start + length, placements[chunk])) for chunk, start, length in entries]


class _Fetched(NamedTuple):
    """A frame's stored bytes, or why there are none."""

    part: _Part
    wanted: list[Span]
    stored: memoryview | CasError


class FrameReader:
    """Reads spans. Thread-safe."""

    def __init__(
        self,
        place: PackPlace,
        snapshot: Snapshots,
        base_id: ChunkIdOf,
        healer: Healer | None = None,
        cache: FrameCache | None = None,
        parallel_map: ParallelMap = map,
    ) -> None:
        """`base_id`: computes the ids of data chunks, whatever kind `read` is asked for. `cache`: None: one of its own.

        `parallel_map` decodes the frames of one batch side by side.
        """
        self._place = place
        self._snapshot = snapshot
        self._base_id = base_id
        self._healer = healer
        self._cache = FrameCache() if cache is None else cache
        self._base_bytes = BaseBytes(place, snapshot, self._cache)
        self._parallel_map = parallel_map

    def read(self, spans: Sequence[Span], chunk_id: ChunkIdOf) -> list[memoryview]:
        """The bytes of each span, in order, every chunk verified. Raises CorruptChunk, MissingChunk, PackUnreadable."""
        frames: dict[FrameKey, list[Span]] = {}
        for span in spans:
            frames.setdefault((span.placement.pack, span.placement.frame), []).append(span)
        verified: Chunks = {}
        missing = []
        for key, wanted in frames.items():
            cached = self._cache.get(key)
            if cached is None:
                missing.append(wanted)
                continue
            try:
                verified |= _verified(wanted, cached, 0, chunk_id)
            except CorruptChunk as error:
                self._cache.drop(key)
                missing.append(wanted)
                if not wanted[0].placement.has_bases:  # bases that were taken unverified can be the cause
                    log.warning("%s; it is read again: check memory of this machine", error)
        for batch in _batches(_coalesce(sorted(map(_part, missing)))):
            fetched = [each for group in batch for each in self._fetch_group(group, frames)]
            fetched.sort(key=_has_bases)  # stable; others first: they may hold the bases
            compressed = sum(not each.part.raw for each in fetched)
            read_all = self._parallel_map if compressed > 1 else map
            chunks_of = partial(self._chunks_of, chunk_id=chunk_id)
            for each, chunks in zip(fetched, read_all(chunks_of, fetched), strict=True):
                verified |= self._heal(each, chunks, chunk_id) if isinstance(chunks, CasError) else chunks
            del fetched, each, chunks  # before the next batch is fetched
        return [_cut(verified[span.chunk], span) for span in spans]

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

    # --- from the pack --------------------------------------------------------------------------------------------

    def _fetch_group(self, group: Sequence[_Part], spans_of: Mapping[FrameKey, list[Span]]) -> list[_Fetched]:
        """Frames that lie close together, by one request; one by one if some of them cannot be read."""
        first, last = group[0], group[-1]
        wanted = [spans_of[part.pack, part.frame] for part in group]
        stored: list[memoryview | CasError]
        try:
            data = self._fetch(first, last.offset + last.length)
            stored = [data[part.offset - first.offset :][: part.length] for part in group]
            raw = [number for number, part in enumerate(group) if part.raw]
            if 2 * sum(group[number].length for number in raw) < len(data):
                for number in raw:  # what is handed out of them would hold all that lies between
                    stored[number] = memoryview(bytes(stored[number]))  # type: ignore[arg-type]
        except MissingPack:
            stored = [MissingChunk(spans[0].chunk, first.pack, spans[0].placement.frame) for spans in wanted]
        except PackUnreadable as error:
            alone = len(group) > 1
            stored = [
                self._fetch_alone(*each) if alone else error for each in zip(group, wanted, strict=True)
            ]
        return list(map(_Fetched, group, wanted, stored))

    def _fetch_alone(self, part: _Part, wanted: Sequence[Span]) -> memoryview | CasError:
        try:
            return self._fetch(part, part.offset + part.length)
        except MissingPack:
            return MissingChunk(wanted[0].chunk, part.pack, part.frame)
        except PackUnreadable as error:
            return error

    def _fetch(self, first: _Part, end: int) -> memoryview:
        (data,) = self._place.read(first.pack, [(first.offset, end - first.offset)])
        return memoryview(data)

    def _chunks_of(self, fetched: _Fetched, chunk_id: ChunkIdOf) -> Chunks | CasError:
        """What is wanted of a frame, verified; or why it cannot be had."""
        part, wanted, _ = fetched
        try:
            return _verified(wanted, self._decode(fetched), part.base, chunk_id)
        except CasError as error:
            self._cache.drop((part.pack, part.frame))
            return error.with_traceback(None)  # which holds all the bytes

    def _decode(self, fetched: _Fetched) -> Buffer:
        """Raw bytes, of which none is verified. Raises CasError."""
        part, wanted, stored = fetched
        if isinstance(stored, CasError):
            raise stored
        if len(stored) != part.length:
            reason = "the pack ends before its frame does"
            raise CorruptChunk(part.pack, part.frame, wanted[0].chunk, reason)
        if part.raw:
            return stored
        try:
            raw = _behind(stored, self._base_bytes.prefix_of) if part.has_bases else decompress(stored)
        except CasError as error:
            raise CorruptChunk(part.pack, part.frame, wanted[0].chunk, str(error)) from error
        self._cache.put((part.pack, part.frame), raw)
        return raw

    def _heal(self, fetched: _Fetched, error: CasError, chunk_id: ChunkIdOf) -> Chunks:
        """Decode the frame behind verified bases, or take it from its pack's parity; or raise what was wrong."""
        part, wanted, stored = fetched
        if part.has_bases and not isinstance(stored, CasError):
            # Its bases were taken as they came. Verified they are healed, or named.
            try:
                raw: Buffer = _behind(stored, self.prefix_of)
                chunks = _verified(wanted, raw, 0, chunk_id)
            except CorruptRow as second:  # of the catalog: nothing is known to be wrong with the pack
                raise CorruptChunk(part.pack, part.frame, wanted[0].chunk, str(second)) from second
            except CasError as second:
                error = _of_chunk(part, wanted[0], second)
            else:
                log.warning("%s; behind verified bases it is right", error)
                self._cache.put((part.pack, part.frame), bytes(raw))
                return chunks
        if self._healer is None:
            raise error
        placement = wanted[0].placement
        try:
            raw = self._healer.frame(placement, error, self.prefix_of)
            return _verified(wanted, raw, 0, chunk_id)
        except CasError as third:
            self._healer.lost({span.chunk for span in wanted}, placement, chunk_id, self.prefix_of)
            if third is error:
                raise
            raise error from third


def _has_bases(fetched: _Fetched) -> bool:
    return fetched.part.has_bases


def _behind(frame: memoryview, prefix_of: Callable[[FrameHeader], Buffer]) -> bytes:
    """The raw bytes of a whole frame with bases."""
    header = decode_header(frame)
    payload = frame[header.header_length : header.total_length]
    return bytes(raw_bytes(header, payload, prefix_of))


def _of_chunk(part: _Part, span: Span, error: CasError) -> CasError:
    """What `read` may raise for `error`."""
    if isinstance(error, CorruptFrame | UnsupportedFormat):
        return CorruptChunk(part.pack, part.frame, span.chunk, str(error))
    return error


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


def _batches(groups: Sequence[list[_Part]]) -> Iterator[list[list[_Part]]]:
    """Groups that are read and decoded together."""
    batch: list[list[_Part]] = []
    held = 0
    for group in groups:
        batch.append(group)
        held += group[-1].offset + group[-1].length - group[0].offset
        if held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _cut(chunk: memoryview, span: Span) -> memoryview:
    """What is asked for of a chunk; a small part does not hold the rest."""
    part = chunk[span.start : span.stop]
    return memoryview(bytes(part)) if 2 * len(part) < len(chunk) else part


def _verified(wanted: Sequence[Span], raw: Buffer, base: int, chunk_id: ChunkIdOf) -> Chunks:
    """The chunks of one frame. Raises CorruptChunk."""
    view = memoryview(raw)
    # A view holds the whole frame: of one that is mostly not wanted the rest is let go.
    copied = 2 * sum([span.placement.length for span in wanted]) < len(view)
    verified: Chunks = {}
    for chunk, _, stop, placement in wanted:
        if stop > placement.length:
            reason = f"byte {stop} of {placement.length} is asked for"
            raise CorruptChunk(placement.pack, placement.frame, chunk, reason)
        if chunk not in verified:
            begin = placement.inside - base
            data = view[begin : begin + placement.length]
            if len(data) != placement.length or chunk_id(data) != chunk:
                raise CorruptChunk(placement.pack, placement.frame, chunk, "its bytes have another id")
            verified[chunk] = memoryview(bytes(data)) if copied else data
    return verified
