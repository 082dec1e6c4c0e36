"""Carrying out lifecycle rules: passes over the buckets that have some, in small steps that may stop anywhere.

A **pass** walks the keys that rules concern, page by page in short snapshots: current objects, then other versions, then
uploads in progress. What seems due there is looked at again in the transaction that removes it: the rules must still be
the bucket's, the version the same one, and the decision (`vaultaire.s3.lifecycle`) the same on what the transaction
sees. So nothing goes that was replaced, tagged otherwise or locked meanwhile, and nothing any more once DeleteBucket-
Lifecycle was answered. Removing is idempotent; a pass that is cut off goes on from its cursor, a row of `srv.settings`.

The wall clock decides what is due, as the rules say; which chunks are still needed does not depend on it.

Versions are handled through `VersionedNames`: without it (None) buckets that have or had versioning are passed over.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from index import expiry
from index.configs import get_config
from index.errors import CorruptRecord, NamesError
from index.kv import CorruptValue
from index.objects import get_object
from index.records import BucketRecord, Listing, ObjectRecord, UploadRecord, decode_listing
from index.uploads import get_upload, remove_upload
from index.versions import NONCE_BYTES, Change, delete_object
from vaultaire.audit_log import Expired
from vaultaire.s3 import lifecycle
from vaultaire.s3.lifecycle import Action, Facts, Rules
from vaultaire.s3.stored_lifecycle import CONFIG, unwrap_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from index.kv import OrderedMap, Reader, Transaction

R = TypeVar("R", bound=tuple[bytes, bytes, bytes])

PASS_INTERVAL_SECONDS: Final = 6 * 3600.0  # deadlines are midnights: one pass a day would nearly do
PAGE_ROWS: Final = 1000  # some milliseconds of a snapshot
COMMIT_ROWS: Final = 100  # some milliseconds of the write lock
COMMIT_UPLOADS: Final = 1  # an upload may have 10,000 parts

_CURSOR_ROW: Final = b"lifecycle"  # of srv.settings
_CURSOR: Final = struct.Struct(
    ">B?QQBB"
)  # version, running, begun (ms), bucket id, stage, length of the suffix
_CURSOR_VERSION: Final = 1

log = logging.getLogger("vaultaire.lifecycle")


class VersionedNames(Protocol):
    """What buckets with versioning need of the index. Both run inside a transaction that has just looked.

    `change` was drawn before it: a transaction's function may run twice, and must do the same again.
    """

    def expire_current(self, txn: Transaction, bucket: BucketRecord, key: bytes, change: Change) -> bool:
        """What a DELETE without a version id does: a delete marker takes the place of the current version."""
        ...

    def remove_version(
        self, txn: Transaction, bucket: BucketRecord, key: bytes, record: ObjectRecord, change: Change
    ) -> bool:
        """Remove this version (or delete marker) for good. False, and no change, if it is locked."""
        ...


class Stage(IntEnum):
    OBJECTS = 0
    VERSIONS = 1
    UPLOADS = 2


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a pass stands: everything up to (bucket, stage, key, suffix) is done."""

    begun_ms: int
    running: bool = True
    bucket_id: int = 0
    stage: Stage = Stage.OBJECTS
    key: bytes = b""
    suffix: bytes = b""

    def encode(self) -> bytes:
        head = _CURSOR.pack(
            _CURSOR_VERSION, self.running, self.begun_ms, self.bucket_id, self.stage, len(self.suffix)
        )
        return head + self.suffix + self.key

    @classmethod
    def decode(cls, value: bytes) -> Cursor:
        """Raises CorruptRecord."""
        if len(value) < _CURSOR.size or value[0] != _CURSOR_VERSION:
            raise CorruptRecord("lifecycle cursor", value.hex())
        _, running, begun_ms, bucket_id, stage, suffix_bytes = _CURSOR.unpack_from(value)
        rest = value[_CURSOR.size :]
        if stage not in tuple(Stage) or suffix_bytes > len(rest):
            raise CorruptRecord("lifecycle cursor", value.hex())
        return cls(begun_ms, running, bucket_id, Stage(stage), rest[suffix_bytes:], rest[:suffix_bytes])


