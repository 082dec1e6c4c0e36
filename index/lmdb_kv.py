"""The embedded engine of the ordered map: LMDB for reading, a journal for durability.

Guarantees beyond the contract in `index.kv`: safe among processes that share the directory; what is acknowledged
survives `kill -9` at any instruction and a power cut at any write; LMDB may be deleted and comes back from the last
checkpoint and the journal. Formats, opening and recovery: index/SCHEMA.md.

Reading is LMDB (`index.lmdb_view`); a durable step is `index.committer`; this module opens, groups and measures.

A write transaction begins and ends in one call, hence in one thread: py-lmdb does not check, and the next writer
would hang. Processes are spawned, never forked with an engine open. An engine is closed by its owner, after all calls.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import lmdb

from index import checkpoint
from index.committer import Committer
from index.environment import (
    EnvironmentHeader,
    NotRecovered,
    Table,
    Tuning,
    ViewDamaged,
    open_environment,
    open_tables,
    read_header,
    read_position,
    translate,
    translated,
)
from index.fileops import FileOps
from index.journal import ORIGIN
from index.kv import CorruptValue, KvError, MapFull, Outcome, StorePoisoned, StoreReadOnly
from index.lmdb_view import Snapshot
from index.poison import poison_path, poison_reason
from index.recovery import DEFAULT_MAP_SIZE_BYTES, RecoveryReport, recover
from index.segments import list_segments, segment_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from index.checkpoint import Checkpoint
    from index.kv import Transaction

__all__ = ["EngineStatistics", "LmdbKv", "NotRecovered", "RecoveryReport", "Tuning", "ViewDamaged", "recover"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    sequence: int  # newest commit
    used_bytes: int  # LMDB pages in use by rows
    file_bytes: int  # length of LMDB's file; pages once used are kept for reuse
    map_bytes: int  # how long it may become
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
        committer: Committer,
        clock: Callable[[], float],
        files: FileOps,
        tuning: Tuning,
        make_room: Callable[[], bool],
    ) -> None:
        """Takes `env` and `committer` over; made by `open`."""
        self._directory = directory
        self._env = env
        self._tables = tables
        self._header = header
        self._committer = committer
        self._clock = clock
        self._files = files
        self._tuning = tuning
        self._make_room = make_room

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
        make_room: Callable[[], bool] = lambda: False,
        read_only: str | None = None,
    ) -> LmdbKv:
        """Open a recovered store, while the caller holds `store.lock` shared. Never rebuilds anything.

        `tables` names every table there will be; `writer_tag` (16 bytes) goes into the journal records of this
        engine; `segment_bytes` must be the same in all processes of a store; `generation` is the one that a
        `RecoveryReport` named, if the caller has one. The map size recorded by recovery wins over `map_size_bytes`.
        With `read_only` (the reason) nothing can be committed, and a poisoned store is opened as it is: all that was
        acknowledged since this machine started is in it. `make_room` is asked when a commit finds no room: True if
        another attempt is worth it. It must say False in the end.
        Raises NotRecovered, StorePoisoned, UnsupportedFormat, KvError.
        """
        if len(writer_tag) != 16 or len(store_id) != 16:
            raise ValueError("store id and writer tag have 16 bytes")
        files, tuning = files or FileOps(), tuning or Tuning()
        if read_only is None:
            _refuse_poisoned(directory)
        env = _open_recovered(directory / "meta", len(tables), map_size_bytes, tuning)
        try:
            header = _check_identity(env, directory, store_id, generation, tuning)
            if header.map_size_bytes != map_size_bytes:
                env.set_mapsize(header.map_size_bytes)
            handles = open_tables(env, tables)
            env.reader_check()
            committer = Committer(
                directory,
                env,
                handles,
                store_id=store_id,
                writer_tag=writer_tag,
                segment_bytes=segment_bytes,
                clock=clock,
                files=files,
                tuning=tuning,
                read_only=read_only,
            )
            return cls(directory, env, handles, header, committer, clock, files, tuning, make_room)
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
                outcomes += self._committer.step(step)
            except MapFull as error:
                if self._make_room():
                    continue
                # One by one from here on: what fits still succeeds, and deletes make room.
                width = 1
                if len(step) == 1:
                    outcomes.append(Outcome(None, error, 0))
            except KvError as error:
                if all(outcome.error is not None for outcome in outcomes):
                    raise
                outcomes += [Outcome(None, error, 0)] * (len(fns) - len(outcomes))
        return outcomes

    def poison(self, reason: str) -> KvError:
        """Forbid every further commit, in all processes, until a restart has rebuilt LMDB. Returns what to raise.

        For an owner who sees that LMDB's file is damaged (CorruptValue, ViewDamaged). Never raises. StoreReadOnly
        instead of StorePoisoned if the last time was not long ago: a restart would not help.
        """
        return self._committer.poison(reason)

    def make_read_only(self, reason: str) -> StoreReadOnly:
        """Forbid every further commit, in all processes; reading goes on. Returns what to raise. Never raises."""
        return self._committer.make_read_only(reason)

    def read_only_reason(self) -> str | None:
        """Why nothing can be committed any more; None: it can. Cheap; any thread."""
        return self._committer.read_only_reason()

    # Checkpoints

    def checkpoint_due(self) -> bool:
        """Has the journal outgrown the last checkpoint? Cheap: lists two directories."""
        with self.snapshot() as reader:
            sequence = reader.sequence
        newest = checkpoint.newest(self._directory)
        since = newest.position.segment if newest is not None else 0
        journal = self._directory / "journal"
        if newest is None and not segment_path(journal, ORIGIN.segment).exists():
            return True  # all checkpoints are lost, and the journal was cut: LMDB is the only copy now
        grown = sum(
            _bytes(segment_path(journal, first)) for first in list_segments(journal) if first >= since
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
        self._committer.begin_segment()
        made = checkpoint.make(
            self._env, self._directory, store_id=self._header.store_id, clock=self._clock, files=self._files
        )
        try:
            self._files.sync_environment(self._env)  # LMDB must not fall behind the journal that stays
        except lmdb.Error as error:
            raise self.poison(f"sync of LMDB failed: {error}") from error
        checkpoint.prune(self._directory, self._files, verified=made)
        return made

    def statistics(self) -> EngineStatistics:
        with translated(), self._env.begin() as txn:
            stats = [txn.stat(), *(txn.stat(handle) for handle, _ in self._tables.values())]
            sequence = read_position(txn).sequence
        pages = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
        return EngineStatistics(
            sequence=sequence,
            used_bytes=pages * stats[0]["psize"],
            file_bytes=(self._directory / "meta" / "data.mdb").stat().st_size,
            map_bytes=self._env.info()["map_size"],
            journal_bytes=_folder_bytes(self._directory / "journal"),
            checkpoint_bytes=_folder_bytes(self._directory / "checkpoint"),
        )

    def close(self) -> None:
        """Let go of everything; idempotent. No snapshot may be in use."""
        self._env.close()
        self._committer.close()


def _refuse_poisoned(directory: Path) -> None:
    reason = poison_reason(directory)
    if reason is not None:
        raise StorePoisoned(f"{poison_path(directory)} exists ({reason}); stop all processes of this store")


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
            header = read_header(txn)
        segment = _missing_segment(env, directory / "journal")
    except ViewDamaged as error:
        raise NotRecovered(f"{directory / 'meta'}: {error}") from error
    if header.store_id != store_id:
        raise KvError(f"{directory / 'meta'} belongs to another store")
    if generation is not None and header.generation != generation:
        raise NotRecovered(f"{directory / 'meta'} was rebuilt meanwhile")
    if header.boot != tuning.boot:
        raise NotRecovered(f"{directory / 'meta'} was not recovered since this machine started")
    if segment is not None:
        raise NotRecovered(f"journal segment {segment} is missing")
    return header


def _missing_segment(env: lmdb.Environment, journal: Path) -> Path | None:
    """The segment that LMDB says is written now, if it is not there. A sibling may rotate and cut meanwhile."""
    segment = None
    for _ in range(3):
        with translated(), env.begin() as txn:
            segment = segment_path(journal, read_position(txn).segment)
        if segment.exists():
            return None
    return segment


def _folder_bytes(folder: Path) -> int:
    return sum(_bytes(path) for path in folder.iterdir())


def _bytes(path: Path) -> int:
    """Files may go meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
