"""Passes of lifecycle over a store in memory: what goes, what stays, and that they may stop anywhere."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import tree, uploads
from index.buckets import create_bucket
from index.configs import delete_config, put_config
from index.counters import statistics
from index.errors import CorruptRecord
from index.expiry import lone_marker, noncurrent_version
from index.memory_kv import MemoryKv
from index.objects import get_object
from index.records import BucketRecord, ObjectRecord, UploadRecord
from index.tables import BUCKETS, OBJECTS, TABLES, UPLOADS, VERSIONS
from index.versions import Change, delete_object, put_object, replace_object
from vaultaire.lifecycle import Cursor, Lifecycle, Stage
from vaultaire.s3.lifecycle import DAY_MS, Filter, Rule
from vaultaire.s3.stored_lifecycle import CONFIG, wrap_rules
from vaultaire.version_expiry import IndexVersions

NOW = 1000 * DAY_MS
MD5 = "0" * 32
CHANGE = Change(1, 0, b"8 random")


def rule(**fields) -> Rule:
    return Rule(fields.pop("id", "r"), fields.pop("enabled", True), **fields)


class World:
    """A map with buckets in it, and a clock that stands at NOW unless it is set."""

    def __init__(self) -> None:
        self.kv = MemoryKv((*TABLES, "srv.settings"))
        self.now_ms = NOW

    def lifecycle(self, **fields) -> Lifecycle:
        return Lifecycle(self.kv, 1, clock=lambda: self.now_ms / 1000, **fields)

    def bucket(self, name: str = "b", *rules: Rule, versioning: str = "Off") -> BucketRecord:
        def make(txn):
            bucket = replace(create_bucket(txn, name, "o", 0), versioning=versioning)
            txn.put(BUCKETS, bucket.id.to_bytes(8, "big"), bucket.encode())
            if rules:
                put_config(txn, bucket.id, CONFIG, wrap_rules(rules))
            return bucket

        return self.kv.commit(make)

    def put(self, bucket: BucketRecord, key: bytes, modified_ms: int = 0, **fields) -> None:
        record = ObjectRecord(fields.pop("size", 0), modified_ms, MD5, "o", inline=b"", **fields)
        self.kv.commit(lambda txn: put_object(txn, bucket, key, record, CHANGE))

    def begin_upload(self, bucket: BucketRecord, key: bytes, initiated_ms: int) -> None:
        record = UploadRecord("", key, "o", initiated_ms)
        self.kv.commit(lambda txn: uploads.create_upload(txn, bucket.id, record, random.randbytes(8)))

    def keys(self, bucket: BucketRecord, table: str = OBJECTS) -> list[bytes]:
        with self.kv.snapshot() as reader:
            if table == OBJECTS:
                return [key for key, _ in tree.walk(reader, table, bucket.id)]
            return [key for key, _, _ in tree.walk_suffixed(reader, table, bucket.id)]

    def version(
        self, bucket: BucketRecord, key: bytes, modified_ms: int, *, marker: bool = False, **fields
    ) -> int:
        """A newer version of `key`, put while versioning was enabled; its sequence."""
        enabled = replace(bucket, versioning="Enabled", object_lock="legal_hold" in fields)

        def put(txn):
            if marker:
                delete_object(txn, enabled, key, "o", replace(CHANGE, now_ms=modified_ms))
            else:
                put_object(
                    txn, enabled, key, ObjectRecord(0, modified_ms, MD5, "o", inline=b"", **fields), CHANGE
                )
            return txn.sequence

        return self.kv.commit(put)


@pytest.fixture
def world():
    return World()


# --- current objects


def test_what_is_due_goes_and_the_rest_stays(world):
    bucket = world.bucket("b", rule(filter=Filter("logs/"), expire_days=10))
    other = world.bucket("c")
    world.put(bucket, b"logs/old", NOW - 11 * DAY_MS)
    world.put(bucket, b"logs/young", NOW - 10 * DAY_MS)
    world.put(bucket, b"old", 0)
    world.put(other, b"logs/old", 0)
    report = world.lifecycle().run_pass()
    assert (report.objects, report.total) == (1, 1)
    assert world.keys(bucket) == [b"logs/young", b"old"]
    assert world.keys(other) == [b"logs/old"]
    with world.kv.snapshot() as reader:
        assert statistics(reader, bucket.id).objects == 2


def test_tags_and_sizes_decide(world):
    tagged = Filter(tags=(("a", "1"),))
    bucket = world.bucket(
        "b", rule(id="t", filter=tagged, expire_days=1), rule(filter=Filter(larger_than=9), expire_days=1)
    )
    world.put(bucket, b"tagged", tags=(("a", "1"), ("b", "2")))
    world.put(bucket, b"tagged-otherwise", tags=(("a", "2"),))
    world.put(bucket, b"large", size=10)
    world.put(bucket, b"small", size=9)
    assert world.lifecycle().run_pass().objects == 2
    assert world.keys(bucket) == [b"small", b"tagged-otherwise"]


def test_a_disabled_rule_does_nothing(world):
    bucket = world.bucket("b", rule(enabled=False, expire_days=1, abort_days=1))
    world.put(bucket, b"k")
    world.begin_upload(bucket, b"k", 0)
    assert world.lifecycle().run_pass().total == 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("ab/", min_size=1, max_size=4), max_size=30, unique=True),
    st.lists(st.text("ab/", max_size=2), min_size=1, max_size=4),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_a_pass_that_is_cut_off_anywhere_goes_on_and_misses_nothing(keys, prefixes, page_rows, rng):
    world = World()
    rules = [rule(id=str(n), filter=Filter(p), expire_days=1, abort_days=1) for n, p in enumerate(prefixes)]
    buckets = [world.bucket("b", *rules), world.bucket("c"), world.bucket("d", *rules)]
    for bucket in buckets:
        for key in keys:
            world.put(bucket, key.encode())
            for _ in range(rng.choice((0, 1, 3))):
                world.begin_upload(bucket, key.encode(), 0)
    begun = {bucket.id: sorted(world.keys(bucket, UPLOADS)) for bucket in buckets}
    ticks = iter(range(1_000_000))
    for _ in range(2000):
        # A process of its own each time: nothing but the stored cursor is handed on.
        if not world.lifecycle(page_rows=page_rows).run_slice(rng.choice((1, 2)), lambda: next(ticks)):
            break
    else:
        pytest.fail("the pass never ends")
    left = [key.encode() for key in keys if not any(key.startswith(p) for p in prefixes)]
    for bucket, rest in zip(buckets, (left, [k.encode() for k in keys], left), strict=True):
        assert world.keys(bucket) == sorted(rest)
        assert sorted(world.keys(bucket, UPLOADS)) == [key for key in begun[bucket.id] if key in rest]


def test_deleting_the_rules_stops_a_pass_at_once(world):
    bucket = world.bucket("b", rule(expire_days=1))
    world.put(bucket, b"k")
    lifecycle = world.lifecycle()
    real = world.kv.commit

    def commit(fn):
        """Between looking and removing, somebody else's request."""
        world.kv.commit = real
        real(lambda txn: delete_config(txn, bucket.id, CONFIG))
        return real(fn)

    world.kv.commit = commit
    assert lifecycle.run_pass().total == 0
    assert world.keys(bucket) == [b"k"]


