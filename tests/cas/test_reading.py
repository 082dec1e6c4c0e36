"""Reading takes few requests, bounded memory, and never serves a wrong byte."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import pairwise

import pytest

from cas.adoption import inspect
from cas.errors import CorruptChunk, MissingChunk, PackUnreadable
from cas.frame import decode_frame, decompress
from cas.frame_cache import FrameCache
from cas.reading import FrameReader
from cas.uniform import MAX_JOINED_BYTES
from tests.cas.support import REAL, Rig, edited, noise, words
from vaultaire.threads import CORES, FrameThreads

PLAIN = replace(REAL, uniform=0)


@pytest.fixture
def rig() -> Rig:
    return Rig()


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
    rig = Rig(PLAIN)
    manifest, _ = rig.put(noise(3_000_000))
    rig.packs.reads.clear()
    with rig.kv.snapshot() as reader:
        spans = rig.store.locate(reader, manifest, 0, manifest.size)
    rig.packs.reads.clear()
    rig.store.read(spans)
    assert len({(span.placement.pack, span.placement.frame) for span in spans}) > 8
    assert len(rig.packs.reads) == 1


def test_of_a_raw_frame_only_the_wanted_chunk_is_read():
    rig = Rig(PLAIN)
    manifest, _ = rig.put(noise(200_000))
    rig.packs.reads.clear()
    assert rig.get(manifest, 100_000, 100_001) == noise(200_000)[100_000:100_001]
    ((_, _, length),) = rig.packs.reads
    assert length <= 131_072


def test_a_joined_chunk_is_a_raw_frame_of_its_own_and_read_at_once():
    rig = Rig(REAL)
    data = noise(4_000_000)
    manifest, _ = rig.put(data)
    with rig.kv.snapshot() as reader:
        spans = rig.store.locate(reader, manifest, 0, manifest.size)
    large = [span.placement for span in spans if span.placement.length >= 256 << 10]
    assert large
    assert all(
        place.raw_frame and place.inside == 0 and place.stored_length == place.length for place in large
    )
    rig.packs.reads.clear()
    assert rig.get(manifest, 2_000_000, 2_000_001) == data[2_000_000:2_000_001]
    ((_, _, length),) = rig.packs.reads
    assert length <= MAX_JOINED_BYTES


def test_frames_between_joined_chunks_are_not_smaller_for_them():
    rig = Rig(REAL)
    data = b"".join(words(90_000, n) + noise(400_000, n) for n in range(8))
    manifest, _ = rig.put(data)
    with rig.kv.snapshot() as reader:
        spans = rig.store.locate(reader, manifest, 0, manifest.size)
    frames = {span.placement.frame for span in spans if not span.placement.raw_frame}
    assert len(frames) <= 5
    assert rig.get(manifest) == data


def test_spans_of_a_joined_chunk_are_divided_when_less_is_to_be_held():
    rig = Rig(REAL)
    data = noise(3_000_000)
    manifest, _ = rig.put(data)
    windows = list(rig.store.windows(manifest, 7, 2_900_000, 1, 128 << 10))
    assert all(len(spans) == 1 and spans[0].stop - spans[0].start <= 128 << 10 for spans in windows)
    assert b"".join(bytes(rig.store.read(spans)[0]) for spans in windows) == data[7:2_900_000]


PART = 65_536


def parts_of(rig: Rig, manifest, start: int, stop: int) -> list[bytes]:
    slices = rig.store.slices(PART)
    return [slices.read(spans[0]) for spans in rig.store.windows(manifest, start, stop, 1, PART)]


@pytest.mark.parametrize(("start", "stop"), [(0, 5_000_000), (1_234_567, 4_999_999), (70_000, 70_001)])
def test_parts_of_large_chunks_are_read_about_twice_in_all(start, stop):
    rig = Rig(REAL)
    data = noise(3_000_000) + words(2_000_000)
    manifest, _ = rig.put(data)
    rig.packs.reads.clear()
    parts = parts_of(rig, manifest, start, stop)
    assert b"".join(parts) == data[start:stop]
    assert all(isinstance(part, bytes) and len(part) <= 131_072 for part in parts)
    assert sum(length for _, _, length in rig.packs.reads) < 2 * (stop - start) + 2 * MAX_JOINED_BYTES


def test_a_part_that_rots_while_the_chunk_is_being_read_is_noticed():
    rig = Rig(REAL)
    data = noise(1_000_000)
    manifest, _ = rig.put(data)
    slices = rig.store.slices(PART)
    spans = [spans[0] for spans in rig.store.windows(manifest, 0, len(data), 1, PART)]
    first, span = next((a, b) for a, b in pairwise(spans) if a.chunk == b.chunk)
    begin = sum(each.stop - each.start for each in spans[: spans.index(span)])
    assert slices.read(first) == data[begin - PART : begin]
    placement = span.placement
    at = placement.frame + placement.header_length + placement.inside + span.start
    rig.packs.volatile[placement.pack][at + 7] ^= 1
    with pytest.raises(CorruptChunk):
        slices.read(span)
    rig.packs.unreadable.add(placement.pack)
    with pytest.raises(PackUnreadable):
        slices.read(span)
    rig.packs.unreadable.clear()
    rig.packs.volatile[placement.pack][at + 7] ^= 1
    assert slices.read(span) == data[begin : begin + span.stop - span.start]


def test_decoded_frames_are_kept_for_a_while():
    rig = Rig(REAL)
    manifest, _ = rig.put(words(200_000))
    rig.get(manifest)
    rig.packs.reads.clear()
    assert rig.get(manifest, window=10_000) == words(200_000)
    assert not rig.packs.reads


def test_a_chunk_of_a_frame_that_is_not_kept_holds_no_more_than_itself():
    rig = Rig(REAL)
    manifest, _ = rig.put(edited(250_000))
    plain = FrameReader(rig.packs, rig.kv.snapshot, rig.store._hasher.chunk_id, cache=FrameCache(0))
    (spans,) = rig.store.windows(manifest, 0, 250_000, 250_000)
    (piece,) = plain.read(spans[:1], rig.store._hasher.chunk_id)
    assert memoryview(piece.obj).nbytes == len(piece)
    pieces = plain.read(spans, rig.store._hasher.chunk_id)
    assert memoryview(pieces[0].obj).nbytes == 250_000  # all of it is wanted: no copies


def held_bytes(pieces: list[memoryview]) -> int:
    return sum({id(piece.obj): len(piece.obj) for piece in pieces}.values())


def test_small_raw_frames_do_not_hold_what_lies_between_them():
    rig = Rig(REAL)
    stored = [rig.put(noise(5_000 if n % 2 else 30_000, n))[0] for n in range(60)]
    manifest = rig.compose(*((each, 0, each.size) for each in stored[1::2]))
    (spans,) = rig.store.windows(manifest, 0, manifest.size, 1 << 20)
    rig.packs.reads.clear()
    pieces = rig.store.read(spans)
    assert len(rig.packs.reads) == 1
    assert held_bytes(pieces) <= 2 * manifest.size


@pytest.mark.parametrize("parallel", [False, True])
def test_many_frames_of_which_little_is_wanted_are_not_held_together(parallel: bool):
    rig = Rig(REAL)
    stored = [rig.put(edited(300_000, seed=n))[0] for n in range(30)]
    manifest = rig.compose(*((each, 1_000 * n, 1_000 * n + 900) for n, each in enumerate(stored)))
    (spans,) = rig.store.windows(manifest, 0, manifest.size, 1 << 20)
    threads = FrameThreads()
    alive: list[weakref.ref] = []
    most = 0

    class Raw(bytearray):
        """Can be referred to weakly."""

    def decoded(stored: memoryview) -> Raw:
        nonlocal most
        raw = Raw(decompress(stored))
        alive.append(weakref.ref(raw))
        most = max(most, sum(each() is not None for each in alive))
        return raw

    reading = FrameReader(
        rig.packs,
        rig.kv.snapshot,
        rig.store._hasher.chunk_id,
        cache=FrameCache(0),
        parallel_map=threads.map if parallel else map,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cas.reading.decompress", decoded)
        pieces = reading.read(spans, rig.store._hasher.chunk_id)
    threads.shutdown()
    assert len(alive) == 30
    assert most <= CORES + 1
    assert held_bytes(pieces) <= 2 * manifest.size
    assert b"".join(pieces) == rig.get(manifest)


def test_reading_that_heals_leaves_nothing_to_the_collector_of_cycles():
    rig = Rig(REAL)
    data = edited(400_000)
    manifest, _ = rig.put(data)
    (spans,) = rig.store.windows(manifest, 0, manifest.size, 1 << 20)
    sound = {pack: bytes(data) for pack, data in rig.packs.volatile.items()}

    class Copies:
        def frame(self, placement, reason, prefix_of):
            return decode_frame(sound[placement.pack][placement.frame : placement.frame_end], prefix_of)[1]

    place = spans[0].placement
    rig.packs.volatile[place.pack][place.frame + place.header_length + 9] ^= 1
    chunk_id = rig.store._hasher.chunk_id
    reading = FrameReader(rig.packs, rig.kv.snapshot, chunk_id, Copies(), FrameCache(0))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            assert b"".join(reading.read(spans, chunk_id)) == data
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, CorruptChunk)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


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
