"""Publishing: what the commit of an upload does to the catalog. The rules are those of `cas.catalog`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from cas.bases import distinct, put_bases
from cas.catalog import (
    PACKS,
    PLACEMENTS,
    PackRow,
    PackState,
    frame_of,
    get_pack,
    has_bases,
    pack_key,
    pack_of,
    put_pack,
    read_epoch,
    tally,
)
from cas.damage import forget_damage, known_damage
from cas.errors import PackGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cas.bases import FrameBases, FrameKey
    from cas.catalog import PackProgress
    from cas.ports import Reader, Transaction

_NO_BASES: Final[dict[FrameKey, FrameBases]] = {}


def publish(
    txn: Transaction,
    placements: Mapping[bytes, bytes],
    relied: Iterable[int],
    progress: Iterable[PackProgress],
    bases: Mapping[FrameKey, FrameBases] = _NO_BASES,
) -> None:
    """Make chunks known, inside a commit; everything named here is durable already.

    `placements`: id -> row, in packs named by `progress` or `relied`. `relied`: packs that must still have a row.
    `bases`: of every frame with bases among those of `placements`. Raises PackGone. Runs any number of times.
    """
    _check_rows(txn, relied)
    epoch = read_epoch(txn)
    rows = {step.pack: _advance(get_pack(txn, step.pack), step, epoch) for step in progress}
    is_condemned = _is_condemned(txn)
    gained: dict[int, tuple[int, int]] = {}  # pack -> chunks, raw bytes
    ids = sorted(placements)
    damaged = known_damage(txn, ids)
    healed = []
    used: set[FrameKey] = set()  # frames with bases
    for chunk, old in zip(ids, txn.get_many(PLACEMENTS, ids), strict=True):
        new = placements[chunk]
        if old is not None:
            # An upload may still carry the placement that was found damaged: that is no new copy.
            if not is_condemned(pack_of(old)) and (chunk not in damaged or new == old):
                continue
            if has_bases(new) and not has_bases(old):
                continue  # what others may decode by stays in a frame without bases
            tally(gained, old, -1)
        txn.put(PLACEMENTS, chunk, new)
        if bases and has_bases(new):
            used.add(frame_of(new))
        tally(gained, new, 1)
        if chunk in damaged:
            healed.append(chunk)
    forget_damage(txn, healed)
    if used:
        _publish_bases(txn, {frame: bases[frame] for frame in sorted(used)})
    for pack, (chunks, raw_bytes) in gained.items():
        row = rows.get(pack) or get_pack(txn, pack)
        if row is None:
            raise PackGone(pack)
        placed_chunks, placed_bytes = row.placed_chunks + chunks, row.placed_bytes + raw_bytes
        rows[pack] = replace(row, placed_chunks=placed_chunks, placed_bytes=placed_bytes, touched_epoch=epoch)
    for pack, row in sorted(rows.items()):
        put_pack(txn, pack, row)


def _publish_bases(txn: Transaction, frames: Mapping[FrameKey, FrameBases]) -> None:
    """Raises PackGone if a base is not where its rules (`cas.bases`) want it: then an upload has outlived a wait."""
    ids = distinct(frames.values())
    for row in txn.get_many(PLACEMENTS, ids):
        if row is None or has_bases(row):
            raise PackGone(0 if row is None else pack_of(row))
    for frame, bases in frames.items():
        put_bases(txn, frame, bases)


def _is_condemned(reader: Reader) -> Callable[[int], bool]:
    """Each pack is asked about once; a scan of all condemned ones would hold up every commit while many are."""

    @cache
    def test(pack: int) -> bool:
        row = get_pack(reader, pack)
        return row is not None and row.state == PackState.CONDEMNED

    return test


def _check_rows(txn: Transaction, relied: Iterable[int]) -> None:
    packs = sorted(relied)
    for pack, row in zip(packs, txn.get_many(PACKS, [pack_key(pack) for pack in packs]), strict=True):
        if row is None:
            raise PackGone(pack)


def _advance(row: PackRow | None, step: PackProgress, epoch: int) -> PackRow:
    if row is None:
        if step.has_row:
            raise PackGone(step.pack)
        row = PackRow(PackState.OPEN, step.kind, step.domain, 0, created_epoch=epoch, touched_epoch=epoch)
    # Commits may arrive in another order than their syncs: what is further wins.
    # Frames that nobody has published yet are an upload's, too: collection shall leave the pack alone meanwhile.
    touched = epoch if step.frames > row.frames else row.touched_epoch
    return replace(
        row,
        touched_epoch=touched,
        state=max(row.state, step.state),
        footerless=row.footerless or step.footerless,
        length=max(row.length, step.length),
        frames=max(row.frames, step.frames),
        chunks=max(row.chunks, step.chunks),
        raw_bytes=max(row.raw_bytes, step.raw_bytes),
    )
