"""Key paths in an ordered map: the one reader and the one writer of the rows that `index.keys` defines.

Each of the tables objects, versions and uploads has a tree of its own per bucket; keys of one segment (nearly all)
are one row in the root. Guarantees:

* `walk` yields keys in plain byte order, whatever they share, and reads no row outside [start, stop) but the links
  on the way: at most `MAX_OBJECT_KEY_BYTES / SEGMENT_BYTES` of them (twice that when all bytes are 00).
* A node that loses its last row loses its link as well, up to the root: an empty tree has no rows.
* Node ids come from one allocator and are never reused, so a link can never lead into rows of another key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from index import ids
from index.errors import CorruptRecord
from index.keys import (
    CONTINUES,
    EXACT,
    HEAD_BYTES,
    ROOT,
    check_key,
    cut_segment,
    decode_id,
    encode_id,
    inner_bound,
    lower_bound,
    node_head,
    split_row,
    successor,
    unescape,
    upper_bound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from index.kv import Reader, Transaction


def find_row(reader: Reader, table: str, bucket_id: int, key: bytes) -> bytes | None:
    """The exact row of `key`, without suffix; None if it cannot exist. For short keys it need not exist.

    Raises InvalidKey.
    """
    check_key(key)
    head = node_head(bucket_id, ROOT)
    escaped, rest = cut_segment(key)
    while rest:
        link = reader.get(table, head + escaped + CONTINUES)
        if link is None:
            return None
        head = node_head(bucket_id, decode_id(link))
        escaped, rest = cut_segment(rest)
    return head + escaped + EXACT


def make_row(txn: Transaction, table: str, bucket_id: int, key: bytes) -> bytes:
    """The exact row of `key`, without suffix, after making its nodes. The caller puts something under it.

    Raises InvalidKey.
    """
    check_key(key)
    head = node_head(bucket_id, ROOT)
    escaped, rest = cut_segment(key)
    while rest:
        row = head + escaped + CONTINUES
        link = txn.get(table, row)
        if link is None:
            link = encode_id(ids.allocate(txn, ids.NODE))
            txn.put(table, row, link)
        head = node_head(bucket_id, decode_id(link))
        escaped, rest = cut_segment(rest)
    return head + escaped + EXACT


def remove_row(txn: Transaction, table: str, bucket_id: int, key: bytes, suffix: bytes = b"") -> bool:
    """Delete one row, and the nodes that it leaves empty. True if it was there. Raises InvalidKey."""
    check_key(key)
    links: list[bytes] = []
    head = node_head(bucket_id, ROOT)
    escaped, rest = cut_segment(key)
    while rest:
        links.append(head + escaped + CONTINUES)
        link = txn.get(table, links[-1])
        if link is None:
            return False
        head = node_head(bucket_id, decode_id(link))
        escaped, rest = cut_segment(rest)
    if not txn.delete(table, head + escaped + EXACT + suffix):
        return False
    while links and is_empty(txn, table, head):
        txn.delete(table, links[-1])
        head = links.pop()[:HEAD_BYTES]
    return True


def is_empty(reader: Reader, table: str, prefix: bytes) -> bool:
    """No row begins with `prefix`."""
    return not list(reader.scan(table, prefix, successor(prefix), limit=1))


def walk(
    reader: Reader, table: str, bucket_id: int, start: bytes = b"", stop: bytes | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) for start <= key < stop (None: to the end) in byte order, of a table without suffixes.

    Lazy, under the rules of `Reader.scan`. The bounds may be of any length.
    """
    return _walk(reader, table, bucket_id, ROOT, b"", start, stop)


def _walk(
    reader: Reader, table: str, bucket_id: int, node_id: int, base: bytes, start: bytes, stop: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    # The hot loop of LIST: an exact row of a suffixless table ends in 00, one that continues in 01.
    for row, value in reader.scan(table, *_bounds(bucket_id, node_id, start, stop)):
        segment = row[HEAD_BYTES:-2]
        if b"\x00" in segment:
            segment = unescape(segment)
        if row[-1]:
            inner = _inner(segment, start, stop)
            yield from _walk(reader, table, bucket_id, decode_id(value), base + segment, *inner)
        else:
            yield base + segment, value


def walk_suffixed(
    reader: Reader, table: str, bucket_id: int, start: bytes = b"", stop: bytes | None = None
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(key, suffix, value), ordered by key, then by suffix; otherwise like `walk`."""
    return _walk_suffixed(reader, table, bucket_id, ROOT, b"", start, stop)


def _walk_suffixed(
    reader: Reader, table: str, bucket_id: int, node_id: int, base: bytes, start: bytes, stop: bytes | None
) -> Iterator[tuple[bytes, bytes, bytes]]:
    for row, value in reader.scan(table, *_bounds(bucket_id, node_id, start, stop)):
        segment, suffix = split_row(row)
        if suffix is None:
            inner = _inner(segment, start, stop)
            yield from _walk_suffixed(reader, table, bucket_id, decode_id(value), base + segment, *inner)
        else:
            yield base + segment, suffix, value


def suffixes(
    reader: Reader, table: str, bucket_id: int, key: bytes, after: bytes = b""
) -> Iterator[tuple[bytes, bytes]]:
    """(suffix, value) of one key, ascending, for suffixes > `after`. Raises InvalidKey."""
    row = find_row(reader, table, bucket_id, key)
    if row is None:
        return
    start = row + after + b"\x00" if after else row
    for found, value in reader.scan(table, start, successor(row)):
        yield found[len(row) :], value


def _bounds(bucket_id: int, node_id: int, start: bytes, stop: bytes | None) -> tuple[bytes, bytes | None]:
    head = node_head(bucket_id, node_id)
    return head + lower_bound(start), successor(head) if stop is None else head + upper_bound(stop)


def _inner(segment: bytes, start: bytes, stop: bytes | None) -> tuple[bytes, bytes | None]:
    if not segment:
        raise CorruptRecord("key row", "an empty segment continues")
    return inner_bound(start, segment), None if stop is None else inner_bound(stop, segment) or None
