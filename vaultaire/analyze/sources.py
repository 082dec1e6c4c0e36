"""Where an analysis reads: a folder, a file, standard input, a bucket or a part of one.

Folders are walked as `vaultaire import` walks them, so that the same objects come out: regular files, in the order of
keys; links are not followed and counted; names that cannot be keys are named. A file is opened without following a link
and without waiting (a pipe that took its place must not hang the run), and read once, in blocks.

Errors of one object are `Unread`, with the reason; what concerns the source as a whole is a PlaceError.
"""

from __future__ import annotations

import mimetypes
import os
import random
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from index.keys import MAX_OBJECT_KEY_BYTES
from vaultaire.moving.carried import parse_carried
from vaultaire.moving.folder_place import FolderSource
from vaultaire.moving.places import WINDOW_BYTES, Changed, Gone, ObjectError, Transient
from vaultaire.moving.plans import backoff_seconds, windows
from vaultaire.moving.transport import ATTEMPTS, FIRST_ATTEMPTS

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from index.fields import Pairs
    from vaultaire.moving.places import Entry
    from vaultaire.moving.report import Report as Notes
    from vaultaire.moving.s3_place import S3Place

T = TypeVar("T")

BLOCK_BYTES: Final = 4 << 20  # as large as an upload's

_AHEAD_BYTES: Final = 8 << 20


class Item(NamedTuple):
    """One object to be."""

    key: bytes
    size: int  # as listed; 0 where nobody knows
    entry: Entry | None = None


class Carries(NamedTuple):
    """What its record would have beside its data."""

    content_type: str | None = None
    headers: Pairs = ()
    metadata: Pairs = ()


class Unread(Exception):
    """This object could not be read, or not to its end. `passing`: it went or changed meanwhile, which is no failure."""

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.passing = passing


class Source(Protocol):
    """Methods block. `items` is called by one thread (again: from the beginning), `blocks` by several."""

    @property
    def url(self) -> str: ...

    def items(self) -> Iterator[Item]:
        """Raises PlaceError."""
        ...

    def blocks(self, item: Item, told: list[Carries]) -> Iterator[bytes | memoryview]:
        """Its bytes, each block valid until the next is asked for; `told` gets what it carries. Raises Unread."""
        ...

    def part(self, item: Item, start: int, length: int) -> bytes:
        """Some of its bytes once more; fewer if it ends before, or if it cannot be read twice. Raises Unread."""
        ...


class Folder:
    """A folder of files."""

    def __init__(self, folder: str, notes: Notes) -> None:
        """Raises PlaceError."""
        self._root = os.fsencode(folder)
        self._notes = notes
        self.url = folder
        self._source = FolderSource(folder, notes)

    def items(self) -> Iterator[Item]:
        token: str | None = None
        while True:
            page, token = self._source.pages(token, versions=False)
            for entry in page:
                if len(entry.key) <= MAX_OBJECT_KEY_BYTES:
                    yield Item(entry.key, entry.size, entry)
                else:
                    self._notes.fail(
                        entry.key, f"its name has more than {MAX_OBJECT_KEY_BYTES:,} bytes; shorten it"
                    )
            if token is None:
                return

    def blocks(self, item: Item, told: list[Carries]) -> Iterator[bytes | memoryview]:
        told.append(_guess(item.key))
        yield from _read_file(self._path(item), self._notes)

    def part(self, item: Item, start: int, length: int) -> bytes:
        return _read_part(self._path(item), start, length)

    def _path(self, item: Item) -> bytes:
        return os.path.join(self._root, item.key)


class File:
    """One file."""

    def __init__(self, path: str, notes: Notes) -> None:
        self._path = os.fsencode(path)
        self._notes = notes
        self.url = path

    def items(self) -> Iterator[Item]:
        yield Item(os.path.basename(self._path), os.stat(self._path).st_size)

    def blocks(self, item: Item, told: list[Carries]) -> Iterator[bytes | memoryview]:
        told.append(_guess(item.key))
        yield from _read_file(os.path.realpath(self._path), self._notes)

    def part(self, item: Item, start: int, length: int) -> bytes:
        del item
        return _read_part(os.path.realpath(self._path), start, length)


