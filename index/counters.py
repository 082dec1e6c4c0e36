"""How many objects a bucket holds and how many bytes: kept in the commits that change them.

One row per bucket and writer (worker process), so that commits of different workers do not meet in one row; a
writer's own row may be negative, only the sum over writers means something. A version counts whether it is the current
one of its key or not, and whether or not a delete marker hides it; delete markers themselves do not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from index.errors import CorruptRecord
from index.keys import encode_id, successor
from index.tables import COUNTERS

if TYPE_CHECKING:
    from index.kv import Reader, Transaction
    from index.records import ObjectRecord

_ROW: Final = struct.Struct(">QI")  # bucket id, writer number
_COUNTS: Final = struct.Struct(">Bqqq")  # version, objects, logical bytes, inline bytes
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class NamesStatistics:
    objects: int  # versions, without delete markers
    logical_bytes: int  # the sum of their sizes
    inline_bytes: int  # of those, what lies in records instead of chunks


def statistics(reader: Reader, bucket_id: int | None = None) -> NamesStatistics:
    """Of one bucket, or of all. Reads one row per bucket and writer that ever changed it."""
    prefix = b"" if bucket_id is None else encode_id(bucket_id)
    totals = [0, 0, 0]
    for _, value in reader.scan(COUNTERS, prefix, successor(prefix)):
        totals = [total + count for total, count in zip(totals, _decode(value), strict=True)]
    return NamesStatistics(*totals)


def count(
    txn: Transaction, bucket_id: int, writer: int, added: ObjectRecord | None, gone: ObjectRecord | None
) -> None:
    """Note, in `writer`'s row, that `added` is a version now and `gone` is none any more. Delete markers do not count."""
    objects, logical, inline = 0, 0, 0
    for record, sign in ((added, 1), (gone, -1)):
        if record is not None and not record.delete_marker:
            objects += sign
            logical += sign * record.size
            inline += sign * len(record.inline or b"")
    if not (objects or logical or inline):
        return
    row = _ROW.pack(bucket_id, writer)
    value = txn.get(COUNTERS, row)
    if value is not None:
        before = _decode(value)
        objects, logical, inline = objects + before[0], logical + before[1], inline + before[2]
    txn.put(COUNTERS, row, _COUNTS.pack(_VERSION, objects, logical, inline))


def _decode(value: bytes) -> tuple[int, int, int]:
    if len(value) != _COUNTS.size or value[0] != _VERSION:
        raise CorruptRecord("counter", f"{value.hex()}")
    _, objects, logical, inline = _COUNTS.unpack(value)
    return objects, logical, inline
