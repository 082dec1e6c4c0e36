"""What an object carries beside its bytes: parsed from the request that makes it, given back when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from index.values import Checksum
from vaultaire.s3 import checksums, dates, xml
from vaultaire.s3.errors import S3Error
from vaultaire.s3.headers import (
    format_metadata,
    format_system,
    parse_metadata,
    parse_system,
    refuse_broken_promises,
)
from vaultaire.s3.operations.locking import lock_headers, parse_lock_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from index.records import ObjectRecord
    from index.values import Retention
    from vaultaire.s3.expected import Computed

DEFAULT_CONTENT_TYPE = "binary/octet-stream"  # S3's own
# Say nothing about the object but its type: most small uploads have no others, and are spared the closer look.
_ORDINARY = frozenset(
    (
        b"host",
        b"authorization",
        b"content-length",
        b"content-type",
        b"content-md5",
        b"user-agent",
        b"accept",
        b"accept-encoding",
        b"connection",
        b"expect",
        b"x-amz-date",
        b"x-amz-content-sha256",
        b"x-amz-decoded-content-length",
        b"x-amz-trailer",
        b"x-amz-sdk-checksum-algorithm",
        b"x-amz-checksum-crc32",
        b"x-amz-user-agent",
        b"amz-sdk-invocation-id",
        b"amz-sdk-request",
    )
)
_ACCEPTED_ACLS = ("private", "bucket-owner-full-control", "bucket-owner-read")


@dataclass(frozen=True, slots=True)
class Attributes:
    """`retention` and `legal_hold` are what was asked for; what is kept is decided by `locking`."""

    content_type: str | None
    headers: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    retention: Retention | None = None
    legal_hold: bool | None = None


def parse_attributes(fields: Mapping[bytes, str]) -> Attributes:
    """Raises S3Error; also for headers whose promise this server would not keep."""
    if not fields.keys() - _ORDINARY:
        return Attributes(fields.get(b"content-type") or None, (), ())
    refuse_broken_promises(fields)
    refuse_grants(fields)
    if fields.get(b"x-amz-tagging"):
        raise S3Error("NotImplemented", extra={"Header": "x-amz-tagging"})
    content_type, headers = parse_system(fields)
    retention, legal_hold = parse_lock_headers(fields)
    return Attributes(content_type, headers, parse_metadata(fields), retention, legal_hold)


def refuse_grants(fields: Mapping[bytes, str]) -> None:
    """Buckets are owner-enforced: an ACL that grants nothing to others is accepted, any other is refused."""
    acl = fields.get(b"x-amz-acl")
    if acl is not None and acl not in _ACCEPTED_ACLS:
        raise S3Error("AccessControlListNotSupported")
    if any(name.startswith(b"x-amz-grant-") for name in fields):
        raise S3Error("AccessControlListNotSupported")


def stored_checksum(computed: Computed) -> Checksum | None:
    """The digest of a single body, as it is kept."""
    if computed.algorithm is None or computed.checksum is None:
        return None
    return Checksum(computed.algorithm.value, "FULL_OBJECT", checksums.encode(computed.checksum))


def checksum_headers(checksum: Checksum | None) -> list[tuple[bytes, bytes]]:
    if checksum is None:
        return []
    return [
        (f"x-amz-checksum-{checksum.algorithm.lower()}".encode(), checksum.value.encode()),
        (b"x-amz-checksum-type", checksum.type.encode()),
    ]


def checksum_element(checksum: Checksum | None) -> xml.ChecksumElement | None:
    """A stored checksum as XML shows it."""
    if checksum is None:
        return None
    return xml.ChecksumElement(f"Checksum{checksum.algorithm}", checksum.value)


def object_headers(record: ObjectRecord) -> list[tuple[bytes, bytes]]:
    """What GET and HEAD answer about an object, without length and checksum."""
    headers = [
        (b"last-modified", dates.format_http(record.modified_ms).encode()),
        (b"etag", b'"%s"' % record.etag.encode()),
        (b"accept-ranges", b"bytes"),
        (b"content-type", (record.content_type or DEFAULT_CONTENT_TYPE).encode("latin-1", "replace")),
    ]
    if record.headers:
        headers += format_system(record.headers)
    if record.metadata:
        headers += format_metadata(record.metadata)
    if record.retention is not None or record.legal_hold is not None:
        headers += lock_headers(record)
    return headers
