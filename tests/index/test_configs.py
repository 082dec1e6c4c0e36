"""Configurations of buckets: named bytes that come and go with their bucket."""

from __future__ import annotations

import pytest

from index.buckets import create_bucket, delete_bucket, get_bucket
from index.configs import delete_config, get_config, get_configs, put_config
from index.errors import CorruptRecord
from index.memory_kv import MemoryKv
from index.tables import CONFIGS, TABLES


@pytest.fixture
def kv() -> MemoryKv:
    made = MemoryKv(TABLES)
    for name in ("first", "second"):
        made.commit(lambda txn, name=name: create_bucket(txn, name, "tenant", 1))
    return made


def configured(kv: MemoryKv, name: str) -> bool:
    with kv.snapshot() as reader:
        return get_bucket(reader, name).configured


def put(kv: MemoryKv, bucket_id: int, name: str, value: bytes) -> None:
    kv.commit(lambda txn: put_config(txn, bucket_id, name, value))


def test_a_configuration_comes_back_and_is_replaced(kv):
    put(kv, 1, "cors", b"\x01first")
    put(kv, 1, "cors", b"\x01second")
    with kv.snapshot() as reader:
        assert get_config(reader, 1, "cors") == b"\x01second"
        assert get_config(reader, 1, "cor") is None
        assert get_config(reader, 2, "cors") is None
        assert get_configs(reader, 1, ("policy", "cors")) == [None, b"\x01second"]


def test_deleting_tells_whether_it_was_set(kv):
    put(kv, 1, "cors", b"x")
    assert kv.commit(lambda txn: delete_config(txn, 1, "cors"))
    assert not kv.commit(lambda txn: delete_config(txn, 1, "cors"))
    with kv.snapshot() as reader:
        assert get_config(reader, 1, "cors") is None


def test_rows_are_the_bucket_id_and_the_name(kv):
    put(kv, 2, "policy", b"\x01{}")
    with kv.snapshot() as reader:
        assert list(reader.scan(CONFIGS)) == [(b"\0\0\0\0\0\0\0\x02policy", b"\x01{}")]


def test_a_bucket_takes_its_configurations_along_and_no_others(kv):
    first = kv.commit(lambda txn: create_bucket(txn, "one", "tenant", 1))
    second = kv.commit(lambda txn: create_bucket(txn, "two", "tenant", 1))
    for bucket in (first, second):
        put(kv, bucket.id, "policy", b"p")
        put(kv, bucket.id, "website", b"w")
    kv.commit(lambda txn: delete_bucket(txn, "one"))
    again = kv.commit(lambda txn: create_bucket(txn, "one", "tenant", 1))
    with kv.snapshot() as reader:
        assert get_configs(reader, first.id, ("policy", "website")) == [None, None]
        assert get_configs(reader, again.id, ("policy", "website")) == [None, None]
        assert get_configs(reader, second.id, ("policy", "website")) == [b"p", b"w"]


def test_a_bucket_knows_whether_it_has_any(kv):
    assert not configured(kv, "first")
    put(kv, 1, "cors", b"x")
    put(kv, 1, "policy", b"x")
    assert (configured(kv, "first"), configured(kv, "second")) == (True, False)
    kv.commit(lambda txn: delete_config(txn, 1, "cors"))
    assert configured(kv, "first")
    kv.commit(lambda txn: delete_config(txn, 1, "policy"))
    kv.commit(lambda txn: delete_config(txn, 1, "policy"))
    assert not configured(kv, "first")


def test_a_bucket_that_is_not_there_has_none(kv):
    with pytest.raises(CorruptRecord):
        put(kv, 99, "cors", b"x")
    with kv.snapshot() as reader:
        assert get_config(reader, 99, "cors") is None
