"""A rebuilt environment has full pages, and the same rows; damage is found on the way."""

from __future__ import annotations

import errno
import random
from itertools import count
from typing import TYPE_CHECKING

import lmdb
import pytest

from index import dense
from index.dense import copy_dense
from index.environment import open_environment, open_tables, read_position
from index.fileops import FileOps
from index.kv import CorruptValue, KvError
from index.recovery import rebuild
from tests.index.engine import (
    STORE_ID,
    TABLES,
    TUNING,
    FaultyFiles,
    open_engine,
    recover_engine,
    rows_after_recovery,
    rows_of,
)

if TYPE_CHECKING:
    from pathlib import Path

T, OTHER = TABLES


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A store whose rows came in any order and became smaller: its pages are half empty."""
    recover_engine(tmp_path)
    rng = random.Random(3)
    with_rows = open_engine(tmp_path)
    keys = [b"%08d" % number for number in rng.sample(range(10_000), 3000)]
    for first in range(0, len(keys), 100):
        with_rows.commit(
            lambda txn, part=keys[first : first + 100]: [txn.put(T, k, bytes(900)) for k in part]
        )
    for first in range(0, len(keys), 100):
        with_rows.commit(lambda txn, part=keys[first : first + 100]: [txn.put(T, k, k * 9) for k in part])
    with_rows.commit(lambda txn: txn.put(OTHER, b"one", b"row"))
    with_rows.close()
    return tmp_path


def pages(directory: Path) -> int:
    """That hold rows of the table."""
    with lmdb.open(str(directory / "meta"), max_dbs=64, readonly=True, lock=False) as env:
        handle = env.open_db(T.encode(), create=False)
        with env.begin() as txn:
            stat = txn.stat(handle)
    return stat["leaf_pages"] + stat["overflow_pages"]


def rows(directory: Path) -> dict:
    kv = open_engine(directory)
    try:
        return rows_of(kv)
    finally:
        kv.close()


def test_a_rebuilt_store_has_full_pages_and_the_same_rows(loose: Path, monkeypatch):
    monkeypatch.setattr(dense, "BATCH_ROWS", 700)  # several transactions
    before, loosely = rows(loose), pages(loose)
    report = rebuild(loose, tables=TABLES, store_id=STORE_ID, reason="asked for", tuning=TUNING)
    assert report.action == "rebuilt"
    assert rows(loose) == before
    assert pages(loose) < loosely / 2
    assert pages(loose) * 4096 < 1.25 * sum(len(key) + len(value) + 12 for (_, key), value in before.items())
    assert not list((loose / "tmp").glob("kv-*"))
    assert rows_after_recovery(loose) == before


def test_large_rows_are_copied_few_at_a_time(loose: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dense, "BATCH_BYTES", 10_000)
    commits = []
    commit = FileOps.commit
    monkeypatch.setattr(FileOps, "commit", lambda self, txn: commits.append(1) or commit(self, txn))
    source, copy = environments(loose, tmp_path / "copy")
    with source, copy:
        copy_dense(source, copy, FileOps())
    total = sum(len(key) + len(value) + 8 for (_, key), value in rows(loose).items())
    assert len(commits) > total / 10_000


def test_an_empty_store_and_one_row_are_copied(tmp_path: Path):
    recover_engine(tmp_path)
    rebuild(tmp_path, tables=TABLES, store_id=STORE_ID, reason="asked for", tuning=TUNING)
    assert rows(tmp_path) == {}


def environments(loose: Path, target: Path) -> tuple[lmdb.Environment, lmdb.Environment]:
    target.mkdir()
    source, copy = (
        open_environment(folder, table_count=len(TABLES), map_size_bytes=64 << 20, tuning=TUNING)
        for folder in (loose / "meta", target)
    )
    return source, copy


def test_a_damaged_row_is_not_copied(loose: Path, tmp_path: Path):
    source, copy = environments(loose, tmp_path / "copy")
    with source, copy:
        handle = open_tables(source, TABLES)[T][0]
        with source.begin(write=True) as txn:
            txn.put(b"%08d" % 5, b"no checksum of ours", db=handle)
        with pytest.raises(CorruptValue):
            copy_dense(source, copy, FileOps())


def test_the_position_is_copied_and_the_header_is_not(loose: Path, tmp_path: Path):
    source, copy = environments(loose, tmp_path / "copy")
    with source, copy:
        copy_dense(source, copy, FileOps())
        with source.begin() as one, copy.begin() as other:
            assert read_position(one) == read_position(other)
            assert other.get(b"\0kv.header") is None


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_whatever_fails_on_the_way_leaves_what_was_there(loose: Path, code: int):
    before = rows(loose)
    failed = 0
    for number in count(1):
        files = FaultyFiles(number, code)
        try:
            rebuild(loose, tables=TABLES, store_id=STORE_ID, reason="asked for", tuning=TUNING, files=files)
        except KvError:
            failed += 1
        if not files.has_failed:
            break
        assert rows_after_recovery(loose) == before
    assert failed > 10
