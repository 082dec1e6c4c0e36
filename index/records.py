"""Records of buckets, objects, uploads and parts, and their bytes (index/SCHEMA.md, "Tables of names"). Pure.

`encode()` raises ValueError for a value that no caller may build; `decode` raises CorruptRecord or UnsupportedRecord
and nothing else, whatever the bytes. Every record carries the commit sequence at which it became visible: order
never depends on a clock.

What LIST needs of an object stands in its fixed head: `decode_listing` reads only that, in well under a
microsecond. The part table of a multipart object (up to 10,000 parts) is carried as bytes and decoded on demand,
so that a GET does not pay for it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from index.errors import CorruptRecord
from index.fields import Layout, decode_pairs, decode_text, decoding, encode_pairs, encode_text, encoding
from index.values import (
    ALGORITHMS,
    TYPES,
    VERSIONING,
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    DefaultRetention,
    PartSummary,
    Prefixes,
    Retention,
    RetentionMode,
    Versioning,
    choice_of,
    code_of,
    decode_ascii,
    decode_checksum,
    decode_default_retention,
    decode_hold,
    decode_parts,
    decode_retention,
    encode_checksum,
    encode_default_retention,
    encode_hold,
    encode_parts,
    encode_retention,
    join_etag,
    split_etag,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from index.fields import Pairs

__all__ = [
    "BucketRecord",
    "Checksum",
    "ChecksumAlgorithm",
    "ChecksumType",
    "DefaultRetention",
    "Listing",
    "ObjectRecord",
    "PartRecord",
    "PartSummary",
    "Retention",
    "RetentionMode",
    "UploadRecord",
    "Versioning",
    "decode_listing",
    "decode_manifest",
    "decode_parts",
    "encode_parts",
]


class Listing(NamedTuple):
    """The head of an object record."""

    sequence: int
    modified_ms: int
    size: int
    etag: str  # without quotes; empty for a delete marker
    owner: str
    version_id: bytes | None
    delete_marker: bool
    checksum_algorithm: ChecksumAlgorithm | None
    checksum_type: ChecksumType | None


# --- Objects -------------------------------------------------------------------------------------------------

# Tags. All are below OPTIONAL_TAG: a reader that does not know one of them must not serve the object.
_CONTENT_TYPE: Final = 1
_HEADERS: Final = 2
_METADATA: Final = 3
_CHECKSUM: Final = 4
_INLINE: Final = 5
_MANIFEST: Final = 6
_PARTS: Final = 7
_TAGS: Final = 8
_RETENTION: Final = 9
_LEGAL_HOLD: Final = 10
_ACL: Final = 14  # 11 to 13 are an upload's own

_DELETE_MARKER: Final = 0x01

# kind, version, head length, flags, flags | checksum algorithm, type | owner length, version id length |
# parts in the ETag | domain | sequence, modified_ms, size | MD5 | new_stored_bytes
OBJECT: Final = Layout(
    "object",
    ord("O"),
    1,
    struct.Struct(">BBBBBBBBBHIQQQ16sQ"),
    _DELETE_MARKER,
    frozenset((*range(1, 11), 14)),
)
# The same bytes as LIST reads them: the first four as one number.
_unpack_listing: Final = struct.Struct(">IxBBBBH4xQQQ16s").unpack_from
_USUAL_HEAD_BYTES: Final = OBJECT.head.size
_USUAL: Final = int.from_bytes(bytes((OBJECT.kind, OBJECT.version, OBJECT.head.size, 0)), "big")
_ALGORITHM_OF: Final[tuple[ChecksumAlgorithm | None, ...]] = (None, *ALGORITHMS)
_TYPE_OF: Final[tuple[ChecksumType | None, ...]] = (None, *TYPES)


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One version of an object, or a delete marker. Its data is `inline` or behind `manifest`, never both."""

    size: int
    modified_ms: int
    etag: str
    owner: str
    sequence: int = 0  # set when it is put
    version_id: bytes | None = None  # None: the null version
    delete_marker: bool = False
    content_type: str | None = None
    headers: Pairs = ()
    metadata: Pairs = ()
    checksum: Checksum | None = None
    inline: bytes | None = None
    manifest: bytes | None = None
    part_table: bytes = b""  # from `encode_parts`; empty unless multipart
    new_stored_bytes: int = 0  # what this upload added to the packs
    domain: int = 0
    tags: Pairs = ()
    retention: Retention | None = None
    legal_hold: bool | None = None  # None: never set, which S3 tells from off
    acl: Pairs = ()  # (grantee, permission); none: private

    @property
    def parts(self) -> tuple[PartSummary, ...]:
        """Decoded at each call. Raises CorruptRecord."""
        return decode_parts(self.part_table)

    def encode(self, sequence: int | None = None) -> bytes:
        """The record as bytes, at `sequence` if given. Raises ValueError."""
        if (self.inline is None) + (self.manifest is None) != 1 + self.delete_marker:
            raise ValueError("an object has either inline data or a manifest, a delete marker neither")
        digest, etag_parts = (bytes(16), 0) if self.delete_marker else split_etag(self.etag)
        algorithm, kind, checksum_text = encode_checksum(self.checksum)
        owner, version_id = self.owner.encode(), self.version_id or b""
        with encoding(OBJECT.name):
            head = OBJECT.head.pack(
                OBJECT.kind,
                OBJECT.version,
                OBJECT.head.size,
                _DELETE_MARKER if self.delete_marker else 0,
                0,
                algorithm,
                kind,
                len(owner),
                len(version_id),
                etag_parts,
                self.domain,
                self.sequence if sequence is None else sequence,
                self.modified_ms,
                self.size,
                digest,
                self.new_stored_bytes,
            )
            fields = OBJECT.encode_fields(
                (
                    (_CONTENT_TYPE, encode_text(self.content_type)),
                    (_HEADERS, encode_pairs(self.headers)),
                    (_METADATA, encode_pairs(self.metadata)),
                    (_CHECKSUM, checksum_text or None),
                    (_INLINE, self.inline),
                    (_MANIFEST, self.manifest),
                    (_PARTS, self.part_table or None),
                    (_TAGS, encode_pairs(self.tags)),
                    (_RETENTION, encode_retention(self.retention)),
                    (_LEGAL_HOLD, encode_hold(self.legal_hold)),
                    (_ACL, encode_pairs(self.acl)),
                )
            )
        return b"".join((head, owner, version_id, fields))

    @classmethod
    def decode(cls, value: bytes) -> ObjectRecord:
        """Raises CorruptRecord, UnsupportedRecord."""
        OBJECT.refuse(value)
        (_, _, head_bytes, flags, _, algorithm, kind, owner_bytes, version_bytes, etag_parts, domain, sequence,
         modified_ms, size, digest, new_stored_bytes) = OBJECT.head.unpack_from(value)  # fmt: skip
        owner_end = head_bytes + owner_bytes
        fields_start = owner_end + version_bytes
        if fields_start > len(value):
            raise CorruptRecord(OBJECT.name, "cut inside owner or version id")
        delete_marker = bool(flags & _DELETE_MARKER)
        fields = OBJECT.decode_fields(value, fields_start)
        if (_INLINE in fields) + (_MANIFEST in fields) + delete_marker != 1:
            raise CorruptRecord(OBJECT.name, "not exactly one of inline data, manifest, delete marker")
        with decoding(OBJECT.name):
            return cls(
                size,
                modified_ms,
                "" if delete_marker else join_etag(digest, etag_parts),
                value[head_bytes:owner_end].decode(),
                sequence,
                value[owner_end:fields_start] if version_bytes else None,
                delete_marker,
                decode_text(fields.get(_CONTENT_TYPE)),
                decode_pairs(fields.get(_HEADERS)),
                decode_pairs(fields.get(_METADATA)),
                decode_checksum(algorithm, kind, decode_ascii(fields.get(_CHECKSUM))),
                fields.get(_INLINE),
                fields.get(_MANIFEST),
                fields.get(_PARTS, b""),
                new_stored_bytes,
                domain,
                decode_pairs(fields.get(_TAGS)),
                decode_retention(fields.get(_RETENTION)),
                decode_hold(fields.get(_LEGAL_HOLD)),
                decode_pairs(fields.get(_ACL)),
            )


