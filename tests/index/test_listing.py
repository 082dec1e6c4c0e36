"""Listing: S3's rules against a naive sorted filter, and its cost against a reader that counts rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import keys, listing, tree
from index.errors import InvalidMarker
from index.memory_kv import MemoryKv
from index.records import BucketRecord, ObjectRecord, UploadRecord
from index.tables import NULL_VERSIONS, OBJECTS, TABLES, VERSIONS
from index.uploads import create_upload, remove_upload
from tests.strategies import bounds, object_keys, short_bytes

BUCKET = 3
MOST_PAGES = 50  # more than any listing below has: one that never ends must fail, not hang
delimiters = st.sampled_from((b"", b"/", b"a", b"\x00", b"\xff", b"ab", b"//", b"a/a", b"nowhere"))


class CountingReader:
    """Counts the rows that a listing touches."""

    def __init__(self, reader) -> None:
        self._reader = reader
        self.rows = 0

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def get(self, table, key):
        self.rows += 1
        return self._reader.get(table, key)

    def scan(self, *args, **options):
        for pair in self._reader.scan(*args, **options):
            self.rows += 1
            yield pair


def store_of(wanted) -> MemoryKv:
    kv = MemoryKv(TABLES)

    def put_all(txn):
        for key in wanted:
            txn.put(OBJECTS, tree.make_row(txn, OBJECTS, BUCKET, key), b"=" + key)

    kv.commit(put_all)
    return kv


def group_of(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    found = key.find(delimiter, len(prefix)) if delimiter else -1
    return key[: found + len(delimiter)] if found >= 0 else None


def naive(wanted, prefix, delimiter, after, skips_group=True):
    """All items in order: (key, False) or (common prefix, True)."""
    items = []
    for key in sorted(wanted):
        if not key.startswith(prefix) or (after and key <= after):
            continue
        group = group_of(key, prefix, delimiter)
        if group is None:
            items.append((key, False))
        elif not (after and skips_group and after.startswith(group)) and (group, True) not in items:
            items.append((group, True))
    return items


def items_of(page):
    entries = [(row[0], False) for row in page.entries]
    return sorted(entries + [(group, True) for group in page.common_prefixes])


def keys_of(page) -> list[bytes]:
    return [row[0] for row in page.entries]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(object_keys, unique=True, max_size=15),
    short_bytes | bounds,
    delimiters,
    st.just(b"") | bounds,
    st.integers(1, 20),
    st.booleans(),
)
def test_a_page_is_the_first_items_of_the_naive_listing(
    wanted, prefix, delimiter, after, max_keys, skips_group
):
    kv = store_of(wanted)
    expected = naive(wanted, prefix, delimiter, after, skips_group)
    with kv.snapshot() as reader:
        page = listing.list_objects(
            reader, BUCKET, prefix=prefix, delimiter=delimiter, after=after, max_keys=max_keys,
            after_skips_group=skips_group,
        )  # fmt: skip
    assert items_of(page) == expected[:max_keys]
    assert page.entries == [(key, b"=" + key) for key, is_group in expected[:max_keys] if not is_group]
    assert page.truncated == (len(expected) > max_keys)
    assert page.last == (expected[:max_keys][-1][0] if expected else b"")


@settings(deadline=None, max_examples=80)
@given(st.lists(object_keys, unique=True, max_size=15), short_bytes, delimiters, st.integers(1, 3))
def test_pages_joined_by_their_last_item_are_the_whole_listing(wanted, prefix, delimiter, max_keys):
    kv = store_of(wanted)
    found, after = [], b""
    with kv.snapshot() as reader:
        for _ in range(MOST_PAGES):
            page = listing.list_objects(
                reader, BUCKET, prefix=prefix, delimiter=delimiter, after=after, max_keys=max_keys
            )
            found += items_of(page)
            after = page.last
            if not page.truncated:
                break
    assert found == naive(wanted, prefix, delimiter, b"")


@pytest.mark.parametrize("delimiter", [b"/", b"\xff", b"/\xff"])
def test_a_seek_past_a_group_passes_its_greatest_keys_too(delimiter):
    group = b"g" + delimiter
    members = [group + tail for tail in (b"", b"a", b"\xff", b"\xff\xff", b"\xff" * 1000)]
    kv = store_of([*members, b"h"])
    with kv.snapshot() as reader:
        page = listing.list_objects(reader, BUCKET, delimiter=delimiter)
        last = listing.list_objects(reader, BUCKET, prefix=b"g", delimiter=delimiter)
    assert items_of(page) == [(group, True), (b"h", False)]
    assert items_of(last) == [(group, True)]


def test_a_group_that_nothing_can_follow_ends_the_listing():
    kv = store_of([b"\xff", b"\xff\xff", b"\xff\xff\xff"])
    with kv.snapshot() as reader:
        page = listing.list_objects(reader, BUCKET, delimiter=b"\xff", max_keys=1)
        after = listing.list_objects(reader, BUCKET, delimiter=b"\xff", after=b"\xff")
    assert (page.common_prefixes, page.truncated) == ([b"\xff"], False)
    assert items_of(after) == []


def test_markers_behave_as_the_s3_suites_expect():
    kv = store_of([b"asdf", b"boo/bar", b"boo/baz/xyzzy", b"cquux/thud", b"cquux/bla"])
    with kv.snapshot() as reader:

        def page(after, max_keys, prefix=b""):
            found = listing.list_objects(
                reader, BUCKET, prefix=prefix, delimiter=b"/", after=after, max_keys=max_keys
            )
            return found.truncated, keys_of(found), found.common_prefixes, found.last

        assert page(b"", 1) == (True, [b"asdf"], [], b"asdf")
        assert page(b"asdf", 1) == (True, [], [b"boo/"], b"boo/")
        assert page(b"boo/", 1) == (False, [], [b"cquux/"], b"cquux/")
        assert page(b"", 2) == (True, [b"asdf"], [b"boo/"], b"boo/")
        assert page(b"boo/", 2) == (False, [], [b"cquux/"], b"cquux/")
        assert page(b"", 1, b"boo/") == (True, [b"boo/bar"], [], b"boo/bar")
        assert page(b"boo/bar", 1, b"boo/") == (False, [], [b"boo/baz/"], b"boo/baz/")
        assert page(b"cquux/", 1) == (False, [], [], b"")


def test_a_marker_inside_a_group_skips_it_but_start_after_does_not():
    kv = store_of([b"folder/a/1", b"folder/a/2", b"folder/file1"])
    with kv.snapshot() as reader:
        options = {"prefix": b"folder/", "delimiter": b"/", "after": b"folder/a/1"}
        marker = listing.list_objects(reader, BUCKET, **options)
        start_after = listing.list_objects(reader, BUCKET, **options, after_skips_group=False)
    assert items_of(marker) == [(b"folder/file1", False)]
    assert items_of(start_after) == [(b"folder/a/", True), (b"folder/file1", False)]


def test_a_marker_below_a_common_prefix_does_not_hide_it():
    kv = store_of([b"photos/1", b"photos/2"])
    with kv.snapshot() as reader:
        page = listing.list_objects(reader, BUCKET, delimiter=b"/", after=b"photos")
    assert page.common_prefixes == [b"photos/"]


def test_a_directory_marker_is_an_entry_below_its_own_prefix_and_a_group_above():
    kv = store_of([b"dir/", b"dir/a"])
    with kv.snapshot() as reader:
        assert listing.list_objects(reader, BUCKET, delimiter=b"/").common_prefixes == [b"dir/"]
        inside = listing.list_objects(reader, BUCKET, prefix=b"dir/", delimiter=b"/")
    assert items_of(inside) == [(b"dir/", False), (b"dir/a", False)]


@pytest.mark.parametrize("max_keys", [0, -1])
def test_no_keys_asked_for_is_an_empty_page_that_is_not_truncated(max_keys):
    kv = store_of([b"a"])
    with kv.snapshot() as reader:
        page = listing.list_objects(reader, BUCKET, max_keys=max_keys)
    assert (page.entries, page.common_prefixes, page.truncated, page.last) == ([], [], False, b"")


@pytest.mark.parametrize("group_size", [1, 2, 1000])
def test_a_page_skips_common_prefixes_without_walking_them(group_size):
    wanted = [b"%02d/%06d" % (group, member) for group in range(30) for member in range(group_size)]
    kv = store_of(wanted)
    with kv.snapshot() as reader:
        counting = CountingReader(reader)
        page = listing.list_objects(counting, BUCKET, delimiter=b"/", max_keys=20)
    assert len(page.common_prefixes) == 20
    assert page.truncated
    assert counting.rows <= 2 * 20 + 1


def test_a_page_skips_a_common_prefix_of_long_keys_without_walking_it():
    stem = b"s" * 500
    kv = store_of([stem + b"/%04d" % number for number in range(1000)] + [stem + b"0", b"t"])
    with kv.snapshot() as reader:
        counting = CountingReader(reader)
        page = listing.list_objects(counting, BUCKET, delimiter=b"/")
    assert items_of(page) == [(stem + b"/", True), (stem + b"0", False), (b"t", False)]
    assert counting.rows <= 10


def test_the_cost_of_a_page_is_its_own_size_wherever_it_begins():
    kv = store_of([b"%06d" % number for number in range(5000)])
    with kv.snapshot() as reader:
        for after in (b"", b"002500", b"004000"):
            counting = CountingReader(reader)
            assert len(listing.list_objects(counting, BUCKET, after=after, max_keys=50).entries) == 50
            assert counting.rows == 51


def test_a_bucket_never_shows_the_keys_of_its_neighbours():
    kv = store_of([b"mine", b"x" * 900])
    with kv.snapshot() as reader:
        for other in (BUCKET - 1, BUCKET + 1):
            assert listing.list_objects(reader, other).entries == []
            assert listing.list_versions(reader, other).entries == []


# --- Versions ------------------------------------------------------------------------------------------------


def version(sequence: int, *, null: bool = False, delete_marker: bool = False) -> ObjectRecord:
    return ObjectRecord(
        size=0,
        modified_ms=1,
        etag="" if delete_marker else "00" * 16,
        owner="o",
        sequence=sequence,
        version_id=None if null else version_id(sequence),
        delete_marker=delete_marker,
        inline=None if delete_marker else b"",
    )


def version_id(sequence: int) -> bytes:
    return keys.encode_id(sequence) + b"randomly"


def versioned(history: dict[bytes, list[ObjectRecord]]) -> MemoryKv:
    """Each key's versions, ascending; the last one is current unless it is a delete marker."""
    kv = MemoryKv(TABLES)

    def put_all(txn):
        for key, records in history.items():
            older = records if records[-1].delete_marker else records[:-1]
            if older is not records:
                txn.put(OBJECTS, tree.make_row(txn, OBJECTS, BUCKET, key), records[-1].encode())
            for record in older:
                row = tree.make_row(txn, VERSIONS, BUCKET, key) + keys.inverted(record.sequence)
                txn.put(VERSIONS, row, record.encode())
                if record.version_id is None:
                    row = tree.make_row(txn, NULL_VERSIONS, BUCKET, key)
                    txn.put(NULL_VERSIONS, row, keys.encode_id(record.sequence))

    kv.commit(put_all)
    return kv


