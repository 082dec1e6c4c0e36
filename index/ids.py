"""Allocators of bucket ids and node ids: numbers that ascend from 1 and are never used twice, deleted or not.

A row of `idx.meta` holds the next number. It is written only when a bucket is created or a key longer than one
segment opens a node, so it is not a row that every commit updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from index.keys import decode_id, encode_id
from index.tables import META

if TYPE_CHECKING:
    from index.kv import Transaction

BUCKET: Final = b"next-bucket-id"
NODE: Final = b"next-node-id"


def allocate(txn: Transaction, allocator: bytes) -> int:
    """The next number of `allocator` (BUCKET or NODE); taken if the transaction commits."""
    value = txn.get(META, allocator)
    number = 1 if value is None else decode_id(value)
    txn.put(META, allocator, encode_id(number + 1))
    return number
