"""Buckets: a name, an owner, and a number under which everything else is stored.

The number is never reused, so what a crash, a bug or a slow reader still holds of a deleted bucket can never appear
in a new one of the same name. Names are checked by the caller (`vaultaire.s3.names`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from index import ids, quotas, tree
from index.errors import (
    BucketExists,
    BucketNotEmpty,
    CorruptRecord,
    NoSuchBucket,
    VersioningFixed,
    VersioningNeeded,
)
from index.expiry import upload_page
from index.keys import decode_id, encode_id, successor
from index.kv import MAX_KEY_BYTES
from index.records import BucketRecord
from index.tables import BUCKET_NAMES, BUCKETS, CONFIGS, COUNTERS, OBJECTS, PARTS, TOKENS, UPLOADS, VERSIONS
from index.uploads import drop_parts, remove_upload

if TYPE_CHECKING:
    from collections.abc import Container

    from index.kv import Reader, Transaction
    from index.values import DefaultRetention, Prefixes, Versioning

_DELETE_ROWS: Final = 1000  # read at a time while a table is emptied: bounds memory, nothing else


@dataclass(frozen=True, slots=True)
class BucketPage:
    buckets: list[BucketRecord]  # by name
    truncated: bool  # there are more: go on after the last one's name


def get_bucket(reader: Reader, name: str) -> BucketRecord | None:
    """Two lookups. Raises CorruptRecord, UnsupportedRecord."""
    value = reader.get(BUCKET_NAMES, name.encode())
    return None if value is None else _by_row(value, reader.get(BUCKETS, value))


def bucket_by_id(reader: Reader, bucket_id: int) -> BucketRecord:
    """Raises CorruptRecord if there is none: whoever has the id of a bucket has seen a row of it."""
    return _by_row(encode_id(bucket_id), reader.get(BUCKETS, encode_id(bucket_id)))


def create_bucket(
    txn: Transaction, name: str, owner: str, now_ms: int, *, object_lock: bool = False
) -> BucketRecord:
    """With `object_lock`, versioning is enabled from the start. Raises BucketExists, which tells whose it is."""
    existing = get_bucket(txn, name)
    if existing is not None:
        raise BucketExists(name, existing.owner)
    bucket_id = ids.allocate(txn, ids.BUCKET)
    versioning: Versioning = "Enabled" if object_lock else "Off"
    record = BucketRecord(bucket_id, name, owner, now_ms, txn.sequence, versioning, object_lock)
    record = quotas.add_bucket(txn, record)
    txn.put(BUCKET_NAMES, name.encode(), encode_id(bucket_id))
    txn.put(BUCKETS, encode_id(bucket_id), record.encode())
    return record


def set_versioning(txn: Transaction, bucket: BucketRecord, versioning: Versioning) -> None:
    """`bucket` as this transaction found it. Raises VersioningFixed for one with Object Lock, unless it is Enabled."""
    if versioning != "Enabled" and bucket.object_lock:
        raise VersioningFixed(bucket.name)
    _rewrite(txn, bucket, replace(bucket, versioning=versioning))


def set_object_lock(txn: Transaction, bucket: BucketRecord, default: DefaultRetention | None) -> None:
    """Turn Object Lock on, for ever, and set what it gives to new versions. Raises VersioningNeeded.

    `bucket` as this transaction found it. Versions that are there keep what they have.
    """
    if bucket.versioning != "Enabled":
        raise VersioningNeeded(bucket.name)
    _rewrite(txn, bucket, replace(bucket, object_lock=True, default_retention=default))


def set_prefixes(txn: Transaction, bucket: BucketRecord, prefixes: Prefixes) -> None:
    """Whether what is stored from now on may be compressed against earlier data. `bucket`: as in this transaction."""
    _rewrite(txn, bucket, replace(bucket, prefixes=prefixes))


def _rewrite(txn: Transaction, before: BucketRecord, after: BucketRecord) -> None:
    if after != before:
        txn.put(BUCKETS, encode_id(after.id), after.encode())


def list_buckets(
    reader: Reader,
    *,
    owner: str | None = None,
    prefix: str = "",
    after: str = "",
    limit: int | None = None,
    only: Container[str] | None = None,
) -> BucketPage:
    """Buckets by name (byte order) that begin with `prefix`, after the name `after`, of `owner` (None: of all).

    With `only`, no others than these.

    Reads the buckets of other owners on the way. `limit` None: all; 0: an empty page, not truncated.
    """
    raw_prefix = prefix.encode()
    if limit == 0 or len(raw_prefix) > MAX_KEY_BYTES:
        return BucketPage([], truncated=False)
    # A client's marker may be longer than any key; names are shorter, so that cutting it changes nothing.
    low = max(raw_prefix, (after.encode() + b"\x00")[:MAX_KEY_BYTES] if after else b"")
    buckets: list[BucketRecord] = []
    for _, value in reader.scan(BUCKET_NAMES, low, successor(raw_prefix)):
        record = _by_row(value, reader.get(BUCKETS, value))
        if (owner is not None and record.owner != owner) or (only is not None and record.name not in only):
            continue
        if len(buckets) == limit:
            return BucketPage(buckets, truncated=True)
        buckets.append(record)
    return BucketPage(buckets, truncated=False)


def delete_bucket(txn: Transaction, name: str) -> BucketRecord:
    """Remove an empty bucket: its rows, counters, configurations, and the uploads in progress with their parts.

    Raises NoSuchBucket, BucketNotEmpty (objects or versions; as in S3, open uploads do not prevent it). The commit
    has as many deletes as there are uploads and parts: see `delete_uploads`.
    """
    record = get_bucket(txn, name)
    if record is None:
        raise NoSuchBucket(name)
    row = encode_id(record.id)
    if not tree.is_empty(txn, OBJECTS, row) or not tree.is_empty(txn, VERSIONS, row):
        raise BucketNotEmpty(name)
    quotas.remove_bucket(txn, record)
    for table in (UPLOADS, PARTS, COUNTERS, CONFIGS, TOKENS):
        _delete_prefix(txn, table, row)
    txn.delete(BUCKETS, row)
    txn.delete(BUCKET_NAMES, name.encode())
    return record


def delete_uploads(txn: Transaction, name: str, limit: int) -> bool:
    """Make the deletion of an empty bucket with many open uploads cheaper: remove `limit` of their parts, or of them.

    False, and nothing done, if there are no more than that of either. In between, uploads are there without their
    parts. Raises NoSuchBucket, BucketNotEmpty.
    """
    record = get_bucket(txn, name)
    if record is None:
        raise NoSuchBucket(name)
    row = encode_id(record.id)
    if not tree.is_empty(txn, OBJECTS, row) or not tree.is_empty(txn, VERSIONS, row):
        raise BucketNotEmpty(name)
    rows = list(txn.scan(PARTS, row, successor(row), limit=limit + 1))
    if len(rows) > limit:
        quotas.charge(txn, record, quotas.NOBODY, drop_parts(txn, rows[:limit]))
        return True
    uploads = upload_page(txn, record.id, b"", (b"", b""), limit + 1)
    if len(uploads) > limit:
        for key, upload_id, _ in uploads[:limit]:
            remove_upload(txn, record, key, upload_id.hex(), quotas.NOBODY)
        return True
    return False


_decode = lru_cache(maxsize=1024)(BucketRecord.decode)  # every request asks for its bucket


def _by_row(row: bytes, value: bytes | None) -> BucketRecord:
    if value is None:
        raise CorruptRecord("bucket name", f"bucket {decode_id(row)} has no record")
    return _decode(value)


def _delete_prefix(txn: Transaction, table: str, prefix: bytes) -> None:
    while rows := [row for row, _ in txn.scan(table, prefix, successor(prefix), limit=_DELETE_ROWS)]:
        for row in rows:
            txn.delete(table, row)
