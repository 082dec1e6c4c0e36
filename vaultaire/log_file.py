"""A log that several processes append to: whole lines, written behind the requests, and never at their expense.

Guarantees: `add` does no I/O and never waits. Lines are gathered (at most `MAX_WAITING_BYTES`; what comes beyond is
dropped and counted) and written in one piece, in a thread. Pieces of different processes
never mix and a line is never cut: each piece is written under a `flock`, and what a full disk took only half of is
taken back. Nothing is synced: a power cut may cost the last seconds. A file that was renamed or removed (logrotate) is
opened anew with the next piece, without any signal.

Standard output ("-") is a pipe or a terminal: pieces are cut at line ends into what a pipe takes as one (4096 bytes);
longer lines may mix with those of other processes. Whoever does not read it loses lines, not requests.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STDOUT: Final = "-"
MAX_WAITING_BYTES: Final = 4 << 20
FLUSH_SECONDS: Final = 0.25
LAST_SECONDS: Final = 2.0  # for the last lines when the server stops
COMPLAINT_SECONDS: Final = 60.0  # between two complaints in the server's own log
_PIPE_BYTES: Final = 4096  # PIPE_BUF

log = logging.getLogger("vaultaire.logs")


class LogFile:
    """`add` and `take` in one thread, `write` in one at a time."""

    def __init__(self, path: str) -> None:
        """`path`: absolute, or `STDOUT`. Nothing is opened before there is a line."""
        self.path = path
        self.dropped = 0  # lines that are lost
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes
        self._fd = -1

    def add(self, line: bytes) -> None:
        """One line with its newline, and none inside."""
        if self._waiting > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._waiting += len(line)
        self._lines.append(line)

    def take(self) -> list[bytes]:
        """What waits, for `write`."""
        lines, self._lines, self._waiting = self._lines, [], 0
        return lines

    def write(self, lines: list[bytes]) -> None:
        """Append them. Blocking. Raises OSError: then none of them is there."""
        if self.path == STDOUT:
            for piece in _pieces(lines):
                _write_all(1, piece)
            return
        self._reopen_if_moved()
        append(self._fd, b"".join(lines))

    def close(self) -> None:
        """What was not flushed is gone. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _reopen_if_moved(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                there, held = os.stat(self.path), os.fstat(self._fd)
                if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
                    return
            self.close()
        self._fd = open_log(self.path)


async def keep_writing(log_file: LogFile, told: Callable[[int], None]) -> None:
    """Write what is added, again and again, until cancelled; then the rest, for at most a moment.

    `told`: how many lines were lost since it was last called.
    """
    thread = trio.CapacityLimiter(1)
    quiet_until = 0.0
    lost = 0

    async def once() -> None:
        nonlocal quiet_until, lost
        lines = log_file.take()
        try:
            if lines:
                await trio.to_thread.run_sync(
                    log_file.write, lines, abandon_on_cancel=log_file.path == STDOUT, limiter=thread
                )
        except OSError as error:
            log_file.dropped += len(lines)
            if trio.current_time() >= quiet_until:
                quiet_until = trio.current_time() + COMPLAINT_SECONDS
                log.error("%s cannot be written, its lines are lost: %s", log_file.path, error)
        if log_file.dropped > lost:
            told(log_file.dropped - lost)
            lost = log_file.dropped

    try:
        while True:
            await trio.sleep(FLUSH_SECONDS)
            await once()
    finally:
        with trio.move_on_after(LAST_SECONDS, shield=True):
            await once()
        log_file.close()


def open_log(path: str) -> int:
    """A descriptor to append to `path`, which is made if need be, for its owner and group. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o640)


def append(fd: int, piece: bytes) -> None:
    """All of it or nothing of it, in one place. Blocking. Raises OSError."""
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    if not regular:
        _write_all(fd, piece)
        return
    fcntl.flock(fd, fcntl.LOCK_EX)  # others of ours wait for one write, in threads of their own
    try:
        before = os.fstat(fd).st_size
        try:
            _write_all(fd, piece)
        except OSError:
            os.ftruncate(fd, before)
            raise
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _write_all(fd: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(fd, left) :]


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """As many lines in each as a pipe takes at once."""
    piece: list[bytes] = []
    length = 0
    for line in lines:
        if piece and length + len(line) > _PIPE_BYTES:
            yield b"".join(piece)
            piece, length = [], 0
        piece.append(line)
        length += len(line)
    yield b"".join(piece)
