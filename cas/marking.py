"""Marking: which chunks do these manifests name? One bit per chunk, by pack and ordinal.

Nodes are read from packs of their own, each whole node once (a bit of their own says so); data packs are never read.
Memory: one bit per chunk of every pack that is named, a table entry per pack, and some thousand ids that wait to be
looked up together. An entry that names a part of what a node spans marks only what that part needs.

**No snapshot is held.** Manifests come from one snapshot (whoever walks the names sees to that), and are values:
what they name, through nodes that never change, does not depend on when it is looked up. Each batch of placements is
looked up in a short snapshot of its own, later than that one. For collection, which asks "is chunk *c*, placed in a
condemned pack *P*, named?", that is right: after the waiting that follows condemnation nobody publishes into *P*, so
where a later lookup finds *c* elsewhere, *c* has left *P* for good, and if it finds *P*, the bit is set there. And
nothing that a manifest of the first snapshot needs loses its placement meanwhile: only collection drops any.

Why the manifests themselves must come from one snapshot: between two a manifest could be copied from where the walk
has not been to where it has, and its source be deleted.

**Bases** (`cas.bases`) are marked after all manifests: of every frame with bases whose pack is not condemned, for an
upload may find its chunks at any time; and of those in condemned packs that have a marked chunk, for it will be read
there. Frames that are published later rely on no condemned pack, as manifests do not.

A node that cannot be read hides what is below it: the mark is then *incomplete*, and nothing may be dropped by it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from cas.bases import distinct, iterate_bases
from cas.catalog import PLACEMENTS, decode_placement, place_of, read_condemned
from cas.errors import CasError, MissingChunk
from cas.manifest import LEAF, Entry, decode_node, split, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from cas.bases import FrameKey
    from cas.catalog import Placement
    from cas.chunk import ChunkId
    from cas.ports import Reader

_BATCH: Final = 8192  # placements looked up at a time; sorted, so neighbours share pages
_GROWTH_BYTES: Final = 64  # packs are marked in any order; each growth may move all bits of one
_NODE_BATCH: Final = 64  # nodes looked up at a time
_BASES_BATCH: Final = 512  # frames
_REMEMBERED: Final = 20  # errors kept for the report


class Bits:
    """A set of (pack, ordinal), one bit each."""

    __slots__ = ("_packs",)

    def __init__(self) -> None:
        self._packs: dict[int, bytearray] = {}

    def __contains__(self, place: tuple[int, int]) -> bool:
        pack, ordinal = place
        bits = self._packs.get(pack, b"")
        return ordinal >> 3 < len(bits) and bool(bits[ordinal >> 3] >> (ordinal & 7) & 1)

    def __bool__(self) -> bool:
        return any(map(any, self._packs.values()))

    def add(self, pack: int, ordinal: int) -> bool:
        """False if it was there."""
        index, mask = ordinal >> 3, 1 << (ordinal & 7)
        try:
            bits = self._packs[pack]
            byte = bits[index]
        except LookupError:  # cheaper than to ask for each chunk
            bits = self._packs.setdefault(pack, bytearray())
            bits.extend(bytes(index + _GROWTH_BYTES - len(bits)))
            byte = 0
        bits[index] = byte | mask
        return not byte & mask

    def update(self, other: Bits) -> None:
        """Add all of `other`, which may not be used any more."""
        for pack, bits in other._packs.items():
            mine = self._packs.get(pack)
            self._packs[pack] = bits if mine is None else _combine(mine, bits, int.__or__)

    def common(self, other: Bits) -> Bits:
        """What is in both."""
        both = Bits()
        for pack, bits in other._packs.items():
            if (mine := self._packs.get(pack)) is not None and any(
                found := _combine(mine, bits, int.__and__)
            ):
                both._packs[pack] = found
        return both

    @property
    def held_bytes(self) -> int:
        """Memory of the bits."""
        return sum(map(len, self._packs.values()))


def _combine(one: bytearray, other: bytearray, operation: Callable[[int, int], int]) -> bytearray:
    length = max(len(one), len(other))
    result = operation(int.from_bytes(one, "little"), int.from_bytes(other, "little"))
    return bytearray(result.to_bytes(length, "little"))


class Marker:
    """Gathers what manifests name. One thread.

    `snapshot` opens a short snapshot, `fetch` reads a node's bytes, verified. With `earlier`, chunks that are in there
    as well are counted apart (`shared`).
    """

    def __init__(
        self,
        snapshot: Callable[[], AbstractContextManager[Reader]],
        fetch: Callable[[ChunkId, Placement], bytes | memoryview],
        earlier: Bits | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._fetch = fetch
        self._earlier = earlier
        self._leaves: list[bytes] = []
        self._whole = Bits()  # nodes of which all is marked
        self.bits = Bits()
        self.chunks = 0  # data chunks marked
        self.fresh: defaultdict[int, int] = defaultdict(int)  # pack -> raw bytes of its marked chunks
        self.shared: defaultdict[int, int] = defaultdict(int)  # likewise, of those that are in `earlier`
        self.nodes: defaultdict[int, int] = defaultdict(int)  # likewise, of nodes that are not in `earlier`
        self.missing = 0  # chunks without a placement
        self.unreadable = 0  # nodes
        self.errors: list[str] = []  # the first of both

    @property
    def incomplete(self) -> bool:
        """Something that is named may not be marked."""
        return self.unreadable > 0

    @property
    def raw_bytes(self) -> int:
        """Of the data chunks marked."""
        return sum(self.fresh.values()) + self.shared_bytes

    def live_in(self, pack: int) -> int:
        """Raw bytes of what is marked in `pack`."""
        return self.fresh.get(pack, 0) + self.shared.get(pack, 0) + self.nodes.get(pack, 0)

    @property
    def shared_bytes(self) -> int:
        return sum(self.shared.values())

    @property
    def node_bytes(self) -> int:
        return sum(self.nodes.values())

    def add(self, manifest: bytes) -> Iterator[int]:
        """Mark what an encoded manifest needs; `finish` completes it.

        Yields, now and then, how many chunks were looked up: a place to pause. Raises CorruptManifest.
        """
        level, entries = split(manifest)
        if level:
            yield from self._descend(level, list(unpack(level, entries)))
        else:
            yield from self._take([entry[0] for entry in LEAF.iter_unpack(entries)])

    def add_all(self, manifest: bytes) -> None:
        """`add`, without a pause."""
        for _ in self.add(manifest):
            pass

    def finish(self) -> None:
        """Mark what still waits; the figures count from here on. More may be added after it."""
        ids = sorted(set(self._leaves))
        self._leaves = []
        if not ids:
            return
        with self._snapshot() as reader:
            rows = reader.get_many(PLACEMENTS, ids)
        add, earlier, fresh, shared = self.bits.add, self._earlier, self.fresh, self.shared
        for chunk, row in zip(ids, rows, strict=True):
            if row is None:
                self.missing += 1
                self._remember(MissingChunk(chunk))
                continue
            pack, length, ordinal = place_of(chunk, row)
            if not add(pack, ordinal):
                continue
            self.chunks += 1
            if earlier is not None and (pack, ordinal) in earlier:
                shared[pack] += length
            else:
                fresh[pack] += length

    def add_bases(self) -> Iterator[int]:
        """Mark the bases that must stay; after `finish`, once. Yields as `add`. Raises CorruptRow."""
        after: FrameKey | None = None
        while True:
            with self._snapshot() as reader:
                condemned = read_condemned(reader)
                batch = list(iterate_bases(reader, after, _BASES_BATCH))
            needed = [
                bases
                for (pack, _), bases in batch
                if pack not in condemned or any((pack, ordinal) in self for ordinal in bases.ordinals)
            ]
            yield from self._take(distinct(needed))
            if len(batch) < _BASES_BATCH:
                break
            after = batch[-1][0]
        self.finish()

    def __contains__(self, place: tuple[int, int]) -> bool:
        """Marked, here or in `earlier`."""
        return place in self.bits or (self._earlier is not None and place in self._earlier)

    def _take(self, leaves: Iterable[bytes]) -> Iterator[int]:
        self._leaves += leaves
        if len(self._leaves) >= _BATCH:
            count = len(self._leaves)
            self.finish()
            yield count

    def _descend(self, level: int, entries: Sequence[Entry]) -> Iterator[int]:
        """Mark the nodes that these entries of `level` name, and all that the named parts need below."""
        for first in range(0, len(entries), _NODE_BATCH):
            batch = entries[first : first + _NODE_BATCH]
            with self._snapshot() as reader:
                rows = reader.get_many(PLACEMENTS, [entry.id for entry in batch])
            for entry, row in zip(batch, rows, strict=True):
                if row is None:
                    self._lose(MissingChunk(entry.id))
                else:
                    yield from self._enter(level - 1, entry, decode_placement(entry.id, row))

    def _enter(self, level: int, entry: Entry, placement: Placement) -> Iterator[int]:
        place = placement.pack, placement.ordinal
        if place in self._whole:
            return
        if self.bits.add(*place) and (self._earlier is None or place not in self._earlier):
            self.nodes[placement.pack] += placement.length
        try:
            below = decode_node(self._fetch(entry.id, placement), level)
        except CasError as error:
            self._lose(error)
            return
        entries, whole = _needed(list(unpack(level, below)), entry.start, entry.length)
        if level:
            yield from self._descend(level, entries)
        else:
            yield from self._take([leaf.id for leaf in entries])
        if whole:
            self._whole.add(*place)

    def _lose(self, error: CasError) -> None:
        self.unreadable += 1
        self._remember(error)

    def _remember(self, error: CasError) -> None:
        if len(self.errors) < _REMEMBERED:
            self.errors.append(str(error))


def _needed(entries: list[Entry], start: int, length: int) -> tuple[list[Entry], bool]:
    """The entries that bytes [start, start + length) of a node need, trimmed; and whether that is all of it."""
    if start == 0 and sum([entry.length for entry in entries]) == length:
        return entries, True
    needed = []
    position = 0
    for entry in entries:
        if position < start + length and position + entry.length > start:
            # Of an entry that is needed in part, only the needed part counts below.
            begin, end = max(start - position, 0), min(start + length - position, entry.length)
            needed.append(entry._replace(start=entry.start + begin, length=end - begin))
        position += entry.length
    return needed, False
