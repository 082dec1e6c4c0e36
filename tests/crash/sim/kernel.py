"""A simulated operating system over a simulated disk: the system calls that the store makes, its locks, its death.

`install` puts it in the place of `os`, `fcntl`, `shutil`, `secrets`, `threading`, `open` and LMDB in the store's own modules,
so that the real code of packs, journal, recovery, checkpoints, run files and collection runs on it, unchanged.

Processes have threads, which are greenlets: one runs at a time, and at any system call (and wherever it would wait)
another may be given its turn, as the seed decides. A process, or the whole machine, dies at the n-th system call;
a write may then be cut in the middle. SimCrash unwinds what dies: every further system call of it raises again, so no
`finally` can do anything to the disk.
"""

from __future__ import annotations

import errno
import fcntl as real_fcntl
import fnmatch
import io
import os as real_os
import sys
import threading as real_threading
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import greenlet

from tests.crash.sim.disk import Disk, File, Folder, failure
from tests.crash.sim.lmdb_library import Library

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

NEVER = 1 << 62


class SimCrash(BaseException):
    """The process that meets it is dead."""


class Hang(Exception):
    """Nobody has come to an end in a very long time."""


class Process:
    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.threads: list[Thread] = []


class Thread:
    def __init__(self, process: Process, work: Callable[[], object]) -> None:
        self.process = process
        self.error: Exception | None = None
        self._work = work
        self.greenlet = greenlet.greenlet(self._run)
        process.threads.append(self)

    @property
    def ended(self) -> bool:
        return self.greenlet.dead

    def _run(self) -> None:
        try:
            self._work()
        except SimCrash:
            pass
        except Exception as error:
            self.error = error


