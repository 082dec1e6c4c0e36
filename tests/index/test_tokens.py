"""Client tokens are remembered per bucket, and forgotten by age."""

from __future__ import annotations

import pytest

from index.buckets import create_bucket, delete_bucket
from index.configs import delete_config, get_config, put_config
from index.errors import CorruptRecord
from index.memory_kv import MemoryKv
from index.tables import CONFIGS, TABLES, TOKENS
from index.tokens import forget_tokens, get_token, put_token

A, B = b"a" * 32, b"b" * 32


@pytest.fixture
def kv():
    return MemoryKv(TABLES)


def known(kv, bucket_id, token):
    with kv.snapshot() as reader:
        return get_token(reader, bucket_id, token)


def test_a_token_belongs_to_its_bucket(kv):
    kv.commit(lambda txn: put_token(txn, 1, b"t", A, 5))
    assert (known(kv, 1, b"t"), known(kv, 2, b"t"), known(kv, 1, b"tt")) == (A, None, None)


def test_old_tokens_are_forgotten_and_young_ones_kept(kv):
    def put(txn):
        for n in range(2500):
            put_token(txn, 1, b"%d" % n, A, n)

    kv.commit(put)
    assert forget_tokens(kv, 2000) == 2000
    assert (known(kv, 1, b"1999"), known(kv, 1, b"2000")) == (None, A)
    assert forget_tokens(kv, 2000) == 0


@pytest.mark.parametrize("token", [b"", b"t" * 65])
def test_a_token_has_1_to_64_bytes(kv, token):
    with pytest.raises(ValueError, match="64 bytes"):
        kv.commit(lambda txn: put_token(txn, 1, token, A, 0))


def test_a_damaged_token_is_told(kv):
    kv.commit(lambda txn: txn.put(TOKENS, bytes(7) + b"\x01t", b"\x02"))
    with pytest.raises(CorruptRecord):
        known(kv, 1, b"t")


def test_tokens_and_configurations_go_with_their_bucket(kv):
    first = kv.commit(lambda txn: create_bucket(txn, "one", "o", 0))
    second = kv.commit(lambda txn: create_bucket(txn, "two", "o", 0))
    for bucket in (first, second):
        kv.commit(lambda txn, bucket=bucket: put_token(txn, bucket.id, b"t", B, 0))
        kv.commit(lambda txn, bucket=bucket: put_config(txn, bucket.id, "lifecycle", b"\x01x"))
    kv.commit(lambda txn: delete_bucket(txn, "one"))
    with kv.snapshot() as reader:
        assert [len(list(reader.scan(table))) for table in (TOKENS, CONFIGS)] == [1, 1]
        assert get_config(reader, second.id, "lifecycle") == b"\x01x"
    assert kv.commit(lambda txn: delete_config(txn, second.id, "lifecycle"))
    assert not kv.commit(lambda txn: delete_config(txn, second.id, "lifecycle"))
