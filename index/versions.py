"""Every change of an object: versions, delete markers, and which of them a key shows. All writers come through here.

What a bucket's versioning makes of a change:

| | Off | Enabled | Suspended |
|---|---|---|---|
| put | replaces the null version | a new version; the current one moves to `versions` | a new null version; the old one goes, wherever it is, others stay |
| delete | removes the null version | a delete marker with an id | a null delete marker; the old null version goes |
| delete of a version | removes it; if it was the newest, the next one shows (if it is an object) | the same | the same |

Guarantees:

* `idx.objects` has a key's newest version, or no row if that is a delete marker or there is none: LIST never meets
  what it does not show. `idx.versions` has all the others. `idx.null_versions` has the sequence of a key's null
  version while that one is in `idx.versions`, so that finding it costs a lookup, however many versions there are.
* A new version in a bucket with a default retention has one, whoever put it; it runs from the record's `modified_ms`.
* A version that is locked (`index.locks`) is neither removed nor overwritten nor is its retention shortened, by any
  function here: `VersionLocked` is raised before anything is changed.
* Counters (`index.counters`) and quotas (`index.quotas`) are kept in the same commit: QuotaExceeded is raised by
  whatever would add more than is allowed, and by nothing that adds nothing.

Everything is pure over the transaction: the same arguments give the same rows. Preconditions (If-Match, the bucket
exists) are the caller's, evaluated inside the transaction. A key gets at most one version with an id per commit; more
is a ValueError (a second delete is the first one again).

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/versioning-workflows.html
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from index import counters, locks, quotas, tree, uploads
from index.errors import CorruptRecord, NoObjectLock, VersionLocked, WouldOverwrite
from index.keys import decode_id, encode_id, inverted, successor
from index.records import ObjectRecord, decode_listing
from index.tables import NULL_VERSIONS, OBJECTS, VERSIONS
from index.values import Retention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from index.counters import Counts
    from index.kv import Reader, Transaction
    from index.records import BucketRecord, Listing

NONCE_BYTES: Final = 8
VERSION_ID_BYTES: Final = 16  # commit sequence u64, then the nonce: ids of a key sort by age


@dataclass(frozen=True, slots=True)
class Change:
    """What every change is told of its caller."""

    writer: int  # this process's number, for the counters
    now_ms: int  # against which locks are judged, and the time of a delete marker
    nonce: bytes  # 8 random bytes for version ids, drawn before: a transaction's function may run twice
    bypass: bool = False  # GOVERNANCE retention does not hold against this caller
    create_only: bool = False  # a put may neither replace nor hide what a key shows

    def __post_init__(self) -> None:
        if len(self.nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a plain delete came to."""

    marker: bool  # a delete marker is the newest version now
    version_id: bytes | None  # of that marker; None: the null version, or no marker was made


# --- Reading ---------------------------------------------------------------------------------------------------


def get_version(reader: Reader, bucket_id: int, key: bytes, version_id: bytes | None) -> ObjectRecord | None:
    """The version with that id (None: the null version), which may be a delete marker; None if there is none.

    At most three lookups. Raises InvalidKey, CorruptRecord, UnsupportedRecord.
    """
    current = _current(reader, bucket_id, key)
    if current is not None and decode_listing(current).version_id == version_id:
        return ObjectRecord.decode(current)
    return _get_shelved(reader, bucket_id, key, version_id)


def get_newest(reader: Reader, bucket_id: int, key: bytes) -> ObjectRecord | None:
    """The newest version, which is a delete marker if the key shows none. Raises as `get_version`."""
    value = _current(reader, bucket_id, key)
    if value is None:
        value = _newest_shelved(reader, bucket_id, key)
    return None if value is None else ObjectRecord.decode(value)


def null_sequence(reader: Reader, bucket_id: int, key: bytes) -> int:
    """The sequence of the null version among the versions that do not show; 0 if there is none. Raises InvalidKey."""
    row = tree.find_row(reader, NULL_VERSIONS, bucket_id, key)
    value = None if row is None else reader.get(NULL_VERSIONS, row)
    return 0 if value is None else decode_id(value)


