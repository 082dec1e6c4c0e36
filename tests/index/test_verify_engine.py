"""What only a damaged LMDB can show: keys that no program wrote, and rows that a walk finds and a lookup does not."""

from __future__ import annotations

import struct

import lmdb
import pytest

from index.environment import ViewDamaged, open_tables, wrap
from index.kv import MapFull
from index.lmdb_view import LmdbReader, LmdbTransaction
from index.memory_kv import MemoryKv
from index.verify_engine import _differences

PAGE = 4096
TABLE = "names"
ROWS = {b"key %06d" % number: b"value %06d" % number * 4 for number in range(400)}


@pytest.fixture
def damaged(tmp_path):
    """Opens an environment with these rows in which one bit was flipped; the page is chosen by its flags."""

    def flip(page_flag: int, offset_from_pointer: int, bit: int, pointer: int = 0):
        with lmdb.open(str(tmp_path), map_size=1 << 24, max_dbs=4) as env:
            tables = open_tables(env, [TABLE])
            handle, seeds = tables[TABLE]
            with env.begin(write=True) as txn:
                for key, value in ROWS.items():
                    txn.put(key, wrap(seeds, key, value), db=handle)
        path = tmp_path / "data.mdb"
        data = bytearray(path.read_bytes())
        start = next(
            at
            for at in range(2 * PAGE, len(data), PAGE)
            if struct.unpack_from("<H", data, at + 10)[0] == page_flag and b"key 0" in data[at : at + PAGE]
        )
        (node,) = struct.unpack_from("<H", data, start + 16 + 2 * pointer)
        data[start + node + offset_from_pointer] ^= 1 << bit
        path.write_bytes(data)
        env = lmdb.open(str(tmp_path), map_size=1 << 24, max_dbs=4, lock=False)
        return env, open_tables(env, [TABLE])

    return flip


def truth() -> MemoryKv:
    kv = MemoryKv((TABLE,))

    def fill(txn):
        for key, value in ROWS.items():
            txn.put(TABLE, key, value)

    kv.commit(fill)
    return kv


BRANCH, LEAF = 1, 2
NODE_KEY = 8  # behind a node's head


def test_a_branch_that_leads_elsewhere_is_found(damaged):
    env, tables = damaged(
        BRANCH, NODE_KEY + 6, 0, pointer=1
    )  # a key of the branch: it parts two leaves elsewhere
    with env, env.begin() as txn, truth().snapshot() as sound:
        live = LmdbReader(txn, tables)
        assert dict(live.scan(TABLE)) == ROWS, "a walk sees nothing"
        found = list(_differences(live, sound, [TABLE]))
    assert {each.kind for each in found} == {"row-missing"}
    assert all(ROWS[each.key] == each.truth for each in found)


def test_a_key_longer_than_any_is_damage_and_no_defect(damaged):
    env, tables = damaged(LEAF, 7, 1, pointer=30)  # its length, by 512
    with env, env.begin() as txn, truth().snapshot() as sound:
        live = LmdbReader(txn, tables)
        with pytest.raises(ViewDamaged, match="a key of 522 bytes"):
            list(live.scan(TABLE))
        assert {each.kind for each in _differences(live, sound, [TABLE])} == {"view"}


def test_what_lmdb_refuses_after_damage_is_damage(damaged):
    """MDB_BAD_TXN, MDB_BAD_DBI, MDB_INCOMPATIBLE: no reader of ours can bring them about."""
    env, tables = damaged(BRANCH, -1, 0)
    with env, env.begin() as txn:
        live = LmdbReader(txn, tables)
        for error in (lmdb.BadTxnError("bad"), lmdb.BadDbiError("bad"), lmdb.IncompatibleError("bad")):
            assert isinstance(live._unread(error), ViewDamaged)
    full = LmdbTransaction(None, {}, 0)
    full.failure = MapFull("full")
    assert full._unread(lmdb.BadTxnError("bad")) is full.failure
