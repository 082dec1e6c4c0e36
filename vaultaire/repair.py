"""Repair of a store: mend what parity or the packs' own redundancy can, then say exactly what cannot be mended.

    result = repair(store)
    result.whole, result.mended, result.left.affected

The steps: a verification finds the damaged packs; each of them, and each pack whose sidecar is missing or damaged, is
mended (`cas.mending`: damaged blocks from parity, footers from frames, sidecars from sound packs); chunks that are
lost are recorded, so that uploads heal them, and those that can be read again are cleared; if anything was found, a
second verification says what is left: findings, and the buckets, keys and versions that lost bytes.

Guarantees: those of `cas.mending` for every write; beside running servers and collection; may be ended at any moment
and called again. It never removes anything but a sidecar that is of no use. With `dry_run` nothing is written, and
`left` is what the first verification found. What is wrong with names, LMDB or the journal is reported, not mended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cas.catalog import PackState, iterate_packs
from cas.damage import damaged_chunks, packs_to_mend, unqueue_mending
from cas.errors import CasError
from cas.loss import recheck_damage
from cas.verify import DamageKind
from vaultaire.parity import mend, parity_percent, settle, sidecar_is_sound
from vaultaire.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from cas.mending import Mended
    from vaultaire.store import Store
    from vaultaire.verify import Report

_OF_PACKS = frozenset(DamageKind)


@dataclass(slots=True)
class Repair:
    """What was done (with `dry_run`: would be), and what is left."""

    dry_run: bool
    left: Report  # what a verification finds now
    mended: list[Mended] = field(default_factory=list)  # packs that were changed, or have lost bytes
    failed: list[tuple[int, str]] = field(default_factory=list)  # packs that could not be written, and why
    damaged_chunks: int = 0  # lost, and waiting for an upload of the same bytes

    @property
    def whole(self) -> bool:
        """No object has lost a byte, and names and metadata are in order."""
        others = [finding for finding in self.left.findings if finding.kind not in _OF_PACKS]
        return not self.left.affected and not others and not self.left.more_findings and not self.failed

    def to_json(self) -> dict[str, object]:
        return {
            "whole": self.whole,
            "dry_run": self.dry_run,
            "packs": [
                {
                    "pack": f"{each.pack:016x}",
                    "mended_blocks": each.mended_blocks,
                    "footer_written": each.footer_written,
                    "sidecar": each.sidecar,
                    "lost": [list(lost) for lost in each.lost],
                    "unwritten_blocks": each.unwritten_blocks,
                }
                for each in self.mended
            ],
            "failed": [{"pack": f"{pack:016x}", "reason": reason} for pack, reason in self.failed],
            "damaged_chunks": self.damaged_chunks,
            "left": self.left.to_json(),
        }


def _ignore(stage: str, done: int, total: int) -> None:
    del stage, done, total


def repair(
    store: Store, *, dry_run: bool = False, on_progress: Callable[[str, int, int], None] = _ignore
) -> Repair:
    """Mend the store. Blocking, for as long as reading all packs takes (twice if something was found).

    `on_progress`: stage, done, total (0: not known). Raises KvError.
    """
    result = Repair(dry_run, verify(store, on_progress=on_progress))
    found = {finding.pack for finding in result.left.findings if finding.pack is not None}
    packs = sorted(found | _waiting(store) | _without_sound_sidecar(store, on_progress))
    for done, pack in enumerate(packs):
        on_progress("mending", done, len(packs))
        _mend(store, pack, result)
    if not dry_run:
        with store.operation():
            for _ in recheck_damage(store.kv, store.chunks):
                pass
    if (found or any(each.lost for each in result.mended)) and not dry_run:
        result.left = verify(store, on_progress=on_progress)
    with store.kv.snapshot() as reader:
        result.damaged_chunks = damaged_chunks(reader)
    return result


def _mend(store: Store, pack: int, result: Repair) -> None:
    try:
        mended = mend(store, pack, dry_run=result.dry_run)
    except (CasError, OSError) as error:
        result.failed.append((pack, str(error)))
        return
    if mended is not None and (mended.changed or mended.lost or mended.unwritten_blocks):
        result.mended.append(mended)
    if result.dry_run:
        return
    if mended is not None:
        for _ in settle(store, mended):
            pass
    store.kv.commit(lambda txn: unqueue_mending(txn, pack))


def _waiting(store: Store) -> set[int]:
    with store.kv.snapshot() as reader:
        return set(packs_to_mend(reader))


def _without_sound_sidecar(store: Store, on_progress: Callable[[str, int, int], None]) -> set[int]:
    """Sealed packs that should have parity and have none, or a damaged one. Reads all sidecars."""
    with store.kv.snapshot() as reader:
        sealed = [pack for pack, row in iterate_packs(reader) if row.state == PackState.SEALED]
        wanted = bool(parity_percent(reader))
    unsound = set()
    for done, pack in enumerate(sealed):
        on_progress("parity", done, len(sealed))
        with store.operation():
            exists = store.sidecars.path(pack).exists()
            sound = sidecar_is_sound(store, pack) if exists else not wanted
        if not sound:
            unsound.add(pack)
    return unsound
