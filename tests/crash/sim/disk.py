"""A disk in memory with two images of everything: what processes see, and what a power cut leaves.

What it promises is what POSIX promises and no more:

* The bytes of a file are durable after a sync of that file; until then a cut keeps, loses or tears each write at the
  sector, in any order.
* A name is durable after a sync of its folder; until then a cut keeps or loses it. `ordered`: as the journal of ext4 and
  xfs has it, later changes of names never survive earlier ones; otherwise each stands for itself. A rename is atomic.
* After a failed sync the unsynced bytes are gone, though reads still show them until they are evicted.

Nodes are mutable and belong to one disk; no locks: one simulated process runs at a time.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

SECTOR_BYTES = 512


def failure(code: int, what: str) -> OSError:
    return OSError(code, f"simulated: {what}")


@dataclass(slots=True, eq=False)
class File:
    number: int
    data: bytearray = field(default_factory=bytearray)  # what processes see
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(
        default_factory=list
    )  # (offset, bytes) or (new length, None)
    locks: dict[int, str] = field(default_factory=dict)  # descriptor -> "shared" or "exclusive"
    lmdb: Any = None  # the states of a simulated LMDB file: see `lmdb.py`

    def write(self, offset: int, data: bytes) -> None:
        _put(self.data, offset, data)
        self.pending.append((offset, data))

    def resize(self, length: int) -> None:
        _resize(self.data, length)
        self.pending.append((length, None))

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, *change)
        self.pending.clear()

    def fail_to_sync(self) -> None:
        """The kernel gives up the dirty pages and marks them clean."""
        self.pending.clear()

    def evict(self) -> None:
        """Clean pages are forgotten: reads see the disk again."""
        self.data = bytearray(self.durable)
        for change in self.pending:
            _apply(self.data, *change)

    def cut(self, rng: random.Random) -> None:
        """The power fails: what is left of the unsynced changes."""
        fate = rng.choice(("nothing", "everything", "some", "torn", "up to a moment")) if self.pending else ""
        stop = rng.randrange(len(self.pending) + 1) if fate == "up to a moment" else len(self.pending)
        for offset, data in self.pending[:stop] if fate not in ("", "nothing") else ():
            if data is None or fate in ("everything", "up to a moment"):
                if fate in ("everything", "up to a moment") or rng.random() < 0.5:
                    _apply(self.durable, offset, data)
            elif fate == "some":
                if rng.random() < 0.5:
                    _put(self.durable, offset, data)
            else:
                _tear(self.durable, offset, data, rng)
        self.pending.clear()
        self.locks.clear()
        self.data = bytearray(self.durable)


@dataclass(slots=True, eq=False)
class Folder:
    number: int
    entries: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    locks: dict[int, str] = field(default_factory=dict)


Node = File | Folder


@dataclass(frozen=True, slots=True)
class Renaming:
    """A change of names: `node` leaves `source` (None: it is new) and appears at `target` (None: it is removed)."""

    node: Node
    source: tuple[Folder, str] | None
    target: tuple[Folder, str] | None

    def touches(self, folder: Folder) -> bool:
        return any(end is not None and end[0] is folder for end in (self.source, self.target))

    def apply(self) -> None:
        """To the durable image; what does not fit any more (something before it was lost) is left out."""
        if self.source is not None and self.source[0].durable.get(self.source[1]) is self.node:
            del self.source[0].durable[self.source[1]]
        if self.target is not None:
            self.target[0].durable[self.target[1]] = self.node


class Disk:
    """See the module."""

    def __init__(self) -> None:
        self.root = Folder(1)
        self.full = False  # nothing may grow
        self._numbers = 1
        self._unsynced: list[Renaming] = []

    # Names. `path` is a tuple of names.

    def find(self, path: tuple[str, ...]) -> Node:
        node: Node = self.root
        for name in path:
            if not isinstance(node, Folder):
                raise failure(errno.ENOTDIR, "/".join(path))
            try:
                node = node.entries[name]
            except KeyError:
                raise FileNotFoundError(errno.ENOENT, "simulated: no such file", "/".join(path)) from None
        return node

    def folder(self, path: tuple[str, ...]) -> Folder:
        node = self.find(path)
        if not isinstance(node, Folder):
            raise failure(errno.ENOTDIR, "/".join(path))
        return node

    def make(self, path: tuple[str, ...], kind: type[File | Folder]) -> Node:
        parent = self.folder(path[:-1])
        if path[-1] in parent.entries:
            raise FileExistsError(errno.EEXIST, "simulated: it exists", "/".join(path))
        if self.full:
            raise failure(errno.ENOSPC, "the disk is full")
        self._numbers += 1
        node = kind(self._numbers)
        self._rename(Renaming(node, None, (parent, path[-1])))
        return node

    def remove(self, path: tuple[str, ...]) -> None:
        node = self.find(path)
        if isinstance(node, Folder) and node.entries:
            raise failure(errno.ENOTEMPTY, "/".join(path))
        self._rename(Renaming(node, (self.folder(path[:-1]), path[-1]), None))

    def rename(self, source: tuple[str, ...], target: tuple[str, ...]) -> None:
        node, ends = self.find(source), (self.folder(source[:-1]), self.folder(target[:-1]))
        self._rename(Renaming(node, (ends[0], source[-1]), (ends[1], target[-1])))

    def sync_folder(self, folder: Folder, *, ordered: bool) -> None:
        touching = [n for n, change in enumerate(self._unsynced) if change.touches(folder)]
        if not touching:
            return
        now = range(touching[-1] + 1) if ordered else touching
        for n in now:
            self._unsynced[n].apply()
        done = set(now)
        self._unsynced = [change for n, change in enumerate(self._unsynced) if n not in done]

    def _rename(self, change: Renaming) -> None:
        if change.source is not None:
            del change.source[0].entries[change.source[1]]
        if change.target is not None:
            change.target[0].entries[change.target[1]] = change.node
        self._unsynced.append(change)

    # The end of everything

    def cut(self, rng: random.Random, *, ordered: bool) -> None:
        """The power fails; on return this is the disk that the next start finds."""
        if ordered:
            kept = self._unsynced[: rng.randrange(len(self._unsynced) + 1)]
        else:
            share = rng.choice((0.0, 0.5, 1.0))
            kept = [change for change in self._unsynced if rng.random() < share]
        for change in kept:
            change.apply()
        self._unsynced.clear()
        self._settle(self.root, rng)
        self.full = False

    def _settle(self, folder: Folder, rng: random.Random) -> None:
        folder.entries = dict(folder.durable)
        folder.locks.clear()
        for name in sorted(folder.entries):
            node = folder.entries[name]
            if isinstance(node, Folder):
                self._settle(node, rng)
            else:
                if node.lmdb is not None:
                    node.lmdb = node.lmdb.cut(rng)
                node.cut(rng)

    def used_bytes(self, path: tuple[str, ...]) -> int:
        node = self.find(path)
        if isinstance(node, File):
            return len(node.data)
        return sum(self.used_bytes((*path, name)) for name in node.entries)


def _put(image: bytearray, offset: int, data: bytes) -> None:
    if offset > len(image):
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


def _resize(image: bytearray, length: int) -> None:
    if length < len(image):
        del image[length:]
    else:
        image.extend(bytes(length - len(image)))


def _apply(image: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        _resize(image, offset)
    else:
        _put(image, offset, data)


def _tear(image: bytearray, offset: int, data: bytes, rng: random.Random) -> None:
    """Sectors of the disk, not of the write, are atomic."""
    share = rng.choice((0.2, 0.5, 0.9))
    end = offset + len(data)
    while offset < end:
        stop = min(end, (offset // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if rng.random() < share:
            _put(image, offset, data[len(data) - (end - offset) : len(data) - (end - stop)])
        offset = stop