def decode_listing(value: bytes) -> Listing:
    """The head of an object record alone. Raises CorruptRecord, UnsupportedRecord."""
    try:
        (start, algorithm, kind, owner_bytes, version_bytes, etag_parts, sequence, modified_ms, size,
         digest) = _unpack_listing(value)  # fmt: skip
        owner_end = _USUAL_HEAD_BYTES + owner_bytes
        version_end = owner_end + version_bytes
        if start != _USUAL or version_end > len(value):
            return _decode_unusual_listing(value)
        etag = digest.hex()
        if etag_parts:
            etag = f"{etag}-{etag_parts}"
        owner = value[_USUAL_HEAD_BYTES:owner_end].decode()
        version_id = value[owner_end:version_end] if version_bytes else None
        kinds = _ALGORITHM_OF[algorithm], _TYPE_OF[kind]
        # Listing(...) would take a third longer: its __new__ is a Python function.
        return tuple.__new__(
            Listing,
            (sequence, modified_ms, size, etag, owner, version_id, False, *kinds),
        )
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise CorruptRecord(OBJECT.name, f"its head: {error}") from error


def _decode_unusual_listing(value: bytes) -> Listing:
    """With a longer head, flags; or damaged."""
    OBJECT.refuse(value)
    (_, _, head_bytes, flags, _, algorithm, kind, owner_bytes, version_bytes, etag_parts, _, sequence, modified_ms,
     size, digest, _) = OBJECT.head.unpack_from(value)  # fmt: skip
    owner_end = head_bytes + owner_bytes
    version_end = owner_end + version_bytes
    if version_end > len(value):
        raise CorruptRecord(OBJECT.name, "cut inside owner or version id")
    delete_marker = bool(flags & _DELETE_MARKER)
    return Listing(
        sequence,
        modified_ms,
        size,
        "" if delete_marker else join_etag(digest, etag_parts),
        value[head_bytes:owner_end].decode(),
        value[owner_end:version_end] if version_bytes else None,
        delete_marker,
        _ALGORITHM_OF[algorithm],
        _TYPE_OF[kind],
    )


