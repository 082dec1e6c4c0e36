"""Checking one pack: every byte below the durable length counts, and what is damaged is told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cas.catalog import PackState, get_pack, iterate_packs
from cas.chunk import Hasher
from cas.pack import PackKind
from cas.scanning import DeviceFile, PlaceSource
from cas.verify import DamageKind, PackCheck
from cas.verify_catalog import NOTHING, Tally, check_row, tally
from tests.cas.support import SMALL, Rig, noise, words


def filled(*, sealed: bool = True) -> Rig:
    """One pack of data with several frames, raw and compressed."""
    rig = Rig()
    rig.put(noise(300, 1))
    rig.put(words(700, 2))
    rig.put(noise(100, 3))
    if sealed:
        rig.store.close()
    return rig


def check_of(rig: Rig, pack: int | None = None, *, read_data: bool = False) -> PackCheck:
    with rig.kv.snapshot() as reader:
        pack = next(p for p, _ in iterate_packs(reader)) if pack is None else pack
        row = get_pack(reader, pack)
    assert row is not None
    source = PlaceSource(rig.packs, pack)
    return PackCheck(pack, row, rig.identity, source, Hasher(SMALL.hash_key), read_data)


def damage_of(check: PackCheck) -> list[DamageKind]:
    return [damage.kind for step in check.run() for damage in step.damage]


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("read_data", [True, False])
def test_a_whole_pack_is_sound_and_all_of_it_is_read(sealed, read_data):
    rig = filled(sealed=sealed)
    check = check_of(rig, read_data=read_data)
    steps = list(check.run())
    assert check.sound
    assert check.knows_all_frames
    assert sum(step.read_bytes for step in steps) == check.row.length
    assert len(check.frames) == check.row.frames == 3
    with rig.kv.snapshot() as reader:
        damage, placed = check_row(reader, check.pack, check.row, check.frames)
    assert damage == []
    assert {check.pack: placed} == tally(rig.kv, lambda damage: pytest.fail(str(damage)))


@pytest.mark.parametrize("state", ["sealed", "open", "footerless"])
def test_no_byte_below_the_durable_length_can_change_unseen(state):
    rig = filled(sealed=state == "sealed")
    check = check_of(rig)
    if state == "footerless":
        check.row = replace(check.row, state=PackState.SEALED, footerless=True)
    image = rig.packs.volatile[check.pack]
    row = check.row
    for offset in range(row.length):  # about 1,500
        image[offset] ^= 1 << offset % 8
        again = check_of(rig)
        again.row = row
        assert damage_of(again), offset
        assert not again.sound
        image[offset] ^= 1 << offset % 8
    assert damage_of(check) == []


def test_what_lies_behind_the_durable_length_does_not_count():
    rig = filled(sealed=False)
    check = check_of(rig)
    rig.packs.volatile[check.pack] += b"VtFr, the beginning of something"
    assert damage_of(check) == []


def test_two_damaged_frames_are_both_found_without_a_footer_too():
    for sealed in (True, False):
        rig = filled(sealed=sealed)
        check = check_of(rig)
        list(check.run())
        image = rig.packs.volatile[check.pack]
        first, _, last = check.frames
        image[first.offset + first.header.header_length] ^= 1
        image[last.end - 1] ^= 1
        found = [damage for step in check_of(rig).run() for damage in step.damage]
        assert [(d.kind, d.frame) for d in found] == [
            (DamageKind.FRAME_PAYLOAD, first.offset),
            (DamageKind.FRAME_PAYLOAD, last.offset),
        ]


def test_after_a_damaged_header_the_next_frame_is_found_again():
    rig = filled(sealed=False)
    check = check_of(rig)
    list(check.run())
    image = rig.packs.volatile[check.pack]
    second, last = check.frames[1:]
    image[second.offset + 1] ^= 1
    image[last.end - 1] ^= 1
    again = check_of(rig)
    found = [damage for step in again.run() for damage in step.damage]
    assert [(d.kind, d.offset) for d in found] == [
        (DamageKind.FRAME_HEADER, second.offset),
        (DamageKind.FRAME_PAYLOAD, last.offset + last.header.header_length),
    ]
    assert not again.knows_all_frames
    assert [frame.offset for frame in again.frames] == [check.frames[0].offset, last.offset]


def test_without_its_trailer_the_frames_are_walked():
    rig = filled()
    image = rig.packs.volatile[check_of(rig).pack]
    image[-1] ^= 1
    check = check_of(rig)
    assert damage_of(check) == [DamageKind.PACK_TRAILER]
    assert len(check.frames) == check.row.frames


def test_a_whole_pack_with_other_frames_than_the_catalog_knows_is_found_by_its_rows():
    rig, other = filled(), Rig()
    other.put(noise(1500, 9))
    other.store.close()
    check = check_of(rig)
    image = other.packs.volatile[check.pack]
    rig.packs.volatile[check.pack] = image
    check.row = replace(check.row, length=len(image))
    assert damage_of(check) == []
    with rig.kv.snapshot() as reader:
        damage, placed = check_row(reader, check.pack, check.row, check.frames)
    assert [each.kind for each in damage] == [DamageKind.PACK_COUNTERS]
    assert placed == NOTHING


@pytest.mark.parametrize("kind", [PackKind.NODE, PackKind.DATA])
def test_a_pack_of_another_kind_or_number_is_not_taken_for_this_one(kind):
    rig = filled()
    check = check_of(rig)
    check.row = replace(check.row, kind=kind)
    assert (DamageKind.PACK_HEADER in damage_of(check)) is (kind == PackKind.NODE)


def test_a_bad_sector_that_comes_and_goes_is_no_damage():
    """What looks damaged is read again before it is called so."""
    rig = filled()
    check = check_of(rig)

    class Flaky(PlaceSource):
        reads = 0

        def read(self, offset, length):
            Flaky.reads += 1
            data = super().read(offset, length)
            return bytes(data[:-1]) + bytes([data[-1] ^ 1]) if Flaky.reads == 4 else data

    check.source = Flaky(rig.packs, check.pack)
    assert damage_of(check) == []
    assert Flaky.reads > 4


def test_a_device_that_gives_errors_is_reported():
    rig = filled()
    rig.packs.unreadable.add(check_of(rig).pack)
    check = check_of(rig)
    assert damage_of(check) == [DamageKind.PACK_UNREADABLE]
    assert not check.knows_all_frames


def test_a_pack_that_grew_meanwhile_is_checked_to_its_new_end():
    rig = filled(sealed=False)
    check = check_of(rig)
    assert damage_of(check) == []
    rig.put(noise(900, 4))
    rig.store.close()
    with rig.kv.snapshot() as reader:
        row = get_pack(reader, check.pack)
        assert row is not None
        assert [damage for step in check.extend(row) for damage in step.damage] == []
        damage, _ = check_row(reader, check.pack, row, check.frames)
    assert damage == []
    assert len(check.frames) == row.frames == 4


def test_equal_tallies_are_equal_sets():
    rows = [(bytes([n]) * 32, n) for n in range(1, 5)]
    forward, backward = NOTHING, NOTHING
    for chunk, length in rows:
        forward = forward.with_row(chunk, length)
    for chunk, length in reversed(rows):
        backward = backward.with_row(chunk, length)
    assert forward == backward
    assert forward != NOTHING.with_row(*rows[0])
    assert isinstance(forward, Tally)


@pytest.mark.parametrize("direct", [True, False])
def test_a_file_is_read_as_it_is_at_any_offset(tmp_path, direct, monkeypatch):
    import os

    if not direct:
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    data = noise(2_500_001, 5)
    path = tmp_path / "pack"
    path.write_bytes(data)
    source = DeviceFile(1, path)
    assert source.length() == len(data)
    for offset, length in [
        (0, 1),
        (4095, 2),
        (1 << 20, 1 << 20),
        ((1 << 20) - 3, 1_000_000),
        (0, len(data)),
        (17, 0),
    ]:
        assert source.read(offset, length) == data[offset : offset + length]
    assert source.read(len(data) - 5, 100) == data[-5:]
    assert source.read(len(data) + 5000, 100) == b""
    path.write_bytes(b"!" + data[1:])
    source.forget()
    assert source.read(0, 2) == b"!" + data[1:2]
    source.close()
    source.close()
