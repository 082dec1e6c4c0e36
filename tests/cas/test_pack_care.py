"""Packs are sealed in time, faults hit only who must know, dead writers leave nothing open."""

from __future__ import annotations

import pytest

from cas.adoption import inspect, placements
from cas.catalog import PLACEMENTS, PackState, get_pack, iterate_packs
from cas.errors import NoSpace, PackPoisoned
from cas.pack import PackHeader, PackKind
from tests.cas.support import Rig, noise, running


@pytest.fixture
def rig() -> Rig:
    return Rig()


def states(rig: Rig) -> dict[int, PackState]:
    with rig.kv.snapshot() as reader:
        return {pack & 0xFFFFFFFF: row.state for pack, row in iterate_packs(reader)}


def test_pack_is_sealed_at_its_target_size():
    rig = Rig(target=400_000)
    for seed in range(3):
        rig.put(noise(300_000, seed))
    sealed = [state for state in states(rig).values() if state == PackState.SEALED]
    assert sealed
    for pack in rig.packs.packs():
        with rig.kv.snapshot() as reader:
            row = get_pack(reader, pack)
        contents = inspect(rig.packs, pack)
        assert row is not None
        assert contents.sealed == (row.state == PackState.SEALED)
        assert (row.frames, row.chunks) == (
            len(contents.frames),
            sum(len(f.header.ids) for f in contents.frames),
        )


def test_pack_is_sealed_ten_minutes_after_its_first_byte(rig: Rig):
    rig.put(noise(5000))
    rig.now = 599.0
    rig.store.seal_idle(rig.now)
    assert states(rig) == {1: PackState.OPEN}
    rig.put(noise(5000, 1))
    rig.now = 600.0
    rig.store.seal_idle(rig.now)
    assert states(rig) == {1: PackState.SEALED}
    rig.put(noise(5000, 2))
    assert states(rig) == {1: PackState.SEALED, 2: PackState.OPEN}


def test_close_seals_and_is_idempotent(rig: Rig):
    rig.put(noise(5000))
    rig.store.close()
    rig.store.close()
    assert states(rig) == {1: PackState.SEALED}


def test_failed_flush_fails_who_needs_it_and_nobody_else(rig: Rig):
    safe = noise(5000)
    manifest, _ = rig.put(safe)
    ingest, _ = running(rig, noise(5000, 1))
    (pack,) = rig.packs.volatile
    rig.packs.failing_syncs.add(pack)
    publication = ingest.publication()
    for _ in range(2):
        with pytest.raises(PackPoisoned):
            rig.store.sync([publication])
    publication.settle(False)
    again, retried = rig.put(noise(5000, 1))  # in a new pack
    assert retried.new_raw_bytes == 5000
    assert rig.get(again) == noise(5000, 1)
    assert rig.get(manifest) == safe
    with rig.kv.snapshot() as reader:
        row = get_pack(reader, pack)
    assert row is not None
    assert (row.state, row.footerless, row.length) == (PackState.SEALED, True, len(rig.packs.durable[pack]))


def test_pack_poisoned_before_anything_was_durable_gets_no_row(rig: Rig):
    ingest, _ = running(rig, noise(5000))
    (pack,) = rig.packs.volatile
    rig.packs.failing_syncs.add(pack)
    with pytest.raises(PackPoisoned):
        rig.store.sync([ingest.publication()])
    ingest.abort()
    rig.put(noise(5000))
    assert states(rig) == {2: PackState.OPEN}
    assert pack not in rig.packs.volatile  # nor does its file stay for ever
    assert rig.store.is_tidy


def test_file_of_a_lost_pack_that_cannot_be_removed_is_left_to_adoption(rig: Rig, monkeypatch):
    ingest, _ = running(rig, noise(5000))
    (pack,) = rig.packs.volatile
    rig.packs.failing_syncs.add(pack)
    with pytest.raises(PackPoisoned):
        rig.store.sync([ingest.publication()])
    ingest.abort()

    def refuse(pack: int) -> None:
        raise OSError(f"{pack} stays")

    with monkeypatch.context() as patched:
        patched.setattr(rig.packs, "remove", refuse)
        rig.put(noise(5000))
    assert not rig.store.is_tidy
    rig.store.close()
    assert rig.open(2).adopt(1).removed == [pack]


def test_pack_without_a_frame_that_a_full_disk_keeps_from_being_sealed_is_left_to_adoption(rig: Rig):
    ingest = rig.store.ingest()
    rig.packs.capacity = len(PackHeader.of(rig.identity, 1 << 32 | 1, PackKind.DATA).encode())
    with pytest.raises(NoSpace):
        ingest.feed(noise(600_000))
    ingest.abort()
    (pack,) = rig.packs.volatile
    rig.store.close()
    assert states(rig) == {}
    assert not rig.store.is_tidy
    assert rig.open(2).adopt(1).removed == [pack]


def test_chunks_in_flight_in_a_poisoned_pack_are_stored_anew(rig: Rig):
    data = noise(600_000)
    slow = rig.store.ingest()
    slow.feed(data)  # its frames are written; it does not know yet that they are lost
    (pack,) = rig.packs.volatile
    taker, _ = running(rig, data)  # takes them up
    rig.packs.failing_syncs.add(pack)
    with pytest.raises(PackPoisoned):
        rig.store.sync([taker.publication()])
    taker.abort()
    manifest, again = rig.put(data)
    assert again.new_raw_bytes == 600_000
    assert rig.get(manifest) == data


