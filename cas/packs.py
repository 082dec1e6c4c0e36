"""Packs as files in one directory: packs/<2 hex>/<16 hex>.pack. The local `PackPlace`.

The file name is the pack's number in hexadecimal, its folder the last two digits. Files grow by preallocated
extents, so a full disk shows before bytes are taken in; `finish` cuts them at their true length. On a disk that is
nearly full no more is taken than is needed: what lies below `keep_free_bytes` is for others. Nothing here knows what
the bytes mean.

Durability: `sync` flushes the file and, the first time, the directory entries that lead to it; `finish`, `seal_at`
and `remove` are durable on return. A failed flush is reported once as OSError: by then the kernel may have dropped
the dirty pages and marked them clean, so a second flush would lie (Rebello et al., "Can Applications Recover from
fsync Failures?", USENIX ATC 2020). The caller must never ask again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from cas.errors import MissingPack, NoSpace, PackUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cas.ports import Buffer

FIRST_EXTENT_BYTES: Final = 1 << 20
LARGEST_EXTENT_BYTES: Final = 64 << 20
SIDECAR_SUFFIX: Final = ".parity"  # see cas.sidecars
BLOCK_BYTES: Final = 4096
MAX_OPEN_FILES: Final = 128  # of sealed and growing packs that are being read

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MAX_PARTS: Final = 1024  # IOV_MAX of Linux and macOS
_NO_FALLOCATE: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


def plan_extent(allocated: int, needed: int, spare: int) -> int:
    """How many bytes to allocate next: as much again as there is, within bounds; only what is needed if that is short.

    `spare`: free bytes that nobody else is to have; may be negative.
    """
    ahead = min(max(allocated, FIRST_EXTENT_BYTES), LARGEST_EXTENT_BYTES)
    return max(ahead, needed) if spare >= max(ahead, needed) else -(-needed // BLOCK_BYTES) * BLOCK_BYTES


def writer_of(pack: int) -> int:
    """The number of the process that wrote the pack."""
    return pack >> 32


class LocalPacks:
    """See the module. Thread-safe. `directory` must exist; it belongs to one store."""

    def __init__(
        self,
        directory: Path,
        *,
        keep_free_bytes: int = 0,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """`make_room` is asked when the disk is full: True if another attempt is worth it, False in the end."""
        self._directory = directory
        self._keep_free_bytes = keep_free_bytes
        self._make_room = make_room
        self._files = _OpenFiles(self.path)

    def path(self, pack: int) -> Path:
        name = f"{pack:016x}"
        return self._directory / name[-2:] / f"{name}.pack"

    def create(self, pack: int) -> LocalPackWriter:
        path = self.path(pack)
        with full_as_no_space():
            path.parent.mkdir(exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # The folder may be new, and made by another thread whose flush is still to come: both are flushed here.
        return LocalPackWriter(fd, (path.parent, self._directory), self._keep_free_bytes, self._make_room)

    def read(self, pack: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with self._files.use(pack) as fd:
            try:
                return [read_range(fd, offset, length) for offset, length in ranges]
            except OSError as error:
                raise PackUnreadable(pack, str(error)) from error

    def length(self, pack: int) -> int:
        try:
            return self.path(pack).stat().st_size
        except FileNotFoundError as error:
            raise MissingPack(pack) from error

    def written_at(self, pack: int) -> float:
        try:
            return self.path(pack).stat().st_mtime
        except FileNotFoundError as error:
            raise MissingPack(pack) from error

    def packs(self, writer: int | None = None) -> Iterator[int]:
        names = sorted(path.stem for path in self._directory.glob("[0-9a-f][0-9a-f]/*.pack"))
        for name in names:
            with suppress(ValueError):  # not ours
                pack = int(name, 16)
                if writer is None or writer_of(pack) == writer:
                    yield pack

    def seal_at(self, pack: int, length: int, footer: bytes) -> None:
        try:
            fd = os.open(self.path(pack), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MissingPack(pack) from error
        writer = LocalPackWriter(fd, (self.path(pack).parent, self._directory))
        try:
            # The old tail is cut first: nothing of it may show through should the footer not be written whole.
            os.ftruncate(fd, length)
            writer.write(length, [footer])
            writer.finish(length + len(footer))
        finally:
            writer.close()

    def rewrite(self, pack: int, pieces: Sequence[tuple[int, bytes]]) -> None:
        try:
            fd = os.open(self.path(pack), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MissingPack(pack) from error
        writer = LocalPackWriter(fd, ())
        try:
            for offset, data in pieces:
                writer.write(offset, [data])
            writer.sync()
        finally:
            writer.close()

    def drop_cached(self, pack: int) -> None:
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError, MissingPack, PackUnreadable), self._files.use(pack) as fd:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def remove(self, pack: int) -> None:
        self._files.forget(pack)
        path = self.path(pack)
        with suppress(FileNotFoundError):
            # The sidecar first: alone it would stay for ever, for nothing names it.
            for suffix in (SIDECAR_SUFFIX, SIDECAR_SUFFIX + ".new"):
                path.with_suffix(suffix).unlink(missing_ok=True)
            path.unlink()
            sync_directory(path.parent)

    def close_removed(self) -> None:
        """Let go of files that another process has removed: their space is not free before. Call it now and then."""
        self._files.close_removed()

    def close(self) -> None:
        self._files.close()


class LocalPackWriter:
    """One pack file while it grows."""

    ends_at_sync = False

    def __init__(
        self,
        fd: int,
        folders: tuple[Path, ...],
        keep_free_bytes: int = 0,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fd = fd
        self._make_room = make_room
        self._unsynced_folders = folders
        self._keep_free_bytes = keep_free_bytes
        self._allocated = 0
        self._can_allocate = hasattr(os, "posix_fallocate")

    def prepare(self, length: int) -> None:
        while self._can_allocate and self._allocated < length:
            extent = plan_extent(self._allocated, length - self._allocated, self._spare_bytes())
            try:
                os.posix_fallocate(self._fd, self._allocated, extent)
            except OSError as error:
                if error.errno in _NO_FALLOCATE:
                    self._can_allocate = False
                    return
                with suppress(OSError):
                    os.ftruncate(self._fd, self._allocated)  # part of the extent may have been taken
                if error.errno in _FULL and self._make_room():
                    continue
                raise NoSpace(f"no room for {extent} more bytes of packs") from error
            self._allocated += extent

    def _spare_bytes(self) -> int:
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize - self._keep_free_bytes

    def write(self, offset: int, parts: Sequence[Buffer]) -> None:
        with full_as_no_space():
            left = [memoryview(part) for part in parts if len(part)]
            while left:
                written = _write_some(self._fd, left, offset)
                offset += written
                # A short write is normal (a signal, a nearly full disk): go on with what is left.
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if left:
                    left[0] = left[0][written:]

    def sync(self) -> None:
        flush_data(self._fd)
        for folder in self._unsynced_folders:
            sync_directory(folder)
        self._unsynced_folders = ()

    def finish(self, length: int) -> None:
        os.ftruncate(self._fd, length)
        self.sync()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _OpenFiles:
    """At most MAX_OPEN_FILES descriptors for reading, least recently used out first.

    A descriptor in use is never closed: its number would be given to another file, and that one would be read.
    """

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        self._path_of = path_of
        self._lock = threading.Lock()
        self._files: OrderedDict[int, _File] = OrderedDict()

    @contextmanager
    def use(self, pack: int) -> Iterator[int]:
        file = self._acquire(pack)
        try:
            yield file.fd
        finally:
            with self._lock:
                file.users -= 1
                file.close_if_unused()

    def forget(self, pack: int) -> None:
        with self._lock:
            file = self._files.pop(pack, None)
            if file is not None:
                file.drop()

    def close_removed(self) -> None:
        with self._lock:
            for pack, file in list(self._files.items()):
                if not os.fstat(file.fd).st_nlink:
                    del self._files[pack]
                    file.drop()

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.drop()
            self._files.clear()

    def _acquire(self, pack: int) -> _File:
        with self._lock:
            file = self._files.get(pack)
            if file is None:
                file = self._files[pack] = _File(self._open(pack))
                if len(self._files) > MAX_OPEN_FILES:
                    self._files.popitem(last=False)[1].drop()
            else:
                self._files.move_to_end(pack)
            file.users += 1
            return file

    def _open(self, pack: int) -> int:
        try:
            return os.open(self._path_of(pack), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MissingPack(pack) from error
        except OSError as error:
            raise PackUnreadable(pack, str(error)) from error


class _File:
    __slots__ = ("dropped", "fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.dropped = False

    def drop(self) -> None:
        """Close now, or when its last user is done."""
        self.dropped = True
        self.close_if_unused()

    def close_if_unused(self) -> None:
        if self.dropped and not self.users and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def sync_directory(directory: Path) -> None:
    """Make the entries of `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flush_data(fd: int) -> None:
    """Make the bytes of a file durable. Raises OSError; a second call would lie."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there does not empty the drive's cache
    else:
        os.fdatasync(fd)


def _write_some(fd: int, parts: Sequence[memoryview], offset: int) -> int:
    if hasattr(os, "pwritev"):
        return os.pwritev(fd, parts[:_MAX_PARTS], offset)
    return os.pwrite(fd, parts[0], offset)


def read_range(fd: int, offset: int, length: int) -> bytes:
    """Fewer bytes only where the file ends."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    while data and (left := length - sum(map(len, parts))):
        data = os.pread(fd, left, offset + length - left)
        parts.append(data)
    return b"".join(parts)


@contextmanager
def full_as_no_space() -> Iterator[None]:
    """A full disk as NoSpace."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"no room for packs: {error.strerror}") from error
        raise
