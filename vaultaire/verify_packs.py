"""Verification of packs: every file against its row, every row against its file, and the catalog against both.

One pack at a time, each inside an operation of its own: collection never waits longer than for one pack. A pack that
is collected, sealed or written to meanwhile is no damage: its row is read again before anything is said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cas.catalog import PACKS, PackState, get_pack, is_gone, pack_key
from cas.chunk import Hasher
from cas.errors import CasError, MissingPack, UnsupportedFormat
from cas.pack import read_contents
from cas.packs import writer_of
from cas.scanning import DeviceFile
from cas.verify import Damage, DamageKind, PackCheck
from cas.verify_catalog import (
    NOTHING,
    check_placements,
    check_row,
    lost_bases,
    pack_row_damage,
    rows_of,
    tally,
)
from vaultaire.runfile import RunFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cas.catalog import PackRow, Placement
    from cas.pack import Frame
    from cas.verify import Step
    from cas.verify_catalog import Tally
    from vaultaire.findings import Findings
    from vaultaire.store import Store
    from vaultaire.tolerant import TolerantMap

_PACKS_PER_LOOK: Final = 256  # of those whose tallies differ: each look is a pass over all placements


class PackVerification:
    """See the module. `run` does all; memory: some 250 bytes per pack, and what one pack takes.

    `on_progress`: stage, how much is done, of how much (0: not known).
    """

    def __init__(
        self,
        store: Store,
        kv: TolerantMap,
        findings: Findings,
        *,
        read_data: bool,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self._store = store
        self._hasher = Hasher(store.identity.hash_key)
        self._kv = kv
        self._findings = findings
        self._report = findings.report
        self._read_data = read_data
        self._on_progress = on_progress

    def run(self) -> None:
        tallies = self._tally()
        packs = self._rows()
        total = sum(length for _, length in packs)
        differing = []
        for pack, _ in packs:
            placed = self._check_pack(pack, total)
            if placed is not None and placed != tallies.get(pack, NOTHING):
                differing.append(pack)
            self._report.packs += 1
        del tallies
        for begin in range(0, len(differing), _PACKS_PER_LOOK):
            self._look_closely(differing[begin : begin + _PACKS_PER_LOOK])
        self._look_for_lost_bases()
        self._look_for_orphans({pack for pack, _ in packs})

    def _tally(self) -> dict[int, Tally]:
        def note(damage: Damage) -> None:
            self._findings.add_damage(damage)

        def on_page(rows: int) -> None:
            self._report.placements = rows
            self._on_progress("placements", rows, 0)

        return tally(self._kv, note, on_page)

    def _rows(self) -> list[tuple[int, int]]:
        """(pack, length) of every row that can be read."""
        packs = []
        with self._kv.snapshot() as reader:
            for key, value in reader.scan(PACKS):
                pack, row, reason = pack_row_damage(key, value)
                if row is None:
                    self._findings.add_damage(Damage(DamageKind.PACK_COUNTERS, pack, reason))
                else:
                    packs.append((pack, row.length))
        return packs

    # --- one pack ---------------------------------------------------------------------------------------------

    def _check_pack(self, pack: int, total: int) -> Tally | None:
        """The placements that are in order; None if that cannot be said (its frames are not all known)."""
        with self._store.operation():
            row = self._row(pack)
            if row is None:
                return None
            try:
                source = DeviceFile(pack, self._store.packs.path(pack))
            except (MissingPack, CasError) as error:
                missing = isinstance(error, MissingPack)
                kind = DamageKind.PACK_MISSING if missing else DamageKind.PACK_UNREADABLE
                reason = "its file is not there" if missing else str(error)
                self._note_unless_gone(pack, [Damage(kind, pack, reason)])
                return None
            try:
                return self._check_open(pack, row, source, total)
            except UnsupportedFormat as error:
                self._report.skipped.append(f"pack {pack:016x}: {error}")
                return None
            finally:
                source.close()

    def _check_open(self, pack: int, row: PackRow, source: DeviceFile, total: int) -> Tally | None:
        read_bases = self._store.chunks.read_bases
        check = PackCheck(pack, row, self._store.identity, source, self._hasher, self._read_data, read_bases)
        damage: list[Damage] = []
        self._take(check.run(), damage, total)
        placed = None
        with self._kv.snapshot() as reader:
            now = get_pack(reader, pack)
            if now is None:
                return None  # collected meanwhile
            if now.length > row.length and check.knows_all_frames:
                self._take(check.extend(now), damage, total)
            if check.knows_all_frames:
                found, placed = check_row(reader, pack, now, check.frames)
                damage += found
        self._note_unless_gone(pack, damage)
        return placed

    def _take(self, steps: Iterable[Step], damage: list[Damage], total: int) -> None:
        for step in steps:
            damage += step.damage
            self._report.pack_bytes += step.read_bytes
            self._on_progress("packs", self._report.pack_bytes, total)

    def _note_unless_gone(self, pack: int, damage: Sequence[Damage]) -> None:
        if not damage:
            return
        row = self._row(pack)
        if row is None or (row.state == PackState.CONDEMNED and not row.placed_chunks):
            return  # collection is done with it, or about to be
        for each in damage:
            self._findings.add_damage(each)

    def _row(self, pack: int) -> PackRow | None:
        with self._kv.snapshot() as reader:
            return get_pack(reader, pack)

    # --- packs whose placements are not those that were counted ---------------------------------------------------

    def _look_closely(self, packs: Sequence[int]) -> None:
        """They changed since they were counted, or a row names what is not there: each row on its own."""
        chunks_of = rows_of(self._kv, frozenset(packs), lambda rows: self._on_progress("placements", rows, 0))
        for pack, chunks in chunks_of.items():
            with self._store.operation():
                try:
                    source = DeviceFile(pack, self._store.packs.path(pack))
                except CasError:
                    continue  # missing or unreadable: said already, unless it is gone
                try:
                    frames = self._frames(pack, source)
                    with self._kv.snapshot() as reader:
                        damage = list(check_placements(reader, pack, chunks, source, frames))
                except CasError:
                    continue
                finally:
                    source.close()
            for each in damage:
                self._findings.add_damage(each)

    def _frames(self, pack: int, source: DeviceFile) -> dict[int, Frame]:
        row = self._row(pack)
        length = source.length() if row is None or row.state == PackState.OPEN else row.length
        try:
            return {frame.offset: frame for frame in read_contents(pack, source.read, length).frames}
        except CasError:
            return {}

    def _look_for_lost_bases(self) -> None:
        """Last of all, when it is known which places are in doubt."""

        def is_doubtful(chunk: bytes, placement: Placement) -> bool:
            return self._findings.doubt(chunk, placement) is not None

        def on_page(frames: int) -> None:
            self._on_progress("bases", frames, 0)

        for damage in lost_bases(self._kv, is_doubtful, on_page):
            with self._store.operation():
                try:
                    assert damage.frame is not None
                    self._store.chunks.read_bases(damage.pack, damage.frame)
                except CasError as error:
                    self._findings.add_damage(replace(damage, reason=f"{damage.reason}: {error}"))

    # --- files that no row knows --------------------------------------------------------------------------------

    def _look_for_orphans(self, known: set[int]) -> None:
        strange = [pack for pack in self._store.packs.packs() if pack not in known]
        # In this order: a process has its run file from before its first pack to after its last row, and who seals
        # the packs of a dead one removes its strays before its run file.
        writers = RunFiles(self._store.directory / "run").writers()
        for pack in strange:
            if writer_of(pack) in writers or self._is_known(pack):
                continue
            if self._store.packs.path(pack).exists():
                reason = "no row knows this file, and its writer is gone: it only takes room"
                self._findings.add_damage(Damage(DamageKind.PACK_ORPHAN, pack, reason))

    def _is_known(self, pack: int) -> bool:
        """It has a row by now, or collection is about to remove it."""
        with self._kv.snapshot() as reader:
            return reader.get(PACKS, pack_key(pack)) is not None or is_gone(reader, pack)