class Kernel:
    """See the module. One machine; `disk` outlives its power cuts."""

    def __init__(self, rng: random.Random, *, switch: float, ordered: bool) -> None:
        self.rng = rng
        self.disk = Disk()
        self.switch = switch  # chance of another thread's turn at a system call
        self.ordered = ordered  # see `Disk`
        self.calls = 0
        self.removed_packs = 0
        self.dies_at = NEVER
        self.dies: Callable[[], None] = lambda: None
        self.faults: dict[str, float] = {}  # system call -> chance of EIO
        self.process: Process | None = None  # whose turn it is
        self.threads: list[Thread] = []
        self.now = 1_000_000.0
        self._hub = greenlet.getcurrent()
        self._files: dict[int, tuple[Process | None, File | Folder, SimPath]] = {}
        self._next_fd = 1000
        self.os = Os(self)

    # Turns

    def start(self, process: Process, work: Callable[[], object]) -> Thread:
        thread = Thread(process, work)
        self.threads.append(thread)
        return thread

    def run(self, turns: int = 200_000) -> None:
        """Until every thread has ended. Raises Hang."""
        while self.threads:
            thread = (
                self.threads[self.rng.randrange(len(self.threads))]
                if len(self.threads) > 1
                else self.threads[0]
            )
            self._turn(thread)
            turns -= 1
            if not turns:
                raise Hang(f"{len(self.threads)} threads have not ended")

    def _turn(self, thread: Thread) -> None:
        self.process = thread.process
        if not thread.process.dead:
            thread.greenlet.switch()
        while thread.process.dead and not thread.ended:
            with suppress(SimCrash):  # of one that had not begun
                thread.greenlet.throw(SimCrash())
        self.process = None
        if thread.ended:
            self.threads.remove(thread)
            if not any(other.process is thread.process for other in self.threads):
                self._release(thread.process)

    def pause(self) -> None:
        """Let another thread have its turn."""
        self._hub.switch()
        if self.process is None or self.process.dead:
            raise SimCrash

    def enter(self, call: str) -> None:
        """The beginning of every system call."""
        process = self.process
        if process is None:
            raise RuntimeError(f"{call} outside of the simulation")
        if process.dead:
            raise SimCrash
        self.calls += 1
        self.now += 0.0001
        if self.calls >= self.dies_at:
            self.dies_at = NEVER
            self.dies()
        if process.dead:
            raise SimCrash
        if self.rng.random() < self.switch:
            self.pause()

    def fails(self, call: str) -> bool:
        chance = self.faults.get(call, 0.0)
        return chance > 0 and self.rng.random() < chance

    # Death

    def kill(self, process: Process) -> None:
        """It is dead when this returns; its threads are unwound at their next turn."""
        process.dead = True
        self._release(process)

    def _release(self, process: Process) -> None:
        """What the kernel does when a process is gone."""
        for fd, (owner, node, _) in list(self._files.items()):
            if owner is process:
                node.locks.pop(fd, None)
                del self._files[fd]
        self._release_write_locks(self.disk.root, process)

    def cut_power(self) -> None:
        for process in {thread.process for thread in self.threads}:
            process.dead = True
        self._files.clear()
        self.disk.cut(self.rng, ordered=self.ordered)

    def _release_write_locks(self, folder: Folder, process: Process) -> None:
        for node in folder.entries.values():
            if isinstance(node, Folder):
                self._release_write_locks(node, process)
            elif node.lmdb is not None and node.lmdb.writer is process:
                node.lmdb.writer = None

    # Files

    def path(self, text: object) -> SimPath:
        return text if isinstance(text, SimPath) else SimPath(str(text))

    def attach(self, node: File | Folder, path: SimPath) -> int:
        self._next_fd += 1
        self._files[self._next_fd] = (self.process, node, path)
        return self._next_fd

    def node(self, fd: int) -> File | Folder:
        try:
            return self._files[fd][1]
        except KeyError:
            if self.process is not None and self.process.dead:
                raise SimCrash from None  # its descriptors went with it: an error would hide its death
            raise failure(errno.EBADF, f"descriptor {fd}") from None

    def file(self, fd: int) -> File:
        node = self.node(fd)
        assert isinstance(node, File)
        return node

    def close(self, fd: int) -> None:
        self.node(fd).locks.pop(fd, None)
        del self._files[fd]

    def lock(self, fd: int, operation: int) -> None:
        """flock: blocks unless LOCK_NB."""
        node = self.node(fd)
        if operation & real_fcntl.LOCK_UN:
            node.locks.pop(fd, None)
            return
        wanted = "exclusive" if operation & real_fcntl.LOCK_EX else "shared"
        node.locks.pop(fd, None)  # as flock does: a conversion lets others in
        while any(wanted == "exclusive" or held == "exclusive" for held in node.locks.values()):
            if operation & real_fcntl.LOCK_NB:
                raise BlockingIOError(errno.EWOULDBLOCK, "simulated: locked")
            self.pause()
        node.locks[fd] = wanted


# --- System calls ---------------------------------------------------------------------------------------------------


