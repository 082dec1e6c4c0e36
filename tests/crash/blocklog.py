"""A block device that logs every write and flush, and the images that a power cut at any moment of its log could leave.

`LoggedDisk` is a filesystem on such a device: nbdkit (the plugin beside this file) behind nbdfuse behind a loop device.
`read_log` gives what was written; `choose_survivors` decides, by a seed, what a cut leaves of it: all that was written
before the last flush, and of the rest whatever a drive's cache may have got rid of: nothing, everything, any of its
blocks, torn within a block at the sector, or all of it up to a moment. `Images` builds the image and mounts it, which
replays the filesystem's own journal as a real start would.

Needs Linux, root, loop devices, FUSE, nbdkit with its Python plugin, nbdfuse, and the filesystem's mkfs: `missing`
says what is not there. Everything made is undone by `__exit__`: mounts, loop devices, processes.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

Filesystem = Literal["ext4", "xfs"]

PLUGIN = Path(__file__).with_name("blocklog_plugin.py")
SECTOR_BYTES = 512  # what a drive writes whole or not at all
BLOCK_BYTES = 4096
START_SECONDS = 30.0

MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
DISK_BYTES = {"ext4": 160 << 20, "xfs": 320 << 20}  # xfs takes no less than 300 MiB
MOUNT_OPTIONS = {"ext4": "", "xfs": "nouuid"}  # several images of one filesystem may be mounted at a time


class Unavailable(Exception):
    """This machine cannot do it; the message says why."""


def missing(filesystem: Filesystem) -> str | None:
    """What this machine lacks for such a disk, in words; None if it seems to lack nothing."""
    if sys.platform != "linux":
        return "block devices are simulated on Linux only"
    if os.geteuid() != 0:
        return "only root may mount"
    for tool in ("nbdkit", "nbdfuse", "fusermount3", MKFS[filesystem][0]):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if subprocess.run(["nbdkit", "python", "--dump-plugin"], capture_output=True, check=False).returncode:
        return "nbdkit's Python plugin is not installed"
    for node in ("/dev/loop-control", "/dev/fuse"):
        if not os.path.exists(node):
            return f"there is no {node}"
    return None


# --- The log --------------------------------------------------------------------------------------------------------

_HEADER = struct.Struct("<BQI")
_WRITE = 0


class Entry(NamedTuple):
    """One write (or flush: no length). Its bytes lie in the log from `data` on; `end` is where the next entry begins."""

    flush: bool
    offset: int
    length: int
    data: int
    end: int


def read_log(log: bytes) -> list[Entry]:
    """The whole entries, in the order in which the device took them."""
    entries = []
    at = 0
    while at + _HEADER.size <= len(log):
        kind, offset, length = _HEADER.unpack_from(log, at)
        data = at + _HEADER.size
        at = data + length
        if at <= len(log):
            entries.append(Entry(kind != _WRITE, offset, length, data, at))
    return entries


class Piece(NamedTuple):
    """Bytes that survive: `length` from `data` of the log on, at `offset` of the disk."""

    offset: int
    data: int
    length: int


def last_flush(entries: Sequence[Entry], cut: int) -> int:
    """How many of the first `cut` entries were flushed: those that the cut cannot touch."""
    return next((n + 1 for n in range(cut - 1, -1, -1) if entries[n].flush), 0)


def choose_survivors(entries: Sequence[Entry], cut: int, rng: random.Random) -> list[Piece]:
    """What is left, in order, of the writes after the last flush when the power fails before entry `cut`. Pure."""
    writes = [entry for entry in entries[last_flush(entries, cut) : cut] if not entry.flush]
    fate = rng.choice(("nothing", "everything", "blocks", "blocks", "sectors", "up to a moment"))
    if fate == "nothing" or not writes:
        return []
    if fate == "everything":
        return [_whole(write) for write in writes]
    if fate == "up to a moment":
        stop = rng.randrange(len(writes))
        torn = writes[stop]
        kept = rng.randrange(torn.length // SECTOR_BYTES + 1) * SECTOR_BYTES
        return [*map(_whole, writes[:stop]), Piece(torn.offset, torn.data, kept)]
    unit = BLOCK_BYTES if fate == "blocks" else SECTOR_BYTES
    share = rng.choice((0.1, 0.4, 0.9))
    return [piece for write in writes for piece in _cut(write, unit) if rng.random() < share]


def _whole(write: Entry) -> Piece:
    return Piece(write.offset, write.data, write.length)


def _cut(write: Entry, unit: int) -> Iterator[Piece]:
    for start in range(0, write.length, unit):
        yield Piece(write.offset + start, write.data + start, min(unit, write.length - start))


def entries_before(entries: Sequence[Entry], position: int) -> int:
    """How many entries lie before that length of the log."""
    return bisect.bisect_right(entries, position, key=lambda entry: entry.end)


# --- The disk that logs ---------------------------------------------------------------------------------------------


class LoggedDisk:
    """A fresh filesystem on a logging device, mounted at `mount` while inside the `with`. The log stays."""

    def __init__(self, folder: Path, filesystem: Filesystem) -> None:
        """Works in `folder`, which exists and is empty. Raises Unavailable."""
        if (reason := missing(filesystem)) is not None:
            raise Unavailable(reason)
        self.filesystem = filesystem
        self.image, self.log, self.mount = folder / "disk.img", folder / "disk.log", folder / "mount"
        self.base = folder / "base.img"  # before the first logged write
        self._exported = folder / "disk.raw"
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with open(self.image, "wb") as file:
            file.truncate(DISK_BYTES[self.filesystem])
        subprocess.run([*MKFS[self.filesystem], str(self.image)], check=True)
        copy_sparse(self.image, self.base)
        with ExitStack() as opened:
            opened.callback(_start(self.image, self.log, self._exported))
            opened.enter_context(mounted(self._exported, self.mount, self.filesystem, direct=True))
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def position(self) -> int:
        """Length of the log now: what was answered so far lies before it."""
        return self.log.stat().st_size


def _start(image: Path, log: Path, exported: Path):
    """Serve the device as the file `exported`; returns what ends it."""
    exported.touch()
    size = exported.stat().st_size
    nbdkit = ["nbdkit", "--exit-with-parent", "python", str(PLUGIN), f"image={image}", f"log={log}"]
    process = subprocess.Popen(
        ["nbdfuse", str(exported), "--socket-activation", *nbdkit], stderr=subprocess.PIPE
    )

    def end() -> None:
        subprocess.run(["fusermount3", "-u", "-z", str(exported)], check=False, capture_output=True)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()

    deadline = time.monotonic() + START_SECONDS
    while exported.stat().st_size == size:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace").strip()
            end()
            raise Unavailable(f"nbdfuse does not serve here: {said}")
        time.sleep(0.005)
    return end


# --- Images of a moment ---------------------------------------------------------------------------------------------


class Images:
    """Builds and mounts what a cut leaves. Cuts are asked for in ascending order. Works in `folder`, best a tmpfs."""

    def __init__(
        self, base: Path, log: bytes, entries: Sequence[Entry], filesystem: Filesystem, folder: Path
    ) -> None:
        self._log = memoryview(log)
        self._entries = entries
        self._filesystem = filesystem
        self._folder = folder
        self._durable = folder / "durable.img"  # all that was flushed before the newest cut
        self._applied = 0
        copy_sparse(base, self._durable)

    @contextmanager
    def after(self, cut: int, rng: random.Random) -> Iterator[Path]:
        """The mounted filesystem of a machine whose power failed before entry `cut`, after its restart."""
        self._advance(last_flush(self._entries, cut))
        image = self._folder / "cut.img"
        copy_sparse(self._durable, image)
        self._write(image, choose_survivors(self._entries, cut, rng))
        with mounted(image, self._folder / "cut", self._filesystem) as mount:
            yield mount

    def _advance(self, flushed: int) -> None:
        assert flushed >= self._applied
        self._write(self._durable, [_whole(e) for e in self._entries[self._applied : flushed] if not e.flush])
        self._applied = flushed

    def _write(self, image: Path, pieces: Sequence[Piece]) -> None:
        fd = os.open(image, os.O_WRONLY)
        try:
            for offset, data, length in pieces:
                os.pwrite(fd, self._log[data : data + length], offset)
        finally:
            os.close(fd)


def copy_sparse(source: Path, target: Path) -> None:
    """A copy that leaves holes out."""
    with open(source, "rb") as reading, open(target, "wb") as writing:
        size = reading.seek(0, os.SEEK_END)
        writing.truncate(size)
        start = 0
        while start < size:
            try:
                start = os.lseek(reading.fileno(), start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    return
                raise
            end = os.lseek(reading.fileno(), start, os.SEEK_HOLE)
            os.lseek(reading.fileno(), start, os.SEEK_SET)
            os.lseek(writing.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(writing.fileno(), reading.fileno(), None, end - start)


# --- Loop devices and mounts: system calls, since five commands per cut would cost more than all the rest -----------

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LO_FLAGS_AUTOCLEAR, _LO_FLAGS_DIRECT_IO = 4, 16
_INFO_BYTES, _FLAGS_AT = 232, 8 * 5 + 4 * 3  # struct loop_info64
_UMOUNT_SECONDS = 30.0

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def mounted(image: Path, where: Path, filesystem: Filesystem, *, direct: bool = False) -> Iterator[Path]:
    """`image` mounted at `where` (made if missing). Raises Unavailable if the machine forbids it, OSError."""
    where.mkdir(exist_ok=True)
    device, fd = _attach(image, direct=direct)
    try:
        _mount(device, where, filesystem)
        try:
            yield where
        finally:
            _unmount(where)
    finally:
        with suppress(OSError):
            fcntl.ioctl(fd, _LOOP_CLR_FD)
        os.close(fd)


def _attach(image: Path, *, direct: bool) -> tuple[str, int]:
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_DIRECT_IO if direct else 0)
    info = bytearray(_INFO_BYTES)
    struct.pack_into("<I", info, _FLAGS_AT, flags)
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
    try:
        config = struct.pack("<II", backing, 0) + bytes(info) + bytes(64)
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            while True:
                device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
                    return device, fd
                except OSError as error:
                    os.close(fd)
                    if error.errno != errno.EBUSY:  # somebody else took it in between
                        raise
        finally:
            os.close(control)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise Unavailable(f"no loop device to be had: {error}") from error
        raise
    finally:
        os.close(backing)


def _mount(device: str, where: Path, filesystem: Filesystem) -> None:
    arguments = (device, str(where), filesystem)
    options = MOUNT_OPTIONS[filesystem].encode()
    if _libc.mount(*(text.encode() for text in arguments), ctypes.c_ulong(0), options):
        code = ctypes.get_errno()
        message = f"cannot mount {filesystem} from {device}: {os.strerror(code)}"
        if code in (errno.EPERM, errno.EACCES, errno.ENODEV):
            raise Unavailable(message)
        raise OSError(code, message)


def _unmount(where: Path) -> None:
    deadline = time.monotonic() + _UMOUNT_SECONDS
    while _libc.umount2(str(where).encode(), 0):
        code = ctypes.get_errno()
        if code != errno.EBUSY or time.monotonic() > deadline:
            raise OSError(code, f"cannot unmount {where}: {os.strerror(code)}")
        time.sleep(0.01)
