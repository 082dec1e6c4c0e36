"""A part of history as bytes: which ranges of the journal's files lead from one position to another, verified.

For who copies history elsewhere (a backup) while commits go on. Guarantees of `follow`: every record of the ranges is
whole, of this store, and chained to the one before it, from the start to exactly the goal; nothing behind the goal is
looked at. The goal is a position that LMDB holds: what lies below it is never written again, so the ranges may be read
at leisure. Segments may be cut meanwhile unless `keep_segments` is held. Writes nothing, syncs nothing.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from index.journal import MAX_HEADER_BYTES, ORIGIN, InvalidRecord, Position, decode_header
from index.kv import CorruptJournal
from index.segments import list_segments, read_record, segment_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [start, end) of one segment's file."""

    segment: int
    start: int
    end: int


@contextmanager
def keep_segments(directory: Path) -> Iterator[None]:
    """No checkpoint is written, and so no segment cut, until the end of the `with`. Waits for one that is under way.

    Hold it while history is copied, no longer: the journal grows meanwhile.
    """
    fd = os.open(directory / "checkpoint", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # `checkpoint.writing` wants it alone
        yield
    finally:
        os.close(fd)


def segment_start(directory: Path, store_id: bytes, segment: int, inside: Position) -> Position:
    """Where a segment begins, given a position inside it. Raises CorruptJournal."""
    if segment == ORIGIN.segment:
        return ORIGIN
    if inside.segment == segment and inside.offset == 0:
        return inside
    fd = _open(directory / "journal", segment)
    try:
        record = read_record(fd, 0, store_id)
    finally:
        os.close(fd)
    if record is None or record.header.first_sequence != segment:
        raise CorruptJournal(f"{segment_path(directory / 'journal', segment)}: its first record is damaged")
    return Position(segment - 1, segment, 0, record.header.chain)


def follow(
    directory: Path, store_id: bytes, start: Position, goal: Position, *, by_way_of: Position | None = None
) -> list[Extent]:
    """The extents from `start` to `goal`, one per segment, ascending; the last may be empty. Blocking.

    Raises CorruptJournal where the chain breaks, or does not pass `by_way_of` (a checkpoint's position).
    """
    return list(_follow(directory / "journal", store_id, start, goal, by_way_of))


def _follow(
    journal: Path, store_id: bytes, at: Position, goal: Position, by_way_of: Position | None
) -> Iterator[Extent]:
    begin = at.offset
    passed = by_way_of is None
    fd = _open(journal, at.segment)
    try:
        while True:
            passed = passed or at == by_way_of
            if at == goal:
                break
            record = read_record(fd, at.offset, store_id) if at.sequence < goal.sequence else None
            if record is not None and record.follows(at):
                at = record.end(at)
                continue
            following = Position(at.sequence, at.sequence + 1, 0, at.chain)
            if following.segment == at.segment or at.segment >= goal.segment:
                raise CorruptJournal(
                    f"{segment_path(journal, at.segment)}: the record at byte {at.offset} (after sequence {at.sequence}) "
                    f"is damaged; LMDB holds all up to {goal.sequence}"
                )
            yield Extent(at.segment, begin, at.offset)
            os.close(fd)
            fd = -1
            fd = _open(journal, following.segment)
            at, begin = following, 0
        if not passed:
            raise CorruptJournal(f"the journal in {journal} does not lead through the checkpoint's position")
        yield Extent(at.segment, begin, at.offset)
    finally:
        if fd >= 0:
            os.close(fd)


def _open(journal: Path, segment: int) -> int:
    path = segment_path(journal, segment)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise CorruptJournal(f"journal segment {path} is missing") from error


def first_store_id(directory: Path) -> bytes | None:
    """Whose journal this is, by the first intact record header of any segment; None: there is none."""
    for first in list_segments(directory / "journal"):
        with suppress(InvalidRecord, OSError), open(segment_path(directory / "journal", first), "rb") as file:
            return decode_header(file.read(MAX_HEADER_BYTES)).store_id
    return None
