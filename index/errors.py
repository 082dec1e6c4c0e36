"""What the names layer raises: one class per condition that a caller may act on. S3's codes are not known here.

`CorruptRecord` and `UnsupportedRecord` are integrity errors: nothing below the service catches them. What the
ordered map itself raises (`index.kv.KvError`) passes through unchanged.
"""

from __future__ import annotations


class NamesError(Exception):
    """Base of all below."""


class InvalidKey(NamesError):
    """An object key outside 1 to 1024 bytes."""

    def __init__(self, key_bytes: int, maximum_bytes: int) -> None:
        super().__init__(f"an object key has 1 to {maximum_bytes} bytes, not {key_bytes}")
        self.key_bytes = key_bytes


class InvalidMarker(NamesError):
    """A version id or upload id to list from that this store cannot have issued."""

    def __init__(self, marker: str) -> None:
        super().__init__(f"not a marker of this store: {marker!r}")
        self.marker = marker


class NoSuchBucket(NamesError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no bucket {name!r}")
        self.name = name


class BucketExists(NamesError):
    """`owner` tells a caller whether it asked for what it already has."""

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(f"bucket {name!r} exists and belongs to {owner!r}")
        self.name = name
        self.owner = owner


class BucketNotEmpty(NamesError):
    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name!r} still holds objects or versions: delete them first")
        self.name = name


class VersioningFixed(NamesError):
    """Versioning of a bucket with Object Lock stays enabled: suspended, a put would overwrite a locked version."""

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name!r} has Object Lock: its versioning cannot be suspended")
        self.name = name


class VersioningNeeded(NamesError):
    """Object Lock protects versions, so a bucket must make them first."""

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name!r} does not have versioning enabled: enable it before Object Lock")
        self.name = name


class NoObjectLock(NamesError):
    """A version shall be locked in a bucket that does not keep locks."""

    def __init__(self, name: str) -> None:
        super().__init__(f"bucket {name!r} does not have Object Lock: enable it first")
        self.name = name


class VersionLocked(NamesError):
    """Object Lock forbids to remove this version, or to shorten its retention. Nothing was changed."""

    def __init__(self, bucket_id: int, key: bytes, version_id: bytes | None) -> None:
        shown = "null" if version_id is None else version_id.hex()
        super().__init__(f"version {shown} of {key!r} in bucket {bucket_id} is locked")
        self.bucket_id = bucket_id
        self.key = key
        self.version_id = version_id


class WouldOverwrite(NamesError):
    """The caller may only make what is not there yet (`Change.create_only`). Nothing was changed."""

    def __init__(self, bucket_id: int, key: bytes) -> None:
        super().__init__(f"{key!r} in bucket {bucket_id} exists already")
        self.bucket_id = bucket_id
        self.key = key


class QuotaExceeded(NamesError):
    """A change would take a bucket, or all of a tenant's, beyond its limit (`index.quotas`). Nothing was changed.

    `measure` is logical or stored (then the figures are bytes) or objects; `growth` is what the change would add.
    """

    def __init__(self, scope: str, name: str, measure: str, limit: int, used: int, growth: int) -> None:
        super().__init__(
            f"the quota of {scope} {name!r} for {measure} is {limit}, of which {used} are used: {growth} more exceed it"
        )
        self.scope = scope
        self.name = name
        self.measure = measure
        self.limit = limit
        self.used = used
        self.growth = growth


class NoSuchKey(NamesError):
    def __init__(self, bucket_id: int, key: bytes) -> None:
        super().__init__(f"bucket {bucket_id} has no object {key!r}")
        self.bucket_id = bucket_id
        self.key = key


class NoSuchUpload(NamesError):
    """Never begun, completed, aborted, or begun for another key."""

    def __init__(self, bucket_id: int, key: bytes, upload_id: str) -> None:
        super().__init__(f"bucket {bucket_id} has no upload {upload_id!r} for {key!r}")
        self.bucket_id = bucket_id
        self.key = key
        self.upload_id = upload_id


class CorruptRecord(NamesError):
    """A value that no version of this program writes. Its checksum was right, so it is a defect, not bit rot."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind} record is damaged: {reason}")
        self.kind = kind
        self.reason = reason


class UnsupportedRecord(NamesError):
    """Written by a newer program, with something that must be understood; refused rather than guessed at."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind} record needs a newer version of this program: {reason}")
        self.kind = kind
        self.reason = reason
