"""A folder of files as a source, and as a target.

**Source**: every regular file below it is an object, its path (with `/`) the key, its time of change the object's, its
type guessed from its name. Not taken, and noted: symbolic links (they are not followed, so nothing outside is read),
sockets, devices, and names that are not UTF-8 or too long. Empty folders are nothing in S3. A file that changes while
it is read is noticed by length and time, and read anew. Keys come in byte order, one folder of each level held in memory at a time.

**Target**: an object becomes a file at its key, written beside it, flushed and renamed, with the object's time; so it is
there whole or not at all. A key that is no path (an empty, `.` or `..` part, a trailing `/`, a part over 255 bytes, a
NUL), or that would lie inside or in place of another file, fails and is named. Metadata and tags are not kept.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from vaultaire.moving.places import Attributes, Changed, Entry, Gone, ObjectError, PlaceError
from vaultaire.moving.stored_body import StoredBody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from index.records import ObjectRecord
    from vaultaire.moving.bench import Bench
    from vaultaire.moving.report import Report
    from vaultaire.moving.transport import Requests

T = TypeVar("T")

PAGE_FILES: Final = 1000
MAX_NAME_BYTES: Final = 255
_TEMPORARY: Final = ".vaultaire-export-"


class FolderSource:
    """See `places.Source`. One listing at a time."""

    def __init__(self, folder: str, report: Report) -> None:
        """Raises PlaceError."""
        if not os.path.isdir(folder):
            raise PlaceError(f"{folder} is no folder; name one that exists, or s3://BUCKET")
        self._root = os.fsencode(folder)
        self._report = report
        self._files: Iterator[Entry] | None = None

    @property
    def url(self) -> str:
        return os.fsdecode(self._root)

    def pages(self, token: str | None, *, versions: bool) -> tuple[Sequence[Entry], str | None]:
        """See `places.Source`; None begins anew."""
        del versions
        if token is None or self._files is None:
            self._files = self._walk()
        page = list(islice(self._files, PAGE_FILES))
        return page, "more" if len(page) == PAGE_FILES else None

    def _walk(self) -> Iterator[Entry]:
        """Depth first; not by recursion, for folders may lie in each other deeper than Python's stack."""
        waiting = [self._listed(b"")]  # per level, what is still to come
        while waiting:
            found = next(waiting[-1], None)
            if found is None:
                waiting.pop()
                continue
            key, item = found
            if item.is_symlink():
                self._report.note("symbolic links, not followed")
            elif item.is_dir(follow_symlinks=False):
                waiting.append(self._listed(key + b"/"))
            elif not item.is_file(follow_symlinks=False):
                self._report.note("sockets, pipes and devices")
            else:
                yield from self._entry(key)

    def _listed(self, folder: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
        """(key, entry) of what is in a folder, in the order of keys."""
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                found = sorted(entries, key=_place)
        except OSError as error:
            self._report.fail(folder, f"the folder cannot be read: {error.strerror}")
            return
        for item in found:
            yield folder + item.name, item

    def _entry(self, key: bytes) -> Iterator[Entry]:
        try:
            key.decode()
            found = os.lstat(os.path.join(self._root, key))
        except UnicodeDecodeError:
            self._report.fail(key, "its name is not UTF-8; rename it")
        except FileNotFoundError:
            self._report.note("objects that were deleted at the source meanwhile")
        else:
            yield Entry(key, found.st_size, "", found.st_mtime_ns // 1_000_000)

    def look(self, entry: Entry) -> Attributes:
        """See `places.Source`."""
        return self._with_file(entry, lambda fd: _attributes(entry.key, os.fstat(fd)))

    def fetch(self, entry: Entry, start: int, stop: int) -> tuple[Attributes, bytes]:
        """See `places.Source`."""

        def read(fd: int) -> tuple[Attributes, bytes]:
            data = bytearray()
            while len(data) < stop - start:
                piece = os.pread(fd, stop - start - len(data), start + len(data))
                if not piece:
                    raise Changed("it became shorter while it was read")
                data += piece
            attributes = _attributes(entry.key, os.fstat(fd))
            if (attributes.size, attributes.modified_ms) != (entry.size, entry.modified_ms):
                raise Changed("it changed while it was read")
            return attributes, bytes(data)

        return self._with_file(entry, read)

    def _with_file(self, entry: Entry, use: Callable[[int], T]) -> T:
        try:
            fd = os.open(os.path.join(self._root, entry.key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise Gone("it was deleted meanwhile") from error
        except OSError as error:
            raise ObjectError(f"it cannot be read: {error.strerror}") from error
        try:
            return use(fd)
        except OSError as error:
            raise ObjectError(f"it cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)

    def tags(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        """A file has none."""
        del entry
        return ()

    def part_sizes(self, entry: Entry, attributes: Attributes, *, exact: bool) -> tuple[int, ...]:
        """A file has none."""
        del entry, attributes, exact
        return ()


def _place(item: os.DirEntry[bytes]) -> bytes:
    """Where it stands among keys: what is in a folder has a `/` behind the folder's name."""
    return item.name + b"/" if item.is_dir(follow_symlinks=False) else item.name


def _attributes(key: bytes, found: os.stat_result) -> Attributes:
    kind, encoding = mimetypes.guess_type(os.path.basename(key).decode(errors="replace"))
    fields = {b"content-type": kind} if kind and encoding is None else {}
    return Attributes(found.st_size, "", found.st_mtime_ns // 1_000_000, fields)


# --- as a target ---------------------------------------------------------------------------------------------------


def file_path(key: bytes) -> bytes:
    """`key` as a path inside a folder. Raises ObjectError."""
    for part in key.split(b"/"):
        if part in (b"", b".", b"..") or b"\x00" in part or part.startswith(_TEMPORARY.encode()):
            raise ObjectError(
                f"it cannot be a file: {part.decode(errors='backslashreplace')!r} is no name of one"
            )
        if len(part) > MAX_NAME_BYTES:
            raise ObjectError(f"it cannot be a file: a name of {len(part)} bytes is too long")
    return key


class FolderTarget:
    """Files below a folder, which is made. See `exporting.Target`."""

    def __init__(self, folder: str, bench: Bench, requests: Requests) -> None:
        self._root = Path(folder)
        self._bench = bench
        self._requests = requests

    async def lookup(self, keys: Sequence[bytes], *, versions: bool) -> dict[bytes, list[Entry]]:
        """The regular files at `keys`."""
        del versions

        def look() -> dict[bytes, list[Entry]]:
            found = {}
            for key in keys:
                with suppress(OSError, ObjectError):  # said when it is written
                    file = os.lstat(self._path(key))
                    if stat.S_ISREG(file.st_mode):
                        found[key] = [Entry(key, file.st_size, "", file.st_mtime_ns // 1_000_000)]
            return found

        return await self._requests.run(look)

    async def expected_etag(self, record: ObjectRecord) -> str:
        """A file has none: length and time tell."""
        del record
        return ""

    async def carries_the_same(self, key: bytes, found: Entry, record: ObjectRecord) -> bool:
        """A file carries nothing."""
        del key, found, record
        return True

    async def put(self, key: bytes, record: ObjectRecord) -> str:
        """Verified chunk by chunk as it is read. Raises ObjectError, PlaceError, CasError."""
        body = StoredBody(self._bench.store.chunks, record)
        await self._requests.pacer.wait(record.size)
        await self._requests.run(lambda: self.write(key, record.modified_ms, body.pieces()), reads_store=True)
        return "chunks"

    async def delete(self, key: bytes) -> None:
        """A folder keeps no versions."""
        raise ObjectError("a folder keeps no delete markers")

    def write(self, key: bytes, modified_ms: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Blocking; durable on return. Raises ObjectError, PlaceError (a full disk)."""
        path = Path(os.fsdecode(self._path(key)))
        temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{id(pieces):x}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "xb") as file:
                    file.writelines(pieces)
                    file.flush()
                    os.utime(file.fileno(), ns=(modified_ms * 1_000_000,) * 2)
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(path.parent)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ObjectError(f"it cannot be a file: {error.strerror}") from error
        except OSError as error:
            raise PlaceError(f"{path}: {error.strerror}") from error

    def _path(self, key: bytes) -> bytes:
        return os.path.join(os.fsencode(self._root), file_path(key))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
