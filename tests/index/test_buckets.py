"""Buckets: names, numbers that are never reused, and what deleting takes along."""

from __future__ import annotations

import pytest

from index import counters, tree
from index.buckets import (
    bucket_by_id,
    create_bucket,
    delete_bucket,
    delete_uploads,
    get_bucket,
    list_buckets,
    set_object_lock,
    set_versioning,
)
from index.errors import (
    BucketExists,
    BucketNotEmpty,
    CorruptRecord,
    NoSuchBucket,
    VersioningFixed,
    VersioningNeeded,
)
from index.keys import encode_id, inverted
from index.kv import MAX_KEY_BYTES
from index.memory_kv import MemoryKv
from index.records import DefaultRetention, ObjectRecord, PartRecord, UploadRecord
from index.tables import BUCKETS, META, PARTS, TABLES, UPLOADS, VERSIONS
from index.uploads import create_upload, put_part
from index.versions import Change, delete_object, put_object

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
CHANGE = Change(4, 1, b"8 random")


@pytest.fixture
def kv() -> MemoryKv:
    return MemoryKv(TABLES)


def create(kv: MemoryKv, name: str, owner: str = "tenant"):
    return kv.commit(lambda txn: create_bucket(txn, name, owner, 1000))


def rows(kv: MemoryKv) -> int:
    with kv.snapshot() as reader:
        return sum(1 for table in TABLES if table != META for _ in reader.scan(table))


def names(page) -> list[str]:
    return [record.name for record in page.buckets]


def test_a_created_bucket_is_found_by_name(kv):
    record = create(kv, "photos")
    assert (record.id, record.owner, record.created_ms, record.sequence) == (1, "tenant", 1000, 1)
    with kv.snapshot() as reader:
        assert get_bucket(reader, "photos") == record
        assert get_bucket(reader, "photo") is None


def test_creating_again_tells_whose_it_is(kv):
    create(kv, "photos", "first")
    with pytest.raises(BucketExists) as caught:
        create(kv, "photos", "second")
    assert caught.value.owner == "first"


def test_numbers_are_never_reused(kv):
    first = create(kv, "photos")
    kv.commit(lambda txn: delete_bucket(txn, "photos"))
    assert create(kv, "photos").id > first.id


def test_deleting_removes_every_row(kv):
    record = create(kv, "photos")

    def fill_and_empty(txn):
        put_object(txn, record, b"k" * 900, ObjectRecord(3, 1, MD5, "o", inline=b"abc"), CHANGE)
        delete_object(txn, record, b"k" * 900, "o", Change(5, 1, b"8 random"))
        upload = UploadRecord(upload_id="", key=b"u" * 900, owner="o", initiated_ms=1)
        stored = create_upload(txn, record.id, upload, b"8 random")
        put_part(txn, record, upload.key, stored.upload_id, PartRecord(1, 1, MD5, 1, b"m"), 1)

    kv.commit(fill_and_empty)
    assert kv.commit(lambda txn: delete_bucket(txn, "photos")) == record
    assert rows(kv) == 0


def test_many_uploads_of_a_bucket_go_in_bounded_commits(kv):
    record, other = create(kv, "photos"), create(kv, "other")
    limit = 10

    def fill(txn):
        for bucket_id, count in ((record.id, 25), (other.id, 1)):
            for n in range(count):
                upload = UploadRecord(upload_id="", key=b"u" * (300 * (n % 3 + 1)), owner="o", initiated_ms=1)
                stored = create_upload(txn, bucket_id, upload, b"upload%02d" % n)
                for number in range(1, 4):
                    part = PartRecord(number, 1, MD5, 1, b"m")
                    put_part(txn, bucket_by_id(txn, bucket_id), upload.key, stored.upload_id, part, 1)

    kv.commit(fill)
    before, commits = rows(kv), 0
    while kv.commit(lambda txn: delete_uploads(txn, "photos", limit)):
        assert before - rows(kv) <= 5 * limit  # an upload may take a node of its key path and few parts along
        before, commits = rows(kv), commits + 1
    assert commits >= 75 // limit
    kv.commit(lambda txn: delete_bucket(txn, "photos"))
    with kv.snapshot() as reader:
        assert list(reader.scan(UPLOADS, encode_id(record.id), encode_id(record.id + 1))) == []
        assert len(list(reader.scan(PARTS, encode_id(other.id)))) == 3
    kv.commit(lambda txn: delete_bucket(txn, "other"))
    assert rows(kv) == 0


def test_deleting_keeps_the_neighbours(kv):
    first, second = create(kv, "first"), create(kv, "second")
    kv.commit(lambda txn: put_object(txn, second, b"k", ObjectRecord(3, 1, MD5, "o", inline=b"abc"), CHANGE))
    kv.commit(lambda txn: delete_bucket(txn, "first"))
    with kv.snapshot() as reader:
        assert get_bucket(reader, "second") == second
        assert counters.statistics(reader, second.id).objects == 1
        assert counters.statistics(reader, first.id).objects == 0


