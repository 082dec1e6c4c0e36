"""The LMDB engine beyond the contract: batches, a failing disk, damaged values, statistics."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import lmdb
import pytest

from index.environment import crc_seeds, unwrap, wrap
from index.fileops import FileOps
from index.journal import ORIGIN
from index.kv import CorruptValue, KvError, MapFull, StorePoisoned
from index.lmdb_kv import LmdbKv, NotRecovered, recover
from index.poison import poison_path, poison_reason, set_poison
from index.segments import JournalReader, list_segments, segment_path
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from index.kv import Transaction
    from index.recovery import RecoveryReport

T, OTHER = TABLES


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[LmdbKv]:
    recover_engine(tmp_path)
    engine = open_engine(tmp_path)
    yield engine
    engine.close()


def putting(key: bytes, value: bytes = b"v") -> Callable[[Transaction], None]:
    return lambda txn: txn.put(T, key, value)


def journal_records(directory: Path) -> list[list[int]]:
    """For each record, the sequences in it."""
    reader = JournalReader(directory / "journal", STORE_ID, ORIGIN, FileOps())
    try:
        return [list(range(r.header.first_sequence, r.last_sequence + 1)) for r, _ in reader]
    finally:
        reader.close()


# Batches and the journal


def test_group_is_one_journal_record_of_its_successful_functions(tmp_path, kv):
    kv.commit_many([putting(b"a"), lambda txn: 1 // 0, putting(b"b")])
    kv.commit(putting(b"c"))
    assert journal_records(tmp_path) == [[1, 2], [3]]


def test_record_tells_writer_and_time_and_final_mutations(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path, clock=lambda: 1234.5)

    def fn(txn: Transaction) -> None:
        txn.put(T, b"a", b"1")
        txn.put(T, b"a", b"2")
        txn.put(OTHER, b"b", b"3")
        txn.delete(OTHER, b"b")
        txn.delete(OTHER, b"absent")

    kv.commit(fn)
    kv.close()
    reader = JournalReader(tmp_path / "journal", STORE_ID, ORIGIN, FileOps())
    ((record, _),) = list(reader)
    reader.close()
    assert record.functions == ({(T, b"a"): b"2", (OTHER, b"b"): None},)
    assert (record.header.wall_ms, record.header.writer_tag) == (1_234_500, b"w" * 16)


@pytest.mark.parametrize("limit", [{"batch_bytes": 100}, {"batch_seconds": 0.0}], ids=["bytes", "time"])
def test_batch_past_its_bound_becomes_several_steps(tmp_path, limit):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path, tuning=replace(TUNING, **limit))
    outcomes = kv.commit_many([putting(b"%d" % n, b"x" * 100) for n in range(5)])
    assert [outcome.sequence for outcome in outcomes] == [1, 2, 3, 4, 5]
    kv.close()
    assert journal_records(tmp_path) == [[1], [2], [3], [4], [5]]


def test_function_beyond_the_size_of_a_record_fails_alone(kv):
    def huge(txn: Transaction) -> None:
        for number in range(9):
            txn.put(T, b"%d" % number, bytes(8 << 20))

    outcomes = kv.commit_many([putting(b"a"), huge, putting(b"b")])
    assert isinstance(outcomes[1].error, KvError)
    assert rows_of(kv) == {(T, b"a"): b"v", (T, b"b"): b"v"}


def test_commit_inside_a_commit_is_refused_not_hung(kv):
    with pytest.raises(RuntimeError, match="inside"):
        kv.commit(lambda txn: kv.commit(putting(b"a")))
    kv.commit(putting(b"b"))
    assert rows_of(kv) == {(T, b"b"): b"v"}


def test_interrupted_function_leaves_no_trace_and_no_lock(tmp_path, kv):
    def interrupted(txn: Transaction) -> None:
        txn.put(T, b"a", b"v")
        raise KeyboardInterrupt

    for group in ([interrupted], [putting(b"b"), interrupted]):
        with pytest.raises(KeyboardInterrupt):
            kv.commit_many(group)
    kv.commit(putting(b"c"))
    assert rows_of(kv) == {(T, b"c"): b"v"}
    assert journal_records(tmp_path) == [[1]]


def test_ended_snapshot_and_transaction_are_unusable(kv):
    kept: list[Transaction] = []
    kv.commit_many([kept.append, putting(b"a")])
    with pytest.raises(KvError):
        kept[0].put(T, b"b", b"v")
    with kv.snapshot() as reader:
        pass
    with pytest.raises(KvError):
        reader.get(T, b"a")


# No room


def test_full_map_fails_only_what_does_not_fit(tmp_path):
    recover(tmp_path, tables=TABLES, store_id=STORE_ID, map_size_bytes=1 << 20, tuning=TUNING)
    kv = open_engine(tmp_path)  # the recorded map size wins over the one asked for
    outcomes = kv.commit_many([putting(b"a"), putting(b"big", bytes(2 << 20)), putting(b"b")])
    assert isinstance(outcomes[1].error, MapFull)
    assert [outcome.sequence for outcome in outcomes] == [1, 0, 2]
    with pytest.raises(MapFull):
        kv.commit(putting(b"big", bytes(2 << 20)))
    assert kv.commit(lambda txn: txn.delete(T, b"a"))
    assert rows_of(kv) == {(T, b"b"): b"v"}
    kv.close()


def test_function_that_swallows_a_full_map_still_fails(tmp_path):
    recover(tmp_path, tables=TABLES, store_id=STORE_ID, map_size_bytes=1 << 20, tuning=TUNING)
    kv = open_engine(tmp_path)

    def swallowing(txn: Transaction) -> None:
        txn.put(T, b"small", b"v")
        try:
            txn.put(T, b"big", bytes(2 << 20))
        except MapFull:
            return

    outcomes = kv.commit_many([swallowing, putting(b"b")])
    assert isinstance(outcomes[0].error, MapFull)
    assert rows_of(kv) == {(T, b"b"): b"v"}
    kv.close()


@pytest.mark.parametrize("effect", ["pwrite", "commit", "truncate", "open"])
def test_full_disk_fails_one_step_and_poisons_nothing(tmp_path, effect):
    recover_engine(tmp_path)
    files = FaultyFiles(2, errno.ENOSPC, only=(effect,))
    kv = open_engine(tmp_path, files=files, segment_bytes=200)
    acknowledged: Rows = {}
    failures = 0
    for number in range(6):
        try:
            kv.commit(putting(b"%d" % number, b"x" * 100))
        except MapFull:
            failures += 1
        else:
            acknowledged[T, b"%d" % number] = b"x" * 100
    assert files.has_failed
    assert failures <= 1  # none, where only the zeros ahead had no room
    assert rows_of(kv) == acknowledged
    kv.close()
    assert not poison_path(tmp_path).exists()
    shutil.rmtree(tmp_path / "meta")
    assert rows_after_recovery(tmp_path) == acknowledged


def commit_with_limited_files(directory: Path) -> None:
    """In its own process: no file may grow past 64 KiB for a while, so that LMDB's real commit fails in the middle."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    kv = open_engine(directory, segment_bytes=1 << 14)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
    acknowledged: Rows = {}
    failures = 0
    for number in range(60):
        if number == 50:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        try:
            kv.commit(putting(b"%d" % number, b"x" * 2500))
            acknowledged[T, b"%d" % number] = b"x" * 2500
        except MapFull:
            failures += 1
    assert 30 < failures < 50
    assert rows_of(kv) == acknowledged
    kv.close()
    assert rows_after_recovery(directory) == acknowledged
    shutil.rmtree(directory / "meta")
    assert rows_after_recovery(directory) == acknowledged


