"""The journal's bytes and its segment files."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.fileops import FileOps
from index.journal import (
    HEADER_BYTES,
    NO_RECORD,
    ORIGIN,
    InvalidRecord,
    Position,
    decode_header,
    decode_record,
    encode_record,
    record_checksum,
)
from index.kv import CorruptJournal, MapFull, UnsupportedFormat
from index.segments import (
    JournalReader,
    NoRoom,
    SegmentWriter,
    SyncFailed,
    find_record,
    list_segments,
    read_record,
    segment_path,
)
from tests.index.engine import STORE_ID, FaultyFiles

if TYPE_CHECKING:
    from pathlib import Path

    from index.journal import Mutations

GOLDEN = bytes.fromhex(
    "566c744a" "0001" "0088" "00000000" "32116d64"  # magic, version, header length, flags, CRC
    "000102030405060708090a0b0c0d0e0f"  # store id
    "0000000000000007" "00000002" "00000037" "0000018bcfe56800"  # sequence, functions, body length, wall time
    "77777777777777777777777777777777"  # writer tag
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"  # chain
    "eae384d690bb6ec6f8dddf5c9677ccf70acc7ce0285d3ed04708ffbf2192a745"  # checksum
    "02" "09" "6964782e6e616d6573" "0a" "6361732e6368756e6b73"  # idx.names, cas.chunks
    "00000002"  # first function: two mutations
    "00" "01" "0003" "00000005" "6b6579" "76616c7565"  # idx.names: put key = value
    "01" "00" "0001" "00000000" "00"  # cas.chunks: delete 00
    "00000000"  # second function: none
)  # fmt: skip


def record(functions: list[Mutations], *, at: Position = ORIGIN, store_id: bytes = STORE_ID) -> bytes:
    return encode_record(
        functions,
        store_id=store_id,
        first_sequence=at.sequence + 1,
        wall_ms=1_700_000_000_000,
        writer_tag=b"w" * 16,
        chain=at.chain,
    )


def after(at: Position, data: bytes, functions: int = 1) -> Position:
    return Position(at.sequence + functions, at.segment, at.offset + len(data), record_checksum(data))


ROWS = st.tuples(
    st.sampled_from(["idx.names", "cas.chunks", "srv.keys"]), st.binary(min_size=1, max_size=511)
)
FUNCTIONS = st.lists(
    st.dictionaries(ROWS, st.none() | st.binary(max_size=40), max_size=4), min_size=1, max_size=4
)


# The codec


def test_record_has_the_documented_bytes():
    functions = [{("idx.names", b"key"): b"value", ("cas.chunks", b"\0"): None}, {}]
    encoded = encode_record(
        functions,
        store_id=STORE_ID,
        first_sequence=7,
        wall_ms=1_700_000_000_000,
        writer_tag=b"w" * 16,
        chain=bytes(range(32)),
    )
    assert encoded == GOLDEN
    assert list(decode_record(GOLDEN).functions) == functions


@given(functions=FUNCTIONS)
@settings(deadline=None)
def test_what_decodes_is_what_was_encoded(functions):
    data = record(functions)
    decoded = decode_record(data)
    assert list(decoded.functions) == functions
    assert decoded.header.first_sequence == 1
    assert decoded.last_sequence == len(functions)
    assert decoded.header.record_bytes == len(data)
    assert decoded.header.checksum == record_checksum(data)
    assert decoded.follows(ORIGIN)


def test_every_flipped_bit_is_noticed():
    for position in range(len(GOLDEN) * 8):
        damaged = bytearray(GOLDEN)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(InvalidRecord):
            decode_record(bytes(damaged))


def test_every_truncation_is_noticed():
    for length in range(len(GOLDEN)):
        with pytest.raises(InvalidRecord):
            decode_record(GOLDEN[:length])


@given(data=st.binary(max_size=300))
@settings(deadline=None)
def test_arbitrary_bytes_are_no_record(data):
    with pytest.raises(InvalidRecord):
        decode_record(data)
    with pytest.raises(InvalidRecord):
        decode_header(b"VltJ" + data)


def with_header(field_offset: int, field: bytes) -> bytes:
    """The golden header with one field changed and its CRC made right again."""
    header = bytearray(GOLDEN[:HEADER_BYTES])
    header[field_offset : field_offset + len(field)] = field
    header[12:16] = struct.pack(">I", zlib.crc32(header[16:], zlib.crc32(header[:12])))
    return bytes(header) + GOLDEN[HEADER_BYTES:]


@pytest.mark.parametrize(
    ("field_offset", "field"), [(4, b"\0\2"), (8, b"\0\0\0\1")], ids=["version", "incompatible flag"]
)
def test_newer_record_is_refused_not_guessed_at(field_offset, field):
    with pytest.raises(UnsupportedFormat):
        decode_record(with_header(field_offset, field))


def test_unknown_compatible_flag_is_skipped():
    assert decode_header(with_header(8, b"\0\1\0\0")).flags == 1 << 16


# Segment files


def make_writer(folder: Path, files: FileOps | None = None, segment_bytes: int = 1 << 16) -> SegmentWriter:
    segment_path(folder, 1).touch()
    return SegmentWriter(folder, files or FileOps(), segment_bytes=segment_bytes, zero_ahead_bytes=4096)


def write_records(folder: Path, count: int, *, segment_bytes: int = 1 << 16) -> list[Position]:
    """`count` records of one function; the positions before each and after the last."""
    writer = make_writer(folder, segment_bytes=segment_bytes)
    positions = [ORIGIN]
    for number in range(count):
        at = positions[-1]
        if writer.is_full(at):
            at = writer.rotate(at)
        data = record([{("idx.names", b"%d" % number): b"x" * 50}], at=at)
        writer.append(at, data)
        positions.append(after(at, data))
    writer.close()
    return positions


def read_all(folder: Path, start: Position = ORIGIN) -> tuple[list[int], Position]:
    """Sequences read, and the position at the end; the tail was checked."""
    reader = JournalReader(folder, STORE_ID, start, FileOps())
    try:
        found = [found.header.first_sequence for found, _ in reader]
        reader.check_tail()
        return found, reader.position
    finally:
        reader.close()


def test_records_are_read_in_order_across_segments(tmp_path):
    positions = write_records(tmp_path, 10, segment_bytes=600)
    assert len(list_segments(tmp_path)) > 2
    assert read_all(tmp_path) == (list(range(1, 11)), positions[-1])
    assert read_all(tmp_path, positions[4])[0] == list(range(5, 11))


def test_length_changes_once_per_zero_ahead(tmp_path):
    writer, at, lengths = make_writer(tmp_path), ORIGIN, set()
    for number in range(30):
        data = record([{("idx.names", b"%d" % number): b"x" * 50}], at=at)
        writer.append(at, data)
        at = after(at, data)
        lengths.add(segment_path(tmp_path, 1).stat().st_size)
    writer.close()
    assert len(lengths) == 2
    assert at.offset < max(lengths) <= at.offset + 4096


def test_sealed_segment_ends_with_its_last_record(tmp_path):
    positions = write_records(tmp_path, 4, segment_bytes=600)
    first, second = list_segments(tmp_path)[:2]
    assert segment_path(tmp_path, first).stat().st_size == positions[second - 1].offset


def test_rotation_empties_what_a_dead_process_left_in_the_new_segment(tmp_path):
    writer = make_writer(tmp_path)
    data = record([{}])
    writer.append(ORIGIN, data)
    at = after(ORIGIN, data)
    leftover = record([{("idx.names", b"ghost"): b"1"}], at=at)
    segment_path(tmp_path, 2).write_bytes(leftover)
    assert writer.rotate(at) == Position(1, 2, 0, at.chain)
    writer.close()
    assert segment_path(tmp_path, 2).read_bytes() == b""


def test_rotation_of_an_empty_segment_is_that_segment(tmp_path):
    writer = make_writer(tmp_path)
    assert writer.rotate(ORIGIN) == ORIGIN
    writer.close()
    assert list_segments(tmp_path) == [1]


def test_record_of_a_dead_process_is_overwritten_by_the_next(tmp_path):
    writer = make_writer(tmp_path)
    writer.append(ORIGIN, record([{("idx.names", b"ghost"): b"x" * 500}]))
    data = record([{("idx.names", b"real"): b"x"}])
    writer.append(ORIGIN, data)
    writer.close()
    reader = JournalReader(tmp_path, STORE_ID, ORIGIN, FileOps())
    (found, _), *more = list(reader)
    reader.check_tail()
    reader.cut_tail()
    reader.close()
    assert found.functions == ({("idx.names", b"real"): b"x"},)
    assert not more
    assert segment_path(tmp_path, 1).stat().st_size == len(data)


def test_every_torn_last_record_is_a_torn_tail(tmp_path):
    positions = write_records(tmp_path, 3)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()[: positions[-1].offset]
    for length in range(positions[-2].offset, positions[-1].offset):
        path.write_bytes(whole[:length] + bytes(100))
        assert read_all(tmp_path) == ([1, 2], positions[-2])


@pytest.mark.parametrize("number", [0, 1])
def test_every_damaged_byte_before_the_last_record_is_corruption(tmp_path, number):
    positions = write_records(tmp_path, 3)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for offset in range(positions[number].offset, positions[number + 1].offset):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(CorruptJournal, match="nothing was cut"):
            read_all(tmp_path)
        assert path.read_bytes() == damaged


def test_damaged_end_of_a_segment_is_corruption_if_another_segment_follows(tmp_path):
    positions = write_records(tmp_path, 10, segment_bytes=600)
    second = list_segments(tmp_path)[1]
    path = segment_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptJournal):
        read_all(tmp_path)
    assert positions[second - 1].segment == 1


def test_missing_segment_is_corruption(tmp_path):
    write_records(tmp_path, 10, segment_bytes=600)
    segment_path(tmp_path, list_segments(tmp_path)[1]).unlink()
    with pytest.raises(CorruptJournal, match="comes after it"):
        read_all(tmp_path)


def test_segment_shorter_than_the_applied_position_is_corruption(tmp_path):
    positions = write_records(tmp_path, 2)
    os.truncate(segment_path(tmp_path, 1), positions[1].offset)
    with pytest.raises(CorruptJournal, match="shorter"):
        read_all(tmp_path, positions[2])


def test_record_that_does_not_continue_the_chain_is_corruption(tmp_path):
    positions = write_records(tmp_path, 2)
    with pytest.raises(CorruptJournal, match="a whole record follows"):
        read_all(tmp_path, Position(1, 1, positions[1].offset, NO_RECORD))


def test_record_of_another_store_does_not_count(tmp_path):
    write_records(tmp_path, 1)
    foreign = record([{}], store_id=b"x" * 16)
    path = segment_path(tmp_path, 1)
    path.write_bytes(foreign + path.read_bytes().rstrip(b"\0")[:20] + foreign)
    assert read_all(tmp_path) == ([], ORIGIN)


def test_copy_of_a_record_inside_a_value_is_not_taken_for_one(tmp_path):
    """A client that stores bytes that look like records: only one with the store's id could mislead recovery."""
    path = segment_path(tmp_path, 1)
    inner = record([{("idx.names", b"k"): b"v"}], store_id=b"x" * 16) * 5
    path.write_bytes(record([{("idx.names", b"k"): inner}])[:-1])
    assert read_all(tmp_path) == ([], ORIGIN)


