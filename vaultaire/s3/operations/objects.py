"""PutObject, GetObject, HeadObject, DeleteObject.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html and its neighbours.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from cas.manifest import Manifest
from index.versions import delete_object as delete
from index.versions import delete_version
from vaultaire.budget import GUARANTEED_BYTES
from vaultaire.reading import SMALL_SPAN_BYTES, ObjectReader, send_window
from vaultaire.s3 import conditions, ranges
from vaultaire.s3.body import MAX_PUT_BYTES, new_digests, new_upload, plan_body, receive_upload
from vaultaire.s3.call import Call, Response
from vaultaire.s3.errors import S3Error
from vaultaire.s3.headers import response_overrides
from vaultaire.s3.operations.attributes import (
    checksum_headers,
    encryption_headers,
    object_headers,
    parse_attributes,
    refuse_customer_keys,
)
from vaultaire.s3.operations.lifecycle import expiry_headers
from vaultaire.s3.operations.locking import check_lock, lock_headers
from vaultaire.s3.operations.rights import new_object_rights
from vaultaire.s3.operations.storing import check_early, store_object
from vaultaire.s3.operations.versioning import (
    deletion_headers,
    new_version_headers,
    require_version,
    version_headers,
)
from vaultaire.s3.version_ids import lookup, parse_version

if TYPE_CHECKING:
    from index.kv import Transaction
    from index.records import BucketRecord, ObjectRecord
    from vaultaire.s3.call import Sender


async def put_object(call: Call) -> Response:
    """One body, whole and proven, becomes the current object."""
    attributes = parse_attributes(call.headers, encrypts=call.rules.encrypts)
    plan = plan_body(call, max_bytes=MAX_PUT_BYTES)
    wanted = conditions.parse_write(call.headers)
    key = call.key
    assert key is not None
    bucket = call.require_bucket()
    rights = new_object_rights(call, bucket)
    check_lock(bucket, attributes.retention, attributes.legal_hold, call.now_ms())
    check_early(call, bucket, key, wanted)
    call.require_room(plan.length or 0)
    digests = new_digests(plan)
    with new_upload(call, plan, digests, bucket) as upload:
        computed = await receive_upload(call, plan, digests, upload)
        record, version_id = await store_object(call, key, upload, computed, attributes, rights, wanted)
    headers = [(b"etag", b'"%s"' % record.etag.encode()), *checksum_headers(record.checksum)]
    headers += encryption_headers(record.headers) + expiry_headers(call, record)
    return Response(200, headers + new_version_headers(version_id))


def current_of(record: ObjectRecord) -> conditions.Current:
    """What conditions are decided from."""
    return conditions.Current(record.etag, record.size, record.modified_ms)


async def get_object(call: Call) -> Response:
    """The object, or a range of it; conditions are evaluated first."""
    return await _get(call, body=True)


async def head_object(call: Call) -> Response:
    """GetObject without its body."""
    return await _get(call, body=False)


async def _get(call: Call, *, body: bool) -> Response:
    # Begun before the snapshot is taken: from then on collection waits for this read.
    run_file = call.store.run_file
    token = run_file.begin()
    resources = ExitStack()
    resources.callback(run_file.end, token)
    try:
        response, record, start, stop = _head(call)
        if body and start < stop:
            if record.inline is None:
                await _attach_stream(call, record, (start, stop), response, resources)
            else:
                response.body = record.inline[start:stop]
    except BaseException:
        resources.close()
        raise
    if response.stream is None and record.inline is not None:
        resources.close()
    else:
        response.resources = resources  # also for a body in one piece: a slow client holds up to a window
    return response


def _head(call: Call) -> tuple[Response, ObjectRecord, int, int]:
    """(the answer without its body, the object, the bytes asked for)."""
    number = _part_number(call)
    bucket, record = _asked_for(call)
    refuse_customer_keys(call.headers)
    headers = object_headers(record) + version_headers(bucket, record) + lock_headers(call, record)
    version_id = call.query.get("versionId")
    tagging = "s3:GetObjectVersionTagging" if version_id else "s3:GetObjectTagging"
    if record.tags and call.allows(tagging, call.key, version_id):
        headers.append((b"x-amz-tagging-count", b"%d" % len(record.tags)))
    current = current_of(record)
    if conditions.check_read(call.headers, current) == "not-modified":
        return Response(304, _not_modified_headers(headers)), record, 0, 0
    status, (start, stop) = _select(call, record, current, number, headers)
    if call.header(b"x-amz-checksum-mode") == "ENABLED":
        headers.extend(_checksum_of(record, number, status))
    if "versionId" not in call.query:
        headers += expiry_headers(call, record)
    overrides = response_overrides(call.query, anonymous=call.principal.anonymous) if call.query else []
    if overrides:
        replaced = {name for name, _ in overrides}
        headers = [*(h for h in headers if h[0] not in replaced), *overrides]
    return Response(status, headers, length=stop - start), record, start, stop


def _checksum_of(record: ObjectRecord, number: int | None, status: int) -> list[tuple[bytes, bytes]]:
    """Of exactly what is answered: the object or, where its checksum is that of the parts' checksums, one part."""
    if status == 200:
        return checksum_headers(record.checksum)
    composite = record.checksum is not None and record.checksum.type == "COMPOSITE"
    if number is None or not composite or not record.parts:
        return []
    part = record.parts[number - 1].checksum
    return [] if part is None else checksum_headers(replace(part, type="COMPOSITE"))


