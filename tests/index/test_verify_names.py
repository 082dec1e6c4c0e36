"""Rows of names that contradict each other are found, one table of contradictions; that whole ones are not is shown by
the model (tests/model), which verifies after every step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from index import ids, tree, uploads
from index.buckets import bucket_by_id, create_bucket
from index.configs import put_config
from index.keys import CONTINUES, encode_id, inverted
from index.memory_kv import MemoryKv
from index.records import BucketRecord, ObjectRecord, PartRecord, UploadRecord
from index.tables import (
    BUCKET_NAMES,
    BUCKETS,
    CONFIGS,
    COUNTERS,
    META,
    NULL_VERSIONS,
    OBJECTS,
    PARTS,
    TABLES,
    TOKENS,
    UPLOADS,
    VERSIONS,
)
from index.tokens import put_token
from index.verify_names import BucketCheck, buckets_of, check_buckets, key_of_row
from index.versions import Change, delete_object, put_object

MD5 = "0" * 32
LONG = b"long" * 200
CHANGE = Change(1, 5, b"8 random")


@pytest.fixture
def kv():
    kv = MemoryKv(TABLES)
    bucket = kv.commit(lambda txn: create_bucket(txn, "bucket", "owner", 1))

    def put(key, data=b"data", versioning="Off", **fields):
        record = ObjectRecord(len(data), 1, MD5, "owner", inline=data, **fields)
        kv.commit(lambda txn: put_object(txn, replace(bucket, versioning=versioning), key, record, CHANGE))

    put(b"plain")
    put(LONG)
    put(LONG + b"/other")
    put(b"versioned")
    put(b"versioned", b"newer", "Enabled")
    put(b"versioned", b"newest", "Enabled")
    kv.commit(lambda txn: delete_object(txn, replace(bucket, versioning="Enabled"), LONG, "owner", CHANGE))
    made = kv.commit(
        lambda txn: uploads.create_upload(txn, 1, UploadRecord("", b"up", "owner", 1), b"8 random")
    )
    part = PartRecord(3, 4, MD5, 1, b"manifest")
    kv.commit(lambda txn: uploads.put_part(txn, bucket_by_id(txn, 1), b"up", made.upload_id, part, 1))
    kv.commit(lambda txn: put_config(txn, 1, "tagging", b"\x01<Tagging/>"))
    kv.commit(lambda txn: put_token(txn, 1, b"token", bytes(32), 5))
    return kv


def reasons(kv) -> list[str]:
    with kv.snapshot() as reader:
        found = list(check_buckets(reader))
        for bucket in buckets_of(reader):
            found += BucketCheck(reader, bucket).run()
    return [damage.reason for damage in found]


def test_consistent_rows_are_consistent(kv):
    assert reasons(kv) == []


def row(txn, table, key):
    found = tree.find_row(txn, table, 1, key)
    assert found is not None
    return found


def first(txn, table):
    return next(iter(list(txn.scan(table))))


def change_record(txn, table, found, **fields):
    record = ObjectRecord.decode(txn.get(table, found))
    txn.put(table, found, replace(record, **fields).encode())


def newest_shelved(txn):
    return next(r for r, _ in list(txn.scan(VERSIONS)) if r.startswith(row(txn, VERSIONS, b"versioned")))


def forget_link(txn):
    link = next(r for r, _ in list(txn.scan(OBJECTS)) if r.endswith(CONTINUES))
    txn.delete(OBJECTS, link)


def of_another_upload(txn):
    found, value = first(txn, UPLOADS)
    txn.put(UPLOADS, found, replace(UploadRecord.decode(value), key=b"other").encode())


def of_another_number(txn):
    found, value = first(txn, PARTS)
    txn.put(PARTS, found[:-2] + b"\0\x07", value)
    txn.delete(PARTS, found)


def move_version(txn):
    found = newest_shelved(txn)
    txn.put(VERSIONS, found[:-8] + inverted(3), txn.get(VERSIONS, found))
    txn.delete(VERSIONS, found)


def show_an_older_one(txn):
    """The two versions of the key change places, in every respect but their age."""
    shown, shelved = row(txn, OBJECTS, b"versioned"), newest_shelved(txn)
    newer, older = (
        ObjectRecord.decode(txn.get(OBJECTS, shown)),
        ObjectRecord.decode(txn.get(VERSIONS, shelved)),
    )
    txn.put(OBJECTS, shown, older.encode())
    txn.delete(VERSIONS, shelved)
    txn.put(VERSIONS, shelved[:-8] + inverted(newer.sequence), newer.encode())


def damaged_bucket_record(txn):
    txn.put(BUCKETS, encode_id(1), b"B")


CONTRADICTIONS = {
    "an object that does not decode": (lambda txn: txn.put(OBJECTS, row(txn, OBJECTS, b"plain"), b"O"), "record"),
    "inline data of another size": (lambda txn: change_record(txn, OBJECTS, row(txn, OBJECTS, b"plain"), size=5), "4 bytes instead of 5"),
    "a sequence of the future": (lambda txn: change_record(txn, OBJECTS, row(txn, OBJECTS, b"plain"), sequence=999), "not of this history"),
    "a version under another sequence": (move_version, "its row is not that of sequence"),
    "an older version is shown": (show_an_older_one, "an older version is shown"),
    "a null version that nothing leads to": (lambda txn: txn.delete(NULL_VERSIONS, row(txn, NULL_VERSIONS, b"versioned")), "null versions"),
    "a null version that is not there": (lambda txn: txn.put(NULL_VERSIONS, row(txn, NULL_VERSIONS, b"versioned"), encode_id(99)), "not where it was put"),
    "two null versions": (lambda txn: change_record(txn, OBJECTS, row(txn, OBJECTS, b"versioned"), version_id=None), "two null versions"),
    "a long key without its link": (forget_link, "longer than a row"),
    "a row without a terminator": (lambda txn: txn.put(OBJECTS, encode_id(1) + encode_id(0) + b"zz", b""), "terminator"),
    "an upload of another key": (of_another_upload, "another upload"),
    "a part of another number": (of_another_number, "that of part 3"),
    "a part without its upload": (lambda txn: txn.delete(UPLOADS, first(txn, UPLOADS)[0]), "upload that is not there"),
    "counters that are not the sums": (lambda txn: change_record(txn, OBJECTS, row(txn, OBJECTS, b"plain"), inline=b"", size=0), "the counters say"),
    "counters that do not decode": (lambda txn: txn.put(COUNTERS, first(txn, COUNTERS)[0], b"?"), "counter"),
    "a configuration that nobody looks for": (
        lambda txn: txn.put(BUCKETS, encode_id(1), replace(BucketRecord.decode(txn.get(BUCKETS, encode_id(1))), configured=False).encode()),
        "configurations",
    ),
    "configurations that are not there": (lambda txn: txn.delete(CONFIGS, first(txn, CONFIGS)[0]), "configurations"),
    "a token that does not decode": (lambda txn: txn.put(TOKENS, first(txn, TOKENS)[0], b"?"), "token"),
    "a bucket that does not decode": (damaged_bucket_record, "bucket"),
    "a bucket under another id": (
        lambda txn: txn.put(BUCKETS, encode_id(1), replace(BucketRecord.decode(txn.get(BUCKETS, encode_id(1))), id=2).encode()),
        "of bucket 2",
    ),
    "a bucket whose name leads elsewhere": (lambda txn: txn.put(BUCKET_NAMES, b"bucket", encode_id(7)), "leads to no bucket"),
    "a bucket without a name": (lambda txn: txn.delete(BUCKET_NAMES, b"bucket"), "does not lead to it"),
    "rows of a bucket that is not there": (lambda txn: txn.put(TOKENS, encode_id(9) + b"t", b""), "bucket that is not there"),
    "an allocator that would give an id again": (lambda txn: txn.put(META, ids.BUCKET, encode_id(1)), "was used already"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_every_contradiction_is_found(kv, name):
    change, said = CONTRADICTIONS[name]
    kv.commit(change)
    assert any(said in reason for reason in reasons(kv)), reasons(kv)


def test_a_row_tells_its_key_however_long(kv):
    with kv.snapshot() as reader:
        for key in (b"plain", LONG + b"/other"):
            found = tree.find_row(reader, OBJECTS, 1, key)
            assert found is not None
            assert key_of_row(reader, OBJECTS, found) == key
        assert key_of_row(reader, OBJECTS, b"no row at all") is None
