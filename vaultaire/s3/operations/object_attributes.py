"""GetObjectAttributes: what HeadObject and ListParts know of an object, in one XML answer.

Parts are shown one by one only for an object with a COMPOSITE checksum, as S3 does: of the others it tells how many
there are. A composite checksum stands here without its `-N`, an ETag without quotes.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from vaultaire.s3 import conditions, dates, xml
from vaultaire.s3.call import Call, Response, xml_response
from vaultaire.s3.errors import S3Error
from vaultaire.s3.operations.attributes import checksum_element
from vaultaire.s3.operations.objects import current_of
from vaultaire.s3.operations.parameters import MAX_PAGE
from vaultaire.s3.operations.versioning import require_version, version_headers
from vaultaire.s3.version_ids import parse_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from index.records import BucketRecord, ObjectRecord
    from index.values import PartSummary

ATTRIBUTES = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))


async def get_object_attributes(call: Call) -> Response:
    """Conditions are evaluated as for a read."""
    wanted = parse_attributes(call.headers)
    bucket, record = _requested(call)
    headers = [
        (b"last-modified", dates.format_http(record.modified_ms).encode()),
        *version_headers(bucket, record),
    ]
    if conditions.check_read(call.headers, current_of(record)) == "not-modified":
        return Response(304, [(b"etag", b'"%s"' % record.etag.encode()), *headers])
    response = xml_response(_document(record, wanted, call.headers))
    response.headers += headers
    return response


def _requested(call: Call) -> tuple[BucketRecord, ObjectRecord]:
    """Raises NoSuchBucket, AccessDenied, NoSuchVersion, NoSuchKey, MethodNotAllowed."""
    assert call.key is not None
    bucket = call.require_bucket()
    wanted = parse_version(call.query.get("versionId"))
    with call.store.kv.snapshot() as reader:
        return bucket, require_version(reader, bucket, call.key, wanted, call.method)


def parse_attributes(fields: Mapping[bytes, str]) -> frozenset[str]:
    """`x-amz-object-attributes`, a list. Raises InvalidRequest without it, InvalidArgument for an unknown name."""
    names = [name.strip() for name in fields.get(b"x-amz-object-attributes", "").split(",")]
    if not any(names):
        raise S3Error(
            "InvalidRequest",
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
        )
    wanted = frozenset(filter(None, names))
    if wanted - ATTRIBUTES:
        raise S3Error("InvalidArgument", "Invalid attribute name specified.")
    return wanted


def _document(record: ObjectRecord, wanted: frozenset[str], fields: Mapping[bytes, str]) -> bytes:
    checksum = record.checksum if "Checksum" in wanted else None
    element = checksum_element(checksum)
    if element is not None:
        element = element._replace(value=element.value.partition("-")[0])
    parts = record.parts if "ObjectParts" in wanted else ()
    composite = record.checksum is not None and record.checksum.type == "COMPOSITE"
    return xml.object_attributes(
        etag=record.etag if "ETag" in wanted else None,
        checksum=element,
        checksum_type=None if checksum is None else checksum.type,
        parts_count=len(parts) or None,
        parts=page_of(parts, fields) if parts and composite else None,
        storage_class=_storage_class(record) if "StorageClass" in wanted else None,
        size=record.size if "ObjectSize" in wanted else None,
    )


def page_of(parts: tuple[PartSummary, ...], fields: Mapping[bytes, str]) -> xml.AttributeParts:
    """The parts after `x-amz-part-number-marker`, at most `x-amz-max-parts`.

    A header that is no number counts as absent, as on S3: https://github.com/versity/versitygw/issues/1806
    """
    limit = min(_number(fields.get(b"x-amz-max-parts"), MAX_PAGE), MAX_PAGE)
    marker = _number(fields.get(b"x-amz-part-number-marker"), 0)
    first = bisect_right(parts, marker, key=lambda part: part.number)
    shown = parts[first : first + limit]
    return xml.AttributeParts(
        marker=marker,
        next_marker=shown[-1].number if shown else 0,
        max_parts=limit,
        truncated=limit > 0 and first + limit < len(parts),
        parts=[xml.AttributePart(p.number, p.size, checksum_element(p.checksum)) for p in shown],
    )


def _number(text: str | None, default: int) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 31):
        return default
    return int(text)


def _storage_class(record: ObjectRecord) -> str:
    return dict(record.headers).get("x-amz-storage-class", "STANDARD")
