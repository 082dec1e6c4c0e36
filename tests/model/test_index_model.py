"""The names layer against dictionaries: whatever the history, both tell the same, and nothing is left behind.

One machine: buckets are created, switched between the states of versioning and deleted; objects put, replaced and
deleted by several writers, versions locked and removed, uploads begun, fed, completed and aborted, and any commit may
fail. After every step listings, counters and single reads agree. The model of versions is one list per key, oldest
first, of what a user could name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from index import buckets, listing, objects, uploads, versions
from index.counters import NamesStatistics, statistics
from index.errors import BucketExists, BucketNotEmpty, NoSuchUpload, VersionLocked
from index.memory_kv import MemoryKv
from index.records import ObjectRecord, PartRecord, Retention, UploadRecord
from index.tables import META, TABLES
from index.verify_names import BucketCheck, buckets_of, check_buckets
from index.versions import Change
from tests.strategies import object_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
NAMES = ("alpha", "beta", "beta2")

names = st.sampled_from(NAMES)
writers = st.integers(0, 2)
nonces = st.binary(min_size=8, max_size=8)
NOW = 1000  # the only instant: a lock is in force for ever or not at all
locks = st.sampled_from(
    (
        *({} for _ in range(4)),
        {"retention": Retention("COMPLIANCE", NOW + 1)},
        {"retention": Retention("GOVERNANCE", NOW + 1)},
        {"retention": Retention("COMPLIANCE", NOW)},
        {"legal_hold": True},
    )
)
sizes = st.integers(0, 9)


def counted(records: Iterable[ObjectRecord]) -> NamesStatistics:
    listed = [record for record in records if not record.delete_marker]
    inline = sum(len(record.inline or b"") for record in listed)
    return NamesStatistics(len(listed), sum(record.size for record in listed), inline)


def is_locked(record: ObjectRecord, *, bypass: bool = False) -> bool:
    retention = record.retention
    retained = retention is not None and retention.until_ms > NOW
    return bool(record.legal_hold) or (
        retained and not (bypass and retention is not None and retention.mode == "GOVERNANCE")
    )


class Crash(Exception):
    """Ends a commit after all of its work was done."""


class NamesModel(RuleBasedStateMachine):
    keys = Bundle("keys")
    begun = Bundle("begun")

    def __init__(self) -> None:
        super().__init__()
        self.kv = MemoryKv(TABLES)
        self.ids: dict[str, int] = {}
        self.histories: dict[str, dict[bytes, list[ObjectRecord]]] = {}
        self.uploads: dict[str, dict[tuple[bytes, str], dict[int, PartRecord]]] = {}
        self.seen_ids: set[int] = set()

    def commit(self, fn):
        """Once without effect, then for good: an engine may run a function twice, and a commit may fail."""

        def crash(txn):
            fn(txn)
            raise Crash

        with pytest.raises(Crash):
            self.kv.commit(crash)
        return self.kv.commit(fn)

    @rule(target=keys, key=object_keys)
    def choose_key(self, key):
        return key

    @rule(name=names)
    def create_bucket(self, name):
        if name in self.ids:
            with pytest.raises(BucketExists):
                self.kv.commit(lambda txn: buckets.create_bucket(txn, name, "t", 1))
            return
        record = self.commit(lambda txn: buckets.create_bucket(txn, name, "t", 1))
        assert record.id not in self.seen_ids
        self.seen_ids.add(record.id)
        self.ids[name] = record.id
        self.histories[name], self.uploads[name] = {}, {}

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def delete_bucket(self, data):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        if self.histories[name]:
            with pytest.raises(BucketNotEmpty):
                self.kv.commit(lambda txn: buckets.delete_bucket(txn, name))
            return
        self.commit(lambda txn: buckets.delete_bucket(txn, name))
        del self.ids[name], self.histories[name], self.uploads[name]

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), versioning=st.sampled_from(("Enabled", "Suspended")))
    def set_versioning(self, data, versioning):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        self.commit(lambda txn: buckets.set_versioning(txn, buckets.get_bucket(txn, name), versioning))
        assert self.versioning(name) == versioning

    def versioning(self, name):
        with self.kv.snapshot() as reader:
            return buckets.get_bucket(reader, name).versioning

    def add(self, name, key, record, version_id):
        """Into the model: the newest version, in place of an older null version if it is one itself."""
        with self.kv.snapshot() as reader:
            record = replace(record, sequence=reader.sequence, version_id=version_id)
        history = self.histories[name].setdefault(key, [])
        if version_id is None:
            history[:] = [old for old in history if old.version_id is not None]
        history.append(record)

    def null_is_locked(self, name, key):
        return any(is_locked(old) for old in self.histories[name].get(key, ()) if old.version_id is None)

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), key=keys, size=sizes, writer=writers, nonce=nonces, lock=locks)
    def put_object(self, data, key, size, writer, nonce, lock):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        record = ObjectRecord(size, 1, MD5, "t", inline=b"x" * size, **lock)
        self.put(name, key, record, Change(writer, NOW, nonce), lambda txn: None)

    def put(self, name, key, record, change, before):
        def put(txn):
            before(txn)
            # As if with Object Lock, which no real bucket has that is not Enabled: the lock must hold in them all.
            bucket = replace(buckets.get_bucket(txn, name), object_lock=True)
            return versions.put_object(txn, bucket, key, record, change)

        enabled = self.versioning(name) == "Enabled"
        if not enabled and self.null_is_locked(name, key):
            with pytest.raises(VersionLocked):
                self.kv.commit(put)
            return False
        version_id = self.commit(put)
        assert (version_id is not None) == enabled
        self.add(name, key, record, version_id)
        return True

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), key=keys, writer=writers, nonce=nonces)
    def delete_object(self, data, key, writer, nonce):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        change = Change(writer, NOW, nonce)

        def delete(txn):
            return versions.delete_object(txn, buckets.get_bucket(txn, name), key, "t", change)

        versioning = self.versioning(name)
        if versioning != "Enabled" and self.null_is_locked(name, key):
            with pytest.raises(VersionLocked):
                self.kv.commit(delete)
            return
        deletion = self.commit(delete)
        assert deletion.marker == (versioning != "Off")
        assert (deletion.version_id is not None) == (versioning == "Enabled")
        if deletion.marker:
            marker = ObjectRecord(0, NOW, "", "t", delete_marker=True)
            self.add(name, key, marker, deletion.version_id)
        else:
            self.histories[name].pop(key, None)

    @precondition(lambda self: any(self.histories.values()))
    @rule(data=st.data(), writer=writers, nonce=nonces, bypass=st.booleans(), other=st.booleans())
    def delete_version(self, data, writer, nonce, bypass, other):
        name = data.draw(st.sampled_from(sorted(n for n in self.ids if self.histories[n])))
        key = data.draw(st.sampled_from(sorted(self.histories[name])))
        wanted = data.draw(st.sampled_from(self.histories[name][key]))
        version_id = bytes(8) + nonce if other else wanted.version_id
        change = Change(writer, NOW, nonce, bypass)

        def remove(txn):
            return versions.delete_version(txn, buckets.get_bucket(txn, name), key, version_id, change)

        if other:
            assert self.commit(remove) is None
        elif is_locked(wanted, bypass=bypass):
            with pytest.raises(VersionLocked):
                self.kv.commit(remove)
        else:
            assert self.commit(remove) == wanted
            self.histories[name][key].remove(wanted)
            if not self.histories[name][key]:
                del self.histories[name][key]

    @precondition(lambda self: self.ids)
    @rule(target=begun, data=st.data(), key=keys, nonce=st.binary(min_size=8, max_size=8))
    def create_upload(self, data, key, nonce):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        record = UploadRecord(upload_id="", key=key, owner="t", initiated_ms=1)
        stored = self.commit(lambda txn: uploads.create_upload(txn, self.ids[name], record, nonce))
        self.uploads[name][key, stored.upload_id] = {}
        return multiple((name, self.ids[name], key, stored.upload_id))

    @rule(upload=begun, number=st.integers(1, 5), size=sizes)
    def put_part(self, upload, number, size):
        _, bucket_id, key, upload_id = upload
        part = PartRecord(number, size, MD5, 1, b"m")
        wanted = self.parts_of(upload)
        if wanted is None:
            with pytest.raises(NoSuchUpload):
                self.kv.commit(lambda txn: uploads.put_part(txn, bucket_id, key, upload_id, part))
            return
        previous = self.commit(lambda txn: uploads.put_part(txn, bucket_id, key, upload_id, part))
        assert previous == wanted.get(number)
        with self.kv.snapshot() as reader:
            wanted[number] = replace(part, sequence=reader.sequence)

    @rule(upload=consumes(begun), complete=st.booleans(), writer=writers)
    def end_upload(self, upload, complete, writer):
        name, bucket_id, key, upload_id = upload
        wanted = self.parts_of(upload)
        if wanted is None:
            with pytest.raises(NoSuchUpload):
                self.kv.commit(lambda txn: uploads.remove_upload(txn, bucket_id, key, upload_id))
            return

        def end(txn):
            uploads.remove_upload(txn, bucket_id, key, upload_id)

        if complete:
            size = sum(part.size for part in wanted.values())
            record = ObjectRecord(size, 1, f"{MD5}-{len(wanted) or 1}", "t", manifest=b"m")
            if not self.put(name, key, record, Change(writer, NOW, b"8 random"), end):
                return
        else:
            self.commit(end)
        del self.uploads[name][key, upload_id]

    def parts_of(self, upload):
        name, bucket_id, key, upload_id = upload
        return self.uploads[name].get((key, upload_id)) if self.ids.get(name) == bucket_id else None

    @invariant()
    def the_same_buckets(self):
        with self.kv.snapshot() as reader:
            found = {record.name: record.id for record in buckets.list_buckets(reader).buckets}
        assert found == self.ids
        assert list(found) == sorted(found)

    @invariant()
    def the_same_versions_and_counters(self):
        with self.kv.snapshot() as reader:
            for name, bucket_id in self.ids.items():
                histories = sorted(self.histories[name].items())
                page = listing.list_objects(reader, bucket_id)
                assert [(key, ObjectRecord.decode(value)) for key, value in page.entries] == [
                    (key, history[-1]) for key, history in histories if not history[-1].delete_marker
                ]
                page = listing.list_versions(reader, bucket_id)
                assert [(row.key, ObjectRecord.decode(row.value), row.latest) for row in page.entries] == [
                    (key, record, record is history[-1])
                    for key, history in histories
                    for record in reversed(history)
                ]
                for key, history in histories:
                    newest = history[-1]
                    assert versions.get_newest(reader, bucket_id, key) == newest
                    shown = None if newest.delete_marker else newest
                    assert objects.get_object(reader, bucket_id, key) == shown
                    for record in history:
                        assert versions.get_version(reader, bucket_id, key, record.version_id) == record
                everything = [record for _, history in histories for record in history]
                assert statistics(reader, bucket_id) == counted(everything)
                iterated = versions.iterate_versions(reader, bucket_id)
                assert sorted(record.sequence for _, record in iterated) == sorted(
                    record.sequence for record in everything
                )
            records = [r for name in self.ids for history in self.histories[name].values() for r in history]
            assert statistics(reader) == counted(records)

    @invariant()
    def the_same_uploads(self):
        with self.kv.snapshot() as reader:
            for name, bucket_id in self.ids.items():
                page = listing.list_uploads(reader, bucket_id)
                assert [(row.key, row.upload_id) for row in page.entries] == sorted(self.uploads[name])
                for (key, upload_id), wanted in self.uploads[name].items():
                    found = uploads.list_parts(reader, bucket_id, key, upload_id, limit=10)
                    assert found.parts == [wanted[number] for number in sorted(wanted)]

    @invariant()
    def verification_finds_nothing(self):
        with self.kv.snapshot() as reader:
            assert list(check_buckets(reader)) == []
            for bucket in buckets_of(reader):
                assert [damage.reason for damage in BucketCheck(reader, bucket).run()] == []

    def unlock_and_remove(self, bucket, key, record):
        """As time does: when all retention has passed, and holds were lifted."""
        change = Change(0, NOW + 1, b"8 random")

        def remove(txn):
            found = versions.get_version(txn, bucket.id, key, record.version_id)
            if found.legal_hold:
                versions.set_legal_hold(txn, bucket.id, key, found, False)
            versions.delete_version(txn, bucket, key, record.version_id, change)

        self.kv.commit(remove)

    def teardown(self):
        for name in list(self.ids):
            bucket = self.kv.commit(lambda txn, name=name: buckets.get_bucket(txn, name))
            for key, history in self.histories[name].items():
                for record in history:
                    self.unlock_and_remove(bucket, key, record)
            self.kv.commit(lambda txn, name=name: buckets.delete_bucket(txn, name))
        with self.kv.snapshot() as reader:
            assert [table for table in TABLES if table != META and list(reader.scan(table))] == []


TestNamesModel = NamesModel.TestCase
TestNamesModel.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)
