"""Objects of a bucket without versioning: one version per key, and counters that always agree with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from index import counters
from index.counters import NamesStatistics, statistics
from index.errors import CorruptRecord, InvalidKey
from index.keys import encode_id
from index.memory_kv import MemoryKv
from index.objects import get_object
from index.records import BucketRecord, ObjectRecord
from index.tables import COUNTERS, META, TABLES
from index.versions import Change, Deletion, delete_object, put_object

BUCKET = 2
RECORD_OF_BUCKET = BucketRecord(BUCKET, "b", "tenant", 1)
NOTHING = Deletion(marker=False, version_id=None)
RECORD = ObjectRecord(3, 1, "d41d8cd98f00b204e9800998ecf8427e", "tenant", inline=b"abc")


@pytest.fixture
def kv() -> MemoryKv:
    return MemoryKv(TABLES)


def put(kv, key, record=RECORD, writer=1, bucket_id=BUCKET):
    bucket = BucketRecord(bucket_id, "b", "tenant", 1)
    change = Change(writer, 1, b"8 random")
    return kv.commit(lambda txn: put_object(txn, bucket, key, record, change))


def delete(kv, key, writer=1):
    change = Change(writer, 1, b"8 random")
    return kv.commit(lambda txn: delete_object(txn, RECORD_OF_BUCKET, key, "tenant", change))


def get(kv, key):
    with kv.snapshot() as reader:
        return get_object(reader, BUCKET, key)


def count(kv, bucket_id=None):
    with kv.snapshot() as reader:
        return statistics(reader, bucket_id)


@pytest.mark.parametrize("key", [b"k", b"\x00", b"\xff" * 1024, b"\x00" * 1024, b"k" * 401])
def test_an_object_is_put_read_replaced_and_deleted(kv, key):
    assert get(kv, key) is None
    assert put(kv, key) is None
    assert get(kv, key) == replace(RECORD, sequence=1)
    assert put(kv, key, replace(RECORD, size=10)) is None
    assert get(kv, key) == replace(RECORD, size=10, sequence=2)
    assert delete(kv, key) == NOTHING
    assert get(kv, key) is None
    assert delete(kv, key) == NOTHING
    with kv.snapshot() as reader:
        assert [t for t in TABLES if t not in (META, COUNTERS) and list(reader.scan(t))] == []


def test_the_record_carries_the_sequence_of_its_commit_whatever_it_said(kv):
    put(kv, b"other")
    put(kv, b"k", replace(RECORD, sequence=77))
    found = get(kv, b"k")
    assert found is not None
    assert found.sequence == 2


def test_counters_follow_puts_replacements_and_deletes_of_all_writers(kv):
    put(kv, b"a", writer=1)
    put(kv, b"b", replace(RECORD, size=10), writer=2)
    assert count(kv) == count(kv, BUCKET) == NamesStatistics(2, 13, 6)
    put(kv, b"a", replace(RECORD, size=100), writer=2)
    assert count(kv, BUCKET) == NamesStatistics(2, 110, 6)
    delete(kv, b"a", writer=1)
    delete(kv, b"a", writer=1)
    assert count(kv, BUCKET) == NamesStatistics(1, 10, 3)
    put(kv, b"a", bucket_id=BUCKET + 1)
    assert count(kv, BUCKET) == NamesStatistics(1, 10, 3)
    assert count(kv) == NamesStatistics(2, 13, 6)


def test_a_writer_changes_only_its_own_counter_row(kv):
    put(kv, b"a", writer=1)
    with kv.snapshot() as reader:
        before = dict(reader.scan(COUNTERS))
    put(kv, b"b", writer=2)
    with kv.snapshot() as reader:
        after = dict(reader.scan(COUNTERS))
    assert len(after) == 2
    assert before.items() <= after.items()


def test_a_replacement_of_the_same_size_leaves_the_counters_alone(kv):
    put(kv, b"a", writer=1)
    put(kv, b"a", writer=2)
    with kv.snapshot() as reader:
        assert len(list(reader.scan(COUNTERS))) == 1


def test_a_failed_commit_changes_neither_object_nor_counter(kv):
    put(kv, b"a")

    def fail(txn):
        change = Change(1, 1, b"8 random")
        put_object(txn, RECORD_OF_BUCKET, b"b" * 900, RECORD, change)
        delete_object(txn, RECORD_OF_BUCKET, b"a", "tenant", change)
        raise KeyError

    with pytest.raises(KeyError):
        kv.commit(fail)
    assert get(kv, b"b" * 900) is None
    assert get(kv, b"a") == replace(RECORD, sequence=1)
    assert count(kv) == NamesStatistics(1, 3, 3)


@pytest.mark.parametrize("key", [b"", b"k" * 1025])
def test_keys_out_of_bounds_are_refused(kv, key):
    for use in (put, delete, get):
        with pytest.raises(InvalidKey):
            use(kv, key)


def test_a_damaged_counter_is_corrupt(kv):
    kv.commit(lambda txn: counters.add(txn, COUNTERS, encode_id(BUCKET), 1, counters.added(RECORD)))
    for damaged in (b"", b"\x02" + bytes(16)):
        kv.commit(lambda txn, damaged=damaged: txn.put(COUNTERS, bytes(7) + b"\x02" + bytes(4), damaged))
        with pytest.raises(CorruptRecord):
            count(kv)