@pytest.mark.parametrize("change", ["replaced", "tagged", "gone"])
def test_an_object_that_changed_after_it_was_looked_at_stays(world, change):
    bucket = world.bucket("b", rule(filter=Filter(tags=(("a", "1"),)), expire_at_ms=0))
    world.put(bucket, b"k", tags=(("a", "1"),))
    real = world.kv.commit

    def commit(fn):
        world.kv.commit = real
        if change == "replaced":
            world.put(bucket, b"k", NOW, tags=(("a", "1"),))
        elif change == "tagged":  # without a new sequence
            real(lambda txn: retag(txn, bucket))
        else:
            real(lambda txn: delete_object(txn, bucket, b"k", "o", CHANGE))
        return real(fn)

    def retag(txn, bucket):
        record = replace(get_object(txn, bucket.id, b"k"), tags=())
        replace_object(txn, bucket.id, b"k", record)

    world.kv.commit = commit
    assert world.lifecycle().run_pass().total == 0
    assert world.keys(bucket) == ([] if change == "gone" else [b"k"])


# --- uploads


def test_old_uploads_are_aborted_with_their_parts(world):
    bucket = world.bucket("b", rule(abort_days=7))
    world.begin_upload(bucket, b"old", NOW - 8 * DAY_MS)
    world.begin_upload(bucket, b"young", NOW - 7 * DAY_MS)
    world.put(bucket, b"object")
    report = world.lifecycle().run_pass()
    assert (report.uploads, report.total) == (1, 1)
    assert world.keys(bucket, UPLOADS) == [b"young"]
    assert world.keys(bucket) == [b"object"]


# --- what the audit log is told


