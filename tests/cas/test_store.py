"""Bytes go in once and come out whole; nothing is known before its commit."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.catalog import iterate_packs
from cas.errors import MissingChunk, PlaceFailed
from cas.pack import PackKind
from cas.pending import PUBLISH_BATCH
from tests.cas.support import REAL, Rig, contents, noise, split, words


@pytest.fixture
def rig() -> Rig:
    return Rig()


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


def test_a_process_without_a_writer_number_reads_but_makes_no_pack(rig: Rig):
    manifest, _ = rig.put(b"known")
    rig.store = rig.open(writer=0)
    assert rig.get(manifest) == b"known"
    assert rig.put(b"known")[0] == manifest
    ingest = rig.store.ingest()
    with pytest.raises(PlaceFailed, match="no writer number"):
        ingest.feed(noise(1 << 20))
    ingest.abort()
    assert {pack >> 32 for pack in rig.packs.packs()} == {1}


def test_one_byte_in_front_of_20_mb_adds_little():
    rig = Rig(REAL)
    data = noise(20_000_000)
    rig.put(data)
    _, ingest = rig.put(b"!", data)
    assert 0 < ingest.new_raw_bytes < 1_500_000  # the first joined chunk, of noise
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