def list_key(reader: Reader, bucket_id: int, key: bytes, *, limit: int | None = None) -> list[Listing]:
    """The versions of one key, delete markers included, the newest first. Raises as `get_version`."""
    current = _current(reader, bucket_id, key)
    found = [] if current is None else [decode_listing(current)]
    row = tree.find_row(reader, VERSIONS, bucket_id, key)
    left = None if limit is None else limit - len(found)
    if row is not None and left != 0:
        found += [
            decode_listing(value) for _, value in reader.scan(VERSIONS, row, successor(row), limit=left)
        ]
    return found


def iterate_versions(reader: Reader, bucket_id: int) -> Iterator[tuple[bytes, ObjectRecord]]:
    """Every version, delete markers included: first all that show, then all others, each in key order.

    Raises CorruptRecord, UnsupportedRecord.
    """
    for key, value in tree.walk(reader, OBJECTS, bucket_id):
        yield key, ObjectRecord.decode(value)
    for key, _, value in tree.walk_suffixed(reader, VERSIONS, bucket_id):
        yield key, ObjectRecord.decode(value)


# --- Changes ---------------------------------------------------------------------------------------------------


def put_object(
    txn: Transaction, bucket: BucketRecord, key: bytes, record: ObjectRecord, change: Change
) -> bytes | None:
    """Make `record` the newest version, at the transaction's sequence; its version id (None: the null version).

    What `record` says of its own id and sequence does not count. `bucket` as the transaction sees it. Raises
    VersionLocked (only where a version is overwritten), NoObjectLock (a lock that the bucket would not keep),
    WouldOverwrite, QuotaExceeded, InvalidKey, ValueError (see `ObjectRecord.encode`).

    With `create_only`, a put of what the key shows already (a client that lost its answer and tries again) succeeds and
    changes nothing.
    """
    version_id, counted = _put(txn, bucket, key, record, change)
    quotas.charge(txn, bucket, change.writer, counted)
    return version_id


def complete_upload(
    txn: Transaction, bucket: BucketRecord, key: bytes, upload_id: str, record: ObjectRecord, change: Change
) -> bytes | None:
    """As `put_object`, in place of an upload in progress and all its parts. Raises NoSuchUpload besides.

    To quotas this is one change: an object adds no bytes to those of its parts.
    """
    _, dropped = uploads.drop_upload(txn, bucket.id, key, upload_id)
    version_id, counted = _put(txn, bucket, key, record, change)
    quotas.charge(txn, bucket, change.writer, counters.add_up((dropped, counted)))
    return version_id


def rename_object(
    txn: Transaction, bucket: BucketRecord, key: bytes, to: bytes, record: ObjectRecord, change: Change
) -> None:
    """Move `record`, the object at `key` as this transaction found it, to another key, over what is there.

    Only where there are no versions (else ValueError). To quotas this is one change, which adds nothing. Raises as
    `put_object`.
    """
    if bucket.versioning != "Off":
        raise ValueError("where versions are kept, an object is copied and deleted, not renamed")
    _, dropped = _delete(txn, bucket, key, record.owner, change)
    _, counted = _put(txn, bucket, to, record, change)
    quotas.charge(txn, bucket, change.writer, counters.add_up((dropped, counted)))


def require_room(reader: Reader, bucket: BucketRecord, key: bytes, size: int) -> None:
    """Whether an object of `size` bytes could be put there now; cheap in a bucket without a quota.

    To refuse early what the commit would refuse. What it will add to the packs is not known yet: where a limit on that
    is reached, only what is not larger than the version that it replaces may try. Raises QuotaExceeded, InvalidKey.
    """
    if not bucket.limited:
        return
    gone = None if bucket.versioning == "Enabled" else get_version(reader, bucket.id, key, None)
    objects, logical, _, stored, _, _ = counters.added(gone)
    stored_growth = 1 - stored if size > logical else 0
    quotas.require_room(reader, bucket, quotas.Usage(size - logical, stored_growth, 1 - objects))


