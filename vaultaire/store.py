"""The store: one directory, opened. The only place that opens the environment, journal, packs and locks, and closes them.

Opening, by any process (DESIGN: other commands on a live directory open it like any process):

1. `store.lock` is tried exclusively. Who gets it is alone: it recovers (journal replay, rebuild of `meta/` if it is
   gone or poisoned), seals the packs of dead writers, empties `tmp/`, then turns the lock into a shared one.
   Everybody else waits for a shared lock and finds a recovered store.
   If it cannot be recovered for lack of room, or because the disk takes no writes, the store is marked as read-only and
   opened as it is: all that was acknowledged since this machine started is in `meta/`.
2. A writer number is allocated (never reused), the run file is made, then the chunk store is put together.

The directory: `store.json` (identity), `secret.key` (and `.old`, after it was replaced), `store.lock`, `reserve` (see
`vaultaire.space`), `meta/`, `journal/`, `checkpoint/`, `packs/`, `run/`, `tmp/`. Nothing else is written there, but
`restore-unfinished` while a restore runs, and `lost-<n>/` and `store.json.damaged` where a rebuild put aside what it
could not use.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, Self

from cas.appender import NO_WRITER
from cas.catalog import TABLES as CAS_TABLES
from cas.catalog import PackState, iterate_packs, read_epoch
from cas.chunk import Identity
from cas.errors import NoSpace, UnsupportedFormat
from cas.packs import LocalPacks, sync_directory, writer_of
from cas.sidecars import LocalSidecars
from cas.store import ChunkStore
from index.fileops import NO_ROOM
from index.kv import CorruptJournal, KvError, MapFull
from index.kv import UnsupportedFormat as UnsupportedMetadata
from index.lmdb_kv import LmdbKv, NotRecovered, RecoveryReport, recover
from index.poison import forget_poison
from index.readonly import FULL, clear_readonly, readonly_reason, set_readonly
from index.tables import TABLES as INDEX_TABLES
from vaultaire.errors import NotAStore, StoreError
from vaultaire.metrics.slots import forget_slots
from vaultaire.rates import FILE as RATES_FILE
from vaultaire.runfile import RunFile, RunFiles, UnpublishedRunFile, dead_writers
from vaultaire.space import Space
from vaultaire.threads import FrameThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from index.kv import Transaction

Kind = Literal["worker", "maintenance", "command"]

log = logging.getLogger("vaultaire.store")

SERVER_TABLES = (
    "srv.keys",
    "srv.settings",
    "srv.reports",
    "srv.used",
    "srv.limits",
    "srv.writes",
    "srv.history",
)
TABLES = (*CAS_TABLES, *INDEX_TABLES, *SERVER_TABLES)
FOLDERS = ("journal", "checkpoint", "packs", "run", "tmp")
OPENING_BYTES = 1 << 20  # what opening a sound store may write: a run file, some rows
RECOVERY_BYTES = 8 << 20  # what rebuilding the metadata needs besides their own size
OPEN_ATTEMPTS = 10  # each is lost to another process that opened the store at the same moment
# A half-made store, a key put there beforehand, and what mkfs leaves in the root of a new disk.
NOT_STRANGE = {"store.json.new", "secret.key", "lost+found"}
NEXT_WRITER = b"next_writer"  # row in srv.settings: u32, little-endian


class Store:
    """An open store. Its parts are public: `kv`, `chunks`, `run_file`, `identity`, `writer`, `space`."""

    def __init__(
        self,
        directory: Path,
        lock_fd: int,
        identity: Identity,
        kv: LmdbKv,
        writer: int,
        kind: Kind,
        space: Space,
    ) -> None:
        self.directory = directory
        self.space = space
        self.identity = identity
        self.kv = kv
        self.writer = writer
        self._lock_fd = lock_fd
        self.before_close: list[Callable[[], None]] = []  # of parts that hold snapshots
        self.run_file = (
            RunFile(directory / "run", kind, writer, self._read_epoch)
            if writer != NO_WRITER
            else UnpublishedRunFile()
        )
        self._frame_threads = FrameThreads()
        # What others than workers write to packs makes room in the end: collection copies the rest of sparse packs. (Small
        # objects that are archived do not: they are moved only while there is room to spare.)
        make_room = (lambda: False) if kind == "worker" else space.make_room
        self.packs = LocalPacks(directory / "packs", keep_free_bytes=space.policy.floor, make_room=make_room)
        self.sidecars = LocalSidecars(directory / "packs")
        self.chunks = ChunkStore(
            kv,
            self.packs,
            identity,
            writer,
            self.run_file,
            sidecars=self.sidecars,
            parallel_map=self._frame_threads.map,
        )

    @classmethod
    def open(cls, directory: Path, *, kind: Kind, create: bool = False, by_operator: bool = False) -> Store:
        """Open (or, with `create`, make) the store in `directory`. Blocking: recovery may take a while.

        `by_operator`: a person starts the server now. Only that ends a read-only state caused by failing syncs.
        Raises NotAStore, StoreError; KvError and CasError for a damaged store.
        """
        if not (directory / "store.json").exists():
            if not create:
                raise NotAStore(directory)
            create_store(directory)
        identity = read_identity(directory)
        space = Space(directory)
        space.ensure(OPENING_BYTES)
        for name in FOLDERS:
            (directory / name).mkdir(exist_ok=True)
        alone = False
        for attempt in range(OPEN_ATTEMPTS):
            lock_fd = os.open(directory / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                kv, alone = _open_engine(directory, identity, lock_fd, space, by_operator=by_operator)
            except NotRecovered:
                # Turning an exclusive lock into a shared one lets others in between: somebody recovered anew.
                os.close(lock_fd)
                if attempt == OPEN_ATTEMPTS - 1:
                    raise
            except BaseException:
                os.close(lock_fd)
                raise
            else:
                break
        if kv.read_only_reason() is None:
            try:
                store = cls(directory, lock_fd, identity, kv, kv.commit(_allocate_writer), kind, space)
            except (MapFull, OSError) as error:
                if isinstance(error, OSError) and error.errno not in NO_ROOM:
                    raise
                # Not a byte for this process's own rows and run file, with the reserve used up: it can serve what is
                # there, unknown to collection, hence only while nobody collects.
                log.critical("%s", kv.make_read_only(f"{FULL}{error}"))
            else:
                if alone:
                    store.name_lost_writers()
                with suppress(MapFull, NoSpace):  # they are left to maintenance
                    store.adopt_dead_writers()
                space.restore()
                return store
        return cls(directory, lock_fd, identity, kv, NO_WRITER, kind, space)

    def name_lost_writers(self) -> None:
        """Give a run file to dead writers that left open packs and have none: a power cut took it, or no backup held it.

        Their packs are then put in order like those of others. Files without a row make nobody a lost writer: it may be
        the rows that are lost, and adoption would remove the files. Rows are read before the run files: a process makes
        its run file before its first pack, and removes it after its last one is sealed. So no living process can look
        lost.
        """
        with self.kv.snapshot() as reader:
            left = {
                writer_of(pack)
                for pack, row in iterate_packs(reader)
                if row.state == PackState.OPEN and not row.damaged
            }
        run = self.directory / "run"
        for writer in sorted(left - RunFiles(run).writers()):
            # A full disk: packs can be read as they are, and the next start tries again.
            with suppress(OSError):
                (run / f"lost-{writer:08x}").touch(mode=0o600)

    def adopt_dead_writers(self) -> list[int]:
        """Seal the open packs of processes that are gone; safe at any time. Blocking. Returns their numbers."""
        adopted = []
        for writer, path in dead_writers(self.directory / "run"):
            adoption = self.chunks.adopt(writer)
            for damage in adoption.damaged:
                log.error("a pack of a process that is gone is damaged, and kept as it is: %s", damage)
            path.unlink(missing_ok=True)
            adopted.append(writer)
        return adopted

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Everything that reads or writes chunks runs inside one of these: see `vaultaire.runfile`."""
        token = self.run_file.begin()
        try:
            yield
        finally:
            self.run_file.end(token)

    def has_room_to_recover(self) -> bool:
        """Whether the metadata would fit twice, as a rebuild needs. Raises OSError."""
        metadata = (self.directory / "meta" / "data.mdb").stat().st_size
        return self.space.probe().free >= metadata + RECOVERY_BYTES

    def close(self) -> None:
        """Seal the open packs and let go of everything. Blocking; idempotent.

        A pack that cannot be sealed now (a full disk, a poisoned store) is left to whoever adopts this writer.
        """
        if self._lock_fd < 0:
            return
        in_order = False
        try:
            for close in self.before_close:
                close()
            self.chunks.close()
            in_order = self.chunks.is_tidy and not self._has_open_packs()
        finally:
            self._frame_threads.shutdown()
            self.kv.close()
            self.run_file.close(remove=in_order)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _has_open_packs(self) -> bool:
        with self.kv.snapshot() as reader:
            return any(row.state == PackState.OPEN for _, row in iterate_packs(reader, self.writer))

    def _read_epoch(self) -> int:
        with self.kv.snapshot() as reader:
            return read_epoch(reader)


