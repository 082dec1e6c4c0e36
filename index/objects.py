"""The current object per key: what GET reads and LIST shows. Every change of one is in `index.versions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from index import tree
from index.records import ObjectRecord
from index.tables import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from index.kv import Reader


def get_object(reader: Reader, bucket_id: int, key: bytes) -> ObjectRecord | None:
    """The current object; never a delete marker. Raises InvalidKey, CorruptRecord, UnsupportedRecord."""
    row = tree.find_row(reader, OBJECTS, bucket_id, key)
    value = None if row is None else reader.get(OBJECTS, row)
    return None if value is None else ObjectRecord.decode(value)


def iterate_objects(reader: Reader, bucket_id: int) -> Iterator[tuple[bytes, ObjectRecord]]:
    """Every current object, in key order. Raises CorruptRecord, UnsupportedRecord."""
    for key, value in tree.walk(reader, OBJECTS, bucket_id, b"", None):
        yield key, ObjectRecord.decode(value)
