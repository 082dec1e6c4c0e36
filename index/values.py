"""The small values inside records: checksums, ETags, part tables, retention; and their bytes. Pure.

The encoders raise ValueError for a value that no caller may build. The decoders raise ValueError, LookupError or
struct.error for damaged bytes and are used inside `decoding`, which translates; `decode_parts` does so itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar, get_args

from index.fields import decoding, encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

ChecksumAlgorithm = Literal[
    "CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME", "SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128"
]
ChecksumType = Literal["COMPOSITE", "FULL_OBJECT"]
RetentionMode = Literal["GOVERNANCE", "COMPLIANCE"]
RetentionUnit = Literal["Days", "Years"]
Versioning = Literal["Off", "Enabled", "Suspended"]
Prefixes = Literal["auto", "off", "on"]  # whether new data is compressed against earlier data (`cas.prefix`)

C = TypeVar("C", bound=str)

# A choice is stored as its position above, from 1 (versioning: from 0); 0 means none. Append only.
ALGORITHMS: Final[tuple[ChecksumAlgorithm, ...]] = get_args(ChecksumAlgorithm)
TYPES: Final[tuple[ChecksumType, ...]] = get_args(ChecksumType)
_MODES: Final[tuple[RetentionMode, ...]] = get_args(RetentionMode)
_UNITS: Final[tuple[RetentionUnit, ...]] = get_args(RetentionUnit)
VERSIONING: Final[tuple[Versioning, ...]] = get_args(Versioning)


def code_of(choices: Sequence[C], choice: C | None) -> int:
    return 0 if choice is None else choices.index(choice) + 1


def choice_of(choices: Sequence[C], code: int) -> C | None:
    """Raises IndexError for an unknown code; use inside `decoding`."""
    return None if code == 0 else choices[code - 1]


@dataclass(frozen=True, slots=True)
class Checksum:
    """What S3 returns as x-amz-checksum-*: `value` is base64, with "-N" behind it if composite."""

    algorithm: ChecksumAlgorithm
    type: ChecksumType
    value: str


@dataclass(frozen=True, slots=True)
class PartSummary:
    """One part of a completed multipart object, in its part table."""

    number: int
    size: int
    etag: str  # MD5, 32 hex digits
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    mode: RetentionMode
    until_ms: int


@dataclass(frozen=True, slots=True)
class DefaultRetention:
    """What a bucket with Object Lock gives to a version that comes without a retention of its own."""

    mode: RetentionMode
    count: int
    unit: RetentionUnit


# --- ETags ---------------------------------------------------------------------------------------------------


def split_etag(etag: str) -> tuple[bytes, int]:
    """(MD5 digest, number of parts or 0). Only what S3 itself makes: 32 hex digits, or those and "-N"."""
    text, dash, count = etag.partition("-")
    digest = bytes.fromhex(text)
    parts = int(count) if dash else 0
    if len(digest) != 16 or join_etag(digest, parts) != etag:
        raise ValueError(f"not an ETag: {etag!r}")
    return digest, parts


def join_etag(digest: bytes, parts: int) -> str:
    return f"{digest.hex()}-{parts}" if parts else digest.hex()


# --- Part tables ---------------------------------------------------------------------------------------------

_COUNT: Final = struct.Struct(">H")
_PART: Final = struct.Struct(">HQ16sBBB")  # number, size, MD5, checksum algorithm, type, length of its text


def encode_parts(parts: Sequence[PartSummary]) -> bytes:
    """A part table: count u16, then each part. Raises ValueError."""
    with encoding("part table"):
        encoded = [_COUNT.pack(len(parts))]
        for part in parts:
            digest, nested = split_etag(part.etag)
            if nested:
                raise ValueError(f"a part's ETag is an MD5, not {part.etag!r}")
            algorithm, kind, text = encode_checksum(part.checksum)
            encoded += (_PART.pack(part.number, part.size, digest, algorithm, kind, len(text)), text)
        return b"".join(encoded)


def decode_parts(table: bytes) -> tuple[PartSummary, ...]:
    """Raises CorruptRecord. About a microsecond per part. An empty table: no parts."""
    if not table:
        return ()
    with decoding("part table"):
        (count,) = _COUNT.unpack_from(table)
        parts: list[PartSummary] = []
        position = _COUNT.size
        for _ in range(count):
            number, size, digest, algorithm, kind, text_bytes = _PART.unpack_from(table, position)
            start = position + _PART.size
            position = start + text_bytes
            checksum = decode_checksum(algorithm, kind, table[start:position].decode("ascii"))
            parts.append(PartSummary(number, size, digest.hex(), checksum))
        if position != len(table):
            raise ValueError(f"a part table of {len(table)} bytes ends at {position}")
        return tuple(parts)


def encode_checksum(checksum: Checksum | None) -> tuple[int, int, bytes]:
    if checksum is None:
        return 0, 0, b""
    text = checksum.value.encode("ascii")
    if not text:
        raise ValueError("a checksum without its value")
    return code_of(ALGORITHMS, checksum.algorithm), code_of(TYPES, checksum.type), text


def decode_checksum(algorithm_code: int, type_code: int, text: str | None) -> Checksum | None:
    algorithm, kind = choice_of(ALGORITHMS, algorithm_code), choice_of(TYPES, type_code)
    if algorithm is None or kind is None:
        if algorithm_code or type_code or text:
            raise ValueError("half a checksum")
        return None
    if text is None:
        raise ValueError("a checksum without its value")
    return Checksum(algorithm, kind, text)


# --- Retention and flags -------------------------------------------------------------------------------------

_RETENTION: Final = struct.Struct(">BQ")  # mode, until_ms
_DEFAULT: Final = struct.Struct(">BBI")  # mode, unit, count


def decode_ascii(field: bytes | None) -> str | None:
    return None if field is None else field.decode("ascii")


def encode_retention(retention: Retention | None) -> bytes | None:
    if retention is None:
        return None
    return _RETENTION.pack(code_of(_MODES, retention.mode), retention.until_ms)


def decode_retention(field: bytes | None) -> Retention | None:
    if field is None:
        return None
    code, until_ms = _RETENTION.unpack(field)
    mode = choice_of(_MODES, code)
    if mode is None:
        raise ValueError("retention without a mode")
    return Retention(mode, until_ms)


def encode_default_retention(default: DefaultRetention | None) -> bytes | None:
    if default is None:
        return None
    return _DEFAULT.pack(code_of(_MODES, default.mode), code_of(_UNITS, default.unit), default.count)


def decode_default_retention(field: bytes | None) -> DefaultRetention | None:
    if field is None:
        return None
    mode_code, unit_code, count = _DEFAULT.unpack(field)
    mode, unit = choice_of(_MODES, mode_code), choice_of(_UNITS, unit_code)
    if mode is None or unit is None:
        raise ValueError("default retention without a mode or a unit")
    return DefaultRetention(mode, count, unit)


def encode_hold(hold: bool | None) -> bytes | None:
    return None if hold is None else bytes((hold,))


def decode_hold(field: bytes | None) -> bool | None:
    if field not in (None, b"\x00", b"\x01"):
        raise ValueError("a legal hold is one byte, 00 or 01")
    return None if field is None else field == b"\x01"
