"""Frames come back as they were made, or not at all."""

from __future__ import annotations

import struct

import pytest
import zstandard
from awscrt.checksums import crc64nvme
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.chunk import MAX_RAW_BYTES
from cas.errors import CorruptFrame, UnsupportedFormat
from cas.frame import (
    CHECKSUM,
    HEAD,
    MAX_CHUNKS,
    Codec,
    decode_frame,
    decode_header,
    decompress,
    encode_frame,
    header_length,
)
from tests.cas.support import noise


def frame_bytes(chunks: list[bytes]) -> bytes:
    frame = encode_frame([bytes([number % 256]) * 32 for number in range(len(chunks))], chunks)
    return b"".join([frame.header, *frame.payload])


def with_checksum(header: bytes) -> bytes:
    body = header[: -CHECKSUM.size]
    return body + CHECKSUM.pack(crc64nvme(body))


chunk_lists = st.lists(
    st.one_of(st.binary(min_size=1, max_size=200), st.builds(lambda n: b"ab" * n, st.integers(1, 3000))),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)
@given(chunk_lists)
def test_frame_comes_back(chunks: list[bytes]):
    header, raw = decode_frame(frame_bytes(chunks))
    assert bytes(raw) == b"".join(chunks)
    assert list(header.lengths) == [len(chunk) for chunk in chunks]
    assert header.ids[0] == bytes(32)


@pytest.mark.parametrize("chunks", [[b"text " * 100, b"x"], [noise(70), noise(9, 1)]], ids=["zstd", "raw"])
def test_every_flipped_byte_is_noticed(chunks: list[bytes]):
    whole = frame_bytes(chunks)
    for position in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            with pytest.raises(CorruptFrame):
                decode_frame(bytes(damaged))


def test_every_truncation_is_noticed():
    whole = frame_bytes([b"text " * 50])
    for length in range(len(whole)):
        with pytest.raises(CorruptFrame):
            decode_frame(whole[:length])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_else(data: bytes):
    for candidate in (data, b"VtFr" + data):
        with pytest.raises(CorruptFrame):
            decode_frame(candidate)


@settings(deadline=None)
@given(st.binary(min_size=28, max_size=28), st.binary(max_size=120))
def test_well_summed_nonsense_raises_nothing_else(head: bytes, rest: bytes):
    header = bytearray(b"VtFr" + head + rest + bytes(16 + (-len(rest)) % 4))
    header[8:12] = struct.pack(">I", len(header))
    with pytest.raises((CorruptFrame, UnsupportedFormat)):
        decode_header(with_checksum(bytes(header)))


def test_noise_is_stored_as_it_is_without_a_copy():
    chunk = noise(100_000)
    frame = encode_frame([bytes(32)], [chunk])
    assert frame.codec == Codec.RAW
    assert frame.payload[0] is chunk


def test_text_is_compressed():
    frame = encode_frame([bytes(32)], [b"some text, some more text\n" * 5000])
    assert frame.codec == Codec.ZSTD
    assert frame.stored_length < 1000


def test_frame_with_some_text_among_noise_is_compressed():
    frame = encode_frame(
        [bytes(32)] * 4, [noise(40_000), b"text " * 8000, noise(40_000, 1), noise(40_000, 2)]
    )
    assert frame.codec == Codec.ZSTD


def test_frame_of_many_chunks_fits_its_header():
    frame = encode_frame([bytes(32)] * MAX_CHUNKS, [b"x"] * MAX_CHUNKS)
    assert len(decode_header(frame.header).ids) == MAX_CHUNKS
    with pytest.raises(ValueError, match="out of bounds"):
        encode_frame([bytes(32)] * (MAX_CHUNKS + 1), [b"x"] * (MAX_CHUNKS + 1))


def patched(header: bytes, offset: int, value: bytes) -> bytes:
    return with_checksum(header[:offset] + value + header[offset + len(value) :])


def test_unknown_version_codec_or_incompatible_flag_is_refused():
    header = encode_frame([bytes(32)], [b"abc"]).header
    for offset, value in ((4, b"\x02"), (5, b"\x07"), (12, b"\x00\x00\x00\x01")):
        with pytest.raises(UnsupportedFormat):
            decode_header(patched(header, offset, value))


def test_unknown_compatible_flag_and_longer_header_are_skipped():
    header = encode_frame([bytes(32)], [b"abc"]).header
    longer = bytearray(header[:-16] + b"news" + header[-16:])
    longer[8:12] = struct.pack(">I", len(longer))
    longer[12:16] = b"\x80\x00\x00\x00"
    assert decode_header(with_checksum(bytes(longer))).lengths == (3,)


def test_base_ids_have_their_place():
    header = encode_frame([bytes(32)], [b"abc"]).header
    based = bytearray(header[:-16] + b"B" * 32 + header[-16:])
    based[8:12] = struct.pack(">I", len(based))
    based[28:32] = struct.pack(">I", 1)
    based[5] = Codec.ZSTD
    assert decode_header(with_checksum(bytes(based))).bases == (b"B" * 32,)


def test_lengths_are_checked_before_they_are_believed():
    header = encode_frame([bytes(32)], [b"abc"]).header
    for offset in (16, 20, 24, 28):
        with pytest.raises(CorruptFrame):
            decode_header(patched(header, offset, b"\xff\xff\xff\xff"))
    with pytest.raises(CorruptFrame):
        header_length(HEAD.pack(b"VtFr", 1, 0, 0, 0xFFFFFFFC, 0, 1, 1, 1, 0))


def test_payload_that_claims_too_much_is_refused_before_it_is_decoded():
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(MAX_RAW_BYTES + 1))
    assert len(bomb) < 10_000
    with pytest.raises(CorruptFrame, match="claims"):
        decompress(bomb)
    with pytest.raises(CorruptFrame):
        decompress(zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"))
    with pytest.raises(CorruptFrame):
        decompress(zstandard.ZstdCompressor().compress(b"abc") + b"more")
