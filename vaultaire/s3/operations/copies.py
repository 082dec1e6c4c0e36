"""CopyObject and UploadPartCopy: metadata only, whatever size and offset.

A copy names the chunks of its source; no byte is read. So CopyObject has no size limit, its ETag and checksum are its
source's, and the ETag of a copied part that is not a whole simple object is a digest of the chunk references in place
of an MD5 (same bytes cut the same way, same ETag; clients treat a part's ETag as opaque).

The source row is read inside the commit (a part's: read again there, and one that changed meanwhile fails the copy),
so a manifest is never copied from an object that collection may already have forgotten.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html and API_UploadPartCopy.html
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cas.manifest import Manifest
from index.records import PartRecord
from index.uploads import get_upload, put_part
from index.versions import get_version
from index.versions import put_object as put
from vaultaire.s3 import conditions, names, ranges, xml
from vaultaire.s3.authorize import check_owner, decide
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.operations.attributes import (
    ENCRYPTED,
    Attributes,
    checksum_element,
    encryption_headers,
    parse_attributes,
    refuse_customer_keys,
)
from vaultaire.s3.operations.lifecycle import expiry_headers
from vaultaire.s3.operations.locking import check_lock
from vaultaire.s3.operations.objects import current_of
from vaultaire.s3.operations.parameters import parse_part_number, upload_id
from vaultaire.s3.operations.rights import new_object_rights
from vaultaire.s3.operations.storing import check_wanted
from vaultaire.s3.operations.versioning import new_version_headers, require_version
from vaultaire.s3.version_ids import VersionName, format_version, lookup, parse_version

if TYPE_CHECKING:
    from cas.store import Publication
    from index.kv import Reader, Transaction
    from index.records import BucketRecord, ObjectRecord
    from index.values import Checksum


_NOTHING_CHANGES = (
    "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
    "metadata, storage class, website redirect location or encryption attributes."
)


# Not copied with the source's metadata: they hold for one object, and are taken from the request alone.
_OWN_HEADERS = ("x-amz-storage-class", "x-amz-website-redirect-location")
_CHANGES = (*(name.encode() for name in _OWN_HEADERS), b"x-amz-server-side-encryption")


@dataclass(frozen=True, slots=True)
class _Source:
    bucket: str
    key: bytes
    record: ObjectRecord
    version: VersionName | None  # as the request names it
    versioned: bool

    @property
    def named(self) -> bool:
        """By a version id, in a bucket that has versions."""
        return self.version is not None and self.versioned

    def read_again(self, call: Call, txn: Transaction) -> _Source:
        """The source as it is now; if it was replaced meanwhile, the conditions are asked again."""
        bucket = call.bucket(txn, self.bucket)
        now = _find_version(txn, bucket, self.key, self.version)
        if now.sequence != self.record.sequence:
            conditions.check_copy_source(call.headers, current_of(now))
        return replace(self, record=now, versioned=bucket.versioning != "Off")

    def check_unchanged(self, call: Call, txn: Transaction) -> None:
        """The very version that was looked at is still there. Raises NoSuchKey, OperationAborted, ..."""
        now = get_version(txn, call.bucket(txn, self.bucket).id, self.key, self.record.version_id)
        if now is None:
            raise S3Error("NoSuchKey", key=self.key)
        if now.sequence != self.record.sequence:
            raise S3Error("OperationAborted", "The source of the copy was replaced meanwhile. Try again.")

    def headers(self) -> list[tuple[bytes, bytes]]:
        shown = format_version(self.record.version_id).encode()
        return [(b"x-amz-copy-source-version-id", shown)] if self.versioned else []


def _find_source(call: Call, reader: Reader, *, tags: bool = False) -> _Source:
    """A copy reads its source: that must be allowed there, as a GET would be; with `tags` as GetObjectTagging too."""
    refuse_customer_keys(call.headers)
    header = call.header(b"x-amz-copy-source")
    if not header:
        raise invalid_argument("You must provide a copy source", "x-amz-copy-source", header)
    source = names.parse_copy_source(header)
    bucket, rules = call.source(reader, source.bucket)
    check_owner(bucket, call.header(b"x-amz-source-expected-bucket-owner"))

    def allowed(action: str, key: bytes | None = source.key) -> bool:
        return decide(call, bucket, rules, action, key, source.version_id)

    suffix = "Version" if source.version_id is not None else ""
    if not allowed(f"s3:GetObject{suffix}"):
        raise S3Error("AccessDenied")
    call.admit(bucket)
    version = parse_version(source.version_id)
    if lookup(reader, bucket, source.key, version) is None and not allowed("s3:ListBucket", None):
        raise S3Error("AccessDenied")
    record = _find_version(reader, bucket, source.key, version)
    if tags and record.tags and not allowed(f"s3:GetObject{suffix}Tagging"):
        raise S3Error("AccessDenied")
    conditions.check_copy_source(call.headers, current_of(record))
    versioned = bucket.versioning != "Off"
    return _Source(source.bucket, source.key, record, version, versioned)


def _find_version(
    reader: Reader, bucket: BucketRecord, key: bytes, version: VersionName | None
) -> ObjectRecord:
    """Raises InvalidRequest for a delete marker that is named, else as `require_version`."""
    named = lookup(reader, bucket, key, version) if version is not None else None
    if named is not None and named.delete_marker:
        raise S3Error(
            "InvalidRequest",
            "The source of a copy request may not specifically refer to a delete marker by version id.",
        )
    return named or require_version(reader, bucket, key, version)


def _directive(call: Call, name: bytes) -> bool:
    """True for REPLACE, False for COPY (the default). Raises InvalidArgument."""
    text = call.header(name)
    if text in (None, "COPY"):
        return False
    if text != "REPLACE":
        raise invalid_argument(f"Unknown {name.decode()}.", name.decode(), text)
    return True


async def copy_object(call: Call) -> Response:
    """The same chunks under another name, with the source's metadata or (REPLACE) the request's."""
    key = call.key
    assert key is not None
    attributes = parse_attributes(call.headers, encrypts=call.rules.encrypts)
    replaces = _directive(call, b"x-amz-metadata-directive")
    replaces_tags = _directive(call, b"x-amz-tagging-directive")
    rights = new_object_rights(call, call.require_bucket())
    wanted = conditions.parse_write(call.headers)
    change = call.change()
    check_lock(call.require_bucket(), attributes.retention, attributes.legal_hold, change.now_ms)
    changes = replaces or replaces_tags or any(name in call.headers for name in _CHANGES)

    def commit(txn: Transaction) -> tuple[ObjectRecord, list[tuple[bytes, bytes]]]:
        bucket = call.bucket(txn)
        now = source.read_again(call, txn)
        current = now.record
        check_wanted(txn, bucket, key, wanted)
        copied = replace(
            current,
            modified_ms=change.now_ms,
            owner=rights.owner,
            acl=rights.grants,
            tags=attributes.tags if replaces_tags else current.tags,
            new_stored_bytes=len(current.inline or b""),
            retention=attributes.retention,  # a lock is never copied
            legal_hold=attributes.legal_hold,
        )
        copied = _with_attributes(copied, attributes, replaces=replaces)
        version_id = put(txn, bucket, key, copied, change)
        return copied, now.headers() + new_version_headers(version_id)

    with call.store.operation():
        with call.store.kv.snapshot() as reader:
            call.bucket(reader)
            source = _find_source(call, reader, tags=not replaces_tags)
        # An older version copied onto its own key is brought back: that changes something.
        onto_itself = (source.bucket, source.key) == (call.bucket_name, key) and not source.named
        if onto_itself and not changes:
            raise S3Error("InvalidRequest", _NOTHING_CHANGES)
        record, headers = await call.commit(commit)
    checksum = checksum_element(record.checksum)
    kind = record.checksum.type if record.checksum is not None else None
    response = xml_response(xml.copy_object(record.etag, record.modified_ms, checksum, kind))
    response.headers += headers + encryption_headers(record.headers) + expiry_headers(call, record)
    return response


def _with_attributes(record: ObjectRecord, given: Attributes, *, replaces: bool) -> ObjectRecord:
    if replaces:
        return replace(
            record, content_type=given.content_type, headers=given.headers, metadata=given.metadata
        )
    # Class, redirect and encryption are never the source's: they are asked for, or the target's own.
    kept = [header for header in record.headers if header[0] not in _OWN_HEADERS and header != ENCRYPTED]
    own = [header for header in given.headers if header[0] in _OWN_HEADERS or header == ENCRYPTED]
    return replace(record, headers=(*kept, *own))


async def upload_part_copy(call: Call) -> Response:
    """A range of an object (or all of it) becomes a part, by reference."""
    key = call.key
    assert key is not None
    number, identifier = parse_part_number(call.query), upload_id(call.query)
    with call.store.operation():
        with call.store.kv.snapshot() as reader:
            bucket = call.bucket(reader)
            upload = get_upload(reader, bucket.id, key, identifier)
            if upload is None:
                raise S3Error("NoSuchUpload", extra={"UploadId": identifier})
            call.require_initiator(upload)
            source = _find_source(call, reader)
        size = source.record.size
        header = call.header(b"x-amz-copy-source-range")
        start, stop = ranges.parse_copy_source_range(header, size) if header is not None else (0, size)
        manifest, publication = await call.services.threads.compute(
            lambda: _reference(call, source.record, start, stop)
        )
        whole = start == 0 and stop == size
        part = PartRecord(
            number=number,
            size=stop - start,
            etag=_part_etag(source.record, manifest, whole=whole),
            modified_ms=call.now_ms(),
            manifest=manifest.encode(),
            checksum=_whole_checksum(source.record) if whole else None,
        )

        def commit(txn: Transaction) -> None:
            source.check_unchanged(call, txn)
            put_part(txn, call.bucket(txn), key, identifier, part, call.store.writer)

        try:
            await call.commit(commit, [publication])
        finally:
            publication.settle(False)  # nothing, where the commit was decided
    response = xml_response(xml.copy_part(part.etag, part.modified_ms, checksum_element(part.checksum)))
    response.headers += source.headers() + encryption_headers(upload.headers)
    return response


def _reference(call: Call, record: ObjectRecord, start: int, stop: int) -> tuple[Manifest, Publication]:
    chunks = call.store.chunks
    if record.manifest is not None:
        composed = chunks.compose([(Manifest.decode(record.manifest), start, stop)])
        return composed.manifest, composed.publication
    # An inline source is a few KiB: it becomes a chunk now, for parts are made of chunks.
    ingest = chunks.ingest()
    try:
        ingest.feed((record.inline or b"")[start:stop])
        return ingest.finish(), ingest.publication()
    except BaseException:
        ingest.abort()
        raise


def _part_etag(record: ObjectRecord, manifest: Manifest, *, whole: bool) -> str:
    if whole and "-" not in record.etag:
        return record.etag
    return hashlib.blake2b(manifest.encode(), digest_size=16).hexdigest()


def _whole_checksum(record: ObjectRecord) -> Checksum | None:
    checksum = record.checksum
    return checksum if checksum is not None and checksum.type == "FULL_OBJECT" else None
