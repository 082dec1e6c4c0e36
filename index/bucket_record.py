"""The record of a bucket, and its bytes (index/SCHEMA.md, "Bucket record"). Pure; as `index.records` says."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from index.fields import Layout, decoding, encoding, required
from index.values import (
    VERSIONING,
    DefaultRetention,
    Prefixes,
    Versioning,
    decode_default_retention,
    encode_default_retention,
)

_NAME: Final = 1
_OWNER: Final = 2
_DEFAULT_RETENTION: Final = 3

# Incompatible flags: who does not know Object Lock must not open the bucket, who does not know quotas would not count.
_OBJECT_LOCK: Final = 0x01
_LIMITED: Final = 0x02
# A compatible one: who does not know of configurations need not look for them.
_CONFIGURED: Final = 0x01
# Compatible as well: they say how new data is stored, not what is there.
_PREFIXES: Final[dict[Prefixes, int]] = {"auto": 0, "off": 0x02, "on": 0x04}
_PREFIXES_OF: Final = {bits: name for name, bits in _PREFIXES.items()}
_PREFIXES_MASK: Final = 0x06

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
    configured: bool = False  # it has a row in idx.configs; kept by `index.configs`: spares requests the look
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
                required(fields, _NAME).decode(),
                required(fields, _OWNER).decode(),
                created_ms,
                sequence,
                VERSIONING[versioning],
                bool(flags & _OBJECT_LOCK),
                decode_default_retention(fields.get(_DEFAULT_RETENTION)),
                bool(compatible & _CONFIGURED),
                _PREFIXES_OF.get(compatible & _PREFIXES_MASK, "auto"),
                bool(flags & _LIMITED),
            )
