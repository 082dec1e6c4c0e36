"""CreateMultipartUpload, UploadPart, CompleteMultipartUpload, AbortMultipartUpload.

Parts are chunked as they arrive. Complete writes one node over the parts' roots and the object's record, in one commit
with the removal of the upload: it costs metadata only, whatever the size.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.manifest import Manifest
from index import uploads
from index.objects import get_object as find
from index.records import ObjectRecord, PartRecord, UploadRecord
from index.values import Checksum, PartSummary, encode_parts
from index.versions import complete_upload
from vaultaire.s3 import checksums, conditions, dates, xml, xml_requests
from vaultaire.s3.body import (
    MAX_PUT_BYTES,
    new_digests,
    new_upload,
    plan_body,
    read_small_body,
    receive_upload,
)
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.checksums import Algorithm
from vaultaire.s3.errors import S3Error, invalid_argument
from vaultaire.s3.expected import (
    parse_checksum_type,
    parse_object_checksum,
    parse_upload_checksum,
)
from vaultaire.s3.operations.attributes import (
    checksum_element,
    checksum_headers,
    encryption_headers,
    parse_attributes,
    refuse_customer_keys,
    stored_checksum,
)
from vaultaire.s3.operations.lifecycle import expiry_headers, upload_expiry_headers
from vaultaire.s3.operations.locking import check_lock
from vaultaire.s3.operations.parameters import parse_part_number, upload_id
from vaultaire.s3.operations.rights import new_object_rights
from vaultaire.s3.operations.storing import check_wanted
from vaultaire.s3.operations.versioning import new_version_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cas.store import Publication
    from index.kv import Reader, Transaction
    from index.records import BucketRecord
    from vaultaire.s3.xml_requests import CompletePart

MIN_PART_BYTES = (
    5 << 20
)  # all but the last: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_IF_INITIATED = b"x-amz-if-match-initiated-time"
PART_WINDOW = 256  # parts read at a time: their manifests have up to some KiB each


async def create_multipart_upload(call: Call) -> Response:
    """Fixes what the object will carry beside its bytes."""
    key, bucket_name = call.key, call.bucket_name
    assert key is not None
    assert bucket_name is not None
    attributes = parse_attributes(call.headers, encrypts=call.rules.encrypts)
    rights = new_object_rights(call, call.require_bucket())
    call.require_room(0)  # the object that this shall become counts at its completion: not for nothing
    checksum = parse_upload_checksum(call.headers)
    nonce = os.urandom(uploads.NONCE_BYTES)
    record = UploadRecord(
        upload_id="",
        key=key,
        owner=rights.owner,
        initiated_ms=call.now_ms(),
        content_type=attributes.content_type,
        headers=attributes.headers,
        metadata=attributes.metadata,
        checksum_algorithm=checksum.algorithm.value if checksum is not None else None,
        checksum_type=checksum.type if checksum is not None else None,
        tags=attributes.tags,
        acl=rights.grants,
        retention=attributes.retention,
        legal_hold=attributes.legal_hold,
        initiator=call.principal.access_key,
    )
    check_lock(call.require_bucket(), record.retention, record.legal_hold, record.initiated_ms)
    stored = await call.commit(lambda txn: uploads.create_upload(txn, call.bucket(txn).id, record, nonce))
    response = xml_response(xml.initiate_multipart_upload(bucket_name, key, stored.upload_id))
    response.headers += encryption_headers(record.headers)
    if checksum is not None:
        response.headers.append((b"x-amz-checksum-algorithm", checksum.algorithm.value.encode()))
        response.headers.append((b"x-amz-checksum-type", checksum.type.encode()))
    response.headers += upload_expiry_headers(call, stored.initiated_ms)
    return response


def _find_upload(call: Call, reader: Reader, identifier: str) -> tuple[BucketRecord, UploadRecord]:
    assert call.key is not None
    bucket = call.bucket(reader)
    upload = uploads.get_upload(reader, bucket.id, call.key, identifier)
    if upload is None:
        raise S3Error("NoSuchUpload", extra={"UploadId": identifier})
    call.require_initiator(upload)
    return bucket, upload


async def upload_part(call: Call) -> Response:
    """One part, whole and proven; it replaces an earlier one of its number."""
    key = call.key
    assert key is not None
    number, identifier = parse_part_number(call.query), upload_id(call.query)
    refuse_customer_keys(call.headers)
    plan = plan_body(call, max_bytes=MAX_PUT_BYTES)
    with call.store.kv.snapshot() as reader:
        bucket, upload_record = _find_upload(call, reader, identifier)
        uploads.require_room(reader, bucket, key, identifier, number, plan.length or 0)
    _check_part_algorithm(upload_record, plan.expected.algorithm)
    digests = new_digests(plan, _algorithm(upload_record))
    with new_upload(call, plan, digests, bucket, inline_max_bytes=-1) as upload:
        computed = await receive_upload(call, plan, digests, upload)
        assert upload.manifest is not None
        checksum = stored_checksum(computed)
        part = PartRecord(
            number=number,
            size=upload.size,
            etag=computed.md5.hex(),
            modified_ms=call.now_ms(),
            manifest=upload.manifest.encode(),
            checksum=checksum,
            new_stored_bytes=upload.new_stored_bytes,
        )

        def commit(txn: Transaction) -> None:
            bucket, _ = _find_upload(call, txn, identifier)
            uploads.put_part(txn, bucket, key, identifier, upload.counted(part), call.store.writer)

        await call.commit(commit, upload.publications)
        upload.committed = True
    # A part's checksum has no type: only objects have one.
    headers = [(b"etag", b'"%s"' % part.etag.encode()), *checksum_headers(checksum)[:1]]
    return Response(200, headers + encryption_headers(upload_record.headers))


def _algorithm(upload: UploadRecord) -> Algorithm | None:
    return Algorithm(upload.checksum_algorithm) if upload.checksum_algorithm is not None else None


def _check_part_algorithm(upload: UploadRecord, given: Algorithm | None) -> None:
    """A part may come without a checksum (it is computed), but not with another algorithm than announced."""
    wanted = _algorithm(upload)
    if given is not None and wanted is not None and given is not wanted:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {wanted.value.lower()}, "
            f"actual checksum Type: {given.value.lower()}",
        )


async def abort_multipart_upload(call: Call) -> Response:
    """Raises NoSuchUpload; PreconditionFailed if it was begun in another second than the client expects."""
    key, identifier = call.key, upload_id(call.query)
    assert key is not None
    expected = call.header(_IF_INITIATED)
    expected_seconds = None if expected is None else dates.parse_http(expected)
    if expected is not None and expected_seconds is None:
        raise invalid_argument("The header must be an HTTP date", _IF_INITIATED.decode(), expected)

    def commit(txn: Transaction) -> None:
        bucket, upload = _find_upload(call, txn, identifier)
        if expected_seconds is not None and upload.initiated_ms // 1000 != expected_seconds:
            raise S3Error("PreconditionFailed", extra={"Condition": _IF_INITIATED.decode()})
        uploads.remove_upload(txn, bucket, key, identifier, call.store.writer)

    await call.commit(commit)
    return Response(204)


async def complete_multipart_upload(call: Call) -> Response:
    """The listed parts, in their order, become the object. A repeat of what just succeeded succeeds again."""
    key, identifier = call.key, upload_id(call.query)
    assert key is not None
    call.require_bucket()  # early: a hopeless request is refused before its body is asked for
    body = await read_small_body(call, checksum_is_of_body=False)
    # In a thread: 10,000 parts take a tenth of a second.
    listed = await call.services.threads.compute(lambda: xml_requests.parse_complete_multipart_upload(body))
    conditions.parse_write(call.headers)  # refused before anything is done
    stated = parse_object_checksum(call.headers)
    stated_type = parse_checksum_type(call.headers)

    def prepare() -> _Completion:
        with call.store.kv.snapshot() as reader:
            bucket, upload = _find_upload(call, reader, identifier)
            parts = _read_parts(reader, bucket.id, key, identifier, listed)
        _check_parts(listed, parts)
        checksum = _object_checksum(upload, parts)
        _check_stated(stated, stated_type, checksum)
        return _compose(call, upload, parts, checksum)

    with call.store.operation():
        try:
            made = await call.services.threads.compute(prepare)
            version_id = await _commit_completion(call, identifier, made)
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise
            return _repeated(call, listed, identifier)
    return _completed(call, made.record, version_id)


@dataclass(frozen=True, slots=True)
class _Completion:
    """What a commit makes of an upload, and (number, sequence) of the parts that it was made from."""

    record: ObjectRecord
    publication: Publication
    parts: list[tuple[int, int]]


def _compose(
    call: Call, upload: UploadRecord, parts: Sequence[PartRecord], checksum: Checksum | None
) -> _Completion:
    """Blocking. Raises CasError."""
    composed = call.store.chunks.compose([(Manifest.decode(p.manifest), 0, p.size) for p in parts])
    record = ObjectRecord(
        size=sum(part.size for part in parts),
        modified_ms=call.now_ms(),
        etag=_multipart_etag([part.etag for part in parts]),
        owner=upload.owner,
        content_type=upload.content_type,
        headers=upload.headers,
        metadata=upload.metadata,
        tags=upload.tags,
        acl=upload.acl,
        checksum=checksum,
        manifest=composed.manifest.encode(),
        part_table=encode_parts([PartSummary(p.number, p.size, p.etag, p.checksum) for p in parts]),
        new_stored_bytes=sum(part.new_stored_bytes for part in parts),
        retention=upload.retention,
        legal_hold=upload.legal_hold,
    )
    return _Completion(record, composed.publication, [(part.number, part.sequence) for part in parts])


async def _commit_completion(call: Call, identifier: str, made: _Completion) -> bytes | None:
    """The new version's id."""
    key, wanted = call.key, conditions.parse_write(call.headers)
    assert key is not None
    change = call.change()

    def commit(txn: Transaction) -> bytes | None:
        bucket, _ = _find_upload(call, txn, identifier)
        # The manifests were read outside: they must still be what collection sees as this upload's.
        if not uploads.same_parts(txn, bucket.id, key, identifier, made.parts):
            raise S3Error("OperationAborted", "A part was replaced meanwhile. Try again.")
        check_wanted(txn, bucket, key, wanted)
        return complete_upload(txn, bucket, key, identifier, made.record, change)

    try:
        return await call.commit(commit, [made.publication])
    finally:
        made.publication.settle(False)  # nothing, where the commit was decided


