"""Damaged blocks of a sealed pack, brought back from its parity sidecar: in memory, without touching the disk.

Guarantees: what is returned matches the sidecar's digest of every block it comes from; blocks of the pack or the
sidecar that cannot be read, or do not match, count as lost and are never used. Thread-safe; blocking. Memory: one
group of blocks (about 350 KiB) and the digests of a few sidecars (0.5 % of their packs).

What it leaves to others: whether the pack's own checksums agree (whoever decodes the frames), and mending the disk.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from cas.errors import CorruptFrame, MissingPack, MissingSidecar, PackUnreadable, Unmendable
from cas.parity import HEADER_BYTES, Geometry, decode_header, decode_page, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cas.ports import PackPlace, Sidecars

_KEPT_SIDECARS: Final = 4
_AT_ONCE: Final = 64  # groups

Blocks = dict[int, bytes | None]  # number -> content; None: lost


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar says, but for its parity blocks. `sound`: every copy of header and digests was intact."""

    pack: int
    geometry: Geometry
    header: bytes
    digests: Sequence[bytes | None]  # of data blocks, then of parity blocks; None: both copies are damaged
    sound: bool


class Recovery:
    """See the module."""

    def __init__(self, place: PackPlace, sidecars: Sidecars, store_id: bytes) -> None:
        self.place = place
        self.sidecars = sidecars
        self.store_id = store_id
        self._kept: OrderedDict[int, Sidecar] = OrderedDict()
        self._lock = threading.Lock()

    def recover(self, pack: int, start: int, stop: int) -> tuple[bytes, list[int]]:
        """Bytes [start, stop) of the pack, and which of their blocks had to be brought back.

        Raises MissingSidecar, Unmendable, UnsupportedFormat.
        """
        try:
            return self._recover(self.load(pack), start, stop)
        except Unmendable:
            if not self.forget(pack):
                raise
        return self._recover(self.load(pack), start, stop)  # it may have been replaced, with another geometry

    def _recover(self, sidecar: Sidecar, start: int, stop: int) -> tuple[bytes, list[int]]:
        g = sidecar.geometry
        if stop > g.pack_bytes:
            raise Unmendable(sidecar.pack, start, f"its sidecar is of {g.pack_bytes} bytes only")
        wanted = range(start // g.block_bytes, (stop - 1) // g.block_bytes + 1)
        blocks = self.read_blocks(sidecar, wanted)
        lost = [number for number, block in blocks.items() if block is None]
        for group in sorted({number % g.groups for number in lost}):
            blocks |= self.rebuild(sidecar, group, self.read_blocks(sidecar, g.members(group)))
        parts = []
        for number in wanted:
            block = blocks[number]
            if block is None:
                offset, _ = g.block(number)
                raise Unmendable(sidecar.pack, offset, "more is lost than its parity makes good")
            parts.append(block)
        first = wanted.start * g.block_bytes
        return b"".join(parts)[start - first : stop - first], lost

    def load(self, pack: int) -> Sidecar:
        """Raises MissingSidecar, Unmendable (both its headers are damaged), UnsupportedFormat."""
        with self._lock:
            if pack in self._kept:
                self._kept.move_to_end(pack)
                return self._kept[pack]
        sidecar = self._load(pack)
        if sidecar.sound:  # a damaged one may be replaced at any time
            with self._lock:
                self._kept[pack] = sidecar
                if len(self._kept) > _KEPT_SIDECARS:
                    self._kept.popitem(last=False)
        return sidecar

    def forget(self, pack: int) -> bool:
        """The sidecar was replaced, or may have been. False if nothing was remembered of it."""
        with self._lock:
            return self._kept.pop(pack, None) is not None

    def read_blocks(self, sidecar: Sidecar, numbers: Iterable[int]) -> Blocks:
        """These blocks of the pack, each by its digest sound or None."""
        asked = list(numbers)
        ranges = [sidecar.geometry.block(number) for number in asked]
        contents = self._read(sidecar.pack, ranges)
        return {
            number: block if block is not None and digest(block) == sidecar.digests[number] else None
            for number, block in zip(asked, contents, strict=True)
        }

    def rebuild(self, sidecar: Sidecar, group: int, blocks: Mapping[int, bytes | None]) -> dict[int, bytes]:
        """The lost ones of all blocks of a group; those that cannot be brought back and proven are missing."""
        return self.rebuild_many(sidecar, [group], blocks)

    def rebuild_many(
        self, sidecar: Sidecar, groups: Iterable[int], blocks: Mapping[int, bytes | None]
    ) -> dict[int, bytes]:
        """As `rebuild`, for groups whose blocks are all in `blocks`. A burst costs little more than one group."""
        g = sidecar.geometry
        alike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, list[bytes]]]] = {}
        for group in groups:
            lost = tuple([row for row, number in enumerate(g.members(group)) if blocks[number] is None])
            parity = self._sound_parity(sidecar, group, len(lost))
            if lost and len(parity) == len(lost):
                alike.setdefault((lost, tuple(parity)), []).append((group, list(parity.values())))
        mended: dict[int, bytes] = {}
        for (lost, rows), found in alike.items():
            for start in range(0, len(found), _AT_ONCE):
                mended |= self._solve(sidecar, lost, rows, found[start : start + _AT_ONCE], blocks)
        return mended

    def _solve(
        self,
        sidecar: Sidecar,
        lost: Sequence[int],
        rows: Sequence[int],
        found: Sequence[tuple[int, list[bytes]]],
        blocks: Mapping[int, bytes | None],
    ) -> dict[int, bytes]:
        """Groups that have lost the same rows of data: `found` has each, with its parity of these `rows`."""
        from cas.erasure import combine, recovery_matrix  # numpy: 9 MB that few processes ever need

        g = sidecar.geometry
        # Row after row, the blocks of these groups side by side; what is lost or beyond the pack's end is zero.
        numbers = [[row * g.groups + group for group, _ in found] for row in range(g.data_rows)]
        data = (
            b""
            if row in lost
            else b"".join(
                [(blocks.get(number) or b"").ljust(g.block_bytes, b"\0") for number in numbers[row]]
            )
            for row in range(g.data_rows)
        )
        parity = (b"".join([stored[at] for _, stored in found]) for at in range(len(rows)))
        outputs = combine(
            recovery_matrix(g.data_rows, lost, rows), chain(data, parity), len(found), g.block_bytes
        )
        mended = {}
        for row, output in zip(lost, outputs, strict=True):
            for at, number in enumerate(numbers[row]):
                start = at * g.block_bytes
                block = output[start : start + g.block(number)[1]]
                if digest(block) == sidecar.digests[number]:
                    mended[number] = block
        return mended

    def parity_is_sound(self, sidecar: Sidecar) -> bool:
        """Every parity block is there and intact."""
        groups = range(sidecar.geometry.groups)
        rows = sidecar.geometry.parity_rows
        return all(len(self._sound_parity(sidecar, group, rows)) == rows for group in groups)

    def _sound_parity(self, sidecar: Sidecar, group: int, count: int) -> dict[int, bytes]:
        """Up to `count` parity blocks of a group, by row."""
        g = sidecar.geometry
        sound: dict[int, bytes] = {}
        for row in range(g.parity_rows):
            if len(sound) == count:
                break
            try:
                (block,) = self.sidecars.read(sidecar.pack, [g.parity_block(row, group)])
            except (PackUnreadable, MissingSidecar):
                continue
            if digest(block) == sidecar.digests[g.blocks + row * g.groups + group]:
                sound[row] = block
        return sound

    def _read(self, pack: int, ranges: Sequence[tuple[int, int]]) -> Sequence[bytes | None]:
        """One by one if that is what it takes: an unreadable sector must not cost its neighbours."""
        try:
            return self.place.read(pack, ranges)
        except MissingPack:
            return [None] * len(ranges)
        except PackUnreadable as error:
            if len(ranges) == 1:
                return [None]
            del error
        return [block for each in ranges for block in self._read(pack, [each])]

    # --- reading a sidecar --------------------------------------------------------------------------------------

    def _load(self, pack: int) -> Sidecar:
        length = self.sidecars.length(pack)
        header, geometry, sound = self._read_header(pack, length)
        digests: list[bytes | None] = []
        for number in range(geometry.pages):
            page, intact = self._read_page(pack, geometry, header, number)
            digests += page
            sound &= intact
        return Sidecar(pack, geometry, header, digests, sound and length == geometry.file_bytes)

    def _read_header(self, pack: int, length: int) -> tuple[bytes, Geometry, bool]:
        found: list[tuple[bytes, Geometry]] = []
        for offset in (0, max(0, length - HEADER_BYTES)):
            header = self._read_sidecar(pack, offset, HEADER_BYTES)
            try:
                found.append((header, decode_header(header, self.store_id, pack)))
            except CorruptFrame:
                continue
        if not found:
            raise Unmendable(pack, 0, "both headers of its sidecar are damaged")
        return *found[0], len(found) == 2

    def _read_page(
        self, pack: int, geometry: Geometry, header: bytes, number: int
    ) -> tuple[Sequence[bytes | None], bool]:
        first, second, length = geometry.page(number)
        found: list[list[bytes]] = []
        for offset in (first, second):
            try:
                found.append(decode_page(header, number, self._read_sidecar(pack, offset, length)))
            except CorruptFrame:
                continue
        return (found[0] if found else [None] * (length // 16 - 1)), len(found) == 2

    def _read_sidecar(self, pack: int, offset: int, length: int) -> bytes:
        """Empty where it cannot be read."""
        try:
            return self.sidecars.read(pack, [(offset, length)])[0]
        except PackUnreadable:
            return b""
