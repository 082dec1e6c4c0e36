"""What is known to be damaged: chunks that are lost, and packs that wait to be mended. Rows of the ordered map.

Table `cas.damaged` (chunk id -> where the damaged copy is) and in `cas.state` the number of its rows and one row per
pack to be mended. Layouts: cas/FORMAT.md.

A damaged chunk is one that parity could not bring back. Whoever finds that writes its row. A lookup counts it as
unknown, so the next upload of the same bytes brings a copy, whose publication replaces the placement and takes the
row away: every object that names the chunk is whole again. While no chunk is damaged all this costs one read of a
row that is not there.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.errors import CorruptRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from cas.ports import Reader, Transaction

DAMAGED: Final = "cas.damaged"
_STATE: Final = "cas.state"  # of cas.catalog, which builds upon this module
_COUNT: Final = b"damaged"
_MENDING: Final = b"mending/"
_MENDING_END: Final = b"mending0"  # "0" follows "/"
_ROW: Final = struct.Struct(">BQI")
_VERSION: Final = 1


class Damage(NamedTuple):
    """Where the damaged copy of a chunk is."""

    pack: int
    frame: int  # offset of the frame's header


def damaged_chunks(reader: Reader) -> int:
    """How many chunks are known to be damaged."""
    row = reader.get(_STATE, _COUNT)
    return 0 if row is None else int.from_bytes(row, "big")


def known_damage(reader: Reader, ids: Collection[bytes]) -> frozenset[bytes]:
    """Those of `ids` (sorted is cheapest) that are known to be damaged."""
    if not ids or not damaged_chunks(reader):
        return frozenset()
    asked = list(ids)
    rows = reader.get_many(DAMAGED, asked)
    return frozenset([chunk for chunk, row in zip(asked, rows, strict=True) if row is not None])


def iterate_damage(
    reader: Reader, start: bytes = b"", limit: int | None = None
) -> Iterator[tuple[bytes, Damage]]:
    """(chunk, where its damaged copy is) from chunk id `start` on. Raises CorruptRow."""
    for chunk, row in reader.scan(DAMAGED, start, limit=limit):
        if len(row) < _ROW.size or row[0] != _VERSION:
            raise CorruptRow(DAMAGED, chunk, "length or version is not known here")
        _, pack, frame = _ROW.unpack_from(row)
        yield chunk, Damage(pack, frame)


def record_damage(txn: Transaction, damage: Mapping[bytes, Damage]) -> None:
    """Remember these chunks as damaged. The caller has seen, in this transaction, that their placements are there."""
    known = known_damage(txn, sorted(damage))
    for chunk, where in damage.items():
        txn.put(DAMAGED, chunk, _ROW.pack(_VERSION, where.pack, where.frame))
    _count(txn, len(damage.keys() - known))


def forget_damage(txn: Transaction, ids: Iterable[bytes]) -> None:
    """They are whole again, or gone."""
    removed = sum([txn.delete(DAMAGED, chunk) for chunk in ids])
    if removed:
        _count(txn, -removed)


def _count(txn: Transaction, change: int) -> None:
    count = damaged_chunks(txn) + change
    if count > 0:
        txn.put(_STATE, _COUNT, count.to_bytes(8, "big"))
    else:
        txn.delete(_STATE, _COUNT)


# --- packs to be mended -----------------------------------------------------------------------------------------


def queue_mending(txn: Transaction, pack: int) -> None:
    """A block of `pack` was found damaged: somebody shall look at all of it."""
    txn.put(_STATE, _MENDING + pack.to_bytes(8, "big"), b"")


def unqueue_mending(txn: Transaction, pack: int) -> None:
    txn.delete(_STATE, _MENDING + pack.to_bytes(8, "big"))


def packs_to_mend(reader: Reader) -> list[int]:
    """Ascending."""
    rows = reader.scan(_STATE, _MENDING, _MENDING_END)
    return [int.from_bytes(key[len(_MENDING) :], "big") for key, _ in rows]
