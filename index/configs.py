"""Configurations of a bucket: a short name and bytes that only its caller understands (CORS, policy, tagging, ...).

A row is the bucket's id and the name, so everything goes with the bucket (`index.buckets.delete_bucket`) and can never
appear in a new one of the same name. Values carry their own version byte; see SCHEMA.md, "Bucket configurations".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.keys import encode_id
from index.tables import CONFIGS

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


def delete_config(txn: Transaction, bucket_id: int, name: str) -> bool:
    """True if it was set."""
    return txn.delete(CONFIGS, _row(bucket_id, name))


def _row(bucket_id: int, name: str) -> bytes:
    return encode_id(bucket_id) + name.encode("ascii")
