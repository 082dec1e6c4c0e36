"""Counters of one process in a small file of shared memory, so that whichever worker is asked can show those of all.

Guarantees: a count is one store into mapped memory, without a lock or a system call. Each file has one writer, the
process that holds its `flock`; the counts outlive it, and the process that takes its place goes on from them: nothing
counted by a killed worker is lost, sums over all files never go back while the server runs, and there are never more
files than processes that ran at once. A whole start removes the files: counters then begin at zero, which Prometheus
knows how to take.

Memory: the file is as large as it will ever be, with its blocks on the disk (a hole that a full disk cannot fill
would kill the process). Without room for it a process counts in memory of its own, which nobody else can show.
Nothing in it is durable, and what does not read as written here is thrown away.

File `run/metrics.<kind>.<number>`, in the machine's byte order; every number is an aligned u64:

    0    8    magic "VltaNum1"
    8    8    bytes in use, this header included: entries up to here are whole
    16   8    process id of the last holder
    24   8    its start, nanoseconds since 1970
    32   32   zeros
    64        entries: key length u16, number of values u16, zeros u32; key; zeros up to a multiple of 8; values

A key is the name of a family and its label values, joined by zero bytes.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import re
import struct
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Key = tuple[str, ...]  # family, label values

FILE_PREFIX: Final = "metrics."  # everything in `run/` that begins so goes with a whole start
SLOT_BYTES: Final = 1 << 20
_MAGIC: Final = b"VltaNum1"
_HEADER: Final = struct.Struct("=8sQQQ32x")
_ENTRY: Final = struct.Struct("=HHI")
_USED_WORD: Final = 1
_NAME: Final = re.compile(r"metrics\.([a-z]+)\.([0-9]{1,6})")

log = logging.getLogger("vaultaire.metrics")


class Slot:
    """This process's file. One thread. `words[i] += 1` counts, where `i` comes from `find`."""

    def __init__(self, directory: Path, kind: str, *, size: int = SLOT_BYTES) -> None:
        """`directory`: the store's `run/`. Takes over the file of a process that is gone, or makes one."""
        self._fd, self.number = _take(directory, kind)
        self._memory = self._map(size)
        self.words = memoryview(self._memory).cast("Q")
        self._index: dict[Key, int] = {}
        self._size = size
        self._used = self._recall()
        _HEADER.pack_into(self._memory, 0, _MAGIC, self._used, os.getpid(), time.time_ns())

    def _map(self, size: int) -> mmap.mmap:
        if self._fd < 0:
            return mmap.mmap(-1, size)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._fd, 0, size)
            elif os.fstat(self._fd).st_size < size:
                os.pwrite(self._fd, bytes(size), 0)
            return mmap.mmap(self._fd, size)
        except OSError as error:
            log.warning("the metrics of this process cannot be shown by others: %s", error)
            os.close(self._fd)
            self._fd = -1
            return mmap.mmap(-1, size)

    def _recall(self) -> int:
        """The counts of whoever had the file before; the bytes in use."""
        entries = list(_entries(self._memory))
        if not entries:
            self._memory[: self._size] = bytes(self._size)
            return _HEADER.size
        for key, first, values in entries:
            self._index[key] = first
            end = 8 * (first + values)
        return end

    def find(self, key: Key, values: int = 1, *, spare: int = 0) -> int | None:
        """The first word of this entry, made if it is not there yet.

        None: there is no room for it, or not if `spare` bytes shall stay free for others.
        """
        found = self._index.get(key)
        if found is not None:
            return found
        encoded = "\0".join(key).encode()
        padded = -(-len(encoded) // 8) * 8
        end = self._used + _ENTRY.size + padded + 8 * values
        if end + spare > self._size:
            return None
        self._memory[self._used : end] = bytes(
            end - self._used
        )  # a killed process may have begun something here
        _ENTRY.pack_into(self._memory, self._used, len(encoded), values, 0)
        start = self._used + _ENTRY.size
        self._memory[start : start + len(encoded)] = encoded
        first = (start + padded) // 8
        self._used = end
        self.words[_USED_WORD] = end  # last: a reader meets whole entries only
        self._index[key] = first
        return first

    def close(self) -> None:
        """The counts stay, for whoever comes next. Idempotent."""
        if self._size:
            self.words.release()
            self._memory.close()
            self._size = 0
            if self._fd >= 0:
                os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Reading:
    """One file as it was a moment ago."""

    kind: str
    number: int
    alive: bool  # somebody holds it
    pid: int
    started_seconds: float  # since 1970
    values: dict[Key, tuple[int, ...]]


def read_slots(directory: Path) -> list[Reading]:
    """All files of `directory`; what cannot be read is left out. Blocking."""
    found = []
    for path in sorted(directory.glob(f"{FILE_PREFIX}*")):
        match = _NAME.fullmatch(path.name)
        reading = _read(path, match[1], int(match[2])) if match else None
        if reading is not None:
            found.append(reading)
    return found


def total(readings: Iterable[Reading]) -> dict[Key, tuple[int, ...]]:
    """The sums over all of them."""
    sums: dict[Key, tuple[int, ...]] = {}
    for reading in readings:
        for key, values in reading.values.items():
            before = sums.get(key)
            # Files of two versions of the program may differ in length: then there is nothing to add.
            if before is None or len(before) != len(values):
                sums[key] = values
            else:
                sums[key] = tuple(map(int.__add__, before, values))
    return sums


def forget_slots(directory: Path) -> None:
    """Remove all files, alone in the store."""
    for path in directory.glob(f"{FILE_PREFIX}*"):
        path.unlink(missing_ok=True)


def _take(directory: Path, kind: str) -> tuple[int, int]:
    """(descriptor, number) of the first file that nobody holds; -1 if none can be had."""
    for number in count():
        path = directory / f"{FILE_PREFIX}{kind}.{number}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("the metrics of this process cannot be shown by others: %s", error)
            return -1, number
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
        else:
            return fd, number
    raise AssertionError("unreachable")


def _read(path: Path, kind: str, number: int) -> Reading | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.pread(fd, SLOT_BYTES, 0)
        alive = _is_held(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    values = {
        key: struct.unpack_from(f"={length}Q", data, 8 * first) for key, first, length in _entries(data)
    }
    if len(data) < _HEADER.size:
        return None
    _, _, pid, started = _HEADER.unpack_from(data)
    return Reading(kind, number, alive, pid, started / 1e9, values)


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _entries(data: bytes | mmap.mmap) -> Iterator[tuple[Key, int, int]]:
    """(key, first word, number of values) of every whole entry; stops at what is none."""
    if len(data) < _HEADER.size:
        return
    magic, used, _, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC or used > len(data):
        return
    at = _HEADER.size
    while at + _ENTRY.size <= used:
        length, values, _ = _ENTRY.unpack_from(data, at)
        start = at + _ENTRY.size
        first = start + -(-length // 8) * 8
        at = first + 8 * values
        if not length or not values or at > used:
            return
        yield (
            tuple(bytes(data[start : start + length]).decode("utf-8", "replace").split("\0")),
            first // 8,
            values,
        )