# --- Buckets -------------------------------------------------------------------------------------------------

_NAME: Final = 1
_OWNER: Final = 2
_DEFAULT_RETENTION: Final = 3

# An incompatible flag: a program that does not know Object Lock must not open the bucket.
_OBJECT_LOCK: Final = 0x01
_LIMITED: Final = 0x02  # incompatible too: who does not know of quotas would not count what it adds

_CONFIGURED: Final = 0x01  # compatible: who does not know of configurations need not look for them
_PREFIXES: Final[dict[Prefixes, int]] = {
    "auto": 0,
    "off": 0x02,
    "on": 0x04,
}  # compatible: how to store, not what
_PREFIXES_MASK: Final = 0x06
_PREFIXES_OF: Final = {bits: name for name, bits in _PREFIXES.items()}

# kind, version, head length, flags, flags | versioning | id, created_ms, sequence
BUCKET: Final = Layout(
    "bucket",
    ord("B"),
    1,
    struct.Struct(">BBBBBBQQQ"),
    _OBJECT_LOCK | _LIMITED,
    frozenset((_NAME, _OWNER, _DEFAULT_RETENTION)),
)


@dataclass(frozen=True, slots=True)
class BucketRecord:
    id: int  # never reused
    name: str
    owner: str
    created_ms: int
    sequence: int = 0
    versioning: Versioning = "Off"
    object_lock: bool = False  # once set, for ever; versioning is then Enabled
    default_retention: DefaultRetention | None = None
    configured: bool = (
        False  # it has a row in idx.configs; kept by `index.configs`, spares every request the look
    )
    prefixes: Prefixes = "auto"  # whether new data is compressed against earlier data
    limited: bool = False  # it or its tenant has a quota: a row in idx.quotas; kept by `index.quotas`

    def encode(self) -> bytes:
        """Raises ValueError."""
        with encoding(BUCKET.name):
            head = BUCKET.head.pack(
                BUCKET.kind,
                BUCKET.version,
                BUCKET.head.size,
                (_OBJECT_LOCK if self.object_lock else 0) | (_LIMITED if self.limited else 0),
                (_CONFIGURED if self.configured else 0) | _PREFIXES[self.prefixes],
                VERSIONING.index(self.versioning),
                self.id,
                self.created_ms,
                self.sequence,
            )
            return head + BUCKET.encode_fields(
                (
                    (_NAME, self.name.encode()),
                    (_OWNER, self.owner.encode()),
                    (_DEFAULT_RETENTION, encode_default_retention(self.default_retention)),
                )
            )

    @classmethod
    def decode(cls, value: bytes) -> BucketRecord:
        """Raises CorruptRecord, UnsupportedRecord."""
        BUCKET.refuse(value)
        _, _, head_bytes, flags, compatible, versioning, bucket_id, created_ms, sequence = (
            BUCKET.head.unpack_from(value)
        )
        fields = BUCKET.decode_fields(value, head_bytes)
        with decoding(BUCKET.name):
            return cls(
                bucket_id,
                _required(fields, _NAME).decode(),
                _required(fields, _OWNER).decode(),
                created_ms,
                sequence,
                VERSIONING[versioning],
                bool(flags & _OBJECT_LOCK),
                decode_default_retention(fields.get(_DEFAULT_RETENTION)),
                bool(compatible & _CONFIGURED),
                _PREFIXES_OF.get(compatible & _PREFIXES_MASK, "auto"),
                bool(flags & _LIMITED),
            )


