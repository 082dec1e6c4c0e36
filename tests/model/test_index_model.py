"""The names layer against dictionaries: whatever the history, both tell the same, and nothing is left behind.

One machine: buckets are created, switched between the states of versioning and deleted; objects put, replaced, renamed
and deleted by many writers (so that counters are folded), versions locked and removed, uploads begun, fed, completed and
aborted, quotas set for buckets and tenants, and any commit may fail. After every step listings, counters and single
reads agree. The model of versions is one list per key, oldest first, of what a user could name; that of a quota is
the sum over all that.
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

from index import buckets, listing, objects, quotas, uploads, versions
from index.counters import FOLD_ROWS, NamesStatistics, statistics
from index.errors import BucketExists, BucketNotEmpty, NoSuchUpload, QuotaExceeded, VersionLocked
from index.memory_kv import MemoryKv
from index.quotas import UNLIMITED, Limits, Usage
from index.records import BucketRecord, ObjectRecord, PartRecord, Retention, UploadRecord
from index.tables import COUNTERS, META, TABLES, TENANT_COUNTERS
from index.verify_names import BucketCheck, buckets_of, check_buckets
from index.versions import Change
from tests.strategies import object_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
NAMES = ("alpha", "beta", "beta2")
OWNERS = {"alpha": "t", "beta": "t", "beta2": "u"}

names = st.sampled_from(NAMES)
writers = st.integers(0, 2 * FOLD_ROWS)
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
few = st.none() | st.integers(0, 60)
limits = st.just(UNLIMITED) | st.builds(Limits, few, few, st.none() | st.integers(0, 6))


def counted(
    records: Iterable[ObjectRecord], parts: Iterable[PartRecord] = (), correction: int = 0
) -> NamesStatistics:
    listed, parts = [record for record in records if not record.delete_marker], list(parts)
    return NamesStatistics(
        objects=len(listed),
        logical_bytes=sum(record.size for record in listed),
        inline_bytes=sum(len(record.inline or b"") for record in listed),
        stored_bytes=sum(record.new_stored_bytes for record in listed),
        part_bytes=sum(part.size for part in parts),
        part_stored_bytes=sum(part.new_stored_bytes for part in parts),
        correction_bytes=correction,
    )


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
        self.corrections: dict[str, int] = {}
        self.limits: dict[str, Limits] = {}  # of buckets
        self.tenant_limits: dict[str, Limits] = {}

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
                self.kv.commit(lambda txn: buckets.create_bucket(txn, name, OWNERS[name], 1))
            return
        record = self.commit(lambda txn: buckets.create_bucket(txn, name, OWNERS[name], 1))
        assert record.id not in self.seen_ids
        self.seen_ids.add(record.id)
        self.ids[name] = record.id
        self.histories[name], self.uploads[name] = {}, {}
        self.corrections[name], self.limits[name] = 0, UNLIMITED

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def delete_bucket(self, data):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        if self.histories[name]:
            with pytest.raises(BucketNotEmpty):
                self.kv.commit(lambda txn: buckets.delete_bucket(txn, name))
            return
        self.commit(lambda txn: buckets.delete_bucket(txn, name))
        del (
            self.ids[name],
            self.histories[name],
            self.uploads[name],
            self.corrections[name],
            self.limits[name],
        )

    # -- quotas

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), wanted=limits)
    def limit_bucket(self, data, wanted):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        self.commit(lambda txn: quotas.set_bucket_limits(txn, buckets.get_bucket(txn, name), wanted))
        self.limits[name] = wanted

    @rule(tenant=st.sampled_from(("t", "u")), wanted=limits)
    def limit_tenant(self, tenant, wanted):
        self.commit(lambda txn: quotas.set_tenant_limits(txn, tenant, wanted))
        self.tenant_limits[tenant] = wanted

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), correction=st.integers(-40, 40))
    def correct(self, data, correction):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        self.commit(lambda txn: quotas.correct(txn, self.ids[name], correction))
        self.corrections[name] = correction

    def counts(self, name):
        records = [record for history in self.histories[name].values() for record in history]
        parts = [part for parts in self.uploads[name].values() for part in parts.values()]
        return counted(records, parts, self.corrections[name])

    def used(self, *names):
        all_counts = [self.counts(name) for name in names]
        return Usage(
            sum(each.logical_bytes + each.part_bytes for each in all_counts),
            max(
                0,
                sum(
                    each.stored_bytes + each.part_stored_bytes + each.correction_bytes for each in all_counts
                ),
            ),
            sum(each.objects for each in all_counts),
        )

    def fits(self, name, new, gone):
        """Whether `new` (size, stored bytes, objects) may take the place of `gone`, by the sum of all that there is."""
        owner = OWNERS[name]
        siblings = [other for other in self.ids if OWNERS[other] == owner]
        growth = [after - before for after, before in zip(new, gone, strict=True)]
        scopes = (
            (self.limits[name], self.used(name)),
            (self.tenant_limits.get(owner, UNLIMITED), self.used(*siblings)),
        )
        return not any(
            limit is not None and more > 0 and now + more > limit
            for allowed, used in scopes
            for limit, now, more in zip(
                (allowed.logical_bytes, allowed.stored_bytes, allowed.objects),
                (used.logical_bytes, used.stored_bytes, used.objects),
                growth,
                strict=True,
            )
        )

    def gone_with_a_put(self, name, key):
        if self.versioning(name) == "Enabled":
            return (0, 0, 0)
        found = counted(old for old in self.histories[name].get(key, ()) if old.version_id is None)
        return found.logical_bytes, found.stored_bytes, found.objects

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
    @rule(data=st.data(), key=keys, size=sizes, stored=sizes, writer=writers, nonce=nonces, lock=locks)
    def put_object(self, data, key, size, stored, writer, nonce, lock):
        name = data.draw(st.sampled_from(sorted(self.ids)))
        record = ObjectRecord(size, 1, MD5, "t", inline=b"x" * size, new_stored_bytes=stored, **lock)
        change = Change(writer, NOW, nonce)
        self.put(
            name,
            key,
            record,
            lambda txn, bucket: versions.put_object(txn, bucket, key, record, change),
            (0, 0, 0),
        )

    def put(self, name, key, record, effect, dropped):
        def put(txn):
            # As if with Object Lock, which no real bucket has that is not Enabled: the lock must hold in them all.
            return effect(txn, replace(buckets.get_bucket(txn, name), object_lock=True))

        enabled = self.versioning(name) == "Enabled"
        gone = [one + other for one, other in zip(self.gone_with_a_put(name, key), dropped, strict=True)]
        if not enabled and self.null_is_locked(name, key):
            with pytest.raises(VersionLocked):
                self.kv.commit(put)
            return False
        if not self.fits(name, (record.size, record.new_stored_bytes, 1), gone):
            with pytest.raises(QuotaExceeded):
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

    @precondition(lambda self: any(self.histories.values()))
    @rule(data=st.data(), to=keys, writer=writers)
    def rename_object(self, data, to, writer):
        name = data.draw(st.sampled_from(sorted(n for n in self.ids if self.histories[n])))
        key = data.draw(st.sampled_from(sorted(self.histories[name])))
        change = Change(writer, NOW, b"8 random")

        def rename(txn):
            bucket = replace(buckets.get_bucket(txn, name), object_lock=True)
            record = objects.get_object(txn, bucket.id, key)
            versions.rename_object(txn, bucket, key, to, record, change)

        if self.versioning(name) != "Off" or key == to:
            return
        if self.null_is_locked(name, key) or self.null_is_locked(name, to):
            with pytest.raises(VersionLocked):
                self.kv.commit(rename)
            return
        self.commit(rename)  # whatever quotas say: nothing is added
        [record] = self.histories[name].pop(key)
        self.add(name, to, record, None)

    @rule(upload=begun, number=st.integers(1, 5), size=sizes, stored=sizes, writer=writers)
    def put_part(self, upload, number, size, stored, writer):
        name, bucket_id, key, upload_id = upload
        part = PartRecord(number, size, MD5, 1, b"m", new_stored_bytes=stored)
        wanted = self.parts_of(upload)

        def put(txn):
            bucket = buckets.get_bucket(txn, name)
            if bucket is None or bucket.id != bucket_id:
                bucket = BucketRecord(bucket_id, name, "t", 1)
            return uploads.put_part(txn, bucket, key, upload_id, part, writer)

        if wanted is None:
            with pytest.raises(NoSuchUpload):
                self.kv.commit(put)
            return
        before = wanted.get(number)
        replaced = (before.size, before.new_stored_bytes, 0) if before is not None else (0, 0, 0)
        if not self.fits(name, (size, stored, 0), replaced):
            with pytest.raises(QuotaExceeded):
                self.kv.commit(put)
            return
        previous = self.commit(put)
        assert previous == wanted.get(number)
        with self.kv.snapshot() as reader:
            wanted[number] = replace(part, sequence=reader.sequence)

    @rule(upload=consumes(begun), complete=st.booleans(), writer=writers)
    def end_upload(self, upload, complete, writer):
        name, bucket_id, key, upload_id = upload
        wanted = self.parts_of(upload)

        def abort(txn):
            bucket = buckets.get_bucket(txn, name)
            if bucket is None or bucket.id != bucket_id:
                bucket = BucketRecord(bucket_id, name, "t", 1)
            uploads.remove_upload(txn, bucket, key, upload_id, writer)

        if wanted is None:
            with pytest.raises(NoSuchUpload):
                self.kv.commit(abort)
            return
        if complete:
            size = sum(part.size for part in wanted.values())
            stored = sum(part.new_stored_bytes for part in wanted.values())
            etag = f"{MD5}-{len(wanted) or 1}"
            record = ObjectRecord(size, 1, etag, "t", manifest=b"m", new_stored_bytes=stored)
            change = Change(writer, NOW, b"8 random")

            def finish(txn, bucket):
                return versions.complete_upload(txn, bucket, key, upload_id, record, change)

            if not self.put(name, key, record, finish, (size, stored, 0)):
                return
        else:
            self.commit(abort)
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
                assert statistics(reader, bucket_id) == self.counts(name)
                assert quotas.bucket_usage(reader, bucket_id) == self.used(name)
                iterated = versions.iterate_versions(reader, bucket_id)
                assert sorted(record.sequence for _, record in iterated) == sorted(
                    record.sequence for record in everything
                )
            for tenant in ("t", "u"):
                owned = [name for name in self.ids if OWNERS[name] == tenant]
                assert quotas.tenant_usage(reader, tenant) == self.used(*owned)
            for table, scopes in ((COUNTERS, len(self.ids)), (TENANT_COUNTERS, 2)):
                assert len(list(reader.scan(table))) <= scopes * (FOLD_ROWS + 1)

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
        for tenant in ("t", "u"):
            self.kv.commit(lambda txn, tenant=tenant: quotas.set_tenant_limits(txn, tenant, UNLIMITED))
        with self.kv.snapshot() as reader:
            assert [table for table in TABLES if table != META and list(reader.scan(table))] == []


TestNamesModel = NamesModel.TestCase
TestNamesModel.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)
