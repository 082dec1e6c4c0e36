"""`vaultaire rebuild`: a data directory put in order from what is the truth in it. Alone in the store; blocking.

In this order, each step safe to repeat after a crash:

1. `store.json`, if it is gone or damaged and the caller says so: from the packs (`vaultaire.identity`).
2. `meta/`: anew from checkpoint and journal. Where those do not suffice but LMDB is whole (every row is read), LMDB
   stays and becomes a new checkpoint: then nothing is lost either. If neither is whole, the names are lost; see below.
3. Packs against their rows: a lost footer is written anew, what is missing or damaged is named (`cas.rebuilding`).

**Names lost** (no good checkpoint, no LMDB, and a journal that does not reach back to the beginning): buckets, keys and
versions are in no other place, so they can only come from a backup. The journal since the older checkpoint alone is
not enough: most rows of a store are older, and half the rows would be a store that lies. Nothing is changed then, and
the error says what is left. With `forget_names` the chunks are kept: the old metadata files move to `lost-<n>/`, and an
empty store gets the catalog of all packs, so that what is uploaded again costs no space. Names that are not lost are
never forgotten.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cas.packs import LocalPacks, writer_of
from cas.rebuilding import add_lost_packs, survey
from index.history import describe_journal
from index.kv import CorruptJournal, CorruptValue, StorePoisoned
from index.lmdb_kv import LmdbKv, NotRecovered, ViewDamaged, recover
from index.recovery import rebuild as rebuild_metadata
from vaultaire.errors import NotAStore, StoreError
from vaultaire.identity import IDENTITY_FILE, identity_from_packs, write_identity
from vaultaire.store import FOLDERS, NEXT_WRITER, TABLES, read_identity, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cas.chunk import Identity
    from index.kv import KvError
    from index.lmdb_kv import RecoveryReport


class NamesLost(StoreError):
    """Neither checkpoint and journal nor LMDB lead to the names: see the module. Nothing was changed."""


@dataclass(slots=True)
class RebuildReport:
    """What was done. Packs are named by their files."""

    directory: str
    identity: str = "intact"  # or "from packs"
    metadata: str = "rebuilt"  # or "kept" (LMDB was whole, the journal not), "empty" (names forgotten)
    sequence: int = 0
    checkpoint_sequence: int | None = None  # the rebuild began from; None: the journal alone
    replayed: int = 0
    cut_bytes: int = 0  # of a torn tail, which nobody was told about
    damaged_checkpoints: list[str] = field(default_factory=list)
    packs: int = 0
    mended: dict[str, str] = field(default_factory=dict)  # pack file -> what was mended
    damaged: dict[str, str] = field(default_factory=dict)  # pack file -> what cannot be mended from it
    added_packs: int = 0  # whose rows were made from their frames
    added_chunks: int = 0
    warnings: list[str] = field(default_factory=list)


def rebuild_store(
    directory: Path, *, identity_from: bool = False, forget_names: bool = False
) -> RebuildReport:
    """See the module. `identity_from`: make a lost `store.json` from the packs.

    Raises NotAStore, StoreError (in use; NamesLost), KvError, CasError, OSError.
    """
    report = RebuildReport(str(directory))
    with _alone(directory):
        identity = _find_identity(directory, report, allowed=identity_from)
        for name in FOLDERS:
            (directory / name).mkdir(exist_ok=True)
        try:
            kv = _rebuild_metadata(directory, identity, report)
        except NamesLost:
            if not forget_names:
                raise
            kv = _forget_names(directory, identity, report)
        packs = LocalPacks(directory / "packs")
        try:
            if report.metadata == "empty":
                _catalog_from_packs(kv, packs, report)
            _survey(kv, packs, report)
        finally:
            packs.close()
            kv.close()
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


def _find_identity(directory: Path, report: RebuildReport, *, allowed: bool) -> Identity:
    try:
        if (directory / IDENTITY_FILE).exists():
            return read_identity(directory)
        problem = f"{directory} has no {IDENTITY_FILE}"
        if not any((directory / name).is_dir() for name in ("packs", "journal")):
            raise NotAStore(directory)
    except NotAStore:
        raise
    except StoreError as error:
        problem = str(error)
    if not allowed:
        raise StoreError(
            f"{problem}. If this was a store, restore the file from a backup, or have it made from the packs with: "
            "vaultaire rebuild --identity-from-packs"
        )
    identity = identity_from_packs(directory)
    write_identity(directory, identity)
    report.identity = "from packs"
    report.warnings.append(
        f"{IDENTITY_FILE} was made from the packs, with the default cut rules {identity.cdc}: if the store was made with "
        "others, all data is still readable, but new uploads find less of the old ones"
    )
    return identity


# --- metadata ---------------------------------------------------------------------------------------------------


def _rebuild_metadata(directory: Path, identity: Identity, report: RebuildReport) -> LmdbKv:
    try:
        done = rebuild_metadata(
            directory, tables=TABLES, store_id=identity.store_id, reason="`vaultaire rebuild`"
        )
    except (CorruptJournal, NotRecovered) as error:
        return _keep_lmdb(directory, identity, report, error)
    _take_over(done, report)
    return _open(directory, identity, done)


def _keep_lmdb(directory: Path, identity: Identity, report: RebuildReport, why: KvError) -> LmdbKv:
    """LMDB is a view, but a whole one: a checkpoint of it (every row is verified) replaces what is damaged."""
    try:
        if not (directory / "meta" / "data.mdb").exists():
            raise why
        done = recover(directory, tables=TABLES, store_id=identity.store_id, create=False)
        if done.action == "rebuilt":
            raise why
        kv = _open(directory, identity, done)
        try:
            kv.write_checkpoint()
        except BaseException:
            kv.close()
            raise
    except (CorruptJournal, CorruptValue, NotRecovered, StorePoisoned, ViewDamaged) as error:
        raise NamesLost(_what_is_left(directory, identity, why)) from error
    _take_over(done, report)
    report.metadata = "kept"
    report.warnings.append(f"{why}. LMDB was whole, so nothing is lost; a new checkpoint was made of it")
    return kv


def _take_over(done: RecoveryReport, report: RebuildReport) -> None:
    report.sequence, report.checkpoint_sequence = done.sequence, done.checkpoint_sequence
    report.replayed, report.cut_bytes = done.replayed, done.cut_bytes
    report.damaged_checkpoints = list(done.damaged_checkpoints)


def _open(directory: Path, identity: Identity, done: RecoveryReport) -> LmdbKv:
    return LmdbKv.open(
        directory,
        tables=TABLES,
        store_id=identity.store_id,
        writer_tag=secrets.token_bytes(16),
        generation=done.generation,
    )


def _what_is_left(directory: Path, identity: Identity, why: KvError) -> str:
    journal = describe_journal(directory, identity.store_id)
    packs = sum(1 for _ in LocalPacks(directory / "packs").packs())
    if journal is None:
        history = "no intact record of the journal is left"
    else:
        first, last, begun_ms = journal
        begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(begun_ms / 1000))
        history = (
            f"of the journal the changes {first} to {last} are left (since {begun}); changes 1 to {first - 1}, with every "
            "bucket, object, version, upload and access key that was last changed by one of them, are lost"
            if first > 1
            else f"of the journal the changes 1 to {last} are left"
        )
    return (
        f"{why}. So the names of the objects cannot be rebuilt here: {history}. The bytes are not lost: {packs} packs "
        "are there, but they name only chunks. Nothing was changed. Put back the missing files of checkpoint/ and "
        "journal/, or restore a backup with: vaultaire restore. To give the names up and keep the chunks, so that what is "
        "uploaded again costs no space: vaultaire rebuild --forget-names"
    )


# --- names forgotten --------------------------------------------------------------------------------------------


def _forget_names(directory: Path, identity: Identity, report: RebuildReport) -> LmdbKv:
    number = 1 + sum(1 for _ in directory.glob("lost-*"))
    lost = directory / f"lost-{number}"
    lost.mkdir(mode=0o700)
    for name in (
        "meta",
        "journal",
        "checkpoint",
        "run",
    ):  # run/ too: adoption would remove packs without rows
        if (directory / name).exists():
            (directory / name).rename(lost / name)
    for name in FOLDERS:
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory)
    done = recover(directory, tables=TABLES, store_id=identity.store_id)
    report.metadata = "empty"
    report.warnings.append(f"the names are forgotten; what was left of the metadata is in {lost}")
    return _open(directory, identity, done)


def _catalog_from_packs(kv: LmdbKv, packs: LocalPacks, report: RebuildReport) -> None:
    found = add_lost_packs(kv, packs)
    last = max((writer_of(pack) for pack in packs.packs()), default=0)
    # Pack numbers are never used twice, so neither are writers.
    kv.commit(lambda txn: txn.put("srv.settings", NEXT_WRITER, (last + 1).to_bytes(4, "little")))
    with kv.snapshot() as reader:
        report.sequence = reader.sequence
    report.added_packs, report.added_chunks = found.packs, found.chunks
    report.damaged.update({_file(pack): problem for pack, problem in found.damaged.items()})


def _survey(kv: LmdbKv, packs: LocalPacks, report: RebuildReport) -> None:
    found = survey(kv, packs)
    report.packs = found.packs
    report.mended.update({_file(pack): text for pack, text in found.mended.items()})
    report.damaged.update({_file(pack): text for pack, text in found.damaged.items()})


def _file(pack: int) -> str:
    return f"packs/{pack & 0xFF:02x}/{pack:016x}.pack"
