"""Bringing LMDB up to the journal, or back from nothing: run by whoever holds `store.lock` exclusively.

Guarantees: on return every acknowledged commit is in LMDB and nothing unacknowledged can turn up later. The checkpoints
and the journal are the truth: they are read, verified and (the journal's torn tail only) cut, never rewritten. Damage
before the journal's end is CorruptJournal: nothing is cut then. A crash at any point is repaired by the next call.

`recover` decides: LMDB sound -> replay what the journal has past the applied position; LMDB missing, damaged, poisoned
or older than the first kept segment -> rebuild from the newest good checkpoint in a new folder, then rename it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import lmdb

from index import checkpoint
from index.dense import copy_dense
from index.environment import (
    APPLIED_KEY,
    HEADER_KEY,
    EnvironmentHeader,
    NotRecovered,
    Table,
    Tuning,
    ViewDamaged,
    allocate_lock_file,
    encode_position,
    open_environment,
    open_tables,
    read_header,
    read_position,
    stored_tables,
    translate,
    translated,
    wrap,
    write_engine_row,
)
from index.fileops import NO_ROOM, FileOps
from index.journal import ORIGIN, Position, Record
from index.kv import CorruptJournal, KvError, MapFull
from index.poison import CRASHED, clear_poison, poison_reason, set_poison
from index.segments import JournalReader, list_segments, segment_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DEFAULT_MAP_SIZE_BYTES = 1 << 40  # sparse: address space only, the file is as long as its pages

CRASHES = 3  # that somebody who only kills what takes him too long will hardly come to
FOLDERS = ("journal", "checkpoint", "run", "tmp")


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    action: Literal["created", "intact", "replayed", "rebuilt"]
    reason: str  # why it was rebuilt; empty otherwise
    sequence: int  # newest commit now
    replayed: int  # functions taken from the journal
    cut_bytes: int  # of a torn tail, which nobody was told about
    checkpoint_sequence: int | None  # the checkpoint a rebuild began from; None: the journal alone
    damaged_checkpoints: tuple[str, ...]  # found while rebuilding, newest first
    generation: bytes  # of the LMDB environment: for LmdbKv.open


class _RebuildNeeded(Exception):
    """The message is the reason."""


def recover(
    directory: Path,
    *,
    tables: Sequence[str],
    store_id: bytes,
    map_size_bytes: int = DEFAULT_MAP_SIZE_BYTES,
    create: bool = True,
    files: FileOps | None = None,
    tuning: Tuning | None = None,
) -> RecoveryReport:
    """Make the metadata whole; blocking. The caller holds `store.lock` exclusively and has no engine open.

    With `create`, a directory without any metadata gets an empty map. `map_size_bytes` is recorded for all processes.
    Raises NotRecovered (no metadata, and not `create`), CorruptJournal, UnsupportedFormat, MapFull, KvError.
    """
    job = Recovery(directory, tables, store_id, map_size_bytes, files or FileOps(), tuning or Tuning())
    try:
        job.prepare(create=create)
        with _attempt(directory / "run" / "recovering", job.files) as crashed:
            try:
                if crashed >= CRASHES and poison_reason(directory) is None:
                    set_poison(directory, f"{CRASHED} each time that it opened LMDB", job.files)
                return job.replay_live()
            except _RebuildNeeded as needed:
                return job.rebuild(str(needed))
    except lmdb.Error as error:
        raise translate(error) from error
    except OSError as error:
        kind = MapFull if error.errno in NO_ROOM else KvError
        raise kind(f"cannot recover the metadata in {directory}: {error}") from error


@contextmanager
def _attempt(path: Path, files: FileOps) -> Iterator[int]:
    """How many recoveries in a row ended in here, and their process with them; this one counts until it comes back.

    LMDB may die of a damaged page that opening it touches. Then nobody can say so but the next one.
    """
    earlier = 0
    with suppress(OSError, ValueError):
        earlier = int(path.read_text())
    with suppress(OSError):  # it is not counted, then
        fd = files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            files.pwrite(fd, f"{earlier + 1}\n".encode(), 0)
        finally:
            os.close(fd)
    try:
        yield earlier
    finally:
        with suppress(OSError):
            path.unlink()


def rebuild(
    directory: Path,
    *,
    tables: Sequence[str],
    store_id: bytes,
    reason: str,
    map_size_bytes: int = DEFAULT_MAP_SIZE_BYTES,
    files: FileOps | None = None,
    tuning: Tuning | None = None,
) -> RecoveryReport:
    """As `recover`, but `meta/` is made anew even if it looks sound, with full pages (`index.dense`). What was there stays
    until the new one is whole.

    Raises as `recover`; CorruptJournal also if history now ends before what the old environment had applied.
    """
    job = Recovery(directory, tables, store_id, map_size_bytes, files or FileOps(), tuning or Tuning())
    try:
        job.prepare(create=False)
        return job.rebuild(reason, dense=True)
    except lmdb.Error as error:
        raise translate(error) from error
    except OSError as error:
        kind = MapFull if error.errno in NO_ROOM else KvError
        raise kind(f"cannot rebuild the metadata in {directory}: {error}") from error


class Recovery:
    """The steps of `recover`, for that and for `index.salvage`."""

    def __init__(
        self,
        directory: Path,
        tables: Sequence[str],
        store_id: bytes,
        map_size: int,
        files: FileOps,
        tuning: Tuning,
    ) -> None:
        self._directory = directory
        self._meta = directory / "meta"
        self._journal = directory / "journal"
        self._table_names = tables
        self._store_id = store_id
        self._map_size = map_size
        self.files = files
        self._tuning = tuning
        self._created = False

    def prepare(self, *, create: bool) -> None:
        """Make the folders, and the first journal segment of a new store."""
        for name in FOLDERS:
            (self._directory / name).mkdir(exist_ok=True)
        for path in (self._directory / "tmp").glob("kv-*"):
            shutil.rmtree(path, ignore_errors=True)
        if self._meta.exists() or list_segments(self._journal) or checkpoint.list_sidecars(self._directory):
            return
        if not create:
            raise NotRecovered(f"{self._directory} holds no metadata: no meta/, no journal, no checkpoint")
        fd = self.files.open(segment_path(self._journal, ORIGIN.segment), os.O_RDWR | os.O_CREAT)
        os.close(fd)
        self.files.sync_directory(self._journal)
        self.files.sync_directory(self._directory)
        self._created = True

    def replay_live(self) -> RecoveryReport:
        """Bring the environment that is there up to the journal. Raises _RebuildNeeded."""
        if (reason := poison_reason(self._directory)) is not None:
            raise _RebuildNeeded(f"poisoned: {reason}")
        if not (self._meta / "data.mdb").exists():
            raise _RebuildNeeded("there was no LMDB file")
        try:
            with translated(), self.open(self._meta) as env:
                header, applied = self._read_state(env)
                self._refuse_gap(applied)
                end, functions, cut = self._replay(env, applied)
                updated = replace(header, map_size_bytes=self._map_size, boot=self._tuning.boot)
                if functions or updated != header:
                    self.finish(env, updated)
        except ViewDamaged as error:
            raise _RebuildNeeded(str(error)) from error
        action: Literal["replayed", "intact"] = "replayed" if functions else "intact"
        return RecoveryReport(action, "", end.sequence, functions, cut, None, (), updated.generation)

    def rebuild(self, reason: str, *, dense: bool = False) -> RecoveryReport:
        """A new environment from the newest good checkpoint and the journal, put in the place of the old one.

        `dense`: copied once more, with full pages; that takes as long again.
        """
        crashed = (poison_reason(self._directory) or "").startswith(CRASHED)
        least = 0 if crashed else self._applied_sequence()
        folder = self._directory / "tmp" / f"kv-rebuild-{secrets.token_hex(8)}"
        try:
            base, damaged = self._restore_newest(folder)
            header = EnvironmentHeader(
                self._store_id, secrets.token_bytes(16), self._map_size, self._tuning.boot
            )
            with self.open(folder) as env:
                start = self.begin(env, base)
                end, functions, cut = self._replay(env, start, least_sequence=least)
                self.finish(env, header)
            if dense:
                folder = self._make_dense(folder, header)
        except BaseException:
            for path in folder.parent.glob(f"{folder.name}*"):  # the disk may be full: give the room back
                shutil.rmtree(path, ignore_errors=True)
            raise
        self.install(folder)
        clear_poison(self._directory, self.files)
        sequence = None if base is None else base.sequence
        action: Literal["created", "rebuilt"] = "created" if self._created else "rebuilt"
        reason = "" if self._created else reason
        return RecoveryReport(
            action, reason, end.sequence, functions, cut, sequence, damaged, header.generation
        )

    # The environment that is there

    def open(self, folder: Path) -> lmdb.Environment:
        allocate_lock_file(folder, self._tuning)
        return open_environment(
            folder, table_count=len(self._table_names), map_size_bytes=self._map_size, tuning=self._tuning
        )

    def _read_state(self, env: lmdb.Environment) -> tuple[EnvironmentHeader, Position]:
        with env.begin() as txn:
            header, applied = read_header(txn), read_position(txn)
        if header.store_id != self._store_id:
            raise KvError(f"{self._meta} belongs to another store")
        return header, applied

    def _refuse_gap(self, applied: Position) -> None:
        """A power cut may leave LMDB older than the first segment that was kept: a checkpoint then has the rest."""
        if segment_path(self._journal, applied.segment).exists():
            return
        newest = checkpoint.newest(self._directory)
        if newest is not None and newest.sequence > applied.sequence:
            raise _RebuildNeeded(f"LMDB (at {applied.sequence}) is older than the journal")
        raise CorruptJournal(
            f"journal segment {segment_path(self._journal, applied.segment)} is missing and no newer checkpoint is "
            "there; restore journal/ from a copy"
        )

    def _applied_sequence(self) -> int:
        """How far the environment that is being replaced had come, as far as it can say: all of that was durable."""
        if not (self._meta / "data.mdb").exists():
            return 0
        with (
            suppress(KvError, lmdb.Error),
            open_environment(
                self._meta,
                table_count=len(self._table_names),
                map_size_bytes=self._map_size,
                tuning=self._tuning,
                readonly=True,
            ) as env,
            env.begin() as txn,
        ):
            if read_header(txn).store_id == self._store_id:
                return read_position(txn).sequence
        return 0

    # Replay

    def _replay(
        self, env: lmdb.Environment, start: Position, *, least_sequence: int = 0
    ) -> tuple[Position, int, int]:
        """Apply the journal from `start`: (where it ends, functions applied, bytes of a torn tail cut)."""
        tables = open_tables(env, self._table_names)
        reader = JournalReader(self._journal, self._store_id, start, self.files)
        try:
            waiting: list[Record] = []
            waiting_bytes = 0
            for record, position in reader:
                waiting.append(record)
                waiting_bytes += record.header.record_bytes
                if waiting_bytes >= self._tuning.replay_bytes:
                    self._apply(env, tables, waiting, position)
                    waiting, waiting_bytes = [], 0
            reader.check_tail()
            if reader.position.sequence < least_sequence:
                raise CorruptJournal(
                    f"the journal in {self._journal} ends at sequence {reader.position.sequence}, but LMDB had "
                    f"applied {least_sequence}: its last records are damaged. Nothing was cut: restore journal/ from a copy, "
                    "or run `vaultaire rebuild`, which keeps LMDB if it is whole"
                )
            cut = reader.cut_tail()
            if waiting or reader.position != start:
                self._apply(env, tables, waiting, reader.position)
            return reader.position, reader.position.sequence - start.sequence, cut
        finally:
            reader.close()

    def replay_to_damage(self, env: lmdb.Environment, start: Position) -> None:
        """As `_replay`, but ends where the chain does, whatever follows. For salvage only."""
        tables = open_tables(env, self._table_names)
        reader = JournalReader(self._journal, self._store_id, start, self.files)
        try:
            for record, position in reader:
                self._apply(env, tables, [record], position)
        finally:
            reader.close()

    def _apply(
        self, env: lmdb.Environment, tables: dict[str, Table], records: Sequence[Record], end: Position
    ) -> None:
        names = {table for record in records for mutations in record.functions for table, _ in mutations}
        tables.update(open_tables(env, sorted(names - tables.keys())))  # of a newer program: kept as they are
        with env.begin(write=True) as txn:
            for record in records:
                for mutations in record.functions:
                    for (table, key), value in mutations.items():
                        handle, seeds = tables[table]
                        if value is None:
                            txn.delete(key, b"", handle)
                        else:
                            txn.put(key, wrap(seeds, key, value), db=handle)
            write_engine_row(txn, APPLIED_KEY, encode_position(end))
            self.files.commit(txn)

    def finish(self, env: lmdb.Environment, header: EnvironmentHeader) -> None:
        """The header is the mark that recovery is complete: it goes last."""
        with env.begin(write=True) as txn:
            write_engine_row(txn, HEADER_KEY, header.encode())
            self.files.commit(txn)
        self.files.sync_environment(env)

    # Rebuild

    def _restore_newest(self, folder: Path) -> tuple[checkpoint.Checkpoint | None, tuple[str, ...]]:
        """The newest good checkpoint, copied to `folder`; None (and an empty folder) if there is none."""
        damaged: list[str] = []
        for sidecar in checkpoint.list_sidecars(self._directory):
            folder.mkdir()
            try:
                candidate = checkpoint.read_sidecar(sidecar)
                if candidate.store_id != self._store_id:
                    raise checkpoint.CorruptCheckpoint(f"{sidecar} belongs to another store")
                checkpoint.restore(candidate, folder, self.files)
                return candidate, tuple(damaged)
            except checkpoint.CorruptCheckpoint as error:
                damaged.append(str(error))
                shutil.rmtree(folder)
        if not segment_path(self._journal, ORIGIN.segment).exists():
            raise CorruptJournal(
                f"{self._directory} cannot be rebuilt: the journal does not reach back to its beginning and there is "
                f"no good checkpoint ({'; '.join(damaged) or 'none at all'}); restore checkpoint/ and journal/, "
                "or see what `vaultaire rebuild` finds"
            )
        folder.mkdir()
        return None, tuple(damaged)

    def _make_dense(self, loose: Path, header: EnvironmentHeader) -> Path:
        """The same in another folder, with full pages; `loose` is gone then."""
        folder = loose.with_name(f"{loose.name}-dense")
        with self.open(loose) as env, self.open(folder) as copy:
            copy_dense(env, copy, self.files)
            self.finish(copy, header)
        shutil.rmtree(loose)
        return folder

    def begin(self, env: lmdb.Environment, base: checkpoint.Checkpoint | None) -> Position:
        open_tables(env, self._table_names)
        if base is None:
            with env.begin(write=True) as txn:
                write_engine_row(txn, APPLIED_KEY, encode_position(ORIGIN))
                self.files.commit(txn)
            return ORIGIN
        with env.begin() as txn:
            tables = stored_tables(txn)
            position = read_position(txn)
        open_tables(env, tables)
        return position

    def install(self, folder: Path) -> None:
        """Between the two renames there is no `meta/`: a crash there means one more rebuild."""
        self.files.unlink(folder / "lock.mdb")
        allocate_lock_file(folder, self._tuning)
        self.files.sync_directory(folder)
        if self._meta.exists():
            self.files.rename(self._meta, folder.with_name(f"{folder.name}-old"))
        self.files.rename(folder, self._meta)
        self.files.sync_directory(self._directory)
        shutil.rmtree(folder.with_name(f"{folder.name}-old"), ignore_errors=True)
