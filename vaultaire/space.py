"""Room on the disk: what new data may take, and what is kept back so that a full disk can still be emptied.

Three layers, from the outside in:

1. **Admission.** Before a body is asked for, its announced length (and what metadata may add) must fit into what is
   free, beside what running uploads still need. An upload counts for as much as it has sent, and a little more: so a
   client that has only promised much keeps nobody else out. Uploads that together turn out to be too much (or run in
   several workers, each of which counts its own) are refused when the disk is really full.
2. **The floor.** Admission leaves some of the free bytes alone: journal, run files, footers and the maintenance
   process's small writes do not meet a full disk only because clients filled it.
3. **The reserve**, a preallocated file `reserve`. When a commit finds no room although all that is new is refused
   (another program filled the disk, or deletes used the floor up), a step of it is given back to the filesystem and
   the commit is tried again: so deletes and collection work on a disk with no free byte. It is filled again as soon
   as there is room, before new data is admitted.

Where the filesystem cannot preallocate there is no reserve and the floor is larger. `probe` is the one look at the
filesystem; it is cached for a second while there is plenty, and never before a refusal, so writing goes on at once
when there is room again. Thread-safe.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from index.kv import MapFull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESERVE_FILE: Final = "reserve"
MAX_RESERVE_BYTES: Final = 64 << 20
MIN_RESERVE_BYTES: Final = 4 << 20
RESERVE_SHARE: Final = 64  # of the filesystem: one part in so many
STEP_BYTES: Final = 2 << 20  # given back at once: many commits of deletes
SMALL_WRITE_BYTES: Final = 64 << 10  # what a write of metadata alone may take, in journal and LMDB
CREDIT_BYTES: Final = 4 << 20  # for which an upload counts that has sent nothing yet
LEFT_FREE_BYTES: Final = 256 << 10  # when the reserve is filled again
PLENTY_BYTES: Final = 1 << 30  # with so much to spare a look at the disk stays good for a second
PROBE_SECONDS: Final = 1.0

_CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class DiskFull(MapFull):
    """A write was refused before it began: it would not fit. Nothing was changed; reading and deleting still work."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(
            f"There is not enough space left to store this object: {needed} bytes are needed, "
            f"{free} are free for new data."
        )
        self.needed = needed
        self.free = free


@dataclass(frozen=True, slots=True)
class Disk:
    """What a look at the filesystem of the store shows, in bytes."""

    free: int  # for us, without what only root may take
    reserve: int  # length of the reserve file now