@dataclass(slots=True)
class Report:
    """What passes have done so far."""

    objects: int = 0  # current objects expired
    versions: int = 0  # noncurrent versions removed
    delete_markers: int = 0
    uploads: int = 0  # incomplete uploads aborted

    @property
    def total(self) -> int:
        return self.objects + self.versions + self.delete_markers + self.uploads


@dataclass(slots=True)
class _Done(Report):
    """What one transaction has done."""

    expired: list[Expired] = field(default_factory=list)


class _Rehearsed(Exception):
    """Ends a transaction without a change: what it would have done."""

    def __init__(self, done: _Done) -> None:
        super().__init__(done)
        self.done = done


class _Work(NamedTuple):
    """One bucket in one stage."""

    bucket: BucketRecord
    config: bytes
    rules: Rules
    prefixes: list[bytes]
    page_rows: int


@dataclass(slots=True)
class Lifecycle:
    """Blocking; one thread at a time. Several processes may run passes at once: each removal is decided anew."""

    kv: OrderedMap
    writer: int
    versions: VersionedNames | None = None
    clock: Callable[[], float] = time.time
    interval_seconds: float = PASS_INTERVAL_SECONDS
    page_rows: int = PAGE_ROWS
    dry_run: bool = False  # every removal is carried out, counted, and taken back
    on_expired: Callable[[Sequence[Expired]], None] = lambda expired: None  # after each commit
    report: Report = field(default_factory=Report)

    # -- driving

    def run_slice(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> bool:
        """Go on with the pass that is under way, or begin one if it is due, for about `seconds`.

        False: there is nothing to do now. The cursor is stored at the end. A damaged record ends the pass (it is
        logged, and the next pass tries again); what the map itself raises passes through.
        """
        cursor = self._load()
        if not cursor.running:
            if not self._due(cursor):
                return False
            cursor, self.report = Cursor(self._now_ms()), Report()
        end = monotonic() + seconds
        try:
            cursor = self.step(cursor)  # one at least: a slow machine gets on, too
            while cursor.running and monotonic() < end:
                cursor = self.step(cursor)
        except (NamesError, CorruptValue):
            log.exception("a pass of lifecycle met damage, and ends")
            cursor = Cursor(cursor.begun_ms, running=False)
        self._save(cursor)
        if not cursor.running and self.report.total:
            log.info("lifecycle: %s", self.report)
        return cursor.running

    def run_pass(self, on_step: Callable[[Report], None] = lambda report: None) -> Report:
        """A whole pass, now; the maintenance process's own passes are not touched. `on_step`: called between pages."""
        self.report = Report()
        cursor = Cursor(self._now_ms())
        while cursor.running:
            cursor = self.step(cursor)
            on_step(self.report)
        return self.report

    def _now_ms(self) -> int:
        return int(self.clock() * 1000)

    def _due(self, cursor: Cursor) -> bool:
        """A clock that was set back does not keep passes from beginning."""
        return not 0 <= self._now_ms() - cursor.begun_ms < self.interval_seconds * 1000

    def _load(self) -> Cursor:
        with self.kv.snapshot() as reader:
            value = reader.get("srv.settings", _CURSOR_ROW)
        never = Cursor(-1 << 62, running=False)
        try:
            return never if value is None else Cursor.decode(value)
        except CorruptRecord:
            log.warning("the cursor of lifecycle cannot be read; a new pass begins")
            return never

    def _save(self, cursor: Cursor) -> None:
        value = cursor.encode()
        self.kv.commit(lambda txn: txn.put("srv.settings", _CURSOR_ROW, value))

    # -- one step

    def step(self, cursor: Cursor) -> Cursor:
        """One page: look, remove, move on."""
        with self.kv.snapshot() as reader:
            found = expiry.next_bucket(reader, CONFIG, cursor.bucket_id)
            if found is None:
                return Cursor(cursor.begun_ms, running=False)
            bucket, config = found
            if bucket.id != cursor.bucket_id:
                cursor = Cursor(cursor.begun_ms, bucket_id=bucket.id)
            work = self._work(bucket, config, cursor.stage)
            page = _LOOK[cursor.stage](reader, work, cursor, self._now_ms())
        for first in range(0, len(page.due), page.commit_rows):
            batch = page.due[first : first + page.commit_rows]
            self._remove(work, cursor.stage, batch)
        if page.last is None:
            return _next_stage(cursor)
        return replace(cursor, key=page.last[0], suffix=page.last[1])

    def _work(self, bucket: BucketRecord, config: bytes, stage: Stage) -> _Work:
        rules = unwrap_rules(config)
        concerns = (lifecycle.concerns_objects, lifecycle.concerns_versions, lifecycle.concerns_uploads)[
            stage
        ]
        prefixes = lifecycle.prefixes(rules, concerns)
        if bucket.versioning == "Off":
            prefixes = [] if stage is Stage.VERSIONS else prefixes
        elif self.versions is None and stage is not Stage.UPLOADS:
            prefixes = []
        return _Work(bucket, config, rules, prefixes, self.page_rows)

    # -- removing

    def _remove(self, work: _Work, stage: Stage, batch: Sequence[_Due]) -> None:
        remove = (self._expire_object, self._remove_version, self._abort_upload)[stage]
        change = Change(self.writer, self._now_ms(), os.urandom(NONCE_BYTES))

        def commit(txn: Transaction) -> _Done:
            done = _Done()
            if get_config(txn, work.bucket.id, CONFIG) != work.config:
                return done
            bucket = expiry.next_bucket(txn, CONFIG, work.bucket.id)
            assert bucket is not None  # the configuration is there, and goes with its bucket
            for due in batch:
                remove(txn, bucket[0], work.rules, due, change, done)
            if self.dry_run:
                raise _Rehearsed(done)
            return done

        try:
            done = self.kv.commit(commit)
            if done.expired:
                self.on_expired(done.expired)
        except _Rehearsed as rehearsed:
            done = rehearsed.done
        self.report.objects += done.objects
        self.report.versions += done.versions
        self.report.delete_markers += done.delete_markers
        self.report.uploads += done.uploads

    def _expire_object(
        self, txn: Transaction, bucket: BucketRecord, rules: Rules, due: _Due, change: Change, done: _Done
    ) -> None:
        record = get_object(txn, bucket.id, due.key)
        if record is None or record.sequence != due.sequence:
            return
        if lifecycle.plan_lifecycle(rules, change.now_ms, _facts(due.key, record)) is not Action.EXPIRE:
            return
        if bucket.versioning == "Off":
            delete_object(txn, bucket, due.key, bucket.owner, change)
        elif self.versions is None or not self.versions.expire_current(txn, bucket, due.key, change):
            return
        done.objects += 1
        done.expired.append(Expired("ExpireObject", bucket.name, due.key, None))

    def _remove_version(
        self, txn: Transaction, bucket: BucketRecord, rules: Rules, due: _Due, change: Change, done: _Done
    ) -> None:
        found = _version(txn, bucket.id, rules, due.key, due.sequence)
        if found is None or self.versions is None:
            return
        record, facts = found
        if lifecycle.plan_lifecycle(rules, change.now_ms, facts) is not Action.REMOVE:
            return
        if not self.versions.remove_version(txn, bucket, due.key, record, change):
            return
        if record.delete_marker:
            done.delete_markers += 1
        else:
            done.versions += 1
        shown = "null" if record.version_id is None else record.version_id.hex()
        done.expired.append(Expired("ExpireVersion", bucket.name, due.key, shown))

    def _abort_upload(
        self, txn: Transaction, bucket: BucketRecord, rules: Rules, due: _Due, change: Change, done: _Done
    ) -> None:
        upload = get_upload(txn, bucket.id, due.key, due.upload_id)
        if upload is None:
            return
        if lifecycle.plan_upload(rules, change.now_ms, due.key, upload.initiated_ms) is Action.REMOVE:
            remove_upload(txn, bucket, due.key, due.upload_id, change.writer)
            done.uploads += 1
            done.expired.append(Expired("ExpireUpload", bucket.name, due.key, due.upload_id))


# --- looking -------------------------------------------------------------------------------------------------------


class _Due(NamedTuple):
    key: bytes
    sequence: int = 0
    upload_id: str = ""


class _Page(NamedTuple):
    due: list[_Due]
    last: tuple[bytes, bytes] | None  # where to go on after; None: this stage is done
    commit_rows: int = COMMIT_ROWS


def _next_stage(cursor: Cursor) -> Cursor:
    if cursor.stage is Stage.UPLOADS:
        return Cursor(cursor.begun_ms, bucket_id=cursor.bucket_id + 1)
    return Cursor(cursor.begun_ms, bucket_id=cursor.bucket_id, stage=Stage(cursor.stage + 1))


def _rows(work: _Work, cursor: Cursor, page: Callable[[bytes, tuple[bytes, bytes], int], list[R]]) -> list[R]:
    """Up to `page_rows` rows after the cursor, of all prefixes that are left: `page(prefix, after, limit)` of each."""
    rows: list[R] = []
    for prefix in work.prefixes:
        inside = cursor.key.startswith(prefix)
        if (inside or prefix > cursor.key) and len(rows) < work.page_rows:
            after = (cursor.key, cursor.suffix) if inside else (b"", b"")
            rows += page(prefix, after, work.page_rows - len(rows))
    return rows


def _look_at_objects(reader: Reader, work: _Work, cursor: Cursor, now_ms: int) -> _Page:
    rows = _rows(work, cursor, lambda *where: expiry.object_page(reader, work.bucket.id, *where))
    tagged = lifecycle.needs_tags(work.rules)
    due = []
    for key, _, value in rows:
        head = ObjectRecord.decode(value) if tagged else decode_listing(value)
        if lifecycle.plan_lifecycle(work.rules, now_ms, _facts(key, head)) is Action.EXPIRE:
            due.append(_Due(key, head.sequence))
    return _Page(due, rows[-1][:2] if len(rows) == work.page_rows else None)


def _look_at_versions(reader: Reader, work: _Work, cursor: Cursor, now_ms: int) -> _Page:
    rows = _rows(work, cursor, lambda *where: expiry.version_page(reader, work.bucket.id, *where))
    due = []
    for key, _, value in rows:
        sequence = decode_listing(value).sequence
        found = _version(reader, work.bucket.id, work.rules, key, sequence)
        if found is not None and lifecycle.plan_lifecycle(work.rules, now_ms, found[1]) is Action.REMOVE:
            due.append(_Due(key, sequence))
    return _Page(due, rows[-1][:2] if len(rows) == work.page_rows else None)


def _look_at_uploads(reader: Reader, work: _Work, cursor: Cursor, now_ms: int) -> _Page:
    rows = _rows(work, cursor, lambda *where: expiry.upload_page(reader, work.bucket.id, *where))
    due = [
        _Due(key, upload_id=raw_id.hex())
        for key, raw_id, value in rows
        if lifecycle.plan_upload(work.rules, now_ms, key, UploadRecord.decode(value).initiated_ms)
        is Action.REMOVE
    ]
    return _Page(due, rows[-1][:2] if len(rows) == work.page_rows else None, COMMIT_UPLOADS)


_LOOK: Final = {
    Stage.OBJECTS: _look_at_objects,
    Stage.VERSIONS: _look_at_versions,
    Stage.UPLOADS: _look_at_uploads,
}


def _facts(key: bytes, version: ObjectRecord | Listing) -> Facts:
    """Of a current object."""
    tags = version.tags if isinstance(version, ObjectRecord) else ()
    return Facts(key, version.modified_ms, version.size, tags)


def _version(
    reader: Reader, bucket_id: int, rules: Rules, key: bytes, sequence: int
) -> tuple[ObjectRecord, Facts] | None:
    """A version that is not shown, with what the rules want to know of it; None if there is nothing to decide."""
    count_newer = lifecycle.most_newer_noncurrent(rules)
    found = expiry.noncurrent_version(reader, bucket_id, key, sequence, count_newer=count_newer)
    if found is None:
        marker = expiry.lone_marker(reader, bucket_id, key, sequence)
        if marker is None:
            return None
        return marker, Facts(key, marker.modified_ms, delete_marker=True, alone=True)
    record = found.record
    return record, Facts(
        key,
        record.modified_ms,
        record.size,
        record.tags,
        record.delete_marker,
        noncurrent_since_ms=found.successor_ms,
        newer_noncurrent=found.newer,
    )
