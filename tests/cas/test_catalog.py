"""Rows come back as they were put; publishing keeps the rules of the catalog."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.catalog import (
    PACKS,
    PLACEMENTS,
    TABLES,
    CondemnedCache,
    PackProgress,
    PackRow,
    PackState,
    condemn,
    decode_placement,
    forget_pack,
    frame_of,
    get_pack,
    has_bases,
    iterate_packs,
    pack_key,
    pack_of,
    placement_rows,
    read_condemned,
    read_epoch,
    statistics,
)
from cas.errors import CorruptRow, PackGone, UnsupportedFormat
from cas.frame import Codec
from cas.pack import PackKind
from cas.publishing import publish
from index.memory_kv import MemoryKv

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
rows = st.builds(
    PackRow,
    st.sampled_from(PackState),
    st.sampled_from(PackKind),
    u32,
    u64,
    st.booleans(),
    st.booleans(),
    *[u64] * 3,
    *[u32] * 2,
    u64,
    u32,
    u64,
)


def step(
    pack: int, length: int = 1000, *, state: PackState = PackState.OPEN, has_row: bool = False
) -> PackProgress:
    return PackProgress(
        pack, PackKind.DATA, 0, state, False, length, length // 100, length // 10, length, has_row
    )


def row(pack: int, length: int = 10) -> bytes:
    return placement_rows(pack, 92, Codec.RAW, 84, length, [length], 0)[0]


def chunk(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def kv() -> MemoryKv:
    return MemoryKv(TABLES)


def put(kv: MemoryKv, placements: dict[bytes, bytes], relied=(), progress=()) -> None:
    kv.commit(lambda txn: publish(txn, placements, relied, progress))


def placed(kv: MemoryKv, pack: int) -> tuple[int, int] | None:
    with kv.snapshot() as reader:
        found = get_pack(reader, pack)
    return None if found is None else (found.placed_chunks, found.placed_bytes)


@given(rows)
def test_pack_row_comes_back(wanted: PackRow):
    assert PackRow.decode(b"", wanted.encode()) == wanted
    assert PackRow.decode(b"", wanted.encode() + b"a newer field") == wanted


def test_bytes_of_rows_are_pinned():
    """As FORMAT.md lays them out."""
    assert placement_rows(0x0102030405060708, 92, Codec.RAW, 84, 3000, [5, 6], 7)[1].hex() == (
        "12" "0102030405060708" "0000005c" "0015" "00000bb8" "00000005" "00000006" "00000008"
    )  # fmt: skip
    row = PackRow(PackState.SEALED, PackKind.NODE, 1, 2, True, True, 3, 4, 5, 6, 7, 8, 9, 10)
    assert row.encode().hex() == (
        "01020203" "00000001" "00000000" "0000000000000002" "0000000000000003" "0000000000000004" "0000000000000005"
        "00000006" "00000007" "00000009" "0000000000000008" "000000000000000a"
    )  # fmt: skip


def test_unknown_pack_row_is_refused():
    data = bytearray(PackRow(PackState.OPEN, PackKind.DATA, 0, 0).encode())
    for position, value in ((0, 2), (1, 9), (2, 9), (3, 0x80)):
        changed = bytes(data[:position]) + bytes([value]) + bytes(data[position + 1 :])
        with pytest.raises(UnsupportedFormat):
            PackRow.decode(b"", changed)
    with pytest.raises(CorruptRow):
        PackRow.decode(b"", bytes(data[:-1]))


@given(
    u64,
    u32,
    st.sampled_from(Codec),
    st.integers(1, 65535),
    u32,
    st.lists(st.integers(1, 1 << 20), max_size=9),
    st.integers(0, 2**20),
    st.booleans(),
)
def test_placements_come_back(pack, frame, codec, words, stored, lengths, ordinal, based):
    inside = 0
    based = based and codec == Codec.ZSTD
    rows = placement_rows(pack, frame, codec, words * 4, stored, lengths, ordinal, based)
    for number, data in enumerate(rows):
        found = decode_placement(b"", data)
        assert (has_bases(data), frame_of(data)) == (based, (pack, frame))
        assert found == (
            codec == Codec.RAW,
            based,
            pack,
            frame,
            words * 4,
            stored,
            inside,
            lengths[number],
            ordinal + number,
        )
        assert pack_of(data) == pack
        inside += lengths[number]


def test_unknown_placement_is_refused():
    data = row(1)
    with pytest.raises(CorruptRow):
        decode_placement(b"", data[:-1])
    for first in (0x13, 0x14, 0x20):
        with pytest.raises(UnsupportedFormat):
            decode_placement(b"", bytes([first]) + data[1:])


def test_published_chunks_are_placed_and_counted(kv: MemoryKv):
    put(kv, {chunk(1): row(7), chunk(2): row(7, 20)}, progress=[step(7)])
    with kv.snapshot() as reader:
        assert reader.get(PLACEMENTS, chunk(2)) == row(7, 20)
        found = get_pack(reader, 7)
        assert statistics(reader) == type(statistics(reader))(
            chunks=2, unique_bytes=30, pack_bytes=1000, packs=1
        )
    assert found == PackRow(
        PackState.OPEN,
        PackKind.DATA,
        0,
        1000,
        frames=10,
        chunks=100,
        raw_bytes=1000,
        placed_chunks=2,
        placed_bytes=30,
    )


def test_first_placement_stays(kv: MemoryKv):
    put(kv, {chunk(1): row(7)}, progress=[step(7)])
    put(kv, {chunk(1): row(8), chunk(2): row(8)}, progress=[step(8)])
    with kv.snapshot() as reader:
        assert reader.get(PLACEMENTS, chunk(1)) == row(7)
    assert placed(kv, 7) == (1, 10)
    assert placed(kv, 8) == (1, 10)


def test_publishing_twice_changes_nothing(kv: MemoryKv):
    for _ in range(2):
        put(kv, {chunk(1): row(7)}, progress=[step(7)])
    assert placed(kv, 7) == (1, 10)


def test_progress_never_goes_back(kv: MemoryKv):
    put(kv, {}, progress=[step(7, 2000, state=PackState.SEALED)])
    put(kv, {}, progress=[step(7, 1000)])
    with kv.snapshot() as reader:
        found = get_pack(reader, 7)
    assert found is not None
    assert (found.state, found.length, found.frames) == (PackState.SEALED, 2000, 20)


def test_pack_relied_upon_must_have_a_row(kv: MemoryKv):
    put(kv, {}, progress=[step(7)])
    put(kv, {}, relied=[7])
    with pytest.raises(PackGone) as caught:
        put(kv, {chunk(1): row(7)}, relied=[7, 8], progress=[step(7)])
    assert caught.value.pack == 8
    assert placed(kv, 7) == (0, 0)


def test_own_pack_whose_row_was_there_is_not_made_anew(kv: MemoryKv):
    with pytest.raises(PackGone):
        put(kv, {}, progress=[step(7, has_row=True)])


def test_placement_into_a_pack_without_a_row_fails(kv: MemoryKv):
    with pytest.raises(PackGone):
        put(kv, {chunk(1): row(7)})


def test_only_sealed_packs_are_condemned(kv: MemoryKv):
    put(kv, {}, progress=[step(1), step(2, state=PackState.SEALED)])
    assert kv.commit(lambda txn: condemn(txn, [1, 2, 3])) == 1
    with kv.snapshot() as reader:
        assert read_epoch(reader) == 1
        assert read_condemned(reader) == {2}
        states = {pack: found.state for pack, found in iterate_packs(reader)}
    assert states == {1: PackState.OPEN, 2: PackState.CONDEMNED}


def test_new_copy_overrides_a_placement_in_a_condemned_pack(kv: MemoryKv):
    put(kv, {chunk(1): row(7), chunk(2): row(7)}, progress=[step(7, state=PackState.SEALED)])
    kv.commit(lambda txn: condemn(txn, [7]))
    put(kv, {chunk(1): row(8, 11)}, progress=[step(8)])
    with kv.snapshot() as reader:
        assert reader.get(PLACEMENTS, chunk(1)) == row(8, 11)
        assert reader.get(PLACEMENTS, chunk(2)) == row(7)
    assert placed(kv, 7) == (1, 10)
    assert placed(kv, 8) == (1, 11)


def test_condemned_packs_stay_condemned_when_their_writer_is_late(kv: MemoryKv):
    put(kv, {}, progress=[step(7, state=PackState.SEALED)])
    kv.commit(lambda txn: condemn(txn, [7]))
    put(kv, {}, progress=[step(7, state=PackState.SEALED, has_row=True)])
    with kv.snapshot() as reader:
        found = get_pack(reader, 7)
    assert found is not None
    assert found.state == PackState.CONDEMNED


def test_forgotten_pack_is_gone(kv: MemoryKv):
    put(kv, {}, progress=[step(7, state=PackState.SEALED)])
    kv.commit(lambda txn: condemn(txn, [7]))
    kv.commit(lambda txn: forget_pack(txn, 7))
    with kv.snapshot() as reader:
        assert get_pack(reader, 7) is None
        assert read_condemned(reader) == set()
        assert read_epoch(reader) == 1


def test_condemned_packs_are_read_once_per_epoch(kv: MemoryKv):
    cache = CondemnedCache()
    put(kv, {}, progress=[step(7, state=PackState.SEALED), step(8, state=PackState.SEALED)])

    def known() -> frozenset[int]:
        with kv.snapshot() as reader:
            return cache.get(reader)

    assert known() == set()
    kv.commit(lambda txn: condemn(txn, [7]))
    assert known() == {7}
    kv.commit(lambda txn: txn.delete("cas.state", b"condemned/" + pack_key(7)))  # no new epoch: not looked at
    assert known() == {7}
    kv.commit(lambda txn: condemn(txn, [8]))
    assert known() == {8}


def test_touching_is_remembered_by_epoch(kv: MemoryKv):
    put(kv, {chunk(1): row(7)}, progress=[step(7)])
    kv.commit(lambda txn: condemn(txn, []))
    put(kv, {chunk(1): row(7)}, progress=[step(7)])
    with kv.snapshot() as reader:
        assert replace(get_pack(reader, 7)).touched_epoch == 0
    put(kv, {chunk(2): row(7)}, progress=[step(7)])
    with kv.snapshot() as reader:
        found = get_pack(reader, 7)
    assert (found.created_epoch, found.touched_epoch) == (0, 1)


def test_packs_of_one_writer_are_found(kv: MemoryKv):
    packs = [1 << 32 | 5, 2 << 32 | 1, 2 << 32 | 9, 3 << 32 | 1, 0xFFFFFFFF << 32 | 1]
    put(kv, {}, progress=[step(pack) for pack in packs])
    with kv.snapshot() as reader:
        assert [pack for pack, _ in iterate_packs(reader, 2)] == packs[1:3]
        assert [pack for pack, _ in iterate_packs(reader, 0xFFFFFFFF)] == packs[4:]
        assert [key for key, _ in reader.scan(PACKS)] == [pack_key(pack) for pack in packs]


def test_nodes_count_as_stored_but_not_as_unique(kv: MemoryKv):
    put(kv, {chunk(1): row(7)}, progress=[replace(step(7), kind=PackKind.NODE)])
    with kv.snapshot() as reader:
        found = statistics(reader)
    assert (found.chunks, found.unique_bytes, found.pack_bytes, found.packs) == (0, 0, 1000, 1)
