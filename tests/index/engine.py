"""What the tests of the metadata engine share: opening it, looking at all of it, and a disk that fails on demand."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import lmdb

from index.fileops import FileOps
from index.lmdb_kv import LmdbKv, Tuning, recover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from index.kv import OrderedMap
    from index.recovery import RecoveryReport

STORE_ID = bytes(range(16))
TABLES = ("idx.names", "cas.chunks")
BOOT = bytes(16)
TUNING = Tuning(zero_ahead_bytes=4096, batch_seconds=60.0, max_readers=64, boot=BOOT)

Rows = dict[tuple[str, bytes], bytes]


def recover_engine(
    directory: Path, *, files: FileOps | None = None, tuning: Tuning = TUNING
) -> RecoveryReport:
    return recover(
        directory, tables=TABLES, store_id=STORE_ID, map_size_bytes=1 << 30, files=files, tuning=tuning
    )


def open_engine(
    directory: Path,
    *,
    files: FileOps | None = None,
    segment_bytes: int = 1 << 20,
    tuning: Tuning = TUNING,
    clock: Callable[[], float] = lambda: 1_000_000.0,
) -> LmdbKv:
    """Without recovery: the store must be recovered."""
    return LmdbKv.open(
        directory,
        tables=TABLES,
        store_id=STORE_ID,
        writer_tag=b"w" * 16,
        map_size_bytes=1 << 30,
        segment_bytes=segment_bytes,
        clock=clock,
        files=files,
        tuning=tuning,
    )


def rows_of(kv: OrderedMap) -> Rows:
    with kv.snapshot() as reader:
        return {(table, key): value for table in TABLES for key, value in reader.scan(table)}


def rows_after_recovery(directory: Path) -> Rows:
    recover_engine(directory)
    kv = open_engine(directory)
    try:
        return rows_of(kv)
    finally:
        kv.close()


class FaultyFiles(FileOps):
    """The real disk, until the `fail_at`-th effect, which goes wrong with `code`; then the real disk again.

    A failing write leaves half of its bytes, a failing LMDB commit is aborted, a failing sync syncs nothing.
    `only` restricts which effects are counted. `fail_at` 0: nothing fails.
    """

    def __init__(self, fail_at: int, code: int = errno.EIO, only: tuple[str, ...] = ()) -> None:
        self.fail_at = fail_at
        self.code = code
        self.only = only
        self.calls: list[str] = []

    @property
    def has_failed(self) -> bool:
        return 0 < self.fail_at <= len(self.calls)

    def _fails(self, effect: str) -> bool:
        if self.only and effect not in self.only:
            return False
        self.calls.append(effect)
        return len(self.calls) == self.fail_at

    def _check(self, effect: str) -> None:
        if self._fails(effect):
            raise OSError(self.code, f"injected into {effect}")

    def _check_lmdb(self, effect: str) -> None:
        if self._fails(effect):
            if self.code == errno.ENOSPC:
                raise lmdb.DiskError(f"injected into {effect}")
            error = lmdb.Error(f"injected into {effect}")
            error.code = self.code
            raise error

    def open(self, path: Path, flags: int) -> int:
        self._check("open")
        return super().open(path, flags)

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        if self._fails("pwrite"):
            super().pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(self.code, "injected into pwrite")
        super().pwrite(fd, data, offset)

    def lock(self, fd: int) -> None:
        self._check("lock")
        super().lock(fd)

    def unlock(self, fd: int) -> None:
        self._check("unlock")
        super().unlock(fd)

    def truncate(self, fd: int, length: int) -> None:
        self._check("truncate")
        super().truncate(fd, length)

    def sync(self, fd: int) -> None:
        self._check("sync")
        super().sync(fd)

    def sync_file(self, fd: int) -> None:
        self._check("sync_file")
        super().sync_file(fd)

    def sync_directory(self, path: Path) -> None:
        self._check("sync_directory")
        super().sync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._check("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._check("unlink")
        super().unlink(path)

    def commit(self, txn: lmdb.Transaction[bytes]) -> None:
        try:
            self._check_lmdb("commit")
        except lmdb.Error:
            txn.abort()
            raise
        super().commit(txn)

    def sync_environment(self, env: lmdb.Environment) -> None:
        self._check_lmdb("sync_environment")
        super().sync_environment(env)

    def copy_environment(self, env: lmdb.Environment, fd: int) -> None:
        self._check_lmdb("copy_environment")
        super().copy_environment(env, fd)
