"""Manifests behave like the bytes they name: cut, concatenated and walked, at any depth."""

from __future__ import annotations

import random
from dataclasses import replace
from hashlib import sha256
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.chunk import ChunkId
from cas.errors import CorruptManifest, UnsupportedFormat
from cas.manifest import (
    BRANCH,
    EMPTY,
    INLINE_ENTRIES,
    LEAF,
    MAX_LEVEL,
    MAX_NODE,
    MIN_NODE,
    Builder,
    Entry,
    Manifest,
    concatenate,
    cut,
    decode_node,
    encode_node,
    join,
    node_ends,
    pack,
    unpack,
    walk,
    walk_down,
)


def node_id(data: bytes) -> ChunkId:
    return ChunkId(sha256(b"node" + data).digest())


class Library:
    """Chunks and nodes by id; what a store is to a manifest."""

    def __init__(self) -> None:
        self.chunks: dict[ChunkId, bytes] = {}
        self.nodes: dict[ChunkId, bytes] = {}
        self.fetched = 0

    def entries(self, data: bytes, step: int) -> list[Entry]:
        found = []
        for start in range(0, len(data), step):
            chunk = data[start : start + step]
            chunk_id = ChunkId(sha256(chunk).digest())
            self.chunks[chunk_id] = chunk
            found.append(Entry(chunk_id, 0, len(chunk)))
        return found

    def keep(self, nodes) -> None:
        self.nodes.update({node.id: node.data for node in nodes})

    def build(self, data: bytes, step: int = 3, batch: int = 50) -> Manifest:
        entries = self.entries(data, step)
        builder = Builder(node_id)
        for start in range(0, len(entries), batch):
            part = entries[start : start + batch]
            self.keep(builder.add(pack(0, part), sum(entry.length for entry in part)))
        manifest, nodes = builder.finish()
        self.keep(nodes)
        return manifest

    def concatenate(self, parts: list[Manifest]) -> Manifest:
        manifest, nodes = concatenate(parts, node_id)
        self.keep(nodes)
        return manifest

    def fetch(self, node: ChunkId) -> bytes:
        self.fetched += 1
        return self.nodes[node]

    def read(self, manifest: Manifest, start: int = 0, stop: int | None = None) -> bytes:
        stop = manifest.size if stop is None else stop
        found = walk(manifest.level, manifest.entries, start, stop, self.fetch)
        return b"".join(self.chunks[entry.id][entry.start : entry.start + entry.length] for entry in found)


def data_of(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


lengths = st.one_of(st.integers(0, 30), st.sampled_from([192, 193, 195, 600, 6200, 20_000]))


@settings(deadline=None, max_examples=50)
@given(lengths, st.integers(1, 7), st.integers(1, 3000), st.tuples(st.integers(0), st.integers(0)))
def test_built_manifest_names_its_bytes(length: int, step: int, batch: int, window: tuple[int, int]):
    library = Library()
    data = data_of(length)
    manifest = library.build(data, step, batch)
    assert manifest.size == length
    assert len(manifest) <= INLINE_ENTRIES
    assert Manifest.decode(manifest.encode()) == manifest
    start, stop = sorted(point % (length + 1) for point in window)
    assert library.read(manifest, start, stop) == data[start:stop]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 400), st.integers(1, 400))
def test_arrival_of_entries_does_not_change_the_manifest(first: int, second: int):
    data = data_of(12_000)
    assert Library().build(data, 3, first) == Library().build(data, 3, second)


def test_small_manifest_stays_inline():
    library = Library()
    assert library.build(data_of(INLINE_ENTRIES), 1).level == 0
    assert library.build(data_of(INLINE_ENTRIES + 1), 1).level == 1
    assert library.build(b"") == EMPTY


def test_manifest_grows_in_levels():
    library = Library()
    manifest = library.build(
        data_of(70_000), 1, 4000
    )  # 256 different chunks: cuts by content or at the maximum
    assert manifest.level == 1
    entries = [Entry(ChunkId(sha256(b"%d" % n).digest()), 0, 1) for n in range(100_000)]
    builder = Builder(node_id)
    library.keep(builder.add(pack(0, entries), len(entries)))
    manifest, nodes = builder.finish()
    library.keep(nodes)
    assert manifest.level == 2
    assert list(walk(2, manifest.entries, 0, manifest.size, library.fetch)) == entries


