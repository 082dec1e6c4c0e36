"""Multipart uploads in progress, and their parts.

An upload id is 16 bytes, shown as 32 lower-case hex digits: the commit sequence that began the upload (u64), then 8
random bytes. So ids of one key sort by initiation, which is the order that S3 lists them in, and none is ever used
twice or guessed. Parts are keyed by the id alone (unique in the store), so they need no key path.

Parts count in their bucket and its quota (`index.quotas`) from their commit until they are removed. Completing is
`index.versions.complete_upload`.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from index import quotas, tree
from index.errors import NoSuchUpload
from index.keys import encode_id, successor
from index.records import PartRecord, UploadRecord
from index.tables import PARTS, UPLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from index.counters import Counts
    from index.kv import Reader, Transaction
    from index.records import BucketRecord

UPLOAD_ID_BYTES: Final = 16
NONCE_BYTES: Final = 8
_NUMBER: Final = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class PartPage:
    parts: list[PartRecord]  # by number
    truncated: bool  # there are more: go on after the last one's number


def parse_upload_id(upload_id: str) -> bytes | None:
    """The id's 16 bytes; None for a text that this store never issues."""
    try:
        raw = bytes.fromhex(upload_id)
    except ValueError:
        return None
    return raw if len(raw) == UPLOAD_ID_BYTES and raw.hex() == upload_id else None


