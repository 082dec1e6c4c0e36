"""The bytes of the journal: one record per durable step, pure encoding and decoding. Layout: index/SCHEMA.md.

A record holds the final mutations of one or more functions (a function is what one `commit` ran), and is checked
three ways: a CRC over its header (so that its length can be trusted before its body is read), a BLAKE3 over header
and body, and the checksum of the record before it, which chains records across segments. The store id is part of
what is hashed: bytes that a client stored, or a record of another store, are never taken for one of ours.

What decodes is exactly what was encoded. Files, and what an invalid record means, are left to `index.segments`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

from blake3 import blake3

from index.kv import MAX_KEY_BYTES, KvError, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Checksum = NewType("Checksum", bytes)  # 32 bytes
# Final state per row: the value, or None where the row is deleted. At most one entry per row.
Mutations = dict[tuple[str, bytes], bytes | None]

MAGIC = b"VltJ"
VERSION = 1
INCOMPATIBLE_FLAGS = 0x0000FFFF  # unknown flag here: refuse. In the upper half: skip
MAX_BODY_BYTES = 256 << 20

_PREFIX = struct.Struct(">4sHHI")  # magic, version, header length, flags
_CRC = struct.Struct(">I")
_FIELDS = struct.Struct(">16sQIIQ16s32s")  # store, sequence, functions, body length, wall time, writer, chain
_FIELDS_START = _PREFIX.size + _CRC.size
_CHECKSUM_START = _FIELDS_START + _FIELDS.size
CHECKSUM_BYTES = 32
HEADER_BYTES = _CHECKSUM_START + CHECKSUM_BYTES
MAX_HEADER_BYTES = 4096  # of a later version that only adds compatible fields

_FUNCTION = struct.Struct(">I")  # number of its mutations
_MUTATION = struct.Struct(">BBHI")  # table, kind, key length, value length
_DELETE, _PUT = 0, 1

NO_RECORD = Checksum(bytes(CHECKSUM_BYTES))  # the chain value of a store's first record


class InvalidRecord(KvError):
    """These bytes are not a record; whether that is a torn tail or damage, the segment decides."""


@dataclass(frozen=True, slots=True)
class Position:
    """A point in history: the newest function, and where the record after it begins."""

    sequence: int
    segment: int  # first sequence of the segment
    offset: int  # bytes in the segment
    chain: Checksum  # of the newest record


ORIGIN = Position(0, 1, 0, NO_RECORD)


@dataclass(frozen=True, slots=True)
class Header:
    header_bytes: int
    flags: int
    store_id: bytes
    first_sequence: int
    function_count: int
    body_bytes: int
    wall_ms: int  # information only: nothing is ever ordered by it
    writer_tag: bytes
    chain: Checksum  # checksum of the record before
    checksum: Checksum

    @property
    def record_bytes(self) -> int:
        return self.header_bytes + self.body_bytes


@dataclass(frozen=True, slots=True)
class Record:
    header: Header
    functions: tuple[Mutations, ...]  # in order; function i has sequence header.first_sequence + i

    @property
    def last_sequence(self) -> int:
        return self.header.first_sequence + self.header.function_count - 1

    def follows(self, position: Position) -> bool:
        """Is this the one record that may stand at `position`?"""
        return self.header.first_sequence == position.sequence + 1 and self.header.chain == position.chain

    def end(self, start: Position) -> Position:
        """The position after this record, which stands at `start`."""
        offset = start.offset + self.header.record_bytes
        return Position(self.last_sequence, start.segment, offset, self.header.checksum)


def encode_record(
    functions: Sequence[Mapping[tuple[str, bytes], bytes | None]],
    *,
    store_id: bytes,
    first_sequence: int,
    wall_ms: int,
    writer_tag: bytes,
    chain: bytes,
) -> bytes:
    """One record. `functions` is not empty (a function may be). Raises KvError if it would be too large."""
    body = _encode_body(functions)
    if len(body) > MAX_BODY_BYTES:
        raise KvError(f"one commit of {len(body)} bytes: at most {MAX_BODY_BYTES} fit a journal record")
    prefix = _PREFIX.pack(MAGIC, VERSION, HEADER_BYTES, 0)
    fields = _FIELDS.pack(store_id, first_sequence, len(functions), len(body), wall_ms, writer_tag, chain)
    checksum = blake3(prefix + fields).update(body).digest()
    crc = zlib.crc32(checksum, zlib.crc32(fields, zlib.crc32(prefix)))
    return b"".join((prefix, _CRC.pack(crc), fields, checksum, body))


def record_checksum(record: bytes) -> Checksum:
    """The checksum inside an encoded record of this version."""
    return Checksum(record[_CHECKSUM_START:HEADER_BYTES])


def decode_header(data: bytes, offset: int = 0) -> Header:
    """The header at `offset`. Raises InvalidRecord, and UnsupportedFormat for a sound header of a newer version."""
    if len(data) - offset < HEADER_BYTES or data[offset : offset + 4] != MAGIC:
        raise InvalidRecord("no record header")
    _, version, header_bytes, flags = _PREFIX.unpack_from(data, offset)
    if not HEADER_BYTES <= header_bytes <= min(MAX_HEADER_BYTES, len(data) - offset):
        raise InvalidRecord("impossible header length")
    header = data[offset : offset + header_bytes]
    crc = zlib.crc32(header[_FIELDS_START:], zlib.crc32(header[: _PREFIX.size]))
    if crc != _CRC.unpack_from(header, _PREFIX.size)[0]:
        raise InvalidRecord("header does not match its CRC")
    if version != VERSION or flags & INCOMPATIBLE_FLAGS:
        raise UnsupportedFormat(f"journal record of version {version}, flags {flags:#x}: use a newer program")
    store, sequence, functions, body, wall, writer, chain = _FIELDS.unpack_from(header, _FIELDS_START)
    if functions == 0 or body > MAX_BODY_BYTES:
        raise InvalidRecord("impossible counts")
    checksum = Checksum(header[_CHECKSUM_START:HEADER_BYTES])
    return Header(
        header_bytes, flags, store, sequence, functions, body, wall, writer, Checksum(chain), checksum
    )


def decode_record(data: bytes) -> Record:
    """The record that is exactly `data`. Raises InvalidRecord, UnsupportedFormat."""
    header = decode_header(data)
    if len(data) != header.record_bytes:
        raise InvalidRecord("record and its length differ")
    hashed = blake3(data[: _PREFIX.size]).update(data[_FIELDS_START:_CHECKSUM_START])
    if hashed.update(memoryview(data)[HEADER_BYTES:]).digest() != header.checksum:
        raise InvalidRecord("record does not match its checksum")
    try:
        return Record(header, _decode_body(data[header.header_bytes :], header.function_count))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise InvalidRecord("record body is malformed") from error


def _encode_body(functions: Sequence[Mapping[tuple[str, bytes], bytes | None]]) -> bytes:
    tables: dict[str, int] = {}
    parts: list[bytes] = []
    for mutations in functions:
        parts.append(_FUNCTION.pack(len(mutations)))
        for (table, key), value in mutations.items():
            number = tables.setdefault(table, len(tables))
            if value is None:
                parts += (_MUTATION.pack(number, _DELETE, len(key), 0), key)
            else:
                parts += (_MUTATION.pack(number, _PUT, len(key), len(value)), key, value)
    names = [name.encode("ascii") for name in tables]
    dictionary = b"".join(bytes([len(name)]) + name for name in names)
    return b"".join((bytes([len(names)]), dictionary, *parts))


def _decode_body(body: bytes, function_count: int) -> tuple[Mutations, ...]:
    tables: list[str] = []
    at = 1
    for _ in range(body[0]):
        length = body[at]
        tables.append(body[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    functions = []
    for _ in range(function_count):
        mutations, at = _decode_function(body, at, tables)
        functions.append(mutations)
    if at != len(body):
        raise InvalidRecord("record body is malformed")
    return tuple(functions)


def _decode_function(body: bytes, at: int, tables: Sequence[str]) -> tuple[Mutations, int]:
    (count,) = _FUNCTION.unpack_from(body, at)
    at += _FUNCTION.size
    mutations: Mutations = {}
    for _ in range(count):
        table, kind, key_bytes, value_bytes = _MUTATION.unpack_from(body, at)
        at += _MUTATION.size
        end = at + key_bytes + value_bytes
        if kind > _PUT or (kind == _DELETE and value_bytes) or end > len(body):
            raise InvalidRecord("record body is malformed")
        if not 1 <= key_bytes <= MAX_KEY_BYTES:
            raise InvalidRecord("record body is malformed")
        key = body[at : at + key_bytes]
        mutations[tables[table], key] = body[at + key_bytes : end] if kind == _PUT else None
        at = end
    return mutations, at
