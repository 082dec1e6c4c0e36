"""`vaultaire backup`: one point in time of a running store, copied to a place; only what is new there.

**Consistent.** A backup holds the metadata M as it was at one position of the journal, and of every pack that has a
row in M at least the bytes [0, durable length that this row says). That is all a store is: a manifest in M names only
placements in M, and a placement lies below the durable length of a pack with a row in M (the commit that published it
wrote both). The order is: operation, M, packs, manifest. Proof that the bytes are there when they are copied:

1. Packs are append-only, and below the durable length of a committed row the bytes are on disk and never change; so to
   copy later is to copy at least as much. (Packs first and M afterwards would be wrong: M would name what was
   appended in between.)
2. A pack that has a row in M disappears only by collection: condemned, emptied of live chunks by a commit (the swap),
   and unlinked after every operation that began before the swap is over. Our operation begins before M is read. If the
   swap comes after M, the collector waits for us. If it came before M, then M does not need the pack any more, yet
   may still have its row: the pack can go while we copy. Then its row has gone as well, and we take M anew: a later
   point in time, for which the same holds. A pack that is missing while its row stays is lost: that is reported.
3. M is the newest checkpoint and the journal from it to M's position, verified record by record. The position was
   read from LMDB, so all up to it was durable and is never rewritten (index/SCHEMA.md, "Writing"); no segment is
   cut meanwhile, for checkpoints wait (`keep_segments`).
4. The manifest of the backup is written last, after all else is durable. Killed before, there is no backup, only
   pieces that the next run finds in place.

**Incremental.** Pieces carry their BLAKE3 as their name, so nothing is stored twice and no two stores can overwrite each
other. What need not even be read is known from the base: the last backup that *this history* of the store made here. It
is named by a row in the store's own metadata, so a store that was restored from an older backup, or copied by hand, and
went on differently, never trusts files that it did not write.

**Sound.** What is copied anew is checked (frames, journal chain, checkpoint) on its way. Damage does not stop a
backup: it is copied as it is, named in the manifest, and nothing older is removed while there is any.

Memory: one pack or piece at a time (64 MiB; a pack at most its length), and some 500 bytes per pack. Blocking.
Collection can free nothing while a backup runs.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from cas.catalog import get_pack, iterate_packs
from cas.errors import CasError, MissingPack
from cas.excerpt import first_damage
from index import checkpoint as checkpoints
from index.history import follow, keep_segments, segment_start
from index.journal import ORIGIN
from index.kv import CorruptJournal, KvError
from index.segments import list_segments, segment_path
from vaultaire.access import secret_key_check
from vaultaire.backup.destination import (
    backup_numbers,
    open_destination,
    read_manifest,
    recall,
    remember,
)
from vaultaire.backup.manifest import (
    IDENTITY_FILE,
    SECRET_FILE,
    DamagedManifest,
    Files,
    Manifest,
    Piece,
    checksum_of,
)
from vaultaire.backup.pieces import PieceWriter, Report, prune
from vaultaire.backup.place import BackupError, ItemMissing
from vaultaire.backup.plan import cut_range, may_continue, missing_of
from vaultaire.backup.rehearsal import Rehearsal
from vaultaire.errors import StoreError
from vaultaire.reports import put_report
from vaultaire.secret_key import read_secret_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from index.checkpoint import Checkpoint
    from index.journal import Position
    from index.kv import Transaction
    from vaultaire.backup.place import Place
    from vaultaire.store import Store

_ATTEMPTS: Final = 5  # each is lost to packs that were collected meanwhile


class _SourceUnreadable(BackupError):
    """A file of the store is shorter than it should be, or the device does not deliver it."""


class _PackCollected(Exception):
    """A pack of our moment has been removed since, rightly: take a later moment."""


@dataclass(frozen=True, slots=True)
class _Moment:
    position: Position
    packs: list[tuple[int, int]]  # (pack, durable length), ascending
    secret_check: bytes | None


def take_backup(
    store: Store,
    place: Place,
    *,
    keep: int | None = None,
    with_secrets: bool = True,
    full: bool = False,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Copy the store as it is now to `place`. Durable, verified and complete on return.

    `keep`: afterwards only the newest so many backups stay (None: all). `full` trusts no earlier backup: everything is
    read again, and pieces at the destination are compared and replaced where they are wrong. `dry_run`: nothing changes,
    neither the store nor `place`; all is read, and the report says what would happen.
    Raises BackupError, DestinationFull; KvError, CasError for a store that cannot be read.
    """
    began = time.monotonic()
    if dry_run:
        place = Rehearsal(place.url, place)
    with _alone(store), place.writing(), store.operation():
        run = _Run(store, place, full=full, dry_run=dry_run, progress=progress)
        run.take(with_secrets=with_secrets, created_ms=int(clock() * 1000))
        if keep is not None:
            prune(place, keep, run.report)
        run.report.seconds = round(time.monotonic() - began, 3)
        return run.report


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Two backups of one store at a time would only be in each other's way (and one's pruning in the other's)."""
    path = store.directory / "run" / "backup.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"a backup of {store.directory} is under way; wait for it to end") from error
        yield
    finally:
        os.close(fd)


