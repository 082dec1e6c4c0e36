"""Can an object be read? Its manifest down to the last chunk, without reading data that nobody doubts.

Every node is fetched and decoded, every entry has a placement that reaches as far as the entry does, the lengths add
up. Which chunks to read besides is for the caller to say (`is_lost`): those in places that were found damaged, or all.

A node that was found sound as a whole is not entered again by this checker: memory is one id per node (one in some
hundred chunks). Sound means for ever, since ids name content; what collection moves meanwhile stays readable.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.catalog import PLACEMENTS, decode_placement
from cas.errors import CasError, CorruptRow, UnsupportedFormat
from cas.manifest import Entry, decode_node, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cas.catalog import Placement
    from cas.chunk import ChunkId
    from cas.manifest import Manifest
    from cas.ports import Reader

_BATCH: Final = 2048  # placements looked up at a time


class Problem(NamedTuple):
    """Why some bytes of an object cannot be read."""

    chunk: ChunkId  # or node
    placement: Placement | None  # where it should be
    is_node: bool
    reason: str


class ManifestChecker:
    """See the module. One thread. `fetch`: a node's verified bytes; `is_lost`: a chunk in this place, why or None."""

    def __init__(
        self,
        fetch: Callable[[Reader, ChunkId], bytes | memoryview],
        is_lost: Callable[[ChunkId, Placement], str | None],
    ) -> None:
        self._fetch = fetch
        self._is_lost = is_lost
        self._sound: set[ChunkId] = set()
        self.nodes = 0  # entered
        self.chunks = 0  # entries looked up

    def check(self, reader: Reader, manifest: Manifest) -> Iterator[Problem]:
        """What is wrong with it, in the order of its bytes. Empty: all of it can be read."""
        whole: list[ChunkId] = []
        is_sound = True
        leaves = self._leaves(reader, whole, manifest.level, manifest)
        while batch := list(islice(leaves, _BATCH)):
            for problem in self._look_up(reader, batch):
                is_sound = False
                yield problem
        if is_sound:
            self._sound.update(whole)

    def _leaves(
        self, reader: Reader, whole: list[ChunkId], level: int, entries: Iterable[Entry]
    ) -> Iterator[Entry | Problem]:
        for entry in entries:
            if not level:
                yield entry
            elif entry.id not in self._sound:
                yield from self._enter(reader, whole, level - 1, entry)

    def _enter(
        self, reader: Reader, whole: list[ChunkId], level: int, entry: Entry
    ) -> Iterator[Entry | Problem]:
        """What bytes [start, start + length) of a node need. Nodes that are needed as a whole go to `whole`."""
        self.nodes += 1
        try:
            entries = list(unpack(level, decode_node(self._fetch(reader, entry.id), level)))
        except (CasError, OSError) as error:
            yield Problem(entry.id, _place(reader, entry.id), True, str(error))
            return
        span = sum(below.length for below in entries)
        if span < entry.start + entry.length:
            reason = f"node {entry.id.hex()} spans {span} bytes, {entry.start + entry.length} are wanted"
            yield Problem(entry.id, _place(reader, entry.id), True, reason)
            return
        if entry.start == 0 and entry.length == span:
            whole.append(entry.id)
            yield from self._leaves(reader, whole, level, entries)
        else:
            yield from self._leaves(reader, whole, level, _needed(entry, entries))

    def _look_up(self, reader: Reader, batch: list[Entry | Problem]) -> Iterator[Problem]:
        entries = [item for item in batch if isinstance(item, Entry)]
        ids = sorted({entry.id for entry in entries})
        rows = dict(zip(ids, reader.get_many(PLACEMENTS, ids), strict=True))
        self.chunks += len(entries)
        yield from (item for item in batch if isinstance(item, Problem))
        for entry in entries:
            problem = self._judge(entry, rows[entry.id])
            if problem is not None:
                yield problem

    def _judge(self, entry: Entry, row: bytes | None) -> Problem | None:
        if row is None:
            return Problem(entry.id, None, False, f"chunk {entry.id.hex()} has no placement")
        try:
            placement = decode_placement(entry.id, row)
        except (CorruptRow, UnsupportedFormat) as error:
            return Problem(entry.id, None, False, str(error))
        if entry.start + entry.length > placement.length:
            reason = f"chunk {entry.id.hex()} has {placement.length} bytes, {entry.start + entry.length} are wanted"
            return Problem(entry.id, placement, False, reason)
        lost = self._is_lost(entry.id, placement)
        return None if lost is None else Problem(entry.id, placement, False, lost)


def _needed(entry: Entry, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Of the entries below `entry`, the parts that it names."""
    position = 0
    for below in entries:
        begin = max(entry.start - position, 0)
        end = min(entry.start + entry.length - position, below.length)
        if begin < end:
            yield Entry(below.id, below.start + begin, end - begin)
        position += below.length


def _place(reader: Reader, node: ChunkId) -> Placement | None:
    row = reader.get(PLACEMENTS, node)
    try:
        return None if row is None else decode_placement(node, row)
    except (CorruptRow, UnsupportedFormat):
        return None
