"""Names on the wire: bucket names, object keys, and where a request or a copy points to.

Everything is read from the raw path, percent-decoded exactly once and to bytes. Nothing is normalised: `//`, `.`,
`..`, `%2F` and `%00` are ordinary bytes of a key, which is safe because a key never becomes a path of the file
system. The split at the first `/` happens before decoding, so no escape can move the border between bucket and key.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vaultaire.s3 import percent
from vaultaire.s3.errors import S3Error, invalid_argument

MAX_KEY_BYTES = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def is_bucket_name(name: str) -> bool:
    """Whether a new bucket may have this name."""
    return (
        _BUCKET.fullmatch(name) is not None
        and ".." not in name
        and _ADDRESS.fullmatch(name) is None
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
    )


def check_bucket_name(name: str) -> None:
    """Raises InvalidBucketName. S3 does so for every request, not only for CreateBucket."""
    if not is_bucket_name(name):
        raise S3Error("InvalidBucketName", bucket=name)


def check_key(key: bytes) -> None:
    """Raises KeyTooLongError beyond 1,024 bytes, InvalidURI when it is not UTF-8. `key` is not empty."""
    if len(key) > MAX_KEY_BYTES:
        raise S3Error("KeyTooLongError", extra={"Size": len(key), "MaxSizeAllowed": MAX_KEY_BYTES})
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None


def split_path(raw_path: bytes) -> tuple[str | None, bytes | None]:
    """(bucket, key) of a path-style request, from the path as it came (no query).

    `/` is (None, None); `/b` and `/b/` are ("b", None). The bucket's name is not judged here (see check_bucket_name),
    the key is. Raises InvalidURI, KeyTooLongError, InvalidBucketName (a bucket that is not even text, or empty).
    """
    if raw_path == b"/":
        return None, None
    if not raw_path.startswith(b"/"):
        raise S3Error("InvalidURI")
    raw_bucket, _, raw_key = raw_path[1:].partition(b"/")
    try:
        bucket = percent.decode(raw_bucket)
        key = percent.decode(raw_key)
    except percent.MalformedEscape:
        raise S3Error("InvalidURI") from None
    if not bucket or not bucket.isascii():
        raise S3Error("InvalidBucketName", bucket=bucket.decode("utf-8", "replace"))
    if key:
        check_key(key)
    return bucket.decode("ascii"), key or None


def parse_key(raw_key: bytes) -> bytes | None:
    """A key as it came in a path; None if there is none. Raises InvalidURI, KeyTooLongError."""
    try:
        key = percent.decode(raw_key)
    except percent.MalformedEscape:
        raise S3Error("InvalidURI") from None
    if key:
        check_key(key)
    return key or None


@dataclass(frozen=True, slots=True)
class CopySource:
    """Where a copy reads from. The bucket's name is valid; `version_id` is None for the current version."""

    bucket: str
    key: bytes
    version_id: str | None


def parse_copy_source(value: str) -> CopySource:
    """`x-amz-copy-source`: `[/]bucket/key[?versionId=id]`, percent-encoded (`value` is Latin-1 text of the wire).

    A `+` is a plus sign: clients that do not encode it mean one. A `?` not followed by `versionId=` belongs to the
    key. Raises InvalidArgument, InvalidBucketName, KeyTooLongError.
    """
    path, mark, version = value.rpartition("?versionId=")
    if not mark:
        path = value
    elif not version:
        raise invalid_argument("Version id cannot be the empty string", "versionId", "")
    try:
        raw_bucket, _, raw_key = path.encode("latin-1").removeprefix(b"/").partition(b"/")
        if not raw_key:  # some clients escape the separator as well
            raw_bucket, _, raw_key = percent.decode(raw_bucket).removeprefix(b"/").partition(b"/")
            bucket, key = raw_bucket, raw_key
        else:
            bucket, key = percent.decode(raw_bucket), percent.decode(raw_key)
        key.decode("utf-8")
        name = bucket.decode("ascii")
    except (percent.MalformedEscape, UnicodeError):
        raise invalid_argument("Invalid copy source encoding", "x-amz-copy-source", value) from None
    if not key:
        raise invalid_argument(
            "Copy Source must mention the source bucket and key: /sourcebucket/sourcekey",
            "x-amz-copy-source",
            value,
        )
    check_bucket_name(name)
    check_key(key)
    return CopySource(name, key, version if mark else None)
