"""S3's XML results, joined by hand from escaped text: a page of a listing is on the path of every `ls`.

Arguments are plain values: keys, prefixes and markers as bytes (UTF-8), times in milliseconds, ETags without quotes.
With `url` (encoding-type=url) names are percent-encoded as in `percent.quote_path`; without, characters that XML
cannot hold become numeric references (see `xml_text`). Bodies of requests are read by `xml_requests`.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vaultaire.s3 import percent
from vaultaire.s3.dates import format_iso
from vaultaire.s3.xml_text import DECLARATION, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vaultaire.s3.checksums import ChecksumType

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class ListedObject(NamedTuple):
    """A row of ListObjects and ListObjectsV2."""

    key: bytes
    modified_ms: int
    etag: str
    size: int
    owner: str | None = None  # None: no Owner element
    storage_class: str = "STANDARD"
    checksum_algorithm: str | None = None
    checksum_type: str | None = None


class ListedVersion(NamedTuple):
    """A row of ListObjectVersions; a delete marker has no etag."""

    key: bytes
    version_id: str
    latest: bool
    modified_ms: int
    etag: str | None
    size: int = 0
    owner: str | None = None
    storage_class: str = "STANDARD"


class ListedBucket(NamedTuple):
    name: str
    created_ms: int


class ListedPart(NamedTuple):
    number: int
    modified_ms: int
    etag: str
    size: int
    checksum: ChecksumElement | None = None


class ListedUpload(NamedTuple):
    key: bytes
    upload_id: str
    initiated_ms: int
    owner: str
    checksum_algorithm: str | None = None
    checksum_type: str | None = None


class ChecksumElement(NamedTuple):
    """`ChecksumCRC32` and its text, as `checksums.Algorithm.element` names it."""

    element: str
    value: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What every listing echoes and says of its page. None is left out, b"" is an empty element."""

    bucket: str
    prefix: bytes
    delimiter: bytes | None
    max_keys: int
    truncated: bool
    url: bool = False


def document(root: str, content: str, *, namespace: bool = True) -> bytes:
    """A whole document with one root; `content` is XML already."""
    attribute = f' xmlns="{NAMESPACE}"' if namespace else ""
    return f"{DECLARATION}<{root}{attribute}>{content}</{root}>".encode()


def _text(name: str, value: str | None) -> str:
    return "" if value is None else f"<{name}>{escape(value)}</{name}>"


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _quoted(etag: str) -> str:
    return f"&quot;{escape(etag)}&quot;"


def _plain_name(name: bytes) -> str:
    return escape(name.decode("utf-8", "replace"))


def _namer(url: bool) -> Callable[[bytes], str]:
    """Bytes of a name to XML text. Percent-encoded text needs no escaping."""
    return percent.quote_path if url else _plain_name


def _named(name: str, value: bytes | None, encode: Callable[[bytes], str]) -> str:
    return "" if value is None else f"<{name}>{encode(value)}</{name}>"


def _owner(owner: str, element: str = "Owner") -> str:
    text = escape(owner)
    return f"<{element}><ID>{text}</ID><DisplayName>{text}</DisplayName></{element}>"


def _prefixes(prefixes: Iterable[bytes], encode: Callable[[bytes], str]) -> str:
    return "".join([f"<CommonPrefixes><Prefix>{encode(p)}</Prefix></CommonPrefixes>" for p in prefixes])


def _checksum_kind(algorithm: str | None, kind: str | None) -> str:
    return _text("ChecksumAlgorithm", algorithm) + _text("ChecksumType", kind)


# --- listings of objects -------------------------------------------------------------------------------------------


def _contents(objects: Iterable[ListedObject], encode: Callable[[bytes], str]) -> str:
    rows = []
    owners: dict[str | None, str] = {None: ""}
    for key, modified_ms, etag, size, owner, storage_class, algorithm, kind in objects:
        if owner not in owners:
            owners[owner] = _owner(owner or "")
        checksum = _checksum_kind(algorithm, kind) if algorithm else ""
        rows.append(
            f"<Contents><Key>{encode(key)}</Key><LastModified>{format_iso(modified_ms)}</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag>{checksum}<Size>{size}</Size>{owners[owner]}"
            f"<StorageClass>{storage_class}</StorageClass></Contents>"
        )
    return "".join(rows)


