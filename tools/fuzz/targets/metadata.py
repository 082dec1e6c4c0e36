"""What a disk gives back of the ordered map: records, rows, the journal, checkpoints."""

from __future__ import annotations

import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from index import checkpoint, counters, environment, journal, keys, quotas, records, tokens
from index.errors import CorruptRecord, NamesError, UnsupportedRecord
from index.fileops import FileOps
from index.kv import CorruptJournal, KvError, UnsupportedFormat
from index.segments import JournalReader
from index.versions import VERSION_ID_BYTES
from tools.fuzz.targets.target import (
    BINARY_WORDS,
    DEEP,
    JSON_WORDS,
    STORE_ID,
    Target,
    allow,
    fast_directory,
    sealable,
)
from vaultaire import access, history, plans
from vaultaire.cli.endpoint import read_endpoint
from vaultaire.errors import StoreError
from vaultaire.secret_key import SecretKey

if TYPE_CHECKING:
    from collections.abc import Iterator


def take_records(data: bytes) -> None:
    """Whatever the bytes: CorruptRecord or UnsupportedRecord; what decodes encodes to the same."""
    for kind in (records.ObjectRecord, records.BucketRecord, records.UploadRecord, records.PartRecord):
        allow((CorruptRecord, UnsupportedRecord), lambda kind=kind: _decode_twice(kind, data))
    allow((CorruptRecord, UnsupportedRecord), lambda: records.decode_listing(data))
    allow(CorruptRecord, lambda: records.decode_parts(data))
    allow(CorruptRecord, lambda: tokens.decode_token(data))


def _decode_twice(kind: Any, data: bytes) -> None:
    record = kind.decode(data)
    if isinstance(record, records.ObjectRecord):
        allow(CorruptRecord, lambda: record.parts)
    try:
        again = record.encode()
    except ValueError:
        return  # nobody writes such a record, though it can be read
    assert kind.decode(again) == record


def take_rows(data: bytes) -> None:
    """The engine's own rows, checksummed values, keys; rows of counters, quotas, history, access keys, their limits and
    the endpoint."""
    allow(KvError, lambda: environment.EnvironmentHeader.decode(data))
    allow(KvError, lambda: environment.decode_position(data))
    seeds = environment.crc_seeds("idx.objects")
    allow(KvError, lambda: environment.unwrap("idx.objects", seeds, b"k", data))
    assert keys.unescape(keys.escape(data)) == data
    reader: Any = _OneRow(data)
    allow(CorruptRecord, lambda: counters.statistics(reader, 1))
    allow(CorruptRecord, lambda: quotas.bucket_row(reader, 1))
    allow(CorruptRecord, lambda: quotas.tenant_limits(reader, "tenant"))
    history.Day.decode(bytes(12), data)
    allow(StoreError, lambda: list(plans.list_plans(reader)))
    keyring = access.Keyring(Path("nowhere"), SecretKey(bytes(32)))
    allow(StoreError, lambda: keyring.lookup(reader, "AKIA"))
    allow(StoreError, lambda: list(keyring.list_keys(reader)))
    read_endpoint(reader)


@dataclass(frozen=True, slots=True)
class _OneRow:
    value: bytes

    def get(self, table: str, key: bytes) -> bytes:
        return self.value

    def scan(self, table: str, *_: object, **__: object) -> Iterator[tuple[bytes, bytes]]:
        yield b"AKIA", self.value


def take_journal(data: bytes) -> None:
    """One record; sealed anew where the first byte is odd."""
    record = bytearray(data[1:])
    if data[:1] and data[0] & 1 and len(record) >= journal.HEADER_BYTES:
        checksum = blake3(bytes(record[:12]) + bytes(record[16 : journal.HEADER_BYTES - 32]))
        record[journal.HEADER_BYTES - 32 : journal.HEADER_BYTES] = checksum.update(
            bytes(record[journal.HEADER_BYTES :])
        ).digest()
        length = struct.unpack_from(">H", record, 6)[0]
        end = length if journal.HEADER_BYTES <= length <= len(record) else journal.HEADER_BYTES
        struct.pack_into(">I", record, 12, zlib.crc32(record[16:end], zlib.crc32(record[:12])))
    decoded = journal.decode_record(bytes(record))
    assert decoded.header.record_bytes == len(record)