def test_all_that_goes_is_told_and_a_rehearsal_tells_nothing(world):
    rules = rule(expire_days=1, noncurrent_days=10, abort_days=7)
    bucket = world.bucket("b", rules, versioning="Enabled")
    world.version(bucket, b"k", 0)
    world.version(bucket, b"k", NOW - 11 * DAY_MS)
    world.begin_upload(bucket, b"u", 0)
    told = []
    run = world.lifecycle(versions=IndexVersions(), on_expired=told.extend, dry_run=True)
    assert run.run_pass().total == 3
    assert told == []
    report = world.lifecycle(versions=IndexVersions(), on_expired=told.extend).run_pass()
    assert [(each.action, each.key) for each in told] == [
        ("ExpireObject", b"k"),
        ("ExpireVersion", b"k"),
        ("ExpireUpload", b"u"),
    ]
    assert all(each.bucket == "b" for each in told)
    assert report.total == 3


# --- versions


def test_a_current_version_makes_place_for_a_delete_marker(world):
    bucket = world.bucket("b", rule(expire_days=1), versioning="Enabled")
    world.version(bucket, b"k", 0)
    assert world.lifecycle(versions=IndexVersions()).run_pass().objects == 1
    assert (world.keys(bucket), world.keys(bucket, VERSIONS)) == ([], [b"k", b"k"])
    # The marker is young, and something is behind it: another pass changes nothing.
    assert world.lifecycle(versions=IndexVersions()).run_pass().total == 0


def test_a_removal_that_runs_twice_does_the_same_again(world):
    """An engine may run a transaction's function again (`index.kv`)."""
    bucket = world.bucket("b", rule(expire_days=1), versioning="Enabled")
    world.version(bucket, b"k", 0)
    tried = []

    class Undone(Exception):
        pass

    commit = world.kv.commit

    def commit_twice(fn):
        def try_out(txn):
            fn(txn)
            tried.append(list(txn.scan(VERSIONS)))
            raise Undone

        for _ in range(2):
            with suppress(Undone):
                commit(try_out)
        return commit(fn)

    world.kv.commit = commit_twice
    world.lifecycle(versions=IndexVersions()).run_pass()
    assert tried[0] == tried[1] != []


def test_noncurrent_versions_go_by_the_age_of_their_successor(world):
    bucket = world.bucket("b", rule(noncurrent_days=10), versioning="Enabled")
    first = world.version(bucket, b"k", 0)
    second = world.version(bucket, b"k", NOW - 11 * DAY_MS)  # since when the first is noncurrent: due
    world.version(bucket, b"k", NOW - 10 * DAY_MS)
    assert world.lifecycle(versions=IndexVersions()).run_pass().versions == 1
    with world.kv.snapshot() as reader:
        assert noncurrent_version(reader, bucket.id, b"k", first, count_newer=0) is None
        assert noncurrent_version(reader, bucket.id, b"k", second, count_newer=0) is not None
    assert world.keys(bucket) == [b"k"]


@pytest.mark.parametrize("page_rows", [1, 2, 1000])
@pytest.mark.parametrize("keep", [1, 3, 100])
def test_the_newest_noncurrent_versions_are_kept(world, keep, page_rows):
    bucket = world.bucket("b", rule(noncurrent_days=1, newer_noncurrent=keep), versioning="Enabled")
    sequences = []
    for n in range(8):
        sequences.append(world.version(bucket, b"k", n))
        if n == 4:
            world.version(bucket, b"k", n, marker=True)  # does not count as one that is kept
    world.version(bucket, b"other", 0)
    report = world.lifecycle(versions=IndexVersions(), page_rows=page_rows).run_pass()
    kept = sequences[:-1][-keep:]
    assert report.versions == 7 - len(kept)
    with world.kv.snapshot() as reader:
        found = [
            s
            for s in sequences[:-1]
            if noncurrent_version(reader, bucket.id, b"k", s, count_newer=0) is not None
        ]
    assert found == kept
    assert world.keys(bucket) == [b"k", b"other"]


def test_a_locked_version_is_never_removed(world):
    bucket = world.bucket("b", rule(noncurrent_days=1), versioning="Enabled")
    for key in (b"free", b"locked"):
        world.version(bucket, key, 0, legal_hold=key == b"locked")
        world.version(bucket, key, 0)
    assert world.lifecycle(versions=IndexVersions()).run_pass().versions == 1
    assert world.keys(bucket, VERSIONS) == [b"locked"]