def _put(
    txn: Transaction, bucket: BucketRecord, key: bytes, record: ObjectRecord, change: Change
) -> tuple[bytes | None, Counts]:
    """As `put_object`, and what that changes in the counters, which is left to the caller."""
    if record.delete_marker:
        raise ValueError("a delete marker is not put: delete the object")
    record = _with_lock(bucket, record)
    row = tree.make_row(txn, OBJECTS, bucket.id, key)
    value = txn.get(OBJECTS, row)
    if change.create_only:
        kept = _kept_for_good(txn, bucket, key, value)
        if kept is not None:
            if value is None or not _same_content(kept, record):
                raise WouldOverwrite(bucket.id, key)
            return kept.version_id, counters.NOTHING
    version_id: bytes | None = None
    gone: ObjectRecord | None = None
    if bucket.versioning == "Enabled":
        version_id = _new_id(txn, bucket.id, key, value, change)
        if value is not None:
            _shelve(txn, bucket.id, key, value)
    else:
        gone = _displace_null(txn, bucket, key, value, change)
    if record.version_id != version_id:
        record = replace(record, version_id=version_id)
    txn.put(OBJECTS, row, record.encode(txn.sequence))
    return version_id, counters.change_of(record, gone)


def delete_object(txn: Transaction, bucket: BucketRecord, key: bytes, owner: str, change: Change) -> Deletion:
    """Let the key show nothing: `owner` is the delete marker's. Raises VersionLocked (only where a version goes)."""
    deletion, counted = _delete(txn, bucket, key, owner, change)
    quotas.charge(txn, bucket, change.writer, counted)
    return deletion


def _delete(
    txn: Transaction, bucket: BucketRecord, key: bytes, owner: str, change: Change
) -> tuple[Deletion, Counts]:
    """As `delete_object`, and what that changes in the counters, which is left to the caller."""
    value = _current(txn, bucket.id, key)
    gone: ObjectRecord | None = None
    version_id: bytes | None = None
    if bucket.versioning == "Enabled":
        again = None if value is not None else _newest_shelved(txn, bucket.id, key)
        if again is not None and decode_listing(again).sequence == txn.sequence:
            return Deletion(marker=True, version_id=decode_listing(again).version_id), counters.NOTHING
        version_id = _new_id(txn, bucket.id, key, value, change)
        if value is not None:
            _shelve(txn, bucket.id, key, value)
    else:
        gone = _displace_null(txn, bucket, key, value, change)
    if value is not None:
        tree.remove_row(txn, OBJECTS, bucket.id, key)
    if bucket.versioning != "Off":
        marker = ObjectRecord(
            0, change.now_ms, "", owner, txn.sequence, version_id=version_id, delete_marker=True
        )
        _shelve(txn, bucket.id, key, marker.encode())
    return Deletion(bucket.versioning != "Off", version_id), counters.change_of(None, gone)


def delete_version(
    txn: Transaction, bucket: BucketRecord, key: bytes, version_id: bytes | None, change: Change
) -> ObjectRecord | None:
    """Remove one version for good (None: the null version); what it was, or None if there was none.

    If it was the newest, the next one takes its place; as the current object, if it is one. Raises VersionLocked.
    """
    record = get_version(txn, bucket.id, key, version_id)
    if record is None:
        return None
    _guard(bucket.id, key, record, change)
    if not _unshelve(txn, bucket.id, key, record):
        tree.remove_row(txn, OBJECTS, bucket.id, key)
    if bucket.versioning != "Off" and _current(txn, bucket.id, key) is None:
        _show_newest(txn, bucket.id, key)
    quotas.charge(txn, bucket, change.writer, counters.change_of(None, record))
    return record


def set_retention(
    txn: Transaction,
    bucket_id: int,
    key: bytes,
    record: ObjectRecord,
    retention: Retention | None,
    change: Change,
) -> None:
    """Give `record`, as this transaction found it, another retention (None: none). Raises VersionLocked."""
    if not locks.may_retain(record.retention, retention, change.now_ms, bypass=change.bypass):
        raise VersionLocked(bucket_id, key, record.version_id)
    _rewrite(txn, bucket_id, key, replace(record, retention=retention))


