"""What an upload has stored or found and not yet published; and the table by which uploads share it.

A placement is pending from the moment its frame is written until a commit holds it. Meanwhile the in-flight table
offers it to every other upload of the process: whoever takes it up publishes it too (insert if absent) and makes
the pack durable too, so it does not matter which of them commits, or whether the first one fails.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.catalog import (
    PLACEMENTS,
    CondemnedCache,
    decode_placement,
    frame_of,
    has_bases,
    pack_of,
)
from cas.damage import known_damage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cas.bases import FrameBases, FrameKey
    from cas.ports import OrderedMap

PUBLISH_BATCH: Final = 4096  # placements; a commit of them holds the map's write lock for some 10 ms


class Lookup(NamedTuple):
    """What is known of some chunks."""

    in_flight: dict[bytes, bytes]  # id -> row
    published: dict[bytes, bytes]  # likewise
    # Placed, and yet to be stored anew: their pack is condemned, or they are damaged.
    displaced: frozenset[bytes]

    def row(self, chunk: bytes) -> bytes | None:
        return self.in_flight.get(chunk) or self.published.get(chunk)


class _InFlightBases(NamedTuple):
    bases: FrameBases
    chunks: set[bytes]  # those of the frame that are still in flight


class Known:
    """What the process knows of chunks beyond one upload: the catalog, and what is in flight. Thread-safe."""

    def __init__(self, kv: OrderedMap, lost: Collection[int]) -> None:
        """`lost`: the packs of this process that are poisoned; a live view."""
        self._kv = kv
        self._lost = lost
        self._condemned = CondemnedCache()
        self._lock = threading.Lock()
        self._in_flight: dict[bytes, bytes] = {}  # id -> placement's row
        self._bases: dict[FrameKey, _InFlightBases] = {}  # of the frames with bases that these rows name

    def find(self, ids: Collection[bytes]) -> Lookup:
        """Which of these are known. Chunks of condemned packs are not, nor damaged ones, nor chunks in flight in
        poisoned packs.
        """
        in_flight = self._in_flight
        # The table before the catalog: what is published in between is found in the later snapshot.
        shared = {chunk: row for chunk in ids if (row := in_flight.get(chunk))} if in_flight else {}
        asked = sorted(ids - shared.keys()) if shared else sorted(ids)
        with self._kv.snapshot() as reader:
            condemned = self._condemned.get(reader)
            rows = reader.get_many(PLACEMENTS, asked) if asked else []
            damaged = known_damage(reader, ids)
        placed = {chunk: row for chunk, row in zip(asked, rows, strict=True) if row is not None}
        published, displaced = placed, frozenset[bytes]()
        if damaged or condemned:
            published = {
                chunk: row
                for chunk, row in placed.items()
                if chunk not in damaged and pack_of(row) not in condemned
            }
            displaced = frozenset(placed.keys() - published.keys())
        if shared and (condemned or damaged or self._lost):
            bad = condemned.union(self._lost)
            shared = {
                chunk: row
                for chunk, row in shared.items()
                if pack_of(row) not in bad and chunk not in damaged  # it may be the damaged copy itself
            }
        return Lookup(shared, published, displaced)

    def published(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """id -> row of those that an upload may rely on and everybody can read."""
        asked = sorted(ids)
        with self._kv.snapshot() as reader:
            condemned = self._condemned.get(reader)
            rows = reader.get_many(PLACEMENTS, asked)
            damaged = known_damage(reader, asked)
        return {
            chunk: row
            for chunk, row in zip(asked, rows, strict=True)
            if row is not None and chunk not in damaged and pack_of(row) not in condemned
        }

    def bases_of(self, frame: FrameKey) -> FrameBases | None:
        """Of a frame in flight; None if its chunks have all been published or given up meanwhile."""
        found = self._bases.get(frame)
        return None if found is None else found.bases

    def offer(self, placements: Mapping[bytes, bytes], bases: FrameBases | None = None) -> None:
        """One frame is written now: others may take up its chunks. `bases`: if it has any."""
        with self._lock:
            if self._bases:
                self._leave_frames(placements)
            if bases is not None:
                frame = frame_of(next(iter(placements.values())))
                self._bases[frame] = _InFlightBases(bases, set(placements))
            self._in_flight.update(placements)

    def withdraw(self, placements: Mapping[bytes, bytes]) -> None:
        """Published or given up."""
        with self._lock:
            # Another upload may have stored its own copy since, if ours was in a pack condemned meanwhile.
            ours = [chunk for chunk, row in placements.items() if self._in_flight.get(chunk) is row]
            if self._bases:
                self._leave_frames(ours)
            for chunk in ours:
                del self._in_flight[chunk]

    def _leave_frames(self, chunks: Iterable[bytes]) -> None:
        """These are about to leave the table, or to be replaced there."""
        for chunk in chunks:
            row = self._in_flight.get(chunk)
            if row is None or not has_bases(row):
                continue
            frame = frame_of(row)
            left = self._bases[frame].chunks
            left.discard(chunk)
            if not left:
                del self._bases[frame]

    def __len__(self) -> int:
        return len(self._in_flight)


class Batch(NamedTuple):
    """What one publication makes known."""

    placements: dict[bytes, bytes]
    bases: dict[FrameKey, FrameBases]


_NOTHING: Final = Lookup({}, {}, frozenset())


class Pending:
    """One upload's share. One thread at a time, but for `published`, which may come from the committer's."""

    def __init__(self, known: Known) -> None:
        self.known = known
        # Ids that this upload has stored or is about to store, not yet published.
        self.held: set[bytes] = set()
        self.placements: dict[bytes, bytes] = {}  # id -> row, waiting for a publication
        self.bases: dict[FrameKey, FrameBases] = {}  # of the frames with bases that `placements` names
        self.needed: dict[int, int] = {}  # own pack -> how much of it must be durable
        self.relied: set[int] = set()  # packs of chunks that others have published
        self.new_stored_bytes = 0
        self.new_raw_bytes = 0

    def find(self, ids: Iterable[bytes]) -> Lookup:
        """Which of these chunks need not be stored; from now on this upload relies on them."""
        asked = {chunk for chunk in ids if chunk not in self.held}
        if not asked:
            return _NOTHING
        found = self.known.find(asked)
        self.relied.update(map(pack_of, found.published.values()))
        shared = found.in_flight
        if any(map(has_bases, shared.values())):
            # One whose bases are gone was published or given up just now: it is stored once more.
            shared = {c: row for c, row in shared.items() if not has_bases(row) or self._take_bases(row)}
        for chunk, row in shared.items():
            placement = decode_placement(chunk, row)
            self._need(placement.pack, placement.frame_end)
        self.placements.update(shared)
        self.held.update(shared)
        return found._replace(in_flight=shared)

    def store(self, placements: Mapping[bytes, bytes], pack: int, end: int, bases: FrameBases | None) -> None:
        """A frame of this upload was written; it ends at `end` of `pack`. `bases`: if it has any."""
        self._need(pack, end)
        self.placements.update(placements)
        if bases is not None:
            self.bases[frame_of(next(iter(placements.values())))] = bases
        self.known.offer(placements, bases)

    def take(self) -> Batch:
        """What waits to be published, and nothing waits any more."""
        batch = Batch(self.placements, self.bases)
        self.placements, self.bases = {}, {}
        return batch

    def _take_bases(self, row: bytes) -> bool:
        bases = self.known.bases_of(frame_of(row))
        if bases is not None:
            self.bases[frame_of(row)] = bases
        return bases is not None

    def published(self, placements: Mapping[bytes, bytes]) -> None:
        """They are in the catalog now."""
        self.known.withdraw(placements)
        self.held.difference_update(placements)

    def _need(self, pack: int, end: int) -> None:
        if self.needed.get(pack, 0) < end:
            self.needed[pack] = end
