"""Is the metadata engine whole? Checkpoints, the chain of the journal, and LMDB against both.

Guarantees:

* Checkpoints are read from the device and compared with their BLAKE3. Every journal record from the older checkpoint
  (or the beginning) up to the newest commit is read and follows the one before.
* LMDB is compared, row by row, with a copy rebuilt in `tmp/` from checkpoint and journal at the very same commit. That
  shows what checksums of values cannot: a damaged branch page hides rows that nobody asks for by name.
* Nothing is written but that copy: files are opened for reading, nothing is synced, cut or removed. It works beside
  writers, checkpoints and the cutting of the journal; only records up to a commit that LMDB has are looked at, for one
  behind it may yet be withdrawn.
* Memory: one journal record. The copy needs as much room on the disk as the newest checkpoint and the journal since.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from index import checkpoint
from index.environment import (
    APPLIED_KEY,
    Tuning,
    ViewDamaged,
    encode_position,
    open_environment,
    open_tables,
    stored_tables,
    translated,
    wrap,
    write_engine_row,
)
from index.fileops import FileOps
from index.journal import ORIGIN
from index.kv import CorruptJournal, CorruptValue, KvError
from index.lmdb_view import LmdbReader
from index.recovery import DEFAULT_MAP_SIZE_BYTES
from index.segments import JournalReader, list_segments, segment_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import lmdb

    from index.environment import Table
    from index.journal import Position, Record
    from index.kv import OrderedMap, Reader

ROOM_BYTES: Final = 16 << 20  # that must be left for clients beside the copy
_APPLY_BYTES: Final = 8 << 20  # of journal records per commit of the copy
_ATTEMPTS: Final = 3  # each is lost to two checkpoints that were written meanwhile


@dataclass(frozen=True, slots=True)
class EngineDamage:
    """`kind`: checkpoint, journal, view (LMDB itself gives up), row-missing, row-extra, row-differs, row-damaged."""

    kind: str
    reason: str
    path: Path | None = None
    table: str | None = None
    key: bytes | None = None
    truth: bytes | None = None  # the value that the row should have


class NotComparable(KvError):
    """LMDB could not be compared with the truth; the message says why. Nothing is known to be damaged by this."""


class ReadingFiles(FileOps):
    """The real disk, for reading only: what asks for more gets a descriptor that cannot write, and no sync."""

    def open(self, path: Path, flags: int) -> int:
        del flags
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def sync(self, fd: int) -> None:
        """A sync by a bystander could take an error away from the process that must see it."""


# --- checkpoints and journal ----------------------------------------------------------------------------------------


def check_checkpoints(
    directory: Path, store_id: bytes
) -> tuple[list[checkpoint.Checkpoint], list[EngineDamage]]:
    """The sound ones, newest first, and what is wrong with the others. One that is removed meanwhile is neither."""
    sound, damage = [], []
    for sidecar in checkpoint.list_sidecars(directory):
        try:
            found = checkpoint.read_sidecar(sidecar)
            if found.store_id != store_id:
                raise checkpoint.CorruptCheckpoint(f"{sidecar} belongs to another store")
            checkpoint.verify(found, ReadingFiles())
            sound.append(found)
        except checkpoint.CorruptCheckpoint as error:
            if sidecar.exists():
                damage.append(EngineDamage("checkpoint", str(error), sidecar))
    return sound, damage


def check_journal(
    directory: Path, store_id: bytes, sound: Sequence[checkpoint.Checkpoint], sequence: int
) -> EngineDamage | None:
    """Follow the chain from as far back as a rebuild may begin, up to `sequence`. None: it is whole.

    Raises NotComparable if checkpoints are written, and the journal is cut, faster than it can be read.
    """
    for _ in range(_ATTEMPTS):
        damage = _follow_from(directory, store_id, sound, sequence)
        if damage is None:
            return None
        now, _ = check_checkpoints(directory, store_id)
        if now == list(sound):
            return damage
        sound = now  # one was written meanwhile, and the journal cut
    raise NotComparable("the journal could not be checked: it was cut each time it was read")


def _follow_from(
    directory: Path, store_id: bytes, sound: Sequence[checkpoint.Checkpoint], sequence: int
) -> EngineDamage | None:
    journal = directory / "journal"
    start = sound[-1].position if sound else ORIGIN
    # Behind two checkpoints the journal is cut; of what was cut a power failure may bring back any segment.
    if len(sound) < 2 and segment_path(journal, ORIGIN.segment).exists():
        start = ORIGIN
    try:
        _follow(journal, store_id, start, sequence)
    except CorruptJournal as error:
        return EngineDamage("journal", str(error), journal)
    return None


def _follow(journal: Path, store_id: bytes, start: Position, sequence: int) -> None:
    for _ in _records(journal, store_id, start, sequence):
        pass


def _records(
    journal: Path, store_id: bytes, start: Position, sequence: int
) -> Iterator[tuple[Record, Position]]:
    """The records after `start` up to `sequence`, which is committed. Raises CorruptJournal."""
    if start.sequence >= sequence:
        return
    reader = JournalReader(journal, store_id, start, ReadingFiles())
    try:
        for record, position in reader:
            if record.last_sequence > sequence:
                return  # another process is just writing it
            yield record, position
            if record.last_sequence == sequence:
                return
        at = reader.position
        raise CorruptJournal(
            f"{segment_path(journal, at.segment)}: the record at byte {at.offset}, after sequence {at.sequence}, is "
            f"damaged; LMDB has come to sequence {sequence}"
        )
    finally:
        reader.close()


# --- LMDB against its rebuild -------------------------------------------------------------------------------------


def compare(
    kv: OrderedMap, directory: Path, store_id: bytes, sound: Sequence[checkpoint.Checkpoint]
) -> Iterator[EngineDamage]:
    """What LMDB has otherwise than checkpoint and journal say. Blocking, for as long as a rebuild takes.

    Raises NotComparable (a damaged journal, no room for the copy), KvError.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with _rebuilding(directory, store_id, sound) as copy:
                copy.catch_up(_sequence(kv))
                with kv.snapshot() as live:
                    copy.catch_up(live.sequence)
                    with copy.reading() as truth:
                        yield from _differences(live, truth, copy.tables)
                return
        except (CorruptJournal, checkpoint.CorruptCheckpoint) as error:
            newer, _ = check_checkpoints(directory, store_id)
            if attempt == _ATTEMPTS - 1 or newer[:1] == list(sound[:1]):
                raise NotComparable(
                    f"LMDB cannot be compared with checkpoint and journal: {error}"
                ) from error
            sound = newer
        except OSError as error:
            raise NotComparable(f"LMDB cannot be compared with checkpoint and journal: {error}") from error