def test_a_delete_marker_goes_only_when_nothing_is_behind_it(world):
    bucket = world.bucket("b", rule(expire_lone_marker=True), versioning="Enabled")
    lone = world.version(bucket, b"lone", NOW, marker=True)
    world.version(bucket, b"with", 0)
    behind = world.version(bucket, b"with", NOW, marker=True)
    with world.kv.snapshot() as reader:
        assert lone_marker(reader, bucket.id, b"lone", lone) is not None
        assert lone_marker(reader, bucket.id, b"with", behind) is None
    assert world.lifecycle(versions=IndexVersions()).run_pass().delete_markers == 1
    assert world.keys(bucket, VERSIONS) == [b"with", b"with"]


def test_versions_and_then_their_marker_go(world):
    bucket = world.bucket("b", rule(noncurrent_days=1, expire_lone_marker=True), versioning="Enabled")
    world.version(bucket, b"k", 0)
    world.version(bucket, b"k", 0, marker=True)
    assert world.lifecycle(versions=IndexVersions()).run_pass().versions == 1
    assert world.lifecycle(versions=IndexVersions()).run_pass().delete_markers == 1
    assert world.keys(bucket, VERSIONS) == []


@pytest.mark.parametrize("versioning", ["Enabled", "Suspended"])
def test_without_an_index_of_versions_such_buckets_are_left_alone(world, versioning):
    bucket = world.bucket("b", rule(expire_days=1, noncurrent_days=1), versioning=versioning)
    world.version(bucket, b"k", 0)
    world.version(bucket, b"k", 0)
    assert world.lifecycle().run_pass().total == 0
    assert (world.keys(bucket), world.keys(bucket, VERSIONS)) == ([b"k"], [b"k"])


def test_the_newest_version_is_never_taken_for_a_noncurrent_one(world):
    bucket = world.bucket("b", rule(noncurrent_days=1), versioning="Enabled")
    marker = world.version(bucket, b"k", 0, marker=True)
    with world.kv.snapshot() as reader:
        assert noncurrent_version(reader, bucket.id, b"k", marker, count_newer=9) is None
    assert world.lifecycle(versions=IndexVersions()).run_pass().total == 0


# --- when


def test_passes_are_some_hours_apart(world):
    bucket = world.bucket("b", rule(expire_days=1))
    lifecycle = world.lifecycle(interval_seconds=3600)
    assert not lifecycle.run_slice(10)
    world.put(bucket, b"k")
    world.now_ms += 3_599_000
    assert not world.lifecycle(interval_seconds=3600).run_slice(10)
    assert world.keys(bucket) == [b"k"]
    world.now_ms += 1000
    assert not world.lifecycle(interval_seconds=3600).run_slice(10)
    assert world.keys(bucket) == []


def test_a_clock_that_was_set_back_does_not_stop_passes(world):
    bucket = world.bucket("b", rule(expire_at_ms=0))
    world.lifecycle().run_slice(10)
    world.put(bucket, b"k")
    world.now_ms -= 100 * DAY_MS
    world.lifecycle().run_slice(10)
    assert world.keys(bucket) == []


def test_damage_ends_the_pass_and_not_the_process(world):
    bucket = world.bucket("b", rule(expire_days=1))
    world.put(bucket, b"a")
    world.kv.commit(lambda txn: txn.put(OBJECTS, tree.make_row(txn, OBJECTS, bucket.id, b"b"), b"nonsense"))
    assert not world.lifecycle().run_slice(10)
    assert not world.lifecycle().run_slice(10)  # not due before some hours have passed


def test_an_unreadable_cursor_begins_a_new_pass(world):
    bucket = world.bucket("b", rule(expire_days=1))
    world.put(bucket, b"k")
    world.kv.commit(lambda txn: txn.put("srv.settings", b"lifecycle", b"nonsense"))
    assert not world.lifecycle().run_slice(10)
    assert world.keys(bucket) == []


@given(
    st.integers(0, 1 << 50),
    st.booleans(),
    st.sampled_from(Stage),
    st.binary(max_size=1024),
    st.binary(max_size=16),
)
def test_a_cursor_reads_back(begun, running, stage, key, suffix):
    cursor = Cursor(begun, running, 7, stage, key, suffix)
    assert Cursor.decode(cursor.encode()) == cursor


def test_the_bytes_of_a_cursor():
    cursor = Cursor(1, True, 2, Stage.UPLOADS, b"key", b"\xff")
    assert cursor.encode().hex() == "0101000000000000000100000000000000020201ff6b6579"
    for damaged in (b"", cursor.encode()[:10], b"\x02" + cursor.encode()[1:], cursor.encode()[:19] + b"\xff"):
        with pytest.raises(CorruptRecord):
            Cursor.decode(damaged)
