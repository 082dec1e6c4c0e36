"""Collection and frames with bases: a base stays as long as anybody may decode by it, and no longer."""

from __future__ import annotations

import pytest

from cas import gc
from cas.bases import iterate_bases
from cas.catalog import PLACEMENTS, PackState, pack_of
from cas.errors import MissingChunk
from tests.cas.support import edited, noise
from tests.vaultaire.collection_world import World

LENGTH = 100_000
GREEDY = gc.Policy(target_bytes=12_000, sparse_share=1.0, dense_share=1.0, tolerated_garbage=0.0)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, cdc="fastcdc2020/2048/512/8192/nc2", target=1 << 20)
    world.bucket()
    yield world
    world.end()


def bases(world: World) -> dict:
    with world.kv.snapshot() as reader:
        return dict(iterate_bases(reader))


def stored(world: World, key: bytes, *edits: int) -> bytes:
    data = edited(LENGTH, *edits)
    world.put(key, data)
    world.seal()
    return data


def base_packs(world: World) -> set[int]:
    with world.kv.snapshot() as reader:
        ids = sorted({base for each in bases(world).values() for base in each.ids})
        return {pack_of(row) for row in reader.get_many(PLACEMENTS, ids) if row is not None}


def forget_cached(world: World) -> None:
    world.chunks._frames.forget()


def test_a_base_outlives_the_object_that_brought_it(world):
    stored(world, b"first")
    second = stored(world, b"second", 1)
    assert bases(world)
    old = base_packs(world)
    world.delete(b"first")
    progress = world.collect(GREEDY)
    assert progress.removed_packs >= 1
    assert old.isdisjoint(world.rows())  # the bases were moved, into frames without bases
    forget_cached(world)
    assert world.get(b"second") == second
    world.check()


def test_all_of_it_comes_back_in_the_end(world):
    for number in range(4):
        stored(world, b"k%d" % number, *range(number))
    assert bases(world)
    for number in range(4):
        world.delete(b"k%d" % number)
    world.collect()
    world.seal()
    world.collect()
    assert world.rows() == {}
    assert world.placed() == {}
    assert bases(world) == {}


def test_chunks_of_a_dead_frame_may_be_found_again_so_its_bases_stay(world):
    """Nobody wants the frame, but its pack is dense: an upload of the same bytes finds it, and reads it."""
    stored(world, b"first")
    tail = edited(120_000, seed=3)
    second = edited(LENGTH, 1)
    ingest = world.chunks.ingest()
    ingest.feed(second)
    ingest.flush()  # the tail is in frames of its own
    ingest.feed(tail)
    world.commit_upload(ingest, b"second", second + tail)
    world.seal()
    ((dense, _), _), *_ = bases(world).items()
    world.put(b"tail", tail)
    world.delete(b"first")
    world.delete(b"second")
    world.collect(gc.Policy(target_bytes=12_000, sparse_share=0.5, tolerated_garbage=0.9, small_packs=1000))
    assert world.rows()[dense].state == PackState.SEALED
    forget_cached(world)
    ingest = world.chunks.ingest()
    ingest.feed(second)
    world.commit_upload(ingest, b"again", second)
    assert ingest.new_raw_bytes < LENGTH  # some of it was found
    assert world.get(b"again") == second


MERGE = gc.Policy(target_bytes=1 << 30, small_packs=2)


def move(world: World, times: int = 1) -> None:
    for number in range(times):
        world.put(b"other", noise(1000, number))
        world.seal()
        world.collect(MERGE)
        world.seal()


def test_what_is_moved_keeps_its_bases_and_they_stay(world):
    first = stored(world, b"first")
    second = stored(world, b"second", 1)
    world.seal()
    before = bases(world)
    move(world, times=3)
    assert bases(world).keys().isdisjoint(before), "all of it was moved"
    assert {base for each in bases(world).values() for base in each.ids} <= {
        base for each in before.values() for base in each.ids
    }
    world.delete(b"first")
    move(world, times=2)
    assert bases(world)
    forget_cached(world)
    assert world.get(b"second") == second != first
    world.delete(b"second")
    world.delete(b"other")
    world.collect(GREEDY)
    assert bases(world) == {}


def test_a_part_of_a_frame_keeps_its_bases_alone(world):
    """Of what was stored behind bases some chunks are dead, the others are moved."""
    stored(world, b"first")
    second = stored(world, b"second", 1)
    part = second[: len(second) // 2]
    world.put(b"part", part)
    world.delete(b"second")
    world.seal()
    move(world)
    assert bases(world)
    forget_cached(world)
    assert world.get(b"part") == part


def test_bases_that_cannot_be_read_are_left_behind(world, monkeypatch):
    first = stored(world, b"first")
    second = stored(world, b"second", 1)
    world.seal()
    monkeypatch.setattr("cas.store.ChunkStore.find_bases", lambda self, frame: None)
    move(world)
    assert bases(world) == {}
    forget_cached(world)
    assert (world.get(b"first"), world.get(b"second")) == (first, second)


def test_without_the_mark_of_bases_it_would_be_lost(world, monkeypatch):
    """The mutant: these tests can fail."""
    stored(world, b"first")
    stored(world, b"second", 1)
    world.delete(b"first")
    monkeypatch.setattr("cas.marking.Marker.add_bases", lambda self: iter(()))
    world.collect(GREEDY)
    forget_cached(world)
    with pytest.raises(MissingChunk):
        world.get(b"second")
