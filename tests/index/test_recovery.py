"""Recovery: replay, rebuild, torn tails, damaged checkpoints, siblings that died at the wrong moment."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from index import checkpoint
from index.environment import read_position
from index.fileops import FileOps
from index.journal import encode_record
from index.kv import CorruptJournal, KvError, StorePoisoned, UnsupportedFormat
from index.lmdb_kv import LmdbKv, NotRecovered, recover
from index.poison import poison_path, set_poison
from index.segments import list_segments, segment_path
from tests.index.engine import (
    STORE_ID,
    TABLES,
    TUNING,
    FaultyFiles,
    Rows,
    open_engine,
    recover_engine,
    rows_after_recovery,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from index.journal import Position

T, OTHER = TABLES


def put(kv: LmdbKv, number: int, size: int = 60) -> None:
    kv.commit(lambda txn: txn.put(T, b"%04d" % number, b"x" * size))


def expected(count: int, size: int = 60) -> Rows:
    return {(T, b"%04d" % number): b"x" * size for number in range(count)}


def fill(directory: Path, count: int, *, first: int = 0, segment_bytes: int = 1 << 20) -> None:
    """Commits `first`..`count`-1, one record each; the engine is closed again."""
    recover_engine(directory)
    kv = open_engine(directory, segment_bytes=segment_bytes)
    for number in range(first, count):
        put(kv, number)
    kv.close()


def position_of(directory: Path) -> Position:
    kv = open_engine(directory)
    with kv._env.begin() as txn:
        position = read_position(txn)
    kv.close()
    return position


def undo_lmdb(directory: Path, work: Callable[[], object]) -> None:
    """What a power cut does: LMDB is as it was before `work`, the journal is not."""
    shutil.copytree(directory / "meta", directory / "before")
    work()
    shutil.rmtree(directory / "meta")
    (directory / "before").rename(directory / "meta")


def drop_lmdb(directory: Path) -> None:
    shutil.rmtree(directory / "meta")


def journal_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((directory / "journal").iterdir())}


# Creating and opening again


def test_new_store_is_created_empty(tmp_path):
    report = recover_engine(tmp_path)
    assert (report.action, report.sequence, report.reason) == ("created", 0, "")
    assert rows_after_recovery(tmp_path) == {}


def test_directory_without_metadata_is_refused_unless_a_store_is_to_be_made(tmp_path):
    with pytest.raises(NotRecovered, match="no metadata"):
        recover(tmp_path, tables=TABLES, store_id=STORE_ID, create=False, tuning=TUNING)


def test_clean_store_is_left_as_it_is(tmp_path):
    fill(tmp_path, 3)
    report = recover_engine(tmp_path)
    assert (report.action, report.sequence, report.replayed) == ("intact", 3, 0)
    assert rows_after_recovery(tmp_path) == expected(3)


@pytest.mark.parametrize("replay_bytes", [1, 1000, 1 << 20])
def test_what_a_power_cut_undid_is_replayed(tmp_path, replay_bytes):
    fill(tmp_path, 2)
    undo_lmdb(tmp_path, lambda: fill(tmp_path, 20, first=2, segment_bytes=900))
    report = recover_engine(tmp_path, tuning=replace(TUNING, replay_bytes=replay_bytes))
    assert (report.action, report.sequence, report.replayed) == ("replayed", 20, 18)
    assert rows_after_recovery(tmp_path) == expected(20)


def test_segment_that_a_checkpoint_names_stays_though_lmdb_forgot_its_beginning(tmp_path):
    """A power cut between a checkpoint and the next commit, then commits, then the loss of LMDB."""
    fill(tmp_path, 5)

    def write_checkpoint() -> None:
        kv = open_engine(tmp_path)
        kv.write_checkpoint()
        kv.close()

    undo_lmdb(tmp_path, write_checkpoint)
    fill(tmp_path, 8, first=5)
    assert position_of(tmp_path).segment == 6
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == expected(8)


def test_commits_go_on_after_a_replay(tmp_path):
    fill(tmp_path, 2)
    undo_lmdb(tmp_path, lambda: fill(tmp_path, 5, first=2))
    fill(tmp_path, 9, first=5)
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == expected(9)


def test_deletes_and_empty_functions_are_replayed(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path)
    kv.commit_many(
        [lambda txn: txn.put(T, b"a", b"1"), lambda txn: None, lambda txn: txn.put(OTHER, b"b", b"")]
    )
    kv.commit(lambda txn: txn.delete(T, b"a"))
    kv.close()
    drop_lmdb(tmp_path)
    assert recover_engine(tmp_path).sequence == 4
    assert rows_after_recovery(tmp_path) == {(OTHER, b"b"): b""}


def test_table_that_this_program_does_not_know_survives_a_rebuild(tmp_path):
    more = (*TABLES, "srv.new")
    recover(tmp_path, tables=more, store_id=STORE_ID, tuning=TUNING)
    kv = LmdbKv.open(tmp_path, tables=more, store_id=STORE_ID, writer_tag=b"w" * 16, tuning=TUNING)
    kv.commit(lambda txn: txn.put("srv.new", b"k", b"v"))
    kv.write_checkpoint()
    kv.commit(lambda txn: txn.put("srv.new", b"l", b"v"))
    kv.close()
    drop_lmdb(tmp_path)
    recover_engine(tmp_path)
    kv = LmdbKv.open(tmp_path, tables=more, store_id=STORE_ID, writer_tag=b"w" * 16, tuning=TUNING)
    with kv.snapshot() as reader:
        assert [key for key, _ in reader.scan("srv.new")] == [b"k", b"l"]
    kv.close()


# Rebuilding


@pytest.mark.parametrize(
    "destroy",
    [
        lambda meta: shutil.rmtree(meta),
        lambda meta: (meta / "data.mdb").unlink(),
        lambda meta: (meta / "data.mdb").write_bytes(b""),
        lambda meta: (meta / "data.mdb").write_bytes(b"not an LMDB file" * 1000),
    ],
    ids=["folder gone", "file gone", "file empty", "file overwritten"],
)
def test_lost_environment_comes_back(tmp_path, destroy):
    fill(tmp_path, 12, segment_bytes=900)
    destroy(tmp_path / "meta")
    report = recover_engine(tmp_path)
    assert (report.action, report.sequence, report.checkpoint_sequence) == ("rebuilt", 12, None)
    assert rows_after_recovery(tmp_path) == expected(12)


def test_rebuild_starts_from_the_newest_checkpoint(tmp_path):
    fill(tmp_path, 5)
    kv = open_engine(tmp_path)
    assert kv.write_checkpoint() is not None
    put(kv, 5)
    kv.close()
    drop_lmdb(tmp_path)
    report = recover_engine(tmp_path)
    assert (report.checkpoint_sequence, report.replayed, report.sequence) == (5, 1, 6)
    assert rows_after_recovery(tmp_path) == expected(6)


def with_three_checkpoints(directory: Path) -> int:
    """Returns how many commits there are; 3 checkpoints were written, commits before, between and after."""
    recover_engine(directory)
    kv = open_engine(directory, segment_bytes=900)
    count = 0
    for _ in range(3):
        for _ in range(6):
            put(kv, count)
            count += 1
        made = kv.write_checkpoint()
        assert made is not None
        assert made.sequence == count
    put(kv, count)
    kv.close()
    return count + 1


def test_two_checkpoints_are_kept_with_the_journal_since_the_older(tmp_path):
    count = with_three_checkpoints(tmp_path)
    newest, older = (checkpoint.read_sidecar(path) for path in checkpoint.list_sidecars(tmp_path))
    assert (newest.sequence, older.sequence) == (18, 12)
    assert list_segments(tmp_path / "journal")[0] == older.position.segment
    assert not list((tmp_path / "checkpoint").glob("*.mdb"))
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == expected(count)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda newest: flip(newest.path),
        lambda newest: newest.path.unlink(),
        lambda newest: newest.sidecar.unlink(),
        lambda newest: flip(newest.sidecar),
        lambda newest: os.truncate(newest.path, newest.length - 1),
        lambda newest: newest.sidecar.write_bytes(b"{}"),
    ],
    ids=["flipped bit", "file gone", "sidecar gone", "flipped sidecar", "cut", "empty sidecar"],
)
def test_damaged_checkpoint_is_no_loss(tmp_path, damage):
    count = with_three_checkpoints(tmp_path)
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    damage(newest)
    drop_lmdb(tmp_path)
    report = recover_engine(tmp_path)
    assert report.checkpoint_sequence == 12
    assert rows_after_recovery(tmp_path) == expected(count)
    assert len(report.damaged_checkpoints) == newest.sidecar.exists()


def test_damaged_checkpoint_does_not_count_when_the_journal_is_cut(tmp_path):
    count = with_three_checkpoints(tmp_path)
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    flip(newest.path)
    kv = open_engine(tmp_path)
    put(kv, count)
    kv.write_checkpoint()
    kv.close()
    assert [int(path.stem) for path in checkpoint.list_sidecars(tmp_path)] == [count + 1, 12]
    flip(checkpoint.list_sidecars(tmp_path)[0].with_suffix(".ckpt"))
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == expected(count + 1)


def test_both_checkpoints_damaged_is_told_not_hidden(tmp_path):
    with_three_checkpoints(tmp_path)
    for sidecar in checkpoint.list_sidecars(tmp_path):
        flip(sidecar.with_suffix(".ckpt"))
    drop_lmdb(tmp_path)
    with pytest.raises(CorruptJournal, match="no good checkpoint"):
        recover_engine(tmp_path)


def test_checkpoint_of_another_store_is_not_used(tmp_path):
    with_three_checkpoints(tmp_path)
    drop_lmdb(tmp_path)
    for path in (tmp_path / "journal").iterdir():
        path.unlink()
    with pytest.raises(CorruptJournal, match="another store"):
        recover(tmp_path, tables=TABLES, store_id=b"x" * 16, tuning=TUNING)


def test_lmdb_older_than_the_first_segment_is_rebuilt_from_the_checkpoint(tmp_path):
    """A power cut on a quiet store can leave LMDB behind the journal that was kept."""
    recover_engine(tmp_path)
    undo_lmdb(tmp_path, lambda: with_three_checkpoints(tmp_path))
    report = recover_engine(tmp_path)
    assert report.action == "rebuilt"
    assert "older than the journal" in report.reason
    assert report.checkpoint_sequence == 18
    assert rows_after_recovery(tmp_path) == expected(19)


def test_gap_without_a_newer_checkpoint_is_corruption(tmp_path):
    fill(tmp_path, 3)
    segment_path(tmp_path / "journal", 1).unlink()
    with pytest.raises(CorruptJournal, match="missing"):
        recover_engine(tmp_path)


def test_checkpoint_of_an_unchanged_store_is_not_written_again(tmp_path):
    fill(tmp_path, 3)
    kv = open_engine(tmp_path)
    first = kv.write_checkpoint()
    assert first is not None
    assert kv.write_checkpoint() is None
    flip(first.path)
    again = kv.write_checkpoint()
    assert again is not None
    checkpoint.verify(again, FileOps())
    kv.close()


def test_one_checkpoint_at_a_time(tmp_path):
    fill(tmp_path, 3)
    kv = open_engine(tmp_path)
    with checkpoint.writing(tmp_path) as alone:
        assert alone
        assert kv.write_checkpoint() is None
    assert kv.write_checkpoint() is not None
    kv.close()


def test_sidecar_has_the_documented_fields(tmp_path):
    fill(tmp_path, 3)
    kv = open_engine(tmp_path)
    made = kv.write_checkpoint()
    kv.close()
    assert made is not None
    content = json.loads(made.sidecar.read_bytes())
    assert made.path.name == f"{3:020d}.ckpt"
    assert content == {
        "format": "vaultaire checkpoint",
        "version": 1,
        "store_id": STORE_ID.hex(),
        "sequence": 3,
        "segment": 4,
        "offset": 0,
        "chain": made.position.chain.hex(),
        "length": made.path.stat().st_size,
        "blake3": made.blake3,
        "created_ms": 1_000_000_000,
        "checksum": content["checksum"],
    }


# Torn tails and damage


def test_every_torn_last_record_is_cut_and_the_rest_kept(tmp_path):
    fill(tmp_path, 2)
    start = position_of(tmp_path).offset
    undo_lmdb(tmp_path, lambda: fill(tmp_path, 3, first=2))
    path = segment_path(tmp_path / "journal", 1)
    whole = path.read_bytes().rstrip(b"\0")
    for length in range(start, len(whole), 7):
        path.write_bytes(whole[:length] + bytes(50))
        assert recover_engine(tmp_path).sequence == 2
        assert path.stat().st_size == start


def test_torn_tail_is_reported_and_overwritten(tmp_path):
    fill(tmp_path, 2)
    undo_lmdb(tmp_path, lambda: fill(tmp_path, 3, first=2))
    path = segment_path(tmp_path / "journal", 1)
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:-1])
    report = recover_engine(tmp_path)
    assert (report.action, report.sequence) == ("intact", 2)
    assert report.cut_bytes > 100
    fill(tmp_path, 5, first=2)
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == expected(5)


def test_damaged_record_before_the_end_stops_recovery_and_cuts_nothing(tmp_path):
    fill(tmp_path, 2)
    undo_lmdb(tmp_path, lambda: fill(tmp_path, 9, first=2, segment_bytes=900))
    path = segment_path(tmp_path / "journal", 1)
    good = path.read_bytes()
    path.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
    before = journal_bytes(tmp_path)
    with pytest.raises(CorruptJournal):
        recover_engine(tmp_path)
    drop_lmdb(tmp_path)
    with pytest.raises(CorruptJournal):
        recover_engine(tmp_path)
    assert journal_bytes(tmp_path) == before
    path.write_bytes(good)
    assert rows_after_recovery(tmp_path) == expected(9)


def test_damage_to_a_last_record_that_lmdb_had_applied_is_corruption(tmp_path):
    """Alone it looks like a torn tail; the poisoned LMDB still knows that it was acknowledged."""
    fill(tmp_path, 3)
    path = segment_path(tmp_path / "journal", 1)
    data = path.read_bytes()
    path.write_bytes(data.rstrip(b"\0")[:-5])
    with pytest.raises(CorruptJournal, match="shorter"):
        recover_engine(tmp_path)
    path.write_bytes(data.rstrip(b"\0")[:-5] + bytes(100))
    set_poison(tmp_path, "test", FileOps())
    with pytest.raises(CorruptJournal, match="had applied 3"):
        recover_engine(tmp_path)


def test_record_of_a_newer_version_is_refused(tmp_path):
    fill(tmp_path, 2)
    path = segment_path(tmp_path / "journal", 1)
    at = position_of(tmp_path)
    newer = bytearray(
        encode_record(
            [{}], store_id=STORE_ID, first_sequence=3, wall_ms=0, writer_tag=bytes(16), chain=at.chain
        )
    )
    newer[4:6] = b"\0\7"
    newer[12:16] = struct.pack(">I", zlib.crc32(newer[16:136], zlib.crc32(newer[:12])))
    path.write_bytes(path.read_bytes()[: at.offset] + newer)
    with pytest.raises(UnsupportedFormat):
        recover_engine(tmp_path)


# Siblings that die at the wrong moment


class DyingFiles(FileOps):
    """The process dies at its N-th LMDB commit, after the journal was synced: nothing runs after that."""

    def __init__(self, commits: int) -> None:
        self.commits = commits

    def commit(self, txn: object) -> None:
        self.commits -= 1
        if self.commits == 0:
            os._exit(9)
        super().commit(txn)  # type: ignore[arg-type]


def run_dying_sibling(directory: Path, key: bytes, size: int, segment_bytes: int) -> None:
    """In its own process: commits one row and dies between fdatasync and LMDB commit."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.index.engine import open_engine, TABLES\n"
        "from tests.index.test_recovery import DyingFiles\n"
        f"kv = open_engine(Path({str(directory)!r}), files=DyingFiles(1), segment_bytes={segment_bytes})\n"
        f"kv.commit(lambda txn: txn.put(TABLES[0], {key!r}, b'g' * {size}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9