def create_store(directory: Path) -> None:
    """Write a new identity into `directory` (made if missing). Durable on return. Raises StoreError.

    Refuses a directory that holds anything else: a mistyped path must not be filled with a store.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        strangers = sorted({p.name for p in directory.iterdir()} - NOT_STRANGE)
    except OSError as error:
        raise StoreError(f"cannot create a store in {directory}: {error.strerror}") from error
    if {"packs", "journal"} & set(strangers):
        raise NotAStore(directory)
    if strangers:
        raise StoreError(
            f"{directory} is not empty and not a Vaultaire store (it holds {strangers[0]!r}); "
            "name an empty or a new directory with --data"
        )
    temporary = directory / "store.json.new"
    with open(temporary, "w") as file:
        json.dump(Identity.create().to_json(), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, directory / "store.json")
    sync_directory(directory)
    sync_directory(directory.parent)


def read_identity(directory: Path) -> Identity:
    """Raises StoreError if `store.json` is damaged or of a version this program does not know."""
    try:
        return Identity.from_json(json.loads((directory / "store.json").read_text()))
    except UnsupportedFormat as error:
        raise StoreError(
            f"{directory}: {error}; use the version of Vaultaire that made it, or a newer one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{directory / 'store.json'} cannot be read ({error}); restore it from a backup, or have it made "
            "from the packs: vaultaire rebuild --identity-from-packs"
        ) from error


def _open_engine(
    directory: Path, identity: Identity, lock_fd: int, space: Space, *, by_operator: bool
) -> tuple[LmdbKv, bool]:
    """Under `store.lock`, held shared on return; were we alone? Raises NotRecovered if somebody else is to recover."""
    generation = None
    alone = _lock(lock_fd, directory)
    read_only = readonly_reason(directory)
    if alone:
        if read_only is None or by_operator or read_only.startswith(FULL):
            generation, read_only = _recover_or_mark(directory, identity, space, forgive=by_operator)
        _record_pid_namespace(lock_fd)
        fcntl.flock(lock_fd, fcntl.LOCK_SH)
    if read_only is not None:
        log.critical("the store is read-only: %s", read_only)
    tag = secrets.token_bytes(16)
    kv = LmdbKv.open(
        directory,
        tables=TABLES,
        store_id=identity.store_id,
        writer_tag=tag,
        generation=generation,
        make_room=space.make_room,
        read_only=read_only,
    )
    return kv, alone


def _recover_or_mark(
    directory: Path, identity: Identity, space: Space, *, forgive: bool
) -> tuple[bytes | None, str | None]:
    """Recover the store, alone in it: (generation of the metadata, None), or (None, why it is now read-only).

    `forgive`: earlier failures of syncs count no more.
    """
    _empty(directory / "tmp")
    (directory / "run" / RATES_FILE).unlink(missing_ok=True)  # another boot's clock
    forget_slots(directory / "run")
    # Only a store without packs may begin with empty metadata: otherwise it was lost, not new.
    is_new = not any((directory / "packs").iterdir())
    try:
        report = _recover(directory, identity, space, create=is_new)
    except (CorruptJournal, NotRecovered, UnsupportedMetadata):
        raise  # what there is may be wrong: nothing is served from it
    except KvError as error:
        reason = f"{FULL if isinstance(error, MapFull) else ''}the metadata cannot be recovered: {error}"
        with suppress(OSError):
            clear_readonly(directory)
            set_readonly(directory, reason)
        return None, reason
    if report.action == "rebuilt":
        log.warning("rebuilt the metadata from checkpoint and journal: %s", report.reason)
    clear_readonly(directory)
    if forgive:
        forget_poison(directory)
    return report.generation, None


def _recover(directory: Path, identity: Identity, space: Space, *, create: bool) -> RecoveryReport:
    """Once more with all of the reserve, if there was no room. Raises as `recover`."""
    try:
        return recover(directory, tables=TABLES, store_id=identity.store_id, create=create)
    except MapFull:
        space.ensure(space.policy.reserve)
        return recover(directory, tables=TABLES, store_id=identity.store_id, create=create)


def _allocate_writer(txn: Transaction) -> int:
    row = txn.get("srv.settings", NEXT_WRITER)
    writer = int.from_bytes(row, "little") if row else 1
    txn.put("srv.settings", NEXT_WRITER, (writer + 1).to_bytes(4, "little"))
    return writer


def _lock(fd: int, directory: Path) -> bool:
    """True: held exclusively. False: held shared, by way of somebody who has recovered the store."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(fd, fcntl.LOCK_SH)
        _check_pid_namespace(fd, directory)
        return False
    return True


# LMDB tells its processes apart by their numbers, so two PID namespaces (two containers) must not share a store.


def _pid_namespace() -> bytes:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid").encode()
    return b""


def _record_pid_namespace(fd: int) -> None:
    # Written in place, if at all: on a full disk there may be no block for a file that was emptied first.
    if os.pread(fd, 256, 0) != _pid_namespace():
        os.pwrite(fd, _pid_namespace(), 0)
        os.ftruncate(fd, len(_pid_namespace()))


def _check_pid_namespace(fd: int, directory: Path) -> None:
    recorded = os.pread(fd, 256, 0)
    if recorded and recorded != _pid_namespace():
        raise StoreError(
            f"{directory} is in use by a process of another container or PID namespace; run this command in the "
            "same one (for example with: docker exec)"
        )


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            _empty(path)
            path.rmdir()
        else:
            path.unlink()
