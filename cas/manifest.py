"""Manifests: the ordered chunk refs of an object, as a tree when they are many. Pure.

A manifest is a list of entries of one level. At level 0 an entry is (chunk id, start in the chunk, length), above it
(node id, start in the node's bytes, length); a node is a list of entries one level lower, stored as a chunk under
its own id. So an entry may name any sub-range of what is below it, and a range or a concatenation is new entries
over existing nodes: no leaf is touched.

Lists are cut into nodes by content: a node ends after an entry whose id ends in nine zero bits, with at least
MIN_NODE and at most MAX_NODE entries. The same run of chunks therefore gives the same nodes, whatever precedes it.

Bounds: INLINE_ENTRIES entries stay in the manifest itself, MAX_LEVEL levels. Layout: cas/FORMAT.md. Decoders raise
CorruptManifest or UnsupportedFormat and nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.errors import CorruptManifest, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cas.chunk import ChunkId

    NodeId = Callable[[bytes], ChunkId]
    Fetch = Callable[[ChunkId], bytes | memoryview]  # node id -> the node's bytes, verified

INLINE_ENTRIES: Final = 64
MIN_NODE: Final = 64
MAX_NODE: Final = 2048
MAX_LEVEL: Final = 8

_VERSION: Final = 1
_MANIFEST: Final = struct.Struct(">BBHQ")  # version level entries size
_NODE: Final = struct.Struct(">4sBBH")  # magic version level entries
_NODE_MAGIC: Final = b"VtNd"
LEAF: Final = struct.Struct(">32sII")
BRANCH: Final = struct.Struct(">32sQQ")


class Entry(NamedTuple):
    """Bytes [start, start + length) of a chunk or of what a node spans."""

    id: ChunkId
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`entries` is packed; `size` is the sum of their lengths. An empty object: level 0, nothing."""

    level: int
    size: int
    entries: bytes

    def encode(self) -> bytes:
        count = len(self.entries) // _entry(self.level).size
        return _MANIFEST.pack(_VERSION, self.level, count, self.size) + self.entries

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Raises CorruptManifest, UnsupportedFormat."""
        level, entries = split(data)
        size = _MANIFEST.unpack_from(data)[3]
        manifest = cls(level, size, bytes(entries))
        if sum(entry.length for entry in manifest) != size:
            raise CorruptManifest(f"the entries do not add up to {size} bytes")
        return manifest

    def __iter__(self) -> Iterator[Entry]:
        return unpack(self.level, self.entries)

    def __len__(self) -> int:
        return len(self.entries) // _entry(self.level).size


def split(data: bytes) -> tuple[int, memoryview]:
    """(level, packed entries) of an encoded manifest; their sum is not checked. Raises as `Manifest.decode`."""
    if len(data) < _MANIFEST.size:
        raise CorruptManifest(f"a manifest of {len(data)} bytes")
    version, level, count, _ = _MANIFEST.unpack_from(data)
    if version != _VERSION:
        raise UnsupportedFormat(f"manifest of version {version} is not known here")
    entries = memoryview(data)[_MANIFEST.size :]
    _check(level, count, entries)
    return level, entries


EMPTY: Final = Manifest(0, 0, b"")


@dataclass(frozen=True, slots=True)
class Node:
    """A node to be stored: its id and its bytes."""

    id: ChunkId
    data: bytes


def _entry(level: int) -> struct.Struct:
    return BRANCH if level else LEAF


def _check(level: int, count: int, entries: bytes | memoryview) -> None:
    if level > MAX_LEVEL or count > MAX_NODE or len(entries) != count * _entry(level).size:
        raise CorruptManifest(f"{len(entries)} bytes of {count} entries at level {level}")


def pack(level: int, entries: Iterable[Entry]) -> bytes:
    encode = _entry(level).pack
    return b"".join([encode(*entry) for entry in entries])


def unpack(level: int, entries: bytes | memoryview) -> Iterator[Entry]:
    return map(Entry._make, _entry(level).iter_unpack(entries))


def encode_node(level: int, entries: bytes) -> bytes:
    """The bytes of a node that lists `entries`."""
    return _NODE.pack(_NODE_MAGIC, _VERSION, level, len(entries) // _entry(level).size) + entries


def decode_node(data: bytes | memoryview, level: int) -> memoryview:
    """The packed entries of a node that must be of `level`. Raises CorruptManifest, UnsupportedFormat."""
    if len(data) < _NODE.size:
        raise CorruptManifest(f"a node of {len(data)} bytes")
    magic, version, found, count = _NODE.unpack_from(data)
    if magic != _NODE_MAGIC or found != level:
        raise CorruptManifest(f"a node of level {level} was expected, not {magic!r} of level {found}")
    if version != _VERSION:
        raise UnsupportedFormat(f"manifest node of version {version} is not known here")
    entries = memoryview(data)[_NODE.size :]
    _check(level, count, entries)
    return entries


# --- reading ----------------------------------------------------------------------------------------------------


def walk(level: int, entries: bytes | memoryview, start: int, stop: int, fetch: Fetch) -> Iterator[Entry]:
    """The parts of chunks that make up bytes [start, stop) of these entries, in order. Raises CorruptManifest.

    Holds one node per level. Lazy: `fetch` is called when a node is entered.
    """
    return walk_down(0, level, entries, start, stop, fetch)


def walk_down(
    bottom: int, level: int, entries: bytes | memoryview, start: int, stop: int, fetch: Fetch
) -> Iterator[Entry]:
    """As `walk`, but the entries of level `bottom`: nothing below it is fetched."""
    position = 0
    for entry in unpack(level, entries):
        begin, end = max(start - position, 0), min(stop - position, entry.length)
        position += entry.length
        if begin >= end:
            if position >= stop:
                return
            continue
        part = entry if end - begin == entry.length else Entry(entry.id, entry.start + begin, end - begin)
        if level == bottom:
            yield part
        else:
            below = decode_node(fetch(part.id), level - 1)
            yield from walk_down(bottom, level - 1, below, part.start, part.start + part.length, fetch)
    if position < stop:
        raise CorruptManifest(f"a node of level {level} spans {position} bytes, {stop} are wanted")


# --- building ---------------------------------------------------------------------------------------------------


def node_ends(level: int, entries: bytes | bytearray, *, final: bool) -> list[int]:
    """Where a list is cut into nodes: ends, as counts of entries. Without `final` only what is decided for good."""
    size = _entry(level).size
    count = len(entries) // size
    ends: list[int] = []
    if count < MAX_NODE and not final:
        return ends
    low, high = entries[31::size], entries[30::size]  # the last two bytes of every id
    begin = 0
    while count - begin >= MAX_NODE or (final and begin < count):
        end = low.find(0, begin + MIN_NODE - 1)
        while end >= 0 and high[end] & 1:
            end = low.find(0, end + 1)
        limit = min(begin + MAX_NODE, count)
        begin = limit if end < 0 or end >= limit else end + 1
        ends.append(begin)
    return ends


class Builder:
    """Builds a manifest from entries of one level as they come; at most about MAX_NODE of each level are held.

    `add` and `finish` report the nodes to be stored, each after the nodes it names.
    """

    def __init__(self, node_id: NodeId, level: int = 0) -> None:
        self._node_id = node_id
        self._bottom = level
        self._levels: list[bytearray] = [bytearray()]  # waiting entries, from `level` upwards
        self._size = 0

    def add(self, entries: bytes, length: int) -> list[Node]:
        """Take packed entries that span `length` bytes in all."""
        self._levels[0] += entries
        self._size += length
        return self._cut(0) if len(entries) else []

    def finish(self) -> tuple[Manifest, list[Node]]:
        """The manifest, and the last nodes. A list of INLINE_ENTRIES or fewer stays in the manifest."""
        nodes: list[Node] = []
        index = 0
        while index < len(self._levels) - 1 or self._count(index) > INLINE_ENTRIES:
            nodes += self._cut(index, final=True)
            index += 1
        return Manifest(self._bottom + index, self._size, bytes(self._levels[index])), nodes

    def _count(self, index: int) -> int:
        return len(self._levels[index]) // _entry(self._bottom + index).size

    def _cut(self, index: int, *, final: bool = False) -> list[Node]:
        waiting = self._levels[index]
        level = self._bottom + index
        nodes: list[Node] = []
        begin = 0
        for end in node_ends(level, waiting, final=final):
            part = bytes(waiting[begin * _entry(level).size : end * _entry(level).size])
            begin = end
            node = Node(self._node_id(data := encode_node(level, part)), data)
            nodes.append(node)
            if index + 1 == len(self._levels):
                self._levels.append(bytearray())
            self._levels[index + 1] += BRANCH.pack(node.id, 0, _span(level, part))
        del waiting[: begin * _entry(level).size]
        # Nodes of this level are named one level up; that list may be due as well.
        return nodes + self._cut(index + 1) if nodes and not final else nodes


def _span(level: int, entries: bytes) -> int:
    return sum([entry[2] for entry in _entry(level).iter_unpack(entries)])


# --- composing --------------------------------------------------------------------------------------------------


def cut(manifest: Manifest, start: int, stop: int) -> Manifest:
    """Bytes [start, stop) of it: the same entries, the outer ones trimmed. Needs no node. Raises ValueError."""
    if not 0 <= start <= stop <= manifest.size:
        raise ValueError(f"[{start}, {stop}) of {manifest.size} bytes")
    if start == stop:
        return EMPTY
    parts = walk_down(manifest.level, manifest.level, manifest.entries, start, stop, _never)
    return Manifest(manifest.level, stop - start, pack(manifest.level, parts))


def concatenate(parts: Sequence[Manifest], node_id: NodeId) -> tuple[Manifest, list[Node]]:
    """One manifest for all of them, and the nodes to be stored, each after the nodes it names.

    Lower manifests are wrapped into nodes until all are of one level, neighbours together. Needs no node of theirs.
    The result may have more than MAX_LEVEL levels: then build it anew, see `walk_down`.
    """
    items = [(part.level, part.entries) for part in parts if part.size]
    if not items:
        return EMPTY, []
    nodes: list[Node] = []
    top = max(level for level, _ in items)
    for level in range(top):
        raised: list[tuple[int, bytes]] = []
        for found, run in groupby(items, key=lambda item: item[0]):
            if found == level:
                raised.append(
                    (level + 1, wrap(level, join(level, [entries for _, entries in run]), nodes, node_id))
                )
            else:
                raised += run
        items = raised
    entries = join(top, [entries for _, entries in items])
    builder = Builder(node_id, top)
    nodes += builder.add(entries, _span(top, entries))
    manifest, last = builder.finish()
    return manifest, nodes + last


def wrap(level: int, entries: bytes, nodes: list[Node], node_id: NodeId) -> bytes:
    """Entries one level up that name all of `entries`, of `level`; the new nodes are appended to `nodes`."""
    size = _entry(level).size
    wrapped = []
    begin = 0
    for end in node_ends(level, entries, final=True):
        part = entries[begin * size : end * size]
        begin = end
        node = Node(node_id(data := encode_node(level, part)), data)
        nodes.append(node)
        wrapped.append(Entry(node.id, 0, _span(level, part)))
    return pack(level + 1, wrapped)


def join(level: int, lists: Iterable[bytes]) -> bytes:
    """One list of all; where the last entry of one goes on in the first of the next, the two become one."""
    codec = _entry(level)
    joined = bytearray()
    for entries in lists:
        rest = entries
        if joined and entries:
            last_id, begin, length = codec.unpack_from(joined, len(joined) - codec.size)
            first_id, start, more = codec.unpack_from(entries)
            if last_id == first_id and begin + length == start:
                joined[-codec.size :] = codec.pack(last_id, begin, length + more)
                rest = entries[codec.size :]
        joined += rest
    return bytes(joined)


def _never(node: ChunkId) -> bytes:
    raise CorruptManifest(f"node {node.hex()} would be needed to cut a manifest at its own level")
