"""The names layer against dictionaries: whatever the history, both tell the same, and nothing is left behind.

One machine: buckets are created and deleted, objects put, replaced and deleted by several writers, uploads begun,
fed, completed and aborted, and any commit may fail. After every step listings, counters and single reads agree.
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

from index import buckets, listing, objects, uploads
from index.counters import NamesStatistics, statistics
from index.errors import BucketExists, BucketNotEmpty, NoSuchUpload
from index.memory_kv import MemoryKv
from index.records import ObjectRecord, PartRecord, UploadRecord
from index.tables import META, TABLES
from tests.strategies import object_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
NAMES = ("alpha", "beta", "beta2")

names = st.sampled_from(NAMES)
writers = st.integers(0, 2)
sizes = st.integers(0, 9)


def counted(records: Iterable[ObjectRecord]) -> NamesStatistics:
    listed = list(records)
    inline = sum(len(record.inline or b"") for record in listed)
    return NamesStatistics(len(listed), sum(record.size for record in listed), inline)


class Crash(Exception):
    """Ends a commit after all of its work was done."""


class NamesModel(RuleBasedStateMachine):
    keys = Bundle("keys")
    begun = Bundle("begun")

    def __init__(self) -> None:
        super().__init__()
        self.kv = MemoryKv(TABLES)
        self.ids: dict[str, int] = {}
        self.objects: dict[str, dict[bytes, ObjectRecord]] = {}
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
        self.objects[name], self.uploads[name] = {}, {}

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def delete_bucket(self, data):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        if self.objects[name]:
            with pytest.raises(BucketNotEmpty):
                self.kv.commit(lambda txn: buckets.delete_bucket(txn, name))
            return
        self.commit(lambda txn: buckets.delete_bucket(txn, name))
        del self.ids[name], self.objects[name], self.uploads[name]

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), key=keys, size=sizes, writer=writers)
    def put_object(self, data, key, size, writer):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        record = ObjectRecord(size, 1, MD5, "t", inline=b"x" * size)
        previous = self.commit(lambda txn: objects.put_object(txn, self.ids[name], key, record, writer))
        assert previous == self.objects[name].get(key)
        with self.kv.snapshot() as reader:
            self.objects[name][key] = replace(record, sequence=reader.sequence)

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), key=keys, writer=writers)
    def delete_object(self, data, key, writer):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        previous = self.commit(lambda txn: objects.delete_object(txn, self.ids[name], key, writer))
        assert previous == self.objects[name].pop(key, None)

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
            parts = uploads.list_parts(txn, bucket_id, key, upload_id, limit=10).parts
            record = ObjectRecord(
                sum(part.size for part in parts), 1, f"{MD5}-{len(parts) or 1}", "t", manifest=b"m"
            )
            if complete:
                objects.put_object(txn, bucket_id, key, record, writer)
            uploads.remove_upload(txn, bucket_id, key, upload_id)
            return replace(record, sequence=txn.sequence)

        record = self.commit(end)
        del self.uploads[name][key, upload_id]
        if complete:
            self.objects[name][key] = record

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
    def the_same_objects_and_counters(self):
        with self.kv.snapshot() as reader:
            for name, bucket_id in self.ids.items():
                wanted = self.objects[name]
                page = listing.list_objects(reader, bucket_id)
                assert [(key, ObjectRecord.decode(value)) for key, value in page.entries] == sorted(
                    wanted.items()
                )
                for key, record in wanted.items():
                    assert objects.get_object(reader, bucket_id, key) == record
                versions = listing.list_versions(reader, bucket_id).entries
                assert [row.key for row in versions if row.latest] == sorted(wanted)
                assert statistics(reader, bucket_id) == counted(wanted.values())
            everything = [record for wanted in self.objects.values() for record in wanted.values()]
            assert statistics(reader) == counted(everything)

    @invariant()
    def the_same_uploads(self):
        with self.kv.snapshot() as reader:
            for name, bucket_id in self.ids.items():
                page = listing.list_uploads(reader, bucket_id)
                assert [(row.key, row.upload_id) for row in page.entries] == sorted(self.uploads[name])
                for (key, upload_id), wanted in self.uploads[name].items():
                    found = uploads.list_parts(reader, bucket_id, key, upload_id, limit=10)
                    assert found.parts == [wanted[number] for number in sorted(wanted)]

    def teardown(self):
        for name in list(self.ids):
            for key in self.objects[name]:
                self.kv.commit(
                    lambda txn, name=name, key=key: objects.delete_object(txn, self.ids[name], key, 0)
                )
            self.kv.commit(lambda txn, name=name: buckets.delete_bucket(txn, name))
        with self.kv.snapshot() as reader:
            assert [table for table in TABLES if table != META and list(reader.scan(table))] == []


TestNamesModel = NamesModel.TestCase
TestNamesModel.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)
