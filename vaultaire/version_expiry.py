"""What lifecycle does to versions: `vaultaire.lifecycle.VersionedNames` over the index. Never past a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.errors import VersionLocked
from index.versions import delete_object, delete_version

if TYPE_CHECKING:
    from index.kv import Transaction
    from index.records import BucketRecord, ObjectRecord
    from index.versions import Change


class IndexVersions:
    """Delete markers that expiration makes are the bucket owner's. GOVERNANCE holds as COMPLIANCE does."""

    def expire_current(self, txn: Transaction, bucket: BucketRecord, key: bytes, change: Change) -> bool:
        """False, and no change, if a version would go that is locked."""
        try:
            delete_object(txn, bucket, key, bucket.owner, change)
        except VersionLocked:
            return False
        return True

    def remove_version(
        self, txn: Transaction, bucket: BucketRecord, key: bytes, record: ObjectRecord, change: Change
    ) -> bool:
        """False, and no change, if it is locked or gone."""
        try:
            return delete_version(txn, bucket, key, record.version_id, change) is not None
        except VersionLocked:
            return False