def set_legal_hold(txn: Transaction, bucket_id: int, key: bytes, record: ObjectRecord, on: bool) -> None:
    """Put a legal hold on `record`, as this transaction found it, or lift it."""
    _rewrite(txn, bucket_id, key, replace(record, legal_hold=on))


def replace_object(txn: Transaction, bucket_id: int, key: bytes, record: ObjectRecord) -> None:
    """Write a version again, in its place, with other tags: what a lock does not cover, as in S3.

    Raises ValueError if `record` is not what this transaction found there but for that: least of all its lock.
    """
    now = get_version(txn, bucket_id, key, record.version_id)
    if now is None or _covered(now) != _covered(record):
        raise ValueError("only what a lock does not cover may be replaced in a version")
    _rewrite(txn, bucket_id, key, record)


def store_outside(
    txn: Transaction,
    bucket: BucketRecord,
    key: bytes,
    record: ObjectRecord,
    manifest: bytes,
    new_stored_bytes: int,
    writer: int,
) -> bool:
    """Let the version `record`, whose bytes lie in it, name them by `manifest` from now on, and be the same else.

    False: it is gone, or its bytes do not lie in it any more; nothing is changed then. Tags, locks and the like are those
    that it has now. `new_stored_bytes`: no more than the record's, lest a quota refuse it.
    """
    now = get_version(txn, bucket.id, key, record.version_id)
    if now is None or now.sequence != record.sequence or now.inline is None or now.inline != record.inline:
        return False
    moved = replace(now, inline=None, manifest=manifest, new_stored_bytes=new_stored_bytes)
    _rewrite(txn, bucket.id, key, moved)
    quotas.charge(txn, bucket, writer, counters.change_of(moved, now))
    return True


def _covered(record: ObjectRecord) -> tuple[object, ...]:
    """What of a version stays as it is from put to removal, and what its own functions change."""
    return (
        record.sequence,
        record.modified_ms,
        record.size,
        record.etag,
        record.delete_marker,
        record.inline,
        record.manifest,
        record.part_table,
        record.new_stored_bytes,  # it is counted
        record.retention,
        record.legal_hold,
    )


# --- Rows ------------------------------------------------------------------------------------------------------


def _with_lock(bucket: BucketRecord, record: ObjectRecord) -> ObjectRecord:
    """`record` with the lock that it will have: its own, or the bucket's default. Raises NoObjectLock."""
    if not bucket.object_lock:
        if record.retention is not None or record.legal_hold is not None:
            raise NoObjectLock(bucket.name)
        return record
    default = bucket.default_retention
    if default is None or record.retention is not None:
        return record
    until_ms = locks.default_until_ms(default, record.modified_ms)
    return replace(record, retention=Retention(default.mode, until_ms))


def _kept_for_good(
    txn: Transaction, bucket: BucketRecord, key: bytes, value: bytes | None
) -> ObjectRecord | None:
    """The version that a put would hide or remove, if that is an object."""
    if value is not None:
        return ObjectRecord.decode(value)
    if bucket.versioning == "Enabled":
        return None
    gone = _get_shelved(txn, bucket.id, key, None)
    return None if gone is None or gone.delete_marker else gone


def _same_content(one: ObjectRecord, other: ObjectRecord) -> bool:
    return (one.size, one.etag, one.content_type, one.headers, one.metadata, one.tags) == (
        other.size,
        other.etag,
        other.content_type,
        other.headers,
        other.metadata,
        other.tags,
    )


def _guard(bucket_id: int, key: bytes, record: ObjectRecord, change: Change) -> None:
    if not locks.may_remove(record, change.now_ms, bypass=change.bypass):
        raise VersionLocked(bucket_id, key, record.version_id)


def _current(reader: Reader, bucket_id: int, key: bytes) -> bytes | None:
    row = tree.find_row(reader, OBJECTS, bucket_id, key)
    return None if row is None else reader.get(OBJECTS, row)


