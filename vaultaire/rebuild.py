"""`vaultaire rebuild`: a data directory put in order from what is the truth in it. Alone in the store; blocking.

In this order, each step safe to repeat after a crash:

1. `store.json`, if it is gone or damaged and the caller says so: from the packs (`vaultaire.identity`).
2. `meta/`: anew from checkpoint and journal. Where those do not suffice, the newest state that is whole: LMDB, if every
   row of it is (often it is ahead of the damage: then nothing is lost), or checkpoint and journal up to the damage. If
   changes behind it are lost, that needs `accept_loss`, and the error says which. The journal that was there is moved
   to `lost-<n>/`, and a checkpoint of the new state is written.
3. Packs against their rows: a lost footer is written anew, what is missing or damaged is named (`cas.rebuilding`); and
   then the buckets, keys and versions that need it (`vaultaire.verify`, which reads all packs).

**Names lost** (no good checkpoint, no LMDB, and a journal that does not reach back to the beginning): buckets, keys and
versions are in no other place, so they can only come from a backup. What is left of the journal is not enough: most
rows of a store are older, and half the rows would be a store that lies. With `forget_names` the chunks are kept: what
is left of the metadata moves to `lost-<n>/`, and an empty store gets the catalog of all packs, so that what is uploaded
again costs no space. Names that are not lost are never forgotten.

Whatever is not asked for is not done: then an error says what is left, and nothing was changed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cas.packs import LocalPacks, sync_directory, writer_of
from cas.rebuilding import add_lost_packs, survey
from index.kv import CorruptJournal
from index.lmdb_kv import LmdbKv, NotRecovered, recover
from index.recovery import rebuild as rebuild_metadata
from index.salvage import assess, salvage
from vaultaire.access import SETTINGS_TABLE
from vaultaire.errors import UNFINISHED_RESTORE, NotAStore, StoreError
from vaultaire.identity import IDENTITY_FILE, identity_from_packs, write_identity
from vaultaire.store import FOLDERS, NEXT_WRITER, TABLES, Store, read_identity
from vaultaire.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cas.chunk import Identity
    from index.kv import KvError, Transaction
    from index.salvage import Assessment

_UNFINISHED: Final = b"catalog-from-packs"  # row of srv.settings, empty, while the catalog is made from packs

# run/ too: adoption would take packs without rows for garbage of the dead processes named there.
_METADATA: Final = ("meta", "journal", "checkpoint", "run")


class NamesLost(StoreError):
    """Neither checkpoint and journal nor LMDB lead to the names: see the module. Nothing was changed."""

    def __init__(self, directory: Path, found: Assessment, why: Exception) -> None:
        packs = sum(1 for _ in LocalPacks(directory / "packs").packs())
        history = (
            f"of the journal the changes {found.first_seen} to {found.last_seen} are left (since {_time(found.first_seen_ms)}); "
            f"changes 1 to {found.first_seen - 1}, with every bucket, object, version, upload and access key that was last "
            "changed by one of them, are lost"
            if found.last_seen
            else "no intact record of the journal is left"
        )
        super().__init__(
            f"{why}. So the names of the objects cannot be rebuilt here: {history}. The bytes are not lost: {packs} packs "
            "are there, but they name only chunks. Nothing was changed. Put back the missing files of checkpoint/ and "
            "journal/, or restore a backup with: vaultaire restore. To give the names up and keep the chunks, so that what "
            f"is uploaded again costs no space: vaultaire rebuild --forget-names --data {directory}"
        )


class ChangesLost(StoreError):
    """The newest state that is whole is older than the last change. Nothing was changed."""

    def __init__(self, directory: Path, found: Assessment, why: Exception) -> None:
        super().__init__(
            f"{why}. The newest state that is whole is that after change {found.lost.start - 1}; changes "
            f"{found.lost.start} to {found.lost.stop - 1} (the last of {_time(found.last_seen_ms)}) are lost: the objects "
            "that they put, overwrote or deleted are as they were before. Nothing was changed. Put back the damaged files "
            "of journal/, restore a newer backup with `vaultaire restore`, or go on without these changes: "
            f"vaultaire rebuild --accept-loss --data {directory}"
        )
        self.lost = found.lost


@dataclass(slots=True)
class RebuildReport:
    """What was done. Packs are named by their files."""

    directory: str
    identity: str = "intact"  # or "from packs"
    metadata: str = "rebuilt"  # or "kept" (LMDB was ahead of the damage), "cut" (back to before it), "empty"
    sequence: int = 0
    lost_changes: list[int] = field(default_factory=list)  # [first, last] sequence, if any are lost
    checkpoint_sequence: int | None = None  # the rebuild began from; None: the journal alone
    replayed: int = 0
    cut_bytes: int = 0  # of a torn tail, which nobody was told about
    damaged_checkpoints: list[str] = field(default_factory=list)
    packs: int = 0
    mended: dict[str, str] = field(default_factory=dict)  # pack file -> what was mended
    damaged: dict[str, str] = field(default_factory=dict)  # pack file -> what cannot be mended from it
    unreadable: list[str] = field(default_factory=list)  # bucket/key, version: what needs those packs
    added_packs: int = 0  # whose rows were made from their frames
    added_chunks: int = 0
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False


def rebuild_store(
    directory: Path,
    *,
    identity_from: bool = False,
    accept_loss: bool = False,
    forget_names: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> RebuildReport:
    """See the module. `identity_from`: make a lost `store.json` from the packs. `on_progress`: as of `verify`.

    Raises NotAStore, StoreError (in use; ChangesLost, NamesLost), KvError, CasError, OSError.
    """
    report = RebuildReport(str(directory))
    on_progress("metadata", 0, 0)
    with _alone(directory):
        identity = _find_identity(directory, report, allowed=identity_from)
        for name in FOLDERS:
            (directory / name).mkdir(exist_ok=True)
        try:
            kv = _rebuild_metadata(directory, identity, report, accept_loss=accept_loss)
        except NamesLost:
            if not forget_names:
                raise
            kv = _forget_names(directory, identity, report)
        packs = LocalPacks(directory / "packs")
        try:
            if _is_unfinished(kv):
                _catalog_from_packs(kv, packs, report)
            on_progress("pack footers", 0, 0)
            _survey(kv, packs, report)
        finally:
            packs.close()
            kv.close()
    if report.damaged:
        _name_unreadable(directory, report, on_progress)
    return report


def plan_rebuild(
    directory: Path, *, identity_from: bool = False, accept_loss: bool = False, forget_names: bool = False
) -> RebuildReport:
    """What `rebuild_store` would make of the metadata. Changes nothing; packs are counted, not looked into.

    All of the metadata is read. Raises as `rebuild_store` would (ChangesLost, NamesLost, ...).
    """
    report = RebuildReport(str(directory), dry_run=True)
    with _alone(directory):
        identity = _find_identity(directory, report, allowed=identity_from, write=False)
        found = assess(directory, store_id=identity.store_id)
    report.packs = sum(1 for _ in LocalPacks(directory / "packs").packs())
    why = StoreError("checkpoint and journal do not lead to the last change")
    if found.best is None:
        if not forget_names:
            raise NamesLost(directory, found, why)
        report.metadata = "empty"
        return report
    if found.lost and not accept_loss:
        raise ChangesLost(directory, found, why)
    report.sequence = found.best.sequence
    if found.replay is not None and found.replay.sequence >= max(found.last_seen, found.best.sequence):
        report.metadata = "rebuilt"
    else:
        report.metadata = "kept" if found.best is found.view else "cut"
    if found.lost:
        report.lost_changes = [found.lost.start, found.lost.stop - 1]
    return report


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    if not directory.is_dir():
        raise NotAStore(directory)
    fd = os.open(directory / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{directory} is in use; stop the server (and other commands on it) first"
            ) from error
        yield
    finally:
        os.close(fd)


# --- identity ---------------------------------------------------------------------------------------------------


def _find_identity(directory: Path, report: RebuildReport, *, allowed: bool, write: bool = True) -> Identity:
    if not any((directory / name).exists() for name in (IDENTITY_FILE, "packs", "journal")):
        raise NotAStore(directory)
    if (directory / UNFINISHED_RESTORE).exists():
        raise NotAStore(directory)  # packs are missing: an identity would make it look whole
    try:
        if (directory / IDENTITY_FILE).exists():
            return read_identity(directory)
    except StoreError:
        if not allowed:
            raise
    if not allowed:
        raise NotAStore(directory)
    identity = identity_from_packs(directory)
    if write:
        write_identity(directory, identity)
    report.identity = "from packs"
    report.warnings.append(
        f"{IDENTITY_FILE} was made from the packs, with the default cut rules {identity.cut_rules}: if the store was made with "
        "others, all data is still readable, but new uploads find less of the old ones"
    )
    return identity


# --- metadata ---------------------------------------------------------------------------------------------------


def _rebuild_metadata(
    directory: Path, identity: Identity, report: RebuildReport, *, accept_loss: bool
) -> LmdbKv:
    try:
        done = rebuild_metadata(
            directory, tables=TABLES, store_id=identity.store_id, reason="`vaultaire rebuild`"
        )
    except (CorruptJournal, NotRecovered) as error:
        return _salvage(directory, identity, report, error, accept_loss=accept_loss)
    report.sequence, report.checkpoint_sequence = done.sequence, done.checkpoint_sequence
    report.replayed, report.cut_bytes = done.replayed, done.cut_bytes
    report.damaged_checkpoints = list(done.damaged_checkpoints)
    return _open(directory, identity, done.generation)


def _salvage(
    directory: Path, identity: Identity, report: RebuildReport, why: KvError, *, accept_loss: bool
) -> LmdbKv:
    found = assess(directory, store_id=identity.store_id)
    if found.best is None:
        raise NamesLost(directory, found, why) from why
    if found.lost and not accept_loss:
        raise ChangesLost(directory, found, why) from why
    aside = _aside(directory)
    generation = salvage(directory, found, tables=TABLES, store_id=identity.store_id, aside=aside)
    kv = _open(directory, identity, generation)
    try:
        kv.write_checkpoint()
    except BaseException:
        kv.close()
        raise
    report.sequence = found.best.sequence
    report.metadata = "kept" if found.best is found.view else "cut"
    outcome = "nothing is lost"
    if found.lost:
        report.lost_changes = [found.lost.start, found.lost.stop - 1]
        outcome = f"only changes {found.lost.start} to {found.lost.stop - 1} are lost"
    report.warnings.append(f"{why}. {outcome.capitalize()}; the journal that was there is now in {aside}")
    return kv


def _open(directory: Path, identity: Identity, generation: bytes) -> LmdbKv:
    return LmdbKv.open(
        directory,
        tables=TABLES,
        store_id=identity.store_id,
        writer_tag=secrets.token_bytes(16),
        generation=generation,
    )


def _aside(directory: Path) -> Path:
    """A new folder for what is put out of use."""
    aside = directory / f"lost-{1 + sum(1 for _ in directory.glob('lost-*'))}"
    aside.mkdir(mode=0o700)
    return aside


# --- names forgotten --------------------------------------------------------------------------------------------


def _forget_names(directory: Path, identity: Identity, report: RebuildReport) -> LmdbKv:
    aside = _aside(directory)
    for name in _METADATA:
        if (directory / name).exists():
            (directory / name).rename(aside / name)
    for name in FOLDERS:
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory)
    done = recover(directory, tables=TABLES, store_id=identity.store_id)
    kv = _open(directory, identity, done.generation)
    kv.commit(lambda txn: _begin_catalog(txn, directory))
    report.metadata = "empty"
    report.warnings.append(f"the names are forgotten; what was left of the metadata is in {aside}")
    return kv


def _begin_catalog(txn: Transaction, directory: Path) -> None:
    """In the empty store's first commit: pack numbers are never used twice, so neither are writers."""
    last = max((writer_of(pack) for pack in LocalPacks(directory / "packs").packs()), default=0)
    txn.put(SETTINGS_TABLE, NEXT_WRITER, (last + 1).to_bytes(4, "little"))
    txn.put(SETTINGS_TABLE, _UNFINISHED, b"")