def _sequence(kv: OrderedMap) -> int:
    with kv.snapshot() as reader:
        return reader.sequence


class _Copy:
    """Checkpoint and journal, applied in a place of their own."""

    def __init__(self, env: lmdb.Environment, journal: Path, store_id: bytes, start: Position) -> None:
        self._env = env
        self._journal = journal
        self._store_id = store_id
        self._position = start
        with env.begin() as txn:
            names = stored_tables(txn)
        self.tables: dict[str, Table] = open_tables(env, names)

    def catch_up(self, sequence: int) -> None:
        waiting: list[Record] = []
        size = 0
        for record, position in _records(self._journal, self._store_id, self._position, sequence):
            waiting.append(record)
            size += record.header.record_bytes
            if size >= _APPLY_BYTES:
                self._apply(waiting, position)
                waiting, size = [], 0
            last = position
        if waiting:
            self._apply(waiting, last)

    @contextmanager
    def reading(self) -> Iterator[LmdbReader]:
        with translated(), self._env.begin() as txn:
            yield LmdbReader(txn, self.tables)

    def _apply(self, records: Iterable[Record], end: Position) -> None:
        names = {name for record in records for mutations in record.functions for name, _ in mutations}
        self.tables.update(open_tables(self._env, sorted(names - self.tables.keys())))
        with translated(), self._env.begin(write=True) as txn:
            for record in records:
                for mutations in record.functions:
                    for (table, key), value in mutations.items():
                        handle, seeds = self.tables[table]
                        if value is None:
                            txn.delete(key, b"", handle)
                        else:
                            txn.put(key, wrap(seeds, key, value), db=handle)
            write_engine_row(txn, APPLIED_KEY, encode_position(end))
        self._position = end


