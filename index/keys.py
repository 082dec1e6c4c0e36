"""The segment codec: object keys (1 to 1024 arbitrary bytes) <-> rows of at most 418 bytes. Pure.

The ordered map takes keys of 511 bytes, S3 has 1024, and hashing a tail would lose the order that LIST needs. So a
key is cut into segments, and a key path is one row per segment:

    bucket id u64 | node id u64 | escaped segment | terminator        all big-endian
    terminator 00 00: the key ends here (EXACT; a table may append a suffix of fixed length)
    terminator 00 01: the key goes on (CONTINUES; the value is the node id under which the rest is found)

* Escape: 00 -> 00 FF, so that no segment contains a terminator and the order is kept.
* A segment takes as many key bytes as fit `SEGMENT_BYTES` escaped bytes (greedy): a key has exactly one cut.
* Node 0 is a bucket's root. The rows are read and written by `index.tree` alone.

Order of rows is order of keys. Rows of one node compare like their segments, since 00 00 < 00 01 < 00 FF < any
other byte; and a key that ends with a segment precedes all that go on from it. The one subtle case: a segment S of
399 escaped bytes continues only for keys S 00.. (the escape pair did not fit), while S 01.. fits into the row; all
of the former precede all of the latter, and 00 01 < 01.

Bounds are keys too, but of any length and content (markers come from clients): `lower_bound` and `upper_bound` give
the first row of a node that can hold a key >= bound.
"""

from __future__ import annotations

import struct
from typing import Final

from index.errors import CorruptRecord, InvalidKey

MAX_OBJECT_KEY_BYTES: Final = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
SEGMENT_BYTES: Final = 400  # arbitrary: 16 + 400 + 2 leaves 93 of the map's 511 bytes for a table's suffix
HEAD_BYTES: Final = 16
ROOT: Final = 0
EXACT: Final = b"\x00\x00"
CONTINUES: Final = b"\x00\x01"
_PAST_CONTINUES: Final = b"\x00\x02"  # sorts after every row of the segment that continues, before any other

_HEAD: Final = struct.Struct(">QQ")
_U64: Final = struct.Struct(">Q")
_MAX_U64: Final = (1 << 64) - 1


def check_key(key: bytes) -> None:
    """Raises InvalidKey. UTF-8 is not checked: bytes in, bytes out."""
    if not 1 <= len(key) <= MAX_OBJECT_KEY_BYTES:
        raise InvalidKey(len(key), MAX_OBJECT_KEY_BYTES)


def node_head(bucket_id: int, node_id: int) -> bytes:
    """What every row of a node begins with."""
    return _HEAD.pack(bucket_id, node_id)


def successor(prefix: bytes) -> bytes | None:
    """The smallest byte string greater than all that begin with `prefix`; None if there is none (FF FF ..)."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else None


def escape(segment: bytes) -> bytes:
    return segment.replace(b"\x00", b"\x00\xff") if b"\x00" in segment else segment


def unescape(escaped: bytes) -> bytes:
    return escaped.replace(b"\x00\xff", b"\x00") if b"\x00" in escaped else escaped


def cut_segment(key: bytes) -> tuple[bytes, bytes]:
    """(escaped first segment, rest of the key). An empty rest means that the key ends with this segment."""
    escaped = escape(key[:SEGMENT_BYTES])
    if len(escaped) <= SEGMENT_BYTES:
        return escaped, key[SEGMENT_BYTES:]
    # Never cut an escape pair: its 00 would join the terminator.
    end = SEGMENT_BYTES - 1 if escaped[SEGMENT_BYTES - 1] == 0 else SEGMENT_BYTES
    first = escaped[:end]
    return first, key[len(first) - first.count(0) :]


def lower_bound(bound: bytes) -> bytes:
    """Rows of a node (without head) >= this are those with keys >= `bound`, if one that continues is descended."""
    escaped, rest = cut_segment(bound)
    return escaped + CONTINUES if rest else escaped


def upper_bound(bound: bytes) -> bytes:
    """Rows of a node (without head) < this are those with keys < `bound`, likewise."""
    escaped, rest = cut_segment(bound)
    return escaped + _PAST_CONTINUES if rest else escaped


def inner_bound(bound: bytes, segment: bytes) -> bytes:
    """`bound` as seen from the node that continues `segment` (not escaped); empty if all of it lies above."""
    return bound[len(segment) :] if bound.startswith(segment) else b""


def split_row(row: bytes) -> tuple[bytes, bytes | None]:
    """(segment, suffix) of an exact row, (segment, None) of one that continues. Raises CorruptRecord."""
    end = row.find(EXACT, HEAD_BYTES)
    if end >= 0:
        return unescape(row[HEAD_BYTES:end]), row[end + 2 :]
    if row[-2:] != CONTINUES:
        raise CorruptRecord("key row", f"no terminator in {row.hex()}")
    return unescape(row[HEAD_BYTES:-2]), None


def encode_id(number: int) -> bytes:
    """A bucket id or node id as a value: u64."""
    return _U64.pack(number)


def decode_id(value: bytes) -> int:
    if len(value) != _U64.size:
        raise CorruptRecord("id", f"{len(value)} bytes instead of {_U64.size}")
    number: int = _U64.unpack(value)[0]
    return number


def inverted(sequence: int) -> bytes:
    """Suffix of a version's row: the newest sorts first. (2**64 - 1 - sequence) u64."""
    return _U64.pack(_MAX_U64 - sequence)
