"""Object Lock of buckets (its configuration) and of versions (retention, legal hold): six operations.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectLockConfiguration.html, API_PutObjectRetention.html and
API_PutObjectLegalHold.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.buckets import set_object_lock
from index.values import DefaultRetention, Retention
from index.versions import set_legal_hold, set_retention
from vaultaire.s3 import xml_lock
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error
from vaultaire.s3.facts import requested_hold, requested_retention
from vaultaire.s3.operations.locking import require_future, require_lock
from vaultaire.s3.operations.versioning import require_version
from vaultaire.s3.version_ids import parse_version

if TYPE_CHECKING:
    from index.kv import Reader, Transaction
    from index.records import BucketRecord, ObjectRecord


async def get_object_lock_configuration(call: Call) -> Response:
    """Raises ObjectLockConfigurationNotFoundError."""
    bucket = call.require_bucket()
    if not bucket.object_lock:
        raise S3Error("ObjectLockConfigurationNotFoundError", bucket=bucket.name)
    default = bucket.default_retention
    shown = None if default is None else xml_lock.Default(default.mode, default.count, default.unit)
    return xml_response(xml_lock.configuration(shown))


async def put_object_lock_configuration(call: Call) -> Response:
    """Turns Object Lock on, if it is not, and sets or clears the default retention; it is never turned off.

    Raises MalformedXML, InvalidRetentionPeriod, InvalidBucketState (versioning is not enabled).
    """
    call.require_bucket()
    parsed = xml_lock.parse_configuration(await read_small_body(call))
    default = None if parsed is None else DefaultRetention(parsed.mode, parsed.count, parsed.unit)

    def commit(txn: Transaction) -> None:
        set_object_lock(txn, call.bucket(txn), default)

    await call.commit(commit)
    return Response(200)


async def get_object_retention(call: Call) -> Response:
    """Raises NoSuchObjectLockConfiguration if the version has none."""
    with call.store.kv.snapshot() as reader:
        _, record = _find(call, reader)
    retention = record.retention
    if retention is None:
        raise S3Error("NoSuchObjectLockConfiguration", key=call.key)
    return xml_response(xml_lock.retention(retention.mode, retention.until_ms))


async def put_object_retention(call: Call) -> Response:
    """Prolonged by anybody who may write; shortened, changed in mode or taken off only as `index.locks` allows.

    Raises MalformedXML, InvalidArgument (a date that is not in the future), AccessDenied.
    """
    require_lock(call.require_bucket())
    parsed = xml_lock.parse_retention(await read_small_body(call))
    retention = None if parsed is None else Retention(*parsed)
    mode, until_ms = (None, None) if retention is None else (retention.mode, retention.until_ms)
    call.learn(requested_retention(mode, until_ms, call.services.clock()))
    call.require("s3:PutObjectRetention", call.key, call.query.get("versionId"))
    change = call.change()
    require_future(retention, change.now_ms)

    def commit(txn: Transaction) -> None:
        bucket, record = _find(call, txn)
        assert call.key is not None
        set_retention(txn, bucket.id, call.key, record, retention, change)

    await call.commit(commit)
    return Response(200)


async def get_object_legal_hold(call: Call) -> Response:
    """Raises NoSuchObjectLockConfiguration if it was never set."""
    with call.store.kv.snapshot() as reader:
        _, record = _find(call, reader)
    if record.legal_hold is None:
        raise S3Error("NoSuchObjectLockConfiguration", key=call.key)
    return xml_response(xml_lock.legal_hold(record.legal_hold))


async def put_object_legal_hold(call: Call) -> Response:
    """On or off; it neither needs nor touches a retention. Raises MalformedXML."""
    require_lock(call.require_bucket())
    on = xml_lock.parse_legal_hold(await read_small_body(call))
    call.learn(requested_hold(on))
    call.require("s3:PutObjectLegalHold", call.key, call.query.get("versionId"))
    if not on and call.creates_only:
        raise S3Error("AccessDenied")

    def commit(txn: Transaction) -> None:
        bucket, record = _find(call, txn)
        assert call.key is not None
        set_legal_hold(txn, bucket.id, call.key, record, on)

    await call.commit(commit)
    return Response(200)


def _find(call: Call, reader: Reader) -> tuple[BucketRecord, ObjectRecord]:
    """The bucket and the version that the request means. Raises InvalidRequest (no Object Lock), NoSuchKey, ..."""
    assert call.key is not None
    bucket = call.bucket(reader)
    require_lock(bucket)
    wanted = parse_version(call.query.get("versionId"))
    return bucket, require_version(reader, bucket, call.key, wanted, call.method)
