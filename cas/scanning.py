"""Reading whole packs from the device: past the page cache, which may hold what the disk has lost, and without
emptying it of what clients use.

`DeviceFile` reads with O_DIRECT where the file system has it; elsewhere it tells the kernel to drop what it read
(`posix_fadvise`; nothing on macOS). `PlaceSource` reads any place for packs, as it is.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from cas.errors import MissingPack, PackUnreadable

if TYPE_CHECKING:
    from pathlib import Path

    from cas.ports import PackPlace

WINDOW_BYTES: Final = 1 << 20  # read at a time: a device is asked for a run, not for single frames
_ALIGNMENT: Final = 4096  # of offset, length and memory for O_DIRECT: no device asks for more
_NOT_DIRECT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


class PackSource(Protocol):
    """The bytes of one pack, for whoever reads all of them. One thread at a time."""

    def length(self) -> int:
        """Of the file, preallocated bytes included. Raises MissingPack."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes where the pack ends. Raises MissingPack, PackUnreadable."""
        ...

    def forget(self) -> None:
        """What was read so far is read anew, from the device."""
        ...

    def close(self) -> None: ...


class PlaceSource:
    """A pack of any place, by the place's own reading."""

    def __init__(self, place: PackPlace, pack: int) -> None:
        self._place = place
        self._pack = pack

    def length(self) -> int:
        return self._place.length(self._pack)

    def read(self, offset: int, length: int) -> bytes:
        return self._place.read(self._pack, [(offset, length)])[0]

    def forget(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


class DeviceFile:
    """A pack file, read from the device. The file stays readable after its name is gone. Raises MissingPack."""

    def __init__(self, pack: int, path: Path) -> None:
        self._pack = pack
        self._direct = hasattr(os, "O_DIRECT") and hasattr(os, "preadv")
        self._window = mmap.mmap(-1, WINDOW_BYTES)  # anonymous memory is page-aligned
        self._start = self._filled = 0  # the window holds bytes [start, start + filled) of the file
        self._path = path
        self._fd = self._open()

    def length(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        try:
            parts = []
            while length > 0:
                if not self._start <= offset < self._start + self._filled:
                    self._fill(offset)
                    if offset >= self._start + self._filled:
                        break  # the file ends here
                begin = offset - self._start
                part = self._window[begin : min(begin + length, self._filled)]
                parts.append(part)
                offset += len(part)
                length -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        except OSError as error:
            raise PackUnreadable(self._pack, str(error)) from error

    def forget(self) -> None:
        self._start = self._filled = 0
        self._drop_cached(0, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._window.close()

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        try:
            if self._direct:
                try:
                    return os.open(self._path, flags | os.O_DIRECT)
                except OSError as error:
                    if error.errno not in _NOT_DIRECT:
                        raise
                    self._direct = False
            return os.open(self._path, flags)
        except FileNotFoundError as error:
            raise MissingPack(self._pack) from error
        except OSError as error:
            raise PackUnreadable(self._pack, str(error)) from error

    def _fill(self, offset: int) -> None:
        self._start = offset - offset % _ALIGNMENT
        self._filled = 0
        if not self._direct:
            self._fill_cached()
            return
        try:
            self._filled = os.preadv(self._fd, [self._window], self._start)
        except OSError as error:
            if error.errno not in _NOT_DIRECT:
                raise
            # Opened with the flag, and yet not read with it: some file systems say so only here.
            os.close(self._fd)
            self._direct = False
            self._fd = self._open()
            self._fill_cached()

    def _fill_cached(self) -> None:
        self._drop_cached(self._start, WINDOW_BYTES)
        data = os.pread(self._fd, WINDOW_BYTES, self._start)
        self._drop_cached(self._start, WINDOW_BYTES)
        self._window[: len(data)] = data
        self._filled = len(data)

    def _drop_cached(self, offset: int, length: int) -> None:
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)
