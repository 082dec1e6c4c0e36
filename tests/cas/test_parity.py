"""The bytes of a sidecar: geometry, header, digests; what is damaged in it is seen and goes round by the second copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptFrame, UnsupportedFormat
from cas.parity import (
    HEADER_BYTES,
    MAX_PIECES,
    Geometry,
    decode_header,
    decode_page,
    digest,
    encode_header,
    encode_pages,
    plan_geometry,
)
from cas.protection import build_sidecar, finish

GOLDEN = Path(__file__).parent / "golden"
STORE = b"S" * 16
PACK = 0x0000000100000001


@given(st.integers(1, 1 << 27), st.integers(1, 100))
def test_geometry_covers_the_pack_and_keeps_to_the_percentage(pack_bytes: int, percent: int):
    g = plan_geometry(pack_bytes, percent)
    assert g.data_rows + g.parity_rows <= MAX_PIECES
    assert (g.blocks - 1) * g.block_bytes < pack_bytes <= g.blocks * g.block_bytes
    assert (g.data_rows - 1) * g.groups < g.blocks <= g.data_rows * g.groups
    assert g.parity_rows >= 2 or percent == 1
    # Rounding up costs less than one row of parity, and small packs have two.
    assert g.parity_blocks <= g.blocks * percent / 100 + max(2, 2 * g.groups)


def test_default_costs_about_ten_percent_of_a_full_pack():
    g = plan_geometry(64 << 20, 10)
    assert (g.data_rows, g.parity_rows) == (80, 8)
    assert 0.10 <= g.file_bytes / g.pack_bytes <= 0.11
    assert g.burst_bytes >= 0.09 * g.pack_bytes


@given(st.integers(1, 100_000), st.integers(1, 100))
def test_every_block_has_one_place(pack_bytes: int, percent: int):
    g = plan_geometry(pack_bytes, percent, 64)
    numbers = [number for group in range(g.groups) for number in g.members(group)]
    assert sorted(numbers) == list(range(g.blocks))
    assert all(len(g.members(group)) in (g.data_rows, g.data_rows - 1) for group in range(g.groups))
    ends = [offset + length for offset, length in map(g.block, range(g.blocks))]
    assert ends[-1] == pack_bytes
    assert [0, *ends[:-1]] == [g.block(number)[0] for number in range(g.blocks)]


@given(st.integers(1, 100_000), st.integers(1, 100), st.data())
def test_any_burst_of_the_promised_length_stays_within_the_parity(pack_bytes: int, percent: int, data):
    g = plan_geometry(pack_bytes, percent, 64)
    start = data.draw(st.integers(0, pack_bytes - 1))
    stop = min(pack_bytes, start + g.burst_bytes)
    hit = range(start // g.block_bytes, (stop - 1) // g.block_bytes + 1)
    for group in range(g.groups):
        assert sum(number % g.groups == group for number in hit) <= g.parity_rows


def test_parts_of_the_file_lie_side_by_side():
    g = plan_geometry(50_000, 10, 64)
    at = HEADER_BYTES
    for number in range(g.pages):
        first, _, length = g.page(number)
        assert first == at
        at += length
    for row in range(g.parity_rows):
        for group in range(g.groups):
            assert g.parity_block(row, group) == (at, 64)
            at += 64
    for number in range(g.pages):
        _, second, length = g.page(number)
        assert second == at
        at += length
    assert at + HEADER_BYTES == g.file_bytes


def test_header_comes_back():
    g = plan_geometry(50_000, 10)
    assert decode_header(encode_header(STORE, PACK, g), STORE, PACK) == g


def test_every_flipped_byte_of_header_and_pages_is_seen():
    g = plan_geometry(5_000, 10, 64)
    header = encode_header(STORE, PACK, g)
    for position in range(len(header)):
        damaged = bytearray(header)
        damaged[position] ^= 0x20
        with pytest.raises((CorruptFrame, UnsupportedFormat)):
            decode_header(bytes(damaged), STORE, PACK)
    page = encode_pages(header, [digest(b"%d" % n) for n in range(9)])
    assert decode_page(header, 0, page) == [digest(b"%d" % n) for n in range(9)]
    for position in range(len(page)):
        damaged = bytearray(page)
        damaged[position] ^= 0x20
        with pytest.raises(CorruptFrame):
            decode_page(header, 0, bytes(damaged))


def test_page_of_another_place_or_sidecar_is_refused():
    header = encode_header(STORE, PACK, plan_geometry(5_000, 10, 64))
    page = encode_pages(header, [digest(b"x")])
    with pytest.raises(CorruptFrame):
        decode_page(header, 1, page)
    with pytest.raises(CorruptFrame):
        decode_page(encode_header(STORE, PACK + 1, plan_geometry(5_000, 10, 64)), 0, page)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(0, 4096, 1, 2),
        Geometry(1 << 40, 4096, 1 << 20, 2),
        Geometry(5000, 0, 1, 2),
        Geometry(5000, 100, 1, 2),
        Geometry(5000, 4096, 0, 2),
        Geometry(5000, 4096, 3, 2),
        Geometry(5000, 4096, 1, 0),
        Geometry(300 * 64, 64, 1, 2),
    ],
)
def test_geometry_out_of_bounds_is_refused(geometry: Geometry):
    with pytest.raises(CorruptFrame):
        decode_header(encode_header(STORE, PACK, geometry), STORE, PACK)


@pytest.mark.parametrize(("store", "pack"), [(b"T" * 16, PACK), (STORE, PACK + 1)])
def test_sidecar_of_another_pack_is_refused(store: bytes, pack: int):
    header = encode_header(STORE, PACK, plan_geometry(5_000, 10))
    with pytest.raises(CorruptFrame, match="is of pack"):
        decode_header(header, store, pack)


def test_golden_sidecar_stays_readable():
    """Of the golden pack. If this fails the format has changed: bump the version, and write FORMAT.md anew."""
    pack = bytearray.fromhex((GOLDEN / "pack-v1.hex").read_text())
    made = finish(build_sidecar(STORE, PACK, pack, plan_geometry(len(pack), 10, 256)))
    assert made == bytes.fromhex((GOLDEN / "parity-v1.hex").read_text())