def test_nodes_are_cut_by_content_within_bounds():
    entries = pack(0, [Entry(ChunkId(sha256(b"%d" % n).digest()), 0, 1) for n in range(50_000)])
    ends = node_ends(0, entries, final=True)
    sizes = [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    assert all(MIN_NODE <= size <= MAX_NODE for size in sizes[:-1])
    assert 400 < sum(sizes) / len(sizes) < 800
    for end, size in zip(ends[:-1], sizes[:-1], strict=True):
        last = entries[(end - 1) * LEAF.size :][:32]
        assert size == MAX_NODE or int.from_bytes(last, "big") & 0x1FF == 0


def test_changed_beginning_leaves_later_nodes_alone():
    entries = [Entry(ChunkId(sha256(b"%d" % n).digest()), 0, 1) for n in range(20_000)]
    first, second = Library(), Library()
    for library, part in ((first, entries), (second, [Entry(ChunkId(b"x" * 32), 0, 5), *entries])):
        builder = Builder(node_id)
        library.keep(builder.add(pack(0, part), sum(entry.length for entry in part)))
        library.keep(builder.finish()[1])
    assert len(second.nodes.keys() - first.nodes.keys()) == 1


def test_builder_holds_little():
    builder = Builder(node_id)
    for n in range(30_000):
        builder.add(LEAF.pack(sha256(b"%d" % n).digest(), 0, 1), 1)
        assert sum(map(len, builder._levels)) <= 2 * MAX_NODE * BRANCH.size


def test_reading_a_window_fetches_only_the_nodes_under_it():
    library = Library()
    entries = [Entry(ChunkId(sha256(b"%d" % n).digest()), 0, 10) for n in range(60_000)]
    builder = Builder(node_id)
    library.keep(builder.add(pack(0, entries), 600_000))
    manifest, nodes = builder.finish()
    library.keep(nodes)
    assert len(library.nodes) > 50
    found = list(walk(manifest.level, manifest.entries, 300_005, 300_025, library.fetch))
    assert found == [
        Entry(entries[30_000].id, 5, 5), Entry(entries[30_001].id, 0, 10), Entry(entries[30_002].id, 0, 5)
    ]  # fmt: skip
    assert library.fetched <= manifest.level


def test_walk_is_lazy():
    library = Library()
    manifest = library.build(data_of(60_000), 1)
    assert manifest.level >= 1
    list(islice(walk(manifest.level, manifest.entries, 0, manifest.size, library.fetch), 3))
    assert library.fetched == manifest.level


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_cuts_and_concatenations_behave_like_bytes(data: st.DataObject):
    library = Library()
    pool = [(content, library.build(content, step)) for content, step in
            ((b"", 1), (data_of(5), 2), (data_of(150, 1), 1), (data_of(700, 2), 3), (data_of(9000, 3), 2))]  # fmt: skip
    for _ in range(data.draw(st.integers(1, 6))):
        contents, parts = [], []
        for _ in range(data.draw(st.integers(0, 5))):
            content, manifest = pool[data.draw(st.integers(0, len(pool) - 1))]
            start, stop = sorted(data.draw(st.integers(0, len(content))) for _ in range(2))
            contents.append(content[start:stop])
            parts.append(cut(manifest, start, stop))
        manifest = library.concatenate(parts)
        content = b"".join(contents)
        assert manifest.size == len(content)
        assert len(manifest) <= INLINE_ENTRIES
        assert library.read(manifest) == content
        assert Manifest.decode(manifest.encode()) == manifest
        pool.append((content, manifest))


def test_cutting_and_joining_again_gives_the_same_manifest():
    library = Library()
    data = data_of(9000)
    manifest = library.build(data, 1)
    for middle in (1, 63, 64, 4000, 4001, 8999):
        parts = [cut(manifest, 0, middle), cut(manifest, middle, manifest.size)]
        assert library.concatenate(parts) == manifest


def test_concatenation_touches_no_leaf():
    library = Library()
    parts = [library.build(data_of(9000, seed), 1) for seed in range(5)]
    whole = library.concatenate(parts)
    library.fetched = 0
    assert whole.level == parts[0].level
    assert library.fetched == 0
    assert library.read(whole) == b"".join(data_of(9000, seed) for seed in range(5))


def test_complete_of_many_parts_is_shallow():
    library = Library()
    parts = [library.build(data_of(300, seed), 2) for seed in range(500)]
    whole = library.concatenate(parts)
    assert whole.level == 2
    assert library.read(whole, 299, 301) == data_of(300, 0)[299:] + data_of(300, 1)[:1]


def test_many_appends_may_exceed_the_levels_and_can_be_built_anew():
    library = Library()
    content = data_of(500)
    manifest = library.build(content, 2)
    for seed in range(MAX_LEVEL * INLINE_ENTRIES):
        more = data_of(3, seed)
        manifest = library.concatenate([manifest, library.build(more, 3)])
        content += more
        if manifest.level > MAX_LEVEL:
            break
    else:
        pytest.fail("the tree never became too deep")
    builder = Builder(node_id, 1)
    for entry in walk_down(1, manifest.level, manifest.entries, 0, manifest.size, library.fetch):
        library.keep(builder.add(pack(1, [entry]), entry.length))
    rebuilt, nodes = builder.finish()
    library.keep(nodes)
    assert rebuilt.level <= 3
    assert library.read(rebuilt) == content


def test_join_merges_only_what_continues():
    one, two = ChunkId(b"1" * 32), ChunkId(b"2" * 32)
    lists = [
        [Entry(one, 0, 5)],
        [],
        [Entry(one, 5, 5), Entry(two, 0, 3)],
        [Entry(two, 4, 1)],
        [Entry(one, 5, 1)],
    ]
    joined = join(0, [pack(0, entries) for entries in lists])
    assert list(unpack(0, joined)) == [
        Entry(one, 0, 10),
        Entry(two, 0, 3),
        Entry(two, 4, 1),
        Entry(one, 5, 1),
    ]


@pytest.mark.parametrize("window", [(-1, 0), (0, 6), (3, 2)])
def test_range_outside_is_refused(window: tuple[int, int]):
    with pytest.raises(ValueError, match="of 5 bytes"):
        cut(Library().build(b"abcde"), *window)


def test_node_that_spans_less_than_its_entry_says_is_corrupt():
    library = Library()
    manifest = library.build(data_of(100), 1)
    (entry,) = manifest
    longer = replace(manifest, size=101, entries=pack(1, [entry._replace(length=101)]))
    with pytest.raises(CorruptManifest, match="spans"):
        library.read(longer)


def test_node_of_another_level_is_corrupt():
    node = encode_node(0, pack(0, [Entry(ChunkId(bytes(32)), 0, 1)]))
    assert len(decode_node(node, 0)) == LEAF.size
    for data, level in ((node, 1), (node[:-1], 0), (node[:3], 0), (b"XXXX" + node[4:], 0)):
        with pytest.raises(CorruptManifest):
            decode_node(data, level)
    with pytest.raises(UnsupportedFormat):
        decode_node(node[:4] + b"\x02" + node[5:], 0)


def test_bytes_of_manifests_are_pinned():
    """As FORMAT.md lays them out."""
    leaf = pack(0, [Entry(ChunkId(b"c" * 32), 1, 2)])
    assert Manifest(0, 2, leaf).encode().hex() == "010000010000000000000002" + "63" * 32 + "0000000100000002"
    branch = pack(1, [Entry(ChunkId(b"n" * 32), 1, 2)])
    assert Manifest(1, 2, branch).encode()[44:].hex() == "00000000000000010000000000000002"
    assert encode_node(0, leaf).hex() == "56744e6401000001" + leaf.hex()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_manifest(data: bytes):
    for candidate in (data, b"\x01\x00\x00\x02" + data):
        try:
            manifest = Manifest.decode(candidate)
        except (CorruptManifest, UnsupportedFormat):
            continue
        assert manifest.encode() == candidate
