"""One durable step of the LMDB engine: functions in, journal record and LMDB commit out.

A step, under the commit lock (`flock` on `journal/`, and LMDB's own write lock inside it):

1. Refuse if `run/poisoned` or `run/readonly` exists. Read the applied position: sequence, and where the next journal record goes.
2. Run each function in a child transaction; a failing one fails alone.
3. Write one journal record of the mutations at that position, and sync it.
4. Commit LMDB, which holds the rows and the new position, with `metasync=False`: that keeps LMDB sound, and a power
   cut that undoes the last commits is made good from the journal at the next start.

A crash between 3 and 4 leaves a record that nobody was told about: the next writer overwrites it, or the next
recovery applies it. If 4 fails the record is erased before anyone is told and before the lock is released; where that
is impossible, or after any failed sync, the store is poisoned; if it was before, not long ago, it becomes read-only.

Why a lock around LMDB's: LMDB gives up its write lock inside a failing commit, so a sibling could write its record
at the same position before we erase ours. `flock` on the directory needs no file and falls with its process.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import lmdb

from index.environment import (
    APPLIED_KEY,
    Table,
    Tuning,
    ViewDamaged,
    encode_position,
    is_damage,
    is_full,
    read_position,
    translate,
    translated,
    write_engine_row,
)
from index.journal import Position, encode_record, record_checksum
from index.kv import KvError, MapFull, Outcome, StorePoisoned, StoreReadOnly
from index.lmdb_view import LmdbTransaction
from index.poison import earlier_poison_path, poison_path, poison_reason, set_poison
from index.readonly import readonly_path, readonly_reason, set_readonly
from index.segments import NoRoom, SegmentWriter, SyncFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from index.fileops import FileOps
    from index.journal import Mutations
    from index.kv import Transaction

T = TypeVar("T")


class Committer:
    """The writing half of an engine. Thread-safe; among processes, the locks above."""

    def __init__(
        self,
        directory: Path,
        env: lmdb.Environment,
        tables: Mapping[str, Table],
        *,
        store_id: bytes,
        writer_tag: bytes,
        segment_bytes: int,
        clock: Callable[[], float],
        files: FileOps,
        tuning: Tuning,
        read_only: str | None = None,
    ) -> None:
        self._directory = directory
        self._env = env
        self._tables = tables
        self._store_id = store_id
        self._writer_tag = writer_tag
        self._clock = clock
        self._files = files
        self._tuning = tuning
        self._poison_path = str(poison_path(directory))
        self._poison_reason: str | None = None
        self._readonly_path = str(readonly_path(directory))
        self._readonly_reason = read_only
        journal = directory / "journal"
        self._segments = SegmentWriter(
            journal, files, segment_bytes=segment_bytes, zero_ahead_bytes=tuning.zero_ahead_bytes
        )
        self._lock_fd = files.open(journal, os.O_RDONLY | os.O_DIRECTORY)
        self._thread_lock = threading.Lock()
        self._lock_owner: int | None = None  # thread that runs a step

    def step(self, fns: Sequence[Callable[[Transaction], T]]) -> list[Outcome[T]]:
        """One durable step for the first of `fns`, as many as a batch may hold (at least one)."""
        with self._writing() as txn:
            applied = read_position(txn)
            outcomes, changes = self._run(txn, fns, applied.sequence)
            if changes:
                self._make_durable(txn, applied, changes)
            return outcomes

    def begin_segment(self) -> None:
        """Rotate, so that the segments before can be cut."""
        with self._writing() as txn:
            applied = read_position(txn)
            at = self._rotate(applied)
            if at != applied:
                write_engine_row(txn, APPLIED_KEY, encode_position(at))
                self._files.commit(txn)

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
            store_id=self._store_id,
            first_sequence=at.sequence + 1,
            wall_ms=max(0, int(self._clock() * 1000)),
            writer_tag=self._writer_tag,
            chain=at.chain,
        )
        sequence, offset = at.sequence + len(changes), at.offset + len(record)
        after = Position(sequence, at.segment, offset, record_checksum(record))
        # Everything that may find no room comes before the journal, but for LMDB's commit itself.
        write_engine_row(txn, APPLIED_KEY, encode_position(after))
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
            full = is_full(error)
            refusal = translate(error) if full else self.poison(f"LMDB failed to commit: {error}")
            self._withdraw(at, record)
            raise refusal from error
        except BaseException:
            if self._read_applied() == applied:  # an interrupt may come after LMDB's commit: then that stands
                self._withdraw(at, record)
            raise

    def _withdraw(self, at: Position, record: bytes) -> None:
        """Make sure that a record whose commit failed can never be replayed; else poison."""
        try:
            self._segments.erase(at, len(record))
        except SyncFailed as error:
            raise self.poison(str(error)) from error

    def _read_applied(self) -> Position:
        with translated(), self._env.begin() as txn:
            return read_position(txn)

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
            try:
                self._lock_owner = thread
                self._lock()
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
                self._unlock()
                self._lock_owner = None

    def _lock(self) -> None:
        if self._poison_reason is not None:  # then there may be nothing to lock any more
            raise self.poison(self._poison_reason)
        try:
            self._files.lock(self._lock_fd)
        except OSError as error:
            raise KvError(f"cannot lock {self._directory / 'journal'}: {error.strerror}") from error

    def _unlock(self) -> None:
        """Never raises: what was committed stays so. A lock that is not given up falls with its descriptor."""
        if self._lock_fd < 0:
            return
        try:
            self._files.unlock(self._lock_fd)
        except OSError as error:
            self._poison_reason = self._poison_reason or f"the commit lock was not released: {error}"
            self._close_lock()

    # Poison

    def poison(self, reason: str) -> KvError:
        """Forbid every further commit, in all processes, until a restart has rebuilt LMDB. Returns what to raise.

        That is StorePoisoned; or StoreReadOnly, if the store was poisoned not long ago: then it is read-only from now
        on. The owner may call it too: for instance when CorruptValue shows that LMDB's file is damaged. Never raises:
        if the mark cannot be made, this process at least commits no more.
        """
        again = self._readonly_reason is not None or earlier_poison_path(self._directory).exists()
        read_only = self.make_read_only(reason) if again else None
        if self._poison_reason is None:
            self._poison_reason = reason
            try:
                set_poison(self._directory, reason, self._files)
            except OSError as error:
                self._poison_reason = f"{reason}; {self._poison_path} could not be made: {error}"
        if read_only is not None:
            return read_only  # marked as poisoned too: whoever recovers it later rebuilds
        return StorePoisoned(
            f"the metadata store is poisoned: {self._poison_reason}; restart all its processes"
        )

    def make_read_only(self, reason: str) -> StoreReadOnly:
        """Forbid every further commit, in all processes. Returns what to raise; never raises, as `poison`."""
        if self._readonly_reason is None:
            self._readonly_reason = reason
            with suppress(OSError):
                set_readonly(self._directory, reason)
        return StoreReadOnly(self._readonly_reason)

    def read_only_reason(self) -> str | None:
        """None: it is not read-only. One system call while it is not."""
        if self._readonly_reason is None and os.access(self._readonly_path, os.F_OK):
            with suppress(OSError):
                self._readonly_reason = readonly_reason(self._directory)
        return self._readonly_reason

    def _refuse_poisoned(self) -> None:
        if (read_only := self.read_only_reason()) is not None:
            raise StoreReadOnly(read_only)
        if self._poison_reason is None and os.access(self._poison_path, os.F_OK):
            self._poison_reason = poison_reason(self._directory) or "by another process"
        if self._poison_reason is not None:
            raise self.poison(self._poison_reason)

    def close(self) -> None:
        """Idempotent."""
        self._segments.close()
        self._close_lock()

    def _close_lock(self) -> None:
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
