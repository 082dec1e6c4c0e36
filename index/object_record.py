"""The record of an object's version, and its bytes (index/SCHEMA.md, "Object record"). Pure; as `index.records` says.

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
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    PartSummary,
    Retention,
    decode_ascii,
    decode_checksum,
    decode_hold,
    decode_parts,
    decode_retention,
    encode_checksum,
    encode_hold,
    encode_retention,
    join_etag,
    split_etag,
)

if TYPE_CHECKING:
    from index.fields import Pairs

# Tags. All are below OPTIONAL_TAG: a reader that does not know one of them must not serve the object.
CONTENT_TYPE: Final = 1
HEADERS: Final = 2
METADATA: Final = 3
CHECKSUM: Final = 4
INLINE: Final = 5
MANIFEST: Final = 6
PARTS: Final = 7
TAGS: Final = 8
RETENTION: Final = 9
LEGAL_HOLD: Final = 10
ACL: Final = 14  # 11 to 13 are an upload's own

DELETE_MARKER: Final = 0x01

# kind, version, head length, flags, flags | checksum algorithm, type | owner length, version id length |
# parts in the ETag | domain | sequence, modified_ms, size | MD5 | new_stored_bytes
OBJECT: Final = Layout(
    "object",
    ord("O"),
    1,
    struct.Struct(">BBBBBBBBBHIQQQ16sQ"),
    DELETE_MARKER,
    frozenset((*range(1, 11), 14)),
)
# The same bytes as LIST reads them: the first four as one number.
_unpack_listing: Final = struct.Struct(">IxBBBBH4xQQQ16s").unpack_from
_USUAL_HEAD_BYTES: Final = OBJECT.head.size
_USUAL: Final = int.from_bytes(bytes((OBJECT.kind, OBJECT.version, OBJECT.head.size, 0)), "big")
_ALGORITHM_OF: Final[tuple[ChecksumAlgorithm | None, ...]] = (None, *ALGORITHMS)
_TYPE_OF: Final[tuple[ChecksumType | None, ...]] = (None, *TYPES)


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
                DELETE_MARKER if self.delete_marker else 0,
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
                    (CONTENT_TYPE, encode_text(self.content_type)),
                    (HEADERS, encode_pairs(self.headers)),
                    (METADATA, encode_pairs(self.metadata)),
                    (CHECKSUM, checksum_text or None),
                    (INLINE, self.inline),
                    (MANIFEST, self.manifest),
                    (PARTS, self.part_table or None),
                    (TAGS, encode_pairs(self.tags)),
                    (RETENTION, encode_retention(self.retention)),
                    (LEGAL_HOLD, encode_hold(self.legal_hold)),
                    (ACL, encode_pairs(self.acl)),
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
        delete_marker = bool(flags & DELETE_MARKER)
        fields = OBJECT.decode_fields(value, fields_start)
        if (INLINE in fields) + (MANIFEST in fields) + delete_marker != 1:
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
                decode_text(fields.get(CONTENT_TYPE)),
                decode_pairs(fields.get(HEADERS)),
                decode_pairs(fields.get(METADATA)),
                decode_checksum(algorithm, kind, decode_ascii(fields.get(CHECKSUM))),
                fields.get(INLINE),
                fields.get(MANIFEST),
                fields.get(PARTS, b""),
                new_stored_bytes,
                domain,
                decode_pairs(fields.get(TAGS)),
                decode_retention(fields.get(RETENTION)),
                decode_hold(fields.get(LEGAL_HOLD)),
                decode_pairs(fields.get(ACL)),
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
    delete_marker = bool(flags & DELETE_MARKER)
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
