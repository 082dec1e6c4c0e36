"""The catalog: where every chunk is, and what state every pack is in. Rows of an ordered map; keeps no state but a cache.

Tables: `cas.placements` (chunk id -> placement), `cas.packs` (pack -> state and counters), `cas.state` (epoch, and
one row per condemned pack), and `cas.damaged` (see `cas.damage`). Layouts: cas/FORMAT.md.

Rules that everything else relies on:

* A placement is published only after its pack's bytes are durable, by a commit that also holds the pack's row.
* A chunk has one placement. A publish never replaces one, unless its pack is condemned or the chunk is known to be
  damaged: a lookup treats such chunks as unknown, so their uploads bring a copy of their own.
* A pack goes open -> sealed -> condemned -> gone (no row), never back. The row of an open pack is written by its
  writer's commits only.
* The epoch grows with every step into `condemned`, in the same commit; so what is known about condemned packs may
  be kept as long as the epoch stays. Pack numbers are never used twice, so a pack that is gone meanwhile is no harm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.bases import BASES, forget_bases
from cas.damage import DAMAGED, damaged_chunks, forget_damage, unqueue_mending
from cas.errors import CorruptRow, UnsupportedFormat
from cas.frame import WORD, Codec
from cas.pack import PackKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cas.pack import Frame
    from cas.ports import Reader, Transaction

PLACEMENTS: Final = "cas.placements"
PACKS: Final = "cas.packs"
STATE: Final = "cas.state"
TABLES: Final = (PLACEMENTS, PACKS, STATE, DAMAGED, BASES)

_EPOCH: Final = b"epoch"
_CONDEMNED: Final = b"condemned/"
_CONDEMNED_END: Final = b"condemned0"  # "0" follows "/"
_GONE: Final = b"gone/"
_GONE_END: Final = b"gone0"

# --- placements -------------------------------------------------------------------------------------------------

_PLACEMENT: Final = struct.Struct(">BQIHIIII")
_PLACE: Final = struct.Struct(">xQ14xII")  # the same bytes
_PLACEMENT_VERSION: Final = 0x10  # high nibble; flags in the low one
_HAS_BASES: Final = 0x01
_IS_RAW: Final = 0x02
_PLACEMENT_HEADS: Final = frozenset(_PLACEMENT_VERSION | flag for flag in (0, _IS_RAW, _HAS_BASES))


class Placement(NamedTuple):
    """Where a chunk is: bytes [inside, inside + length) of the raw bytes of a frame."""

    raw_frame: bool  # the payload is stored as it is: a part of it can be read alone
    has_bases: bool  # to decode the frame its bases are needed
    pack: int
    frame: int  # offset of the frame's header in the pack
    header_length: int
    stored_length: int  # of the payload
    inside: int
    length: int
    ordinal: int  # of the chunk in its pack

    @property
    def frame_end(self) -> int:
        return self.frame + self.header_length + self.stored_length


def placement_rows(
    pack: int,
    frame: int,
    codec: Codec,
    header_length: int,
    stored_length: int,
    lengths: Iterable[int],
    ordinal: int,
    has_bases: bool = False,
) -> list[bytes]:
    """The rows of a frame's chunks, in order. `ordinal`: of its first chunk."""
    encode = _PLACEMENT.pack
    first = _PLACEMENT_VERSION | (_IS_RAW if codec == Codec.RAW else 0) | (_HAS_BASES if has_bases else 0)
    words = header_length // WORD
    rows = []
    inside = 0
    for length in lengths:
        rows.append(encode(first, pack, frame, words, stored_length, inside, length, ordinal))
        inside += length
        ordinal += 1
    return rows


def frame_placements(pack: int, frame: Frame) -> dict[bytes, bytes]:
    """id -> row of the chunks of a frame that was found in a pack."""
    header = frame.header
    rows = placement_rows(
        pack,
        frame.offset,
        header.codec,
        header.header_length,
        header.stored_length,
        header.lengths,
        frame.ordinal,
        bool(header.bases),
    )
    return dict(zip(header.ids, rows, strict=True))


def decode_placement(chunk: bytes, row: bytes) -> Placement:
    """Raises CorruptRow, UnsupportedFormat."""
    if len(row) != _PLACEMENT.size:
        raise CorruptRow(PLACEMENTS, chunk, f"{len(row)} bytes instead of {_PLACEMENT.size}")
    first, pack, frame, words, stored, inside, length, ordinal = _PLACEMENT.unpack(row)
    if first not in _PLACEMENT_HEADS:
        raise UnsupportedFormat(f"placement of chunk {chunk.hex()} begins with {first:#x}: not known here")
    flags = bool(first & _IS_RAW), bool(first & _HAS_BASES)
    return Placement._make((*flags, pack, frame, words * WORD, stored, inside, length, ordinal))


