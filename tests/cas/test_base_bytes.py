"""The bytes of bases: the same as verified ones, without computing their ids; damage is told all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.base_bytes import BaseBytes
from cas.bases import iterate_bases
from cas.catalog import PLACEMENTS, decode_placement
from cas.chunk import ChunkId, Identity
from cas.damage import iterate_damage
from cas.errors import CorruptChunk, CorruptFrame, MissingChunk
from cas.frame import FrameHeader, decode_header, encode_frame
from cas.frame_cache import FrameCache
from cas.prefix import Prefixes
from cas.reading import FrameReader, Span
from tests.cas.support import Rig, edited, noise

if TYPE_CHECKING:
    from collections.abc import Sequence

MIDDLE = Identity(b"S" * 16, b"K" * 32, "fastcdc2020/2048/512/8192/nc2")
SHAPE = decode_header(encode_frame([b"c" * 32], [b"text" * 100]).header)


def header(bases: Sequence[ChunkId]) -> FrameHeader:
    return replace(SHAPE, bases=tuple(bases))


@pytest.fixture(scope="module")
def rig() -> Rig:
    rig = Rig(MIDDLE)
    rig.put(noise(30_000))
    return rig


def chunks(rig: Rig) -> list[ChunkId]:
    """Data chunks in frames without bases, as they lie."""
    manifest, _ = rig.put(edited(900_000))
    spans = rig.store.windows(manifest, 0, manifest.size, manifest.size)
    return list(dict.fromkeys(span.chunk for span in next(spans)))


def test_runs_jumps_and_returns_give_what_verified_reading_gives(rig: Rig):
    everything = chunks(rig)
    verified = FrameReader(rig.packs, rig.kv.snapshot, rig.store._hasher.chunk_id)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(0, len(everything) - 1), st.integers(1, 40)), min_size=1, max_size=8),
        st.sampled_from([0, 300_000, 16 << 20]),
    )
    def check(runs, cache_bytes):
        ids = list(dict.fromkeys(each for at, count in runs for each in everything[at : at + count]))
        quick = BaseBytes(rig.packs, rig.kv.snapshot, FrameCache(cache_bytes))
        assert quick.prefix_of(header(ids)) == verified.prefix(ids)

    check()


def test_a_frame_that_reading_has_decoded_is_not_decoded_again(rig: Rig):
    cache = FrameCache()
    first, second, *_ = chunks(rig)
    with rig.kv.snapshot() as reader:
        rows = [decode_placement(each, reader.get(PLACEMENTS, each) or b"") for each in (first, second)]
    reader = FrameReader(rig.packs, rig.kv.snapshot, rig.store._hasher.chunk_id, cache=cache)
    wanted = reader.read([Span(first, 0, rows[0].length, rows[0])], rig.store._hasher.chunk_id)[0]
    rig.packs.reads.clear()
    assert BaseBytes(rig.packs, rig.kv.snapshot, cache).prefix_of(header([first])) == wanted
    assert [length for *_, length in rig.packs.reads] == [rows[0].header_length]  # what lies where
    rig.packs.reads.clear()
    BaseBytes(rig.packs, rig.kv.snapshot, cache).prefix_of(header([second]))
    assert not rig.packs.reads


def changed(rig: Rig) -> tuple[Rig, list[Span]]:
    """A store with a second version, and the spans of one frame of it that has bases."""
    rig.put(edited(100_000))
    rig.put(edited(100_000, 1), prefixes=Prefixes.ON)
    with rig.kv.snapshot() as reader:
        rows = {ChunkId(key): decode_placement(key, row) for key, row in reader.scan(PLACEMENTS)}
        frame = next(key for key, _ in iterate_bases(reader))
    return rig, [Span(c, 0, p.length, p) for c, p in rows.items() if (p.pack, p.frame) == frame]


def test_reading_behind_bases_computes_no_ids_of_bases():
    rig, spans = changed(Rig(MIDDLE))
    chunk_id = rig.store._hasher.chunk_id
    computed = []

    def count(data: memoryview) -> ChunkId:
        computed.append(len(data))
        return chunk_id(data)

    def never(data: memoryview) -> ChunkId:
        raise AssertionError("the id of a base is computed")

    FrameReader(rig.packs, rig.kv.snapshot, never).read(spans, count)
    assert sorted(computed) == sorted(span.stop for span in spans)


def test_a_placement_that_names_another_chunk_is_no_prefix(rig: Rig):
    first, second, *_ = chunks(rig)
    with rig.kv.snapshot() as reader:
        swapped = {first: reader.get(PLACEMENTS, first), second: reader.get(PLACEMENTS, first)}
    other = Rig(MIDDLE)
    other.packs = rig.packs
    other.kv.commit(lambda txn: [txn.put(PLACEMENTS, key, row) for key, row in swapped.items() if row])
    quick = BaseBytes(other.packs, other.kv.snapshot, FrameCache())
    assert quick.prefix_of(header([first, second]))  # known from the frame itself
    gone = ChunkId(b"x" * 32)
    other.kv.commit(lambda txn: txn.put(PLACEMENTS, gone, swapped[first] or b""))
    with pytest.raises(CorruptFrame):
        quick.prefix_of(header([gone]))
    with pytest.raises(MissingChunk):
        quick.prefix_of(header([ChunkId(b"y" * 32)]))


def test_what_stands_behind_a_damaged_base_is_refused():
    rig, spans = changed(Rig(MIDDLE))
    chunk_id = rig.store._hasher.chunk_id
    placement = spans[0].placement
    head = rig.packs.read(placement.pack, [(placement.frame, placement.header_length)])[0]
    with rig.kv.snapshot() as reader:
        base = decode_header(head).bases[0]
        place = decode_placement(base, reader.get(PLACEMENTS, base) or b"")
    files = rig.packs.volatile if place.pack in rig.packs.volatile else rig.packs.durable
    files[place.pack][place.frame + place.header_length + place.stored_length // 2] ^= 1
    with pytest.raises(CorruptChunk):
        FrameReader(rig.packs, rig.kv.snapshot, chunk_id).read(spans, chunk_id)


def test_a_base_in_a_frame_with_bases_is_refused_whatever_is_cached():
    rig, spans = changed(Rig(MIDDLE))
    bases = header([spans[0].chunk])
    cache = FrameCache()
    reading = FrameReader(rig.packs, rig.kv.snapshot, rig.store._hasher.chunk_id, cache=cache)
    for _ in range(2):
        with pytest.raises(CorruptFrame, match="itself in a frame with bases"):
            BaseBytes(rig.packs, rig.kv.snapshot, cache).prefix_of(bases)
        reading.read(spans, rig.store._hasher.chunk_id)


def test_a_damaged_row_of_a_base_is_told_and_loses_nothing():
    rig, spans = changed(Rig(MIDDLE))
    with rig.kv.snapshot() as reader:
        base = next(iterate_bases(reader))[1].ids[0]
        row = reader.get(PLACEMENTS, base)
    rig.kv.commit(lambda txn: txn.put(PLACEMENTS, base, row + b"x"))
    with pytest.raises(CorruptChunk, match="instead of"):
        rig.store.read(spans)
    with rig.kv.snapshot() as reader:
        assert not list(iterate_damage(reader))
    rig.kv.commit(lambda txn: txn.put(PLACEMENTS, base, row))
    assert rig.store.read(spans)


def test_behind_a_damaged_header_of_a_base_it_is_decoded_once(caplog):
    rig, spans = changed(Rig(MIDDLE))
    right = [bytes(piece) for piece in rig.store.read(spans)]
    place = spans[0].placement
    head = decode_header(rig.packs.read(place.pack, [(place.frame, place.header_length)])[0])
    with rig.kv.snapshot() as reader:
        base = decode_placement(head.bases[0], reader.get(PLACEMENTS, head.bases[0]))
    rig.packs.volatile[base.pack][base.frame + 50] ^= 1
    reading = FrameReader(rig.packs, rig.kv.snapshot, rig.store._hasher.chunk_id)
    assert [bytes(piece) for piece in reading.read(spans, rig.store._hasher.chunk_id)] == right
    assert "behind verified bases it is right" in caplog.text
    rig.packs.reads.clear()
    assert [bytes(piece) for piece in reading.read(spans, rig.store._hasher.chunk_id)] == right
    assert not rig.packs.reads
