"""Every effect of the metadata engine on the disk, as one object that tests replace by one that fails or dies.

Guarantees: `pwrite` writes everything or raises; `sync` and `sync_file` return only when the device has said that
the bytes are on it; descriptors are never inherited. Raises OSError (and, from `commit`, lmdb.Error) as they come:
the engine decides what they mean. A failed sync is never retried here or above: after an error the kernel may
have marked the pages clean, and a second call would succeed without having written anything
(Rebello et al., Can Applications Recover from fsync Failures?, USENIX ATC 2020).
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import lmdb

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# macOS: fsync only hands the bytes to the drive's cache, and there is no fdatasync.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


class FileOps:
    """The real disk. Stateless, so one may serve any number of engines and threads."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        """All of `data`; after an error any part of it may be in the file."""
        written = os.pwrite(fd, data, offset)
        while written < len(data):  # a short write is normal: a signal, or the last free block
            written += os.pwrite(fd, memoryview(data)[written:], offset + written)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def sync(self, fd: int) -> None:
        """Make the file's bytes durable, and its length if it grew."""
        if _FULL_SYNC is not None:
            fcntl.fcntl(fd, _FULL_SYNC)
        else:
            os.fdatasync(fd)

    def sync_file(self, fd: int) -> None:
        """As `sync`, for a new or shortened file: all of its metadata too."""
        if _FULL_SYNC is not None:
            fcntl.fcntl(fd, _FULL_SYNC)
        else:
            os.fsync(fd)

    def sync_directory(self, path: Path) -> None:
        """Make the entries of a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """No error if it is gone already."""
        path.unlink(missing_ok=True)

    def lock(self, fd: int) -> None:
        """Exclusively, against every other open file description. Blocks."""
        fcntl.flock(fd, fcntl.LOCK_EX)

    def unlock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    def commit(self, txn: lmdb.Transaction[bytes]) -> None:
        """Commit a top-level LMDB transaction. On an error it has been aborted."""
        txn.commit()

    def sync_environment(self, env: lmdb.Environment) -> None:
        """Flush what `metasync=False` left to the next commit."""
        env.sync(True)

    def copy_environment(self, env: lmdb.Environment, fd: int) -> None:
        """A compact copy of one consistent state. Not synced."""
        env.copyfd(fd, compact=True)

    def forget_cached(self, fd: int) -> None:
        """Drop the file's clean pages, so that the next read comes from the device: a cache can lie after EIO."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
