"""How much a bucket holds, in objects and bytes: kept in the commits that change it.

One row per bucket and writer (a process, by the number of its start), so that commits of different processes do not
meet in one row; a writer's own row may be negative, only the sum over writers means something. A version counts whether
it is the current one of its key or not, and whether or not a delete marker hides it; delete markers themselves do not.
Parts of uploads in progress are counted apart.

**Folding.** Every start of a process makes new rows, and those of dead ones would pile up. So who is about to make one
row too many adds all that there are to its own and deletes them, in its commit. That is exact beside living writers,
too: each reads its row inside its transaction, and begins a new one if it is gone. So a bucket has at most `FOLD_ROWS`
rows, a sum is one short scan, and with more writers than that folding costs each commit less than one row.

**Correction.** `stored_bytes` is what the uploads of the present versions added to the packs. It drifts from what the
bucket needs: copies add nothing, and what one upload deduplicated against another outlives it. A mark (collection's
walk over all manifests) knows; what it found less what was counted at that moment is kept in a row of its own, as
writer `MARK`, and replaced by the next one. The sum of all rows is then the best that is known.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final

from index.errors import CorruptRecord
from index.keys import encode_id, successor
from index.tables import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from index.kv import Reader, Transaction
    from index.records import ObjectRecord

_WRITER: Final = struct.Struct(">I")
_COUNTS: Final = struct.Struct(">Bqqqqqq")  # version, then as in `Counts`
_VERSION: Final = 2
FOLD_ROWS: Final = 8  # more than a server has processes, mostly
MARK: Final = 0xFFFF_FFFF  # no process has this number; its row is a correction, and is never folded

Counts = tuple[int, int, int, int, int, int]
"""Objects; logical, inline and stored bytes of versions; sizes and stored bytes of parts in progress."""
NOTHING: Final[Counts] = (0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class NamesStatistics:
    objects: int  # versions, without delete markers
    logical_bytes: int  # the sum of their sizes
    inline_bytes: int  # of those, what lies in records instead of chunks
    stored_bytes: int = 0  # the sum of their `new_stored_bytes`
    part_bytes: int = 0  # sizes of the parts of uploads in progress
    part_stored_bytes: int = 0  # the sum of their `new_stored_bytes`
    correction_bytes: int = 0  # by which a mark found more stored than was counted; see the module

    @property
    def used_logical_bytes(self) -> int:
        """What a quota counts: uploads in progress too."""
        return self.logical_bytes + self.part_bytes

    @property
    def used_stored_bytes(self) -> int:
        """Likewise, and corrected. Never negative, though deletes since the last mark may take away more than they free."""
        return max(0, self.stored_bytes + self.part_stored_bytes + self.correction_bytes)


def statistics(reader: Reader, bucket_id: int | None = None) -> NamesStatistics:
    """Of one bucket, or of all. One scan, over at most `FOLD_ROWS` + 1 rows per bucket. Raises CorruptRecord."""
    return total_of(reader, COUNTERS, b"" if bucket_id is None else encode_id(bucket_id))


def total_of(reader: Reader, table: str, prefix: bytes) -> NamesStatistics:
    """The sum of all rows of `table` that begin with `prefix`. Raises CorruptRecord."""
    objects = logical = inline = stored = parts = part_stored = correction = 0
    for row, value in reader.scan(table, prefix, successor(prefix)):  # in every commit where there is a quota
        a, b, c, d, e, f = _decode(value)
        if row[-4:] == _MARK_ROW:
            correction += d
            continue
        objects += a
        logical += b
        inline += c
        stored += d
        parts += e
        part_stored += f
    return NamesStatistics(objects, logical, inline, stored, parts, part_stored, correction)


def counts_of(found: NamesStatistics) -> Counts:
    """As one sum, the correction among the stored bytes."""
    objects, logical, inline, stored, parts, part_stored, correction = astuple(found)
    return objects, logical, inline, stored + correction, parts, part_stored


def added(record: ObjectRecord | None) -> Counts:
    """What a version adds to the counters. Delete markers do not count."""
    if record is None or record.delete_marker:
        return NOTHING
    return 1, record.size, len(record.inline or b""), record.new_stored_bytes, 0, 0


def change_of(new: ObjectRecord | None, gone: ObjectRecord | None) -> Counts:
    """How the counters change when `new` is a version now and `gone` is none any more."""
    if gone is None or gone.delete_marker:
        return added(new)
    return add_up((added(new), negative(added(gone))))


def add_up(all_counts: Iterable[Counts]) -> Counts:
    total = NOTHING
    for counts in all_counts:
        total = (
            total[0] + counts[0],
            total[1] + counts[1],
            total[2] + counts[2],
            total[3] + counts[3],
            total[4] + counts[4],
            total[5] + counts[5],
        )
    return total


def negative(counts: Counts) -> Counts:
    return -counts[0], -counts[1], -counts[2], -counts[3], -counts[4], -counts[5]


def add(txn: Transaction, table: str, prefix: bytes, writer: int, change: Counts) -> None:
    """Add `change` to `writer`'s row below `prefix`, folding the others if there are many. Raises CorruptRecord."""
    row = prefix + _WRITER.pack(writer)
    value = txn.get(table, row)
    before = _fold(txn, table, prefix) if value is None else _decode(value)
    txn.put(table, row, _COUNTS.pack(_VERSION, *add_up((before, change))))


def correct(txn: Transaction, bucket_id: int, correction_bytes: int) -> int:
    """Let a mark's correction replace the one before; by how much the bucket's stored bytes grew with it."""
    row = encode_id(bucket_id) + _MARK_ROW
    value = txn.get(COUNTERS, row)
    before = 0 if value is None else _decode(value)[3]
    if correction_bytes == before:
        return 0
    if correction_bytes:
        txn.put(COUNTERS, row, _COUNTS.pack(_VERSION, 0, 0, 0, correction_bytes, 0, 0))
    else:
        txn.delete(COUNTERS, row)
    return correction_bytes - before


def _fold(txn: Transaction, table: str, prefix: bytes) -> Counts:
    """What the new row of a writer begins with: nothing, or all that other rows had."""
    rows = list(txn.scan(table, prefix, prefix + _MARK_ROW, limit=FOLD_ROWS))
    if len(rows) < FOLD_ROWS:
        return NOTHING
    for row, _ in rows:
        txn.delete(table, row)
    return add_up(_decode(value) for _, value in rows)


def _decode(value: bytes) -> Counts:
    if len(value) != _COUNTS.size or value[0] != _VERSION:
        raise CorruptRecord("counter", f"{value.hex()}")
    counts: Counts = _COUNTS.unpack(value)[1:]
    return counts


_MARK_ROW: Final = _WRITER.pack(MARK)
