"""Parity sidecars as files beside their packs: packs/<2 hex>/<16 hex>.parity. The local `Sidecars`.

A sidecar is written beside its place under the name `<16 hex>.parity.new`, flushed, renamed, and the folder flushed;
so it is there whole or not at all. Several processes may make one at once: whoever holds the lock of the new file
writes it, and the others leave it to that one. What a crash leaves under that name is overwritten by the next attempt
and removed with the pack.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cas.errors import MissingSidecar, PackUnreadable
from cas.packs import SIDECAR_SUFFIX, flush_data, full_as_no_space, read_range, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class LocalSidecars:
    """See the module. Thread-safe. `directory`: that of the packs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, pack: int) -> Path:
        name = f"{pack:016x}"
        return self._directory / name[-2:] / (name + SIDECAR_SUFFIX)

    def put(self, pack: int, data: bytes) -> None:
        """As `Sidecars.put`; does nothing if another process is writing it at this moment."""
        path = self.path(pack)
        new = path.with_name(path.name + ".new")
        with full_as_no_space():
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _lock(fd, new):
                    return
                try:
                    os.ftruncate(fd, 0)
                    _write_all(fd, data)
                    flush_data(fd)
                    os.rename(new, path)
                except OSError:
                    new.unlink(missing_ok=True)  # on a full disk half a sidecar is worse than none
                    raise
            finally:
                os.close(fd)
        sync_directory(path.parent)

    def read(self, pack: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        try:
            fd = os.open(self.path(pack), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MissingSidecar(pack) from error
        except OSError as error:
            raise PackUnreadable(pack, f"its sidecar: {error}") from error
        try:
            return [read_range(fd, offset, length) for offset, length in ranges]
        except OSError as error:
            raise PackUnreadable(pack, f"its sidecar: {error}") from error
        finally:
            os.close(fd)

    def length(self, pack: int) -> int:
        try:
            return self.path(pack).stat().st_size
        except FileNotFoundError as error:
            raise MissingSidecar(pack) from error

    def remove(self, pack: int) -> None:
        path = self.path(pack)
        with suppress(FileNotFoundError):
            path.unlink()
            sync_directory(path.parent)

    def lengths(self) -> Iterator[tuple[int, int]]:
        for folder in sorted(self._directory.glob("[0-9a-f][0-9a-f]")):
            with os.scandir(folder) as entries:
                for entry in entries:
                    name, suffix = os.path.splitext(entry.name)
                    if suffix == SIDECAR_SUFFIX:
                        with suppress(ValueError, FileNotFoundError):  # not ours, or just removed
                            yield int(name, 16), entry.stat().st_size


def _lock(fd: int, path: Path) -> bool:
    """False: somebody else is writing this file, or has just put it in its place."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
