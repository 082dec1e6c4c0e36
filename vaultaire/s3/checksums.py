"""The checksums S3 knows, one interface for all; and how those of parts become that of an object.

CRC32, the SHAs and MD5 come from zlib and hashlib, CRC32C and CRC64NVME from awscrt, the XXHASHes (seed 0, digests in
big-endian order, as S3 shows them) from xxhash; all are C and take memoryviews. What a request asked for is
`vaultaire.s3.expected`.

A multipart object's checksum is COMPOSITE (the checksum of the parts' raw checksums, with `-N`) or FULL_OBJECT, which
for the CRCs follows from the parts' values and lengths alone (`combine`): no byte is read again. It does not for the
others, so S3 has them COMPOSITE only. An object put whole has a FULL_OBJECT checksum, whatever the algorithm.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import xxhash
from awscrt.checksums import crc32c, crc64nvme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ChecksumType = Literal["COMPOSITE", "FULL_OBJECT"]


class Algorithm(Enum):
    """The name on the wire, in XML and in records."""

    CRC32 = "CRC32"
    CRC32C = "CRC32C"
    CRC64NVME = "CRC64NVME"
    SHA1 = "SHA1"
    SHA256 = "SHA256"
    SHA512 = "SHA512"
    MD5 = "MD5"
    XXHASH64 = "XXHASH64"
    XXHASH3 = "XXHASH3"  # XXH3 with 64 bits
    XXHASH128 = "XXHASH128"  # XXH3 with 128 bits

    @property
    def header(self) -> str:
        """`x-amz-checksum-crc32` and so on."""
        return _HEADERS[self]

    @property
    def element(self) -> str:
        """The XML element: `ChecksumCRC32` and so on."""
        return f"Checksum{self.value}"

    @property
    def digest_bytes(self) -> int:
        return _DIGEST_BYTES[self]

    @property
    def types(self) -> tuple[ChecksumType, ...]:
        """What a multipart object's checksum may be; the first one is meant when the client names none."""
        return _TYPES[self]


_HEADERS = {algorithm: f"x-amz-checksum-{algorithm.value.lower()}" for algorithm in Algorithm}
_DIGEST_BYTES = {
    Algorithm.CRC32: 4,
    Algorithm.CRC32C: 4,
    Algorithm.CRC64NVME: 8,
    Algorithm.SHA1: 20,
    Algorithm.SHA256: 32,
    Algorithm.SHA512: 64,
    Algorithm.MD5: 16,
    Algorithm.XXHASH64: 8,
    Algorithm.XXHASH3: 8,
    Algorithm.XXHASH128: 16,
}
_TYPES: dict[Algorithm, tuple[ChecksumType, ...]] = {
    Algorithm.CRC32: ("COMPOSITE", "FULL_OBJECT"),
    Algorithm.CRC32C: ("COMPOSITE", "FULL_OBJECT"),
    Algorithm.CRC64NVME: ("FULL_OBJECT",),
    Algorithm.SHA1: ("COMPOSITE",),
    Algorithm.SHA256: ("COMPOSITE",),
    Algorithm.SHA512: ("COMPOSITE",),
    Algorithm.MD5: ("COMPOSITE",),
    Algorithm.XXHASH64: ("COMPOSITE",),
    Algorithm.XXHASH3: ("COMPOSITE",),
    Algorithm.XXHASH128: ("COMPOSITE",),
}
# Reflected: bit 0 is the highest power of x.
_POLYNOMIALS = {
    Algorithm.CRC32: 0xEDB88320,
    Algorithm.CRC32C: 0x82F63B78,
    Algorithm.CRC64NVME: 0x9A6C9329AC4BC9B5,
}


