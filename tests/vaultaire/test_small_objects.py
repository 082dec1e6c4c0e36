"""Small objects leave the database, and nobody can tell but by the room they take."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cas.manifest import Manifest
from cas.publication import Publication
from index import counters, quotas, tree
from index.buckets import bucket_by_id
from index.kv import MapFull, Outcome
from index.objects import get_object
from index.records import Retention
from index.tables import OBJECTS
from index.versions import get_version, iterate_versions, replace_object, set_retention
from tests.cas.support import noise
from tests.vaultaire.verify_support import Client, damage_value, flip_last
from vaultaire.reading import read_all
from vaultaire.small_objects import BATCH, LEAST_BYTES, Moved, count_small_objects, move_small_objects
from vaultaire.store import Store
from vaultaire.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "data", kind="command", create=True) as store:
        yield store


def text(number: int, size: int = 2000) -> bytes:
    return (b"line %d of a file that is much like others; " % number * (size // 40 + 1))[:size]


def moved(store: Store, until_ms: float = math.inf) -> Moved:
    """All that is moved at once."""
    steps = list(move_small_objects(store, until_ms))
    assert all(step.objects <= BATCH for step in steps)
    return total(steps)


def total(steps: Iterable[Moved]) -> Moved:
    return Moved(*map(sum, zip(*steps, strict=True)))


def body(store: Store, record) -> bytes:
    if record.inline is not None:
        return record.inline
    return b"".join(read_all(store.chunks, Manifest.decode(record.manifest)))


def all_versions(store: Store, bucket) -> list:
    with store.kv.snapshot() as reader:
        found = list(iterate_versions(reader, bucket.id))
    return [
        (key, body(store, record), replace(record, inline=None, manifest=None, new_stored_bytes=0))
        for key, record in found
        if not record.delete_marker
    ]


def current(store: Store, bucket, key: bytes):
    with store.kv.snapshot() as reader:
        return get_object(reader, bucket.id, key)


def test_every_version_stays_what_it_was(store):
    client = Client(store)
    plain, versioned = client.bucket("plain"), client.bucket("versioned", "Enabled")
    for number in range(600):  # more than two batches
        client.put(plain, b"k%03d" % number, text(number % 50, 300 + number))
    for number in range(5):
        client.put(versioned, b"key", text(number))
        client.put(versioned, b"other", noise(3000, number))
    client.delete(versioned, b"other")
    client.put(plain, b"large", noise(50_000))
    client.put(plain, b"empty", b"")
    client.put(plain, b"tiny", bytes(LEAST_BYTES - 1))
    before = [all_versions(store, bucket) for bucket in (plain, versioned)]
    counted = total(count_small_objects(store))
    done = moved(store)
    assert done.objects == 610
    assert done[:2] == counted[:2]
    assert done.raw_bytes == sum(300 + n for n in range(600)) + 5 * 2000 + 5 * 3000
    with store.kv.snapshot() as reader:
        assert 5 * 3000 < done.stored_bytes <= store.chunks.statistics(reader).pack_bytes
    assert [all_versions(store, bucket) for bucket in (plain, versioned)] == before
    assert current(store, plain, b"tiny").inline is not None
    assert current(store, plain, b"empty").inline == b""
    assert current(store, plain, b"k300").inline is None
    assert moved(store).objects == 0
    assert verify(store, read_data=True).clean


def test_the_same_bytes_are_stored_once_and_compressed(store):
    client = Client(store)
    bucket = client.bucket("b")
    for number in range(300):
        client.put(bucket, b"k%d" % number, text(number % 10, 3000))
    moved(store)
    with store.kv.snapshot() as reader:
        packs = store.chunks.statistics(reader)
        names = counters.statistics(reader, bucket.id)
    assert packs.chunks == 10
    assert packs.pack_bytes < 10 * 3000 / 2
    assert names.inline_bytes == 0
    assert names.logical_bytes == 300 * 3000


def test_what_changes_meanwhile_is_left_as_it_is_then(store, monkeypatch):
    client = Client(store)
    bucket = client.bucket("b")
    for key in (b"overwritten", b"deleted", b"tagged", b"left"):
        client.put(bucket, key, text(1))
    commit_many = type(store.kv).commit_many

    def meanwhile(self, fns):
        monkeypatch.undo()
        client.put(bucket, b"overwritten", text(2))
        client.delete(bucket, b"deleted")
        tagged = replace(current(store, bucket, b"tagged"), tags=(("a", "b"),))
        store.kv.commit(lambda txn: replace_object(txn, bucket.id, b"tagged", tagged))
        return commit_many(self, fns)

    monkeypatch.setattr(type(store.kv), "commit_many", meanwhile)
    assert moved(store).objects == 2
    assert current(store, bucket, b"overwritten").inline == text(2)
    assert current(store, bucket, b"deleted") is None
    assert current(store, bucket, b"tagged").tags == (("a", "b"),)
    assert body(store, current(store, bucket, b"tagged")) == text(1)
    assert verify(store, read_data=True).clean
    assert moved(store).objects == 1


def test_a_bucket_that_goes_meanwhile_takes_nothing_else_along(store, monkeypatch):
    client = Client(store)
    gone, stays = client.bucket("a"), client.bucket("b")
    client.put(gone, b"k", text(1))
    client.put(stays, b"k", text(1))
    commit_many = type(store.kv).commit_many

    def meanwhile(self, fns):
        from vaultaire.emptying import empty_bucket, remove_bucket

        monkeypatch.undo()
        empty_bucket(store, gone, lambda _: None)
        remove_bucket(store, "a")
        return commit_many(self, fns)

    monkeypatch.setattr(type(store.kv), "commit_many", meanwhile)
    assert moved(store).objects == 1
    assert body(store, current(store, stays, b"k")) == text(1)


def test_locks_and_quotas_stand(store):
    client = Client(store)
    bucket = client.bucket("b", "Enabled")
    store.kv.commit(lambda txn: quotas.set_bucket_limits(txn, bucket, quotas.Limits(stored_bytes=5000)))
    with store.kv.snapshot() as reader:
        bucket = bucket_by_id(reader, bucket.id)
    client.put(bucket, b"noise", noise(4000))
    record = current(store, bucket, b"noise")
    retention = Retention("COMPLIANCE", 9_000_000_000_000)
    store.kv.commit(lambda txn: set_retention(txn, bucket.id, b"noise", record, retention, client.change()))
    with store.kv.snapshot() as reader:
        before = quotas.bucket_usage(reader, bucket.id)
    assert moved(store).objects == 1
    with store.kv.snapshot() as reader:
        now = get_version(reader, bucket.id, b"noise", record.version_id)
        assert now.retention == retention
        assert quotas.bucket_usage(reader, bucket.id) == before


def test_a_full_disk_leaves_everything_where_it_was(store, monkeypatch):
    from cas.errors import NoSpace

    client = Client(store)
    bucket = client.bucket("b")
    client.put(bucket, b"k", text(1))

    def full(publications):
        raise NoSpace("no room")

    monkeypatch.setattr(store.chunks, "sync", full)
    with pytest.raises(NoSpace):
        moved(store)
    assert current(store, bucket, b"k").inline == text(1)
    monkeypatch.undo()
    assert moved(store).objects == 1
    assert not len(store.chunks._known)


def test_what_one_version_fails_of_keeps_no_other_from_being_moved(store, monkeypatch):
    client = Client(store)
    bucket = client.bucket("b")
    for number in range(5):
        client.put(bucket, b"k%d" % number, noise(3000, number))
    commit_many = type(store.kv).commit_many

    def first_fails(self, fns):
        return [Outcome(None, MapFull("injected"), 0), *commit_many(self, fns[1:])]

    settled = []
    settle = Publication.settle
    with monkeypatch.context() as patched:
        patched.setattr(type(store.kv), "commit_many", first_fails)
        patched.setattr(Publication, "settle", lambda self, done: settled.append(done) or settle(self, done))
        with pytest.raises(MapFull):
            moved(store)
    assert settled == [False, True, True, True, True]
    assert moved(store).objects == 1
    assert verify(store, read_data=True).clean


def test_a_damaged_row_keeps_no_other_bucket_from_being_moved(store):
    client = Client(store)
    damaged, sound = client.bucket("a"), client.bucket("b")
    for bucket in (damaged, sound):
        for number in range(3):
            client.put(bucket, b"k%d" % number, text(number))
    with store.kv.snapshot() as reader:
        row = tree.find_row(reader, OBJECTS, damaged.id, b"k1")
    damage_value(store, OBJECTS, row, flip_last)
    assert moved(store).objects == 3
    with store.kv.snapshot() as reader:
        assert [record.inline for _, record in iterate_versions(reader, sound.id)] == [None] * 3
