"""Every manifest that a bucket's names hold: what collection walks to learn which chunks are needed.

Objects, all their other versions, and the parts of uploads in progress; by rows, without building keys, since a bucket
of ten million objects shall take seconds. The walk is right as far as its snapshot is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from index.errors import NamesError
from index.keys import decode_id, encode_id, successor
from index.records import decode_manifest
from index.tables import BUCKETS, OBJECTS, PARTS, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from index.kv import Reader

_LINK_BYTES: Final = 8  # a row that leads to a key's next segment has a node id; no record is that short


def bucket_ids(reader: Reader) -> list[int]:
    """All of them, ascending."""
    return [decode_id(row) for row, _ in reader.scan(BUCKETS)]


def iterate_manifests(
    reader: Reader, bucket_id: int, on_damage: Callable[[NamesError], None]
) -> Iterator[bytes | None]:
    """The encoded manifest of each record of the bucket, None for one that has none. Lazy, as `Reader.scan`.

    A record that cannot be decoded is reported: what it names is not known then. Raises CorruptValue.
    """
    prefix = encode_id(bucket_id)
    for table in (OBJECTS, VERSIONS, PARTS):
        for _, value in reader.scan(table, prefix, successor(prefix)):
            if len(value) == _LINK_BYTES:
                continue
            try:
                yield decode_manifest(value)
            except NamesError as error:
                on_damage(error)