class Os:
    """Stands for the module `os`; what it does not know is an error, never the real thing."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        if name.isupper():
            return getattr(real_os, name)
        raise AttributeError(f"the simulation has no os.{name}")

    def open(self, path: object, flags: int, mode: int = 0o777) -> int:
        kernel = self._kernel
        kernel.enter("open")
        where = kernel.path(path)
        disk = kernel.disk
        try:
            node = disk.find(where.parts[1:])
        except FileNotFoundError:
            if not flags & real_os.O_CREAT:
                raise
            node = disk.make(where.parts[1:], File)
        else:
            if flags & real_os.O_CREAT and flags & real_os.O_EXCL:
                raise FileExistsError(errno.EEXIST, "simulated: it exists", str(where))
            if isinstance(node, Folder) and not flags & real_os.O_DIRECTORY:
                raise failure(errno.EISDIR, str(where))
            if flags & real_os.O_TRUNC and isinstance(node, File) and node.data:
                node.resize(0)
        return kernel.attach(node, where)

    def close(self, fd: int) -> None:
        kernel = self._kernel
        if kernel.process is not None and not kernel.process.dead:
            kernel.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._kernel.enter("pread")
        return bytes(self._kernel.file(fd).data[offset : offset + length])

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self.pwritev(fd, [data], offset)

    def pwritev(self, fd: int, parts: Sequence[Any], offset: int) -> int:
        kernel = self._kernel
        file, data = kernel.file(fd), b"".join(parts)
        if kernel.calls + 1 >= kernel.dies_at and not kernel.disk.full:
            file.write(offset, data[: kernel.rng.randrange(len(data) + 1)])  # killed in the middle of it
        kernel.enter("pwrite")
        if kernel.disk.full and offset + len(data) > len(file.data):
            data = data[: max(0, len(file.data) - offset)]
            if not data:
                raise failure(errno.ENOSPC, "the disk is full")
        file.write(offset, data)
        return len(data)

    def ftruncate(self, fd: int, length: int) -> None:
        self._kernel.enter("ftruncate")
        file = self._kernel.file(fd)
        if length != len(file.data):
            file.resize(length)

    def truncate(self, path: object, length: int) -> None:
        fd = self.open(path, real_os.O_RDWR)
        self.ftruncate(fd, length)
        self.close(fd)

    def statvfs(self, path: object) -> SimpleNamespace:
        self._kernel.enter("statvfs")
        return self.fstatvfs(-1)

    def fstatvfs(self, fd: int) -> SimpleNamespace:
        return SimpleNamespace(
            f_frsize=4096, f_blocks=1 << 18, f_bavail=0 if self._kernel.disk.full else 1 << 18
        )

    def stat(self, path: object) -> SimpleNamespace:
        return self._kernel.path(path).stat()

    @contextmanager
    def scandir(self, path: object) -> Iterator[Iterator[SimPath]]:
        yield self._kernel.path(path).iterdir()

    def write(self, fd: int, data: Any) -> int:
        """At the end: the store writes so only to new files."""
        return self.pwrite(fd, data, len(self._kernel.file(fd).data))

    @property
    def path(self) -> SimpleNamespace:
        return SimpleNamespace(
            splitext=real_os.path.splitext, samestat=lambda one, other: one.st_ino == other.st_ino
        )

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        kernel = self._kernel
        kernel.enter("posix_fallocate")
        file = kernel.file(fd)
        if offset + length > len(file.data):
            if kernel.disk.full:
                raise failure(errno.ENOSPC, "the disk is full")
            file.resize(offset + length)

    def posix_fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        self._kernel.enter("posix_fadvise")
        self._kernel.file(fd).evict()

    def fdatasync(self, fd: int) -> None:
        kernel = self._kernel
        kernel.enter("fdatasync")
        node, path = kernel._files[fd][1:]
        assert isinstance(node, File)
        if kernel.fails("sync " + path.suffix):
            node.fail_to_sync()
            raise failure(errno.EIO, "sync failed")
        node.sync()

    def fsync(self, fd: int) -> None:
        kernel = self._kernel
        node = kernel.node(fd)
        if isinstance(node, File):
            self.fdatasync(fd)
        else:
            kernel.enter("fsync")
            kernel.disk.sync_folder(node, ordered=kernel.ordered)

    def fstat(self, fd: int) -> SimpleNamespace:
        self._kernel.enter("fstat")
        return _stat(self._kernel.node(fd))

    def rename(self, source: object, target: object) -> None:
        kernel = self._kernel
        kernel.enter("rename")
        kernel.disk.rename(kernel.path(source).parts[1:], kernel.path(target).parts[1:])

    replace = rename

    def access(self, path: object, mode: int) -> bool:
        return self._kernel.path(path).exists()

    def readlink(self, path: str) -> str:
        return f"simulated {path}"

    def getpid(self) -> int:
        return 1


def _stat(node: File | Folder) -> SimpleNamespace:
    length = len(node.data) if isinstance(node, File) else 0
    return SimpleNamespace(
        st_size=length, st_ino=node.number, st_dev=1, st_blocks=-(-length // 512), st_mtime=0.0
    )


class Fcntl:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        if name.isupper():
            return getattr(real_fcntl, name)
        raise AttributeError(f"the simulation has no fcntl.{name}")

    def flock(self, fd: int, operation: int) -> None:
        self._kernel.enter("flock")
        self._kernel.lock(fd, operation)


# --- Paths, as far as the store uses them -----------------------------------------------------------------------------

_KERNEL: Kernel


class SimPath(PurePosixPath):
    """Absolute. Knows the kernel that was installed last."""

    def _find(self) -> File | Folder | None:
        _KERNEL.enter("stat")
        try:
            return _KERNEL.disk.find(self.parts[1:])
        except OSError:
            return None

    def exists(self) -> bool:
        return self._find() is not None

    def is_dir(self) -> bool:
        return isinstance(self._find(), Folder)

    def is_file(self) -> bool:
        return isinstance(self._find(), File)

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> SimpleNamespace:
        _KERNEL.enter("stat")
        return _stat(_KERNEL.disk.find(self.parts[1:]))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        _KERNEL.enter("mkdir")
        if parents and len(self.parts) > 2 and not self.parent.exists():
            self.parent.mkdir(parents=True, exist_ok=True)
        try:
            _KERNEL.disk.make(self.parts[1:], Folder)
        except FileExistsError:
            if not exist_ok:
                raise

    def touch(self, mode: int = 0o666) -> None:
        _KERNEL.os.close(_KERNEL.os.open(self, real_os.O_CREAT))

    def rmdir(self) -> None:
        _KERNEL.enter("rmdir")
        _KERNEL.disk.remove(self.parts[1:])

    def unlink(self, missing_ok: bool = False) -> None:
        _KERNEL.enter("unlink")
        _KERNEL.removed_packs += self.suffix == ".pack"
        try:
            _KERNEL.disk.remove(self.parts[1:])
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: SimPath) -> SimPath:
        _KERNEL.os.rename(self, target)
        return target

    def iterdir(self) -> Iterator[SimPath]:
        _KERNEL.enter("readdir")
        yield from [self / name for name in _KERNEL.disk.folder(self.parts[1:]).entries]

    def glob(self, pattern: str) -> Iterator[SimPath]:
        first, _, rest = pattern.partition("/")
        _KERNEL.enter("readdir")
        try:
            entries = dict(_KERNEL.disk.folder(self.parts[1:]).entries)
        except OSError:
            return
        for name, node in entries.items():
            if fnmatch.fnmatchcase(name, first):
                if not rest:
                    yield self / name
                elif isinstance(node, Folder):
                    yield from (self / name).glob(rest)

    def read_bytes(self) -> bytes:
        _KERNEL.enter("read")
        node = _KERNEL.disk.find(self.parts[1:])
        assert isinstance(node, File)
        return bytes(node.data)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)


class _Stream:
    """What `open` returns."""

    def __init__(self, kernel: Kernel, path: object, mode: str) -> None:
        flags = real_os.O_RDONLY if mode.startswith("r") else real_os.O_CREAT | real_os.O_TRUNC
        if mode.startswith("x"):
            flags |= real_os.O_EXCL
        self._kernel = kernel
        self._text = "b" not in mode
        self._fd = kernel.os.open(path, flags)
        self._at = 0
        self._unwritten: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._fd

    def read(self, length: int = -1) -> Any:
        length = length if length >= 0 else len(self._kernel.file(self._fd).data)
        data = self._kernel.os.pread(self._fd, length, self._at)
        self._at += len(data)
        return data.decode() if self._text else data

    def write(self, data: Any) -> int:
        self._unwritten.append(data.encode() if self._text else bytes(data))
        return len(data)

    def flush(self) -> None:
        data = b"".join(self._unwritten)
        self._unwritten.clear()
        while data:
            written = self._kernel.os.pwrite(self._fd, data, self._at)
            self._at += written
            data = data[written:]

    def close(self) -> None:
        if self._fd >= 0:
            self.flush()
            self._kernel.os.close(self._fd)
            self._fd = -1


# --- Threads ----------------------------------------------------------------------------------------------------------


class Lock:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._held = False

    def acquire(self) -> bool:
        while self._held:
            self._kernel.pause()
        self._held = True
        return True

    def release(self) -> None:
        self._held = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition(Lock):
    def wait_for(self, predicate: Callable[[], bool]) -> None:
        while not predicate():
            self.wait()

    def wait(self) -> None:
        self.release()
        self._kernel.pause()
        self.acquire()

    def notify_all(self) -> None:
        """Who waits looks again at each turn."""

    notify = notify_all


class Threading:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the simulation has no threading.{name}")

    def Lock(self) -> Lock:
        return Lock(self._kernel)

    def Condition(self) -> Condition:
        return Condition(self._kernel)

    def get_ident(self) -> int:
        return id(greenlet.getcurrent())


# --- Putting it in place ----------------------------------------------------------------------------------------------


def remove_tree(path: SimPath, ignore_errors: bool = False) -> None:
    try:
        for child in path.iterdir():
            if child.is_dir():
                remove_tree(child)
            else:
                child.unlink()
        path.rmdir()
    except OSError:
        if not ignore_errors:
            raise


def _nameless_file(kernel: Kernel) -> io.BytesIO:
    kernel.enter("open")
    if kernel.disk.full:
        raise failure(errno.ENOSPC, "the disk is full")
    return io.BytesIO()


def _replacements(kernel: Kernel) -> dict[object, object]:
    """Real module -> simulated one."""
    import secrets
    import shutil
    import tempfile
    import time

    randomness = kernel.rng
    return {
        real_os: kernel.os,
        real_fcntl: Fcntl(kernel),
        real_threading: Threading(kernel),
        shutil: SimpleNamespace(
            rmtree=remove_tree,
            disk_usage=lambda path: SimpleNamespace(free=0 if kernel.disk.full else 1 << 30),
        ),
        secrets: SimpleNamespace(
            token_bytes=lambda n=32: randomness.randbytes(n),
            token_hex=lambda n=32: randomness.randbytes(n).hex(),
        ),
        time: SimpleNamespace(
            time=lambda: kernel.now,
            time_ns=lambda: int(kernel.now * 1e9),
            monotonic=lambda: kernel.now,
            perf_counter=lambda: kernel.now,
            sleep=lambda seconds: kernel.pause(),
        ),
        tempfile: SimpleNamespace(TemporaryFile=lambda **_: _nameless_file(kernel)),
    }


@contextmanager
def installed(kernel: Kernel, packages: Sequence[str]) -> Iterator[None]:
    """In all modules that are imported now and whose names begin so. One thread, one kernel at a time."""
    global _KERNEL
    _KERNEL = kernel
    replacements = _replacements(kernel)
    library = Library(kernel)
    undo: list[tuple[dict[str, Any], str, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(tuple(packages)):
            continue
        names = vars(module)
        for key, value in list(names.items()):
            try:
                other = replacements.get(value)
            except TypeError:
                continue
            if other is not None:
                undo.append((names, key, value))
                names[key] = other
        if "open" not in names:
            undo.append((names, "open", None))
            names["open"] = lambda path, mode="r": _Stream(kernel, path, mode)
    environment = vars(sys.modules["index.environment"])
    undo.append((environment, "lmdb", environment["lmdb"]))
    environment["lmdb"] = library
    try:
        yield
    finally:
        for names, key, value in reversed(undo):
            if value is None:
                del names[key]
            else:
                names[key] = value
