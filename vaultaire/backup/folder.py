"""Backups in a folder: each item a file, written beside its place, synced and renamed into it.

`flush` syncs the folders that got entries, so the order "pieces, flush, manifest, flush" holds across a power cut.
A killed run leaves its one unfinished file in `tmp/`, which the next one empties. Modes are 0700 and 0600: a backup
holds everything the store holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from index.fileops import NO_ROOM, FileOps
from vaultaire.backup.manifest import DESTINATION
from vaultaire.backup.place import BackupError, DestinationFull, ItemMissing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vaultaire.backup.place import Buffer


class FolderPlace:
    """See `vaultaire.backup.place.Place`. `files` lets a test fail or fill the disk."""

    def __init__(self, path: Path, *, create: bool, files: FileOps | None = None) -> None:
        """Raises BackupError if `path` is missing (and not `create`), or not a folder of ours."""
        self._path = path.absolute()
        self._files = files or FileOps()
        self._unsynced: set[Path] = set()
        with self._translated(path):
            if create:
                self._refuse_strangers()
                self._make_folder(self._path / "tmp")
            elif not self._path.is_dir():
                raise BackupError(f"{path} is no folder; name the one that `vaultaire backup` wrote to")

    @property
    def url(self) -> str:
        return str(self._path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._translated(self._path):
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BackupError(
                    f"another process is writing to {self._path}; wait for it to end"
                ) from error
            for left in (self._path / "tmp").glob("*.part"):
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(fd)

    def put(self, name: str, data: Buffer, *, replace: bool = False) -> None:
        path = self._path / name
        if replace or not path.exists():
            self._put(path, data)

    def put_new(self, name: str, data: Buffer) -> None:
        if (self._path / name).exists():
            raise BackupError(f"{self._path / name} is there already; is another backup under way?")
        self._put(self._path / name, data)

    def _put(self, path: Path, data: Buffer) -> None:
        draft = self._path / "tmp" / f"{secrets.token_hex(8)}.part"
        with self._translated(path, len(data)):
            try:
                fd = self._files.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                try:
                    self._files.pwrite(fd, bytes(data), 0)
                    self._files.sync_file(fd)
                finally:
                    os.close(fd)
                self._make_folder(path.parent)
                self._files.rename(draft, path)
            except BaseException:
                with suppress(OSError):
                    draft.unlink(missing_ok=True)
                raise
        self._unsynced.add(path.parent)

    def get(self, name: str) -> bytes:
        with self._translated(self._path / name):
            return (self._path / name).read_bytes()

    def size(self, name: str) -> int | None:
        try:
            return (self._path / name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackupError(f"{self._path / name}: {error.strerror}") from error

    def items(self, folder: str) -> Iterator[tuple[str, int]]:
        for path in (self._path / folder).rglob("*"):
            name = path.relative_to(self._path).as_posix()
            if path.is_file() and (size := self.size(name)) is not None:
                yield name, size

    def remove(self, name: str) -> None:
        with self._translated(self._path / name):
            self._files.unlink(self._path / name)
        self._unsynced.add((self._path / name).parent)

    def flush(self) -> None:
        for folder in sorted(self._unsynced):
            with self._translated(folder):
                self._files.sync_directory(folder)
        self._unsynced.clear()

    def _refuse_strangers(self) -> None:
        """A mistyped path must not be filled with a backup."""
        if not self._path.is_dir() or (self._path / DESTINATION).exists():
            return
        strangers = sorted({path.name for path in self._path.iterdir()} - {"tmp", "lost+found"})
        if strangers:
            raise BackupError(
                f"{self._path} is not empty and holds no backups (but {strangers[0]!r}); name an empty or a new folder"
            )

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            self._unsynced.add(path.parent)

    @contextmanager
    def _translated(self, path: Path, needed: int = 0) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ItemMissing(str(self._path), str(path.name)) from error
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DestinationFull(str(self._path), needed, self._free()) from error
            hint = "; is it mounted?" if error.errno in (errno.ENOTDIR, errno.EIO) else ""
            raise BackupError(f"{path}: {error.strerror}{hint}") from error

    def _free(self) -> int | None:
        with suppress(OSError):
            return shutil.disk_usage(self._path).free
        return None
