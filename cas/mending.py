"""Mending a sealed pack on disk, and its sidecar: damaged blocks are overwritten in place with what was there.

Guarantees: nothing is written that does not match the sidecar's digest of its block; and where the pack's own
checksums can be asked, they agree: of a pack that is whole again all of them, of one that is not those of every frame
without a lost block. If sidecar and pack disagree nothing is written. A sidecar is made anew only from a pack that
passes every checksum. Each step may be repeated, by several processes at once too: all write the same bytes.

A pack that was sealed after a failed flush (`footerless`) is never written again: its damage is made good at every
read, until collection empties it.

Memory: the pack (64 MiB as a rule).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.errors import CorruptFrame, CorruptPack, MissingPack, MissingSidecar, PackUnreadable, Unmendable
from cas.frame import check_payload, decode_header
from cas.pack import encode_footer, read_contents, scan_contents
from cas.parity import MAX_PACK_BYTES
from cas.protection import check_image, finish, make_sidecar, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cas.catalog import PackRow
    from cas.pack import Frame
    from cas.ports import MendablePlace
    from cas.recovery import Recovery, Sidecar

_READ_BLOCKS: Final = 1024


@dataclass(frozen=True, slots=True)
class Mended:
    """What was found, and done to a pack (with `dry_run`: what would be). Lengths and offsets in bytes."""

    pack: int
    mended_blocks: int = 0  # overwritten with what was there
    footer_written: bool = False  # made anew from the frames
    sidecar: str = ""  # "made", "replaced", or why there is none to rely on
    lost: tuple[tuple[int, int], ...] = ()  # (start, stop) of what cannot be brought back, ascending
    unwritten_blocks: int = 0  # could be brought back, but the pack may not be written

    @property
    def whole(self) -> bool:
        """Every byte of the pack is right, on disk or through its parity."""
        return not self.lost

    @property
    def changed(self) -> bool:
        return bool(self.mended_blocks or self.footer_written or self.sidecar in ("made", "replaced"))


def mend_pack(
    recovery: Recovery, place: MendablePlace, pack: int, row: PackRow, percent: int, *, dry_run: bool = False
) -> Mended:
    """Look at every byte of a sealed pack and its sidecar; mend what can be. `percent`: of a sidecar made anew.

    Raises UnsupportedFormat, and OSError or NoSpace if writing fails (it may be called again).
    """
    if not row.length:
        return Mended(pack)  # its first flush failed
    if row.length > MAX_PACK_BYTES:
        percent = 0
    place.drop_cached(pack)
    try:
        sidecar = recovery.load(pack)
        if sidecar.geometry.pack_bytes != row.length:
            raise Unmendable(pack, 0, "its sidecar is of another length")
    except (MissingSidecar, Unmendable) as error:
        return _mend_alone(recovery, place, pack, row, percent, reason=str(error), dry_run=dry_run)
    image, lost, mended = _restore(recovery, sidecar)
    if lost and None in sidecar.digests:  # what of the pack is damaged is not known by it
        reason = "its sidecar's digests are damaged"
        return _mend_alone(recovery, place, pack, row, percent, reason=reason, dry_run=dry_run)
    if lost:
        writable = _provable(pack, image, sidecar, lost, mended)
    else:
        check_image(pack, image, footerless=row.footerless)  # raises CorruptPack: then nothing is written
        writable = mended
    if row.footerless:
        return Mended(pack, lost=_ranges(sidecar, lost), unwritten_blocks=len(mended))
    if writable and not dry_run:
        _write(recovery, place, sidecar, image, writable)
    replaced = ""
    if not lost and not (sidecar.sound and recovery.parity_is_sound(sidecar)):
        replaced = _put_sidecar(recovery, pack, row, percent, "replaced", dry_run=dry_run)
    return Mended(
        pack,
        mended_blocks=len(writable),
        sidecar=replaced,
        lost=_ranges(sidecar, lost),
        unwritten_blocks=len(mended) - len(writable),
    )


def _restore(recovery: Recovery, sidecar: Sidecar) -> tuple[bytearray, list[int], list[int]]:
    """(the pack as far as it is known, blocks that are lost, blocks that were brought back)."""
    g = sidecar.geometry
    image = bytearray(g.pack_bytes)
    damaged: list[int] = []
    for first in range(0, g.blocks, _READ_BLOCKS):
        numbers = range(first, min(g.blocks, first + _READ_BLOCKS))
        for number, block in recovery.read_blocks(sidecar, numbers).items():
            if block is None:
                damaged.append(number)
            else:
                start, length = g.block(number)
                image[start : start + length] = block
    bad = set(damaged)
    groups = sorted({number % g.groups for number in damaged})
    known = _Image(image, sidecar, bad)
    mended = recovery.rebuild_many(sidecar, groups, known)
    for number, block in mended.items():
        start, length = g.block(number)
        image[start : start + length] = block
    return image, sorted(bad.difference(mended)), sorted(mended)


def _write(
    recovery: Recovery, place: MendablePlace, sidecar: Sidecar, image: bytearray, blocks: Sequence[int]
) -> None:
    """Overwrite these blocks, and see that the device keeps them."""
    ranges = [sidecar.geometry.block(number) for number in blocks]
    place.rewrite(sidecar.pack, [(start, bytes(image[start : start + length])) for start, length in ranges])
    place.drop_cached(sidecar.pack)
    kept = recovery.read_blocks(sidecar, blocks)
    if None in kept.values():
        raise OSError(errno.EIO, f"the device does not keep what is written to pack {sidecar.pack:016x}")


class _Image(Mapping[int, bytes | None]):
    """The blocks of a pack in memory, by number; None for those that are lost."""

    def __init__(self, image: bytearray, sidecar: Sidecar, lost: set[int]) -> None:
        self._image = image
        self._geometry = sidecar.geometry
        self._lost = lost

    def __getitem__(self, number: int) -> bytes | None:
        if number >= self._geometry.blocks:
            raise KeyError(number)
        start, length = self._geometry.block(number)
        return None if number in self._lost else bytes(self._image[start : start + length])

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._geometry.blocks))

    def __len__(self) -> int:
        return self._geometry.blocks


def _provable(
    pack: int, image: bytearray, sidecar: Sidecar, lost: Sequence[int], mended: Sequence[int]
) -> list[int]:
    """The blocks of `mended` that only frames touch which are whole and pass their checksums."""
    size = sidecar.geometry.block_bytes
    bad = set(lost)
    try:
        contents = read_contents(pack, lambda o, n: bytes(image[o : o + n]), len(image))
    except CorruptPack:
        return []
    if not contents.sealed:
        return []  # where the frames are is not known: each one's start depends on those before it
    doubtful: set[int] = set()
    for frame in contents.frames:
        touched = range(frame.offset // size, (frame.end - 1) // size + 1)
        if not bad.isdisjoint(touched) or not _passes(image, frame):
            doubtful.update(touched)
    return [number for number in mended if number not in doubtful]


def _passes(image: bytearray, frame: Frame) -> bool:
    view = memoryview(image)
    try:
        header = decode_header(view[frame.offset : frame.end])
        check_payload(header, view[frame.offset + header.header_length : frame.end])
    except CorruptFrame:
        return False
    return header == frame.header


def _ranges(sidecar: Sidecar, blocks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for number in blocks:
        start, length = sidecar.geometry.block(number)
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], start + length)
        else:
            ranges.append((start, start + length))
    return tuple(ranges)


# --- without a sidecar to rely on -------------------------------------------------------------------------------


def _mend_alone(
    recovery: Recovery,
    place: MendablePlace,
    pack: int,
    row: PackRow,
    percent: int,
    *,
    reason: str,
    dry_run: bool,
) -> Mended:
    """A pack whose sidecar is missing or useless: its own checksums decide; a footer follows from the frames."""
    footer_written = False
    try:
        image = read_image(place, pack, row.length)
    except (CorruptPack, MissingPack, PackUnreadable):
        image = _readable(place, pack, row.length)
    try:
        check_image(pack, image, footerless=row.footerless)
    except CorruptPack:
        footer = None if row.footerless else _rebuilt_footer(pack, image)
        if footer is None:
            return Mended(pack, sidecar=reason, lost=_lost_frames(pack, image))
        if not dry_run:
            place.rewrite(pack, [(len(image) - len(footer), footer)])
        footer_written = True
    made = ""
    if percent:
        kind = "replaced" if _has_sidecar(recovery, pack) else "made"
        made = _put_sidecar(recovery, pack, row, percent, kind, dry_run=dry_run)
    return Mended(pack, footer_written=footer_written, sidecar=made)


def _readable(place: MendablePlace, pack: int, length: int) -> bytearray:
    """What can be read, zeros elsewhere."""
    image = bytearray(length)
    for offset in range(0, length, 4096):
        try:
            (data,) = place.read(pack, [(offset, min(4096, length - offset))])
        except MissingPack:
            break
        except PackUnreadable:
            continue
        image[offset : offset + len(data)] = data
    return image


def _rebuilt_footer(pack: int, image: bytearray) -> bytes | None:
    """The footer, if the frames are all sound and it fits exactly behind them; what was there is then no loss."""
    try:
        contents = scan_contents(pack, lambda o, n: bytes(image[o : o + n]))
    except CorruptPack:
        return None
    headers = [
        (frame.offset, bytes(image[frame.offset : frame.offset + frame.header.header_length]))
        for frame in contents.frames
    ]
    footer = encode_footer(contents.end, headers)
    return footer if contents.end + len(footer) == len(image) else None


def _lost_frames(pack: int, image: bytearray) -> tuple[tuple[int, int], ...]:
    """Ranges of the frames that do not pass, by the footer; without one all from the first that does not."""
    try:
        contents = read_contents(pack, lambda o, n: bytes(image[o : o + n]), len(image))
    except CorruptPack:
        return ((0, len(image)),)
    if not contents.sealed:
        return ((contents.end, len(image)),)
    return tuple((frame.offset, frame.end) for frame in contents.frames if not _passes(image, frame))


def _has_sidecar(recovery: Recovery, pack: int) -> bool:
    try:
        recovery.sidecars.length(pack)
    except MissingSidecar:
        return False
    return True


def _put_sidecar(
    recovery: Recovery, pack: int, row: PackRow, percent: int, done: str, *, dry_run: bool
) -> str:
    """Make the sidecar from what the disk holds now. `percent` 0: a useless one is removed."""
    if dry_run:
        return done
    recovery.forget(pack)
    if not percent:
        recovery.sidecars.remove(pack)
        return "removed"
    steps = make_sidecar(
        recovery.place, recovery.store_id, pack, row.length, percent, footerless=row.footerless
    )
    recovery.sidecars.put(pack, finish(steps))
    return done