def _asked_for(call: Call) -> tuple[BucketRecord, ObjectRecord]:
    """Raises NoSuchBucket, AccessDenied, NoSuchVersion, NoSuchKey, MethodNotAllowed."""
    assert call.key is not None
    bucket = call.require_bucket()
    wanted = parse_version(call.query.get("versionId")) if call.query else None
    with call.store.kv.snapshot() as reader:
        return bucket, require_version(reader, bucket, call.key, wanted, call.method)


def _not_modified_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = (b"etag", b"last-modified", b"cache-control", b"expires", b"x-amz-version-id")
    return [h for h in headers if h[0] in kept]


def _part_number(call: Call) -> int | None:
    """Raises InvalidArgument, InvalidRequest."""
    text = call.query.get("partNumber")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= 10_000):
        raise S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
    if b"range" in call.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    return int(text)


def _select(
    call: Call,
    record: ObjectRecord,
    current: conditions.Current,
    number: int | None,
    headers: list[tuple[bytes, bytes]],
) -> tuple[int, tuple[int, int]]:
    """(status, half-open byte range) that Range or partNumber ask for; adds the headers that go with it."""
    range_header = call.header(b"range")
    selected = None
    if number is not None:
        selected = _part_range(number, record, headers)
    elif range_header is not None and conditions.range_applies(call.headers, current):
        selected = ranges.parse_range(range_header, record.size)
    if selected is None or not record.size:
        return 200, (0, record.size)
    start, stop = selected
    headers.append((b"content-range", f"bytes {start}-{stop - 1}/{record.size}".encode()))
    return 206, selected


def _part_range(number: int, record: ObjectRecord, headers: list[tuple[bytes, bytes]]) -> tuple[int, int]:
    parts = record.parts
    if not parts:
        if number == 1:
            return 0, record.size
        raise S3Error("InvalidPartNumber")
    headers.append((b"x-amz-mp-parts-count", b"%d" % len(parts)))
    if number > len(parts):
        raise S3Error(
            "InvalidPartNumber", extra={"PartNumberRequested": number, "ActualPartCount": len(parts)}
        )
    start = sum(part.size for part in parts[: number - 1])
    return start, start + parts[number - 1].size


async def _attach_stream(
    call: Call, record: ObjectRecord, selected: tuple[int, int], response: Response, resources: ExitStack
) -> None:
    """Read the first window now: damage found before the head is sent is an honest error."""
    assert record.manifest is not None
    services = call.services
    guaranteed = max(GUARANTEED_BYTES, min(selected[1] - selected[0], SMALL_SPAN_BYTES))
    lease = resources.enter_context(services.budget.admit(call.end, guaranteed))
    manifest = Manifest.decode(record.manifest)
    reader = ObjectReader(services.store.chunks, services.threads, lease, manifest, *selected)
    first = await reader.next_window()
    assert first is not None
    if sum(map(len, first)) == selected[1] - selected[0]:
        response.body = first[0] if len(first) == 1 else b"".join(first)

    async def stream(send: Sender) -> None:
        await send_window(first, send)
        await reader.send_rest(send)

    if not response.body:
        response.stream = stream


async def delete_object(call: Call) -> Response:
    """204, whether the object (or the version) was there or not; with If-Match only if it matches.

    Without `versionId`, in a bucket with versions, it makes a delete marker. Raises AccessDenied for a locked version.
    """
    key = call.key
    assert key is not None
    version = parse_version(call.query.get("versionId"))
    wanted = conditions.parse_delete(call.headers)
    change = call.change()

    def commit(txn: Transaction) -> list[tuple[bytes, bytes]]:
        bucket = call.bucket(txn)
        if wanted is not None:
            wanted.check(current_object(lookup(txn, bucket, key, version)))
        if version is not None:
            removed = delete_version(txn, bucket, key, version.raw, change)
            if bucket.versioning == "Off":
                return []
            return deletion_headers(version.raw, marker=removed is not None and removed.delete_marker)
        deletion = delete(txn, bucket, key, call.writing_tenant(bucket), change)
        return deletion_headers(deletion.version_id, marker=True) if deletion.marker else []

    return Response(204, await call.commit(commit))


def current_object(record: ObjectRecord | None) -> conditions.Current | None:
    """What a delete's conditions are decided from: a delete marker is no object."""
    return None if record is None or record.delete_marker else current_of(record)