def _multipart_etag(etags: list[str]) -> str:
    """MD5 of the parts' MD5s, and their number."""
    digest = hashlib.md5(b"".join(map(bytes.fromhex, etags)), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(etags)}"


def _completed(call: Call, record: ObjectRecord, version_id: bytes | None) -> Response:
    assert call.bucket_name is not None
    assert call.key is not None
    kind = record.checksum.type if record.checksum is not None else None
    checksum = checksum_element(record.checksum)
    response = xml_response(
        xml.complete_multipart_upload(
            call.object_url(), call.bucket_name, call.key, record.etag, checksum, kind
        )
    )
    response.headers += encryption_headers(record.headers) + expiry_headers(call, record)
    response.headers += new_version_headers(version_id)
    return response


def _repeated(call: Call, listed: Sequence[CompletePart], identifier: str) -> Response:
    """The upload is gone: was it this very request that completed it? Then its answer was lost on the way."""
    assert call.key is not None
    with call.store.kv.snapshot() as reader:
        record = find(reader, call.bucket(reader).id, call.key)
    try:
        etag = _multipart_etag([part.etag for part in listed])
    except ValueError:
        etag = ""
    began = uploads.parse_upload_id(identifier)
    older = began is not None and record is not None and int.from_bytes(began[:8]) < record.sequence
    if record is None or record.etag != etag or not older:
        raise S3Error("NoSuchUpload", extra={"UploadId": identifier})
    return _completed(call, record, record.version_id)


