"""What only a damaged LMDB can show: keys that no program wrote, and rows that a walk finds and a lookup does not."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import lmdb
import pytest

from index.checkpoint import list_sidecars
from index.environment import ViewDamaged, open_tables, wrap
from index.kv import MapFull
from index.lmdb_view import LmdbReader, LmdbTransaction, check_rows
from index.memory_kv import MemoryKv
from index.verify_engine import _differences, check_checkpoints, check_journal
from tests.index.engine import STORE_ID, TABLES, open_engine, recover_engine

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.fixture
def disordered(damaged, tmp_path):
    """Two rows of a leaf have changed places: each is sound, and whoever asks for what follows may go in circles."""
    env, _ = damaged(LEAF, 0, 0)
    env.close()
    path = tmp_path / "data.mdb"
    data = bytearray(path.read_bytes())
    start = next(
        at
        for at in range(2 * PAGE, len(data), PAGE)
        if struct.unpack_from("<H", data, at + 10)[0] == LEAF and b"key 0" in data[at : at + PAGE]
    )
    pointers = slice(start + 16 + 2 * 5, start + 16 + 2 * 7)
    (node,) = struct.unpack_from("<H", data, start + 16)
    data[start + node] ^= 1  # as it was
    data[pointers] = data[pointers][2:] + data[pointers][:2]
    path.write_bytes(data)
    with lmdb.open(str(tmp_path), map_size=1 << 24, max_dbs=4, lock=False) as env:
        yield env, open_tables(env, [TABLE])


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_out_of_order_are_damage(disordered, reverse: bool):
    env, tables = disordered
    with env.begin() as txn:
        live = LmdbReader(txn, tables)
        with pytest.raises(ViewDamaged, match="out of order"):
            list(live.scan(TABLE, reverse=reverse))


def test_whoever_pages_through_disordered_rows_comes_to_an_end(disordered):
    env, tables = disordered
    with env.begin() as txn:
        live = LmdbReader(txn, tables)
        for start in (b"", b"key 000004", b"key 000005", b"key 000006", b"key 000007", b"key 2", b"z"):
            after, steps = start, 0
            try:
                while rows := list(live.scan(TABLE, after, limit=1)):
                    assert rows[0][0] >= after
                    after = rows[0][0] + b"\0"
                    steps += 1
                    assert steps <= len(ROWS)
            except ViewDamaged:
                continue


def test_a_checkpoint_is_not_made_of_disordered_rows(disordered):
    env, tables = disordered
    with env.begin() as txn, pytest.raises(ViewDamaged, match="out of order"):
        check_rows(txn, TABLE, tables[TABLE])


# --- checkpoints and journal ----------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path) -> tuple[Path, int]:
    """A folder with many small segments, two checkpoints, and what was cut from the journal; the newest sequence."""
    recover_engine(tmp_path)
    kv = open_engine(tmp_path, segment_bytes=600)
    for number in range(40):
        kv.commit(lambda txn, number=number: txn.put(TABLES[0], b"key %03d" % number, bytes(100)))
        if number in (15, 30):
            first = {path.name: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
            kv.write_checkpoint()
    with kv.snapshot() as reader:
        sequence = reader.sequence
    kv.close()
    cut = {name: data for name, data in first.items() if not (tmp_path / "journal" / name).exists()}
    assert len(cut) > 2
    for name, data in cut.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path, sequence


def journal_damage(directory: Path, sequence: int):
    sound, damage = check_checkpoints(directory, STORE_ID)
    assert not damage
    return check_journal(directory, STORE_ID, sound, sequence)


def test_a_whole_journal_is_whole_and_a_hole_in_it_is_told(history):
    directory, sequence = history
    assert journal_damage(directory, sequence) is None
    last = max((directory / "journal").iterdir())
    data = last.read_bytes()
    last.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    found = journal_damage(directory, sequence)
    assert found is not None
    assert found.kind == "journal"


def test_a_segment_that_was_cut_and_came_back_alone_is_no_damage(history):
    """A power cut may undo one removal and not the next, in any order: nobody needs what lies before two checkpoints."""
    directory, sequence = history
    for path in sorted(directory.glob("*.log")):
        shutil.copy(path, directory / "journal")
        assert journal_damage(directory, sequence) is None
        (directory / "journal" / path.name).unlink()


def test_with_one_checkpoint_the_journal_is_wanted_from_its_beginning(history):
    directory, sequence = history
    cut = sorted(directory.glob("*.log"))
    oldest = list_sidecars(directory)[-1]
    for path in cut:
        shutil.copy(path, directory / "journal")
    oldest.unlink()
    assert journal_damage(directory, sequence) is None
    (directory / "journal" / cut[1].name).unlink()
    assert journal_damage(directory, sequence) is not None
