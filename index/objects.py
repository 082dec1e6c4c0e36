"""The current object per key: what GET reads and LIST shows. Counters are kept in the same commit.

Preconditions (If-Match, the bucket exists) are the caller's, evaluated with `get_object` inside the transaction.
A bucket without versioning has the null version only: a put replaces it, a delete leaves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index import counters, tree
from index.records import ObjectRecord
from index.tables import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from index.kv import Reader, Transaction


def get_object(reader: Reader, bucket_id: int, key: bytes) -> ObjectRecord | None:
    """The current object. Raises InvalidKey, CorruptRecord, UnsupportedRecord."""
    row = tree.find_row(reader, OBJECTS, bucket_id, key)
    value = None if row is None else reader.get(OBJECTS, row)
    return None if value is None else ObjectRecord.decode(value)


def put_object(
    txn: Transaction, bucket_id: int, key: bytes, record: ObjectRecord, writer: int
) -> ObjectRecord | None:
    """Make `record` the current object, at the transaction's sequence; the one that it replaces, if any.

    `writer` is this process's number. Raises InvalidKey, ValueError (see `ObjectRecord.encode`).
    """
    if record.delete_marker:
        raise ValueError("a delete marker is never the current object: LIST would show it")
    row = tree.make_row(txn, OBJECTS, bucket_id, key)
    value = txn.get(OBJECTS, row)
    previous = None if value is None else ObjectRecord.decode(value)
    txn.put(OBJECTS, row, record.encode(txn.sequence))
    counters.count(txn, bucket_id, writer, added=record, gone=previous)
    return previous


def replace_object(txn: Transaction, bucket_id: int, key: bytes, record: ObjectRecord) -> None:
    """Write `record` over the one that it was read from in this transaction: the same version with other tags, ...

    Sequence, size and counters stay: nothing that LIST or a copy goes by has changed. Raises InvalidKey, ValueError.
    """
    txn.put(OBJECTS, tree.make_row(txn, OBJECTS, bucket_id, key), record.encode())


def delete_object(txn: Transaction, bucket_id: int, key: bytes, writer: int) -> ObjectRecord | None:
    """Remove the current object; what it was, or None if there was none. Raises InvalidKey."""
    previous = get_object(txn, bucket_id, key)
    if previous is not None:
        tree.remove_row(txn, OBJECTS, bucket_id, key)
        counters.count(txn, bucket_id, writer, added=None, gone=previous)
    return previous


def iterate_objects(reader: Reader, bucket_id: int) -> Iterator[tuple[bytes, ObjectRecord]]:
    """Every current object, in key order. Raises CorruptRecord, UnsupportedRecord."""
    for key, value in tree.walk(reader, OBJECTS, bucket_id, b"", None):
        yield key, ObjectRecord.decode(value)
