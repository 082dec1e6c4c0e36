"""The embedded engine of the ordered map: LMDB for reading, a journal for durability.

Guarantees beyond the contract in `index.kv`: safe among processes that share the directory; what is acknowledged
survives `kill -9` at any instruction and a power cut at any write; LMDB may be deleted and comes back from the last
checkpoint and the journal. Formats, opening and recovery: index/SCHEMA.md.

One commit step, under the commit lock (`flock` on `journal/`, and LMDB's own write lock inside it):

1. Refuse if `run/poisoned` exists. Read the applied position: sequence, and where the next journal record goes.
2. Run each function in a child transaction; a failing one fails alone.
3. Write one journal record of the mutations at that position, and sync it.
4. Commit LMDB, which holds the rows and the new position, with `metasync=False`: that keeps LMDB sound, and a power
   cut that undoes the last commits is made good from the journal at the next start.

A crash between 3 and 4 leaves a record that nobody was told about: the next writer overwrites it, or the next
recovery applies it. If 4 fails the record is erased before anyone is told and before the lock is released; where that
is impossible, or after any failed sync, the store is poisoned.

Why a lock around LMDB's: LMDB gives up its write lock inside a failing commit, so a sibling could write its record
at the same position before we erase ours. `flock` on the directory needs no file and falls with its process.

A write transaction begins and ends in one call, hence in one thread: py-lmdb does not check, and the next writer
would hang. Processes are spawned, never forked with an engine open. An engine is closed by its owner, after all calls.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import lmdb

from index import checkpoint
from index.environment import (
    APPLIED_KEY,
    EnvironmentHeader,
    NotRecovered,
    Table,
    Tuning,
    ViewDamaged,
    encode_position,
    is_damage,
    is_full,
    open_environment,
    open_tables,
    read_header,
    read_position,
    translate,
    translated,
    write_engine_row,
)
from index.fileops import FileOps
from index.journal import Position, encode_record, record_checksum
from index.kv import CorruptValue, KvError, MapFull, Outcome, StorePoisoned
from index.lmdb_view import LmdbTransaction, Snapshot
from index.poison import poison_path, poison_reason, set_poison
from index.recovery import DEFAULT_MAP_SIZE_BYTES, RecoveryReport, recover
from index.segments import NoRoom, SegmentWriter, SyncFailed, list_segments, segment_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from index.checkpoint import Checkpoint
    from index.journal import Mutations
    from index.kv import Transaction

__all__ = ["EngineStatistics", "LmdbKv", "NotRecovered", "RecoveryReport", "Tuning", "ViewDamaged", "recover"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    sequence: int  # newest commit
    used_bytes: int  # LMDB pages in use by rows
    file_bytes: int  # length of LMDB's file; pages once used are kept for reuse
    journal_bytes: int  # with the zeros written ahead
    checkpoint_bytes: int


class LmdbKv:
    """See the module. Thread-safe but for `close`."""

    def __init__(
        self,
        directory: Path,
        env: lmdb.Environment,
        tables: dict[str, Table],
        header: EnvironmentHeader,
        *,
        writer_tag: bytes,
        segment_bytes: int,
        clock: Callable[[], float],
        files: FileOps,
        tuning: Tuning,
    ) -> None:
        self._directory = directory
        self._env = env
        self._tables = tables
        self._header = header
        self._writer_tag = writer_tag
        self._clock = clock
        self._files = files
        self._tuning = tuning
        self._poison_path = str(poison_path(directory))
        self._poison_reason: str | None = None
        self._journal = directory / "journal"
        self._segments = SegmentWriter(
            self._journal, files, segment_bytes=segment_bytes, zero_ahead_bytes=tuning.zero_ahead_bytes
        )
        self._lock_fd = files.open(self._journal, os.O_RDONLY | os.O_DIRECTORY)
        self._thread_lock = threading.Lock()
        self._lock_owner: int | None = None  # thread that runs a step

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        tables: Sequence[str],
        store_id: bytes,
        writer_tag: bytes,
        map_size_bytes: int = DEFAULT_MAP_SIZE_BYTES,
        segment_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.time,
        generation: bytes | None = None,
        files: FileOps | None = None,
        tuning: Tuning | None = None,
    ) -> LmdbKv:
        """Open a recovered store, while the caller holds `store.lock` shared. Never rebuilds anything.

        `tables` names every table there will be; `writer_tag` (16 bytes) goes into the journal records of this
        engine; `segment_bytes` must be the same in all processes of a store; `generation` is the one that a
        `RecoveryReport` named, if the caller has one. The map size recorded by recovery wins over `map_size_bytes`.
        Raises NotRecovered, StorePoisoned, UnsupportedFormat, KvError.
        """
        if len(writer_tag) != 16 or len(store_id) != 16:
            raise ValueError("store id and writer tag have 16 bytes")
        files, tuning = files or FileOps(), tuning or Tuning()
        if (reason := poison_reason(directory)) is not None:
            raise StorePoisoned(
                f"{poison_path(directory)} exists ({reason}); stop all processes of this store"
            )
        env = _open_recovered(directory / "meta", len(tables), map_size_bytes, tuning)
        try:
            header = _check_identity(env, directory, store_id, generation, tuning)
            if header.map_size_bytes != map_size_bytes:
                env.set_mapsize(header.map_size_bytes)
            handles = open_tables(env, tables)
            env.reader_check()
            return cls(
                directory,
                env,
                handles,
                header,
                writer_tag=writer_tag,
                segment_bytes=segment_bytes,
                clock=clock,
                files=files,
                tuning=tuning,
            )
        except BaseException:
            env.close()
            raise

    @property
    def generation(self) -> bytes:
        """Which (re)build of the LMDB environment this is."""
        return self._header.generation

    # Reading

    def snapshot(self) -> Snapshot:
        try:
            return Snapshot(self._env.begin(), self._tables)
        except lmdb.ReadersFullError:
            return self._snapshot_after_check()
        except lmdb.Error as error:
            raise translate(error) from error

    def _snapshot_after_check(self) -> Snapshot:
        with translated():  # LMDB does not free the slots of killed processes by itself
            self._env.reader_check()
            return Snapshot(self._env.begin(), self._tables)

    def check_readers(self) -> int:
        """Free the reader slots of dead processes: they pin pages, and the file grows. Returns how many."""
        with translated():
            return self._env.reader_check()

    # Committing

    def commit(self, fn: Callable[[Transaction], T]) -> T:
        return self.commit_many([fn])[0].unwrap()

    def commit_many(self, fns: Sequence[Callable[[Transaction], T]]) -> list[Outcome[T]]:
        outcomes: list[Outcome[T]] = []
        width = len(fns)
        while len(outcomes) < len(fns):
            step = fns[len(outcomes) : len(outcomes) + width]
            try:
                outcomes += self._step(step)
            except MapFull as error:
                # One by one from here on: what fits still succeeds, and deletes make room.
                width = 1
                if len(step) == 1:
                    outcomes.append(Outcome(None, error, 0))
            except KvError as error:
                if all(outcome.error is not None for outcome in outcomes):
                    raise
                outcomes += [Outcome(None, error, 0)] * (len(fns) - len(outcomes))
        return outcomes

    def _step(self, fns: Sequence[Callable[[Transaction], T]]) -> list[Outcome[T]]:
        """One durable step for the first of `fns`, as many as a batch may hold (at least one)."""
        with self._writing() as txn:
            applied = read_position(txn)
            outcomes, changes = self._run(txn, fns, applied.sequence)
            if changes:
                self._make_durable(txn, applied, changes)
            return outcomes

    def _run(
        self, txn: lmdb.Transaction[bytes], fns: Sequence[Callable[[Transaction], T]], sequence: int
    ) -> tuple[list[Outcome[T]], list[Mutations]]:
        outcomes: list[Outcome[T]] = []
        changes: list[Mutations] = []
        size = 0
        deadline = self._tuning.monotonic() + self._tuning.batch_seconds
        for fn in fns:
            # A single function needs no child: if it fails, the whole transaction goes.
            child = txn if len(fns) == 1 else self._env.begin(write=True, parent=txn)
            view = LmdbTransaction(child, self._tables, sequence + len(changes) + 1)
            outcome = _run_alone(view, fn)
            if outcome.error is not None:
                child.abort()
            else:
                if child is not txn:
                    child.commit()
                changes.append(view.mutations)
                size += view.size
            outcomes.append(outcome)
            if size >= self._tuning.batch_bytes or self._tuning.monotonic() >= deadline:
                break
        return outcomes, changes

    def _make_durable(
        self, txn: lmdb.Transaction[bytes], applied: Position, changes: Sequence[Mutations]
    ) -> None:
        at = self._rotate(applied) if self._segments.is_full(applied) else applied
        record = encode_record(
            changes,
            store_id=self._header.store_id,
            first_sequence=at.sequence + 1,
            wall_ms=max(0, int(self._clock() * 1000)),
            writer_tag=self._writer_tag,
            chain=at.chain,
        )
        sequence, offset = at.sequence + len(changes), at.offset + len(record)
        after = Position(sequence, at.segment, offset, record_checksum(record))
        write_engine_row(
            txn, APPLIED_KEY, encode_position(after)
        )  # all that may need room, before the journal
        try:
            self._segments.append(at, record)
            self._files.commit(txn)
        except NoRoom as error:
            self._withdraw(at, record)
            raise MapFull(str(error)) from error
        except SyncFailed as error:
            self._segments.try_erase(at, len(record))
            raise self.poison(str(error)) from error
        except lmdb.Error as error:
            if not is_full(error):
                self.poison(f"LMDB failed to commit: {error}")
            self._withdraw(at, record)
            raise translate(error) if is_full(error) else StorePoisoned(str(error)) from error
        except BaseException:
            if self._is_applied(applied):  # an interrupt may arrive after LMDB's commit: then it stands
                self._withdraw(at, record)
            raise

    def _withdraw(self, at: Position, record: bytes) -> None:
        """Make sure that a record whose commit failed can never be replayed; else poison."""
        try:
            self._segments.erase(at, len(record))
        except SyncFailed as error:
            raise self.poison(str(error)) from error

    def _is_applied(self, position: Position) -> bool:
        with translated(), self._env.begin() as txn:
            return read_position(txn) == position

    def _rotate(self, applied: Position) -> Position:
        try:
            return self._segments.rotate(applied)
        except NoRoom as error:
            raise MapFull(str(error)) from error
        except SyncFailed as error:
            raise self.poison(str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction[bytes]]:
        """The commit lock and a write transaction, which is aborted at the end unless it was committed."""
        thread = threading.get_ident()
        if self._lock_owner == thread:
            raise RuntimeError("commit() inside a function of a commit")
        with self._thread_lock:
            self._lock_owner = thread
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            try:
                self._refuse_poisoned()
                txn = self._env.begin(write=True)
                try:
                    yield txn
                finally:
                    txn.abort()
            except lmdb.Error as error:
                if is_damage(error):
                    raise self.poison(f"LMDB: {error}") from error
                raise translate(error) from error
            except ViewDamaged as error:
                raise self.poison(str(error)) from error
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
                self._lock_owner = None

    # Poison

    def poison(self, reason: str) -> StorePoisoned:
        """Forbid every further commit, in all processes, until a restart has rebuilt LMDB. Returns what to raise.

        The owner may call it too: for instance when CorruptValue shows that LMDB's file is damaged. Never raises:
        if the mark cannot be made, this process at least commits no more.
        """
        if self._poison_reason is None:
            self._poison_reason = reason
            try:
                set_poison(self._directory, reason, self._files)
            except OSError as error:
                self._poison_reason = f"{reason}; {self._poison_path} could not be made: {error}"
        return StorePoisoned(
            f"the metadata store is poisoned: {self._poison_reason}; restart all its processes"
        )

    def _refuse_poisoned(self) -> None:
        if self._poison_reason is None and os.access(self._poison_path, os.F_OK):
            self._poison_reason = poison_reason(self._directory) or "by another process"
        if self._poison_reason is not None:
            raise self.poison(self._poison_reason)

    # Checkpoints

    def checkpoint_due(self) -> bool:
        """Has the journal outgrown the last checkpoint? Cheap: lists two directories."""
        with self.snapshot() as reader:
            sequence = reader.sequence
        newest = checkpoint.newest(self._directory)
        since = newest.position.segment if newest is not None else 0
        grown = sum(
            segment_path(self._journal, first).stat().st_size
            for first in list_segments(self._journal)
            if first >= since
        )
        least = self._tuning.checkpoint_least_bytes
        due = grown >= (least if newest is None else max(least, newest.length // 2))
        return due and (newest is None or newest.sequence < sequence)

    def write_checkpoint(self) -> Checkpoint | None:
        """Write a checkpoint and cut the journal; None if another process is at it or nothing has changed.

        Blocking, for as long as copying and reading the whole environment takes; commits go on meanwhile. Every
        row is verified: a damaged environment poisons the store instead of replacing the truth.
        Raises StorePoisoned, KvError (MapFull: no room for the copy).
        """
        with checkpoint.writing(self._directory) as alone:
            if not alone:
                return None
            try:
                return self._write_checkpoint()
            except (CorruptValue, ViewDamaged) as error:
                raise self.poison(f"found while writing a checkpoint: {error}") from error

    def _write_checkpoint(self) -> Checkpoint | None:
        self._begin_segment()
        made = checkpoint.make(
            self._env, self._directory, store_id=self._header.store_id, clock=self._clock, files=self._files
        )
        try:
            self._files.sync_environment(self._env)  # LMDB must not fall behind the journal that stays
        except lmdb.Error as error:
            raise self.poison(f"sync of LMDB failed: {error}") from error
        checkpoint.prune(self._directory, self._files, verified=made)
        return made

    def _begin_segment(self) -> None:
        """Rotate, so that the segments before can be cut."""
        with self._writing() as txn:
            applied = read_position(txn)
            at = self._rotate(applied)
            if at != applied:
                write_engine_row(txn, APPLIED_KEY, encode_position(at))
                self._files.commit(txn)

    def statistics(self) -> EngineStatistics:
        with translated(), self._env.begin() as txn:
            stats = [txn.stat(), *(txn.stat(handle) for handle, _ in self._tables.values())]
            sequence = read_position(txn).sequence
        pages = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
        return EngineStatistics(
            sequence=sequence,
            used_bytes=pages * stats[0]["psize"],
            file_bytes=(self._directory / "meta" / "data.mdb").stat().st_size,
            journal_bytes=_folder_bytes(self._journal),
            checkpoint_bytes=_folder_bytes(self._directory / "checkpoint"),
        )

    def close(self) -> None:
        """Let go of everything; idempotent. No snapshot may be in use."""
        self._env.close()
        self._segments.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _run_alone(view: LmdbTransaction, fn: Callable[[Transaction], T]) -> Outcome[T]:
    """Raises what LMDB could not do: that concerns the whole batch."""
    try:
        value = fn(view)
    except Exception as error:
        if isinstance(view.failure, MapFull | ViewDamaged):
            raise view.failure from error
        return Outcome(None, view.failure or error, 0)
    if isinstance(view.failure, MapFull | ViewDamaged):
        raise view.failure
    if view.failure is not None:
        return Outcome(None, view.failure, 0)
    return Outcome(value, None, view.sequence)


def _open_recovered(meta: Path, table_count: int, map_size_bytes: int, tuning: Tuning) -> lmdb.Environment:
    file = meta / "data.mdb"
    try:
        before = file.stat()
    except FileNotFoundError as error:
        raise NotRecovered(f"{file} is missing") from error
    env = open_environment(meta, table_count=table_count, map_size_bytes=map_size_bytes, tuning=tuning)
    if (before.st_dev, before.st_ino) != (file.stat().st_dev, file.stat().st_ino):
        env.close()
        raise NotRecovered(f"{file} was replaced while it was being opened")
    return env


def _check_identity(
    env: lmdb.Environment, directory: Path, store_id: bytes, generation: bytes | None, tuning: Tuning
) -> EnvironmentHeader:
    try:
        with translated(), env.begin() as txn:
            header, applied = read_header(txn), read_position(txn)
    except ViewDamaged as error:
        raise NotRecovered(f"{directory / 'meta'}: {error}") from error
    if header.store_id != store_id:
        raise KvError(f"{directory / 'meta'} belongs to another store")
    if generation is not None and header.generation != generation:
        raise NotRecovered(f"{directory / 'meta'} was rebuilt meanwhile")
    if header.boot != tuning.boot:
        raise NotRecovered(f"{directory / 'meta'} was not recovered since this machine started")
    if not segment_path(directory / "journal", applied.segment).exists():
        raise NotRecovered(f"journal segment {applied.segment} is missing")
    return header


def _folder_bytes(folder: Path) -> int:
    """Files may come and go meanwhile."""
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