def list_objects(
    listing: Listing,
    objects: Iterable[ListedObject],
    prefixes: Iterable[bytes],
    *,
    marker: bytes,
    next_marker: bytes | None,
) -> bytes:
    """ListBucketResult, version 1. `next_marker` belongs to pages cut short under a delimiter."""
    encode = _namer(listing.url)
    return document(
        "ListBucketResult",
        f"{_head(listing, encode)}{_named('Marker', marker, encode)}{_named('NextMarker', next_marker, encode)}"
        f"{_page(listing, encode)}{_contents(objects, encode)}{_prefixes(prefixes, encode)}",
    )


def list_objects_v2(
    listing: Listing,
    objects: Iterable[ListedObject],
    prefixes: Iterable[bytes],
    *,
    key_count: int,
    start_after: bytes | None,
    continuation_token: str | None,
    next_continuation_token: str | None,
) -> bytes:
    """ListBucketResult, version 2. Tokens are opaque text and never encoded."""
    encode = _namer(listing.url)
    return document(
        "ListBucketResult",
        f"{_head(listing, encode)}{_text('ContinuationToken', continuation_token)}"
        f"{_text('NextContinuationToken', next_continuation_token)}{_named('StartAfter', start_after, encode)}"
        f"<KeyCount>{key_count}</KeyCount>{_page(listing, encode)}"
        f"{_contents(objects, encode)}{_prefixes(prefixes, encode)}",
    )


def list_versions(
    listing: Listing,
    versions: Iterable[ListedVersion],
    prefixes: Iterable[bytes],
    *,
    key_marker: bytes,
    version_id_marker: str,
    next_key_marker: bytes | None,
    next_version_id_marker: str | None,
) -> bytes:
    """ListVersionsResult; versions and delete markers stay in the given order."""
    encode = _namer(listing.url)
    rows = "".join([_version(version, encode) for version in versions])
    return document(
        "ListVersionsResult",
        f"{_head(listing, encode)}{_named('KeyMarker', key_marker, encode)}"
        f"{_text('VersionIdMarker', version_id_marker)}{_named('NextKeyMarker', next_key_marker, encode)}"
        f"{_text('NextVersionIdMarker', next_version_id_marker)}{_page(listing, encode)}"
        f"{rows}{_prefixes(prefixes, encode)}",
    )


def _version(version: ListedVersion, encode: Callable[[bytes], str]) -> str:
    head = (
        f"<Key>{encode(version.key)}</Key><VersionId>{escape(version.version_id)}</VersionId>"
        f"<IsLatest>{_flag(version.latest)}</IsLatest>"
        f"<LastModified>{format_iso(version.modified_ms)}</LastModified>"
    )
    who = "" if version.owner is None else _owner(version.owner)
    if version.etag is None:
        return f"<DeleteMarker>{head}{who}</DeleteMarker>"
    return (
        f"<Version>{head}<ETag>{_quoted(version.etag)}</ETag><Size>{version.size}</Size>{who}"
        f"<StorageClass>{version.storage_class}</StorageClass></Version>"
    )


def _head(listing: Listing, encode: Callable[[bytes], str]) -> str:
    return f"<Name>{escape(listing.bucket)}</Name>{_named('Prefix', listing.prefix, encode)}"


def _page(listing: Listing, encode: Callable[[bytes], str]) -> str:
    return (
        f"<MaxKeys>{listing.max_keys}</MaxKeys>{_named('Delimiter', listing.delimiter, encode)}"
        f"{'<EncodingType>url</EncodingType>' if listing.url else ''}"
        f"<IsTruncated>{_flag(listing.truncated)}</IsTruncated>"
    )


# --- buckets -------------------------------------------------------------------------------------------------------


def list_buckets(
    owner: str,
    buckets: Iterable[ListedBucket],
    *,
    prefix: str | None = None,
    continuation_token: str | None = None,
    region: str | None = None,
) -> bytes:
    """ListAllMyBucketsResult. `region`, prefix and token are told to callers that page."""
    where = _text("BucketRegion", region)
    rows = "".join(
        [
            f"<Bucket><Name>{escape(name)}</Name><CreationDate>{format_iso(created_ms)}</CreationDate>{where}</Bucket>"
            for name, created_ms in buckets
        ]
    )
    return document(
        "ListAllMyBucketsResult",
        f"{_owner(owner)}<Buckets>{rows}</Buckets>{_text('Prefix', prefix)}"
        f"{_text('ContinuationToken', continuation_token)}",
    )


def location_constraint(region: str) -> bytes:
    """Empty for us-east-1, as S3 answers since before there were others."""
    return document("LocationConstraint", "" if region == "us-east-1" else escape(region))


def versioning_configuration(status: str | None) -> bytes:
    """`status` is Enabled or Suspended; None: never configured."""
    return document("VersioningConfiguration", _text("Status", status))