@contextmanager
def _rebuilding(directory: Path, store_id: bytes, sound: Sequence[checkpoint.Checkpoint]) -> Iterator[_Copy]:
    _require_room(directory, sound)
    folder = directory / "tmp" / f"kv-verify-{secrets.token_hex(8)}"
    folder.mkdir(parents=True)
    try:
        start = ORIGIN
        if sound:
            checkpoint.restore(sound[0], folder, FileOps())
            start = sound[0].position
        with open_environment(
            folder, table_count=255, map_size_bytes=DEFAULT_MAP_SIZE_BYTES, tuning=Tuning()
        ) as env:
            yield _Copy(env, directory / "journal", store_id, start)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_room(directory: Path, sound: Sequence[checkpoint.Checkpoint]) -> None:
    """The copy must not take the room that clients need. Raises NotComparable."""
    start = sound[0].position.segment if sound else 0
    journal = sum(
        _bytes(segment_path(directory / "journal", first))
        for first in list_segments(directory / "journal")
        if first >= start
    )
    # Rows take less room in the journal than in pages that are half full.
    needed = 2 * journal + (sound[0].length if sound else 0) + ROOM_BYTES
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise NotComparable(
            f"LMDB cannot be compared with checkpoint and journal: that takes {needed >> 20} MiB of free space for a "
            f"while, {free >> 20} MiB are free"
        )


def _bytes(path: Path) -> int:
    with suppress(FileNotFoundError):  # cut meanwhile
        return path.stat().st_size
    return 0


def _differences(live: Reader, truth: Reader, tables: Iterable[str]) -> Iterator[EngineDamage]:
    for table in sorted(tables):
        try:
            with suppress(KeyError):  # a table of a newer program: not ours to judge
                yield from _table_differences(live, truth, table)
        except ViewDamaged as error:
            yield EngineDamage("view", f"table {table}: {error}", None, table)
            return  # LMDB gives nothing more in this snapshot


def _table_differences(live: Reader, truth: Reader, table: str) -> Iterator[EngineDamage]:
    """Both sorted: merged. `truth` is sound, or its own damage is raised.

    Each row is looked up by its key as well: a damaged branch page can hide rows from that alone.
    """
    rows = _tolerant_scan(live, table)
    row = next(rows, None)
    for key, value in truth.scan(table):
        while row is not None and row[0] < key:
            yield _row("row-extra", "LMDB has a row that checkpoint and journal do not", table, row[0])
            row = next(rows, None)
        if row is None or row[0] != key:
            yield _row(
                "row-missing", "LMDB does not show a row that checkpoint and journal have", table, key, value
            )
            continue
        if row[1] is None:
            yield _row("row-damaged", "the value does not match its checksum", table, key, value)
        elif row[1] != value:
            yield _row("row-differs", "LMDB has another value than checkpoint and journal", table, key, value)
        elif _lookup(live, table, key) != value:
            yield _row("row-missing", "LMDB has the row and does not find it by its key", table, key, value)
        row = next(rows, None)
    while row is not None:
        yield _row("row-extra", "LMDB has a row that checkpoint and journal do not", table, row[0])
        row = next(rows, None)


def _lookup(reader: Reader, table: str, key: bytes) -> bytes | None:
    """None also for a value that does not match its checksum."""
    try:
        return reader.get(table, key)
    except CorruptValue:
        return None


def _tolerant_scan(reader: Reader, table: str) -> Iterator[tuple[bytes, bytes | None]]:
    """Every row; None for a value that does not match its checksum. Keys ascend, or it ends."""
    start = b""
    while True:
        try:
            for key, value in reader.scan(table, start):
                if key < start:
                    return  # a damaged page: LMDB goes in circles
                yield key, value
                start = key + b"\0"
            return
        except CorruptValue as error:
            if error.key < start:
                return
            yield error.key, None
            start = error.key + b"\0"


def damaged_rows(reader: Reader, tables: Iterable[str]) -> Iterator[EngineDamage]:
    """Values that do not match their checksums, where there is nothing to compare with."""
    for table in sorted(tables):
        try:
            for key, value in _tolerant_scan(reader, table):
                if value is None:
                    yield _row("row-damaged", "the value does not match its checksum", table, key)
        except ViewDamaged as error:
            yield EngineDamage("view", f"table {table}: {error}", None, table)
            return


def _row(kind: str, reason: str, table: str, key: bytes, truth: bytes | None = None) -> EngineDamage:
    return EngineDamage(kind, f"table {table}, row {key.hex()}: {reason}", None, table, key, truth)
