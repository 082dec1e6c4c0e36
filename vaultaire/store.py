"""The store: one directory, opened. The only place that opens the environment, journal, packs and locks, and closes them.

Opening, by any process (DESIGN: other commands on a live directory open it like any process):

1. `store.lock` is tried exclusively. Who gets it is alone: it recovers (journal replay, rebuild of `meta/` if it is
   gone or poisoned), seals the packs of dead writers, empties `tmp/`, then turns the lock into a shared one.
   Everybody else waits for a shared lock and finds a recovered store.
2. A writer number is allocated (never reused), the run file is made, then the chunk store is put together.

The directory: `store.json` (identity), `secret.key` (and `.old`, after it was replaced), `store.lock`, `meta/`, `journal/`, `checkpoint/`, `packs/`,
`run/`, `tmp/`; `restore-unfinished` while a restore runs, and `lost-<n>/` and `store.json.damaged` where a rebuild put
aside what it could not use. Nothing else is written there.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, Self

from cas.catalog import TABLES as CAS_TABLES
from cas.catalog import PackState, iterate_packs, read_epoch
from cas.chunk import Identity
from cas.errors import UnsupportedFormat
from cas.packs import LocalPacks, writer_of
from cas.store import ChunkStore
from index.lmdb_kv import LmdbKv, NotRecovered, recover
from index.tables import TABLES as INDEX_TABLES
from vaultaire.errors import NotAStore, StoreError
from vaultaire.runfile import RunFile, dead_writers, known_writers
from vaultaire.threads import frame_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from index.kv import Transaction

Kind = Literal["worker", "maintenance", "command"]

log = logging.getLogger("vaultaire.store")

SERVER_TABLES = ("srv.keys", "srv.settings", "srv.reports")
TABLES = (*CAS_TABLES, *INDEX_TABLES, *SERVER_TABLES)
FOLDERS = ("journal", "checkpoint", "packs", "run", "tmp")
OPEN_ATTEMPTS = 10  # each is lost to another process that opened the store at the same moment
# A half-made store, a key put there beforehand, and what mkfs leaves in the root of a new disk.
NOT_STRANGE = {"store.json.new", "secret.key", "lost+found"}
NEXT_WRITER = b"next_writer"  # row in srv.settings: u32, little-endian


class Store:
    """An open store. Its parts are public: `kv`, `chunks`, `run_file`, `identity`, `writer`."""

    def __init__(
        self, directory: Path, lock_fd: int, identity: Identity, kv: LmdbKv, writer: int, kind: Kind
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.kv = kv
        self.writer = writer
        self._lock_fd = lock_fd
        self.run_file = RunFile(directory / "run", kind, writer, self._read_epoch)
        self._frame_threads = frame_threads()
        self.packs = LocalPacks(directory / "packs")
        self.chunks = ChunkStore(
            kv, self.packs, identity, writer, self.run_file, parallel_map=self._frame_threads.map
        )

    @classmethod
    def open(cls, directory: Path, *, kind: Kind, create: bool = False) -> Store:
        """Open (or, with `create`, make) the store in `directory`. Blocking: recovery may take a while.

        Raises NotAStore, StoreError; KvError and CasError for a damaged store.
        """
        if not (directory / "store.json").exists():
            if not create:
                raise NotAStore(directory)
            create_store(directory)
        identity = read_identity(directory)
        for name in FOLDERS:
            (directory / name).mkdir(exist_ok=True)
        for attempt in range(OPEN_ATTEMPTS):
            lock_fd = os.open(directory / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                kv, alone = _open_engine(directory, identity, lock_fd)
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
        store = cls(directory, lock_fd, identity, kv, kv.commit(_allocate_writer), kind)
        if alone:
            store.name_lost_writers()
        store.adopt_dead_writers()
        return store

    def name_lost_writers(self) -> None:
        """Give a run file to dead writers that have open packs and none: their files were not restored, or removed.

        The rows are read before the files: a process makes its run file before its first pack, and removes it after
        its last one is sealed. So no living process can look lost.
        """
        with self.kv.snapshot() as reader:
            rows = [(writer_of(pack), row) for pack, row in iterate_packs(reader)]
        writers = {writer for writer, row in rows if row.state == PackState.OPEN and not row.damaged}
        for writer in writers - known_writers(self.directory / "run"):
            with suppress(
                OSError
            ):  # a full disk: the packs can be read as they are, and the next start tries again
                (self.directory / "run" / f"lost-{writer:08x}").touch(mode=0o600)

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

    def close(self) -> None:
        """Seal the open packs and let go of everything. Blocking; idempotent.

        A pack that cannot be sealed now (a full disk, a poisoned store) is left to whoever adopts this writer.
        """
        if self._lock_fd < 0:
            return
        in_order = False
        try:
            self.chunks.close()
            in_order = not self._has_open_packs()
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{directory / 'store.json'} cannot be read ({error}); restore it from a backup, or have it made "
            "from the packs: vaultaire rebuild --identity-from-packs"
        ) from error


def sync_directory(directory: Path) -> None:
    """Make the entries of `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_engine(directory: Path, identity: Identity, lock_fd: int) -> tuple[LmdbKv, bool]:
    """Under `store.lock`, held shared on return; were we alone? Raises NotRecovered if somebody else is to recover."""
    generation = None
    alone = _lock(lock_fd, directory)
    if alone:
        _empty(directory / "tmp")
        # Only a store without packs may begin with empty metadata: otherwise it was lost, not new.
        is_new = not any((directory / "packs").iterdir())
        report = recover(directory, tables=TABLES, store_id=identity.store_id, create=is_new)
        if report.action == "rebuilt":
            log.warning("rebuilt the metadata from checkpoint and journal: %s", report.reason)
        generation = report.generation
        _record_pid_namespace(lock_fd)
        fcntl.flock(lock_fd, fcntl.LOCK_SH)
    tag = secrets.token_bytes(16)
    kv = LmdbKv.open(
        directory, tables=TABLES, store_id=identity.store_id, writer_tag=tag, generation=generation
    )
    return kv, alone


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
    os.ftruncate(fd, 0)
    os.pwrite(fd, _pid_namespace(), 0)


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