def request_payment() -> bytes:
    return document("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>")


def policy_status(public: bool = False) -> bytes:
    return document("PolicyStatus", f"<IsPublic>{_flag(public)}</IsPublic>")


def empty(root: str) -> bytes:
    """A configuration nobody set: `NotificationConfiguration`, `BucketLoggingStatus`, ..."""
    return document(root, "")


# --- copies and multipart uploads ----------------------------------------------------------------------------------


def _checksum(checksum: ChecksumElement | None, kind: ChecksumType | None = None) -> str:
    if checksum is None:
        return ""
    return _text(checksum.element, checksum.value) + _text("ChecksumType", kind)


def copy_object(
    etag: str, modified_ms: int, checksum: ChecksumElement | None = None, kind: ChecksumType | None = None
) -> bytes:
    return document("CopyObjectResult", _copied(etag, modified_ms) + _checksum(checksum, kind))


def copy_part(etag: str, modified_ms: int, checksum: ChecksumElement | None = None) -> bytes:
    return document("CopyPartResult", _copied(etag, modified_ms) + _checksum(checksum))


def _copied(etag: str, modified_ms: int) -> str:
    return f"<LastModified>{format_iso(modified_ms)}</LastModified><ETag>{_quoted(etag)}</ETag>"


def initiate_multipart_upload(bucket: str, key: bytes, upload_id: str) -> bytes:
    return document(
        "InitiateMultipartUploadResult",
        f"<Bucket>{escape(bucket)}</Bucket><Key>{_plain_name(key)}</Key><UploadId>{escape(upload_id)}</UploadId>",
    )


def complete_multipart_upload(
    location: str,
    bucket: str,
    key: bytes,
    etag: str,
    checksum: ChecksumElement | None = None,
    kind: ChecksumType | None = None,
) -> bytes:
    """`location` is the object's URL."""
    return document(
        "CompleteMultipartUploadResult",
        f"<Location>{escape(location)}</Location><Bucket>{escape(bucket)}</Bucket><Key>{_plain_name(key)}</Key>"
        f"<ETag>{_quoted(etag)}</ETag>{_checksum(checksum, kind)}",
    )


def post_response(location: str, bucket: str, key: bytes, etag: str) -> bytes:
    """PostResponse: what a form upload with `success_action_status` 201 is answered. S3 gives it no namespace."""
    content = (
        f"{_text('Location', location)}{_text('Bucket', bucket)}<Key>{_plain_name(key)}</Key>"
        f"<ETag>{_quoted(etag)}</ETag>"
    )
    return document("PostResponse", content, namespace=False)


def list_parts(
    bucket: str,
    key: bytes,
    upload_id: str,
    owner: str,
    parts: Iterable[ListedPart],
    *,
    marker: int,
    next_marker: int,
    max_parts: int,
    truncated: bool,
    storage_class: str = "STANDARD",
    checksum_algorithm: str | None = None,
    checksum_type: str | None = None,
    url: bool = False,
) -> bytes:
    """ListPartsResult; markers are part numbers."""
    rows = "".join(
        [
            f"<Part><PartNumber>{number}</PartNumber><LastModified>{format_iso(modified_ms)}</LastModified>"
            f"<ETag>{_quoted(etag)}</ETag><Size>{size}</Size>{_checksum(checksum)}</Part>"
            for number, modified_ms, etag, size, checksum in parts
        ]
    )
    return document(
        "ListPartsResult",
        f"<Bucket>{escape(bucket)}</Bucket><Key>{_namer(url)(key)}</Key><UploadId>{escape(upload_id)}</UploadId>"
        f"{_owner(owner, 'Initiator')}{_owner(owner)}<StorageClass>{storage_class}</StorageClass>"
        f"<PartNumberMarker>{marker}</PartNumberMarker><NextPartNumberMarker>{next_marker}</NextPartNumberMarker>"
        f"<MaxParts>{max_parts}</MaxParts><IsTruncated>{_flag(truncated)}</IsTruncated>"
        f"{'<EncodingType>url</EncodingType>' if url else ''}"
        f"{_checksum_kind(checksum_algorithm, checksum_type)}{rows}",
    )


