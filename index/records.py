"""Records of buckets, objects, uploads and parts, and their bytes (index/SCHEMA.md, "Tables of names"). Pure.

`encode()` raises ValueError for a value that no caller may build; `decode` raises CorruptRecord or UnsupportedRecord
and nothing else, whatever the bytes. Every record carries the commit sequence at which it became visible: order
never depends on a clock.

Everybody imports them from here; a module each: `index.object_record`, `index.bucket_record`, `index.upload_records`.
"""

from __future__ import annotations

from index.bucket_record import BucketRecord
from index.errors import CorruptRecord
from index.fields import required
from index.object_record import DELETE_MARKER, INLINE, MANIFEST, OBJECT, Listing, ObjectRecord, decode_listing
from index.upload_records import PART, PartRecord, UploadRecord
from index.values import (
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    DefaultRetention,
    PartSummary,
    Retention,
    RetentionMode,
    Versioning,
    decode_parts,
    encode_parts,
)

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


def decode_manifest(value: bytes) -> bytes | None:
    """The manifest of an object's or a part's record alone; None: there is none (inline, or a delete marker).

    For walks over all of them. Raises CorruptRecord, UnsupportedRecord.
    """
    if value[:1] == bytes((PART.kind,)):
        PART.refuse(value)
        return required(PART.decode_fields(value, value[2]), MANIFEST)
    OBJECT.refuse(value)
    fields = OBJECT.decode_fields(value, value[2] + value[7] + value[8])
    if not (MANIFEST in fields or INLINE in fields or value[3] & DELETE_MARKER):
        raise CorruptRecord(OBJECT.name, "neither inline data nor a manifest")
    return fields.get(MANIFEST)