def test_a_bucket_with_an_object_or_a_version_is_not_deleted(kv):
    record = create(kv, "photos")
    value = ObjectRecord(3, 1, MD5, "o", inline=b"abc")
    kv.commit(lambda txn: put_object(txn, record, b"k" * 900, value, CHANGE))
    with pytest.raises(BucketNotEmpty):
        kv.commit(lambda txn: delete_bucket(txn, "photos"))
    kv.commit(lambda txn: delete_object(txn, record, b"k" * 900, "o", CHANGE))
    kv.commit(
        lambda txn: txn.put(
            VERSIONS, tree.make_row(txn, VERSIONS, record.id, b"k") + inverted(1), value.encode()
        )
    )
    with pytest.raises(BucketNotEmpty):
        kv.commit(lambda txn: delete_bucket(txn, "photos"))


def test_deleting_an_unknown_bucket_is_an_error(kv):
    with pytest.raises(NoSuchBucket):
        kv.commit(lambda txn: delete_bucket(txn, "photos"))


def test_pages_of_buckets_are_sorted_filtered_and_complete(kv):
    for name, owner in (("b", "x"), ("a", "y"), ("ab", "x"), ("c", "x"), ("abc", "x")):
        create(kv, name, owner)
    with kv.snapshot() as reader:
        assert names(list_buckets(reader)) == ["a", "ab", "abc", "b", "c"]
        assert names(list_buckets(reader, owner="x")) == ["ab", "abc", "b", "c"]
        assert names(list_buckets(reader, prefix="ab")) == ["ab", "abc"]
        assert names(list_buckets(reader, prefix="ab", after="ab")) == ["abc"]
        assert names(list_buckets(reader, after="aa")) == ["ab", "abc", "b", "c"]
        page = list_buckets(reader, owner="x", limit=3)
        assert (names(page), page.truncated) == (["ab", "abc", "b"], True)
        page = list_buckets(reader, owner="x", after="b", limit=1)
        assert (names(page), page.truncated) == (["c"], False)
        page = list_buckets(reader, limit=0)
        assert (names(page), page.truncated) == ([], False)


def test_a_marker_longer_than_any_key_is_still_a_marker(kv):
    for name in ("a", "b"):
        create(kv, name)

    class Strict:
        """An engine refuses bounds that are longer than its keys may be."""

        def __init__(self, reader) -> None:
            self.get = reader.get
            self._scan = reader.scan

        def scan(self, table, start, stop):
            assert len(start) <= MAX_KEY_BYTES
            assert stop is None or len(stop) <= MAX_KEY_BYTES
            return self._scan(table, start, stop)

    with kv.snapshot() as reader:
        assert names(list_buckets(Strict(reader), after="a" * 2000)) == ["b"]
        assert names(list_buckets(Strict(reader), prefix="a" * 2000)) == []


def test_a_name_without_its_record_is_corrupt(kv):
    record = create(kv, "photos")
    kv.commit(lambda txn: txn.delete(BUCKETS, record.id.to_bytes(8, "big")))
    with kv.snapshot() as reader, pytest.raises(CorruptRecord):
        get_bucket(reader, "photos")


# --- Versioning and Object Lock --------------------------------------------------------------------------------


def found(kv, name="photos"):
    with kv.snapshot() as reader:
        return get_bucket(reader, name)


def test_versioning_is_off_until_it_is_set_and_survives(kv):
    assert create(kv, "photos").versioning == "Off"
    for versioning in ("Enabled", "Suspended", "Enabled"):
        kv.commit(lambda txn, v=versioning: set_versioning(txn, get_bucket(txn, "photos"), v))
        assert found(kv).versioning == versioning


def test_object_lock_needs_versioning_and_then_holds_it(kv):
    create(kv, "photos")
    for versioning in ("Off", "Suspended"):
        kv.commit(lambda txn, v=versioning: set_versioning(txn, get_bucket(txn, "photos"), v))
        with pytest.raises(VersioningNeeded):
            kv.commit(lambda txn: set_object_lock(txn, get_bucket(txn, "photos"), None))
    kv.commit(lambda txn: set_versioning(txn, get_bucket(txn, "photos"), "Enabled"))
    default = DefaultRetention("COMPLIANCE", 3, "Years")
    kv.commit(lambda txn: set_object_lock(txn, get_bucket(txn, "photos"), default))
    assert (found(kv).object_lock, found(kv).default_retention) == (True, default)
    for versioning in ("Suspended", "Off"):
        with pytest.raises(VersioningFixed):
            kv.commit(lambda txn, v=versioning: set_versioning(txn, get_bucket(txn, "photos"), v))
    kv.commit(lambda txn: set_versioning(txn, get_bucket(txn, "photos"), "Enabled"))
    kv.commit(lambda txn: set_object_lock(txn, get_bucket(txn, "photos"), None))
    assert (found(kv).object_lock, found(kv).default_retention) == (True, None)


def test_a_bucket_made_with_object_lock_is_versioned_from_the_start(kv):
    record = kv.commit(lambda txn: create_bucket(txn, "photos", "o", 1, object_lock=True))
    assert (record.object_lock, record.versioning) == (True, "Enabled")
    assert found(kv) == record