def take_segment(data: bytes) -> None:
    """A whole segment file, as recovery reads it: no record is handed out that does not follow, nothing is cut."""
    with tempfile.TemporaryDirectory(dir=fast_directory()) as folder:
        directory = Path(folder)
        (directory / f"{1:020d}.log").write_bytes(data)
        reader = JournalReader(directory, STORE_ID, journal.ORIGIN, FileOps())
        try:
            sequence = 0
            for record, position in reader:
                assert record.header.first_sequence == sequence + 1
                sequence = position.sequence
            reader.check_tail()
        finally:
            reader.close()


def take_checkpoint(data: bytes) -> None:
    checkpoint.Checkpoint.from_json(Path("x.ckpt"), data)


def _records() -> list[bytes]:
    checksum = records.Checksum("CRC32", "FULL_OBJECT", "AAAAAA==")
    digest = "d41d8cd98f00b204e9800998ecf8427e"
    summary = records.PartSummary(1, 5, digest, checksum)
    full = records.ObjectRecord(
        5, 1_700_000_000_000, digest + "-2", "me", 7, b"v" * VERSION_ID_BYTES, False, "text/plain", (("a", "b"),),
        (("c", "d"),), checksum, b"inline", None, records.encode_parts([summary]), 10, 0, (("t", "u"),),
        records.Retention("GOVERNANCE", 5), True, (("x", "READ"),),
    )  # fmt: skip
    bucket = records.BucketRecord(
        1, "bucket", "me", 5, 7, "Enabled", True, records.DefaultRetention("COMPLIANCE", 1, "Days"), True
    )
    upload = records.UploadRecord(
        "0" * 32, b"key", "me", 5, 7, "a/b", (("a", "b"),), (), "CRC32", "COMPOSITE"
    )
    part = records.PartRecord(1, 5, digest, 5, b"manifest", checksum, 7)
    return [full.encode(), bucket.encode(), upload.encode(), part.encode(), full.part_table]


def _rows() -> list[bytes]:
    header = environment.EnvironmentHeader(STORE_ID, b"g" * 16, 1 << 30, b"b" * 16)
    seeds = environment.crc_seeds("idx.objects")
    endpoint = b'E\x01{"url": "http://127.0.0.1:9000", "ca_bundle": null}'
    plan = b'{"requests_per_minute":1000,"bytes_per_second":null,"plan":"core"}'
    return [
        header.encode(),
        environment.encode_position(journal.ORIGIN),
        environment.wrap(seeds, b"k", b"v"),
        endpoint,
        b"\x02" + (1).to_bytes(8) * 6,  # counts
        b"\x01" + bytes(16) + b"\xff" * 8,  # limits of a tenant
        b"\x01" + bytes(16) + b"\xff" * 8 + b"\x01",  # of a bucket
        history.Day(20_000, *range(1, 10)).encode(),
        plan,
        DEEP,
    ]


def _journal_records() -> list[bytes]:
    found, chain, sequence = [], bytes(journal.NO_RECORD), 1
    for functions in (
        [{("idx.objects", b"k"): b"v" * 50, ("cas.packs", b"p"): None}],
        [{}, {("idx.objects", b"l"): b""}],
    ):
        record = journal.encode_record(
            functions,
            store_id=STORE_ID,
            first_sequence=sequence,
            wall_ms=5,
            writer_tag=b"w" * 16,
            chain=chain,
        )
        found.append(record)
        chain, sequence = bytes(journal.record_checksum(record)), sequence + len(functions)
    return found


def _checkpoints() -> list[bytes]:
    position = journal.Position(7, 5, 100, journal.NO_RECORD)
    return [
        checkpoint.Checkpoint(Path("x.ckpt"), STORE_ID, position, 5, "0" * 64, 1).to_json(),
        b"{}",
        b"[]",
        DEEP,
    ]


TARGETS = (
    Target("records", take_records, (), _records, BINARY_WORDS),
    Target("rows", take_rows, (NamesError,), _rows, BINARY_WORDS),
    Target("journal", take_journal, (journal.InvalidRecord, UnsupportedFormat), lambda: sealable(_journal_records()), BINARY_WORDS),
    Target("segment", take_segment, (CorruptJournal, UnsupportedFormat), lambda: [b"".join(_journal_records()) + bytes(100)], BINARY_WORDS),
    Target("checkpoint", take_checkpoint, (checkpoint.CorruptCheckpoint,), _checkpoints, JSON_WORDS),
)  # fmt: skip