def _read_parts(
    reader: Reader, bucket_id: int, key: bytes, identifier: str, listed: Sequence[CompletePart]
) -> list[PartRecord]:
    """Raises InvalidPart for a part that is not there."""
    found: list[PartRecord] = []
    for first in range(0, len(listed), PART_WINDOW):
        window = listed[first : first + PART_WINDOW]
        records = uploads.get_parts(reader, bucket_id, key, identifier, [part.number for part in window])
        for part, record in zip(window, records, strict=True):
            if record is None or record.etag != part.etag:
                raise S3Error("InvalidPart", extra={"PartNumber": part.number, "ETag": part.etag})
            found.append(record)
    return found


def _check_parts(listed: Sequence[CompletePart], parts: Sequence[PartRecord]) -> None:
    for before, after in itertools.pairwise(listed):
        if after.number <= before.number:
            raise S3Error("InvalidPartOrder")
    for wanted, part in zip(listed, parts, strict=True):
        if wanted.checksum is None:
            continue
        algorithm, digest = wanted.checksum
        known = part.checksum
        if known is None or algorithm.value != known.algorithm or checksums.encode(digest) != known.value:
            raise S3Error("InvalidPart", extra={"PartNumber": part.number, "ETag": part.etag})
    for part in parts[:-1]:
        if part.size < MIN_PART_BYTES:
            raise S3Error(
                "EntityTooSmall",
                extra={
                    "ProposedSize": part.size,
                    "MinSizeAllowed": MIN_PART_BYTES,
                    "PartNumber": part.number,
                    "ETag": part.etag,
                },
            )


