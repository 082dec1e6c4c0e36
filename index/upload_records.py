"""Records of uploads in progress and their parts (index/SCHEMA.md, "Upload record", "Part record").

Pure; as `index.records` says. Fields that the object will carry have its tags.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from index.fields import (
    Layout,
    decode_pairs,
    decode_text,
    decoding,
    encode_pairs,
    encode_text,
    encoding,
    required,
)
from index.object_record import (
    ACL,
    CHECKSUM,
    CONTENT_TYPE,
    HEADERS,
    LEGAL_HOLD,
    MANIFEST,
    METADATA,
    RETENTION,
    TAGS,
)
from index.values import (
    ALGORITHMS,
    TYPES,
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    Retention,
    choice_of,
    code_of,
    decode_ascii,
    decode_checksum,
    decode_hold,
    decode_retention,
    encode_checksum,
    encode_hold,
    encode_retention,
    split_etag,
)

if TYPE_CHECKING:
    from index.fields import Pairs

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
            CONTENT_TYPE,
            HEADERS,
            METADATA,
            TAGS,
            RETENTION,
            LEGAL_HOLD,
            _KEY,
            _UPLOAD_ID,
            _UPLOAD_OWNER,
            ACL,
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
                    (CONTENT_TYPE, encode_text(self.content_type)),
                    (HEADERS, encode_pairs(self.headers)),
                    (METADATA, encode_pairs(self.metadata)),
                    (TAGS, encode_pairs(self.tags)),
                    (RETENTION, encode_retention(self.retention)),
                    (LEGAL_HOLD, encode_hold(self.legal_hold)),
                    (_KEY, self.key),
                    (_UPLOAD_ID, self.upload_id.encode()),
                    (_UPLOAD_OWNER, self.owner.encode()),
                    (ACL, encode_pairs(self.acl)),
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
                required(fields, _UPLOAD_ID).decode(),
                required(fields, _KEY),
                required(fields, _UPLOAD_OWNER).decode(),
                initiated_ms,
                sequence,
                decode_text(fields.get(CONTENT_TYPE)),
                decode_pairs(fields.get(HEADERS)),
                decode_pairs(fields.get(METADATA)),
                choice_of(ALGORITHMS, algorithm),
                choice_of(TYPES, kind),
                decode_pairs(fields.get(TAGS)),
                decode_retention(fields.get(RETENTION)),
                decode_hold(fields.get(LEGAL_HOLD)),
                decode_pairs(fields.get(ACL)),
                decode_text(fields.get(_INITIATOR)) or "",
            )


# kind, version, head length, flags, flags | checksum algorithm, type | number | domain | size, modified_ms,
# sequence | MD5 | new_stored_bytes
PART: Final = Layout(
    "part", ord("P"), 1, struct.Struct(">BBBBBBBHIQQQ16sQ"), 0, frozenset((CHECKSUM, MANIFEST))
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
            return head + PART.encode_fields(((CHECKSUM, checksum_text or None), (MANIFEST, self.manifest)))

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
                required(fields, MANIFEST),
                decode_checksum(algorithm, kind, decode_ascii(fields.get(CHECKSUM))),
                sequence,
                new_stored_bytes,
                domain,
            )
