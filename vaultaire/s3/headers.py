"""Request and response headers: the map all parsers read, and what an object keeps and gives back.

Header values are Latin-1 text of the wire's bytes everywhere (lossless, and what HTTP says they are). Sources:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
"""

from __future__ import annotations

import base64
import os
import re
from typing import TYPE_CHECKING

from vaultaire.s3.errors import S3Error, invalid_argument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_METADATA_BYTES = 2048

_META = b"x-amz-meta-"

# Kept with an object and given back on GET and HEAD, in this order.
_SYSTEM_HEADERS = (
    b"cache-control",
    b"content-disposition",
    b"content-encoding",
    b"content-language",
    b"expires",
    b"x-amz-storage-class",
    b"x-amz-website-redirect-location",
)
_STORAGE_CLASSES = frozenset(
    (
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "OUTPOSTS",
        "GLACIER_IR",
        "SNOW",
        "EXPRESS_ONEZONE",
        "FSX_OPENZFS",
        "FSX_ONTAP",
    )
)
_OVERRIDES = {
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
    "response-content-language": "content-language",
    "response-content-type": "content-type",
    "response-expires": "expires",
}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def header_map(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """Lower-case names to stripped values; repeated ones are joined with "," in wire order, as SigV4 does."""
    fields: dict[bytes, str] = {}
    for name, raw in headers:
        value = raw.decode("latin-1").strip(" \t")
        if name in fields:
            value = f"{fields[name]},{value}"
        fields[name] = value
    return fields


def has_control_characters(value: str) -> bool:
    """Whether `value` would be refused, or do harm, as a header's value."""
    return _CONTROL.search(value) is not None


# --- user metadata -------------------------------------------------------------------------------------------------


def parse_metadata(fields: Mapping[bytes, str]) -> tuple[tuple[str, str], ...]:
    """`x-amz-meta-*` as (name without prefix, value), in wire order. Raises MetadataTooLarge beyond 2 KiB.

    Values that are UTF-8 on the wire are decoded as such. Size is counted as S3 does: names and values in UTF-8.
    """
    pairs = []
    size = 0
    for name, value in fields.items():
        if name.startswith(_META) and len(name) > len(_META):
            short, text = name[len(_META) :].decode("latin-1"), _wire_text(value)
            size += len(short.encode()) + len(text.encode())
            pairs.append((short, text))
    if size > MAX_METADATA_BYTES:
        raise S3Error("MetadataTooLarge", extra={"Size": size, "MaxSizeAllowed": MAX_METADATA_BYTES})
    return tuple(pairs)


def format_metadata(pairs: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Response headers. What is not ASCII goes out as an RFC 2047 encoded word, as S3 does."""
    return [(_META + name.encode("latin-1"), _ascii_value(value)) for name, value in pairs]


def _wire_text(value: str) -> str:
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _ascii_value(value: str) -> bytes:
    if value.isascii():
        return value.encode("ascii")
    return b"=?UTF-8?B?" + base64.b64encode(value.encode()) + b"?="


# --- system headers ------------------------------------------------------------------------------------------------


def parse_system(fields: Mapping[bytes, str]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """(content type, other headers to keep). Raises InvalidStorageClass, InvalidRedirectLocation.

    `aws-chunked` describes the transfer, not the object, so it is taken out of content-encoding. The storage class
    STANDARD is the absence of one.
    """
    kept = []
    for name in _SYSTEM_HEADERS:
        value = fields.get(name)
        if name == b"content-encoding" and value is not None:
            value = _stored_encoding(value)
        elif name == b"x-amz-storage-class" and value is not None:
            value = _storage_class(value)
        elif name == b"x-amz-website-redirect-location" and value:
            _check_redirect(value)
        if value:
            kept.append((name.decode(), value))
    return fields.get(b"content-type") or None, tuple(kept)


def _stored_encoding(value: str) -> str | None:
    if "aws-chunked" not in value.lower():
        return value
    codings = (coding.strip() for coding in value.split(","))
    return ",".join(coding for coding in codings if coding and coding.lower() != "aws-chunked") or None


def _storage_class(value: str) -> str | None:
    if value not in _STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", extra={"StorageClassRequested": value})
    return None if value == "STANDARD" else value


def _check_redirect(value: str) -> None:
    if not value.startswith(("/", "http://", "https://")):
        raise S3Error("InvalidRedirectLocation")


def format_system(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """The kept headers as response headers."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]


def response_overrides(query: Mapping[str, str], *, anonymous: bool) -> list[tuple[bytes, bytes]]:
    """Headers that `response-*` parameters put in place of the stored ones. Raises S3Error.

    Only signed requests may ask: else anyone could make a link that serves a public object as a script. The decoded
    value may hold any byte, so control characters, which would split the response, are refused.
    """
    found = []
    for parameter, header in _OVERRIDES.items():
        value = query.get(parameter)
        if value is None:
            continue
        if anonymous:
            raise S3Error(
                "InvalidRequest",
                "Request specific response headers cannot be used for anonymous GET requests.",
            )
        if has_control_characters(value):
            raise invalid_argument("Header value cannot be represented using ISO-8859-1.", parameter, value)
        try:
            found.append((header.encode(), value.encode("latin-1")))
        except UnicodeEncodeError:
            raise invalid_argument(
                "Header value cannot be represented using ISO-8859-1.", parameter, value
            ) from None
    return found


# --- headers that promise what this server does not do --------------------------------------------------------------

_REFUSED_PREFIXES = (
    b"x-amz-server-side-encryption-customer-",
    b"x-amz-copy-source-server-side-encryption-customer-",
)
_REFUSED = frozenset(
    (
        b"x-amz-write-offset-bytes",
        b"x-amz-server-side-encryption-aws-kms-key-id",
        b"x-amz-server-side-encryption-context",
    )
)
_KMS = ("aws:kms", "aws:kms:dsse", "aws:fsx")


def refuse_broken_promises(fields: Mapping[bytes, str]) -> None:
    """Raises for headers whose silent neglect would break what the client relies on.

    Keys of its own (SSE-C) and KMS keys: the data would lie there unencrypted. Appending: it would
    overwrite. Other unknown `x-amz-*` headers are ignored, for newer clients send new ones.
    """
    for name in fields:
        if not name.startswith(b"x-amz-"):
            continue
        if name in _REFUSED or name.startswith(_REFUSED_PREFIXES):
            raise S3Error("NotImplemented", extra={"Header": name.decode("latin-1")})
    algorithm = fields.get(b"x-amz-server-side-encryption", "AES256")
    if algorithm in _KMS:
        raise S3Error("NotImplemented", extra={"Header": "x-amz-server-side-encryption"})
    if algorithm != "AES256":
        raise invalid_argument(
            "The encryption method specified is not supported", "x-amz-server-side-encryption", algorithm
        )


# --- request ids ---------------------------------------------------------------------------------------------------


def new_request_id() -> str:
    """16 upper-case hex digits, unpredictable and unique for all practical purposes; the size of Amazon's."""
    return os.urandom(8).hex().upper()