def _object_checksum(upload: UploadRecord, parts: Sequence[PartRecord]) -> Checksum | None:
    """From the parts' alone; None if one of them has none of the upload's algorithm (a part copied by reference)."""
    algorithm = _algorithm(upload) or Algorithm.CRC64NVME
    kind = upload.checksum_type or "FULL_OBJECT"
    digests: list[bytes] = []
    for part in parts:
        if part.checksum is None or part.checksum.algorithm != algorithm.value:
            return None
        digest = checksums.decode(part.checksum.value, algorithm.digest_bytes)
        if digest is None:
            return None
        digests.append(digest)
    if kind == "COMPOSITE":
        return Checksum(algorithm.value, "COMPOSITE", checksums.composite(algorithm, digests))
    sizes = [part.size for part in parts]
    combined = checksums.combine(algorithm, zip(digests, sizes, strict=True))
    return Checksum(algorithm.value, "FULL_OBJECT", checksums.encode(combined))


def _check_stated(stated: tuple[Algorithm, str] | None, kind: str | None, checksum: Checksum | None) -> None:
    """What the client says of the whole object must be what its parts come to."""
    if kind is not None and checksum is not None and kind != checksum.type:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using the {checksum.type} checksum mode. The complete request must use the "
            "same checksum mode.",
        )
    if stated is None:
        return
    if checksum is None:
        # Accepting it unverified would be a promise: the client believes that its bytes were compared.
        raise S3Error("NotImplemented", "The checksum of an object with copied ranges cannot be verified.")
    algorithm, value = stated
    # A composite one may come without its number of parts: so minio-go sends it.
    known = (checksum.value, checksum.value.partition("-")[0])
    if algorithm.value != checksum.algorithm or value not in known:
        raise S3Error(
            "BadDigest", f"The {algorithm.value} you specified did not match the calculated checksum."
        )
