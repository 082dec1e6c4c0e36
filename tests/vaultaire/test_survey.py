"""What buckets hold, exactly; and roots that need no snapshot while they are followed."""

from __future__ import annotations

import random

import pytest

from cas.manifest import Manifest, walk
from cas.marking import Bits
from index.buckets import get_bucket
from index.versions import iterate_versions
from tests.cas.support import noise
from tests.vaultaire.collection_world import World
from vaultaire.roots import Roots
from vaultaire.survey import exhaust, mark, measure


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.end()


def gathered(world: World, limit: int = 1 << 30) -> Roots:
    roots = Roots(world.kv)
    exhaust(roots.copy(world.directory / "tmp", limit))
    return roots


def named(world: World, bucket: str) -> dict[bytes, int]:
    """chunk -> raw length, the plain way."""
    found: dict[bytes, int] = {}
    with world.kv.snapshot() as reader:
        for _, record in iterate_versions(reader, get_bucket(reader, bucket).id):
            manifest = Manifest.decode(record.manifest)
            fetch = world.chunks._fetch_node_now
            for entry in walk(manifest.level, manifest.entries, 0, manifest.size, fetch):
                row = reader.get("cas.placements", entry.id)
                found[entry.id] = int.from_bytes(row[23:27], "big")
    return found


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["copied out", "by a held snapshot"])
@pytest.mark.parametrize("seed", range(3))
def test_figures_of_buckets_are_exact(world, seed, limit):
    rng = random.Random(seed)
    names = ["a", "b", "c", "d"]
    for name in names:
        world.bucket(name)
    for number in range(24):
        shared = noise(rng.choice([2_000, 30_000]), rng.randrange(4))
        own = noise(rng.randrange(3_000), 100 + number) if rng.random() < 0.5 else b""
        world.put(b"k%d" % number, shared + own + b"x", rng.choice(names))
    roots = gathered(world, limit)
    usage = exhaust(measure(world.chunks, world.kv, roots))
    roots.close()
    chunks = {name: named(world, name) for name in names}
    assert not usage.incomplete
    for name in names:
        with world.kv.snapshot() as reader:
            found = usage.buckets[get_bucket(reader, name).id]
        others = set().union(*(chunks[other] for other in names if other != name))
        assert found.unique_bytes == sum(chunks[name].values())
        assert found.exclusive_bytes == sum(
            length for chunk, length in chunks[name].items() if chunk not in others
        )
        assert 0 < found.stored_bytes < found.unique_bytes * 1.5 or not found.unique_bytes


def test_roots_are_those_of_one_moment(world):
    world.bucket()
    world.put(b"k", noise(3_000))
    roots = gathered(world)
    world.put(b"other", noise(3_000, 1))
    world.delete(b"k")
    marker = exhaust(mark(world.chunks, roots))
    roots.close()
    assert marker.raw_bytes == 3_000


def test_bits_are_sets_of_places():
    rng = random.Random(1)
    one, other = ({(rng.randrange(4), rng.randrange(3_000)) for _ in range(900)} for _ in range(2))
    first, second, union = Bits(), Bits(), Bits()
    for bits, places in ((first, one), (second, other), (union, one)):
        for place in places:
            assert bits.add(*place)
            assert not bits.add(*place)
    everywhere = [(pack, ordinal) for pack in range(5) for ordinal in range(3_100)]
    common = first.common(second)
    assert {place for place in everywhere if place in common} == one & other
    union.update(second)
    assert {place for place in everywhere if place in union} == one | other
    assert not Bits()
    assert bool(first)


def test_a_damaged_record_makes_the_walk_incomplete(world):
    world.bucket()
    world.put(b"k", noise(3_000))

    def hurt(txn) -> None:
        for row, value in list(txn.scan("idx.objects")):
            txn.put("idx.objects", row, value[:20])

    world.kv.commit(hurt)
    for limit in (1 << 30, 0):
        roots = gathered(world, limit)
        usage = exhaust(measure(world.chunks, world.kv, roots))
        roots.close()
        assert usage.incomplete
        assert usage.errors