def _is_unfinished(kv: LmdbKv) -> bool:
    """Is a catalog from packs to be made, or to be gone on with after a crash?"""
    with kv.snapshot() as reader:
        return reader.get(SETTINGS_TABLE, _UNFINISHED) is not None


def _catalog_from_packs(kv: LmdbKv, packs: LocalPacks, report: RebuildReport) -> None:
    found = add_lost_packs(kv, packs)
    kv.commit(lambda txn: txn.delete(SETTINGS_TABLE, _UNFINISHED))
    with kv.snapshot() as reader:
        report.sequence = reader.sequence
    report.added_packs, report.added_chunks = found.packs, found.chunks
    report.damaged.update({_file(pack): problem for pack, problem in found.damaged.items()})


# --- packs ------------------------------------------------------------------------------------------------------


def _survey(kv: LmdbKv, packs: LocalPacks, report: RebuildReport) -> None:
    found = survey(kv, packs)
    report.packs = found.packs
    report.mended.update({_file(pack): text for pack, text in found.mended.items()})
    report.damaged.update({_file(pack): text for pack, text in found.damaged.items()})


def _name_unreadable(
    directory: Path, report: RebuildReport, on_progress: Callable[[str, int, int], None]
) -> None:
    with Store.open(directory, kind="command") as store:
        found = verify(store, on_progress=on_progress)
    report.unreadable = [str(affected) for affected in found.affected]
    report.warnings += [f"not verified: {reason}" for reason in found.skipped]


def _file(pack: int) -> str:
    return f"packs/{pack & 0xFF:02x}/{pack:016x}.pack"


def _time(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ms / 1000))
