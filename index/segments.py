"""The journal's segment files, `journal/<first sequence, 20 digits>.log`: written at a given position, read in order.

Writing (under the commit lock, by whoever holds it):

* A record goes to the position that the caller read from LMDB, never to the end of the file. So the record of a
  process that died before its LMDB commit is overwritten by the next one, and no two records that a reader may
  meet carry one sequence.
* Space is written with zeros ahead, so that the length changes once per `zero_ahead_bytes` and a sync is one flush.
* A segment is sealed (cut at the position, synced) before its successor is made; the successor is made empty.

Reading: records are followed by their chain. Where none follows, `JournalReader.check_tail` decides between a torn
tail (nothing valid after it: a crash between write and sync; nobody was told) and damage (CorruptJournal). Assumed of
the disk: a write that fails or is cut by a power loss leaves the neighbouring bytes of its sector as they were
(SQLite's "powersafe overwrite", https://www.sqlite.org/psow.html).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from index.fileops import NO_ROOM
from index.journal import (
    HEADER_BYTES,
    MAGIC,
    MAX_HEADER_BYTES,
    Header,
    InvalidRecord,
    Position,
    Record,
    decode_header,
    decode_record,
)
from index.kv import CorruptJournal, KvError, MapFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from index.fileops import FileOps

_WINDOW_BYTES = 64 << 10
_SEARCH_BYTES = 1 << 20


class SyncFailed(Exception):
    """A sync or a write came back with an error that is not "no room": the file is not to be trusted."""


class NoRoom(Exception):
    """The disk is full. What was to be written is not acknowledged and has to be erased."""


def segment_path(directory: Path, first_sequence: int) -> Path:
    return directory / f"{first_sequence:020d}.log"


def list_segments(directory: Path) -> list[int]:
    """First sequences of the segment files, ascending."""
    return sorted(
        int(path.stem) for path in directory.glob("*.log") if len(path.stem) == 20 and path.stem.isdigit()
    )


class SegmentWriter:
    """Writes records where it is told. One thread at a time, under the commit lock.

    Raises KvError where a segment cannot be opened (nothing was written), NoRoom and SyncFailed as told.
    """

    def __init__(self, directory: Path, ops: FileOps, *, segment_bytes: int, zero_ahead_bytes: int) -> None:
        self._directory = directory
        self._ops = ops
        self._segment_bytes = segment_bytes
        self._zero_ahead_bytes = zero_ahead_bytes
        self._fd = -1
        self._segment = 0  # of `_fd`

    def is_full(self, at: Position) -> bool:
        """Decided by the position alone, so that every process decides the same."""
        return at.offset >= self._segment_bytes

    def append(self, at: Position, record: bytes) -> None:
        """Durable on return. Raises NoRoom or SyncFailed: then the caller erases the place, or poisons."""
        fd = self._open(at.segment)
        try:
            self._write(fd, at.offset, record)
        except OSError as error:
            raise _translated(error, "write") from error
        self._sync(fd)

    def erase(self, at: Position, length: int) -> None:
        """Overwrite a record that must never count with zeros, durably. Raises SyncFailed.

        Only bytes that the file already has are written, which needs no room.
        """
        try:
            fd = self._open(at.segment)
            self._blank(fd, at.offset, length)
        except (OSError, KvError) as error:
            raise SyncFailed(f"cannot erase a journal record: {error}") from error
        self._sync(fd)

    def try_erase(self, at: Position, length: int) -> None:
        """As `erase`, after a failed sync: as far as it goes, and without asking for another one."""
        with suppress(OSError, KvError):
            self._blank(self._open(at.segment), at.offset, length)

    def rotate(self, at: Position) -> Position:
        """Seal the segment at `at`, make its successor and return the position in it. Durable on return.

        Until LMDB knows the new position this changes nothing: the next writer starts again from `at`.
        """
        following = Position(at.sequence, at.sequence + 1, 0, at.chain)
        if following.segment == at.segment:
            return at  # it is empty: its own successor
        fd = self._open(at.segment)
        try:
            self._ops.truncate(fd, at.offset)
        except OSError as error:
            raise _translated(error, "seal a segment of") from error
        self._sync(fd, whole=True)
        self._open(following.segment, os.O_CREAT | os.O_TRUNC)
        self._sync_directory()
        return following

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._segment = -1, 0

    def _open(self, segment: int, flags: int = 0) -> int:
        if segment != self._segment or flags:
            self.close()
            path = segment_path(self._directory, segment)
            try:
                self._fd = self._ops.open(path, os.O_RDWR | flags)
            except OSError as error:  # nothing was written: no reason to distrust anything
                kind = MapFull if error.errno in NO_ROOM else KvError
                raise kind(f"cannot open journal segment {path}: {error.strerror}") from error
            self._segment = segment
        return self._fd

    def _write(self, fd: int, offset: int, record: bytes) -> None:
        end = offset + len(record)
        growing = end > os.fstat(fd).st_size
        self._ops.pwrite(fd, record, offset)
        if growing and end < self._segment_bytes:
            zeros = min(self._zero_ahead_bytes, self._segment_bytes - end)
            try:
                self._ops.pwrite(fd, bytes(zeros), end)
            except OSError as error:
                if error.errno not in NO_ROOM:  # without zeros the next commits are slower, no more
                    raise

    def _blank(self, fd: int, offset: int, length: int) -> None:
        length = min(length, os.fstat(fd).st_size - offset)
        if length > 0:
            self._ops.pwrite(fd, bytes(length), offset)

    def _sync(self, fd: int, *, whole: bool = False) -> None:
        try:
            if whole:
                self._ops.sync_file(fd)
            else:
                self._ops.sync(fd)
        except OSError as error:
            raise SyncFailed(f"sync of the journal failed: {error}") from error

    def _sync_directory(self) -> None:
        try:
            self._ops.sync_directory(self._directory)
        except OSError as error:
            raise SyncFailed(f"sync of the journal's directory failed: {error}") from error


def _translated(error: OSError, doing: str) -> NoRoom | SyncFailed:
    if error.errno in NO_ROOM:
        return NoRoom(f"cannot {doing} the journal: {error.strerror}")
    return SyncFailed(f"cannot {doing} the journal: {error}")


def read_record(fd: int, offset: int, store_id: bytes) -> Record | None:
    """The record of this store that begins at `offset`, or None. Raises UnsupportedFormat, OSError."""
    window = os.pread(fd, _WINDOW_BYTES, offset)
    try:
        header = _own_header(window, 0, store_id)
        if header.record_bytes > len(window):
            window = os.pread(fd, header.record_bytes, offset)
        return decode_record(window[: header.record_bytes])
    except InvalidRecord:
        return None


def find_record(fd: int, offset: int, store_id: bytes, least_sequence: int) -> int | None:
    """Where the first whole record of this store from `least_sequence` on begins, at or after `offset`.

    Older ones do not count: a filesystem may show an old segment's blocks in a new file's tail after a power cut.
    Reads to the end of the file, in blocks.
    """
    while block := os.pread(fd, _SEARCH_BYTES + MAX_HEADER_BYTES, offset):
        hit = block.find(MAGIC)
        while 0 <= hit < _SEARCH_BYTES:
            if _is_record(fd, block, hit, offset, store_id, least_sequence):
                return offset + hit
            hit = block.find(MAGIC, hit + 1)
        offset += _SEARCH_BYTES
    return None


def _is_record(fd: int, block: bytes, hit: int, base: int, store_id: bytes, least_sequence: int) -> bool:
    try:
        header = _own_header(block, hit, store_id)
    except InvalidRecord:
        return False
    return header.first_sequence >= least_sequence and read_record(fd, base + hit, store_id) is not None


def _own_header(data: bytes, offset: int, store_id: bytes) -> Header:
    header = decode_header(data, offset)
    if header.store_id != store_id:
        raise InvalidRecord("record of another store")
    return header


class JournalReader:
    """Follows the chain of records from a position. Used by recovery, alone in the store.

    Each segment is synced before its first record is handed out: a killed process may have written without syncing,
    and what is applied to LMDB must not vanish from the journal.
    """

    def __init__(self, directory: Path, store_id: bytes, start: Position, ops: FileOps) -> None:
        self._directory = directory
        self._store_id = store_id
        self._ops = ops
        self._fd = -1
        self.position = start
        self._open(start.segment)
        if os.fstat(self._fd).st_size < start.offset:
            self.close()
            raise CorruptJournal(
                f"{self._path()} is shorter than what was already applied ({start.offset} bytes)"
            )

    def __iter__(self) -> Iterator[tuple[Record, Position]]:
        """(record, the position after it), to the end of the valid chain. Then call `check_tail`."""
        while True:
            record = read_record(self._fd, self.position.offset, self._store_id)
            if record is None or not record.follows(self.position):
                if not self._enter_next_segment():
                    return
                continue
            self.position = record.end(self.position)
            yield record, self.position

    def check_tail(self) -> None:
        """Raises CorruptJournal if the chain ended at damage rather than at the end of history."""
        following = self.position.sequence + 1
        beyond = [first for first in list_segments(self._directory) if first > following]
        if beyond:
            raise self._damaged(f"segment {beyond[0]:020d} comes after it")
        hit = find_record(self._fd, self.position.offset, self._store_id, following)
        if hit is not None:
            raise self._damaged(f"a whole record follows at {hit}")
        if following != self.position.segment and segment_path(self._directory, following).exists():
            fd = self._ops.open(segment_path(self._directory, following), os.O_RDONLY)
            try:
                if find_record(fd, 0, self._store_id, following) is not None:
                    raise self._damaged(f"segment {following:020d} holds whole records")
            finally:
                os.close(fd)

    def cut_tail(self) -> int:
        """Remove what is after the end; durable on return. Only after `check_tail`. Returns the non-zero bytes cut.

        Where the end is that of a segment whose successor was made, the position is the successor's beginning then: a
        checkpoint may name it, though a power cut undid LMDB's step into it.
        """
        cut = self._cut_here()
        at = self.position
        following = Position(at.sequence, at.sequence + 1, 0, at.chain)
        if following.segment != at.segment and segment_path(self._directory, following.segment).exists():
            self._ops.sync_directory(self._directory)
            self._open(following.segment)
            self.position = following
            cut += self._cut_here()
        return cut

    def _cut_here(self) -> int:
        cut = self._garbage_bytes()
        if os.fstat(self._fd).st_size > self.position.offset:
            self._ops.truncate(self._fd, self.position.offset)
            self._ops.sync_file(self._fd)
        return cut

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _enter_next_segment(self) -> bool:
        """The chain proves the step: nothing can be missing between this end and a record that names it."""
        at = self.position
        following = Position(at.sequence, at.sequence + 1, 0, at.chain)
        path = segment_path(self._directory, following.segment)
        if following.segment == at.segment or not path.exists():
            return False
        fd = self._ops.open(path, os.O_RDONLY)
        try:
            record = read_record(fd, 0, self._store_id)
        finally:
            os.close(fd)
        if record is None or not record.follows(following):
            return False
        self._open(following.segment)
        self.position = following
        return True

    def _open(self, segment: int) -> None:
        self.close()
        path = segment_path(self._directory, segment)
        try:
            self._fd = self._ops.open(path, os.O_RDWR)
        except FileNotFoundError as error:
            raise CorruptJournal(f"journal segment {path} is missing") from error
        self._ops.sync(self._fd)
        self._ops.forget_cached(self._fd)

    def _path(self) -> Path:
        return segment_path(self._directory, self.position.segment)

    def _garbage_bytes(self) -> int:
        rest = os.fstat(self._fd).st_size - self.position.offset
        tail = (
            os.pread(self._fd, min(rest, HEADER_BYTES + _SEARCH_BYTES), self.position.offset)
            if rest > 0
            else b""
        )
        return len(tail.rstrip(b"\0"))

    def _damaged(self, found: str) -> CorruptJournal:
        return CorruptJournal(
            f"{self._path()}: the record at byte {self.position.offset} (after sequence {self.position.sequence}) is "
            f"damaged, and {found}; nothing was cut. Restore this file from a copy, then start again"
        )
