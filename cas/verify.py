"""Is a pack what it was written as? Its header, every frame, its footer and trailer, against each other and its row.

Guarantees:

* Every byte below the durable length that anything depends on is compared with a checksum; with `read_data` every
  chunk is decoded and its id recomputed as well. Nothing behind the durable length counts: it may be growing.
* No false alarm: what looks damaged is read a second time, from the device, before it is called so. Whoever calls
  looks at the pack's row again (`vaultaire.verify`): a pack may be collected while it is being read.
* Damage is found in one pass and never stops it: after a damaged frame the next one that is whole is looked for.
* Memory: the frame headers of one pack, and one frame.

Nothing is changed here. What damage means for objects is for the caller to find out (`Damage.doubtful`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from cas.catalog import PackState
from cas.errors import CasError, CorruptFrame, MissingPack, PackUnreadable, UnsupportedFormat
from cas.frame import HEAD, MAGIC, Codec, check_payload, decode_header, decompress, header_length
from cas.frame import MAX_HEADER_BYTES as MAX_FRAME_HEADER_BYTES
from cas.pack import (
    FOOTER_MAGIC,
    MAX_FOOTER_BYTES,
    MAX_HEADER_BYTES,
    TRAILER_BYTES,
    Frame,
    PackHeader,
    PackKind,
    decode_footer,
    decode_trailer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cas.catalog import PackRow
    from cas.chunk import ChunkId, Hasher, Identity
    from cas.frame import FrameHeader
    from cas.ports import Buffer
    from cas.scanning import PackSource

_Seen = TypeVar("_Seen")

_SEARCH_BYTES: Final = 1 << 20


class DamageKind(StrEnum):
    """What is damaged. The values are shown to users, and stay."""

    PACK_MISSING = "pack-missing"
    PACK_UNREADABLE = "pack-unreadable"  # the device gives an error instead of bytes
    PACK_TRUNCATED = "pack-truncated"  # shorter than its durable length
    PACK_TOO_LONG = "pack-too-long"  # something was appended to a sealed pack
    PACK_HEADER = "pack-header"
    PACK_FOOTER = "pack-footer"
    PACK_TRAILER = "pack-trailer"
    PACK_COUNTERS = "pack-counters"  # its row counts other frames, chunks or bytes than there are
    PACK_MARKED = "pack-marked"  # its row says that damage was found once
    PACK_ORPHAN = "pack-orphan"  # a file that no row knows, of a writer that is gone: garbage
    FRAME_HEADER = "frame-header"
    FRAME_PAYLOAD = "frame-payload"
    BASES = "frame-bases"  # the chunks that a frame was compressed against cannot be had, or are told wrongly
    CHUNK = "chunk-id"  # the checksums are right, the id is not: it was stored wrongly
    PLACEMENT = "placement"  # the catalog points to where the chunk is not


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it should be. `chunks`: those whose bytes in this place are wrong, where known."""

    kind: DamageKind
    pack: int
    reason: str
    offset: int | None = None  # of what is damaged, in the pack
    frame: int | None = None  # offset of the frame that it concerns
    chunks: tuple[ChunkId, ...] = ()

    @property
    def doubtful(self) -> bool:
        """Chunks of this pack (of `frame`, if it is known) may be unreadable; whoever wants to know must try."""
        return self.kind in _DOUBTFUL


_DOUBTFUL: Final = frozenset(
    {
        DamageKind.PACK_MISSING,
        DamageKind.PACK_UNREADABLE,
        DamageKind.PACK_TRUNCATED,
        DamageKind.FRAME_HEADER,
        DamageKind.FRAME_PAYLOAD,
        DamageKind.BASES,
        DamageKind.CHUNK,
    }
)


class Step(NamedTuple):
    """One step of a check: what it read, and what it found."""

    read_bytes: int
    damage: tuple[Damage, ...] = ()