def test_lost_bytes_are_still_lost_when_the_row_of_their_pack_is_settled(rig: Rig):
    rig.put(noise(5000))
    slow, _ = running(rig, noise(5000, 1))
    (pack,) = rig.packs.volatile
    rig.packs.failing_syncs.add(pack)
    failing, _ = running(rig, noise(5000, 2))
    with pytest.raises(PackPoisoned):
        rig.store.sync([failing.publication()])
    failing.abort()
    rig.put(noise(5000, 3))  # this commit writes down how the poisoned pack ended
    assert states(rig)[1] == PackState.SEALED
    with pytest.raises(PackPoisoned):
        rig.store.sync([slow.publication()])


def test_packs_that_fail_in_a_row_are_counted_until_one_is_flushed(rig: Rig):
    for failures in (1, 2):
        ingest, _ = running(rig, noise(5000, failures))
        rig.packs.failing_syncs.add(max(rig.packs.volatile))
        publication = ingest.publication()
        for _ in range(3):  # asked for again and again, it is one failure
            with pytest.raises(PackPoisoned):
                rig.store.sync([publication])
        ingest.abort()
        assert rig.store.failures_in_a_row == failures
    rig.put(noise(5000, 9))
    assert rig.store.failures_in_a_row == 0


def test_full_disk_fails_the_upload_and_nothing_else(rig: Rig):
    manifest, _ = rig.put(noise(50_000))
    rig.packs.capacity = rig.packs.used() + 1000
    ingest = rig.store.ingest()
    with pytest.raises(NoSpace):
        ingest.feed(noise(600_000, 1))
    ingest.abort()
    assert rig.get(manifest) == noise(50_000)
    rig.packs.capacity = None
    again, _ = rig.put(noise(600_000, 1))
    assert rig.get(again) == noise(600_000, 1)


def test_full_disk_leaves_no_pack_without_a_header(rig: Rig):
    rig.packs.capacity = 10
    ingest = rig.store.ingest()
    with pytest.raises(NoSpace):
        ingest.feed(noise(600_000, 1))
    assert not rig.packs.volatile


def test_dead_writers_packs_are_sealed_and_its_leftovers_removed(rig: Rig):
    manifest, _ = rig.put(noise(12_000))
    leftover = rig.packs.create(1 << 32 | 77)
    leftover.write(0, [b"no row names it"])
    rig.packs.create(5 << 32 | 1)  # of somebody who lives
    second = rig.open(2)
    adoption = second.adopt(1)
    assert list(adoption.sealed) == [1 << 32 | 1]
    assert list(adoption.removed) == [1 << 32 | 77]
    assert states(rig) == {1: PackState.SEALED}
    assert inspect(rig.packs, 1 << 32 | 1).sealed
    assert rig.get(manifest) == noise(12_000)
    assert 5 << 32 | 1 in rig.packs.volatile
    again = second.adopt(1)
    assert not [*again.sealed, *again.removed, *again.damaged]


def test_footer_that_was_never_flushed_is_not_believed(rig: Rig):
    manifest, _ = rig.put(noise(12_000))
    durable = bytes(rig.packs.durable[1 << 32 | 1])
    lost, _ = running(rig, noise(12_000, 1))
    rig.store._appender.seal()  # the writer dies before a commit says so, and the power fails:
    data = rig.packs.volatile[1 << 32 | 1]
    lost_frame = slice(len(durable), len(durable) + 10_000)
    data[lost_frame] = bytes(10_000)
    adoption = rig.open(2).adopt(1)
    assert list(adoption.sealed) == [1 << 32 | 1]
    assert len(inspect(rig.packs, 1 << 32 | 1).frames) == 1
    assert rig.get(manifest) == noise(12_000)
    lost.abort()


def test_damage_below_the_durable_length_is_reported_and_never_cut(rig: Rig):
    rig.put(noise(50_000))
    pack = 1 << 32 | 1
    rig.packs.volatile[pack][20_000] ^= 1
    before = bytes(rig.packs.volatile[pack])
    adoption = rig.open(2).adopt(1)
    assert [error.pack for error in adoption.damaged] == [pack]
    assert bytes(rig.packs.volatile[pack]) == before
    with rig.kv.snapshot() as reader:
        row = get_pack(reader, pack)
    assert row is not None
    assert row.damaged
    assert not rig.open(3).adopt(1).damaged  # said once


def test_missing_pack_of_a_dead_writer_is_reported(rig: Rig):
    rig.put(noise(5000))
    rig.packs.volatile.clear()
    (error,) = rig.open(2).adopt(1).damaged
    assert "missing" in str(error)


def test_catalog_can_be_rebuilt_from_packs_alone():
    rig = Rig(target=200_000)
    for seed in range(3):
        rig.put(noise(300_000, seed))
    rig.store.close()
    rebuilt = dict(row for pack in rig.packs.packs() for row in placements(pack, inspect(rig.packs, pack)))
    with rig.kv.snapshot() as reader:
        assert rebuilt == dict(reader.scan(PLACEMENTS))