def shown(page):
    return [(row.key, ObjectRecord.decode(row.value).sequence, row.latest) for row in page.entries]


histories = st.dictionaries(
    object_keys,
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4),
    max_size=6,
)


def build(history) -> dict[bytes, list[ObjectRecord]]:
    """At most one null version per key, as S3 has it."""
    sequence, built = 0, {}
    for key, marks in history.items():
        records: list[ObjectRecord] = []
        for delete_marker, null in marks:
            sequence += 1
            null = null and all(record.version_id is not None for record in records)
            records.append(version(sequence, null=null, delete_marker=delete_marker))
        built[key] = records
    return built


def naive_versions(history):
    return [
        (key, record.sequence, record is history[key][-1])
        for key in sorted(history)
        for record in reversed(history[key])
    ]


@settings(deadline=None, max_examples=80)
@given(histories, st.integers(1, 3))
def test_pages_of_versions_are_all_of_them_newest_first(marks, max_keys):
    history = build(marks)
    kv = versioned(history)
    found, key_marker, id_marker = [], b"", None
    with kv.snapshot() as reader:
        for _ in range(MOST_PAGES):
            page = listing.list_versions(
                reader, BUCKET, key_marker=key_marker, version_id_marker=id_marker, max_keys=max_keys
            )
            found += shown(page)
            key_marker = page.last
            if not page.truncated:
                break
            if page.entries:
                id_marker = ObjectRecord.decode(page.entries[-1].value).version_id or listing.NULL_VERSION
    assert found == naive_versions(history)


