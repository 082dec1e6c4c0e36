"""Packs as the truth: sealed packs held against their rows, lost footers written anew, lost rows read back from frames.

The caller is alone in the store. Frames are never written, moved or cut here: a footer is the only thing that is
written, and only where the frames before it are proven whole. What cannot be mended is named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from cas.bases import bases_of
from cas.catalog import (
    PLACEMENTS,
    PackProgress,
    PackState,
    frame_placements,
    get_pack,
    has_bases,
    iterate_packs,
)
from cas.errors import CasError, CorruptPack, MissingPack
from cas.pack import encode_footer, read_contents, read_footer, scan_contents
from cas.publishing import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.bases import FrameBases, FrameKey
    from cas.catalog import PackRow
    from cas.pack import Frame, PackContents
    from cas.ports import OrderedMap, PackPlace, Transaction

_ROWS_PER_COMMIT: Final = 50_000  # placements; some 4 MB of journal
_FRAMES_PER_COMMIT: Final = 512  # with bases: some thousand placements


@dataclass(slots=True)
class Survey:
    """Packs by number, each with what was found."""

    packs: int = 0
    mended: dict[int, str] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)  # cannot be mended from the pack itself


def survey(kv: OrderedMap, place: PackPlace) -> Survey:
    """Hold every pack's file against its row: is it there, long enough, and is its footer whole? Reads footers only.

    A lost footer is written anew from the frames, which are then all read and verified. Blocking. Raises OSError.
    """
    with kv.snapshot() as reader:
        rows = list(iterate_packs(reader))
    found = Survey(len(rows))
    for pack, row in rows:
        try:
            if _is_sealed(place, pack, row):
                continue
            restore_footer(place, pack, row)
            found.mended[pack] = "its footer was lost, and is written anew"
        except (CasError, OSError) as error:
            found.damaged[pack] = str(error)
    return found


def _is_sealed(place: PackPlace, pack: int, row: PackRow) -> bool:
    """Nothing to do? Raises MissingPack, CorruptPack."""
    length = place.length(pack)
    has_footer = row.state != PackState.OPEN and not row.footerless
    if length >= row.length:
        return not has_footer or read_footer(_reader(place, pack), row.length) is not None
    if not has_footer:
        raise CorruptPack(pack, length, f"the file ends here, not at {row.length}")
    return False  # perhaps only the footer is cut off


def restore_footer(place: PackPlace, pack: int, row: PackRow) -> None:
    """Write the footer of a sealed pack anew. Raises CorruptPack if its frames are not those that its row counts."""
    contents = scan_contents(pack, _reader(place, pack))
    chunks = sum(len(frame.header.ids) for frame in contents.frames)
    if (len(contents.frames), chunks) != (row.frames, row.chunks):
        raise CorruptPack(
            pack, contents.end, f"{len(contents.frames)} of {row.frames} frames are whole up to here"
        )
    offsets = [frame.offset for frame in contents.frames]
    headers = place.read(pack, [(frame.offset, frame.header.header_length) for frame in contents.frames])
    footer = encode_footer(contents.end, list(zip(offsets, headers, strict=True)))
    if contents.end + len(footer) != row.length:
        raise CorruptPack(pack, contents.end, f"its footer would end at {contents.end + len(footer)}")
    place.seal_at(pack, contents.end, footer)


@dataclass(slots=True)
class Found:
    """What packs without rows gave back."""

    packs: int = 0
    chunks: int = 0
    raw_bytes: int = 0
    damaged: dict[int, str] = field(default_factory=dict)


def add_lost_packs(kv: OrderedMap, place: PackPlace) -> Found:
    """Make the catalog rows of every pack that has none, from its frames; each frame is read and verified.

    A pack counts up to its first damaged frame; its file stays as it is. Frames with bases come last, when all others
    are placed: a chunk that is also in a frame without is taken from there (`cas.bases`). May be repeated after a
    crash. Blocking; raises KvError of the map.
    """
    found = Found()
    for pack in place.packs():
        with kv.snapshot() as reader:
            if get_pack(reader, pack) is not None:
                continue
        try:
            contents = scan_contents(pack, _reader(place, pack))
        except (CorruptPack, MissingPack) as error:
            found.damaged[pack] = str(error)
            continue
        length = place.length(pack)
        footer = read_footer(_reader(place, pack), length)
        whole = footer is not None and footer[0] == contents.end
        if footer is not None and not whole:
            found.damaged[pack] = f"damaged at offset {contents.end}; chunks behind it are not found"
        _add(kv, pack, contents, length if whole else contents.end, footerless=not whole)
        found.packs += 1
        found.chunks += sum(len(frame.header.ids) for frame in contents.frames)
        found.raw_bytes += sum(frame.header.raw_length for frame in contents.frames)
    with kv.snapshot() as reader:
        rows = list(iterate_packs(reader))
    for pack, row in rows:
        _add_frames_with_bases(kv, place, pack, row, found)
    return found


def _add_frames_with_bases(kv: OrderedMap, place: PackPlace, pack: int, row: PackRow, found: Found) -> None:
    try:
        contents = (scan_contents if row.footerless else read_contents)(
            pack, _reader(place, pack), row.length
        )
    except (CorruptPack, MissingPack) as error:
        found.damaged.setdefault(pack, str(error))
        return
    frames = [frame for frame in contents.frames if frame.header.bases]
    for first in range(0, len(frames), _FRAMES_PER_COMMIT):
        lost = kv.commit(partial(_publish_with_bases, pack, frames[first : first + _FRAMES_PER_COMMIT]))
        if lost:
            found.damaged.setdefault(pack, f"a base of the frame at offset {lost[0]} is lost")


def _publish_with_bases(pack: int, frames: Sequence[Frame], txn: Transaction) -> list[int]:
    """Offsets of those whose bases are not placed, and so cannot be decoded."""
    rows: dict[bytes, bytes] = {}
    usable: dict[FrameKey, FrameBases] = {}
    lost = []
    for frame in frames:
        bases = bases_of(frame)
        if any(row is None or has_bases(row) for row in txn.get_many(PLACEMENTS, bases.ids)):
            lost.append(frame.offset)
            continue
        usable[pack, frame.offset] = bases
        rows = frame_placements(pack, frame) | rows
    publish(txn, rows, (), (), usable)
    return lost


def _add(kv: OrderedMap, pack: int, contents: PackContents, length: int, *, footerless: bool) -> None:
    step = PackProgress(
        pack=pack,
        kind=contents.header.kind,
        domain=contents.header.domain,
        state=PackState.SEALED,
        footerless=footerless,
        length=length,
        frames=len(contents.frames),
        chunks=sum(len(frame.header.ids) for frame in contents.frames),
        raw_bytes=sum(frame.header.raw_length for frame in contents.frames),
        has_row=False,
    )
    for rows in _batches(pack, contents):
        kv.commit(partial(_publish, rows, step))


def _publish(rows: dict[bytes, bytes], step: PackProgress, txn: Transaction) -> None:
    publish(txn, rows, (), [step])


def _batches(pack: int, contents: PackContents) -> Iterator[dict[bytes, bytes]]:
    rows: dict[bytes, bytes] = {}
    for frame in contents.frames:
        if frame.header.bases:
            continue
        for chunk, row in frame_placements(pack, frame).items():
            rows.setdefault(chunk, row)
        if len(rows) >= _ROWS_PER_COMMIT:
            yield rows
            rows = {}
    yield rows


def _reader(place: PackPlace, pack: int) -> Callable[[int, int], bytes]:
    return lambda offset, length: place.read(pack, [(offset, length)])[0]
