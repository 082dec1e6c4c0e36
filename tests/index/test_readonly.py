"""A full disk gets a second attempt; a disk that fails again makes the store read-only, for all, until it is recovered."""

from __future__ import annotations

import errno

import pytest

from index.environment import allocate_lock_file
from index.fileops import FileOps
from index.kv import MapFull, StorePoisoned, StoreReadOnly
from index.lmdb_kv import LmdbKv
from index.poison import earlier_poison_path, forget_poison, poison_path, set_poison
from index.readonly import clear_readonly, readonly_path, readonly_reason, set_readonly
from tests.index.engine import STORE_ID, TABLES, TUNING, FaultyFiles, open_engine, recover_engine, rows_of

T = TABLES[0]


def putting(key: bytes, value: bytes = b"v"):
    return lambda txn: txn.put(T, key, value)


def open_with(directory, **settings) -> LmdbKv:
    return LmdbKv.open(
        directory, tables=TABLES, store_id=STORE_ID, writer_tag=b"w" * 16, tuning=TUNING, **settings
    )


# A full disk


@pytest.mark.parametrize("effect", ["pwrite", "commit"])
def test_a_commit_without_room_is_tried_again_as_long_as_room_is_made(tmp_path, effect):
    recover_engine(tmp_path)
    asked = []
    files = FaultyFiles(1, errno.ENOSPC, only=(effect,))
    kv = open_with(tmp_path, files=files, make_room=lambda: asked.append(True) or True)
    outcomes = kv.commit_many([putting(b"a"), putting(b"b")])
    assert [outcome.sequence for outcome in outcomes] == [1, 2]
    assert asked == [True]
    kv.close()


def test_a_commit_that_never_fits_is_refused_when_no_more_room_can_be_made(tmp_path):
    recover_engine(tmp_path)
    steps = [True, True, False, False]
    files = FaultyFiles(0, only=("commit",))
    kv = open_with(tmp_path, files=files, make_room=lambda: steps.pop(0))
    files._fails = lambda effect: effect == "commit"
    files.code = errno.ENOSPC
    with pytest.raises(MapFull):
        kv.commit(putting(b"a"))
    assert len(steps) < 2
    assert rows_of(kv) == {}
    kv.close()


def test_the_lock_file_has_all_its_blocks_before_it_is_mapped(tmp_path):
    allocate_lock_file(tmp_path, TUNING)
    before = (tmp_path / "lock.mdb").stat()
    assert before.st_blocks * 512 >= before.st_size > 64 * TUNING.max_readers
    allocate_lock_file(tmp_path, TUNING)
    assert (tmp_path / "lock.mdb").stat() == before
    directory = tmp_path / "store"
    directory.mkdir()
    recover_engine(directory)
    kv = open_engine(directory)
    assert (directory / "meta" / "lock.mdb").stat().st_size == before.st_size, "LMDB makes it as long itself"
    kv.close()


# A disk that fails again


def poison_once(directory) -> None:
    kv = open_engine(directory, files=FaultyFiles(1, only=("sync",)))
    with pytest.raises(StorePoisoned):
        kv.commit(putting(b"lost"))
    kv.close()
    recover_engine(directory)


def test_the_second_failure_makes_the_store_read_only_for_all(tmp_path):
    recover_engine(tmp_path)
    poison_once(tmp_path)
    assert earlier_poison_path(tmp_path).exists()
    kv = open_engine(tmp_path, files=FaultyFiles(2, only=("sync",)))
    kv.commit(putting(b"a"))
    with pytest.raises(StoreReadOnly):
        kv.commit(putting(b"b"))
    with pytest.raises(StoreReadOnly):
        kv.commit(putting(b"c"))
    assert rows_of(kv) == {(T, b"a"): b"v"}, "reading goes on"
    assert readonly_reason(tmp_path), "what other processes look for before they commit"
    assert poison_path(tmp_path).exists(), "whoever recovers it has to rebuild"
    kv.close()


def test_a_failure_long_after_the_last_counts_as_the_first(tmp_path):
    recover_engine(tmp_path)
    poison_once(tmp_path)
    forget_poison(tmp_path)
    poison_once(tmp_path)


def test_a_read_only_store_is_opened_as_it_is_even_if_poisoned(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path)
    kv.commit(putting(b"a"))
    kv.close()
    set_poison(tmp_path, "test", FileOps())
    kv = open_with(tmp_path, read_only="the disk takes no writes")
    assert rows_of(kv) == {(T, b"a"): b"v"}
    with pytest.raises(StoreReadOnly, match="takes no writes"):
        kv.commit(putting(b"b"))
    kv.close()
    recover_engine(tmp_path)
    kv = open_engine(tmp_path)
    kv.commit(putting(b"b"))
    kv.close()


def test_the_mark_of_a_sibling_is_seen_at_the_next_commit(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path)
    assert kv.read_only_reason() is None
    set_readonly(tmp_path, "a sibling said so")
    set_readonly(tmp_path, "another reason")
    with pytest.raises(StoreReadOnly, match="a sibling said so"):
        kv.commit(putting(b"a"))
    assert kv.read_only_reason() == "a sibling said so"
    kv.close()
    clear_readonly(tmp_path)
    clear_readonly(tmp_path)
    assert not readonly_path(tmp_path).exists()


def test_a_mark_that_cannot_be_made_stops_this_process_at_least(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path)
    readonly_path(tmp_path).parent.rename(tmp_path / "gone")
    assert isinstance(kv.make_read_only("no disk"), StoreReadOnly)
    with pytest.raises(StoreReadOnly, match="no disk"):
        kv.commit(putting(b"a"))
    kv.close()
