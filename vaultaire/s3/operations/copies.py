"""CopyObject and UploadPartCopy: metadata only, whatever size and offset.

A copy names the chunks of its source; no byte is read. So CopyObject has no size limit, its ETag and checksum are its
source's, and the ETag of a copied part that is not a whole simple object is a digest of the chunk references in place
of an MD5 (same bytes cut the same way, same ETag; clients treat a part's ETag as opaque).

The source row is read again inside the commit: a source that changed meanwhile fails the copy, so a manifest is never
copied from an object that collection may already have forgotten.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html and API_UploadPartCopy.html
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cas.manifest import Manifest
from index.objects import get_object as find
from index.objects import put_object as put
from index.records import PartRecord
from index.uploads import get_upload, put_part
from vaultaire.s3 import conditions, names, ranges, xml
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.operations.attributes import check_version, checksum_element, parse_attributes
from vaultaire.s3.operations.lifecycle import expiry_headers
from vaultaire.s3.operations.objects import current_of
from vaultaire.s3.operations.parameters import parse_part_number, upload_id

if TYPE_CHECKING:
    from cas.store import Publication
    from index.kv import Reader, Transaction
    from index.records import ObjectRecord
    from index.values import Checksum


_NOTHING_CHANGES = (
    "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
    "metadata, storage class, website redirect location or encryption attributes."
)


@dataclass(frozen=True, slots=True)
class _Source:
    bucket: str
    key: bytes
    record: ObjectRecord

    def check_unchanged(self, call: Call, txn: Transaction) -> None:
        """The very version that was looked at is still there. Raises NoSuchKey, OperationAborted, ..."""
        now = find(txn, call.bucket(txn, self.bucket).id, self.key)
        if now is None:
            raise S3Error("NoSuchKey", key=self.key)
        if now.sequence != self.record.sequence:
            raise S3Error("OperationAborted", "The source of the copy was replaced meanwhile. Try again.")


def _find_source(call: Call, reader: Reader) -> _Source:
    header = call.header(b"x-amz-copy-source")
    if not header:
        raise invalid_argument("You must provide a copy source", "x-amz-copy-source", header)
    source = names.parse_copy_source(header)
    record = find(reader, call.bucket(reader, source.bucket).id, source.key)
    check_version(source.version_id)
    if record is None:
        raise S3Error("NoSuchKey", key=source.key)
    conditions.check_copy_source(call.headers, current_of(record))
    return _Source(source.bucket, source.key, record)


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
    attributes = parse_attributes(call.headers)
    replaces = _directive(call, b"x-amz-metadata-directive")
    _directive(call, b"x-amz-tagging-directive")
    wanted = conditions.parse_write(call.headers)
    with call.store.operation():
        with call.store.kv.snapshot() as reader:
            call.bucket(reader)
            source = _find_source(call, reader)
        record = replace(
            source.record,
            modified_ms=call.now_ms(),
            owner=call.principal.tenant,
            new_stored_bytes=len(source.record.inline or b""),
        )
        if replaces:
            record = replace(
                record,
                content_type=attributes.content_type,
                headers=attributes.headers,
                metadata=attributes.metadata,
            )
        elif (source.bucket, source.key) == (call.bucket_name, key):
            raise S3Error("InvalidRequest", _NOTHING_CHANGES)

        def commit(txn: Transaction) -> None:
            source.check_unchanged(call, txn)
            bucket = call.bucket(txn)
            if wanted is not None:
                existing = find(txn, bucket.id, key)
                wanted.check(None if existing is None else existing.etag)
            put(txn, bucket.id, key, record, call.store.writer)

        await call.commit(commit)
    checksum = checksum_element(record.checksum)
    kind = record.checksum.type if record.checksum is not None else None
    response = xml_response(xml.copy_object(record.etag, record.modified_ms, checksum, kind))
    response.headers += expiry_headers(call, record)
    return response


async def upload_part_copy(call: Call) -> Response:
    """A range of an object (or all of it) becomes a part, by reference."""
    key = call.key
    assert key is not None
    number, identifier = parse_part_number(call.query), upload_id(call.query)
    with call.store.operation():
        with call.store.kv.snapshot() as reader:
            bucket = call.bucket(reader)
            if get_upload(reader, bucket.id, key, identifier) is None:
                raise S3Error("NoSuchUpload", extra={"UploadId": identifier})
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
            put_part(txn, call.bucket(txn).id, key, identifier, part)

        await call.commit(commit, [publication])
    return xml_response(xml.copy_part(part.etag, part.modified_ms, checksum_element(part.checksum)))


def _reference(call: Call, record: ObjectRecord, start: int, stop: int) -> tuple[Manifest, Publication]:
    chunks = call.store.chunks
    if record.manifest is not None:
        composed = chunks.compose([(Manifest.decode(record.manifest), start, stop)])
        return composed.manifest, composed.publication
    # An inline source is a few KiB: it becomes a chunk now, for parts are made of chunks.
    ingest = chunks.ingest()
    ingest.feed((record.inline or b"")[start:stop])
    return ingest.finish(), ingest.publication()


def _part_etag(record: ObjectRecord, manifest: Manifest, *, whole: bool) -> str:
    if whole and "-" not in record.etag:
        return record.etag
    return hashlib.blake2b(manifest.encode(), digest_size=16).hexdigest()


def _whole_checksum(record: ObjectRecord) -> Checksum | None:
    checksum = record.checksum
    return checksum if checksum is not None and checksum.type == "FULL_OBJECT" else None
