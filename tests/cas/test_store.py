"""Bytes go in once and come out verified, whatever fails in between."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.adoption import inspect, placements
from cas.catalog import PLACEMENTS, PackState, condemn, forget_pack, get_pack, iterate_packs, pack_of
from cas.errors import CorruptChunk, MissingChunk, NoSpace, PackGone, PackPoisoned, PackUnreadable
from cas.pack import PackKind
from cas.pending import PUBLISH_BATCH
from tests.cas.support import REAL, Rig, noise, split


@pytest.fixture
def rig() -> Rig:
    return Rig()


def words(length: int, seed: int = 0) -> bytes:
    text = b" ".join(b"word%d" % (n * 7919 % 251 + seed) for n in range(length // 5 + 1))
    return text[:length]


contents = st.one_of(
    st.builds(noise, st.integers(0, 30_000), st.integers(0, 9)),
    st.builds(words, st.integers(0, 30_000), st.integers(0, 9)),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=300), st.integers(0, 200)),
)


# --- round trips and dedup --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(contents, st.lists(st.integers(0, 1 << 20), max_size=5)), max_size=4),
    st.tuples(st.integers(0), st.integers(0)),
)
def test_what_went_in_comes_out(objects: list[tuple[bytes, list[int]]], window: tuple[int, int]):
    rig = Rig(target=20_000)
    stored = [(data, rig.put(*split(data, cuts))[0]) for data, cuts in objects]
    for data, manifest in stored:
        assert rig.get(manifest) == data
        start, stop = sorted(point % (len(data) + 1) for point in window)
        assert rig.get(manifest, start, stop, window=700) == data[start:stop]


def test_empty_object_needs_nothing(rig: Rig):
    manifest, ingest = rig.put()
    assert (manifest.size, ingest.chunks, ingest.new_stored_bytes) == (0, 0, 0)
    assert rig.get(manifest) == b""
    assert not rig.packs.volatile


@settings(deadline=None, max_examples=20)
@given(contents, st.lists(st.integers(0, 1 << 20), max_size=5))
def test_same_bytes_twice_store_nothing_new(data: bytes, cuts: list[int]):
    rig = Rig()
    first, _ = rig.put(data)
    second, ingest = rig.put(*split(data, cuts))
    assert second == first
    assert (ingest.new_stored_bytes, ingest.new_raw_bytes) == (0, 0)


def test_one_byte_in_front_of_20_mb_adds_little():
    rig = Rig(REAL)
    data = noise(20_000_000)
    rig.put(data)
    _, ingest = rig.put(b"!", data)
    assert 0 < ingest.new_raw_bytes < 300_000
    assert ingest.size == 20_000_001


def test_repeated_chunk_of_one_ingest_is_stored_once(rig: Rig):
    manifest, ingest = rig.put(bytes(100_000))
    assert ingest.chunks == 98
    assert ingest.new_raw_bytes <= 2 * 1024
    assert rig.get(manifest) == bytes(100_000)


def test_statistics_count_chunks_and_bytes_once(rig: Rig):
    data = noise(50_000)
    _, ingest = rig.put(data)
    rig.put(data)
    rig.put(words(50_000))
    rig.store.close()
    with rig.kv.snapshot() as reader:
        found = rig.store.statistics(reader)
    assert found.unique_bytes >= 50_000 + 1000
    assert found.chunks > ingest.chunks
    assert found.pack_bytes == sum(map(len, rig.packs.durable.values()))
    assert found.packs == len(rig.packs.durable)


def test_large_object_becomes_a_tree_in_packs_of_its_own(rig: Rig):
    data = noise(300_000)
    manifest, _ = rig.put(data)
    assert manifest.level == 1
    assert rig.get(manifest) == data
    rig.store.close()
    with rig.kv.snapshot() as reader:
        kinds = {row.kind for _, row in iterate_packs(reader)}
    assert kinds == {PackKind.DATA, PackKind.NODE}


def test_frames_of_a_block_may_be_encoded_in_parallel():
    rig = Rig(REAL)
    with ThreadPoolExecutor(2) as pool:
        rig.store._parallel_map = pool.map
        data = words(3_000_000)
        manifest, _ = rig.put(data[:2_000_000], data[2_000_000:])
    assert rig.get(manifest, window=1 << 20) == data


def test_ingest_keeps_nothing_of_its_blocks(rig: Rig):
    data = noise(20_000)
    buffer = bytearray(10_000)
    ingest = rig.store.ingest()
    for start in (0, 10_000):
        buffer[:] = data[start : start + 10_000]
        ingest.feed(memoryview(buffer))
    buffer[:] = bytes(10_000)
    manifest = ingest.finish()
    rig.commit(ingest.publication())
    assert rig.get(manifest) == data


def test_memory_of_an_ingest_is_bounded(rig: Rig):
    ingest = rig.store.ingest()
    for number in range(60):
        ingest.feed(noise(65_536, number))
        if (publication := ingest.take_publication()) is not None:
            rig.commit(publication)
        held = ingest._data._draft.raw_length + sum(map(len, ingest._builder._levels))
        assert held < (256 << 10) + 200_000
        assert len(ingest._pending.placements) < PUBLISH_BATCH + 600
        assert len(ingest._pending.held) < PUBLISH_BATCH + 2000


# --- publication ------------------------------------------------------------------------------------------------


def test_nothing_is_known_before_the_commit(rig: Rig):
    ingest = rig.store.ingest()
    ingest.feed(noise(5000))
    manifest = ingest.finish()
    rig.store.sync([ingest.publication()])
    with rig.kv.snapshot() as reader, pytest.raises(MissingChunk):
        rig.store.locate(reader, manifest, 0, 5000)


def test_publication_is_not_applied_before_its_packs_are_durable(rig: Rig):
    ingest = rig.store.ingest()
    ingest.feed(noise(5000))
    ingest.finish()
    with pytest.raises(RuntimeError):
        rig.kv.commit(ingest.publication().apply)


def test_published_bytes_survive_a_power_cut(rig: Rig):
    data = noise(200_000)
    manifest, _ = rig.put(data)
    ingest = rig.store.ingest()
    ingest.feed(noise(200_000, 1))  # written, never acknowledged
    rig.packs = rig.packs.crash(torn=1000)
    rig.store = rig.open(2)
    adoption = rig.store.adopt(1)
    assert not adoption.damaged
    assert len(adoption.sealed) == 2
    assert rig.get(manifest) == data


def test_large_upload_publishes_on_the_way(rig: Rig):
    ingest = rig.store.ingest()
    data = noise(3_000_000)
    taken = 0
    for start in range(0, len(data), 100_000):
        ingest.feed(data[start : start + 100_000])
        if (publication := ingest.take_publication()) is not None:
            taken += len(publication)
            rig.commit(publication)
    manifest = ingest.finish()
    last = ingest.publication()
    assert taken >= PUBLISH_BATCH
    assert taken + len(last) >= ingest.chunks
    assert len(last) < PUBLISH_BATCH
    rig.commit(last)
    assert rig.get(manifest) == data


@pytest.mark.parametrize("committed", [False, None], ids=["failed", "undecided"])
def test_last_publication_takes_along_what_an_early_one_failed_to_publish(rig: Rig, committed: bool | None):
    ingest = rig.store.ingest()
    data = noise(2_500_000)
    ingest.feed(data)
    early = ingest.take_publication()
    assert early is not None
    if committed is not None:
        early.settle(committed)
    ingest.feed(data)  # all of it is known to this ingest, none of it is in the catalog
    manifest = ingest.finish()
    assert ingest.new_raw_bytes <= 2_500_000 + 2 * 1024
    rig.commit(ingest.publication())
    assert rig.get(manifest) == data * 2


def test_settled_publications_leave_nothing_in_flight(rig: Rig):
    rig.put(noise(300_000))
    ingest = rig.store.ingest()
    ingest.feed(noise(300_000, 1))
    assert len(rig.store._known) > 0
    ingest.abort()
    ingest.abort()
    failed = rig.store.ingest()
    failed.feed(noise(300_000, 2))
    failed.finish()
    failed.publication().settle(False)
    composition = rig.store.compose([(failed.finish(), 0, 300_000)] * 100)
    composition.publication.settle(False)
    assert len(rig.store._known) == 0


def test_aborted_upload_leaves_garbage_and_no_row(rig: Rig):
    ingest = rig.store.ingest()
    ingest.feed(noise(300_000))
    ingest.abort()
    manifest, again = rig.put(noise(300_000))
    assert again.new_raw_bytes == 300_000
    assert rig.get(manifest) == noise(300_000)


def test_finished_ingest_takes_no_more(rig: Rig):
    ingest = rig.store.ingest()
    with pytest.raises(RuntimeError):
        ingest.publication()
    assert ingest.finish() is ingest.finish()
    with pytest.raises(RuntimeError):
        ingest.feed(b"x")


class Register:
    def __init__(self) -> None:
        self.running: set[int] = set()
        self._tokens = itertools.count()

    def begin(self) -> int:
        token = next(self._tokens)
        self.running.add(token)
        return token

    def end(self, token: int) -> None:
        self.running.remove(token)


def test_ingest_counts_as_an_operation_to_its_end():
    rig = Rig()
    register = Register()
    rig.store._operations = register
    committed, aborted = rig.store.ingest(), rig.store.ingest()
    committed.feed(noise(2_000_000))
    early = committed.take_publication()
    assert early is not None
    rig.commit(early)
    assert len(register.running) == 2
    committed.finish()
    rig.commit(committed.publication())
    assert len(register.running) == 1
    aborted.abort()
    assert not register.running


# --- chunks in flight -------------------------------------------------------------------------------------------


def running(rig: Rig, data: bytes):
    """An ingest whose frames are written but not published."""
    ingest = rig.store.ingest()
    ingest.feed(data)
    return ingest, ingest.finish()


def test_upload_still_running_is_found_by_another(rig: Rig):
    data = noise(300_000)
    first, manifest = running(rig, data)
    second, same = running(rig, data)
    assert same == manifest
    assert second.new_stored_bytes == 0
    rig.commit(second.publication())  # the second commits alone: it publishes what the first has stored
    first.abort()
    assert rig.get(manifest) == data


def test_frame_not_yet_written_counts_as_a_miss(rig: Rig):
    data = noise(10_000)
    first, second = rig.store.ingest(), rig.store.ingest()
    first.feed(data)  # less than a frame
    second.feed(data)
    manifest = second.finish()
    rig.commit(second.publication())
    first.abort()
    assert second.new_raw_bytes == 10_000
    assert rig.get(manifest) == data


def test_both_of_two_uploads_may_commit(rig: Rig):
    data = noise(300_000)
    first, manifest = running(rig, data)
    second, _ = running(rig, data)
    rig.commit(first.publication(), second.publication())
    with rig.kv.snapshot() as reader:
        assert rig.store.statistics(reader).unique_bytes == 300_000
    assert rig.get(manifest) == data


def test_taken_up_chunks_are_made_durable_by_whoever_takes_them(rig: Rig):
    data = noise(300_000)
    running(rig, data)
    second, manifest = running(rig, data)
    rig.commit(second.publication())
    rig.packs = rig.packs.crash()
    rig.store = rig.open(2)
    assert rig.get(manifest) == data


def test_uploads_in_many_threads_share_what_they_store():
    rig = Rig(REAL)
    data = [noise(2_000_000, seed) for seed in range(2)]
    manifests = {}
    lock = threading.Lock()

    def upload(number: int) -> None:
        for turn in range(3):
            ingest = rig.store.ingest()
            body = data[(number + turn) % 2]
            for start in range(0, len(body), 300_000):
                ingest.feed(body[start : start + 300_000])
            manifest = ingest.finish()
            publication = ingest.publication()
            with lock:
                rig.commit(publication)
            manifests[number, turn] = manifest

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(manifests) == 12
    assert len(set(manifests.values())) == 2
    for (number, turn), manifest in list(manifests.items())[:4]:
        assert rig.get(manifest, window=1 << 20) == data[(number + turn) % 2]
    with rig.kv.snapshot() as reader:
        assert rig.store.statistics(reader).unique_bytes == 4_000_000


# --- collection's protocol --------------------------------------------------------------------------------------


def sealed_packs(rig: Rig) -> list[int]:
    rig.store.close()
    rig.store = rig.open(max(pack >> 32 for pack in rig.packs.volatile) + 1)
    with rig.kv.snapshot() as reader:
        return [pack for pack, row in iterate_packs(reader) if row.state == PackState.SEALED]


def test_chunks_of_condemned_packs_are_unknown_but_readable(rig: Rig):
    data = noise(100_000)
    old, _ = rig.put(data)
    packs = sealed_packs(rig)
    rig.kv.commit(lambda txn: condemn(txn, packs))
    new, ingest = rig.put(data)
    assert ingest.new_raw_bytes >= 100_000
    assert new == old
    with rig.kv.snapshot() as reader:
        assert all(pack_of(row) not in packs for _, row in reader.scan(PLACEMENTS))
        assert rig.store.statistics(reader).unique_bytes == 100_000
    rig.kv.commit(lambda txn: [forget_pack(txn, pack) for pack in packs])
    for pack in packs:
        rig.packs.remove(pack)
    assert rig.get(new) == data


def test_chunks_in_flight_in_a_condemned_pack_are_unknown(rig: Rig):
    data = noise(300_000)
    first, _ = running(rig, data)
    rig.store.sync([publication := first.publication()])
    rig.now += 601
    rig.store.seal_idle(rig.now)
    with rig.kv.snapshot() as reader:
        packs = [pack for pack, _ in iterate_packs(reader)]
    rig.kv.commit(lambda txn: condemn(txn, packs))
    second, _ = running(rig, data)
    assert second.new_raw_bytes >= 300_000
    publication.settle(False)


def test_commit_fails_if_a_pack_relied_upon_is_gone(rig: Rig):
    data = noise(100_000)
    rig.put(data)
    packs = sealed_packs(rig)
    ingest, _ = running(rig, data)
    rig.kv.commit(lambda txn: [condemn(txn, packs), *(forget_pack(txn, pack) for pack in packs)])
    with pytest.raises(PackGone):
        rig.commit(ingest.publication())


def test_every_pack_relied_upon_is_checked_also_those_of_early_publications(rig: Rig):
    ingest = rig.store.ingest()
    ingest.feed(noise(2_500_000))
    rig.commit(ingest.take_publication())
    rig.now += 601
    rig.store.seal_idle(rig.now)
    with rig.kv.snapshot() as reader:
        packs = [pack for pack, row in iterate_packs(reader) if row.kind == PackKind.DATA]
    rig.kv.commit(lambda txn: [condemn(txn, packs), *(forget_pack(txn, pack) for pack in packs)])
    ingest.finish()
    with pytest.raises(PackGone):
        rig.commit(ingest.publication())


# --- packs: seals, faults, adoption -----------------------------------------------------------------------------


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


# --- reading ----------------------------------------------------------------------------------------------------


def test_windows_are_of_the_size_asked_for(rig: Rig):
    manifest, _ = rig.put(noise(100_000))
    sizes = [
        sum(span.stop - span.start for span in spans)
        for spans in rig.store.windows(manifest, 10, 90_010, 8192)
    ]
    assert sum(sizes) == 90_000
    assert all(8192 <= size < 8192 + 1024 for size in sizes[:-1])


def test_locate_and_windows_agree(rig: Rig):
    manifest, _ = rig.put(noise(300_000))
    with rig.kv.snapshot() as reader:
        located = rig.store.locate(reader, manifest, 1000, 200_000)
    assert located == [span for spans in rig.store.windows(manifest, 1000, 200_000, 5000) for span in spans]


def test_neighbouring_frames_are_read_at_once():
    rig = Rig(REAL)
    manifest, _ = rig.put(noise(3_000_000))
    rig.packs.reads.clear()
    with rig.kv.snapshot() as reader:
        spans = rig.store.locate(reader, manifest, 0, manifest.size)
    rig.packs.reads.clear()
    rig.store.read(spans)
    assert len({(span.placement.pack, span.placement.frame) for span in spans}) > 8
    assert len(rig.packs.reads) == 1


def test_of_a_raw_frame_only_the_wanted_chunk_is_read():
    rig = Rig(REAL)
    manifest, _ = rig.put(noise(200_000))
    rig.packs.reads.clear()
    assert rig.get(manifest, 100_000, 100_001) == noise(200_000)[100_000:100_001]
    ((_, _, length),) = rig.packs.reads
    assert length <= 131_072


def test_decoded_frames_are_kept_for_a_while():
    rig = Rig(REAL)
    manifest, _ = rig.put(words(200_000))
    rig.get(manifest)
    rig.packs.reads.clear()
    assert rig.get(manifest, window=10_000) == words(200_000)
    assert not rig.packs.reads


def test_cache_is_bounded():
    rig = Rig(REAL)
    rig.store._frames._cache._limit = 1 << 20
    data = words(5_000_000)
    manifest, _ = rig.put(data)
    assert rig.get(manifest, window=1 << 20) == data
    assert rig.store._frames._cache._held <= 1 << 20


@pytest.mark.parametrize("data", [noise(60_000), words(60_000)], ids=["raw", "zstd"])
def test_wrong_bytes_are_never_served(data: bytes):
    rig, pack = Rig(REAL), 1 << 32 | 1
    manifest, _ = rig.put(data)
    clean = bytes(rig.packs.volatile[pack])
    first = inspect(rig.packs, pack).frames[0]
    start = first.offset + first.header.header_length
    for position in range(start, len(clean), max(1, (len(clean) - start) // 60)):
        rig.packs.volatile[pack][position] ^= 0x04
        store = rig.open(2)  # nothing is cached
        (spans,) = store.windows(manifest, 0, manifest.size, 1 << 20)
        with pytest.raises(CorruptChunk) as caught:
            store.read(spans)
        assert caught.value.pack == pack
        rig.packs.volatile[pack][position] ^= 0x04
    assert rig.get(manifest) == data


def test_damage_elsewhere_in_a_raw_frame_does_not_matter():
    rig = Rig()
    data = noise(60_000)
    manifest, _ = rig.put(data)
    rig.packs.volatile[1 << 32 | 1][-1] ^= 1
    assert rig.get(manifest, 0, 30_000) == data[:30_000]
    with pytest.raises(CorruptChunk):
        rig.get(manifest, 0, 60_000)


def test_pack_cut_short_or_missing_or_unreadable_is_said_so(rig: Rig):
    manifest, _ = rig.put(noise(5000))
    pack = 1 << 32 | 1
    data = rig.packs.volatile[pack]
    rig.packs.volatile[pack] = data[:1000]
    with pytest.raises(CorruptChunk, match="ends before"):
        rig.get(manifest)
    del rig.packs.volatile[pack]
    with pytest.raises(MissingChunk) as caught:
        rig.get(manifest)
    assert caught.value.pack == pack
    rig.packs.volatile[pack] = data
    rig.packs.unreadable.add(pack)
    with pytest.raises(PackUnreadable):
        rig.get(manifest)


def test_damaged_node_is_noticed(rig: Rig):
    manifest, _ = rig.put(noise(300_000))
    node_pack = max(rig.packs.volatile)
    rig.packs.volatile[node_pack][-1] ^= 1
    with rig.kv.snapshot() as reader, pytest.raises(CorruptChunk):
        rig.open(2).locate(reader, manifest, 0, manifest.size)


# --- composing --------------------------------------------------------------------------------------------------


def test_copy_costs_nothing(rig: Rig):
    manifest, _ = rig.put(noise(300_000))
    written = rig.packs.used()
    assert rig.compose((manifest, 0, manifest.size)) == manifest
    assert rig.packs.used() == written


def test_complete_costs_nodes_only(rig: Rig):
    bodies = [noise(300_000, seed) for seed in range(30)]
    parts = [rig.put(body)[0] for body in bodies]
    written = rig.packs.used()
    whole = rig.compose(*((part, 0, part.size) for part in parts))
    assert whole.size == 9_000_000
    assert rig.packs.used() - written < 20_000
    assert rig.get(whole, 299_990, 300_010) == bodies[0][-10:] + bodies[1][:10]


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_compositions_behave_like_bytes(data: st.DataObject):
    rig = Rig()
    pool = [(content, rig.put(content)[0]) for content in (noise(200), noise(20_000, 1), words(90_000))]
    for _ in range(data.draw(st.integers(1, 5))):
        picks = data.draw(st.lists(st.integers(0, len(pool) - 1), max_size=5))
        ranges = [sorted(data.draw(st.integers(0, len(pool[pick][0]))) for _ in range(2)) for pick in picks]
        manifest = rig.compose(
            *((pool[pick][1], start, stop) for pick, (start, stop) in zip(picks, ranges, strict=True))
        )
        content = b"".join(
            pool[pick][0][start:stop] for pick, (start, stop) in zip(picks, ranges, strict=True)
        )
        assert rig.get(manifest, window=50_000) == content
        pool.append((content, manifest))


def test_endless_appending_stays_bounded_in_depth(rig: Rig):
    content = noise(100)
    manifest, _ = rig.put(content)
    deepest = 0
    for seed in range(700):
        more = noise(70, seed)
        part, _ = rig.put(more)
        manifest = rig.compose((manifest, 0, manifest.size), (part, 0, part.size))
        content += more
        deepest = max(deepest, manifest.level)
    assert deepest == 8
    assert manifest.level < 8  # it was built anew
    assert rig.get(manifest) == content


def test_range_outside_is_refused(rig: Rig):
    manifest, _ = rig.put(b"abc")
    with pytest.raises(ValueError, match="of 3 bytes"):
        rig.store.compose([(manifest, 0, 4)])


# --- marking ----------------------------------------------------------------------------------------------------


def test_marker_counts_every_chunk_once(rig: Rig):
    first, one = rig.put(noise(300_000))
    second, _ = rig.put(noise(300_000), noise(5000, 1))
    half = rig.compose((first, 0, 150_000))
    with rig.kv.snapshot() as reader:
        marker = rig.store.marker(reader)
        marker.add(half)
        assert 150_000 <= marker.raw_bytes < 152_000
        marker.add(first)
        marker.add(half)
        assert (marker.raw_bytes, marker.chunks) == (300_000, one.chunks)
        marker.add(second)
        assert 305_000 <= marker.raw_bytes < 310_000
        assert marker.raw_bytes <= rig.store.statistics(reader).unique_bytes
        assert marker.is_marked(1 << 32 | 1, 0)
        assert not marker.is_marked(1 << 32 | 1, 1 << 20)
        assert not marker.is_marked(9 << 32 | 1, 0)


def test_marker_knows_what_is_garbage(rig: Rig):
    kept, _ = rig.put(noise(20_000))
    _, dropped = rig.put(noise(20_000, 1))
    with rig.kv.snapshot() as reader:
        marker = rig.store.marker(reader)
        marker.add(kept)
        marked = sum(marker.is_marked(1 << 32 | 1, ordinal) for ordinal in range(1000))
        statistics = rig.store.statistics(reader)
    assert marked == marker.chunks == statistics.chunks - dropped.chunks
