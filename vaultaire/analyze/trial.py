"""One object on its way into a store that is not there: the ingest is that of an upload, its frames are only counted.

This module alone knows how an ingest asks for known chunks and hands frames over; whoever changes that (`cas.pending`,
`cas.appender`) finds here what follows for the forecast. Chunks are looked up in an `IdSet`, in the order in which they are
cut; of those that are not in its sample it is assumed that they go on as the last one did (data repeats in
stretches), which decides only which frames are compressed, never how much is counted as new.

Every object has its own commit: its end is a frame by itself (`cas.gathering` joins those of uploads that run side by side).
Frames get bases as in a store, from the source instead of packs (`vaultaire.analyze.earlier`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from cas.appender import Appender
from cas.chunk import Hasher
from cas.cutter import Cutter
from cas.frame import HEAD, Codec, decode_header
from cas.gathering import gather
from cas.ingest import Ingest
from cas.pack import PackKind
from cas.pending import Known, Lookup
from cas.prefix import Prefixes
from vaultaire.analyze.earlier import NO_ANCHOR, Earlier, EarlierFinder, place_of
from vaultaire.analyze.ids import DEPTHS, GROUPS, IdSet, Seen, depth_of, group_of, short_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cas.bases import FrameBases
    from cas.chunk import ChunkId, Identity
    from cas.frame import EncodedFrame
    from cas.manifest import Manifest
    from cas.ports import ParallelMap

STRETCH_BYTES: Final = 512 << 10  # what a sample compresses, or leaves out, in one go: about two frames

_SOME_PACK: Final = 1
_STRETCH_BITS: Final = 40  # of an id, which decide about a stretch: neither its depth's nor its group's


@dataclass(slots=True)
class Frames:
    """Sums over frames."""

    count: int = 0
    chunks: int = 0
    raw_bytes: int = 0
    payload_bytes: int = 0
    prefix_saved_bytes: int = 0
    header_bytes: int = 0
    plain_raw_bytes: int = 0  # raw bytes of frames that did not shrink
    with_bases: int = 0  # of the frames
    bases: int = 0

    def add(self, frame: EncodedFrame, chunks: int) -> None:
        self.count += 1
        self.chunks += chunks
        self.raw_bytes += frame.raw_length
        self.payload_bytes += frame.stored_length
        self.prefix_saved_bytes += frame.saved_bytes
        self.header_bytes += len(frame.header)
        self.with_bases += bool(frame.bases)
        self.bases += len(frame.bases)
        if frame.codec == Codec.RAW:
            self.plain_raw_bytes += frame.raw_length

    def merge(self, other: Frames) -> None:
        self.count += other.count
        self.chunks += other.chunks
        self.raw_bytes += other.raw_bytes
        self.payload_bytes += other.payload_bytes
        self.prefix_saved_bytes += other.prefix_saved_bytes
        self.header_bytes += other.header_bytes
        self.plain_raw_bytes += other.plain_raw_bytes
        self.with_bases += other.with_bases
        self.bases += other.bases


def _depths() -> list[int]:
    return [0] * DEPTHS


@dataclass(slots=True)
class Sighted:
    """What was seen of chunks, by the depth of their ids: an estimate takes those depths that were seen all along."""

    seen_bytes: list[int] = field(default_factory=_depths)
    new_bytes: list[int] = field(default_factory=_depths)
    seen_chunks: list[int] = field(default_factory=_depths)
    new_chunks: list[int] = field(default_factory=_depths)

    def merge(self, other: Sighted) -> None:
        for mine, theirs in (
            (self.seen_bytes, other.seen_bytes),
            (self.new_bytes, other.new_bytes),
            (self.seen_chunks, other.seen_chunks),
            (self.new_chunks, other.new_chunks),
        ):
            for depth, more in enumerate(theirs):
                if more:
                    mine[depth] += more


class Spread:
    """What the variance of an estimate needs: squared lengths of new chunks by depth, frames by random group."""

    def __init__(self) -> None:
        self.new_squares = _depths()
        self.raw_bytes = [0] * GROUPS
        self.payload_bytes = [0] * GROUPS

    def merge(self, other: Spread) -> None:
        for mine, theirs in (
            (self.new_squares, other.new_squares),
            (self.raw_bytes, other.raw_bytes),
            (self.payload_bytes, other.payload_bytes),
        ):
            for place, more in enumerate(theirs):
                mine[place] += more


class _Watch(Known, Hasher):
    """Names the chunks of an ingest, and says which of them are known. Of one ingest."""

    def __init__(
        self,
        hash_key: bytes,
        ids: IdSet,
        spread: Spread,
        skipped: int,
        earlier: Earlier | None,
        number: int,
    ) -> None:
        """Of 2^`skipped` stretches of new data one is compressed. `number`: of the object."""
        Hasher.__init__(self, hash_key)
        self.sighted = Sighted()
        self.chunks = 0
        self._ids = ids
        self._spread = spread
        self._skipped = (1 << skipped) - 1
        self._earlier = earlier
        self._number = number
        self._position = 0
        self._to_store: set[bytes] = set()
        self._goes_on_new = True
        self._wanted = True  # the stretch is compressed
        self._left = 0  # bytes of the stretch that are still to come

    def chunk_ids(self, chunks: Sequence[bytes | memoryview]) -> list[ChunkId]:
        ids = Hasher.chunk_ids(self, chunks)
        self.chunks += len(ids)
        self._to_store.clear()
        shorts = [short_id(chunk_id) for chunk_id in ids]
        ends = list(accumulate(map(len, chunks), initial=self._position))[1:]
        self._position += sum(map(len, chunks))
        told = self._ids.add(shorts, [place_of(self._number, end) for end in ends])
        if self._earlier is not None:
            self._earlier.advance(self._number, self._position)
        for chunk_id, short, chunk, seen in zip(ids, shorts, chunks, told, strict=True):
            if self._left <= 0:
                self._wanted = not short >> _STRETCH_BITS & self._skipped
                self._left = STRETCH_BYTES
            self._left -= len(chunk)
            if seen is not Seen.UNSAMPLED:
                self._goes_on_new = seen is Seen.NEW
                self._count(short, len(chunk), new=self._goes_on_new)
            if self._goes_on_new and self._wanted:
                self._to_store.add(chunk_id)
        return ids

    def _count(self, short: int, length: int, *, new: bool) -> None:
        depth = depth_of(short)
        sighted = self.sighted
        sighted.seen_bytes[depth] += length
        sighted.seen_chunks[depth] += 1
        if new:
            sighted.new_bytes[depth] += length
            sighted.new_chunks[depth] += 1
            self._spread.new_squares[depth] += length * length

    def node_id(self, data: bytes | memoryview) -> ChunkId:
        node_id = Hasher.node_id(self, data)
        (seen,) = self._ids.add([short_id(node_id)])
        if seen is Seen.NEW or (seen is Seen.UNSAMPLED and self._goes_on_new):
            self._to_store.add(node_id)
        return node_id

    def find(self, ids: Collection[bytes]) -> Lookup:
        known = {chunk_id: self._row(chunk_id) for chunk_id in ids if chunk_id not in self._to_store}
        return Lookup({}, known, frozenset())

    def _row(self, chunk_id: bytes) -> bytes:
        if self._earlier is None:
            return NO_ANCHOR
        return self._earlier.row(self._ids.place(short_id(chunk_id)), self._number)

    def offer(self, placements: Mapping[bytes, bytes], bases: FrameBases | None = None) -> None:
        pass

    def withdraw(self, placements: Mapping[bytes, bytes]) -> None:
        pass


class _Counter(Appender):
    """Takes frames and forgets them. Of one ingest."""

    def __init__(self, ids: IdSet, spread: Spread) -> None:
        self.data = Frames()
        self.nodes = Frames()
        self._ids = ids
        self._spread = spread

    def append(self, kind: PackKind, frame: EncodedFrame, chunks: int) -> tuple[int, int, int]:
        (self.data if kind == PackKind.DATA else self.nodes).add(frame, chunks)
        if kind == PackKind.DATA:
            group = group_of(short_id(frame.header[HEAD.size :]))  # by its first chunk
            self._spread.raw_bytes[group] += frame.raw_length
            self._spread.payload_bytes[group] += frame.stored_length
        if frame.bases:  # its chunks are no anchors
            self._ids.forget_places(map(short_id, decode_header(frame.header).ids))
        return _SOME_PACK, 0, 0


class _Unknown(Known):
    """Nothing is: what waits to be written is new, that was asked before."""

    def __init__(self) -> None:
        pass

    def find(self, ids: Collection[bytes]) -> Lookup:
        del ids
        return Lookup({}, {}, frozenset())

    def offer(self, placements: Mapping[bytes, bytes], bases: FrameBases | None = None) -> None:
        pass


class Trial:
    """One object above the size of those that stay in their records. One thread at a time."""

    def __init__(
        self,
        identity: Identity,
        ids: IdSet,
        spread: Spread,
        parallel_map: ParallelMap,
        *,
        skipped: int = 0,
        earlier: Earlier | None = None,
        number: int = 0,
    ) -> None:
        """`spread` belongs to the thread. Of 2^`skipped` stretches of new data one is compressed.

        `earlier`: frames may have bases from there. `number`: this object's in it.
        """
        self._parallel_map = parallel_map
        watch = self._watch = _Watch(identity.hash_key, ids, spread, skipped, earlier, number)
        counter = self._counter = _Counter(ids, spread)
        self._ingest = Ingest(
            Cutter.of(identity),
            watch,
            watch,
            counter,
            parallel_map,
            on_end=lambda: None,
            finder=None if earlier is None else EarlierFinder(earlier),
            prefixes=Prefixes.AUTO,
        )

    @property
    def sighted(self) -> Sighted:
        return self._watch.sighted

    @property
    def chunks(self) -> int:
        """Chunks cut, known ones included."""
        return self._watch.chunks

    @property
    def size(self) -> int:
        return self._ingest.size

    @property
    def data(self) -> Frames:
        return self._counter.data

    @property
    def nodes(self) -> Frames:
        return self._counter.nodes

    def feed(self, block: bytes | memoryview) -> None:
        """As `Ingest.feed`. Blocking."""
        self._ingest.feed(block)
        publication = self._ingest.take_publication()
        if publication is not None:
            publication.settle(committed=True)

    def finish(self) -> Manifest:
        """Also after a failure: what was fed counts. Blocking."""
        manifest = self._ingest.finish()
        gather([self._ingest.publication()], _Unknown(), self._counter, self._parallel_map)
        self._ingest.abort()
        return manifest
