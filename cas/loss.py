"""From lost bytes of a pack to the chunks that lie there, by the catalog alone: the frames may be gone.

Works in slices, each with a snapshot of its own: a scan of all placements (some 600,000 a second), for the catalog
keeps no way from packs to chunks. Nothing here decides that bytes are lost: see `cas.mending`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from cas.catalog import PLACEMENTS, decode_placement, pack_of
from cas.damage import Damage, forget_damage, iterate_damage
from cas.healing import record_placed

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cas.catalog import Placement
    from cas.ports import OrderedMap, Transaction
    from cas.store import ChunkStore

_SCAN_ROWS: Final = 50_000
_RECHECK_CHUNKS: Final = 64
_RECORD_BATCH: Final = 1000


def needs(placement: Placement, ranges: Sequence[tuple[int, int]]) -> bool:
    """Reading this chunk needs a byte of these (start, stop) ranges of its pack."""
    begin = placement.frame + placement.header_length
    end = placement.frame_end
    if placement.raw_frame:
        begin += placement.inside
        end = begin + placement.length
    return any(start < end and begin < stop for start, stop in ranges)


def record_loss(kv: OrderedMap, pack: int, ranges: Sequence[tuple[int, int]]) -> Generator[None, None, int]:
    """Record every chunk as damaged that needs a byte of these ranges. Yields between slices; returns how many."""
    after: bytes | None = b""
    recorded = 0
    while after is not None:
        found: dict[bytes, Damage] = {}
        count = 0
        with kv.snapshot() as reader:
            last = after
            for chunk, row in reader.scan(PLACEMENTS, last, limit=_SCAN_ROWS):
                count += 1
                last = chunk + b"\0"
                if pack_of(row) == pack and needs(placement := decode_placement(chunk, row), ranges):
                    found[chunk] = Damage(pack, placement.frame)
        after = last if count == _SCAN_ROWS else None
        for batch in _batches(found):
            recorded += kv.commit(partial(_record, batch))
        yield
    return recorded


def recheck_damage(kv: OrderedMap, chunks: ChunkStore, pack: int | None = None) -> Generator[None, None, int]:
    """Forget the damage of chunks that can be read again, or are placed nowhere. Yields between slices.

    With `pack` only of those whose damaged copy is there. Returns how many are still damaged. The caller holds an
    operation.
    """
    still = 0
    after: bytes | None = b""
    while after is not None:
        with kv.snapshot() as reader:
            seen = list(iterate_damage(reader, after, _RECHECK_CHUNKS))
            batch = [chunk for chunk, where in seen if pack is None or where.pack == pack]
            rows = reader.get_many(PLACEMENTS, batch)
            placed = [chunk for chunk, row in zip(batch, rows, strict=True) if row is not None]
            bad = {c for c, good in zip(placed, chunks.can_be_read(reader, placed), strict=True) if not good}
        healed = [chunk for chunk in batch if chunk not in bad]
        if healed:
            kv.commit(partial(_forget, healed))
        still += len(bad)
        after = seen[-1][0] + b"\0" if len(seen) == _RECHECK_CHUNKS else None
        yield
    return still


def _forget(healed: Sequence[bytes], txn: Transaction) -> None:
    forget_damage(txn, healed)


def _record(batch: dict[bytes, Damage], txn: Transaction) -> int:
    return record_placed(txn, batch)


def _batches(found: dict[bytes, Damage]) -> list[dict[bytes, Damage]]:
    items = sorted(found.items())
    return [dict(items[start : start + _RECORD_BATCH]) for start in range(0, len(items), _RECORD_BATCH)]