def _newest_shelved(reader: Reader, bucket_id: int, key: bytes) -> bytes | None:
    row = tree.find_row(reader, VERSIONS, bucket_id, key)
    if row is None:
        return None
    found = list(reader.scan(VERSIONS, row, successor(row), limit=1))  # a scan left open would bar writes
    return found[0][1] if found else None


def _get_shelved(reader: Reader, bucket_id: int, key: bytes, version_id: bytes | None) -> ObjectRecord | None:
    if version_id is None:
        sequence = null_sequence(reader, bucket_id, key)
    else:
        sequence = decode_id(version_id[:8]) if len(version_id) == VERSION_ID_BYTES else 0
    row = tree.find_row(reader, VERSIONS, bucket_id, key) if sequence else None
    value = None if row is None else reader.get(VERSIONS, row + inverted(sequence))
    record = None if value is None else ObjectRecord.decode(value)
    if record is not None and record.version_id == version_id:
        return record
    if version_id is None and sequence:
        raise CorruptRecord("null version", f"it is not at sequence {sequence}, where it was put")
    return None


def _new_id(txn: Transaction, bucket_id: int, key: bytes, value: bytes | None, change: Change) -> bytes:
    """The id of a version made now. Raises ValueError if this commit has made one of this key already."""
    newest = value if value is not None else _newest_shelved(txn, bucket_id, key)
    if newest is not None and decode_listing(newest).sequence == txn.sequence:
        raise ValueError("a key gets at most one version per commit")
    return encode_id(txn.sequence) + change.nonce


def _displace_null(
    txn: Transaction, bucket: BucketRecord, key: bytes, value: bytes | None, change: Change
) -> ObjectRecord | None:
    """Make room for another null version; the one that goes, if any. `value`: the current object's row.

    If that row is the null version the caller replaces or removes it; if not, it moves to the other versions.
    """
    if value is not None and decode_listing(value).version_id is None:
        record = ObjectRecord.decode(value)
        _guard(bucket.id, key, record, change)
        return record
    if bucket.versioning == "Off":
        return None
    gone = _get_shelved(txn, bucket.id, key, None)
    if gone is not None:
        _guard(bucket.id, key, gone, change)
        _unshelve(txn, bucket.id, key, gone)
    if value is not None:
        _shelve(txn, bucket.id, key, value)
    return gone


def _shelve(txn: Transaction, bucket_id: int, key: bytes, value: bytes) -> None:
    """Put a record among the versions that do not show."""
    head = decode_listing(value)
    txn.put(VERSIONS, tree.make_row(txn, VERSIONS, bucket_id, key) + inverted(head.sequence), value)
    if head.version_id is None:
        txn.put(NULL_VERSIONS, tree.make_row(txn, NULL_VERSIONS, bucket_id, key), encode_id(head.sequence))


def _unshelve(txn: Transaction, bucket_id: int, key: bytes, record: ObjectRecord) -> bool:
    """Take a record from among the versions that do not show; False if it is not there."""
    if not tree.remove_row(txn, VERSIONS, bucket_id, key, inverted(record.sequence)):
        return False
    if record.version_id is None:
        tree.remove_row(txn, NULL_VERSIONS, bucket_id, key)
    return True


def _show_newest(txn: Transaction, bucket_id: int, key: bytes) -> None:
    """The newest version becomes the current object, unless it is a delete marker."""
    value = _newest_shelved(txn, bucket_id, key)
    if value is None or decode_listing(value).delete_marker:
        return
    _unshelve(txn, bucket_id, key, ObjectRecord.decode(value))
    txn.put(OBJECTS, tree.make_row(txn, OBJECTS, bucket_id, key), value)


def _rewrite(txn: Transaction, bucket_id: int, key: bytes, record: ObjectRecord) -> None:
    """Write a version again, in its place: same sequence, id and size."""
    value = _current(txn, bucket_id, key)
    if value is not None and decode_listing(value).sequence == record.sequence:
        txn.put(OBJECTS, tree.make_row(txn, OBJECTS, bucket_id, key), record.encode())
        return
    txn.put(
        VERSIONS, tree.make_row(txn, VERSIONS, bucket_id, key) + inverted(record.sequence), record.encode()
    )