@settings(deadline=None, max_examples=80)
@given(histories, short_bytes, delimiters, bounds)
def test_versions_are_grouped_like_objects(marks, prefix, delimiter, key_marker):
    history = build(marks)
    kv = versioned(history)
    with kv.snapshot() as reader:
        page = listing.list_versions(
            reader, BUCKET, prefix=prefix, delimiter=delimiter, key_marker=key_marker
        )
    expected = naive(history, prefix, delimiter, key_marker)
    assert page.common_prefixes == [group for group, is_group in expected if is_group]
    plain = {key for key, is_group in expected if not is_group}
    assert shown(page) == [row for row in naive_versions(history) if row[0] in plain]


def test_without_versioning_every_object_is_its_latest_null_version():
    kv = versioned({b"a": [version(1, null=True)], b"b": [version(2, null=True)]})
    with kv.snapshot() as reader:
        page = listing.list_versions(reader, BUCKET, max_keys=1)
        rest = listing.list_versions(reader, BUCKET, key_marker=b"a", version_id_marker=listing.NULL_VERSION)
    assert (shown(page), page.truncated, page.last) == ([(b"a", 1, True)], True, b"a")
    assert shown(rest) == [(b"b", 2, True)]


def test_a_version_marker_whose_version_is_gone_still_tells_where_to_go_on():
    kv = versioned({b"a": [version(1), version(3), version(5)]})
    with kv.snapshot() as reader:
        for gone, expected in ((6, [5, 3, 1]), (4, [3, 1]), (2, [1])):
            page = listing.list_versions(reader, BUCKET, key_marker=b"a", version_id_marker=version_id(gone))
            assert [sequence for _, sequence, _ in shown(page)] == expected
            assert [latest for _, _, latest in shown(page)] == [s == 5 for s in expected]