def place_of(chunk: bytes, row: bytes) -> tuple[int, int, int]:
    """(pack, raw length, ordinal): what marking needs, at half the price. Raises as `decode_placement`."""
    if len(row) != _PLACEMENT.size or row[0] not in _PLACEMENT_HEADS:
        decode_placement(chunk, row)
    place: tuple[int, int, int] = _PLACE.unpack(row)
    return place


def has_bases(row: bytes) -> bool:
    """Whether the frame that a placement's row names needs its bases."""
    return bool(row[0] & _HAS_BASES)


def frame_of(row: bytes) -> tuple[int, int]:
    """(pack, offset of the frame) that a placement's row names."""
    return int.from_bytes(row[1:9], "big"), int.from_bytes(row[9:13], "big")


def pack_of(row: bytes) -> int:
    """The pack that a placement's row names."""
    return int.from_bytes(row[1:9], "big")


def _length_of(row: bytes) -> int:
    return int.from_bytes(row[23:27], "big")


# --- packs ------------------------------------------------------------------------------------------------------


class PackState(IntEnum):
    """`gone` is the absence of a row."""

    OPEN = 1  # its writer may append
    SEALED = 2  # immutable
    CONDEMNED = 3  # about to be emptied and removed: its chunks count as unknown


_ROW: Final = struct.Struct(">BBBBIIQQQQIIIQQ")
_ROW_VERSION: Final = 1
_FOOTERLESS: Final = 0x01
_DAMAGED: Final = 0x02
_KNOWN_MARKS: Final = _FOOTERLESS | _DAMAGED


@dataclass(frozen=True, slots=True)
class PackRow:
    """What is known of a pack. Counters say what its frames hold; `placed*` what of that the catalog points to."""

    state: PackState
    kind: PackKind
    domain: int
    length: int  # durable bytes; of a sealed pack the whole file with its footer
    footerless: bool = (
        False  # sealed at its durable length after a failed sync: nothing was written to it any more
    )
    damaged: bool = False  # found corrupt below its durable length; left as it is
    created_epoch: int = 0
    touched_epoch: int = 0  # of the newest commit that published into it
    condemned_epoch: int = 0
    frames: int = 0
    chunks: int = 0
    raw_bytes: int = 0
    placed_chunks: int = 0
    placed_bytes: int = 0  # raw bytes

    def encode(self) -> bytes:
        marks = (_FOOTERLESS if self.footerless else 0) | (_DAMAGED if self.damaged else 0)
        return _ROW.pack(
            _ROW_VERSION,
            self.state,
            self.kind,
            marks,
            self.domain,
            0,
            self.length,
            self.created_epoch,
            self.touched_epoch,
            self.condemned_epoch,
            self.frames,
            self.chunks,
            self.placed_chunks,
            self.raw_bytes,
            self.placed_bytes,
        )

    @classmethod
    def decode(cls, key: bytes, row: bytes) -> PackRow:
        """Raises CorruptRow, UnsupportedFormat. A longer row (a compatible newer one) is read as far as known."""
        if len(row) < _ROW.size:
            raise CorruptRow(PACKS, key, f"{len(row)} bytes instead of {_ROW.size}")
        (
            version,
            state,
            kind,
            marks,
            domain,
            _,
            length,
            created,
            touched,
            condemned,
            frames,
            chunks,
            placed,
            raw,
            used,
        ) = _ROW.unpack_from(row)
        if version != _ROW_VERSION or marks & ~_KNOWN_MARKS or state not in (1, 2, 3) or kind not in (1, 2):
            raise UnsupportedFormat(
                f"row of pack {key.hex()} (version {version}, marks {marks:#x}): not known here"
            )
        return cls(
            state=PackState(state),
            kind=PackKind(kind),
            domain=domain,
            length=length,
            footerless=bool(marks & _FOOTERLESS),
            damaged=bool(marks & _DAMAGED),
            created_epoch=created,
            touched_epoch=touched,
            condemned_epoch=condemned,
            frames=frames,
            chunks=chunks,
            raw_bytes=raw,
            placed_chunks=placed,
            placed_bytes=used,
        )


@dataclass(frozen=True, slots=True)
class PackProgress:
    """How far one of this process's packs has come: what its row shall say."""

    pack: int
    kind: PackKind
    domain: int
    state: PackState
    footerless: bool
    length: int
    frames: int
    chunks: int
    raw_bytes: int
    has_row: bool  # a commit of this process is known to have made its row


def pack_key(pack: int) -> bytes:
    return pack.to_bytes(8, "big")


def get_pack(reader: Reader, pack: int) -> PackRow | None:
    """None: gone, or never published."""
    key = pack_key(pack)
    row = reader.get(PACKS, key)
    return None if row is None else PackRow.decode(key, row)


def put_pack(txn: Transaction, pack: int, row: PackRow) -> None:
    txn.put(PACKS, pack_key(pack), row.encode())


def iterate_packs(reader: Reader, writer: int | None = None) -> Iterator[tuple[int, PackRow]]:
    """All packs (of one writer), ascending."""
    start = b"" if writer is None else pack_key(writer << 32)
    stop = None if writer is None or writer == 0xFFFFFFFF else pack_key((writer + 1) << 32)
    for key, row in reader.scan(PACKS, start, stop):
        yield int.from_bytes(key, "big"), PackRow.decode(key, row)