@dataclass(slots=True)
class PackCheck:
    """The check of one pack: iterate `run` to its end, then `frames` and `sound` say what was seen.

    `row`: what the catalog says; only bytes below its length are looked at. `hasher`: of the store. `read_bases`: the
    raw bytes behind which a frame (pack, offset) is decoded, None if nobody needs it: its chunks are then not decoded.
    """

    pack: int
    row: PackRow
    identity: Identity
    source: PackSource
    hasher: Hasher
    read_data: bool = False
    read_bases: Callable[[int, int], bytes | None] = lambda pack, frame: None
    frames: list[Frame] = field(default_factory=list)  # those whose header is known, ascending
    start: int = 0  # where the frames begin
    end: int = 0  # where the frames end, as far as they were checked
    sound: bool = True  # nothing was found
    knows_all_frames: bool = True  # `frames` are all up to `end`

    def run(self) -> Iterator[Step]:
        """Check the pack, about a frame per step. Raises UnsupportedFormat."""
        try:
            for step in self._run():
                self.sound = self.sound and not step.damage
                yield step
        except MissingPack:
            self.sound = self.knows_all_frames = False
            yield Step(0, (Damage(DamageKind.PACK_MISSING, self.pack, "its file is not there"),))
        except PackUnreadable as error:
            self.sound = self.knows_all_frames = False
            yield Step(0, (Damage(DamageKind.PACK_UNREADABLE, self.pack, error.reason),))

    def extend(self, row: PackRow) -> Iterator[Step]:
        """Go on with what was appended since, by a newer row. The part before is not read again."""
        self.row = row
        listed, step = self._listed()
        for found in (step, *self._run_frames(listed)):
            self.sound = self.sound and not found.damage
            yield found

    def _run(self) -> Iterator[Step]:
        yield self._check_length()
        step, self.start = self._check_header()
        yield step
        self.end = self.start
        listed, step = self._listed()
        yield step
        yield from self._run_frames(listed)
        if self.row.damaged:
            yield self._step(DamageKind.PACK_MARKED, "it was found damaged before, and is marked so")

    # --- the ends of the pack ---------------------------------------------------------------------------------

    @property
    def _has_footer(self) -> bool:
        return self.row.state != PackState.OPEN and not self.row.footerless

    @property
    def _is_cut(self) -> bool:
        return self.source.length() < self.row.length

    def _check_length(self) -> Step:
        actual, wanted = self.source.length(), self.row.length
        if actual < wanted:
            self.knows_all_frames = False
            return self._step(DamageKind.PACK_TRUNCATED, f"{actual} bytes instead of {wanted}", actual)
        if actual > wanted and self._has_footer:
            return self._step(DamageKind.PACK_TOO_LONG, f"{actual} bytes instead of {wanted}", wanted)
        return Step(0)

    def _check_header(self) -> tuple[Step, int]:
        wanted = PackHeader.of(self.identity, self.pack, self.row.kind)
        usual = len(wanted.encode())

        def look() -> tuple[str, int]:
            try:
                found, length = PackHeader.decode(self.source.read(0, MAX_HEADER_BYTES))
            except CorruptFrame as error:
                return str(error), usual
            return ("" if found == wanted else "it is of another pack, kind or store"), length

        reason, length = self._look_twice(look, lambda seen: not seen[0])
        if reason:
            return self._step(DamageKind.PACK_HEADER, reason, 0), length
        return Step(length), length

    def _listed(self) -> tuple[list[tuple[int, FrameHeader]] | None, Step]:
        """What the footer lists, from `end` on; None: there is none to believe, the frames are walked."""
        if not self._has_footer or self._is_cut:
            return None, Step(0)
        trailer_at = self.row.length - TRAILER_BYTES

        def look_at_trailer() -> tuple[str, int, int]:
            try:
                end, length = decode_trailer(self.source.read(trailer_at, TRAILER_BYTES))
            except CorruptFrame as error:
                return str(error), 0, 0
            fits = length <= MAX_FOOTER_BYTES and end + length == trailer_at
            return ("" if fits else "it does not lead to the footer"), end, length

        reason, end, length = self._look_twice(look_at_trailer, lambda seen: not seen[0])
        if reason:
            return None, self._step(DamageKind.PACK_TRAILER, reason, trailer_at)

        def look_at_footer() -> tuple[str, list[tuple[int, FrameHeader]]]:
            try:
                frames = decode_footer(self.source.read(end, length), length, end)
            except CorruptFrame as error:
                return str(error), []
            ends = [offset + header.total_length for offset, header in frames]
            starts = [offset for offset, _ in frames]
            without_gaps = [*starts, end] == [self.start, *ends]
            return ("" if without_gaps else "its frames do not lie side by side"), frames

        reason, frames = self._look_twice(look_at_footer, lambda seen: not seen[0])
        if reason:
            return None, self._step(DamageKind.PACK_FOOTER, reason, end)
        return [frame for frame in frames if frame[0] >= self.end], Step(length + TRAILER_BYTES)

    # --- frames -----------------------------------------------------------------------------------------------

    def _run_frames(self, listed: list[tuple[int, FrameHeader]] | None) -> Iterator[Step]:
        if listed is None:
            yield from self._walk()
            return
        for offset, header in listed:
            yield self._check_frame(offset, header)
            self._add(offset, header)

    def _walk(self) -> Iterator[Step]:
        """Frame after frame, up to the durable length or the footer."""
        stop = min(self.row.length, self.source.length())
        while self.end < stop and not self._is_footer(self.end):
            offset = self.end
            header, reason = self._look_twice(
                partial(self._header_at, offset, stop), lambda seen: seen[0] is not None
            )
            if header is None:
                self.knows_all_frames = False
                self.end = self._find_frame(offset + 1, stop)
                if self.end < stop or not self._is_cut:  # else it is the end that was reported already
                    # Which chunks were there nobody says: the whole pack is in doubt.
                    yield self._step(DamageKind.FRAME_HEADER, reason, offset, read_bytes=self.end - offset)
                continue
            yield self._check_frame(offset, header)
            self._add(offset, header)

    def _header_at(self, offset: int, stop: int) -> tuple[FrameHeader | None, str]:
        try:
            head = self.source.read(offset, HEAD.size)
            header = decode_header(self.source.read(offset, header_length(head)))
        except CorruptFrame as error:
            return None, str(error)
        if offset + header.total_length > stop:
            return None, "it ends behind the durable length"
        return header, ""

    def _is_footer(self, offset: int) -> bool:
        return self._has_footer and self.source.read(offset, len(FOOTER_MAGIC)) == FOOTER_MAGIC

    def _find_frame(self, offset: int, stop: int) -> int:
        """Where the next frame with a sound header begins, or the footer; `stop` if there is none."""
        while offset < stop:
            block = self.source.read(offset, min(_SEARCH_BYTES + MAX_FRAME_HEADER_BYTES, stop - offset))
            marks = (MAGIC, FOOTER_MAGIC) if self._has_footer else (MAGIC,)
            hits = sorted(at for mark in marks for at in _occurrences(block, mark))
            for hit in hits:
                if block[hit : hit + 4] == FOOTER_MAGIC or _is_header(
                    block[hit : hit + MAX_FRAME_HEADER_BYTES]
                ):
                    return offset + hit
            offset += _SEARCH_BYTES
        return stop

    def _check_frame(self, offset: int, header: FrameHeader) -> Step:
        """The frame at `offset`, whose header is `header` by the footer, or else by itself."""
        damage = self._look_twice(lambda: self._frame_damage(offset, header), lambda seen: not seen)
        return Step(header.total_length, damage)

    def _frame_damage(self, offset: int, header: FrameHeader) -> tuple[Damage, ...]:
        data = self.source.read(offset, header.total_length)
        damage = []
        try:
            if decode_header(data[: header.header_length]) != header:
                raise CorruptFrame("it differs from the footer's copy")
        except CorruptFrame as error:
            damage.append(Damage(DamageKind.FRAME_HEADER, self.pack, str(error), offset, offset))
        payload = memoryview(data)[header.header_length :]
        kind, reason = DamageKind.CHUNK, "its bytes have another id"
        try:
            check_payload(header, payload)
        except CorruptFrame as error:
            kind, reason = DamageKind.FRAME_PAYLOAD, str(error)
        else:
            if not self.read_data:
                return tuple(damage)
        id_of = self.hasher.node_id if self.row.kind == PackKind.NODE else self.hasher.chunk_id
        try:
            prefix = self.read_bases(self.pack, offset) if header.bases else b""
        except CasError as error:
            chunks = header.ids
            if kind == DamageKind.CHUNK:
                kind, reason = DamageKind.BASES, f"what it is decoded behind cannot be read: {error}"
        else:
            chunks = () if prefix is None else tuple(wrong_chunks(header, payload, prefix, id_of))
        if chunks or kind == DamageKind.FRAME_PAYLOAD:
            at = offset + header.header_length
            damage.append(Damage(kind, self.pack, reason, at, offset, chunks))
        return tuple(damage)

    def _add(self, offset: int, header: FrameHeader) -> None:
        before = self.frames[-1] if self.frames else None
        ordinal = 0 if before is None else before.ordinal + len(before.header.ids)
        self.frames.append(Frame(offset, ordinal, header))
        self.end = offset + header.total_length

    def _look_twice(self, look: Callable[[], _Seen], is_sound: Callable[[_Seen], bool]) -> _Seen:
        """What `look` sees; if that is damage, what it sees the second time, from the device."""
        seen = look()
        if not is_sound(seen):
            self.source.forget()
            seen = look()
        return seen

    def _step(self, kind: DamageKind, reason: str, offset: int | None = None, *, read_bytes: int = 0) -> Step:
        return Step(read_bytes, (Damage(kind, self.pack, reason, offset),))


def wrong_chunks(
    header: FrameHeader, payload: Buffer, prefix: Buffer, id_of: Callable[[memoryview], ChunkId]
) -> Iterator[ChunkId]:
    """The chunks of a frame that its payload does not give behind `prefix`."""
    try:
        raw = memoryview(payload if header.codec == Codec.RAW else decompress(payload, prefix))
    except CorruptFrame:
        yield from header.ids
        return
    begin = 0
    for chunk, length in zip(header.ids, header.lengths, strict=True):
        data = raw[begin : begin + length]
        if len(data) != length or id_of(data) != chunk:
            yield chunk
        begin += length


def _occurrences(block: bytes, mark: bytes) -> Iterator[int]:
    hit = block.find(mark)
    while 0 <= hit < _SEARCH_BYTES:
        yield hit
        hit = block.find(mark, hit + 1)


def _is_header(data: bytes) -> bool:
    try:
        decode_header(data)
    except (CorruptFrame, UnsupportedFormat):
        return False
    return True