def test_after_a_null_version_that_is_gone_no_version_of_its_key_is_left_out():
    kv = versioned({b"a": [version(1), version(3)], b"b": [version(4)]})
    with kv.snapshot() as reader:
        page = listing.list_versions(reader, BUCKET, key_marker=b"a", version_id_marker=listing.NULL_VERSION)
    assert [sequence for _, sequence, _ in shown(page)] == [3, 1, 4]


def test_a_key_marker_outside_the_prefix_shows_none_of_its_versions():
    kv = versioned({b"a": [version(1), version(2)], b"b": [version(3), version(4)]})
    with kv.snapshot() as reader:
        page = listing.list_versions(
            reader, BUCKET, prefix=b"a", key_marker=b"b", version_id_marker=version_id(4)
        )
        endless = listing.list_versions(
            reader, BUCKET, key_marker=b"b" * 2000, version_id_marker=version_id(4)
        )
    assert page.entries == endless.entries == []


def test_a_version_marker_that_cannot_be_ours_is_refused():
    kv = versioned({b"a": [version(1)]})
    with kv.snapshot() as reader, pytest.raises(InvalidMarker):
        listing.list_versions(reader, BUCKET, key_marker=b"a", version_id_marker=b"short")


# --- Uploads -------------------------------------------------------------------------------------------------


def begin(kv: MemoryKv, key: bytes) -> str:
    record = UploadRecord(upload_id="", key=key, owner="o", initiated_ms=1)
    nonce = keys.encode_id((len(key) * 0x9E3779B97F4A7C15) % 2**64)
    return kv.commit(lambda txn: create_upload(txn, BUCKET, record, nonce)).upload_id


@settings(deadline=None, max_examples=80)
@given(st.lists(object_keys, max_size=10), short_bytes, delimiters, st.integers(1, 3))
def test_pages_of_uploads_are_all_of_them_by_key_then_initiation(begun, prefix, delimiter, max_uploads):
    kv = MemoryKv(TABLES)
    ids = [(key, begin(kv, key)) for key in begun]
    expected = naive(set(begun), prefix, delimiter, b"")
    found, groups, key_marker, id_marker = [], [], b"", ""
    with kv.snapshot() as reader:
        for _ in range(MOST_PAGES):
            page = listing.list_uploads(
                reader, BUCKET, prefix=prefix, delimiter=delimiter, key_marker=key_marker,
                upload_id_marker=id_marker, max_uploads=max_uploads,
            )  # fmt: skip
            found += [(row.key, row.upload_id) for row in page.entries]
            groups += page.common_prefixes
            key_marker, id_marker = page.last, ""
            if not page.truncated:
                break
            if page.entries and page.entries[-1].key == page.last:
                id_marker = page.entries[-1].upload_id
    assert groups == [group for group, is_group in expected if is_group]
    plain = {key for key, is_group in expected if not is_group}
    # Sorting is stable: ids of one key stay in the order of their creation.
    assert found == sorted((pair for pair in ids if pair[0] in plain), key=lambda pair: pair[0])


def test_upload_markers_follow_s3():
    kv = MemoryKv(TABLES)
    first, second, third = begin(kv, b"k"), begin(kv, b"k"), begin(kv, b"l")
    with kv.snapshot() as reader:

        def ids(**markers):
            return [row.upload_id for row in listing.list_uploads(reader, BUCKET, **markers).entries]

        assert ids() == [first, second, third]
        assert ids(key_marker=b"k") == [third]
        assert ids(key_marker=b"k", upload_id_marker=first) == [second, third]
        assert ids(key_marker=b"k", upload_id_marker=second) == [third]
        assert ids(upload_id_marker=second) == [first, second, third]
        with pytest.raises(InvalidMarker):
            ids(key_marker=b"k", upload_id_marker="nothing of ours")
    kv.commit(lambda txn: remove_upload(txn, BucketRecord(BUCKET, "b", "tenant", 1), b"k", first, 1))
    with kv.snapshot() as reader:
        page = listing.list_uploads(reader, BUCKET, key_marker=b"k", upload_id_marker=first)
    assert [row.upload_id for row in page.entries] == [second, third]
