"""Multipart uploads that nobody goes on with: aborted after some days, where no lifecycle rule says otherwise.

S3 keeps them for ever unless a rule aborts them, and clients that crash leave them behind; what their parts hold is
seen in no listing of objects and never comes back. So an upload without activity for `days` (its beginning and its
newest part count) is aborted by default. A bucket's own rule that speaks of the upload decides alone.

Small steps, each decided again in the transaction that removes; may stop anywhere. The wall clock decides what is due.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from index.buckets import bucket_by_id
from index.errors import NamesError
from index.expiry import upload_page
from index.manifests import bucket_ids
from index.quotas import NOBODY
from index.records import UploadRecord
from index.uploads import get_upload, list_parts, remove_upload
from vaultaire.audit_log import Expired
from vaultaire.s3.lifecycle import DAY_MS, abort_of
from vaultaire.s3.stored_lifecycle import rules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from index.kv import OrderedMap, Reader, Transaction

PASS_SECONDS: Final = 3600.0
PAGE_ROWS: Final = 500
MAX_PARTS: Final = 10_000

log = logging.getLogger("vaultaire.stale_uploads")


@dataclass(slots=True)
class StaleUploads:
    """Blocking; one thread. `days` 0: nothing is ever done."""

    kv: OrderedMap
    days: float
    clock: Callable[[], float] = time.time
    on_expired: Callable[[Sequence[Expired]], None] = lambda expired: None  # after each commit
    _bucket_id: int = 0
    _after: tuple[bytes, bytes] = (b"", b"")
    _next_pass: float = 0.0

    def run_slice(self) -> int:
        """One page of one bucket; how many uploads were aborted. A pass over all begins once an hour."""
        if not self.days or self.clock() < self._next_pass:
            return 0
        with self.kv.snapshot() as reader:
            bucket_id = next((found for found in bucket_ids(reader) if found >= self._bucket_id), None)
            if bucket_id is None:
                self._bucket_id, self._next_pass = 0, self.clock() + PASS_SECONDS
                return 0
            if bucket_id != self._bucket_id:
                self._bucket_id, self._after = bucket_id, (b"", b"")
            page = upload_page(reader, bucket_id, b"", self._after, PAGE_ROWS)
            stale = [(key, raw.hex()) for key, raw, value in page if self._is_old(value)]
        aborted = sum(self._abort(bucket_id, key, upload_id) for key, upload_id in stale)
        if len(page) == PAGE_ROWS:
            self._after = page[-1][:2]
        else:
            self._bucket_id, self._after = bucket_id + 1, (b"", b"")
        if aborted:
            log.info("aborted %d uploads that got nothing for %g days", aborted, self.days)
        return aborted

    @property
    def _deadline_ms(self) -> float:
        return self.clock() * 1000 - self.days * DAY_MS

    def _is_old(self, value: bytes) -> bool:
        """Cheap, and true of all that are stale: the parts are looked at in the commit."""
        try:
            return UploadRecord.decode(value).initiated_ms <= self._deadline_ms
        except NamesError:
            log.exception("an upload cannot be read, and is kept")
            return False

    def _abort(self, bucket_id: int, key: bytes, upload_id: str) -> bool:
        def commit(txn: Transaction) -> Expired | None:
            upload = get_upload(txn, bucket_id, key, upload_id)
            if upload is None or abort_of(rules_of(txn, bucket_id), key, upload.initiated_ms) is not None:
                return None
            if _last_activity_ms(txn, bucket_id, upload) > self._deadline_ms:
                return None
            bucket = bucket_by_id(txn, bucket_id)
            remove_upload(txn, bucket, key, upload_id, NOBODY)
            return Expired("ExpireUpload", bucket.name, key, upload_id)

        expired = self.kv.commit(commit)
        if expired is not None:
            self.on_expired([expired])
        return expired is not None


def _last_activity_ms(reader: Reader, bucket_id: int, upload: UploadRecord) -> int:
    parts = list_parts(reader, bucket_id, upload.key, upload.upload_id, limit=MAX_PARTS).parts
    return max([upload.initiated_ms, *(part.modified_ms for part in parts)])
