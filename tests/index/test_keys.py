"""Key paths: the codec keeps order and identity for every legal key, and the trees leave nothing behind."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import keys, tree
from index.errors import CorruptRecord, InvalidKey
from index.kv import MAX_KEY_BYTES
from index.memory_kv import MemoryKv
from index.tables import META, OBJECTS, TABLES, UPLOADS
from tests.strategies import bounds, object_keys, short_bytes

BUCKET = 7


def rows_of(kv: MemoryKv, table: str = OBJECTS) -> list[bytes]:
    with kv.snapshot() as reader:
        return [row for row, _ in reader.scan(table)]


def filled(wanted: list[bytes]) -> MemoryKv:
    kv = MemoryKv(TABLES)

    def put_all(txn):
        for key in wanted:
            txn.put(OBJECTS, tree.make_row(txn, OBJECTS, BUCKET, key), b"value of " + key)

    kv.commit(put_all)
    return kv


def segments(key: bytes) -> list[bytes]:
    found = []
    while key:
        escaped, key = keys.cut_segment(key)
        found.append(escaped)
    return found


@given(object_keys)
def test_segments_are_full_but_the_last_and_join_to_the_key(key):
    cut = segments(key)
    assert b"".join(keys.unescape(segment) for segment in cut) == key
    assert all(len(segment) <= keys.SEGMENT_BYTES for segment in cut)
    assert all(len(segment) >= keys.SEGMENT_BYTES - 1 for segment in cut[:-1])


@given(st.binary(max_size=50))
def test_escaped_bytes_hold_no_terminator_and_come_back(segment):
    escaped = keys.escape(segment)
    assert keys.unescape(escaped) == segment
    assert keys.EXACT not in escaped + b"\xff"
    assert keys.CONTINUES not in escaped + b"\xff"


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_successor_is_above_exactly_what_begins_with_the_prefix(prefix, other):
    above = keys.successor(prefix)
    if above is None:
        assert prefix.strip(b"\xff") == b""
    else:
        assert prefix + other < above
        assert other >= above or other <= prefix or other.startswith(prefix)


@given(object_keys, st.binary(min_size=8, max_size=16))
def test_a_row_says_whether_it_ends_or_continues_whatever_its_suffix(key, suffix):
    escaped, _ = keys.cut_segment(key)
    head = keys.node_head(BUCKET, 0)
    segment = keys.unescape(escaped)
    assert keys.split_row(head + escaped + keys.EXACT + suffix) == (segment, suffix)
    assert keys.split_row(head + escaped + keys.CONTINUES) == (segment, None)


@settings(deadline=None, max_examples=60)
@given(st.lists(object_keys, unique=True, max_size=20))
def test_walk_yields_all_keys_in_byte_order(wanted):
    kv = filled(wanted)
    with kv.snapshot() as reader:
        assert list(tree.walk(reader, OBJECTS, BUCKET)) == [
            (key, b"value of " + key) for key in sorted(wanted)
        ]
        assert list(tree.walk(reader, OBJECTS, BUCKET - 1)) == []
        assert list(tree.walk(reader, OBJECTS, BUCKET + 1)) == []
    assert all(len(row) <= 16 + keys.SEGMENT_BYTES + 2 <= MAX_KEY_BYTES for row in rows_of(kv))


@settings(deadline=None, max_examples=80)
@given(st.lists(object_keys, unique=True, max_size=12), bounds, st.none() | bounds)
def test_walk_starts_and_stops_at_any_bound(wanted, start, stop):
    kv = filled(wanted)
    expected = [key for key in sorted(wanted) if key >= start and (stop is None or key < stop)]
    with kv.snapshot() as reader:
        assert [key for key, _ in tree.walk(reader, OBJECTS, BUCKET, start, stop)] == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(object_keys, st.binary(min_size=8, max_size=8)), unique=True, max_size=12), bounds)
def test_suffixed_rows_come_by_key_then_suffix(wanted, start):
    kv = MemoryKv(TABLES)

    def put_all(txn):
        for key, suffix in wanted:
            txn.put(UPLOADS, tree.make_row(txn, UPLOADS, BUCKET, key) + suffix, b"")

    kv.commit(put_all)
    with kv.snapshot() as reader:
        found = [(key, suffix) for key, suffix, _ in tree.walk_suffixed(reader, UPLOADS, BUCKET, start)]
        assert found == [pair for pair in sorted(wanted) if pair[0] >= start]
        for key, suffix in wanted:
            after = [s for k, s in sorted(wanted) if k == key and s > suffix]
            assert [s for s, _ in tree.suffixes(reader, UPLOADS, BUCKET, key, after=suffix)] == after


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(object_keys, unique=True, min_size=1, max_size=12))
def test_removing_every_key_leaves_no_row_and_reuses_no_node(data, wanted):
    kv = filled(wanted)
    for key in data.draw(st.permutations(wanted)):
        assert kv.commit(lambda txn, key=key: tree.remove_row(txn, OBJECTS, BUCKET, key))
        assert not kv.commit(lambda txn, key=key: tree.remove_row(txn, OBJECTS, BUCKET, key))
    assert rows_of(kv) == []
    with kv.snapshot() as reader:
        before = reader.get(META, b"next-node-id")
    kv.commit(lambda txn: tree.make_row(txn, OBJECTS, BUCKET, b"x" * 1024))
    with kv.snapshot() as reader:
        link = reader.get(OBJECTS, keys.node_head(BUCKET, 0) + b"x" * 400 + keys.CONTINUES)
    assert link == (before or keys.encode_id(1))


@pytest.mark.parametrize("shared", [399, 400, 401, 799, 800, 801, 1023])
@pytest.mark.parametrize("byte", [b"a", b"\x00", b"\xff"])
def test_keys_that_share_a_long_prefix_stay_apart_and_in_order(shared, byte):
    stem = byte * shared
    wanted = [stem, *(stem + bytes((last,)) for last in (0, 1, 0x61, 0xFF)), byte * (shared - 1) + b"b"]
    kv = filled(wanted)
    with kv.snapshot() as reader:
        assert [key for key, _ in tree.walk(reader, OBJECTS, BUCKET)] == sorted(wanted)
        for key in wanted:
            row = tree.find_row(reader, OBJECTS, BUCKET, key)
            assert row is not None
            assert reader.get(OBJECTS, row) == b"value of " + key


def test_an_escape_pair_is_never_cut():
    key = b"a" * 399 + b"\x00" + b"b"
    assert segments(key) == [b"a" * 399, b"\x00\xffb"]
    # 399 bytes that continue with 00 precede the same bytes followed by what still fits.
    kv = filled([key, b"a" * 399, b"a" * 399 + b"\x01"])
    with kv.snapshot() as reader:
        found = [key for key, _ in tree.walk(reader, OBJECTS, BUCKET)]
    assert found == [b"a" * 399, key, b"a" * 399 + b"\x01"]


def test_rows_of_the_layout_are_what_the_schema_says():
    kv = filled([b"k\x00", b"x" * 401])
    assert [row.hex() for row in rows_of(kv)] == [
        "0000000000000007" "0000000000000000" "6b00ff" "0000",
        "0000000000000007" "0000000000000000" + "78" * 400 + "0001",
        "0000000000000007" "0000000000000001" "78" "0000",
    ]  # fmt: skip


@pytest.mark.parametrize("key", [b"", b"x" * 1025])
def test_keys_out_of_bounds_are_refused_by_every_entry(key):
    kv = MemoryKv(TABLES)
    for use in (tree.find_row, tree.make_row, tree.remove_row):
        with pytest.raises(InvalidKey, match="1 to 1024"):
            kv.commit(lambda txn, use=use: use(txn, OBJECTS, BUCKET, key))


@given(short_bytes)
def test_a_row_without_terminator_is_corrupt(tail):
    escaped = keys.escape(tail) + b"x"
    with pytest.raises(CorruptRecord):
        keys.split_row(keys.node_head(BUCKET, 0) + escaped)


def test_a_link_that_is_no_number_is_corrupt():
    kv = filled([b"x" * 500])
    kv.commit(lambda txn: txn.put(OBJECTS, keys.node_head(BUCKET, 0) + b"x" * 400 + keys.CONTINUES, b"1"))
    with kv.snapshot() as reader, pytest.raises(CorruptRecord):
        tree.find_row(reader, OBJECTS, BUCKET, b"x" * 500)
    with kv.snapshot() as reader, pytest.raises(CorruptRecord):
        list(tree.walk(reader, OBJECTS, BUCKET))
