"""What lifecycle does to versions: `vaultaire.lifecycle.VersionedNames` over the index. Never past a lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from index.errors import VersionLocked
from index.versions import NONCE_BYTES, Change, delete_object, delete_version

if TYPE_CHECKING:
    from index.kv import Transaction
    from index.records import BucketRecord, ObjectRecord


class IndexVersions:
    """Delete markers that expiration makes are the bucket owner's. GOVERNANCE holds as COMPLIANCE does."""

    def expire_current(
        self, txn: Transaction, bucket: BucketRecord, key: bytes, now_ms: int, writer: int
    ) -> bool:
        """False, and no change, if a version would go that is locked."""
        try:
            delete_object(txn, bucket, key, bucket.owner, _change(now_ms, writer))
        except VersionLocked:
            return False
        return True

    def remove_version(
        self,
        txn: Transaction,
        bucket: BucketRecord,
        key: bytes,
        record: ObjectRecord,
        now_ms: int,
        writer: int,
    ) -> bool:
        try:
            return delete_version(txn, bucket, key, record.version_id, _change(now_ms, writer)) is not None
        except VersionLocked:
            return False


def _change(now_ms: int, writer: int) -> Change:
    # Drawn inside a transaction, which may run twice: nobody is told this id before it is committed.
    return Change(writer, now_ms, os.urandom(NONCE_BYTES))
