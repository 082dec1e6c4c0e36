"""`vaultaire restore`: a new data directory from a backup.

Guarantees: every byte is verified against its name before it is taken, and `store.json` comes last, after the metadata
was rebuilt and every pack that it names was found: until then the directory is no store, and no command takes it for
one. A run that was killed is gone on with by the next one, of whatever backup: packs that are there are verified, not
copied again, and what does not belong to the backup goes. A directory that holds anything else is never touched.

The new store is the old one at that moment: same identity, keys and objects. It remembers the backup it came from, so
its own next backup to the same place copies only what is new.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cas.catalog import iterate_packs
from cas.chunk import Identity
from cas.packs import sync_directory
from index.kv import KvError
from index.lmdb_kv import LmdbKv, recover
from vaultaire.backup.destination import backup_numbers, read_destination, read_manifest, remember
from vaultaire.backup.manifest import IDENTITY_FILE, SECRET_FILE, DamagedManifest, digest_of, length_of
from vaultaire.backup.place import BackupError, ItemMissing
from vaultaire.errors import UNFINISHED_RESTORE
from vaultaire.store import FOLDERS, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaultaire.backup.manifest import Destination, Manifest, Piece
    from vaultaire.backup.place import Place


@dataclass(slots=True)
class RestoreReport:
    url: str
    directory: str
    number: int = 0
    sequence: int = 0
    created_ms: int = 0
    files: int = 0
    total_bytes: int = 0
    copied_bytes: int = 0  # the rest was there from a run before
    has_secrets: bool = True
    missing: dict[str, str] = field(default_factory=dict)  # path -> why it could not be restored whole


def restore_backup(
    place: Place,
    directory: Path,
    number: int | None = None,
    *,
    with_damage: bool = False,
    progress: Callable[[RestoreReport], None] = lambda _: None,
) -> RestoreReport:
    """Make the store of backup `number` (None: the newest) in `directory`, new or empty. Durable on return.

    `with_damage`: packs of which a piece is damaged or missing at the place are left out, and named; metadata never.
    Raises BackupError, KvError, OSError; then the directory holds no store, and the same call goes on.
    """
    manifest, checksum, destination = _choose(place, number)
    _check_directory(directory, manifest)
    _prepare(directory)
    run = _Run(place, directory, manifest, progress, with_damage=with_damage)
    identity = run.copy()
    run.finish(identity, destination, checksum)
    return run.report


def plan_restore(place: Place, directory: Path, number: int | None = None) -> RestoreReport:
    """What `restore_backup` would do. Changes and verifies nothing: it looks whether each piece is there, by its size.

    `copied_bytes`: what would be copied. Raises BackupError where a restore would fail at once.
    """
    manifest, _, _ = _choose(place, number)
    _check_directory(directory, manifest)
    report = _report(place, directory, manifest)
    for path, pieces in manifest.files.items():
        lost = next((piece for piece in pieces if place.size(piece.name) != piece.length), None)
        if lost is not None:
            report.missing.setdefault(path, f"piece {lost.name} is missing or damaged")
        if _size(directory / path) != length_of(pieces):
            report.copied_bytes += length_of(pieces)
    return report


def _choose(place: Place, number: int | None) -> tuple[Manifest, str, Destination]:
    destination = read_destination(place)
    manifest, checksum = _read(place, number)
    if manifest.store_id != destination.store_id:
        raise BackupError(f"{place.url}: backup {manifest.number} is one of another store")
    return manifest, checksum, destination


def _read(place: Place, number: int | None) -> tuple[Manifest, str]:
    numbers = backup_numbers(place)
    if not numbers:
        raise BackupError(f"{place.url} holds no complete backup")
    if number is not None and number not in numbers:
        raise BackupError(f"{place.url} holds no backup {number}; there are {', '.join(map(str, numbers))}")
    wanted = numbers[-1] if number is None else number
    try:
        return read_manifest(place, wanted)
    except DamagedManifest as error:
        others = ", ".join(str(n) for n in numbers if n != wanted) or "no others"
        raise BackupError(f"{error}; choose another one by --backup ({others})") from error


def _check_directory(directory: Path, manifest: Manifest) -> None:
    """It is missing, empty, or an unfinished restore. Raises BackupError."""
    if not directory.is_dir():
        return  # a file in its place is found out when the folder is made
    allowed = {"lost+found"} if manifest.has_secrets else {"lost+found", SECRET_FILE}
    marker = directory / UNFINISHED_RESTORE
    strangers = sorted({p.name for p in directory.iterdir()} - allowed)
    if strangers and (directory / IDENTITY_FILE).exists():
        raise BackupError(f"{directory} is a store already; name a new or an empty directory with --data")
    if strangers and not marker.exists():
        raise BackupError(f"{directory} is not empty (it holds {strangers[0]!r}); name a new one with --data")


def _prepare(directory: Path) -> None:
    """Make the folders, or take over those of an unfinished restore."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    marker = directory / UNFINISHED_RESTORE
    marker.write_text("A restore was begun here. Run it again, or remove this directory.\n")
    # A run before may have opened them: then they have changed.
    for name in ("meta", "journal", "checkpoint"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in FOLDERS:
        (directory / name).mkdir(mode=0o700, exist_ok=True)


def _report(place: Place, directory: Path, manifest: Manifest) -> RestoreReport:
    return RestoreReport(
        url=place.url,
        directory=str(directory),
        number=manifest.number,
        sequence=manifest.position.sequence,
        created_ms=manifest.created_ms,
        files=len(manifest.files),
        total_bytes=manifest.total_bytes,
        has_secrets=manifest.has_secrets,
        missing=dict(manifest.damaged),
    )


class _Run:
    def __init__(
        self,
        place: Place,
        directory: Path,
        manifest: Manifest,
        progress: Callable[[RestoreReport], None],
        *,
        with_damage: bool,
    ) -> None:
        self._place = place
        self._directory = directory
        self._manifest = manifest
        self._progress = progress
        self._with_damage = with_damage
        self.report = _report(place, directory, manifest)

    def copy(self) -> Identity:
        """All files but `store.json`, whose content is returned."""
        self._remove_strangers()
        folders = {self._directory}
        for path, pieces in self._manifest.files.items():
            if path == IDENTITY_FILE:
                continue
            target = self._directory / path
            target.parent.mkdir(mode=0o700, exist_ok=True)
            folders |= {target.parent, target.parent.parent}
            if not _is_there(target, pieces):
                self._copy_file(target, path, pieces)
            self._progress(self.report)
        for folder in folders:
            sync_directory(folder)
        identity = b"".join(map(self._fetch, self._manifest.files.get(IDENTITY_FILE, ())))
        try:
            return Identity.from_json(json.loads(identity))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BackupError(f"{self._place.url}: the backup holds no identity ({error})") from error

    def _remove_strangers(self) -> None:
        """What an unfinished restore of another backup left."""
        for path in (self._directory / "packs").rglob("*.pack"):
            if path.relative_to(self._directory).as_posix() not in self._manifest.files:
                path.unlink()

    def _copy_file(self, target: Path, path: str, pieces: tuple[Piece, ...]) -> None:
        draft = self._directory / "tmp" / f"restore-{secrets.token_hex(8)}"
        try:
            with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.writelines(self._fetch(piece) for piece in pieces)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(target)
        except _PieceDamaged as error:
            if not (self._with_damage and path.startswith("packs/")):
                raise BackupError(
                    f"{self._place.url}: {path} cannot be restored: {error}. Nothing is in place yet. Choose another "
                    "backup with --backup, or leave damaged packs out with --with-damage"
                ) from error
            self.report.missing[path] = str(error)
        finally:
            draft.unlink(missing_ok=True)

    def _fetch(self, piece: Piece) -> bytes:
        try:
            data = self._place.get(piece.name)
        except ItemMissing as error:
            raise _PieceDamaged(f"piece {piece.name} is missing") from error
        if len(data) != piece.length or digest_of(data) != piece.digest:
            raise _PieceDamaged(f"piece {piece.name} is damaged")
        self.report.copied_bytes += len(data)
        return data

    def finish(self, identity: Identity, destination: Destination, checksum: str) -> None:
        """Rebuild the metadata, hold it against the packs, then make the directory a store."""
        if identity.store_id != self._manifest.store_id:
            raise BackupError(f"{self._place.url}: store.json of the backup belongs to another store")
        recovered = recover(self._directory, tables=TABLES, store_id=identity.store_id, create=False)
        if recovered.sequence != self._manifest.position.sequence:
            raise KvError(
                f"the backup's journal ends at {recovered.sequence} instead of {self._manifest.position.sequence}"
            )
        kv = LmdbKv.open(
            self._directory,
            tables=TABLES,
            store_id=identity.store_id,
            writer_tag=secrets.token_bytes(16),
            generation=recovered.generation,
        )
        try:
            self._compare_packs(kv)
            kv.commit(lambda txn: remember(txn, destination, self._manifest.number, checksum))
        finally:
            kv.close()
        self._become_a_store()

    def _compare_packs(self, kv: LmdbKv) -> None:
        with kv.snapshot() as reader:
            for pack, row in iterate_packs(reader):
                path = f"packs/{pack & 0xFF:02x}/{pack:016x}.pack"
                if path not in self.report.missing and _size(self._directory / path) < row.length:
                    raise BackupError(f"{self._place.url}: the backup does not hold all of {path}")

    def _become_a_store(self) -> None:
        content = b"".join(map(self._fetch, self._manifest.files[IDENTITY_FILE]))
        draft = self._directory / f"{IDENTITY_FILE}.new"
        with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # The marker goes first: beside a store it would one day let a restore empty that.
        (self._directory / UNFINISHED_RESTORE).unlink()
        sync_directory(self._directory)
        draft.rename(self._directory / IDENTITY_FILE)
        sync_directory(self._directory)


class _PieceDamaged(BackupError):
    pass


def _is_there(path: Path, pieces: tuple[Piece, ...]) -> bool:
    """Was this file restored, whole and right, by a run before?"""
    if _size(path) != length_of(pieces):
        return False
    with open(path, "rb") as file:
        return all(digest_of(file.read(piece.length)) == piece.digest for piece in pieces)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
