"""Configurations of a bucket: a short name and bytes that only its caller understands (CORS, policy, tagging, ...).

A row is the bucket's id and the name, so everything goes with the bucket (`index.buckets.delete_bucket`) and can never
appear in a new one of the same name. Values carry their own version byte; see SCHEMA.md, "Bucket configurations".

`BucketRecord.configured` says whether a bucket has any, and is written in the same transaction: who has the record
need not look for what is not there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from index import tree
from index.errors import CorruptRecord
from index.keys import encode_id
from index.records import BucketRecord
from index.tables import BUCKETS, CONFIGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from index.kv import Reader, Transaction


def get_config(reader: Reader, bucket_id: int, name: str) -> bytes | None:
    """The stored value; None if nobody set it."""
    return reader.get(CONFIGS, _row(bucket_id, name))


def get_configs(reader: Reader, bucket_id: int, names: Sequence[str]) -> list[bytes | None]:
    """As `get_config`, in the order of `names`; one round trip."""
    return reader.get_many(CONFIGS, [_row(bucket_id, name) for name in names])


def put_config(txn: Transaction, bucket_id: int, name: str, value: bytes) -> None:
    """Set or replace it. The caller has seen in this transaction that the bucket exists."""
    txn.put(CONFIGS, _row(bucket_id, name), value)
    _mark(txn, bucket_id, configured=True)


def delete_config(txn: Transaction, bucket_id: int, name: str) -> bool:
    """True if it was set."""
    found = txn.delete(CONFIGS, _row(bucket_id, name))
    if found and tree.is_empty(txn, CONFIGS, encode_id(bucket_id)):
        _mark(txn, bucket_id, configured=False)
    return found


def _mark(txn: Transaction, bucket_id: int, *, configured: bool) -> None:
    row = encode_id(bucket_id)
    value = txn.get(BUCKETS, row)
    if value is None:
        raise CorruptRecord("bucket configuration", f"bucket {bucket_id} has no record")
    record = BucketRecord.decode(value)
    if record.configured is not configured:
        txn.put(BUCKETS, row, replace(record, configured=configured).encode())


def _row(bucket_id: int, name: str) -> bytes:
    return encode_id(bucket_id) + name.encode("ascii")
