"""Compositions cost metadata only and behave like bytes; marking counts every chunk once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.catalog import iterate_packs
from cas.pack import PackKind
from tests.cas.support import Rig, noise, words


@pytest.fixture
def rig() -> Rig:
    return Rig()


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


def test_marker_counts_every_chunk_once(rig: Rig):
    first, one = rig.put(noise(300_000))
    second, _ = rig.put(noise(300_000), noise(5000, 1))
    half = rig.compose((first, 0, 150_000))
    marker = rig.store.marker()

    def add(manifest) -> None:
        marker.add_all(manifest.encode())
        marker.finish()

    add(half)
    assert 150_000 <= marker.raw_bytes < 152_000
    add(first)
    add(half)
    assert (marker.raw_bytes, marker.chunks) == (300_000, one.chunks)
    add(second)
    assert 305_000 <= marker.raw_bytes < 310_000
    with rig.kv.snapshot() as reader:
        assert marker.raw_bytes <= rig.store.statistics(reader).unique_bytes
    assert (1 << 32 | 1, 0) in marker.bits
    assert (1 << 32 | 1, 1 << 20) not in marker.bits
    assert (9 << 32 | 1, 0) not in marker.bits


def test_marker_knows_what_is_garbage(rig: Rig):
    kept, _ = rig.put(noise(20_000))
    _, dropped = rig.put(noise(20_000, 1))
    marker = rig.store.marker()
    marker.add_all(kept.encode())
    marker.finish()
    with rig.kv.snapshot() as reader:
        statistics = rig.store.statistics(reader)
        (pack,) = (pack for pack, row in iterate_packs(reader) if row.kind == PackKind.DATA)
    marked = sum((pack, ordinal) in marker.bits for ordinal in range(1000))
    assert marked == marker.chunks == statistics.chunks - dropped.chunks
