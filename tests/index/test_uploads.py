"""Uploads in progress: ids, parts, and what remains afterwards (nothing)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.counters import NamesStatistics, statistics
from index.errors import InvalidKey, NoSuchUpload
from index.memory_kv import MemoryKv
from index.records import BucketRecord, PartRecord, UploadRecord
from index.tables import COUNTERS, META, TABLES
from index.uploads import (
    create_upload,
    get_parts,
    get_upload,
    list_parts,
    parse_upload_id,
    put_part,
    remove_upload,
    same_parts,
)

BUCKET = 2
RECORD = BucketRecord(BUCKET, "b", "tenant", 1)
UPLOAD = UploadRecord(upload_id="", key=b"key", owner="tenant", initiated_ms=1)
NONCE = b"8 random"


@pytest.fixture
def kv() -> MemoryKv:
    return MemoryKv(TABLES)


def begin(kv, key=b"key", nonce=NONCE):
    return kv.commit(lambda txn: create_upload(txn, BUCKET, replace(UPLOAD, key=key), nonce))


def part(number: int, size: int = 5) -> PartRecord:
    return PartRecord(number, size, "d41d8cd98f00b204e9800998ecf8427e", 1, b"manifest")


def put(kv, upload, *numbers, size=5):
    def put_all(txn):
        return [
            put_part(txn, RECORD, upload.key, upload.upload_id, part(number, size), 1) for number in numbers
        ]

    return kv.commit(put_all)


def test_parts_are_the_same_until_one_is_replaced(kv):
    upload = begin(kv)
    put(kv, upload, 1, 2, 3)
    with kv.snapshot() as reader:
        read = get_parts(reader, BUCKET, upload.key, upload.upload_id, [1, 3])
        known = [(record.number, record.sequence) for record in read]
        assert same_parts(reader, BUCKET, upload.key, upload.upload_id, known)
        assert not same_parts(reader, BUCKET, upload.key, upload.upload_id, [*known, (4, 1)])
    put(kv, upload, 2)
    with kv.snapshot() as reader:
        assert same_parts(reader, BUCKET, upload.key, upload.upload_id, known)
    put(kv, upload, 3)
    with kv.snapshot() as reader:
        assert not same_parts(reader, BUCKET, upload.key, upload.upload_id, known)


def numbers(page):
    return [record.number for record in page.parts], page.truncated


@pytest.mark.parametrize("key", [b"key", b"\x00" * 1024, b"k" * 401])
def test_an_upload_is_found_by_its_key_and_id_together(kv, key):
    upload = begin(kv, key)
    assert upload.sequence == 1
    with kv.snapshot() as reader:
        assert get_upload(reader, BUCKET, key, upload.upload_id) == upload
        assert get_upload(reader, BUCKET, key + b"x" if len(key) < 1024 else b"x", upload.upload_id) is None
        assert get_upload(reader, BUCKET + 1, key, upload.upload_id) is None
        for unknown in ("", "x", upload.upload_id.upper() + "x", "0" * 32, "é", upload.upload_id[:-1]):
            assert get_upload(reader, BUCKET, key, unknown) is None


def test_ids_sort_by_initiation_whatever_their_random_part(kv):
    ids = [begin(kv, nonce=nonce).upload_id for nonce in (b"\xff" * 8, b"\x00" * 8, b"\xff" * 8)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 3


@given(st.binary(max_size=20), st.text(max_size=40))
def test_only_ids_of_our_form_are_parsed(raw, text):
    assert parse_upload_id(raw.hex()) == (raw if len(raw) == 16 else None)
    parsed = parse_upload_id(text)
    assert parsed is None or parsed.hex() == text


def test_a_nonce_of_another_length_is_refused(kv):
    with pytest.raises(ValueError, match="8 bytes"):
        begin(kv, nonce=b"short")


def test_parts_are_put_replaced_and_read_in_any_order(kv):
    upload = begin(kv)
    assert put(kv, upload, 2, 10_000, 1) == [None, None, None]
    assert put(kv, upload, 2, size=9) == [replace(part(2), sequence=2)]
    with kv.snapshot() as reader:
        found = get_parts(reader, BUCKET, upload.key, upload.upload_id, [10_000, 3, 2, -1, 70_000])
    assert found == [replace(part(10_000), sequence=2), None, replace(part(2, 9), sequence=3), None, None]


def test_pages_of_parts_are_by_number(kv):
    upload = begin(kv)
    put(kv, upload, 300, 1, 2, 10_000)
    with kv.snapshot() as reader:

        def page(after_number, limit):
            return numbers(
                list_parts(
                    reader, BUCKET, upload.key, upload.upload_id, after_number=after_number, limit=limit
                )
            )

        assert page(0, 10) == ([1, 2, 300, 10_000], False)
        assert page(0, 2) == ([1, 2], True)
        assert page(2, 2) == ([300, 10_000], False)
        assert page(299, 1) == ([300], True)
        assert page(10_000, 1) == page(65_535, 1) == page(1 << 40, 1) == ([], False)
        assert page(0, 0) == ([], False)


def test_uploads_of_one_key_do_not_share_parts(kv):
    first, second = begin(kv), begin(kv)
    put(kv, first, 1)
    with kv.snapshot() as reader:
        assert numbers(list_parts(reader, BUCKET, b"key", second.upload_id, limit=9)) == ([], False)


def test_removing_an_upload_leaves_nothing_of_it_and_all_of_the_others(kv):
    upload, other = begin(kv, b"k" * 900), begin(kv, b"k" * 900)
    put(kv, upload, 1, 2)
    put(kv, other, 1)
    assert kv.commit(lambda txn: remove_upload(txn, RECORD, upload.key, upload.upload_id, 1)) == upload
    with kv.snapshot() as reader:
        assert numbers(list_parts(reader, BUCKET, other.key, other.upload_id, limit=9)) == ([1], False)
    kv.commit(lambda txn: remove_upload(txn, RECORD, other.key, other.upload_id, 1))
    with kv.snapshot() as reader:
        assert [t for t in TABLES if t not in (META, COUNTERS) and list(reader.scan(t))] == []
        assert statistics(reader, BUCKET) == NamesStatistics(0, 0, 0)


def test_every_use_of_an_unknown_upload_says_so(kv):
    upload = begin(kv)
    gone = upload.upload_id
    kv.commit(lambda txn: remove_upload(txn, RECORD, b"key", gone, 1))
    for use in (
        lambda txn: remove_upload(txn, RECORD, b"key", gone, 1),
        lambda txn: put_part(txn, RECORD, b"key", gone, part(1), 1),
        lambda txn: get_parts(txn, BUCKET, b"key", gone, [1]),
        lambda txn: list_parts(txn, BUCKET, b"key", gone, limit=1),
    ):
        with pytest.raises(NoSuchUpload):
            kv.commit(use)


def test_an_upload_for_an_impossible_key_is_refused(kv):
    with pytest.raises(InvalidKey):
        begin(kv, b"k" * 1025)