class _Run:
    """One call of `take_backup`."""

    def __init__(
        self, store: Store, place: Place, *, full: bool, dry_run: bool, progress: Callable[[Report], None]
    ) -> None:
        self._store = store
        self._dry_run = dry_run
        self._place = place
        self.report = Report(place.url)
        self._destination = open_destination(place, store.identity.store_id)
        self._pieces = PieceWriter(place, self.report, compare=full, progress=progress)
        self._base = None if full else self._find_base()
        self._history_anew = self._base is None
        if self._base is not None:
            self._base = self._without_lost_files(self._base)

    def take(self, *, with_secrets: bool, created_ms: int) -> None:
        files, moment = self._copy_moment(with_secrets)
        number = 1 + max(backup_numbers(self._place), default=0)
        manifest = Manifest(
            number,
            self._store.identity.store_id,
            created_ms,
            moment.position,
            None if self._base is None else self._base.number,
            files,
            self.report.damaged,
        )
        encoded = manifest.encode()
        self._place.flush()
        self._place.put_new(manifest.name, encoded)
        self._place.flush()
        self._describe(manifest)
        if not self._dry_run:
            self._remember(manifest, checksum_of(encoded))

    def _copy_moment(self, with_secrets: bool) -> tuple[Files, _Moment]:
        for _ in range(_ATTEMPTS):
            self.report.damaged.clear()
            files, moment = self._copy_history()
            try:
                files |= self._copy_packs(moment)
            except _PackCollected:
                continue
            files |= self._copy_identity()
            if with_secrets:
                secret = self._copy_secret(moment)
                if secret is None:
                    continue
                files |= secret
            return files, moment
        raise BackupError("the store changes faster than it can be copied; run this again")

    # --- metadata -----------------------------------------------------------------------------------------------

    def _copy_history(self) -> tuple[Files, _Moment]:
        try:
            return self._try_history(anew=self._history_anew)
        except (checkpoints.CorruptCheckpoint, CorruptJournal) as error:
            if self._dry_run:
                raise BackupError(f"{error}; a backup would write a new checkpoint first") from error
            # LMDB serves: a checkpoint of it (every row is verified) makes the damaged file superfluous.
            self.report.warn(f"{error}; a new checkpoint was written instead")
            self._store.kv.write_checkpoint()
            return self._try_history(anew=True)

    def _try_history(self, *, anew: bool) -> tuple[Files, _Moment]:
        directory, store_id = self._store.directory, self._store.identity.store_id
        with keep_segments(directory):
            newest = checkpoints.newest(directory)
            moment = self._read_moment()
            files: Files = {}
            base = None if anew else self._base
            segments = list_segments(directory / "journal")
            path, length = (_relative(newest.path), newest.length) if newest else (None, 0)
            if base is not None and may_continue(base, segments, path, length):
                files = {p: f for p, f in base.files.items() if p.startswith(("journal/", "checkpoint/"))}
                extents = follow(directory, store_id, base.position, moment.position)
            else:
                start = newest.position if newest else ORIGIN
                first = segment_start(directory, store_id, start.segment, start)
                extents = follow(directory, store_id, first, moment.position, by_way_of=start)
                if newest is not None:
                    files |= self._copy_checkpoint(newest)
            for extent in extents:
                source = segment_path(directory / "journal", extent.segment)
                files[_relative(source)] = self._copy_file(source, extent.end)
        return files, moment

    def _read_moment(self) -> _Moment:
        with self._store.kv.snapshot() as reader:
            packs = [(pack, row.length) for pack, row in iterate_packs(reader)]
            return _Moment(reader.position, packs, secret_key_check(reader))

    def _copy_checkpoint(self, checkpoint: Checkpoint) -> Files:
        path, sidecar = _relative(checkpoint.path), _relative(checkpoint.sidecar)
        content = checkpoint.to_json()
        files: Files = {sidecar: (self._pieces.add(content),)}
        known = {} if self._base is None else self._base.files
        if path in known and known.get(sidecar) == files[sidecar]:
            return files | {path: known[path]}
        hasher = blake3()
        try:
            files[path] = self._copy_file(checkpoint.path, checkpoint.length, observe=hasher.update)
        except _SourceUnreadable as error:
            raise checkpoints.CorruptCheckpoint(str(error)) from error
        if hasher.hexdigest() != checkpoint.blake3:
            raise checkpoints.CorruptCheckpoint(f"{checkpoint.path}: BLAKE3 differs from its sidecar")
        return files

    def _copy_file(
        self, source: Path, end: int, *, observe: Callable[[bytes], object] | None = None
    ) -> tuple[Piece, ...]:
        """[0, end) of a file, without what the base has of it (all of it is read if somebody wants to observe)."""
        known = {} if self._base is None or observe is not None else self._base.files
        missing = missing_of(known, _relative(source), end)
        pieces = list(missing.kept)
        try:
            with open(source, "rb") as file:
                for offset, length in cut_range(missing.start, end):
                    file.seek(offset)
                    data = file.read(length)
                    if len(data) != length:
                        raise _SourceUnreadable(f"{source} ends at byte {offset + len(data)}, not at {end}")
                    if observe is not None:
                        observe(data)
                    pieces.append(self._pieces.add(data))
        except OSError as error:
            raise _SourceUnreadable(f"{source}: {error.strerror}") from error
        return tuple(pieces)

    # --- packs --------------------------------------------------------------------------------------------------

    def _copy_packs(self, moment: _Moment) -> Files:
        files: Files = {}
        known = {} if self._base is None else self._base.files
        damaged = {} if self._base is None else self._base.damaged
        for pack, length in moment.packs:
            path = f"packs/{pack & 0xFF:02x}/{pack:016x}.pack"
            missing = missing_of({} if path in damaged else known, path, length)
            files[path] = missing.kept
            if missing.start < length:
                piece = self._copy_excerpt(pack, path, missing.start, length)
                files[path] += () if piece is None else (piece,)
        self.report.packs = len(files)
        return files

    def _copy_excerpt(self, pack: int, path: str, start: int, end: int) -> Piece | None:
        """Bytes [start, end) of a pack, as far as there are any; what is wrong with them is noted."""
        try:
            data = self._store.packs.read(pack, [(start, end - start)])[0]
        except MissingPack:
            with self._store.kv.snapshot() as reader:
                if get_pack(reader, pack) is None:
                    raise _PackCollected from None
            self.report.damaged[path] = "the file is missing"
            return None
        except CasError as error:
            self.report.damaged[path] = str(error)
            return None
        if len(data) < end - start:
            self.report.damaged[path] = f"the file ends at byte {start + len(data)} instead of {end}"
        elif (problem := first_damage(pack, memoryview(data), start)) is not None:
            self.report.damaged[path] = problem
        return self._pieces.add(data) if data else None

    # --- identity -----------------------------------------------------------------------------------------------

    def _copy_identity(self) -> Files:
        return {IDENTITY_FILE: (self._pieces.add((self._store.directory / IDENTITY_FILE).read_bytes()),)}

    def _copy_secret(self, moment: _Moment) -> Files | None:
        """None: the file and the metadata are of two moments (`key create --new-secret-key` runs): take another."""
        path = self._store.directory / SECRET_FILE
        try:
            check = read_secret_key(self._store.directory).check
            content = path.read_bytes()
        except (OSError, StoreError) as error:
            self.report.warn(f"{error}. So it is not in this backup")
            return {}
        if moment.secret_check is not None and not hmac.compare_digest(check, moment.secret_check):
            with self._store.kv.snapshot() as reader:
                if secret_key_check(reader) != moment.secret_check:
                    return None
            self.report.warn(f"{path} does not belong to this store; it was copied as it is")
        return {SECRET_FILE: (self._pieces.add(content),)}

    # --- before and after ---------------------------------------------------------------------------------------

    def _find_base(self) -> Manifest | None:
        """The last backup that this history of the store made here."""
        try:
            with self._store.kv.snapshot() as reader:
                remembered = recall(reader, self._destination)
        except ValueError:
            self.report.warn(
                "what the store remembers of its last backup is damaged; everything is read again"
            )
            return None
        if remembered is None:
            return None
        number, wanted = remembered
        try:
            manifest, checksum = read_manifest(self._place, number)
            return manifest if checksum == wanted else None
        except ItemMissing:
            return None
        except DamagedManifest as error:
            self.report.warn(f"{error}; everything is read again")
            return None

    def _without_lost_files(self, base: Manifest) -> Manifest:
        """`base` without what is not at the destination any more: that is copied anew, from its beginning."""
        lost = {path for path, pieces in base.files.items() if not all(map(self._pieces.is_there, pieces))}
        if not lost:
            return base
        self._history_anew = any(path.startswith(("journal/", "checkpoint/")) for path in lost)
        self.report.warn(
            f"{len(lost)} files of backup {base.number} are not whole at {self._place.url} any more; they are copied "
            "anew. See `vaultaire backup --check`"
        )
        return replace(base, files={path: pieces for path, pieces in base.files.items() if path not in lost})

    def _describe(self, manifest: Manifest) -> None:
        report = self.report
        report.number, report.sequence = manifest.number, manifest.position.sequence
        report.files, report.total_bytes = len(manifest.files), manifest.total_bytes
        report.base, report.has_secrets = manifest.base, manifest.has_secrets

    def _remember(self, manifest: Manifest, checksum: str) -> None:
        summary = {
            "at_ms": manifest.created_ms,
            "url": self._place.url,
            "number": manifest.number,
            "total_bytes": self.report.total_bytes,
            "new_bytes": self.report.new_bytes,
            "damaged_files": len(manifest.damaged),
        }

        def write(txn: Transaction) -> None:
            remember(txn, self._destination, manifest.number, checksum)
            put_report(txn, "backup", summary)

        try:
            self._store.kv.commit(write)
        except KvError as error:  # the backup stands; the next one has more to read
            self.report.warn(f"the backup is complete, but the store could not note it: {error}")


def _relative(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