@dataclass(frozen=True, slots=True)
class SpacePolicy:
    """How much is kept back. `reserve` 0: the filesystem cannot preallocate."""

    reserve: int
    floor: int

    @classmethod
    def of(cls, filesystem_bytes: int) -> SpacePolicy:
        share = min(max(filesystem_bytes // RESERVE_SHARE, MIN_RESERVE_BYTES), MAX_RESERVE_BYTES)
        return cls(share, share // 2)

    def available(self, disk: Disk) -> int:
        """What is free for new data: the floor stays, and the reserve comes first."""
        return max(0, disk.free - self.floor - max(0, self.reserve - disk.reserve))


def needed_bytes(length: int) -> int:
    """What storing `length` bytes may take at worst: they neither compress nor deduplicate.

    Beside the bytes: frame headers (0.2 %), placements in journal and LMDB (1 to 2 %), and the last pages of each.
    """
    return length + length // 32 + SMALL_WRITE_BYTES


def counted_bytes(left: int, written: int) -> int:
    """For how much an upload counts that has `left` bytes to go."""
    return min(left, written + CREDIT_BYTES)


class Claim:
    """Room that one upload was promised; see `Space.claim`. Release it in any case."""

    __slots__ = ("_counted", "_left", "_space", "_written")

    def __init__(self, space: Space, needed: int) -> None:
        self._space = space
        self._left = needed
        self._written = 0
        self._counted = 0
        self._count()

    def written(self, length: int) -> None:
        """`length` more bytes have reached the disk, or turned out to need no room."""
        self._written += length
        self._left = max(0, self._left - length)
        self._count()

    def release(self) -> None:
        """Idempotent."""
        self._left = 0
        self._count()

    def _count(self) -> None:
        counted = counted_bytes(self._left, self._written)
        self._space.count(counted - self._counted)
        self._counted = counted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Space:
    """See the module."""

    def __init__(
        self,
        directory: Path,
        *,
        policy: SpacePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds, any origin."""
        self._directory = directory
        self._path = directory / RESERVE_FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._claimed = 0
        self._seen = Disk(0, 0)
        self._seen_at = -PROBE_SECONDS
        self.policy = policy or SpacePolicy.of(_filesystem_bytes(directory))

    # -- new data

    def claim(self, length: int) -> Claim:
        """Promise room for an upload of `length` bytes. Raises DiskFull."""
        needed = needed_bytes(length)
        self.require(needed)
        return Claim(self, needed)

    def require(self, needed: int = SMALL_WRITE_BYTES) -> None:
        """Raises DiskFull unless `needed` bytes are free beside what is claimed."""
        now = self._clock()
        if now - self._seen_at < PROBE_SECONDS and self._spare() >= needed + PLENTY_BYTES:
            return
        self._seen, self._seen_at = self.probe(), now
        spare = self._spare()
        if spare < needed:
            raise DiskFull(needed, max(0, spare))

    def full(self, needed: int) -> DiskFull:
        """For a write that met a full disk on its way: what to tell its client."""
        self._seen = self.probe()
        return DiskFull(needed, max(0, self._spare()))

    def count(self, more: int) -> None:
        """The claims count for `more` bytes (less, if negative)."""
        with self._lock:
            self._claimed += more

    def _spare(self) -> int:
        return self.policy.available(self._seen) - self._claimed

    # -- the reserve

    def make_room(self) -> bool:
        """Give a step of the reserve back to the filesystem; False if there is none left, or room without it.

        Called by a commit that found no room, which is then worth another attempt. Blocking. Never raises.
        """
        with suppress(OSError):
            disk = self.probe()
            if disk.free >= 2 * STEP_BYTES or not disk.reserve:
                return False  # it is not the disk that is full; or nothing is left
            os.truncate(self._path, max(0, disk.reserve - STEP_BYTES))
            return True
        return False

    def ensure(self, wanted: int) -> bool:
        """Give back as much of the reserve as leaves `wanted` bytes free; False if that is not enough.

        For work that makes room in the end and needs some for that: opening a store, the collector's copies.
        Blocking. Never raises.
        """
        with suppress(OSError):
            disk = self.probe()
            if disk.free < wanted and disk.reserve:
                os.truncate(self._path, max(0, disk.reserve - (wanted - disk.free)))
                disk = self.probe()
            return disk.free >= wanted
        return False

    def restore(self) -> bool:
        """Fill the reserve again, as far as there is room; True if it is whole. Blocking. Never raises.

        Call it now and then, and when a store is opened. It comes before the floor: what lies free on a full disk is
        soon taken by others.
        """
        with suppress(OSError):
            disk = self.probe()
            missing = self.policy.reserve - disk.reserve
            length = min(missing, disk.free - LEFT_FREE_BYTES)
            return missing <= 0 or (length > 0 and self._allocate(disk.reserve, length))
        return False

    def _allocate(self, offset: int, length: int) -> bool:
        if not hasattr(os, "posix_fallocate"):  # macOS
            self._do_without()
            return False
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, offset, length)
        except OSError as error:
            os.ftruncate(fd, offset)
            if error.errno in _CANNOT:
                self._do_without()
            return False
        finally:
            os.close(fd)
        return offset + length >= self.policy.reserve

    def _do_without(self) -> None:
        self.policy = SpacePolicy(0, self.policy.floor + self.policy.reserve)

    def probe(self) -> Disk:
        """A look at the filesystem. Raises OSError."""
        found = os.statvfs(self._directory)
        try:
            reserve = self._path.stat().st_size
        except FileNotFoundError:
            reserve = 0
        return Disk(found.f_bavail * found.f_frsize, reserve)


def _filesystem_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize
