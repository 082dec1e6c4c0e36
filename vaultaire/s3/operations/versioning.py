"""Versions as requests and answers name them; GetBucketVersioning, PutBucketVersioning.

Their names: `version_ids`. Without `versionId` a request means the current object.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index.buckets import set_versioning
from index.versions import get_newest
from vaultaire.s3 import dates, xml, xml_requests
from vaultaire.s3.body import read_small_body
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error
from vaultaire.s3.version_ids import format_version, lookup

if TYPE_CHECKING:
    from index.kv import Reader, Transaction
    from index.records import BucketRecord, ObjectRecord
    from index.values import Versioning
    from vaultaire.s3.version_ids import VersionName

_VERSION_ID = b"x-amz-version-id"
_DELETE_MARKER = (b"x-amz-delete-marker", b"true")


def version_headers(bucket: BucketRecord, record: ObjectRecord) -> list[tuple[bytes, bytes]]:
    """`x-amz-version-id` of an object that is read; none in a bucket that never had versions."""
    return [] if bucket.versioning == "Off" else [(_VERSION_ID, format_version(record.version_id).encode())]


def new_version_headers(version_id: bytes | None) -> list[tuple[bytes, bytes]]:
    """`x-amz-version-id` of what was just written: S3 names a version only if it made an id for it."""
    return [] if version_id is None else [(_VERSION_ID, version_id.hex().encode())]


def deletion_headers(version_id: bytes | None, *, marker: bool) -> list[tuple[bytes, bytes]]:
    """Of DeleteObject: the version removed, or the delete marker made or removed."""
    named = (_VERSION_ID, format_version(version_id).encode())
    return [_DELETE_MARKER, named] if marker else [named]


def require_version(
    reader: Reader, bucket: BucketRecord, key: bytes, wanted: VersionName | None, method: str = "GET"
) -> ObjectRecord:
    """The object that is meant.

    Raises NoSuchKey (saying so if a delete marker hides the object), NoSuchVersion, and MethodNotAllowed for a delete
    marker that is named: all that can be done to one is to delete it.
    """
    record = lookup(reader, bucket, key, wanted)
    if record is None:
        raise _missing(reader, bucket, key, wanted)
    if record.delete_marker:
        shown = format_version(record.version_id)
        raise S3Error(
            "MethodNotAllowed",
            extra={"Method": method, "ResourceType": "DeleteMarker"},
            headers=(
                ("allow", "DELETE"),
                ("x-amz-delete-marker", "true"),
                ("x-amz-version-id", shown),
                ("last-modified", dates.format_http(record.modified_ms)),
            ),
        )
    return record


def _missing(reader: Reader, bucket: BucketRecord, key: bytes, wanted: VersionName | None) -> S3Error:
    if wanted is not None and (wanted.raw is not None or bucket.versioning != "Off"):
        return S3Error("NoSuchVersion", key=key, extra={"VersionId": format_version(wanted.raw)})
    marker = get_newest(reader, bucket.id, key) if bucket.versioning != "Off" else None
    if marker is None:
        return S3Error("NoSuchKey", key=key)
    named = ("x-amz-version-id", format_version(marker.version_id))
    return S3Error("NoSuchKey", key=key, headers=(("x-amz-delete-marker", "true"), named))


# --- Operations ------------------------------------------------------------------------------------------------


async def get_bucket_versioning(call: Call) -> Response:
    """Enabled, Suspended, or nothing for a bucket whose versioning was never set."""
    versioning = call.require_bucket().versioning
    return xml_response(xml.versioning_configuration(None if versioning == "Off" else versioning))


async def put_bucket_versioning(call: Call) -> Response:
    """Raises MalformedXML, IllegalVersioningConfigurationException, InvalidBucketState (Object Lock), NotImplemented."""
    call.require_bucket()
    status = xml_requests.parse_versioning(await read_small_body(call))
    wanted: Versioning = "Enabled" if status == "Enabled" else "Suspended"

    def commit(txn: Transaction) -> None:
        set_versioning(txn, call.bucket(txn), wanted)

    await call.commit(commit)
    return Response(200)
