"""Marking: which chunks do these manifests name? One bit per chunk, by pack and ordinal.

Nodes are read from packs of their own and each whole node once; data packs are never read. Memory: one bit per
chunk of every pack that is named, and one id per node (one in some hundred chunks).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from cas.catalog import PLACEMENTS, decode_placement
from cas.errors import MissingChunk
from cas.manifest import decode_node, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cas.chunk import ChunkId
    from cas.manifest import Entry, Manifest
    from cas.ports import Reader

_BATCH: Final = 2048  # placements looked up at a time


class Marker:
    """Gathers what manifests name, as one snapshot sees it. One thread; valid while `reader` is open."""

    def __init__(self, reader: Reader, fetch: Callable[[ChunkId], bytes | memoryview]) -> None:
        self._reader = reader
        self._fetch = fetch
        self._bits: dict[int, bytearray] = {}  # pack -> bit per ordinal
        self._nodes: set[ChunkId] = set()  # marked whole
        self.chunks = 0  # data chunks marked
        self.raw_bytes = 0  # their raw bytes
        self.node_bytes = 0  # raw bytes of the nodes marked

    def add(self, manifest: Manifest) -> None:
        """Mark every chunk and node that a byte of `manifest` needs. Raises MissingChunk, CorruptManifest."""
        leaves = self._leaves(manifest.level, manifest)
        while batch := list(islice(leaves, _BATCH)):
            self._mark(sorted(set(batch)), node=False)

    def is_marked(self, pack: int, ordinal: int) -> bool:
        bits = self._bits.get(pack, b"")
        return ordinal >> 3 < len(bits) and bool(bits[ordinal >> 3] >> (ordinal & 7) & 1)

    def _leaves(self, level: int, entries: Iterable[Entry]) -> Iterator[ChunkId]:
        for node, start, length in entries:
            if not level:
                yield node
            elif node not in self._nodes:
                yield from self._leaves(level - 1, self._enter(node, level - 1, start, length))

    def _enter(self, node: ChunkId, level: int, start: int, length: int) -> Iterator[Entry]:
        """The entries of a node that bytes [start, start + length) need."""
        self._mark([node], node=True)
        entries = list(unpack(level, decode_node(self._fetch(node), level)))
        if start == 0 and sum(entry.length for entry in entries) == length:
            self._nodes.add(node)
        position = 0
        for entry in entries:
            if position < start + length and position + entry.length > start:
                # Of an entry that is needed in part, only the needed part counts below.
                begin, end = max(start - position, 0), min(start + length - position, entry.length)
                yield entry._replace(start=entry.start + begin, length=end - begin)
            position += entry.length

    def _mark(self, ids: list[ChunkId], *, node: bool) -> None:
        for chunk, row in zip(ids, self._reader.get_many(PLACEMENTS, ids), strict=True):
            if row is None:
                raise MissingChunk(chunk)
            placement = decode_placement(chunk, row)
            if not self._set(placement.pack, placement.ordinal):
                continue
            if node:
                self.node_bytes += placement.length
            else:
                self.chunks += 1
                self.raw_bytes += placement.length

    def _set(self, pack: int, ordinal: int) -> bool:
        """False if it was set."""
        bits = self._bits.setdefault(pack, bytearray())
        if ordinal >> 3 >= len(bits):
            bits.extend(bytes((ordinal >> 3) + 1 - len(bits)))
        mask = 1 << (ordinal & 7)
        if bits[ordinal >> 3] & mask:
            return False
        bits[ordinal >> 3] |= mask
        return True