def test_record_is_found_across_a_block_border(tmp_path):
    data = record([{("idx.names", b"k"): b"v"}], at=Position(8, 1, 0, NO_RECORD))
    path = tmp_path / "file"
    for offset in ((1 << 20) - 10, (1 << 20) + 4090, 1 << 20, 3):
        path.write_bytes(bytes(offset) + data)
        fd = os.open(path, os.O_RDONLY)
        try:
            assert find_record(fd, 0, STORE_ID, 9) == offset
            assert find_record(fd, 0, STORE_ID, 10) is None
            assert find_record(fd, offset + 1, STORE_ID, 9) is None
        finally:
            os.close(fd)


def test_record_longer_than_the_read_window_is_read(tmp_path):
    data = record([{("idx.names", b"k"): bytes(300_000)}])
    path = tmp_path / "file"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = read_record(fd, 0, STORE_ID)
    finally:
        os.close(fd)
    assert found is not None
    assert found.header.record_bytes == len(data)


# A failing disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_told_apart_and_its_record_can_be_erased(tmp_path, code):
    writer = make_writer(tmp_path, FaultyFiles(1, code, only=("pwrite",)))
    data = record([{}])
    with pytest.raises(NoRoom):
        writer.append(ORIGIN, data)
    writer.erase(ORIGIN, len(data))
    writer.close()
    assert segment_path(tmp_path, 1).read_bytes().strip(b"\0") == b""


def test_full_disk_while_writing_zeros_ahead_is_no_failure(tmp_path):
    writer = make_writer(tmp_path, FaultyFiles(2, errno.ENOSPC, only=("pwrite",)))
    writer.append(ORIGIN, record([{}]))
    writer.close()
    assert read_all(tmp_path)[0] == [1]


@pytest.mark.parametrize("effect", ["pwrite", "sync"])
def test_input_output_error_is_a_failed_sync(tmp_path, effect):
    writer = make_writer(tmp_path, FaultyFiles(1, errno.EIO, only=(effect,)))
    with pytest.raises(SyncFailed):
        writer.append(ORIGIN, record([{}]))
    writer.close()


def test_segment_that_cannot_be_opened_is_no_reason_for_distrust(tmp_path):
    writer = make_writer(tmp_path, FaultyFiles(1, errno.ENOSPC, only=("open",)))
    with pytest.raises(MapFull):
        writer.append(ORIGIN, record([{}]))
    writer.close()