def _required(fields: Mapping[int, bytes], tag: int) -> bytes:
    """Raises LookupError; use inside `decoding`."""
    field = fields.get(tag)
    if field is None:
        raise LookupError(f"field {tag} is missing")
    return field


# --- Uploads and parts ---------------------------------------------------------------------------------------

_KEY: Final = 11
_UPLOAD_ID: Final = 12
_UPLOAD_OWNER: Final = 13
_INITIATOR: Final = 15

# kind, version, head length, flags, flags | checksum algorithm, type | initiated_ms, sequence
UPLOAD: Final = Layout(
    "upload",
    ord("U"),
    1,
    struct.Struct(">BBBBBBBQQ"),
    0,
    frozenset(
        (
            _CONTENT_TYPE,
            _HEADERS,
            _METADATA,
            _TAGS,
            _RETENTION,
            _LEGAL_HOLD,
            _KEY,
            _UPLOAD_ID,
            _UPLOAD_OWNER,
            _ACL,
            _INITIATOR,
        )
    ),
)


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """A multipart upload that is neither completed nor aborted: what its object will carry."""

    upload_id: str
    key: bytes
    owner: str
    initiated_ms: int
    sequence: int = 0
    content_type: str | None = None
    headers: Pairs = ()
    metadata: Pairs = ()
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum_type: ChecksumType | None = None
    tags: Pairs = ()
    retention: Retention | None = None
    legal_hold: bool | None = None  # None: never set, which S3 tells from off
    acl: Pairs = ()  # (grantee, permission); none: private
    initiator: str = ""  # access key; none: anonymous

    def encode(self) -> bytes:
        """Raises ValueError."""
        with encoding(UPLOAD.name):
            head = UPLOAD.head.pack(
                UPLOAD.kind,
                UPLOAD.version,
                UPLOAD.head.size,
                0,
                0,
                code_of(ALGORITHMS, self.checksum_algorithm),
                code_of(TYPES, self.checksum_type),
                self.initiated_ms,
                self.sequence,
            )
            return head + UPLOAD.encode_fields(
                (
                    (_CONTENT_TYPE, encode_text(self.content_type)),
                    (_HEADERS, encode_pairs(self.headers)),
                    (_METADATA, encode_pairs(self.metadata)),
                    (_TAGS, encode_pairs(self.tags)),
                    (_RETENTION, encode_retention(self.retention)),
                    (_LEGAL_HOLD, encode_hold(self.legal_hold)),
                    (_KEY, self.key),
                    (_UPLOAD_ID, self.upload_id.encode()),
                    (_UPLOAD_OWNER, self.owner.encode()),
                    (_ACL, encode_pairs(self.acl)),
                    (_INITIATOR, encode_text(self.initiator or None)),
                )
            )

    @classmethod
    def decode(cls, value: bytes) -> UploadRecord:
        """Raises CorruptRecord, UnsupportedRecord."""
        UPLOAD.refuse(value)
        _, _, head_bytes, _, _, algorithm, kind, initiated_ms, sequence = UPLOAD.head.unpack_from(value)
        fields = UPLOAD.decode_fields(value, head_bytes)
        with decoding(UPLOAD.name):
            return cls(
                _required(fields, _UPLOAD_ID).decode(),
                _required(fields, _KEY),
                _required(fields, _UPLOAD_OWNER).decode(),
                initiated_ms,
                sequence,
                decode_text(fields.get(_CONTENT_TYPE)),
                decode_pairs(fields.get(_HEADERS)),
                decode_pairs(fields.get(_METADATA)),
                choice_of(ALGORITHMS, algorithm),
                choice_of(TYPES, kind),
                decode_pairs(fields.get(_TAGS)),
                decode_retention(fields.get(_RETENTION)),
                decode_hold(fields.get(_LEGAL_HOLD)),
                decode_pairs(fields.get(_ACL)),
                decode_text(fields.get(_INITIATOR)) or "",
            )