# --- epoch and condemned packs ----------------------------------------------------------------------------------


def read_epoch(reader: Reader) -> int:
    """Collection's logical clock: the number of commits that condemned packs."""
    row = reader.get(STATE, _EPOCH)
    return 0 if row is None else int.from_bytes(row, "big")


def read_condemned(reader: Reader) -> frozenset[int]:
    """The packs whose chunks count as unknown."""
    rows = reader.scan(STATE, _CONDEMNED, _CONDEMNED_END)
    return frozenset([int.from_bytes(key[len(_CONDEMNED) :], "big") for key, _ in rows])


def condemn(txn: Transaction, packs: Iterable[int]) -> int:
    """Retire sealed packs (none: only the epoch grows); others are left alone. Returns the new epoch."""
    epoch = read_epoch(txn) + 1
    txn.put(STATE, _EPOCH, epoch.to_bytes(8, "big"))
    for pack in packs:
        row = get_pack(txn, pack)
        if row is not None and row.state == PackState.SEALED:
            put_pack(txn, pack, replace(row, state=PackState.CONDEMNED, condemned_epoch=epoch))
            txn.put(STATE, _CONDEMNED + pack_key(pack), b"")
    return epoch


def drop_placements(txn: Transaction, pack: int, chunks: Iterable[bytes]) -> int:
    """Remove the rows of these chunks, of those that still name `pack`. Returns how many there were."""
    row = get_pack(txn, pack)
    ids = sorted(chunks)
    dropped: dict[int, tuple[int, int]] = {}
    gone = []
    for chunk, placement in zip(ids, txn.get_many(PLACEMENTS, ids), strict=True):
        if placement is not None and pack_of(placement) == pack:
            txn.delete(PLACEMENTS, chunk)
            tally(dropped, placement, 1)
            gone.append(chunk)
    if damaged_chunks(txn):
        forget_damage(txn, gone)
    count, raw_bytes = dropped.get(pack, (0, 0))
    if row is not None and count:
        left = replace(
            row, placed_chunks=row.placed_chunks - count, placed_bytes=row.placed_bytes - raw_bytes
        )
        put_pack(txn, pack, left)
    return count


def forget_pack(txn: Transaction, pack: int) -> None:
    """Drop the row of a condemned pack: it is gone. No placement may name it any more.

    Until `settle_gone` a row remembers that its file is still to be removed, so that a crash leaves no file behind.
    """
    txn.delete(PACKS, pack_key(pack))
    txn.delete(STATE, _CONDEMNED + pack_key(pack))
    unqueue_mending(txn, pack)
    forget_bases(txn, pack)
    txn.put(STATE, _GONE + pack_key(pack), b"")


def is_gone(reader: Reader, pack: int) -> bool:
    """Whether collection is about to remove the file of this pack, which has no row any more."""
    return reader.get(STATE, _GONE + pack_key(pack)) is not None


def read_gone(reader: Reader) -> list[int]:
    """Packs without a row whose files may still be there, ascending."""
    return [int.from_bytes(key[len(_GONE) :], "big") for key, _ in reader.scan(STATE, _GONE, _GONE_END)]


def settle_gone(txn: Transaction, packs: Iterable[int]) -> None:
    """Their files have been removed, durably."""
    for pack in packs:
        txn.delete(STATE, _GONE + pack_key(pack))


class CondemnedCache:
    """The condemned packs, read once per epoch. Thread-safe: one reference, replaced whole."""

    def __init__(self) -> None:
        self._known: tuple[int, frozenset[int]] = (0, frozenset())

    def get(self, reader: Reader) -> frozenset[int]:
        epoch = read_epoch(reader)
        known = self._known
        if known[0] != epoch:
            known = self._known = (epoch, read_condemned(reader))
        return known[1]


def tally(gained: dict[int, tuple[int, int]], placement: bytes, sign: int) -> None:
    """Count a placement in (sign 1), or out (-1), of its pack: chunks, raw bytes."""
    pack = pack_of(placement)
    chunks, raw_bytes = gained.get(pack, (0, 0))
    gained[pack] = (chunks + sign, raw_bytes + sign * _length_of(placement))


# --- statistics -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CasStatistics:
    """Sums over the rows of packs."""

    chunks: int  # placed data chunks
    unique_bytes: int  # their raw bytes
    pack_bytes: int  # durable (not preallocated) bytes of all packs, garbage and manifest nodes included
    packs: int


def statistics(reader: Reader) -> CasStatistics:
    """One row per 64 MiB is read."""
    chunks = unique = stored = packs = 0
    for _, row in iterate_packs(reader):
        packs += 1
        stored += row.length
        if row.kind == PackKind.DATA:
            chunks += row.placed_chunks
            unique += row.placed_bytes
    return CasStatistics(chunks, unique, stored, packs)
