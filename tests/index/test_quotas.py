"""Quotas and the counters they are decided from: bytes, borders, folding. Histories: tests/model/test_index_model.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import counters, quotas, uploads, versions
from index.buckets import create_bucket, delete_bucket, delete_uploads, get_bucket
from index.counters import FOLD_ROWS, MARK, NamesStatistics, statistics
from index.errors import CorruptRecord, QuotaExceeded, WouldOverwrite
from index.keys import encode_id
from index.memory_kv import MemoryKv
from index.quotas import MAX_LIMIT, UNLIMITED, Limits, Usage, plan_refusal
from index.records import BucketRecord, ObjectRecord, PartRecord, UploadRecord
from index.tables import BUCKETS, COUNTERS, QUOTAS, TABLES, TENANT_COUNTERS, TENANT_QUOTAS
from index.verify_names import BucketCheck, buckets_of, check_buckets
from index.versions import Change

MD5 = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.fixture
def kv() -> MemoryKv:
    kv = MemoryKv(TABLES)
    kv.commit(lambda txn: create_bucket(txn, "one", "alice", 1))
    kv.commit(lambda txn: create_bucket(txn, "two", "alice", 1))
    return kv


def limit(kv, name, **limits):
    kv.commit(lambda txn: quotas.set_bucket_limits(txn, get_bucket(txn, name), Limits(**limits)))


def limit_tenant(kv, tenant="alice", **limits):
    kv.commit(lambda txn: quotas.set_tenant_limits(txn, tenant, Limits(**limits)))


def put(kv, key, size=1, stored=0, bucket="one", writer=1, **change):
    record = ObjectRecord(size, 1, MD5, "alice", inline=bytes(size), new_stored_bytes=stored)
    how = Change(writer, 1, b"8 random", **change)
    kv.commit(lambda txn: versions.put_object(txn, get_bucket(txn, bucket), key, record, how))


def refused(kv, *args, **rest):
    with pytest.raises(QuotaExceeded) as error:
        put(kv, *args, **rest)
    return error.value


def delete(kv, key, bucket="one"):
    change = Change(1, 1, b"8 random")
    kv.commit(lambda txn: versions.delete_object(txn, get_bucket(txn, bucket), key, "alice", change))


def rows(kv, table):
    with kv.snapshot() as reader:
        return list(reader.scan(table))


def sound(kv) -> list[str]:
    with kv.snapshot() as reader:
        found = list(check_buckets(reader))
        for bucket in buckets_of(reader):
            found += BucketCheck(reader, bucket).run()
        return [damage.reason for damage in found]


def used(kv, bucket="one"):
    with kv.snapshot() as reader:
        return quotas.bucket_usage(reader, get_bucket(reader, bucket).id)


# --- deciding --------------------------------------------------------------------------------------------------

figures = st.integers(0, 10)
growths = st.builds(Usage, st.integers(-9, 9), st.integers(-9, 9), st.integers(-2, 2))
some = st.none() | figures


@given(st.builds(Limits, some, some, some), st.builds(Usage, figures, figures, figures), growths)
def test_only_what_grows_beyond_a_limit_is_refused(limits, now, growth):
    broken = {
        measure
        for measure, limit, used, more in (
            ("logical", limits.logical_bytes, now.logical_bytes, growth.logical_bytes),
            ("stored", limits.stored_bytes, now.stored_bytes, growth.stored_bytes),
            ("objects", limits.objects, now.objects, growth.objects),
        )
        if limit is not None and more > 0 and used + more > limit
    }
    measure = plan_refusal(limits, now, growth)
    assert measure in broken if broken else measure is None


def test_a_quota_is_reached_exactly_and_not_passed(kv):
    limit(kv, "one", logical_bytes=10)
    put(kv, b"a", 4)
    put(kv, b"b", 6)
    error = refused(kv, b"c", 1)
    assert (error.scope, error.name, error.measure) == ("bucket", "one", "logical")
    assert (error.limit, error.used, error.growth) == (10, 10, 1)
    put(kv, b"empty", 0)
    put(kv, b"c", 50, bucket="two")  # has none
    limit(kv, "one", logical_bytes=10, objects=3)
    assert refused(kv, b"another", 0).measure == "objects"
    limit(kv, "one", stored_bytes=5)
    put(kv, b"c", 9, stored=5)
    assert refused(kv, b"d", 1, stored=1).measure == "stored"
    assert sound(kv) == []


def test_above_the_quota_everything_that_does_not_grow_is_allowed(kv):
    put(kv, b"a", 10, stored=10)
    put(kv, b"b", 10, stored=10)
    limit(kv, "one", logical_bytes=0, stored_bytes=0, objects=0)
    put(kv, b"a", 10, stored=10)
    put(kv, b"a", 9, stored=8)
    refused(kv, b"a", 10)
    change = Change(1, 1, b"8 random")

    def rename(txn):
        bucket = get_bucket(txn, "one")
        record = versions.get_version(txn, bucket.id, b"a", None)
        versions.rename_object(txn, bucket, b"a", b"moved", record, change)

    kv.commit(rename)
    delete(kv, b"moved")
    delete(kv, b"b")
    assert used(kv) == Usage(0, 0, 0)
    assert sound(kv) == []


def test_older_versions_count_and_delete_markers_do_not(kv):
    from index.buckets import set_versioning

    kv.commit(lambda txn: set_versioning(txn, get_bucket(txn, "one"), "Enabled"))
    limit(kv, "one", objects=2)
    put(kv, b"a")
    put(kv, b"a")
    refused(kv, b"a")
    delete(kv, b"a")
    delete(kv, b"b")
    assert used(kv).objects == 2


def test_a_tenants_buckets_count_together_also_new_ones(kv):
    put(kv, b"before", 3)
    limit_tenant(kv, logical_bytes=10)
    kv.commit(lambda txn: create_bucket(txn, "three", "alice", 1))
    kv.commit(lambda txn: create_bucket(txn, "other", "bob", 1))
    put(kv, b"a", 3, bucket="two")
    put(kv, b"a", 4, bucket="three")
    for name in ("one", "two", "three"):
        error = refused(kv, b"b", 1, bucket=name)
        assert (error.scope, error.name, error.used) == ("tenant", "alice", 10)
    put(kv, b"a", 99, bucket="other")
    delete(kv, b"a", bucket="three")
    kv.commit(lambda txn: delete_bucket(txn, "three"))
    put(kv, b"b", 4, bucket="two")
    assert sound(kv) == []
    limit_tenant(kv)
    put(kv, b"c", 99)
    assert rows(kv, TENANT_COUNTERS) == rows(kv, TENANT_QUOTAS) == rows(kv, QUOTAS) == []
    assert sound(kv) == []


def test_limits_of_bucket_and_tenant_hold_at_once_and_go_one_by_one(kv):
    limit_tenant(kv, objects=3)
    limit(kv, "one", objects=1)
    put(kv, b"a")
    assert refused(kv, b"b").scope == "bucket"
    put(kv, b"a", bucket="two")
    put(kv, b"b", bucket="two")
    limit(kv, "one")
    assert refused(kv, b"b").scope == "tenant"
    limit(kv, "one", objects=1)
    limit_tenant(kv)
    assert refused(kv, b"b").scope == "bucket"
    assert sound(kv) == []


# --- uploads in progress ---------------------------------------------------------------------------------------


def begin(kv, key=b"up", bucket="one"):
    def commit(txn):
        return uploads.create_upload(
            txn, get_bucket(txn, bucket).id, UploadRecord("", key, "alice", 1), b"8 random"
        )

    return kv.commit(commit).upload_id


def put_part(kv, upload, number, size, stored=0, key=b"up", bucket="one"):
    part = PartRecord(number, size, MD5, 1, b"m", new_stored_bytes=stored)
    kv.commit(lambda txn: uploads.put_part(txn, get_bucket(txn, bucket), key, upload, part, 1))


def test_parts_count_as_soon_as_they_are_there_and_a_completion_adds_no_bytes(kv):
    limit(kv, "one", logical_bytes=10, stored_bytes=10, objects=1)
    upload = begin(kv)
    put_part(kv, upload, 1, 6, 6)
    put_part(kv, upload, 2, 4, 4)
    with pytest.raises(QuotaExceeded):
        put_part(kv, upload, 3, 1)
    put_part(kv, upload, 1, 5, 5)  # in place of the first
    refused(kv, b"a", 2)
    limit(kv, "one", logical_bytes=1, stored_bytes=1, objects=1)  # lowered meanwhile
    record = ObjectRecord(9, 1, f"{MD5}-2", "alice", manifest=b"m", new_stored_bytes=9)
    change = Change(1, 1, b"8 random")

    def complete(txn):
        versions.complete_upload(txn, get_bucket(txn, "one"), b"up", upload, record, change)

    limit(kv, "one", objects=0)
    with pytest.raises(QuotaExceeded):
        kv.commit(complete)  # but it is an object more
    limit(kv, "one", logical_bytes=1, stored_bytes=1, objects=1)
    kv.commit(complete)
    assert used(kv) == Usage(9, 9, 1)
    assert sound(kv) == []


def test_parts_that_are_aborted_or_deleted_with_their_bucket_count_no_more(kv):
    limit_tenant(kv, logical_bytes=1000)
    for _ in range(2):
        upload = begin(kv)
        for number in range(1, 6):
            put_part(kv, upload, number, 10)
    kv.commit(lambda txn: uploads.remove_upload(txn, get_bucket(txn, "one"), b"up", upload, 1))
    assert used(kv).logical_bytes == 50
    while kv.commit(lambda txn: delete_uploads(txn, "one", 2)):
        assert sound(kv) == []
    kv.commit(lambda txn: delete_bucket(txn, "one"))
    with kv.snapshot() as reader:
        assert quotas.tenant_usage(reader, "alice") == Usage(0, 0, 0)
    assert sound(kv) == []


def test_a_client_that_tries_again_is_not_refused_for_what_is_there(kv):
    put(kv, b"a", create_only=True)
    limit(kv, "one", objects=1)
    put(kv, b"a", create_only=True)
    with pytest.raises(WouldOverwrite):
        put(kv, b"a", 2, create_only=True)


# --- early, without a commit -----------------------------------------------------------------------------------


def early(kv, key, size, bucket="one"):
    with kv.snapshot() as reader:
        versions.require_room(reader, get_bucket(reader, bucket), key, size)


def test_what_the_commit_would_refuse_is_refused_early_and_nothing_else(kv):
    put(kv, b"a", 6, stored=6)
    early(kv, b"b", 1 << 40)
    limit(kv, "one", logical_bytes=10)
    for key, size, fits in ((b"b", 4, True), (b"b", 5, False), (b"a", 10, True), (b"a", 11, False)):
        if fits:
            early(kv, key, size)
        else:
            with pytest.raises(QuotaExceeded):
                early(kv, key, size)
    limit(kv, "one", objects=1)
    early(kv, b"a", 99)
    with pytest.raises(QuotaExceeded):
        early(kv, b"b", 0)
    limit(kv, "one", stored_bytes=6)
    early(kv, b"a", 99)  # may be less than what goes
    early(kv, b"b", 0)
    with pytest.raises(QuotaExceeded):
        early(kv, b"b", 1)


def test_parts_are_refused_early_too(kv):
    upload = begin(kv)
    put_part(kv, upload, 1, 6)
    limit(kv, "one", logical_bytes=10)

    def check(number, size):
        with kv.snapshot() as reader:
            uploads.require_room(reader, get_bucket(reader, "one"), b"up", upload, number, size)

    check(1, 10)
    check(2, 4)
    for number, size in ((1, 11), (2, 5)):
        with pytest.raises(QuotaExceeded):
            check(number, size)


# --- counters --------------------------------------------------------------------------------------------------


def test_rows_of_many_writers_are_folded_and_sums_stay(kv):
    limit_tenant(kv, objects=1000)
    for number in range(5 * FOLD_ROWS):
        put(kv, b"%d" % number, 2, stored=1, writer=1 + number)
        assert len(rows(kv, COUNTERS)) <= FOLD_ROWS
        assert len(rows(kv, TENANT_COUNTERS)) <= FOLD_ROWS
    for number in range(5 * FOLD_ROWS):  # all of them live still
        put(kv, b"%d" % number, 3, stored=1, writer=1 + number)
    with kv.snapshot() as reader:
        count = 5 * FOLD_ROWS
        assert statistics(reader) == NamesStatistics(count, 3 * count, 3 * count, count)
    assert sound(kv) == []


def test_a_correction_is_replaced_by_the_next_and_never_folded(kv):
    limit_tenant(kv, stored_bytes=100)
    with kv.snapshot() as reader:
        bucket_id = get_bucket(reader, "one").id
    put(kv, b"a", stored=10)
    for correction, stored in ((7, 17), (-4, 6), (-40, 0)):
        kv.commit(lambda txn, correction=correction: quotas.correct(txn, bucket_id, correction))
        for number in range(2 * FOLD_ROWS):  # each makes a row, for it changes something
            put(kv, b"a", stored=10 + (number + 1) % 2, writer=number)
        assert used(kv).stored_bytes == stored
        with kv.snapshot() as reader:
            assert quotas.tenant_usage(reader, "alice").stored_bytes == stored
    assert sound(kv) == []
    kv.commit(lambda txn: quotas.correct(txn, bucket_id, 0))
    assert encode_id(bucket_id) + MARK.to_bytes(4, "big") not in dict(rows(kv, COUNTERS))
    kv.commit(lambda txn: quotas.correct(txn, 99, 5))  # a bucket that is gone by now
    assert sound(kv) == []


# --- bytes -----------------------------------------------------------------------------------------------------


def test_golden_rows(kv):
    put(kv, b"a", 3, stored=5, writer=0x01020304)
    upload = begin(kv)
    put_part(kv, upload, 1, 7, 9)
    kv.commit(lambda txn: quotas.correct(txn, 1, -2))
    limit(kv, "one", logical_bytes=10_000, objects=0)
    limit_tenant(kv, stored_bytes=300)
    counts = [
        bytes.fromhex(
            "0000000000000001" + writer + "02" + "".join(f"{n & (1 << 64) - 1:016x}" for n in numbers)
        )
        for writer, numbers in (
            ("00000001", (0, 0, 0, 0, 7, 9)),
            ("01020304", (1, 3, 3, 5, 0, 0)),
            ("ffffffff", (0, 0, 0, -2, 0, 0)),
        )
    ]
    assert [row + value for row, value in rows(kv, COUNTERS)] == counts
    none = "ffffffffffffffff"
    assert rows(kv, QUOTAS) == [
        (encode_id(1), bytes.fromhex(f"01 0000000000002710 {none} 0000000000000000 01")),
        (encode_id(2), bytes.fromhex(f"01 {none} {none} {none} 01")),
    ]
    assert rows(kv, TENANT_QUOTAS) == [(b"alice", bytes.fromhex(f"01 {none} 000000000000012c {none}"))]
    sums = "".join(f"{number:016x}" for number in (1, 3, 3, 3, 7, 9))
    assert rows(kv, TENANT_COUNTERS) == [(b"alice\0\0\0\0\0", bytes.fromhex("02" + sums))]
    with kv.snapshot() as reader:
        record = reader.get(BUCKETS, encode_id(1))
    assert record[3] == 0x02
    assert BucketRecord.decode(record).limited
    assert sound(kv) == []


@pytest.mark.parametrize("figure", [0, 1, MAX_LIMIT])
def test_limits_come_back_as_they_were_set(kv, figure):
    limit(kv, "one", logical_bytes=figure, stored_bytes=figure)
    with kv.snapshot() as reader:
        assert quotas.bucket_limits(reader, get_bucket(reader, "one")) == Limits(figure, figure)
        assert quotas.bucket_limits(reader, get_bucket(reader, "two")) == UNLIMITED
        assert quotas.tenant_limits(reader, "alice") == UNLIMITED


@pytest.mark.parametrize("figure", [-1, MAX_LIMIT + 1])
def test_limits_out_of_range_are_refused(figure):
    with pytest.raises(ValueError, match="limit"):
        Limits(objects=figure)


def test_damaged_rows_are_reported_and_never_taken_for_unlimited(kv):
    limit(kv, "one", objects=1)
    limit_tenant(kv, objects=1)
    for table, row in ((QUOTAS, encode_id(1)), (TENANT_QUOTAS, b"alice")):
        [sane] = [value for found, value in rows(kv, table) if found == row]
        for wrong in (b"", b"\x02" + sane[1:], sane[:-1], bytes([1]) + b"\x80" + sane[2:], None):
            kv.commit(
                lambda txn, table=table, row=row, wrong=wrong: (
                    txn.delete(table, row) if wrong is None else txn.put(table, row, wrong)
                )
            )
            if table == QUOTAS or wrong is not None:
                with pytest.raises(CorruptRecord):
                    put(kv, b"a")
            kv.commit(lambda txn, table=table, row=row, sane=sane: txn.put(table, row, sane))
    put(kv, b"a")


def test_verification_sees_what_does_not_match(kv):
    limit(kv, "one", objects=5)
    limit_tenant(kv, objects=5)
    put(kv, b"a", stored=1)
    assert sound(kv) == []

    def hurt(change):
        before = {table: rows(kv, table) for table in (BUCKETS, QUOTAS, TENANT_COUNTERS, COUNTERS)}
        kv.commit(change)
        told = sound(kv)

        def mend(txn):
            for table, sane in before.items():
                for row, _ in list(txn.scan(table)):
                    txn.delete(table, row)
                for row, value in sane:
                    txn.put(table, row, value)

        kv.commit(mend)
        return told

    def unmark(txn):
        record = get_bucket(txn, "one")
        txn.put(BUCKETS, encode_id(1), replace(record, limited=False).encode())

    more = (0, 0, 0, 1, 0, 0)
    assert "whether it has a quota" in hurt(unmark)[0]
    assert "the counters say" in hurt(lambda txn: counters.add(txn, COUNTERS, encode_id(1), 1, more))[-1]
    assert "tenant 'alice'" in hurt(lambda txn: counters.add(txn, TENANT_COUNTERS, b"alice\0", 1, more))[0]
    assert "which has no quota" in hurt(lambda txn: counters.add(txn, TENANT_COUNTERS, b"bob\0", 1, more))[0]
    assert "bucket that is not there" in hurt(lambda txn: txn.put(QUOTAS, encode_id(9), b""))[0]