class Stream:
    """What comes on a file descriptor, as one object."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = sys.stdin.fileno() if fd is None else fd
        self.url = "-"

    def items(self) -> Iterator[Item]:
        yield Item(b"-", 0)

    def blocks(self, item: Item, told: list[Carries]) -> Iterator[bytes | memoryview]:
        del item
        told.append(Carries())
        try:
            yield from _read(self._fd)
        except OSError as error:
            raise Unread(f"it cannot be read: {error.strerror}") from error

    def part(self, item: Item, start: int, length: int) -> bytes:
        del item, start, length
        return b""


def _guess(key: bytes) -> Carries:
    kind, encoding = mimetypes.guess_type(os.path.basename(key).decode(errors="replace"))
    return Carries(kind if encoding is None else None)


def _open(path: bytes) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Unread("deleted meanwhile", passing=True) from error
    except OSError as error:
        raise Unread(f"it cannot be read: {error.strerror}") from error


def _read_part(path: bytes, start: int, length: int) -> bytes:
    fd = _open(path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unread("no regular file any more", passing=True)
        return os.pread(fd, length, start)
    except OSError as error:
        raise Unread(f"it cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _read_file(path: bytes, notes: Notes) -> Iterator[memoryview]:
    fd = _open(path)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Unread("no regular file any more", passing=True)
        if before.st_nlink > 1:
            notes.note("files with several hard links, each an object of its own")
        yield from _read(fd, before.st_size)
        after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            notes.note("files that changed while they were read")
    except OSError as error:
        raise Unread(f"it cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _read(fd: int, size: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """Whole blocks but for the last one, from one buffer. A growing file ends where it ends."""
    view = memoryview(bytearray(max(1, min(size + 1, BLOCK_BYTES))))
    position = 0
    while True:
        if size > BLOCK_BYTES and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # the disk works while we do; a pipe cannot
                os.posix_fadvise(fd, position + BLOCK_BYTES, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        filled = 0
        while filled < len(view):
            count = os.readv(fd, [view[filled:]])
            if not count:
                break
            filled += count
        if filled:
            yield view[:filled]
        if filled < len(view):
            return
        position += filled


class Bucket:
    """Objects of an S3 server, the current versions. What fails in passing is tried again, as by an import."""

    def __init__(self, place: S3Place, notes: Notes, stop: threading.Event) -> None:
        """`stop`: ends waiting."""
        self._place = place
        self._notes = notes
        self._stop = stop
        self.url = place.url

    def items(self) -> Iterator[Item]:
        token: str | None = None
        attempts = FIRST_ATTEMPTS
        while True:
            before = token
            page, token = self._again(lambda: self._place.pages(before, versions=False), attempts)  # noqa: B023
            attempts = ATTEMPTS
            for entry in page:
                yield Item(entry.key.removeprefix(self._folder()), entry.size, entry)
            if token is None:
                return

    def _folder(self) -> bytes:
        """What all keys begin with, up to the last slash."""
        return self._place.prefix[: self._place.prefix.rfind(b"/") + 1]

    def blocks(self, item: Item, told: list[Carries]) -> Iterator[bytes | memoryview]:
        entry = item.entry
        assert entry is not None
        try:
            for start, stop in windows(entry.size, WINDOW_BYTES) if entry.size else [(0, 0)]:
                attributes, data = self._again(lambda: self._place.fetch(entry, start, stop), ATTEMPTS)  # noqa: B023
                if not told:
                    carried = parse_carried(attributes, self._notes, object_lock=False)
                    told.append(Carries(carried.content_type, carried.headers, carried.metadata))
                view = memoryview(data)
                for begin in range(0, len(data), BLOCK_BYTES):
                    yield view[begin : begin + BLOCK_BYTES]
        except ObjectError as error:
            raise _unread(error) from error

    def part(self, item: Item, start: int, length: int) -> bytes:
        entry = item.entry
        assert entry is not None
        try:
            return self._again(lambda: self._place.fetch(entry, start, start + length), ATTEMPTS)[1]
        except ObjectError as error:
            raise _unread(error) from error

    def _again(self, call: Callable[[], T], attempts: int) -> T:
        for attempt in range(attempts):
            try:
                return call()
            except Transient as error:
                if attempt == attempts - 1 or self._stop.is_set():
                    raise
                self._stop.wait(backoff_seconds(attempt, error.retry_after_seconds, random.random()))
        raise AssertionError("no attempt at all")


def _unread(error: ObjectError) -> Unread:
    if isinstance(error, Changed):
        return Unread("deleted meanwhile" if isinstance(error, Gone) else "changed meanwhile", passing=True)
    return Unread(str(error))
