"""When history is damaged: the newest state that is whole, and what lies behind it. Alone in the store; blocking.

There are two ways to a state: a good checkpoint with the journal behind it up to the first damage; and LMDB, if every
row of it is whole (it is a view, but one that was at some position). `assess` finds the end of both, and the last change
that the journal ever held as far as can be seen: what lies between is lost. It changes nothing. `salvage` makes the
better of the two the store's state: the journal goes on in a new segment after it, and the old one is moved aside,
whole, never cut. A crash in between leaves a store that does not open, for which the same call does the same again.

The caller writes a checkpoint next: until then LMDB is the only copy.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import lmdb

from index import checkpoint
from index.environment import (
    APPLIED_KEY,
    EnvironmentHeader,
    Tuning,
    crc_seeds,
    encode_position,
    open_environment,
    read_header,
    read_position,
    stored_tables,
    translated,
    write_engine_row,
)
from index.fileops import FileOps
from index.journal import ORIGIN, Position
from index.kv import CorruptJournal, KvError, UnsupportedFormat
from index.lmdb_view import check_rows
from index.poison import clear_poison
from index.recovery import DEFAULT_MAP_SIZE_BYTES, Recovery
from index.segments import JournalReader, find_record, list_segments, read_record, segment_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from index.checkpoint import Checkpoint
    from index.journal import Record

_TABLES: Final = 255  # LMDB must be told how many there may be


@dataclass(frozen=True, slots=True)
class Assessment:
    view: Position | None  # where LMDB is, if all of it is whole
    replay: Position | None  # where checkpoint and journal lead
    base: Checkpoint | None  # the checkpoint of `replay`; None: the journal from its beginning
    first_seen: (
        int  # lowest and highest sequence of any intact record, and their wall times; 0: there is none
    )
    first_seen_ms: int
    last_seen: int
    last_seen_ms: int

    @property
    def best(self) -> Position | None:
        return max(filter(None, (self.view, self.replay)), key=lambda at: at.sequence, default=None)

    @property
    def lost(self) -> range:
        """Sequences of the changes that cannot come back."""
        return range(self.best.sequence + 1 if self.best else 1, self.last_seen + 1)


def assess(directory: Path, *, store_id: bytes, files: FileOps | None = None) -> Assessment:
    """Look at everything; change nothing. Raises UnsupportedFormat, KvError (a disk that does not answer)."""
    files = files or FileOps()
    replay, base = _replayable(directory, store_id, files)
    first, last = (0, 0), (0, 0)
    for record in _intact_records(directory / "journal", store_id):
        seen = record.header.first_sequence, record.header.wall_ms
        first = min(first, seen) if first[0] else seen
        last = max(last, (record.last_sequence, record.header.wall_ms))
    return Assessment(_whole_view(directory, store_id), replay, base, *first, *last)


def salvage(
    directory: Path,
    found: Assessment,
    *,
    tables: Sequence[str],
    store_id: bytes,
    aside: Path,
    files: FileOps | None = None,
    tuning: Tuning | None = None,
) -> bytes:
    """Make `found.best` the state; the journal moves to `aside`/journal. Returns the generation, for LmdbKv.open."""
    files, tuning = files or FileOps(), tuning or Tuning()
    at = found.best
    if at is None:
        raise KvError(f"{directory}: there is no state to go back to")
    job = Recovery(directory, tables, store_id, DEFAULT_MAP_SIZE_BYTES, files, tuning)
    follows = Position(at.sequence, at.sequence + 1, 0, at.chain)
    header = EnvironmentHeader(store_id, secrets.token_bytes(16), DEFAULT_MAP_SIZE_BYTES, tuning.boot)
    if at is found.view:
        with translated(), job.open(directory / "meta") as env:
            _set_position(job, env, follows, header)
    else:
        folder = directory / "tmp" / f"kv-salvage-{secrets.token_hex(8)}"
        folder.mkdir(parents=True)
        if found.base is not None:
            checkpoint.restore(found.base, folder, files)
        with translated(), job.open(folder) as env:
            start = job.begin(env, found.base)
            if start != at:
                job.replay_to_damage(env, start)
            _set_position(job, env, follows, header)
        job.install(folder)
    _start_journal(directory, aside, follows, files)
    clear_poison(directory, files)
    return header.generation


def _set_position(job: Recovery, env: lmdb.Environment, at: Position, header: EnvironmentHeader) -> None:
    with env.begin(write=True) as txn:
        write_engine_row(txn, APPLIED_KEY, encode_position(at))
    job.finish(env, header)


def _start_journal(directory: Path, aside: Path, at: Position, files: FileOps) -> None:
    """Last: LMDB knows the new segment already, so a crash before this is found out, and done again."""
    journal = directory / "journal"
    aside.mkdir(mode=0o700, exist_ok=True)
    files.rename(journal, aside / "journal")
    journal.mkdir(mode=0o700)
    os.close(files.open(segment_path(journal, at.segment), os.O_RDWR | os.O_CREAT))
    for folder in (journal, aside, directory):
        files.sync_directory(folder)


# --- what is there ----------------------------------------------------------------------------------------------


def _whole_view(directory: Path, store_id: bytes) -> Position | None:
    """Where LMDB is, after every row of it was read."""
    if not (directory / "meta" / "data.mdb").exists():
        return None
    try:
        with (
            translated(),
            open_environment(
                directory / "meta",
                table_count=_TABLES,
                map_size_bytes=DEFAULT_MAP_SIZE_BYTES,
                tuning=Tuning(),
                readonly=True,
            ) as env,
        ):
            with env.begin() as txn:
                if read_header(txn).store_id != store_id:
                    return None
                position, names = read_position(txn), stored_tables(txn)
            handles = {name: env.open_db(name.encode("ascii"), create=False) for name in names}
            with env.begin() as txn:
                for name, handle in handles.items():
                    check_rows(txn, name, (handle, crc_seeds(name)))
            return position
    except UnsupportedFormat:
        raise
    except (KvError, lmdb.Error):
        return None


def _replayable(
    directory: Path, store_id: bytes, files: FileOps
) -> tuple[Position | None, Checkpoint | None]:
    """The furthest that a good checkpoint and the journal behind it lead."""
    best: tuple[Position | None, Checkpoint | None] = (None, None)
    if segment_path(directory / "journal", ORIGIN.segment).exists():
        best = (_end_of_chain(directory, store_id, ORIGIN, files), None)
    for sidecar in checkpoint.list_sidecars(directory):
        with suppress(checkpoint.CorruptCheckpoint):
            base = checkpoint.read_sidecar(sidecar)
            checkpoint.verify(base, files)
            end = _end_of_chain(directory, store_id, base.position, files)
            if base.store_id == store_id and (best[0] is None or end.sequence > best[0].sequence):
                best = (end, base)
    return best


def _end_of_chain(directory: Path, store_id: bytes, start: Position, files: FileOps) -> Position:
    try:
        reader = JournalReader(directory / "journal", store_id, start, files)
    except CorruptJournal:
        return start  # its segment is gone: the checkpoint alone
    try:
        for _ in reader:
            pass
        return reader.position
    finally:
        reader.close()


def _intact_records(journal: Path, store_id: bytes) -> Iterator[Record]:
    """Every whole record of every segment, also behind damage."""
    for first in list_segments(journal):
        with suppress(OSError), open(segment_path(journal, first), "rb") as file:
            at = 0
            while True:
                record = read_record(file.fileno(), at, store_id)
                if record is None:  # damage, or the end: look further, which reads far more
                    found = find_record(file.fileno(), at, store_id, 1)
                    if found is None:
                        break
                    at = found
                    continue
                yield record
                at += record.header.record_bytes