def create_upload(txn: Transaction, bucket_id: int, record: UploadRecord, nonce: bytes) -> UploadRecord:
    """Begin an upload of `record.key`; the record as stored, with its upload id and sequence.

    `nonce`: 8 random bytes, drawn by the caller (a transaction's function may run twice). Raises InvalidKey.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    raw = encode_id(txn.sequence) + nonce
    stored = replace(record, upload_id=raw.hex(), sequence=txn.sequence)
    txn.put(UPLOADS, tree.make_row(txn, UPLOADS, bucket_id, record.key) + raw, stored.encode())
    return stored


def get_upload(reader: Reader, bucket_id: int, key: bytes, upload_id: str) -> UploadRecord | None:
    """Only if it was begun for this very key. Raises InvalidKey, CorruptRecord, UnsupportedRecord."""
    raw, row = parse_upload_id(upload_id), tree.find_row(reader, UPLOADS, bucket_id, key)
    value = None if raw is None or row is None else reader.get(UPLOADS, row + raw)
    return None if value is None else UploadRecord.decode(value)


def remove_upload(
    txn: Transaction, bucket: BucketRecord, key: bytes, upload_id: str, writer: int
) -> UploadRecord:
    """Forget the upload and all its parts, in the counters too. `bucket` as the transaction sees it.

    Raises NoSuchUpload, InvalidKey.
    """
    record, change = drop_upload(txn, bucket.id, key, upload_id)
    quotas.charge(txn, bucket, writer, change)
    return record


def drop_upload(txn: Transaction, bucket_id: int, key: bytes, upload_id: str) -> tuple[UploadRecord, Counts]:
    """As `remove_upload`, and what that changes in the counters, which is left to the caller."""
    record, prefix = _require(txn, bucket_id, key, upload_id)
    change = drop_parts(txn, list(txn.scan(PARTS, prefix, successor(prefix))))  # at most 10,000
    tree.remove_row(txn, UPLOADS, bucket_id, key, prefix[8:])
    return record, change


def drop_parts(txn: Transaction, rows: Sequence[tuple[bytes, bytes]]) -> Counts:
    """Delete rows of parts; what that changes in the counters, which is left to the caller."""
    size = stored = 0
    for row, value in rows:
        part_size, part_stored = PartRecord.sizes_of(value)
        size += part_size
        stored += part_stored
        txn.delete(PARTS, row)
    return 0, 0, 0, 0, -size, -stored


def put_part(
    txn: Transaction, bucket: BucketRecord, key: bytes, upload_id: str, part: PartRecord, writer: int
) -> PartRecord | None:
    """Store a part, at the transaction's sequence; the one of the same number that it replaces, if any.

    `bucket` as the transaction sees it. Raises QuotaExceeded, NoSuchUpload, InvalidKey, ValueError (see
    `PartRecord.encode`).
    """
    _, prefix = _require(txn, bucket.id, key, upload_id)
    encoded = part.encode(txn.sequence)
    row = prefix + _NUMBER.pack(part.number)
    value = txn.get(PARTS, row)
    previous = None if value is None else PartRecord.decode(value)
    quotas.charge(txn, bucket, writer, part_change(part, previous))
    txn.put(PARTS, row, encoded)
    return previous


def require_room(
    reader: Reader, bucket: BucketRecord, key: bytes, upload_id: str, number: int, size: int
) -> None:
    """Whether a part of `size` bytes could be put there now; as `index.versions.require_room` for objects.

    Raises QuotaExceeded, NoSuchUpload, InvalidKey.
    """
    if not bucket.limited:
        return
    previous = get_parts(reader, bucket.id, key, upload_id, [number])[0]
    before, stored = (previous.size, previous.new_stored_bytes) if previous is not None else (0, 0)
    growth = quotas.Usage(size - before, 1 - stored if size > before else 0, 0)
    quotas.require_room(reader, bucket, growth)


def part_change(part: PartRecord, previous: PartRecord | None) -> Counts:
    """How the counters change when `part` takes the place of `previous`."""
    size, stored = (part.size, part.new_stored_bytes)
    if previous is not None:
        size, stored = size - previous.size, stored - previous.new_stored_bytes
    return 0, 0, 0, 0, size, stored


def get_parts(
    reader: Reader, bucket_id: int, key: bytes, upload_id: str, numbers: Sequence[int]
) -> list[PartRecord | None]:
    """In the order of `numbers`, None for one that was not uploaded (or is no u16).

    One round trip. A record with its manifest takes up to some KiB, and there may be 10,000: ask in windows.
    Raises NoSuchUpload, InvalidKey.
    """
    _, prefix = _require(reader, bucket_id, key, upload_id)
    possible = [number for number in numbers if 0 <= number <= 0xFFFF]
    values = reader.get_many(PARTS, [prefix + _NUMBER.pack(number) for number in possible])
    found = {
        number: PartRecord.decode(value)
        for number, value in zip(possible, values, strict=True)
        if value is not None
    }
    return [found.get(number) for number in numbers]


def same_parts(
    reader: Reader, bucket_id: int, key: bytes, upload_id: str, parts: Sequence[tuple[int, int]]
) -> bool:
    """Whether each of `parts` (number, sequence) is still there as it was read earlier. Cheap: nothing is decoded.

    Raises NoSuchUpload, InvalidKey.
    """
    _, prefix = _require(reader, bucket_id, key, upload_id)
    values = reader.get_many(PARTS, [prefix + _NUMBER.pack(number) for number, _ in parts])
    return all(
        value is not None and PartRecord.sequence_of(value) == sequence
        for value, (_, sequence) in zip(values, parts, strict=True)
    )


def list_parts(
    reader: Reader, bucket_id: int, key: bytes, upload_id: str, *, after_number: int = 0, limit: int
) -> PartPage:
    """Parts with a number > `after_number`, ascending. `limit` 0: empty, not truncated.

    Raises NoSuchUpload, InvalidKey.
    """
    _, prefix = _require(reader, bucket_id, key, upload_id)
    if limit == 0 or after_number >= 0xFFFF:
        return PartPage([], truncated=False)
    start = prefix + _NUMBER.pack(max(after_number, 0) + 1)
    values = [value for _, value in reader.scan(PARTS, start, successor(prefix), limit=limit + 1)]
    return PartPage([PartRecord.decode(value) for value in values[:limit]], len(values) > limit)


def _require(reader: Reader, bucket_id: int, key: bytes, upload_id: str) -> tuple[UploadRecord, bytes]:
    """(the upload, what the rows of its parts begin with)."""
    record = get_upload(reader, bucket_id, key, upload_id)
    if record is None:
        raise NoSuchUpload(bucket_id, key, upload_id)
    return record, encode_id(bucket_id) + bytes.fromhex(upload_id)
