"""ListObjects, ListObjectsV2, ListObjectVersions, ListMultipartUploads, ListParts.

The rules of prefix, delimiter and markers are in `index.listing`; here are their spellings on the wire. Pages are
read and written in a thread: a page of 1,000 keys takes some milliseconds.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html and its neighbours.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import ExitStack
from typing import TYPE_CHECKING

from index import listing, uploads
from index.errors import NoSuchUpload
from index.records import UploadRecord, decode_listing
from vaultaire.budget import BudgetExhausted
from vaultaire.s3 import xml
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import invalid_argument
from vaultaire.s3.operations.attributes import checksum_element
from vaultaire.s3.operations.lifecycle import upload_expiry_headers
from vaultaire.s3.operations.parameters import MAX_PAGE, parse_limit, parse_url_encoding, upload_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def _name(query: Mapping[str, str], name: str) -> bytes:
    return query.get(name, "").encode("utf-8", "surrogateescape")


def _delimiter(query: Mapping[str, str]) -> bytes | None:
    """An empty delimiter is none."""
    return _name(query, "delimiter") or None


async def _in_thread(call: Call, page: Callable[[], bytes]) -> Response:
    response = xml_response(await call.services.threads.read(page))
    response.resources = resources = ExitStack()
    lease = resources.enter_context(call.services.budget.admit())
    if not lease.resize(len(response.body), whole=True):
        resources.close()
        raise BudgetExhausted
    return response


def _listed(rows: Iterable[tuple[bytes, bytes]], *, owners: bool) -> Iterable[xml.ListedObject]:
    for key, value in rows:
        head = decode_listing(value)
        yield xml.ListedObject(
            key,
            head.modified_ms,
            head.etag,
            head.size,
            head.owner if owners else None,
            "STANDARD",
            head.checksum_algorithm,
            head.checksum_type,
        )


async def list_objects(call: Call) -> Response:
    """Version 1: `marker`, and NextMarker only with a delimiter."""
    query = call.query
    prefix, delimiter, marker = _name(query, "prefix"), _delimiter(query), _name(query, "marker")
    max_keys, url = parse_limit(query, "max-keys", MAX_PAGE), parse_url_encoding(query)

    def page() -> bytes:
        with call.store.kv.snapshot() as reader:
            bucket = call.bucket(reader)
            found = listing.list_objects(
                reader,
                bucket.id,
                prefix=prefix,
                delimiter=delimiter or b"",
                after=marker,
                max_keys=max_keys,
            )
        head = xml.Listing(bucket.name, prefix, delimiter, max_keys, found.truncated, url)
        next_marker = found.last if found.truncated and delimiter else None
        rows = _listed(found.entries, owners=True)
        return xml.list_objects(head, rows, found.common_prefixes, marker=marker, next_marker=next_marker)

    return await _in_thread(call, page)


async def list_objects_v2(call: Call) -> Response:
    """Version 2: `continuation-token` (opaque: where the page before ended) or `start-after`."""
    query = call.query
    prefix, delimiter = _name(query, "prefix"), _delimiter(query)
    max_keys, url = parse_limit(query, "max-keys", MAX_PAGE), parse_url_encoding(query)
    token = query.get("continuation-token")
    start_after = _name(query, "start-after") if "start-after" in query else None
    after = _parse_token(token) if token is not None else start_after or b""
    owners = query.get("fetch-owner", "").lower() == "true"

    def page() -> bytes:
        with call.store.kv.snapshot() as reader:
            bucket = call.bucket(reader)
            found = listing.list_objects(
                reader,
                bucket.id,
                prefix=prefix,
                delimiter=delimiter or b"",
                after=after,
                max_keys=max_keys,
                after_skips_group=token is not None,
            )
        return xml.list_objects_v2(
            xml.Listing(bucket.name, prefix, delimiter, max_keys, found.truncated, url),
            _listed(found.entries, owners=owners),
            found.common_prefixes,
            key_count=len(found.entries) + len(found.common_prefixes),
            start_after=start_after,
            continuation_token=token,
            next_continuation_token=_make_token(found.last) if found.truncated else None,
        )

    return await _in_thread(call, page)


def _make_token(last: bytes) -> str:
    return base64.urlsafe_b64encode(b"1" + last).decode()


def _parse_token(token: str) -> bytes:
    """Raises InvalidArgument for a token that this server did not issue."""
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if raw[:1] != b"1":
        raise invalid_argument("The continuation token provided is incorrect", "continuation-token", token)
    return raw[1:]


async def list_object_versions(call: Call) -> Response:
    """A bucket without versioning lists each object with version id `null`."""
    query = call.query
    prefix, delimiter, key_marker = _name(query, "prefix"), _delimiter(query), _name(query, "key-marker")
    max_keys, url = parse_limit(query, "max-keys", MAX_PAGE), parse_url_encoding(query)
    version_marker = query.get("version-id-marker", "")
    if version_marker and not key_marker:
        raise invalid_argument(
            "A version-id marker cannot be specified without a key marker.",
            "version-id-marker",
            version_marker,
        )

    def page() -> bytes:
        with call.store.kv.snapshot() as reader:
            bucket = call.bucket(reader)
            found = listing.list_versions(
                reader,
                bucket.id,
                prefix=prefix,
                delimiter=delimiter or b"",
                key_marker=key_marker,
                version_id_marker=_parse_version_marker(version_marker),
                max_keys=max_keys,
            )
        rows = [_listed_version(row) for row in found.entries]
        ends_with_entry = found.truncated and rows and rows[-1].key == found.last
        return xml.list_versions(
            xml.Listing(bucket.name, prefix, delimiter, max_keys, found.truncated, url),
            rows,
            found.common_prefixes,
            key_marker=key_marker,
            version_id_marker=version_marker,
            next_key_marker=found.last if found.truncated else None,
            next_version_id_marker=rows[-1].version_id if ends_with_entry else None,
        )

    return await _in_thread(call, page)


def _parse_version_marker(text: str) -> bytes | None:
    if not text:
        return None
    if text == "null":
        return listing.NULL_VERSION
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise invalid_argument("Invalid version id specified", "version-id-marker", text) from None


def _listed_version(row: listing.VersionRow) -> xml.ListedVersion:
    head = decode_listing(row.value)
    version_id = head.version_id.hex() if head.version_id is not None else "null"
    etag = None if head.delete_marker else head.etag
    return xml.ListedVersion(row.key, version_id, row.latest, head.modified_ms, etag, head.size, head.owner)


async def list_multipart_uploads(call: Call) -> Response:
    """Uploads in progress, by key and then by the time they began."""
    query = call.query
    prefix, delimiter, key_marker = _name(query, "prefix"), _delimiter(query), _name(query, "key-marker")
    limit, url = parse_limit(query, "max-uploads", MAX_PAGE), parse_url_encoding(query)
    id_marker = query.get("upload-id-marker", "") if key_marker else ""

    def page() -> bytes:
        with call.store.kv.snapshot() as reader:
            bucket = call.bucket(reader)
            found = listing.list_uploads(
                reader,
                bucket.id,
                prefix=prefix,
                delimiter=delimiter or b"",
                key_marker=key_marker,
                upload_id_marker=id_marker,
                max_uploads=limit,
            )
        rows = [_listed_upload(row) for row in found.entries]
        ends_with_entry = found.truncated and rows and rows[-1].key == found.last
        return xml.list_multipart_uploads(
            xml.Listing(bucket.name, prefix, delimiter, limit, found.truncated, url),
            rows,
            found.common_prefixes,
            key_marker=key_marker,
            upload_id_marker=id_marker,
            next_key_marker=found.last if found.truncated else None,
            next_upload_id_marker=rows[-1].upload_id if ends_with_entry else None,
        )

    return await _in_thread(call, page)


def _listed_upload(row: listing.UploadRow) -> xml.ListedUpload:
    record = UploadRecord.decode(row.value)
    return xml.ListedUpload(
        row.key,
        row.upload_id,
        record.initiated_ms,
        record.owner,
        record.checksum_algorithm,
        record.checksum_type,
    )


async def list_parts(call: Call) -> Response:
    """The parts of one upload, by number."""
    query, key = call.query, call.key
    assert key is not None
    limit, marker = parse_limit(query, "max-parts", MAX_PAGE), _parse_part_marker(query)
    url, identifier = parse_url_encoding(query), upload_id(query)

    initiated_ms = 0

    def page() -> bytes:
        nonlocal initiated_ms
        with call.store.kv.snapshot() as reader:
            bucket = call.bucket(reader)
            upload = uploads.get_upload(reader, bucket.id, key, identifier)
            if upload is None:
                raise NoSuchUpload(bucket.id, key, identifier)
            found = uploads.list_parts(reader, bucket.id, key, identifier, after_number=marker, limit=limit)
        initiated_ms = upload.initiated_ms
        parts = [
            xml.ListedPart(
                part.number,
                part.modified_ms,
                part.etag,
                part.size,
                checksum_element(part.checksum),
            )
            for part in found.parts
        ]
        return xml.list_parts(
            bucket.name,
            key,
            identifier,
            upload.owner,
            parts,
            marker=marker,
            next_marker=parts[-1].number if parts else 0,
            max_parts=limit,
            truncated=found.truncated,
            checksum_algorithm=upload.checksum_algorithm,
            checksum_type=upload.checksum_type,
            url=url,
        )

    response = await _in_thread(call, page)
    response.headers += upload_expiry_headers(call, initiated_ms)
    return response


def _parse_part_marker(query: Mapping[str, str]) -> int:
    text = query.get("part-number-marker", "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 31):
        raise invalid_argument(
            "Provided part-number-marker not an integer or within integer range", "part-number-marker", text
        )
    return int(text)
