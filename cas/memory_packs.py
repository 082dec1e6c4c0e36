"""A place for packs in memory, for tests: the same contract as `cas.packs`, and faults on demand.

Every pack has two images: what was written, and what the last sync made durable. `crash` gives the place that a
power cut would leave behind.
"""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING

from cas.errors import MissingPack, MissingSidecar, NoSpace, PackUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.ports import Buffer


class MemoryPacks:
    """See the module. The attributes are the faults; each may be changed at any time."""

    def __init__(self) -> None:
        self.volatile: dict[int, bytearray] = {}
        self.durable: dict[int, bytes] = {}
        self.capacity: int | None = None  # bytes of all packs together
        self.failing_syncs: set[int] = set()  # packs whose syncs fail from now on
        self.failing_writes: set[int] = set()
        self.forgetful: set[int] = set()  # packs whose writes succeed and change nothing
        self.unreadable: set[int] = set()
        self.bad_sectors: set[tuple[int, int]] = set()  # (pack, offset): reads fail, a write heals it
        self.sidecars = MemorySidecars()
        self.clock: Callable[[], float] = time.time
        self.times: dict[int, float] = {}  # of the last write
        self.sync_ends_pack = False  # as an object store: what was synced cannot grow
        self.syncs = 0
        self.reads: list[tuple[int, int, int]] = []  # (pack, offset, length) of every read
        self._lock = threading.Lock()

    def create(self, pack: int) -> MemoryPackWriter:
        with self._lock:
            if pack in self.volatile:
                raise FileExistsError(errno.EEXIST, f"pack {pack:016x} exists")
            self.volatile[pack] = bytearray()
            self.times[pack] = self.clock()
        return MemoryPackWriter(self, pack)

    def read(self, pack: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        if pack not in self.volatile:
            raise MissingPack(pack)
        if pack in self.unreadable or self._meets_bad_sector(pack, ranges):
            raise PackUnreadable(pack, "injected")
        self.reads += [(pack, offset, length) for offset, length in ranges]
        data = self.volatile[pack]
        return [bytes(data[offset : offset + length]) for offset, length in ranges]

    def length(self, pack: int) -> int:
        if pack not in self.volatile:
            raise MissingPack(pack)
        return len(self.volatile[pack])

    def written_at(self, pack: int) -> float:
        if pack not in self.volatile:
            raise MissingPack(pack)
        return self.times[pack]

    def packs(self, writer: int | None = None) -> Iterator[int]:
        yield from sorted(pack for pack in self.volatile if writer is None or pack >> 32 == writer)

    def seal_at(self, pack: int, length: int, footer: bytes) -> None:
        if pack not in self.volatile:
            raise MissingPack(pack)
        del self.volatile[pack][length:]
        writer = MemoryPackWriter(self, pack)
        writer.write(length, [footer])
        writer.finish(length + len(footer))

    def rewrite(self, pack: int, pieces: Sequence[tuple[int, bytes]]) -> None:
        if pack not in self.volatile:
            raise MissingPack(pack)
        writer = MemoryPackWriter(self, pack)
        for offset, data in pieces:
            writer.write(offset, [data])
        writer.sync()

    def drop_cached(self, pack: int) -> None:
        """Nothing is cached."""

    def remove(self, pack: int) -> None:
        self.sidecars.remove(pack)
        self.volatile.pop(pack, None)
        self.durable.pop(pack, None)

    def close(self) -> None:
        """Nothing is open."""

    def crash(self, torn: int = 0) -> MemoryPacks:
        """What a power cut leaves: durable bytes, and of each pack up to `torn` bytes of what followed."""
        left = MemoryPacks()
        left.clock, left.times = self.clock, dict(self.times)
        for pack, data in self.durable.items():
            left.volatile[pack] = bytearray(data) + self.volatile[pack][len(data) : len(data) + torn]
            left.durable[pack] = bytes(left.volatile[pack])
        return left

    def _meets_bad_sector(self, pack: int, ranges: Sequence[tuple[int, int]]) -> bool:
        return any(
            bad == pack and any(offset <= at < offset + length for offset, length in ranges)
            for bad, at in self.bad_sectors
        )

    def used(self) -> int:
        return sum(map(len, self.volatile.values()))


class MemoryPackWriter:
    def __init__(self, place: MemoryPacks, pack: int) -> None:
        self._place = place
        self._pack = pack

    @property
    def ends_at_sync(self) -> bool:
        return self._place.sync_ends_pack

    def prepare(self, length: int) -> None:
        place = self._place
        others = place.used() - len(place.volatile[self._pack])
        if place.capacity is not None and others + length > place.capacity:
            raise NoSpace("injected")

    def write(self, offset: int, parts: Sequence[Buffer]) -> None:
        if self._pack in self._place.failing_writes:
            raise OSError(errno.EIO, "injected")
        if self._pack in self._place.forgetful:
            return
        data = b"".join(parts)
        with self._place._lock:
            written = range(offset, offset + len(data))
            self._place.bad_sectors -= {
                (pack, at) for pack, at in self._place.bad_sectors if pack == self._pack and at in written
            }
            image = self._place.volatile[self._pack]
            image.extend(bytes(max(0, offset + len(data) - len(image))))
            image[offset : offset + len(data)] = data
            self._place.times[self._pack] = self._place.clock()

    def sync(self) -> None:
        place = self._place
        with place._lock:
            place.syncs += 1
            if self._pack in place.failing_syncs:
                raise OSError(errno.EIO, "injected")
            place.durable[self._pack] = bytes(place.volatile[self._pack])

    def finish(self, length: int) -> None:
        with self._place._lock:
            del self._place.volatile[self._pack][length:]
        self.sync()

    def close(self) -> None:
        """Nothing to release."""


class MemorySidecars:
    """Sidecars in memory: the contract of `cas.sidecars`."""

    def __init__(self) -> None:
        self.files: dict[int, bytearray] = {}

    def put(self, pack: int, data: bytes) -> None:
        self.files[pack] = bytearray(data)

    def read(self, pack: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        if pack not in self.files:
            raise MissingSidecar(pack)
        data = self.files[pack]
        return [bytes(data[offset : offset + length]) for offset, length in ranges]

    def length(self, pack: int) -> int:
        if pack not in self.files:
            raise MissingSidecar(pack)
        return len(self.files[pack])

    def remove(self, pack: int) -> None:
        self.files.pop(pack, None)

    def lengths(self) -> Iterator[tuple[int, int]]:
        for pack, data in sorted(self.files.items()):
            yield pack, len(data)
