"""A pack explains itself: by its footer, frame by frame without one, and it never hides damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from cas.catalog import decode_placement, frame_placements
from cas.chunk import Hasher, Identity
from cas.errors import CorruptFrame, CorruptPack, UnsupportedFormat
from cas.frame import Codec, decode_frame, encode_frame
from cas.pack import PackHeader, PackKind, encode_footer, read_contents, scan_contents
from tests.cas.support import SMALL, noise

GOLDEN = Path(__file__).parent / "golden" / "pack-v1.hex"
PACK = 0x0000000100000001
CHUNKS = [[b"text, text, text, " * 20, b"more text"], [noise(90)], [b"x"]]


def build(identity: Identity = SMALL) -> tuple[bytes, bytes]:
    """(header and frames, footer and trailer)."""
    hasher = Hasher(identity.hash_key)
    body = PackHeader.of(identity, PACK, PackKind.DATA).encode()
    headers = []
    for chunks in CHUNKS:
        frame = encode_frame(hasher.chunk_ids(chunks), chunks)
        headers.append((len(body), frame.header))
        body += b"".join([frame.header, *frame.payload])
    return body, encode_footer(len(body), headers)


BODY, FOOTER = build()


def reader(data: bytes):
    return lambda offset, length: data[offset : offset + length]


def frame_ends(data: bytes) -> list[int]:
    return [frame.end for frame in scan_contents(PACK, reader(data)).frames]


def test_footer_and_scan_say_the_same():
    sealed = read_contents(PACK, reader(BODY + FOOTER), len(BODY + FOOTER))
    scanned = scan_contents(PACK, reader(BODY + FOOTER))
    assert sealed.sealed
    assert not scanned.sealed
    assert (sealed.header, sealed.frames, sealed.end) == (scanned.header, scanned.frames, len(BODY))
    assert [frame.ordinal for frame in sealed.frames] == [0, 2, 3]


def test_footer_is_enough_without_the_frames():
    data = BODY + FOOTER
    read: list[tuple[int, int]] = []

    def remember(offset: int, length: int) -> bytes:
        read.append((offset, length))
        return data[offset : offset + length]

    read_contents(PACK, remember, len(data))
    assert len(read) == 3  # trailer, footer, header


def test_torn_tail_at_every_byte_keeps_every_whole_frame():
    ends = frame_ends(BODY)
    first = scan_contents(PACK, reader(BODY)).frames[0].offset
    for length in range(first, len(BODY + FOOTER)):
        torn = (BODY + FOOTER)[:length]
        for tail in (b"", bytes(500)):
            contents = read_contents(PACK, reader(torn + tail), length + len(tail))
            assert [frame.end for frame in contents.frames] == [end for end in ends if end <= length]


def test_pack_cut_below_its_durable_length_is_corrupt():
    for length in range(len(BODY)):
        with pytest.raises(CorruptPack):
            scan_contents(PACK, reader(BODY[:length]), durable=len(BODY))


def test_every_flipped_byte_below_the_durable_length_is_corruption():
    for position in range(len(BODY)):
        damaged = bytearray(BODY)
        damaged[position] ^= 0x10
        with pytest.raises(CorruptPack):
            scan_contents(PACK, reader(bytes(damaged)), durable=len(BODY))


def test_damage_behind_the_durable_length_is_a_torn_tail():
    ends = frame_ends(BODY)
    torn = BODY[: ends[0]] + bytes(len(BODY) - ends[0])
    assert len(scan_contents(PACK, reader(torn), durable=ends[0]).frames) == 1


def test_every_flipped_byte_of_footer_and_trailer_falls_back_to_the_frames():
    for position in range(len(FOOTER)):
        damaged = bytearray(BODY + FOOTER)
        damaged[len(BODY) + position] ^= 0x10
        contents = read_contents(PACK, reader(bytes(damaged)), len(damaged))
        assert not contents.sealed
        assert len(contents.frames) == 3


def test_pack_under_another_name_is_corrupt():
    with pytest.raises(CorruptPack, match="it is pack"):
        scan_contents(PACK + 1, reader(BODY))


def test_header_names_store_domain_and_key():
    header, length = PackHeader.decode(BODY)
    assert header == PackHeader(PACK, PackKind.DATA, SMALL.store_id, 0, 0, SMALL.hash_key)
    assert length == 92
    with pytest.raises(CorruptFrame):
        PackHeader.decode(BODY[: length - 1])


def test_newer_pack_is_refused():
    from cas.pack import _with_checksum

    header = bytearray(PackHeader.of(SMALL, PACK, PackKind.DATA).encode())
    header[4] = 2
    with pytest.raises(UnsupportedFormat):
        PackHeader.decode(_with_checksum(bytes(header[:-8])))


def test_placements_are_found_in_the_pack_alone():
    hasher = Hasher(SMALL.hash_key)
    contents = scan_contents(PACK, reader(BODY))
    rows = {chunk: row for frame in contents.frames for chunk, row in frame_placements(PACK, frame).items()}
    for number, chunk in enumerate(chunk for chunks in CHUNKS for chunk in chunks):
        placement = decode_placement(hasher.chunk_id(chunk), rows[hasher.chunk_id(chunk)])
        frame = BODY[placement.frame : placement.frame_end]
        _, raw = decode_frame(frame)
        assert bytes(raw[placement.inside : placement.inside + placement.length]) == chunk
        assert placement.ordinal == number


def test_golden_pack_stays_readable():
    data = bytes.fromhex("".join(GOLDEN.read_text().split()))
    contents = read_contents(PACK, reader(data), len(data))
    assert contents.sealed
    assert contents.frames == scan_contents(PACK, reader(data)).frames
    hasher = Hasher(contents.header.key)
    for frame, chunks in zip(contents.frames, CHUNKS, strict=True):
        header, raw = decode_frame(data[frame.offset : frame.end])
        assert bytes(raw) == b"".join(chunks)
        assert list(header.ids) == hasher.chunk_ids(chunks)
    assert [frame.header.codec for frame in contents.frames] == [Codec.ZSTD, Codec.RAW, Codec.RAW]