def list_multipart_uploads(
    listing: Listing,
    uploads: Iterable[ListedUpload],
    prefixes: Iterable[bytes],
    *,
    key_marker: bytes,
    upload_id_marker: str,
    next_key_marker: bytes | None,
    next_upload_id_marker: str | None,
) -> bytes:
    """ListMultipartUploadsResult; `listing.max_keys` is its MaxUploads."""
    encode = _namer(listing.url)
    rows = "".join([_upload(upload, encode) for upload in uploads])
    return document(
        "ListMultipartUploadsResult",
        f"<Bucket>{escape(listing.bucket)}</Bucket>{_named('KeyMarker', key_marker, encode)}"
        f"{_text('UploadIdMarker', upload_id_marker)}{_named('NextKeyMarker', next_key_marker, encode)}"
        f"{_text('NextUploadIdMarker', next_upload_id_marker)}{_named('Prefix', listing.prefix, encode)}"
        f"{_named('Delimiter', listing.delimiter, encode)}"
        f"{'<EncodingType>url</EncodingType>' if listing.url else ''}<MaxUploads>{listing.max_keys}</MaxUploads>"
        f"<IsTruncated>{_flag(listing.truncated)}</IsTruncated>{rows}{_prefixes(prefixes, encode)}",
    )


def _upload(upload: ListedUpload, encode: Callable[[bytes], str]) -> str:
    return (
        f"<Upload><Key>{encode(upload.key)}</Key><UploadId>{escape(upload.upload_id)}</UploadId>"
        f"{_owner(upload.owner, 'Initiator')}{_owner(upload.owner)}<StorageClass>STANDARD</StorageClass>"
        f"<Initiated>{format_iso(upload.initiated_ms)}</Initiated>"
        f"{_checksum_kind(upload.checksum_algorithm, upload.checksum_type)}</Upload>"
    )


# --- GetObjectAttributes -------------------------------------------------------------------------------------------


class AttributePart(NamedTuple):
    number: int
    size: int
    checksum: ChecksumElement | None


class AttributeParts(NamedTuple):
    """Where the object shows its parts one by one: a page of them."""

    marker: int
    next_marker: int
    max_parts: int
    truncated: bool
    parts: Sequence[AttributePart]


def object_attributes(
    *,
    etag: str | None,
    checksum: ChecksumElement | None,
    checksum_type: ChecksumType | None,
    parts_count: int | None,
    parts: AttributeParts | None,
    storage_class: str | None,
    size: int | None,
) -> bytes:
    """GetObjectAttributesResponse; what is None was not asked for, or is not there. The ETag is not quoted here."""
    content = _text("ETag", etag)
    if checksum is not None:
        content += f"<Checksum>{_checksum(checksum, checksum_type)}</Checksum>"
    if parts_count is not None:
        page = "" if parts is None else _attribute_parts(parts)
        content += f"<ObjectParts><PartsCount>{parts_count}</PartsCount>{page}</ObjectParts>"
    content += _text("StorageClass", storage_class)
    if size is not None:
        content += f"<ObjectSize>{size}</ObjectSize>"
    return document("GetObjectAttributesResponse", content)


def _attribute_parts(page: AttributeParts) -> str:
    rows = "".join(
        [
            f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size>{_checksum(checksum)}</Part>"
            for number, size, checksum in page.parts
        ]
    )
    return (
        f"<PartNumberMarker>{page.marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{page.next_marker}</NextPartNumberMarker><MaxParts>{page.max_parts}</MaxParts>"
        f"<IsTruncated>{_flag(page.truncated)}</IsTruncated>{rows}"
    )


# --- deletes -------------------------------------------------------------------------------------------------------


class Deleted(NamedTuple):
    key: bytes
    version_id: str | None = None  # as asked for
    delete_marker: bool = False
    delete_marker_version_id: str | None = None


class DeleteFailed(NamedTuple):
    key: bytes
    code: str
    message: str
    version_id: str | None = None


def delete_result(deleted: Iterable[Deleted], failed: Iterable[DeleteFailed]) -> bytes:
    """DeleteResult; a quiet request passes no `deleted`."""
    rows = [_deleted(item) for item in deleted]
    rows += [
        f"<Error><Key>{_plain_name(key)}</Key>{_text('VersionId', version_id)}<Code>{code}</Code>"
        f"<Message>{escape(message)}</Message></Error>"
        for key, code, message, version_id in failed
    ]
    return document("DeleteResult", "".join(rows))


def _deleted(item: Deleted) -> str:
    marker = ""
    if item.delete_marker:
        marker = f"<DeleteMarker>true</DeleteMarker>{_text('DeleteMarkerVersionId', item.delete_marker_version_id)}"
    return (
        f"<Deleted><Key>{_plain_name(item.key)}</Key>{_text('VersionId', item.version_id)}{marker}</Deleted>"
    )