class Engine(Protocol):
    """A running checksum. One thread at a time; large updates release the GIL (hashlib, zlib, xxhash)."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, function: Callable[[bytes | memoryview, int], int], length: int) -> None:
        self._function = function
        self._length = length
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._length, "big")


def new_engine(algorithm: Algorithm) -> Engine:
    match algorithm:
        case Algorithm.CRC32:
            return _Crc(zlib.crc32, 4)
        case Algorithm.CRC32C:
            return _Crc(crc32c, 4)
        case Algorithm.CRC64NVME:
            return _Crc(crc64nvme, 8)
        case Algorithm.SHA1:
            return hashlib.sha1(usedforsecurity=False)
        case Algorithm.SHA256:
            return hashlib.sha256()
        case Algorithm.SHA512:
            return hashlib.sha512()
        case Algorithm.MD5:
            return new_md5()
        case Algorithm.XXHASH64:
            return xxhash.xxh64()
        case Algorithm.XXHASH3:
            return xxhash.xxh3_64()
        case Algorithm.XXHASH128:
            return xxhash.xxh3_128()


def new_md5() -> Engine:
    return hashlib.md5(usedforsecurity=False)


def encode(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def decode(value: str, length: int) -> bytes | None:
    """The digest in canonical base64, or None if `value` is not exactly one of `length` bytes."""
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == length and encode(digest) == value else None


def composite(algorithm: Algorithm, digests: Sequence[bytes]) -> str:
    """The checksum of the parts' raw digests, in their order: `base64-N`."""
    engine = new_engine(algorithm)
    engine.update(b"".join(digests))
    return f"{encode(engine.digest())}-{len(digests)}"


def combine(algorithm: Algorithm, parts: Iterable[tuple[bytes, int]]) -> bytes:
    """The CRC of the concatenation of parts given as (raw digest, length in bytes).

    crc(A + B) = crc(A) * x^(8 * len(B)) + crc(B) over GF(2) modulo the polynomial (Mark Adler's crc32_combine in
    zlib, with tables of products in place of matrices). Per part 2 us where lengths repeat, as they do in an upload,
    and 0.1 ms where they do not. Only for algorithms whose `types` include FULL_OBJECT (KeyError otherwise).
    """
    polynomial = _POLYNOMIALS[algorithm]
    width = algorithm.digest_bytes * 8
    crc = 0
    for digest, length in parts:
        crc = _multiply(crc, _shift(length, polynomial, width)) ^ int.from_bytes(digest, "big")
    return crc.to_bytes(algorithm.digest_bytes, "big")


# What a fixed factor makes of every nibble at every place: rows from the lowest nibble up, 16 products each.
_Products = tuple[tuple[int, ...], ...]


def _products(factor: int, polynomial: int, width: int) -> _Products:
    """All reflected: the highest bit is x^0, and a shift to the right multiplies by x."""
    rows = []
    columns = []
    for _ in range(width):
        columns.append(factor)
        factor = factor >> 1 ^ polynomial if factor & 1 else factor >> 1
    columns.reverse()  # now column i is the factor times the polynomial whose only bit is i
    for place in range(0, width, 4):
        row = [0]
        for column in columns[place : place + 4]:
            row += [entry ^ column for entry in row]
        rows.append(tuple(row))
    return tuple(rows)


def _multiply(value: int, products: _Products) -> int:
    result = 0
    for row in products:
        result ^= row[value & 15]
        value >>= 4
    return result


@lru_cache(maxsize=256)
def _doubling(k: int, polynomial: int, width: int) -> _Products:
    """Products with x^(8 * 2^k)."""
    one = 1 << (width - 1)
    if k == 0:
        return _products(one >> 8, polynomial, width)
    half = _doubling(k - 1, polynomial, width)
    return _products(_multiply(_multiply(one, half), half), polynomial, width)


@lru_cache(maxsize=64)
def _shift(length: int, polynomial: int, width: int) -> _Products:
    """Products with x^(8 * length)."""
    power = 1 << (width - 1)
    for k in range(length.bit_length()):
        if length >> k & 1:
            power = _multiply(power, _doubling(k, polynomial, width))
    return _products(power, polynomial, width)
