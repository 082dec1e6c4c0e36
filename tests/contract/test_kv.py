"""What every engine of the ordered map promises (index/kv.py). Both engines must pass all of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.kv import MAX_KEY_BYTES, MAX_VALUE_BYTES
from index.memory_kv import MemoryKv
from tests.index.engine import TABLES, open_engine, recover_engine, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from index.kv import OrderedMap, Transaction

T, OTHER = TABLES


@pytest.fixture(params=["memory", "lmdb"])
def kv(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OrderedMap]:
    if request.param == "memory":
        yield MemoryKv(TABLES)
        return
    recover_engine(tmp_path)
    engine = open_engine(tmp_path)
    yield engine
    engine.close()


def put_all(kv: OrderedMap, *keys: bytes) -> None:
    def fn(txn: Transaction) -> None:
        for key in keys:
            txn.put(T, key, b"v" + key)

    kv.commit(fn)


def keys_of(kv: OrderedMap, *args: object, **kwargs: object) -> list[bytes]:
    with kv.snapshot() as reader:
        return [key for key, _ in reader.scan(T, *args, **kwargs)]  # type: ignore[arg-type]


def test_committed_value_is_read_back(kv):
    kv.commit(lambda txn: txn.put(T, b"k", b"v"))
    with kv.snapshot() as reader:
        assert reader.get(T, b"k") == b"v"
        assert reader.get(T, b"other") is None
        assert reader.get(OTHER, b"k") is None


@pytest.mark.parametrize("value", [b"", b"\0", b"x" * 5000, bytes(MAX_VALUE_BYTES)], ids=len)
def test_value_of_any_length_comes_back_as_it_was_put(kv, value):
    kv.commit(lambda txn: txn.put(T, b"k", value))
    with kv.snapshot() as reader:
        assert reader.get(T, b"k") == value
        assert list(reader.scan(T)) == [(b"k", value)]


@pytest.mark.parametrize("key", [b"\0", b"\xff" * MAX_KEY_BYTES], ids=["shortest", "longest"])
def test_key_of_any_legal_length_is_found(kv, key):
    put_all(kv, key)
    with kv.snapshot() as reader:
        assert reader.get(T, key) == b"v" + key
    assert kv.commit(lambda txn: txn.delete(T, key))


@pytest.mark.parametrize("key", [b"", b"x" * (MAX_KEY_BYTES + 1)], ids=["empty", "too long"])
def test_key_out_of_bounds_is_refused_by_put_and_absent_elsewhere(kv, key):
    with pytest.raises(ValueError, match="out of bounds"):
        kv.commit(lambda txn: txn.put(T, key, b"v"))
    with kv.snapshot() as reader:
        assert reader.get(T, key) is None
        assert reader.get_many(T, [key]) == [None]
    assert kv.commit(lambda txn: txn.delete(T, key)) is False


def test_value_out_of_bounds_is_refused(kv):
    with pytest.raises(ValueError, match="out of bounds"):
        kv.commit(lambda txn: txn.put(T, b"k", bytes(MAX_VALUE_BYTES + 1)))


def test_unknown_table_is_a_key_error(kv):
    with kv.snapshot() as reader, pytest.raises(KeyError):
        reader.get("idx.unknown", b"k")
    with pytest.raises(KeyError):
        kv.commit(lambda txn: txn.put("idx.unknown", b"k", b"v"))


def test_get_many_answers_in_the_order_of_its_keys(kv):
    put_all(kv, b"a", b"b", b"c")
    with kv.snapshot() as reader:
        assert reader.get_many(T, [b"c", b"x", b"a", b"c"]) == [b"vc", None, b"va", b"vc"]
        assert reader.get_many(T, []) == []


def test_scan_is_in_byte_order(kv):
    keys = [b"\xff", b"a", b"\0", b"a\0", b"ab", b"B", "é".encode(), b"a\xff"]
    put_all(kv, *keys)
    assert keys_of(kv) == sorted(keys)
    assert keys_of(kv, reverse=True) == sorted(keys, reverse=True)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (b"", None),
        (b"b", None),
        (b"bb", None),
        (b"", b"c"),
        (b"", b"cc"),
        (b"b", b"d"),
        (b"b", b"b"),
        (b"d", b"b"),
        (b"zz", None),
        (b"", b"\0"),
        (b"x" * 600, None),
        (b"", b"\xff" * 600),
    ],
)
def test_scan_is_half_open(kv, start, stop, reverse):
    keys = [b"a", b"b", b"c", b"d", b"e"]
    put_all(kv, *keys)
    wanted = [key for key in keys if start <= key and (stop is None or key < stop)]
    assert keys_of(kv, start, stop, reverse=reverse) == (wanted[::-1] if reverse else wanted)


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 9])
def test_scan_stops_at_its_limit(kv, limit):
    keys = [b"a", b"b", b"c", b"d", b"e"]
    put_all(kv, *keys)
    assert keys_of(kv, limit=limit) == keys[:limit]
    assert keys_of(kv, reverse=True, limit=limit) == keys[::-1][:limit]


def test_scan_of_an_empty_table_is_empty(kv):
    assert keys_of(kv) == []
    assert keys_of(kv, reverse=True) == []


def test_abandoned_scan_harms_nothing(kv):
    put_all(kv, b"a", b"b")
    with kv.snapshot() as reader:
        rows = reader.scan(T)
        assert next(rows) == (b"a", b"va")
    del rows
    put_all(kv, b"c")
    assert keys_of(kv) == [b"a", b"b", b"c"]


def test_snapshot_does_not_see_later_commits(kv):
    put_all(kv, b"a")
    with kv.snapshot() as before:
        put_all(kv, b"b")
        kv.commit(lambda txn: txn.delete(T, b"a"))
        assert [key for key, _ in before.scan(T)] == [b"a"]
        assert before.sequence == 1
    assert keys_of(kv) == [b"b"]


def test_transaction_sees_its_own_writes(kv):
    put_all(kv, b"a", b"c")

    def fn(txn: Transaction) -> list[bytes]:
        txn.put(T, b"b", b"vb")
        assert txn.delete(T, b"c")
        assert not txn.delete(T, b"c")
        assert txn.get(T, b"b") == b"vb"
        assert txn.get(T, b"c") is None
        return [key for key, _ in txn.scan(T)]

    assert kv.commit(fn) == [b"a", b"b"]


def test_delete_tells_whether_the_key_was_there(kv):
    put_all(kv, b"a")
    assert kv.commit(lambda txn: (txn.delete(T, b"a"), txn.delete(T, b"a"))) == (True, False)


def test_put_then_delete_leaves_nothing(kv):
    def fn(txn: Transaction) -> None:
        txn.put(T, b"a", b"1")
        txn.put(T, b"a", b"2")
        txn.delete(T, b"a")

    kv.commit(fn)
    assert keys_of(kv) == []


def test_commit_returns_what_the_function_returned_and_raises_what_it_raised(kv):
    assert kv.commit(lambda txn: 42) == 42
    with pytest.raises(ZeroDivisionError):
        kv.commit(lambda txn: 1 // 0)


def test_failing_function_leaves_no_trace(kv):
    def fn(txn: Transaction) -> None:
        txn.put(T, b"a", b"1")
        txn.put(OTHER, b"a", b"1")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        kv.commit(fn)
    assert rows_of(kv) == {}
    with kv.snapshot() as reader:
        assert reader.sequence == 0


def test_function_of_a_group_fails_alone(kv):
    def failing(txn: Transaction) -> None:
        txn.put(T, b"bad", b"1")
        txn.delete(T, b"a")
        raise RuntimeError("no")

    outcomes = kv.commit_many(
        [
            lambda txn: txn.put(T, b"a", b"1"),
            failing,
            lambda txn: txn.put(T, b"b", txn.get(T, b"a") or b"unseen"),
        ]
    )
    assert [outcome.sequence for outcome in outcomes] == [1, 0, 2]
    assert isinstance(outcomes[1].error, RuntimeError)
    assert rows_of(kv) == {(T, b"a"): b"1", (T, b"b"): b"1"}


def test_group_of_failing_functions_commits_nothing(kv):
    outcomes = kv.commit_many([lambda txn: 1 // 0, lambda txn: 1 // 0])
    assert all(isinstance(outcome.error, ZeroDivisionError) for outcome in outcomes)
    with kv.snapshot() as reader:
        assert reader.sequence == 0


def test_empty_group_is_no_commit(kv):
    assert kv.commit_many([]) == []


def test_every_function_has_its_own_ascending_sequence(kv):
    seen = []
    for size in (1, 3, 2):
        outcomes = kv.commit_many([lambda txn: txn.sequence] * size)
        assert [outcome.value for outcome in outcomes] == [outcome.sequence for outcome in outcomes]
        seen += [outcome.sequence for outcome in outcomes]
    assert seen == [1, 2, 3, 4, 5, 6]
    with kv.snapshot() as reader:
        assert reader.sequence == 6


def test_commits_of_many_threads_are_serialised(kv):
    def increment(txn: Transaction) -> None:
        count = int(txn.get(T, b"count") or b"0")
        txn.put(T, b"count", b"%d" % (count + 1))

    threads = [threading.Thread(target=lambda: [kv.commit(increment) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with kv.snapshot() as reader:
        assert reader.get(T, b"count") == b"40"
        assert reader.sequence == 40


KEYS = st.binary(min_size=1, max_size=3)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(TABLES), KEYS, st.binary(max_size=8)),
    st.tuples(st.just("delete"), st.sampled_from(TABLES), KEYS, st.just(b"")),
    st.tuples(st.just("fail"), st.just(T), st.just(b"k"), st.just(b"")),
)
GROUPS = st.lists(st.lists(st.lists(OPERATIONS, max_size=5), min_size=1, max_size=4), max_size=4)


def run_operations(txn: Transaction, operations: list[tuple[str, str, bytes, bytes]]) -> None:
    for kind, table, key, value in operations:
        if kind == "put":
            txn.put(table, key, value)
        elif kind == "delete":
            txn.delete(table, key)
        else:
            raise RuntimeError("asked for")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=GROUPS, start=st.binary(max_size=3), stop=st.none() | KEYS, limit=st.none() | st.integers(0, 5))
def test_map_equals_a_dictionary(kv, groups, start, stop, limit):
    leftovers = list(rows_of(kv))
    kv.commit(lambda txn: [txn.delete(table, key) for table, key in leftovers])
    model: dict[tuple[str, bytes], bytes] = {}
    for group in groups:
        kv.commit_many([lambda txn, ops=operations: run_operations(txn, ops) for operations in group])
        for operations in group:
            if any(kind == "fail" for kind, *_ in operations):
                continue
            for kind, table, key, value in operations:
                if kind == "put":
                    model[table, key] = value
                else:
                    model.pop((table, key), None)
    assert rows_of(kv) == model
    wanted = sorted(k for t, k in model if t == T and k >= start and (stop is None or k < stop))
    assert keys_of(kv, start, stop, limit=limit) == wanted[:limit]
    assert keys_of(kv, start, stop, reverse=True, limit=limit) == wanted[::-1][:limit]


@pytest.mark.slow
def test_engines_satisfy_the_protocols_statically():
    """The contract is structural: mypy is its judge."""
    from mypy import api

    code = """
from index.kv import OrderedMap, Reader, Transaction
from index.lmdb_kv import LmdbKv
from index.lmdb_view import LmdbReader, LmdbTransaction
from index.memory_kv import MemoryKv
def engines(a: LmdbKv, b: MemoryKv) -> list[OrderedMap]: return [a, b]
def readers(a: LmdbReader) -> Reader: return a
def transactions(a: LmdbTransaction) -> Transaction: return a
"""
    out, err, status = api.run(["--strict", "--config-file=", "-c", code])
    assert status == 0, out + err
