"""Emptying a bucket for its operator: every version of every object, in bounded commits, never past a lock.

What is locked is looked for first, so that a bucket that cannot be emptied is left as it is. A lock that is set
meanwhile stops the work, and everything after it stays. Blocking; safe beside a running server, and may be cut off anywhere:
then the rest is there.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from index.buckets import bucket_by_id, delete_bucket, delete_uploads
from index.expiry import object_page, version_page
from index.locks import may_remove
from index.records import ObjectRecord
from index.versions import NONCE_BYTES, Change, delete_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from index.expiry import Row
    from index.kv import Reader, Transaction
    from index.records import BucketRecord
    from vaultaire.store import Store

PAGE_ROWS: Final = 1000  # looked at in one snapshot
COMMIT_ROWS: Final = 200  # deleted in one commit: some ms of the write lock
PARTS_PER_COMMIT: Final = 1000

_PAGES: Final = (version_page, object_page)


@dataclass(slots=True)
class Contents:
    versions: int = 0  # without delete markers
    delete_markers: int = 0
    logical_bytes: int = 0
    locked: int = 0  # of the versions: by retention or legal hold


def find_contents(store: Store, bucket: BucketRecord, on_rows: Callable[[int], None]) -> Contents:
    """All that the bucket holds, in short snapshots. `on_rows` is told how many were seen so far. Raises NamesError."""
    found = Contents()
    now_ms = int(time.time() * 1000)
    seen = 0
    for page in _pages(store, bucket):
        for _, _, value in page:
            record = ObjectRecord.decode(value)
            found.delete_markers += record.delete_marker
            found.versions += not record.delete_marker
            found.logical_bytes += record.size
            found.locked += not may_remove(record, now_ms, bypass=False)
        seen += len(page)
        on_rows(seen)
    return found


def empty_bucket(store: Store, bucket: BucketRecord, on_rows: Callable[[int], None]) -> int:
    """Delete all versions, delete markers too; how many. Raises VersionLocked, and what the store raises."""
    removed = 0
    for page in _PAGES:
        while count := store.kv.commit(_Remove(store.writer, bucket.id, page, os.urandom(NONCE_BYTES))):
            removed += count
            on_rows(removed)
    return removed


def remove_bucket(store: Store, name: str) -> None:
    """Delete an empty bucket with its uploads in progress. Raises NoSuchBucket, BucketNotEmpty."""
    while store.kv.commit(lambda txn: delete_uploads(txn, name, PARTS_PER_COMMIT)):
        pass
    store.kv.commit(lambda txn: delete_bucket(txn, name))


@dataclass(frozen=True, slots=True)
class _Remove:
    """One commit: the first versions that there are, of those with a row in the one table or the other."""

    writer: int
    bucket_id: int
    page: Callable[[Reader, int, bytes, tuple[bytes, bytes], int], list[Row]]
    nonce: bytes

    def __call__(self, txn: Transaction) -> int:
        bucket = bucket_by_id(txn, self.bucket_id)
        change = Change(self.writer, int(time.time() * 1000), self.nonce)
        rows = self.page(txn, self.bucket_id, b"", (b"", b""), COMMIT_ROWS)
        for key, _, value in rows:
            delete_version(txn, bucket, key, ObjectRecord.decode(value).version_id, change)
        return len(rows)


def _pages(store: Store, bucket: BucketRecord) -> Iterator[list[Row]]:
    for page in _PAGES:
        after = (b"", b"")
        while True:
            with store.kv.snapshot() as reader:
                rows = page(reader, bucket.id, b"", after, PAGE_ROWS)
            if not rows:
                break
            yield rows
            after = rows[-1][:2]