def test_commit_that_lmdb_itself_cannot_finish_leaves_no_ghost(tmp_path):
    recover_engine(tmp_path)
    code = (
        "from pathlib import Path; from tests.index.test_lmdb_kv import commit_with_limited_files; "
        f"commit_with_limited_files(Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_batch_without_room_is_run_again_one_by_one(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path, files=FaultyFiles(1, errno.ENOSPC, only=("commit",)))
    outcomes = kv.commit_many([putting(b"a"), putting(b"b")])
    assert [outcome.sequence for outcome in outcomes] == [1, 2]
    kv.close()
    assert journal_records(tmp_path) == [[1], [2]]


# Every effect failing


def workload(kv: LmdbKv, acknowledged: Rows) -> None:
    """Groups, deletes, rotations, two checkpoints; `acknowledged` follows what was told to the caller."""

    def commit(*changes: tuple[bytes, bytes | None]) -> None:
        fns = [
            (lambda txn, k=key: txn.delete(T, k)) if value is None else putting(key, value)
            for key, value in changes
        ]
        try:
            outcomes = kv.commit_many(fns)
        except KvError:
            return
        for (key, value), outcome in zip(changes, outcomes, strict=True):
            if outcome.error is not None:
                continue
            if value is None:
                acknowledged.pop((T, key), None)
            else:
                acknowledged[T, key] = value

    for turn in range(3):
        for number in range(2):
            commit((b"%d" % number, b"%d" % turn * 60))
        commit((b"x%d" % turn, b"v" * 90), (b"y%d" % turn, b"v"), (b"%d" % turn, None))
        if turn < 2:
            try:
                kv.write_checkpoint()
            except KvError:
                continue


CODES = (errno.EIO, errno.ENOSPC, errno.EACCES)


@pytest.mark.parametrize(
    "codes",
    [
        pytest.param(CODES, id="one of the codes", marks=pytest.mark.slow),
        *(pytest.param((code,), id=errno.errorcode[code], marks=pytest.mark.full) for code in CODES),
    ],
)
def test_no_failing_effect_makes_a_ghost_or_loses_what_was_acknowledged(tmp_path, codes):
    """The N-th effect of the whole workload fails, for every N; reopened with and without LMDB."""
    fail_at = 0
    while True:
        fail_at += 1
        code = codes[fail_at % len(codes)]
        directory = tmp_path / str(fail_at)
        directory.mkdir()
        recover_engine(directory)
        files = FaultyFiles(fail_at, code)
        acknowledged: Rows = {}
        try:
            kv = open_engine(directory, files=files, segment_bytes=400)
        except OSError:
            continue
        workload(kv, acknowledged)
        kv.close()
        assert rows_after_recovery(directory) == acknowledged, files.calls[-3:]
        shutil.rmtree(directory / "meta")
        assert rows_after_recovery(directory) == acknowledged, files.calls[-3:]
        shutil.rmtree(directory)
        if not files.has_failed:
            break
    assert fail_at > 50


@pytest.mark.parametrize("effect", ["sync", "sync_file", "sync_directory"])
def test_failed_sync_is_never_retried_and_ends_committing(tmp_path, effect):
    recover_engine(tmp_path)
    files = FaultyFiles(2, errno.EIO, only=(effect,))
    kv = open_engine(tmp_path, files=files, segment_bytes=200)
    with contextlib.suppress(StorePoisoned):
        for number in range(9):
            kv.commit(putting(b"%d" % number, b"x" * 100))
    assert files.has_failed
    calls = len(files.calls)
    with pytest.raises(StorePoisoned):
        kv.commit(putting(b"more"))
    assert poison_path(tmp_path).exists()
    assert len(files.calls) == calls
    kv.close()


@pytest.mark.parametrize("effect", ["lock", "unlock"])
def test_lock_that_fails_neither_hangs_nor_hides_what_was_committed(tmp_path, effect):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path, files=FaultyFiles(2, errno.EIO, only=(effect,)))
    kv.commit(putting(b"a"))
    if effect == "lock":
        with pytest.raises(KvError):
            kv.commit(putting(b"b"))
        kv.commit(putting(b"b"))
    else:
        kv.commit(putting(b"b"))  # committed: it is not taken back because a lock was not given up
        with pytest.raises(StorePoisoned):
            kv.commit(putting(b"c"))
    fd = os.open(tmp_path / "journal", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it: siblings go on
    os.close(fd)
    assert poison_reason(tmp_path) is None
    kv.close()
    assert rows_after_recovery(tmp_path) == {(T, b"a"): b"v", (T, b"b"): b"v"}


def test_failed_lmdb_commit_erases_its_record_before_the_error_is_told(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path, files=FaultyFiles(2, errno.ENOSPC, only=("commit",)))
    kv.commit(putting(b"a"))
    with pytest.raises(MapFull):
        kv.commit(putting(b"ghost"))
    assert b"ghost" not in segment_path(tmp_path / "journal", 1).read_bytes()
    kv.close()


def test_record_that_cannot_be_erased_poisons(tmp_path):
    class Files(FaultyFiles):
        """LMDB has no room, then the journal cannot be synced."""

        def sync(self, fd: int) -> None:
            if self.has_failed:
                raise OSError(errno.EIO, "injected")
            super().sync(fd)

    recover_engine(tmp_path)
    kv = open_engine(tmp_path, files=Files(1, errno.ENOSPC, only=("commit",)))
    with pytest.raises(StorePoisoned):
        kv.commit(putting(b"ghost"))
    kv.close()
    assert rows_after_recovery(tmp_path) == {}


def test_poison_of_a_sibling_is_seen_at_the_next_commit(tmp_path, kv):
    kv.commit(putting(b"a"))
    set_poison(tmp_path, "by a sibling", FileOps())
    with pytest.raises(StorePoisoned, match="by a sibling"):
        kv.commit(putting(b"b"))
    assert rows_of(kv) == {(T, b"a"): b"v"}  # reading goes on until the process ends


def test_outcomes_of_durable_steps_survive_a_later_failure(tmp_path):
    recover_engine(tmp_path)
    files = FaultyFiles(2, errno.EIO, only=("sync",))
    kv = open_engine(tmp_path, files=files, tuning=replace(TUNING, batch_bytes=1))
    outcomes = kv.commit_many([putting(b"a"), putting(b"b"), putting(b"c")])
    assert [type(outcome.error) for outcome in outcomes] == [type(None), StorePoisoned, StorePoisoned]
    kv.close()
    assert rows_after_recovery(tmp_path) == {(T, b"a"): b"v"}


# Opening


def test_open_refuses_a_store_that_was_not_recovered(tmp_path):
    with pytest.raises(NotRecovered):
        open_engine(tmp_path)


def test_open_refuses_after_a_restart_of_the_machine_without_recovery(tmp_path):
    recover_engine(tmp_path)
    restarted = replace(TUNING, boot=b"b" * 16)
    with pytest.raises(NotRecovered, match="machine"):
        open_engine(tmp_path, tuning=restarted)
    recover_engine(tmp_path, tuning=restarted)
    open_engine(tmp_path, tuning=restarted).close()


def test_open_refuses_an_environment_rebuilt_meanwhile(tmp_path):
    generation = recover_engine(tmp_path).generation
    shutil.rmtree(tmp_path / "meta")
    rebuilt = recover_engine(tmp_path).generation
    assert rebuilt != generation

    def open_generation(wanted: bytes) -> LmdbKv:
        return LmdbKv.open(
            tmp_path,
            tables=TABLES,
            store_id=STORE_ID,
            writer_tag=b"w" * 16,
            generation=wanted,
            tuning=TUNING,
        )

    with pytest.raises(NotRecovered, match="rebuilt"):
        open_generation(generation)
    kv = open_generation(rebuilt)
    assert kv.generation == rebuilt
    kv.close()


def test_open_refuses_a_poisoned_store(tmp_path):
    recover_engine(tmp_path)
    set_poison(tmp_path, "test", FileOps())
    with pytest.raises(StorePoisoned):
        open_engine(tmp_path)


def test_open_refuses_the_environment_of_another_store(tmp_path):
    recover_engine(tmp_path)
    with pytest.raises(KvError, match="another store"):
        LmdbKv.open(tmp_path, tables=TABLES, store_id=b"x" * 16, writer_tag=b"w" * 16, tuning=TUNING)
    with pytest.raises(KvError, match="another store"):
        recover(tmp_path, tables=TABLES, store_id=b"x" * 16, tuning=TUNING)


def test_large_sparse_map_takes_no_space(tmp_path):
    recover(tmp_path, tables=TABLES, store_id=STORE_ID, tuning=TUNING)
    assert (tmp_path / "meta" / "data.mdb").stat().st_size < 1 << 20
    kv = LmdbKv.open(tmp_path, tables=TABLES, store_id=STORE_ID, writer_tag=b"w" * 16, tuning=TUNING)
    assert kv._env.info()["map_size"] == 1 << 40
    kv.close()


def test_new_table_appears_in_a_store_that_exists(tmp_path, kv):
    kv.commit(putting(b"a"))
    kv.close()
    more = (*TABLES, "srv.new")
    kv = LmdbKv.open(tmp_path, tables=more, store_id=STORE_ID, writer_tag=b"w" * 16, tuning=TUNING)
    kv.commit(lambda txn: txn.put("srv.new", b"k", b"v"))
    with kv.snapshot() as reader:
        assert reader.get("srv.new", b"k") == b"v"
        assert reader.get(T, b"a") == b"v"
    kv.close()


def test_rows_of_the_engine_have_the_documented_bytes(tmp_path, kv):
    kv.commit(putting(b"a"))
    with kv._env.begin() as txn:
        header, applied = txn.get(b"\0kv.header"), txn.get(b"\0kv.applied")
    frame = bytes.fromhex("0001004400000000")
    assert (
        header[:-4] == b"VltH" + frame + STORE_ID + kv.generation + (1 << 30).to_bytes(8, "big") + TUNING.boot
    )
    chain = segment_path(tmp_path / "journal", 1).read_bytes()[104:136]
    offset = 136 + 1 + 1 + len(T) + 4 + 8 + 1 + 1
    numbers = b"".join(number.to_bytes(8, "big") for number in (1, 1, offset))
    assert applied[:-4] == b"VltA" + frame + numbers + chain
    assert applied[-4:] == zlib.crc32(
        b"\0" + len(b"\0kv.applied").to_bytes(2, "big") + b"\0kv.applied" + applied[:-4]
    ).to_bytes(4, "little")
    with kv._env.begin(db=kv._tables[T][0]) as txn:
        assert txn.get(b"a") == b"v" + zlib.crc32(T.encode() + b"\0\0\1" + b"a" + b"v").to_bytes(4, "little")


# Damaged values


def raw_put(kv: LmdbKv, table: str, key: bytes, stored: bytes) -> None:
    with kv._env.begin(write=True) as txn:
        txn.put(key, stored, db=kv._tables[table][0])


def test_every_flipped_bit_of_a_stored_value_is_noticed(kv):
    seeds = crc_seeds(T)
    stored = wrap(seeds, b"key", b"some value")
    assert unwrap(T, seeds, b"key", stored) == b"some value"
    for bit in range(len(stored) * 8):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        raw_put(kv, T, b"key", bytes(damaged))
        with kv.snapshot() as reader:
            with pytest.raises(CorruptValue):
                reader.get(T, b"key")
            with pytest.raises(CorruptValue):
                list(reader.scan(T))


@pytest.mark.parametrize("stored", [b"", b"abc", bytes(4)])
def test_value_too_short_for_its_checksum_is_corrupt(kv, stored):
    raw_put(kv, T, b"key", stored)
    with kv.snapshot() as reader, pytest.raises(CorruptValue):
        reader.get(T, b"key")


def test_valid_value_of_another_key_or_table_is_corrupt(kv):
    """What a damaged branch page leads to."""
    raw_put(kv, T, b"key", wrap(crc_seeds(T), b"kex", b"v"))
    raw_put(kv, OTHER, b"key", wrap(crc_seeds(T), b"key", b"v"))
    raw_put(kv, T, b"ke", wrap(crc_seeds(T), b"key", b"v"))
    with kv.snapshot() as reader:
        for table, key in ((T, b"key"), (OTHER, b"key"), (T, b"ke")):
            with pytest.raises(CorruptValue):
                reader.get(table, key)


def test_commit_that_reads_a_corrupt_value_fails_alone(kv):
    raw_put(kv, T, b"key", b"damaged!")
    outcomes = kv.commit_many([lambda txn: txn.get(T, b"key"), putting(b"a")])
    assert isinstance(outcomes[0].error, CorruptValue)
    assert outcomes[1].error is None


# The rest


def test_readers_full_is_healed_by_a_reader_check(tmp_path):
    """A child takes all reader slots and dies; LMDB does not free them by itself."""
    recover_engine(tmp_path)
    kv = open_engine(tmp_path)
    kv.close()
    code = (
        "import lmdb, os, sys\n"
        f"env = lmdb.open({str(tmp_path / 'meta')!r}, max_dbs=9, map_size=1 << 30, max_readers=64)\n"
        "held = [env.begin() for _ in range(62)]\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        kv = open_engine(tmp_path)
        first = [kv.snapshot() for _ in range(2)]
        with pytest.raises(KvError):
            kv.snapshot()
        child.kill()
    more = [kv.snapshot() for _ in range(5)]
    assert kv.check_readers() == 0
    for snapshot in (*first, *more):
        snapshot.__exit__()
    kv.close()


def test_statistics_count_pages_journal_and_checkpoints(tmp_path, kv):
    before = kv.statistics()
    for number in range(50):
        kv.commit(putting(b"%d" % number, b"x" * 3000))
    after = kv.statistics()
    assert after.sequence == 50
    assert after.used_bytes - before.used_bytes > 50 * 3000
    assert after.file_bytes >= after.used_bytes
    assert after.journal_bytes > 50 * 3000
    assert after.checkpoint_bytes == 0
    kv.write_checkpoint()
    assert kv.statistics().checkpoint_bytes > 50 * 3000


def test_checkpoint_is_due_when_the_journal_has_outgrown_the_last_one(tmp_path):
    recover_engine(tmp_path)
    kv = open_engine(tmp_path, segment_bytes=2000, tuning=replace(TUNING, checkpoint_least_bytes=3000))
    assert not kv.checkpoint_due()
    while not kv.checkpoint_due():
        kv.commit(putting(os.urandom(8), b"x" * 100))
    assert len(list_segments(tmp_path / "journal")) > 1
    kv.write_checkpoint()
    assert not kv.checkpoint_due()
    kv.close()


def test_close_is_idempotent(kv):
    kv.close()
    kv.close()


def report_of(directory: Path) -> RecoveryReport:
    return recover_engine(directory)


def test_damaged_environment_poisons_instead_of_becoming_a_checkpoint(tmp_path, kv):
    kv.commit_many([putting(b"a"), putting(b"b")])
    raw_put(kv, T, b"a", b"damaged!")
    with pytest.raises(StorePoisoned):
        kv.write_checkpoint()
    kv.close()
    assert list((tmp_path / "checkpoint").iterdir()) == []
    assert report_of(tmp_path).action == "rebuilt"
    kv = open_engine(tmp_path)
    assert rows_of(kv) == {(T, b"a"): b"v", (T, b"b"): b"v"}
    kv.close()


def test_lmdb_errors_do_not_leak(kv):
    kv.close()
    with pytest.raises(KvError):
        kv.snapshot()
    assert not issubclass(KvError, lmdb.Error)
