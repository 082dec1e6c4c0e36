"""Does the catalog tell the truth? Every placement against its pack, both ways, and the counters of every pack.

Three steps, each in short snapshots, so that it may run for hours beside clients and collection:

1. `tally`: every placement row is decoded and its pack has a row; per pack the number, bytes and a digest of the ids
   that name it.
2. `check_row`, per pack, with the frames that were found in it: every row that names this pack must be the very row
   that a chunk of it has; the counters must be what frames and rows say. Its own tally of such rows is returned.
3. Where the tallies of 1 and 2 agree, no other row names the pack. Where not (it changed meanwhile, or a row names a
   chunk that is not there), `check_placements` looks at each row of it on its own.

Rows of bases are checked with their packs (2), and in the end `lost_bases` names the frames whose bases are damaged.

So nothing needs memory but some 250 bytes per pack, and what changes meanwhile costs time, never a false alarm: each
judgement is made in one snapshot.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cas.bases import bases_of, distinct, iterate_bases, iterate_bases_of
from cas.catalog import (
    PACKS,
    PLACEMENTS,
    PackRow,
    decode_placement,
    frame_of,
    get_pack,
    has_bases,
    pack_key,
    pack_of,
    placement_rows,
    read_condemned,
)
from cas.errors import CorruptFrame, CorruptRow, UnsupportedFormat
from cas.frame import Codec, decode_header
from cas.verify import Damage, DamageKind

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from cas.bases import FrameKey
    from cas.catalog import Placement
    from cas.chunk import ChunkId
    from cas.frame import FrameHeader
    from cas.pack import Frame
    from cas.ports import Reader
    from cas.scanning import PackSource

PAGE_ROWS: Final = 5000  # per snapshot: some milliseconds
_LOOKUP: Final = 2048
_FIRST: Final = struct.Struct(">Q")
_MASK: Final = (1 << 64) - 1


class Snapshots(Protocol):
    """The reading half of an `OrderedMap`."""

    def snapshot(self) -> AbstractContextManager[Reader]: ...


class Tally(NamedTuple):
    """A set of placement rows. Equal tallies are equal sets: ids are hashes, so their sum is a digest of the set."""

    chunks: int = 0
    raw_bytes: int = 0
    digest: int = 0

    def with_row(self, chunk: bytes, length: int) -> Tally:
        digest = (self.digest + _FIRST.unpack_from(chunk)[0]) & _MASK
        return Tally(self.chunks + 1, self.raw_bytes + length, digest)


NOTHING: Final = Tally()


def tally(
    kv: Snapshots, note: Callable[[Damage], None], on_page: Callable[[int], None] = lambda _: None
) -> dict[int, Tally]:
    """Pack -> the rows that name it. Rows that cannot be right are noted. `on_page`: rows done so far."""
    tallies: dict[int, Tally] = {}
    rows = 0
    for page, known in _pages(kv):
        for chunk, row in page:
            try:
                placement = decode_placement(chunk, row)
            except (CorruptRow, UnsupportedFormat) as error:
                note(Damage(DamageKind.PLACEMENT, pack_of(row), str(error), chunks=(_id(chunk),)))
                continue
            if placement.pack not in known:
                reason = f"placement of chunk {chunk.hex()} names a pack that is gone"
                note(
                    Damage(DamageKind.PLACEMENT, placement.pack, reason, None, placement.frame, (_id(chunk),))
                )
                continue
            tallies[placement.pack] = tallies.get(placement.pack, NOTHING).with_row(chunk, placement.length)
        rows += len(page)
        on_page(rows)
    return tallies


def _pages(kv: Snapshots) -> Iterator[tuple[list[tuple[bytes, bytes]], Container[int]]]:
    """Placement rows, and those packs of them that have a row; a snapshot each."""
    start = b""
    while True:
        with kv.snapshot() as reader:
            page = list(reader.scan(PLACEMENTS, start, limit=PAGE_ROWS))
            packs = sorted({row[1:9] for _, row in page})
            rows = reader.get_many(PACKS, packs)
        if not page:
            return
        yield (
            page,
            {int.from_bytes(key, "big") for key, row in zip(packs, rows, strict=True) if row is not None},
        )
        start = page[-1][0] + b"\0"


def check_row(reader: Reader, pack: int, row: PackRow, frames: Sequence[Frame]) -> tuple[list[Damage], Tally]:
    """The rows that name `pack`, and its counters, against the frames that lie in it. `row`: as `reader` sees it.

    `frames` must be all of those below the row's length.
    """
    damage: list[Damage] = []
    placed = NOTHING
    based: set[int] = set()  # offsets of the frames with bases that rows name
    candidates: dict[ChunkId, list[bytes]] = {}
    for frame in frames:
        for chunk, wanted in zip(frame.header.ids, _rows_of_frame(pack, frame), strict=True):
            candidates.setdefault(chunk, []).append(wanted)  # a pack may hold a chunk twice
    for chunk, found in _lookup(reader, sorted(candidates)):
        if found is None or pack_of(found) != pack:
            continue  # it is somewhere else, or its upload was aborted
        if found not in candidates[chunk]:
            reason = f"placement of chunk {chunk.hex()} is not where its pack has it"
            frame_at = int.from_bytes(found[9:13], "big")
            damage.append(Damage(DamageKind.PLACEMENT, pack, reason, None, frame_at, (chunk,)))
        elif has_bases(found):
            based.add(frame_of(found)[1])
        placed = placed.with_row(chunk, int.from_bytes(found[23:27], "big"))
    damage += _bases_damage(reader, pack, frames, based)
    counted = {
        "frames": (row.frames, len(frames)),
        "chunks": (row.chunks, sum(len(frame.header.ids) for frame in frames)),
        "raw_bytes": (row.raw_bytes, sum(frame.header.raw_length for frame in frames)),
        "placed_chunks": (row.placed_chunks, placed.chunks),
        "placed_bytes": (row.placed_bytes, placed.raw_bytes),
    }
    wrong = [f"{name} {said} instead of {is_}" for name, (said, is_) in counted.items() if said != is_]
    if wrong:
        damage.append(Damage(DamageKind.PACK_COUNTERS, pack, f"its row says {', '.join(wrong)}"))
    return damage, placed


def _rows_of_frame(pack: int, frame: Frame) -> list[bytes]:
    header = frame.header
    lengths = header.header_length, header.stored_length
    return placement_rows(
        pack, frame.offset, header.codec, *lengths, header.lengths, frame.ordinal, bool(header.bases)
    )


def _bases_damage(
    reader: Reader, pack: int, frames: Sequence[Frame], placed: Container[int]
) -> Iterator[Damage]:
    """Rows of `cas.bases` against the frames. `placed`: offsets of the frames with chunks that are placed there."""
    rows = dict(iterate_bases_of(reader, pack))
    for frame in frames:
        found = rows.pop(frame.offset, None)
        wanted = bases_of(frame) if frame.header.bases else None
        if found == wanted or (found is None and frame.offset not in placed):
            continue
        reason = f"the row of bases of the frame at {frame.offset} is missing, or not what its header says"
        yield Damage(DamageKind.BASES, pack, reason, None, frame.offset)
    for offset in rows:
        yield Damage(
            DamageKind.BASES, pack, f"a row of bases names {offset}, where no frame is", None, offset
        )


def lost_bases(
    kv: Snapshots, is_doubtful: Callable[[bytes, Placement], bool], on_page: Callable[[int], None]
) -> Iterator[Damage]:
    """Frames whose bases have no placement where they must have one, or one in a place that is in doubt."""
    after: FrameKey | None = None
    done = 0
    while True:
        with kv.snapshot() as reader:
            condemned = read_condemned(reader)
            page = list(iterate_bases(reader, after, _LOOKUP // 8))
            wanted = [(frame, bases) for frame, bases in page if frame[0] not in condemned]
            found = dict(_lookup(reader, distinct([bases for _, bases in wanted])))
        for (pack, offset), bases in wanted:
            lost = [base for base in bases.ids if _is_lost(base, found[base], is_doubtful)]
            if lost:
                reason = f"its base {lost[0].hex()} is missing, misplaced or in doubt"
                yield Damage(DamageKind.BASES, pack, reason, None, offset)
        done += len(page)
        on_page(done)
        if len(page) < _LOOKUP // 8:
            return
        after = page[-1][0]


def _is_lost(base: bytes, row: bytes | None, is_doubtful: Callable[[bytes, Placement], bool]) -> bool:
    return row is None or has_bases(row) or is_doubtful(base, decode_placement(base, row))


def rows_of(
    kv: Snapshots, packs: Container[int], on_page: Callable[[int], None] = lambda _: None
) -> dict[int, list[ChunkId]]:
    """The ids whose placements name these packs: one pass over all placements. Ask for few packs at a time."""
    found: dict[int, list[ChunkId]] = {}
    rows = 0
    for page, _ in _pages(kv):
        for chunk, row in page:
            if pack_of(row) in packs:
                found.setdefault(pack_of(row), []).append(_id(chunk))
        rows += len(page)
        on_page(rows)
    return found


def check_placements(
    reader: Reader, pack: int, chunks: Iterable[ChunkId], source: PackSource, frames: Mapping[int, Frame]
) -> Iterator[Damage]:
    """Each of these chunks on its own: does its row, if it still names `pack`, name a place where it is?

    `frames`: offset -> frame, as far as known; for others the header in the pack is read.
    """
    row = get_pack(reader, pack)
    for chunk, found in _lookup(reader, sorted(chunks)):
        if found is None or pack_of(found) != pack:
            continue
        placement = decode_placement(chunk, found)
        reason = "its pack is gone" if row is None else _misplaced(chunk, placement, row, source, frames)
        if reason:
            yield Damage(
                DamageKind.PLACEMENT,
                pack,
                f"placement of chunk {chunk.hex()}: {reason}",
                None,
                placement.frame,
                (chunk,),
            )


def _misplaced(
    chunk: ChunkId, placement: Placement, row: PackRow, source: PackSource, frames: Mapping[int, Frame]
) -> str:
    """Why it is not there; empty if it is."""
    end = placement.frame_end
    if end > row.length:
        return f"its frame ends at {end}, behind the durable length {row.length}"
    frame = frames.get(placement.frame)
    if frame is not None:
        header = frame.header
    else:
        try:
            header = decode_header(source.read(placement.frame, placement.header_length))
        except CorruptFrame as error:
            return f"no frame at {placement.frame} ({error})"
    index = _index_of(header, placement)
    if index is None or header.ids[index] != chunk:
        return f"the frame at {placement.frame} does not have it there"
    if (
        header.header_length != placement.header_length
        or header.stored_length != placement.stored_length
        or header.lengths[index] != placement.length
        or (header.codec == Codec.RAW, bool(header.bases)) != (placement.raw_frame, placement.has_bases)
    ):
        return f"it describes the frame at {placement.frame} wrongly"
    if frame is not None and frame.ordinal + index != placement.ordinal:
        return f"its ordinal is {frame.ordinal + index}, not {placement.ordinal}"
    return ""


def _index_of(header: FrameHeader, placement: Placement) -> int | None:
    begin = 0
    for index, length in enumerate(header.lengths):
        if begin == placement.inside:
            return index
        begin += length
    return None


def _lookup(reader: Reader, chunks: Sequence[ChunkId]) -> Iterator[tuple[ChunkId, bytes | None]]:
    for begin in range(0, len(chunks), _LOOKUP):
        batch = chunks[begin : begin + _LOOKUP]
        yield from zip(batch, reader.get_many(PLACEMENTS, batch), strict=True)


def _id(chunk: bytes) -> ChunkId:
    return chunk  # type: ignore[return-value]  # the keys of the table are ids


def pack_row_damage(key: bytes, row: bytes) -> tuple[int, PackRow | None, str]:
    """A row of `cas.packs`: (pack, the row or None, why it cannot be read)."""
    pack = int.from_bytes(key, "big")
    try:
        if len(key) != len(pack_key(0)):
            raise CorruptRow(PACKS, key, f"a key of {len(key)} bytes")
        return pack, PackRow.decode(key, row), ""
    except (CorruptRow, UnsupportedFormat) as error:
        return pack, None, str(error)