@pytest.mark.parametrize("size", [10, 60, 5000], ids=["shorter", "equal", "longer"])
@pytest.mark.parametrize("segment_bytes", [1 << 20, 500], ids=["same segment", "at a rotation"])
def test_record_of_a_sibling_that_died_before_its_lmdb_commit_is_overwritten(tmp_path, size, segment_bytes):
    """Two records with one sequence, one of them acknowledged: a rebuild must find the acknowledged one."""
    fill(tmp_path, 3, segment_bytes=segment_bytes)
    survivor = open_engine(tmp_path, segment_bytes=segment_bytes)
    run_dying_sibling(tmp_path, b"ghost", size, segment_bytes)
    for number in range(3, 8):
        put(survivor, number)
    live = rows_of(survivor)
    survivor.close()
    assert live == expected(8)
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == live


def test_record_of_a_dead_sibling_is_cut_off_when_a_checkpoint_begins_a_segment(tmp_path):
    """Else it would stand at the end of the old segment, with the sequence that the new segment begins with."""
    fill(tmp_path, 3)
    survivor = open_engine(tmp_path)
    run_dying_sibling(tmp_path, b"ghost", 60, 1 << 20)
    survivor.write_checkpoint()
    for number in range(3, 6):
        put(survivor, number)
    survivor.close()
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == expected(6)
    drop_lmdb(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint")
    assert rows_after_recovery(tmp_path) == expected(6)


def test_record_of_a_dead_sibling_is_applied_if_nobody_wrote_after_it(tmp_path):
    """Nobody was told, so either outcome is right; but LMDB and a rebuild must agree."""
    fill(tmp_path, 2)
    run_dying_sibling(tmp_path, b"late", 5, 1 << 20)
    assert recover_engine(tmp_path).action == "replayed"
    live = rows_after_recovery(tmp_path)
    drop_lmdb(tmp_path)
    assert rows_after_recovery(tmp_path) == live == expected(2) | {(T, b"late"): b"g" * 5}


# Poison


def test_poisoned_store_is_rebuilt_and_healed(tmp_path):
    fill(tmp_path, 3)
    set_poison(tmp_path, "a failed sync", FileOps())
    report = recover_engine(tmp_path)
    assert (report.action, report.reason) == ("rebuilt", "poisoned: a failed sync")
    assert not poison_path(tmp_path).exists()
    assert rows_after_recovery(tmp_path) == expected(3)


def test_environment_without_rows_of_its_own_is_rebuilt(tmp_path):
    fill(tmp_path, 3)
    kv = open_engine(tmp_path)
    with kv._env.begin(write=True) as txn:
        txn.put(b"\0kv.applied", b"damaged")
    with pytest.raises(StorePoisoned):
        kv.commit(lambda txn: txn.put(T, b"k", b"v"))
    kv.close()
    assert rows_after_recovery(tmp_path) == expected(3)


# Recovery that fails or dies itself


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("way", ["replay", "rebuild"])
def test_recovery_that_fails_at_any_effect_is_repaired_by_the_next(tmp_path, way, code):
    template = tmp_path / "template"
    template.mkdir()
    count = with_three_checkpoints(template)
    if way == "replay":
        undo_lmdb(template, lambda: fill(template, count + 3, first=count))
        count += 3
    else:
        set_poison(template, "test", FileOps())
    fail_at, failures = 0, 0
    while True:
        fail_at += 1
        directory = tmp_path / str(fail_at)
        shutil.copytree(template, directory)
        files = FaultyFiles(fail_at, code)
        try:
            recover_engine(directory, files=files)
        except KvError:
            failures += 1
        assert rows_after_recovery(directory) == expected(count), files.calls[-3:]
        drop_lmdb(directory)
        assert rows_after_recovery(directory) == expected(count), files.calls[-3:]
        shutil.rmtree(directory)
        if not files.has_failed:
            break
    assert failures > 0  # not all: an EIO of LMDB's while replaying leads to a rebuild at once


def test_after_three_openings_that_did_not_come_back_lmdb_is_rebuilt(tmp_path, monkeypatch):
    """As if LMDB died of a damaged page in the middle of being opened."""
    fill(tmp_path, 3)

    class Died(BaseException):
        pass

    def die(self):
        raise Died

    counted = tmp_path / "run" / "recovering"
    for number in range(1, 4):
        with monkeypatch.context() as patch:
            patch.setattr("index.recovery.Recovery.replay_live", die)
            patch.setattr("pathlib.Path.unlink", lambda self, missing_ok=False: None)  # it is dead
            with pytest.raises(Died):
                recover(tmp_path, tables=TABLES, store_id=STORE_ID, tuning=TUNING)
        assert counted.read_text() == f"{number}\n"
    report = recover(tmp_path, tables=TABLES, store_id=STORE_ID, tuning=TUNING)
    assert (report.action, report.reason) == (
        "rebuilt",
        "poisoned: a process crashed each time that it opened LMDB",
    )
    assert not counted.exists()
    assert recover(tmp_path, tables=TABLES, store_id=STORE_ID, tuning=TUNING).action == "intact"
