"""Versions as requests name them, and the version that is meant. A version id is 32 lower-case hex digits, or `null`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from index.objects import get_object
from index.versions import VERSION_ID_BYTES, get_version
from vaultaire.s3.errors import invalid_argument

if TYPE_CHECKING:
    from index.kv import Reader
    from index.records import BucketRecord, ObjectRecord


class VersionName(NamedTuple):
    """A version that a request names. `raw` None: the null version."""

    raw: bytes | None


def parse_version(text: str | None) -> VersionName | None:
    """`versionId`; None if it is not given. Raises InvalidArgument for what no version can be called."""
    if text is None:
        return None
    if text == "null":
        return VersionName(None)
    if not text:
        raise invalid_argument("Version id cannot be the empty string", "versionId", text)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != VERSION_ID_BYTES or raw.hex() != text:
        raise invalid_argument("Invalid version id specified", "versionId", text)
    return VersionName(raw)


def format_version(raw: bytes | None) -> str:
    return "null" if raw is None else raw.hex()


def lookup(
    reader: Reader, bucket: BucketRecord, key: bytes, wanted: VersionName | None
) -> ObjectRecord | None:
    """The version that is meant, which may be a delete marker if it is named; None if there is none."""
    if wanted is None:
        return get_object(reader, bucket.id, key)
    return get_version(reader, bucket.id, key, wanted.raw)
