"""What an object carries beside its bytes: parsed from the request that makes it, given back when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from index.values import Checksum
from vaultaire.s3 import checksums, dates, tags, xml
from vaultaire.s3.errors import S3Error
from vaultaire.s3.headers import (
    format_metadata,
    format_system,
    parse_metadata,
    parse_system,
    refuse_broken_promises,
)
from vaultaire.s3.operations.locking import parse_lock_headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
ENCRYPTED = ("x-amz-server-side-encryption", "AES256")  # as it is kept among an object's headers


@dataclass(frozen=True, slots=True)
class Attributes:
    """`headers` include the encryption that was asked for or, with `encrypts`, is the bucket's default.

    `retention` and `legal_hold` are what was asked for; what is kept is decided by `locking`.
    """

    content_type: str | None
    headers: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str], ...] = ()
    retention: Retention | None = None
    legal_hold: bool | None = None


def parse_attributes(fields: Mapping[bytes, str], *, encrypts: bool = False) -> Attributes:
    """Raises S3Error; also for headers whose promise this server would not keep.

    Access control lists are not looked at: see `rights`.
    """
    if not encrypts and not fields.keys() - _ORDINARY:
        return Attributes(fields.get(b"content-type") or None, (), ())
    refuse_broken_promises(fields)
    content_type, headers = parse_system(fields)
    if encrypts or b"x-amz-server-side-encryption" in fields:
        headers = (*headers, ENCRYPTED)
    retention, legal_hold = parse_lock_headers(fields)
    metadata = parse_metadata(fields)
    return Attributes(content_type, headers, metadata, tags.parse_header(fields), retention, legal_hold)


def encryption_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """What the answer to a write says of the encryption of the object that has `headers`."""
    return [(ENCRYPTED[0].encode(), ENCRYPTED[1].encode())] if ENCRYPTED in headers else []


def refuse_customer_keys(fields: Mapping[bytes, str]) -> None:
    """No object here is encrypted with a client's own key: a request that brings one expects what is not there."""
    if b"x-amz-server-side-encryption-customer-algorithm" in fields:
        raise S3Error("NotImplemented", extra={"Header": "x-amz-server-side-encryption-customer-algorithm"})


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
    """What GET and HEAD answer about an object to anybody who may read it, without length and checksum."""
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
    return headers
