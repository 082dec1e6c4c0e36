"""What lifecycle needs of the names: which buckets have rules, pages to look at, and one version seen on its own.

Pages are read in short snapshots and only say where something may be due. Whoever removes reads the version again, in
the transaction that removes it: `noncurrent_version` and `lone_marker` tell there what the version is by then.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from index import tree
from index.errors import CorruptRecord
from index.keys import decode_id, encode_id, inverted, successor
from index.records import BucketRecord, ObjectRecord, decode_listing
from index.tables import BUCKETS, CONFIGS, OBJECTS, UPLOADS, VERSIONS

if TYPE_CHECKING:
    from index.kv import Reader

_ID_BYTES: Final = 8


Row = tuple[bytes, bytes, bytes]  # key, what follows it in the row, record


class NoncurrentVersion(NamedTuple):
    record: ObjectRecord
    successor_ms: int  # when the next newer version was made
    newer: int  # noncurrent versions that are newer, delete markers not counted; as far as asked for


def next_bucket(reader: Reader, name: str, from_id: int) -> tuple[BucketRecord, bytes] | None:
    """The first bucket with an id >= `from_id` that has the configuration `name`, and that; None if there is none."""
    wanted = name.encode("ascii")
    for row, value in reader.scan(CONFIGS, encode_id(from_id)):
        if row[_ID_BYTES:] == wanted:
            record = reader.get(BUCKETS, row[:_ID_BYTES])
            if record is None:
                raise CorruptRecord(
                    "bucket configuration", f"bucket {decode_id(row[:_ID_BYTES])} has no record"
                )
            return BucketRecord.decode(record), value
    return None


def object_page(
    reader: Reader, bucket_id: int, prefix: bytes, after: tuple[bytes, bytes], limit: int
) -> list[Row]:
    """Up to `limit` current objects whose keys begin with `prefix`, after a key; their suffixes are empty."""
    start = max(prefix, after[0] + b"\x00") if after[0] else prefix
    rows = tree.walk(reader, OBJECTS, bucket_id, start, successor(prefix))
    return [(key, b"", value) for key, value in islice(rows, limit)]


def version_page(
    reader: Reader, bucket_id: int, prefix: bytes, after: tuple[bytes, bytes], limit: int
) -> list[Row]:
    """Up to `limit` other versions, delete markers included, by key, the newest first; after (key, suffix)."""
    return _suffixed_page(reader, VERSIONS, bucket_id, prefix, after, limit)


def upload_page(
    reader: Reader, bucket_id: int, prefix: bytes, after: tuple[bytes, bytes], limit: int
) -> list[Row]:
    """Up to `limit` uploads in progress, after (key, raw upload id); suffixes are raw upload ids."""
    return _suffixed_page(reader, UPLOADS, bucket_id, prefix, after, limit)


def _suffixed_page(
    reader: Reader, table: str, bucket_id: int, prefix: bytes, after: tuple[bytes, bytes], limit: int
) -> list[Row]:
    key, suffix = after
    start = max(prefix, key + b"\x00") if key else prefix
    rows = tree.walk_suffixed(reader, table, bucket_id, start, successor(prefix))
    if key and suffix and key.startswith(prefix):
        rest = tree.suffixes(reader, table, bucket_id, key, after=suffix)
        rows = chain(((key, found, value) for found, value in rest), rows)
    return list(islice(rows, limit))


def noncurrent_version(
    reader: Reader, bucket_id: int, key: bytes, sequence: int, *, count_newer: int
) -> NoncurrentVersion | None:
    """The version of `key` made at `sequence`; None if it is gone, or the newest there is (then it is current)."""
    row = tree.find_row(reader, VERSIONS, bucket_id, key)
    value = None if row is None else reader.get(VERSIONS, row + inverted(sequence))
    if row is None or value is None:
        return None
    newer = reader.scan(VERSIONS, row, row + inverted(sequence), reverse=True)
    nearest = next(newer, None)
    if nearest is None:
        current_row = tree.find_row(reader, OBJECTS, bucket_id, key)
        current = None if current_row is None else reader.get(OBJECTS, current_row)
        if current is None:
            return None
        return NoncurrentVersion(ObjectRecord.decode(value), decode_listing(current).modified_ms, 0)
    successor_ms = decode_listing(nearest[1]).modified_ms
    count = 0
    for _, other in chain((nearest,), newer):
        if count >= count_newer:
            break
        count += not decode_listing(other).delete_marker
    return NoncurrentVersion(ObjectRecord.decode(value), successor_ms, count)


def lone_marker(reader: Reader, bucket_id: int, key: bytes, sequence: int) -> ObjectRecord | None:
    """The delete marker made at `sequence`, if it is all that there is of `key`."""
    row = tree.find_row(reader, VERSIONS, bucket_id, key)
    if row is None:
        return None
    rows = list(reader.scan(VERSIONS, row, successor(row), limit=2))
    if len(rows) != 1 or rows[0][0] != row + inverted(sequence):
        return None
    current = tree.find_row(reader, OBJECTS, bucket_id, key)
    if current is not None and reader.get(OBJECTS, current) is not None:
        return None
    record = ObjectRecord.decode(rows[0][1])
    return record if record.delete_marker else None