# kind, version, head length, flags, flags | checksum algorithm, type | number | domain | size, modified_ms,
# sequence | MD5 | new_stored_bytes
PART: Final = Layout(
    "part", ord("P"), 1, struct.Struct(">BBBBBBBHIQQQ16sQ"), 0, frozenset((_CHECKSUM, _MANIFEST))
)


@dataclass(frozen=True, slots=True)
class PartRecord:
    number: int
    size: int
    etag: str  # MD5, 32 hex digits
    modified_ms: int
    manifest: bytes
    checksum: Checksum | None = None
    sequence: int = 0  # set when it is put
    new_stored_bytes: int = 0
    domain: int = 0

    def encode(self, sequence: int | None = None) -> bytes:
        """The record as bytes, at `sequence` if given. Raises ValueError."""
        digest, nested = split_etag(self.etag)
        if nested:
            raise ValueError(f"a part's ETag is an MD5, not {self.etag!r}")
        algorithm, kind, checksum_text = encode_checksum(self.checksum)
        with encoding(PART.name):
            head = PART.head.pack(
                PART.kind,
                PART.version,
                PART.head.size,
                0,
                0,
                algorithm,
                kind,
                self.number,
                self.domain,
                self.size,
                self.modified_ms,
                self.sequence if sequence is None else sequence,
                digest,
                self.new_stored_bytes,
            )
            return head + PART.encode_fields(((_CHECKSUM, checksum_text or None), (_MANIFEST, self.manifest)))

    @staticmethod
    def sequence_of(value: bytes) -> int:
        """That of an encoded part, without decoding the rest. Raises CorruptRecord, UnsupportedRecord."""
        PART.refuse(value)
        sequence: int = PART.head.unpack_from(value)[11]
        return sequence

    @staticmethod
    def sizes_of(value: bytes) -> tuple[int, int]:
        """(size, `new_stored_bytes`) of an encoded part, likewise. Raises CorruptRecord, UnsupportedRecord."""
        PART.refuse(value)
        head = PART.head.unpack_from(value)
        return head[9], head[13]

    @classmethod
    def decode(cls, value: bytes) -> PartRecord:
        """Raises CorruptRecord, UnsupportedRecord."""
        PART.refuse(value)
        (_, _, head_bytes, _, _, algorithm, kind, number, domain, size, modified_ms, sequence, digest,
         new_stored_bytes) = PART.head.unpack_from(value)  # fmt: skip
        fields = PART.decode_fields(value, head_bytes)
        with decoding(PART.name):
            return cls(
                number,
                size,
                digest.hex(),
                modified_ms,
                _required(fields, _MANIFEST),
                decode_checksum(algorithm, kind, decode_ascii(fields.get(_CHECKSUM))),
                sequence,
                new_stored_bytes,
                domain,
            )


def decode_manifest(value: bytes) -> bytes | None:
    """The manifest of an object's or a part's record alone; None: there is none (inline, or a delete marker).

    For walks over all of them. Raises CorruptRecord, UnsupportedRecord.
    """
    if value[:1] == bytes((PART.kind,)):
        PART.refuse(value)
        return _required(PART.decode_fields(value, value[2]), _MANIFEST)
    OBJECT.refuse(value)
    fields = OBJECT.decode_fields(value, value[2] + value[7] + value[8])
    if not (_MANIFEST in fields or _INLINE in fields or value[3] & _DELETE_MARKER):
        raise CorruptRecord(OBJECT.name, "neither inline data nor a manifest")
    return fields.get(_MANIFEST)
