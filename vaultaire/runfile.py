"""The run file of one process: which operations still run, as collection sees it.

An operation is any PUT, GET, copy, list of parts or collection step. Each process publishes, in 8 bytes of its own
file under `flock`, a lower bound of the collection epoch in which its oldest running operation began. A collector
that has committed epoch E waits until every live process shows at least E. A dead process is known by its released
lock, a slow or stopped one still holds it and is never ignored; no timeout decides anything.

Two rules make it safe, and cheap (no system call on a request's path while the process is busy):

1. Before an operation opens its first snapshot the published value is at most the epoch it will read there. Epochs
   only grow, so any value read earlier will do; only a process that showed "idle" has to write first. If that write
   comes after a collector looked, the snapshot comes after the collector's commit and sees its epoch.
2. `tick` (once a second, and whenever a collector asks) reads the epoch anew and raises the published value to that
   of the oldest operation, or to idle. In between, the value is too low, which only makes a collector wait.

The lock is taken before the file gets its visible name: otherwise a collector could take it for dead.
flock, not fcntl locks: those fall as soon as any descriptor of the file is closed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from cas.packs import sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IDLE = (1 << 64) - 1
_NAME = re.compile(r"[a-z]+-([0-9a-f]{8})")


class RunFile:
    """This process's run file. Thread-safe. `run/<kind>-<writer, 8 hex digits>`."""

    def __init__(self, directory: Path, kind: str, writer: int, read_epoch: Callable[[], int]) -> None:
        self.path = directory / f"{kind}-{writer:08x}"
        self._read_epoch = read_epoch
        self._lock = threading.Lock()
        self._running: dict[int, int] = {}  # epoch -> operations that began in it
        hidden = directory / f".{kind}-{secrets.token_hex(16)}"
        self._fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._epoch = read_epoch()
        self._published = -1
        self._publish(IDLE)
        os.rename(hidden, self.path)
        # Before this process's first pack: if a power cut took the name and left a pack that never got a row, nobody
        # would know whose it was, and its file would stay for ever. If it fails, that is all that may be lost.
        with suppress(OSError):
            sync_directory(directory)

    def begin(self) -> int:
        """Start an operation; call before its first snapshot. Returns the token that `end` wants."""
        with self._lock:
            epoch = self._epoch
            if self._published == IDLE:
                self._publish(epoch)
            self._running[epoch] = self._running.get(epoch, 0) + 1
            return epoch

    def end(self, token: int) -> None:
        """The operation is over: it reads nothing more, and what it relied on is committed or forgotten."""
        with self._lock:
            left = self._running[token] - 1
            if left:
                self._running[token] = left
            else:
                del self._running[token]

    def tick(self) -> int:
        """Publish the present state; returns the published value. Reads the epoch: call it in a thread."""
        epoch = self._read_epoch()
        with self._lock:
            self._epoch = max(self._epoch, epoch)
            self._publish(min(self._running, default=IDLE))
            return self._published

    @property
    def running(self) -> int:
        """How many operations run now."""
        with self._lock:
            return sum(self._running.values())

    def close(self, *, remove: bool = True) -> None:
        """Release the lock: from now on this process counts as gone. The file stays for whoever shall adopt what it
        left, unless `remove` says that it left nothing.
        """
        if self._fd >= 0:
            if remove:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def _publish(self, value: int) -> None:
        # No fsync: a power cut ends every operation anyway.
        if value != self._published:
            os.pwrite(self._fd, value.to_bytes(8, "little"), 0)
            self._published = value


class RunFiles:
    """The run files of all processes of a store, as its collector sees them: `cas.ports.RunningOperations`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def oldest(self) -> int | None:
        """The lowest value that a live process shows; None: all are idle. See `cas.ports`.

        A file that gets its name after the folder was listed belongs to a process that has not begun anything yet.
        """
        values = [_shown(path) for path in _run_files(self._directory)]
        return min((value for value in values if value != IDLE), default=None)

    def writers(self) -> frozenset[int]:
        """Numbers of the processes that live, or whose packs nobody has adopted yet."""
        return frozenset([_writer_of(path) for path in _run_files(self._directory)])


def _shown(path: Path) -> int:
    """What a run file says; IDLE if its owner is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return IDLE
    try:
        try:
            # Shared: whoever asks at the same moment must not take us for the owner.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_stable(fd)
        return IDLE
    finally:
        os.close(fd)


def _read_stable(fd: int) -> int:
    """Eight bytes that were not being written meanwhile."""
    value = os.pread(fd, 8, 0)
    while (again := os.pread(fd, 8, 0)) != value:
        value = again
    return int.from_bytes(value, "little")


def _run_files(directory: Path) -> list[Path]:
    """Nothing else that may lie there: an editor's backup must not bar the store."""
    return [path for path in sorted(directory.iterdir()) if _NAME.fullmatch(path.name)]


def _writer_of(path: Path) -> int:
    return int(path.name[-8:], 16)


class UnpublishedRunFile(RunFile):
    """That of a process in a read-only store, where nothing can be collected: it needs no file, hence no room."""

    def __init__(self) -> None:
        self._read_epoch = lambda: 0
        self._lock = threading.Lock()
        self._running = {}
        self._fd = -1
        self._epoch = 0
        self._published = IDLE

    def _publish(self, value: int) -> None:
        self._published = value


def dead_writers(directory: Path) -> Iterator[tuple[int, Path]]:
    """(writer number, run file) of every process whose lock is free. The caller adopts, then unlinks the file.

    Its lock is held until the next one is asked for: two processes that adopted one pack at once would each cut off
    the footer that the other has just written.
    """
    for path in _run_files(directory):
        fd = _take_over(path)
        if fd is not None:
            try:
                yield _writer_of(path), path
            finally:
                os.close(fd)


def _take_over(path: Path) -> int | None:
    """The run file, locked; None if its owner lives, or somebody else takes care of it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # its owner has just ended cleanly
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
