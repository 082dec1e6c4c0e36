"""Which chunks a frame was compressed against: a row for every published frame that has bases.

Table `cas.bases` (pack, offset of the frame -> its bases and the ordinals of its chunks). Layout: cas/FORMAT.md.
The frame's header says the same; the row is there so that collection finds what must stay without reading packs.

Rules, on which decoding relies:

* A base has a placement, and that is in a frame without bases (depth 1), from the commit that publishes the frame
  for as long as the frame's row is there. So there are no loops, and reading a chunk decodes one frame and the
  frames of its bases, never more.
* `publish` (cas.catalog) checks that inside the commit, and never puts a frame with bases in the place of one without.
* Collection marks the bases of every row whose pack is not condemned, wanted or not (its chunks may be found by an
  upload at any time); and of those in condemned packs the ones whose frame has a marked chunk.
* The rows of a pack go with the pack's own row.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.chunk import ID_BYTES, ChunkId
from cas.errors import CorruptRow
from cas.frame import MAX_BASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cas.pack import Frame
    from cas.ports import Reader, Transaction

BASES: Final = "cas.bases"

_KEY: Final = struct.Struct(">QI")
_ROW: Final = struct.Struct(">BxHI")  # version, chunks, ordinal of the first
_VERSION: Final = 1

FrameKey = tuple[int, int]  # pack, offset of the frame


class FrameBases(NamedTuple):
    """The bases of one frame, in the order of the prefix, and the ordinals of its own chunks in its pack."""

    ordinal: int
    chunks: int
    ids: tuple[ChunkId, ...]

    @property
    def ordinals(self) -> range:
        return range(self.ordinal, self.ordinal + self.chunks)


def bases_of(frame: Frame) -> FrameBases:
    """What the row of a frame that was found in a pack says."""
    return FrameBases(frame.ordinal, len(frame.header.ids), frame.header.bases)


def put_bases(txn: Transaction, frame: FrameKey, bases: FrameBases) -> None:
    row = _ROW.pack(_VERSION, bases.chunks, bases.ordinal) + b"".join(bases.ids)
    txn.put(BASES, _KEY.pack(*frame), row)


def get_bases(reader: Reader, frame: FrameKey) -> FrameBases | None:
    """None: it has none, or nobody has published it. Raises CorruptRow."""
    key = _KEY.pack(*frame)
    row = reader.get(BASES, key)
    return None if row is None else decode_bases(key, row)


def iterate_bases(
    reader: Reader, after: FrameKey | None = None, limit: int | None = None
) -> Iterator[tuple[FrameKey, FrameBases]]:
    """All of them, ascending. Raises CorruptRow."""
    start = b"" if after is None else _KEY.pack(*after) + b"\0"
    for key, row in reader.scan(BASES, start, limit=limit):
        yield _frame(key), decode_bases(key, row)


def iterate_bases_of(reader: Reader, pack: int) -> Iterator[tuple[int, FrameBases]]:
    """(offset, bases) of the frames of one pack, ascending. Raises CorruptRow."""
    for key, row in reader.scan(BASES, _KEY.pack(pack, 0), _KEY.pack(pack + 1, 0)):
        yield _frame(key)[1], decode_bases(key, row)


def forget_bases(txn: Transaction, pack: int) -> None:
    """The pack is gone."""
    keys = [key for key, _ in txn.scan(BASES, _KEY.pack(pack, 0), _KEY.pack(pack + 1, 0))]
    for key in keys:
        txn.delete(BASES, key)


def distinct(frames: Iterable[FrameBases]) -> list[ChunkId]:
    """Every base of these, once, sorted."""
    return sorted({base for frame in frames for base in frame.ids})


def _frame(key: bytes) -> FrameKey:
    if len(key) != _KEY.size:
        raise CorruptRow(BASES, key, f"a key of {len(key)} bytes")
    pack, offset = _KEY.unpack(key)
    return pack, offset


def decode_bases(key: bytes, row: bytes) -> FrameBases:
    """A row. Raises CorruptRow."""
    if len(row) < _ROW.size or row[0] != _VERSION:
        raise CorruptRow(BASES, key, "length or version is not known here")
    _, chunks, ordinal = _ROW.unpack_from(row)
    ids = row[_ROW.size :]
    if not chunks or not ids or len(ids) % ID_BYTES or len(ids) > MAX_BASES * ID_BYTES:
        raise CorruptRow(BASES, key, f"{len(ids)} bytes of ids")
    found = [ChunkId(ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES)]
    return FrameBases(ordinal, chunks, tuple(found))
