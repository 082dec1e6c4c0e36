"""Appending frames: one open pack per kind, a new one when it is full, and the care for packs until their rows are right.

A pack is remembered here from its first byte until a commit has written how it ended (sealed, or poisoned and
sealed at its durable length); nothing else knows about frames that are written but not yet published.

Pack numbers are writer number (u32 from 1) and a counter from 1 (u32); a writer number is never used twice. Number 0 is
no writer's (a process that may only read): its packs would be adopted by nobody, so it makes none.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from cas.catalog import PackState
from cas.errors import PackPoisoned, PlaceFailed
from cas.openpack import TARGET_BYTES, OpenPack
from cas.pack import PackHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cas.catalog import PackProgress
    from cas.chunk import Identity
    from cas.frame import EncodedFrame
    from cas.pack import PackKind
    from cas.ports import PackPlace


NO_WRITER: Final = 0  # of a process that has opened a read-only store: it makes no packs


class Appender:
    """See the module. Thread-safe."""

    def __init__(
        self,
        place: PackPlace,
        identity: Identity,
        writer: int,
        clock: Callable[[], float],
        target_bytes: int = TARGET_BYTES,
    ) -> None:
        self._place = place
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._target_bytes = target_bytes
        self._counter = itertools.count(1)
        self._lock = threading.Lock()
        self._current: dict[PackKind, OpenPack] = {}
        self._unsettled: dict[int, OpenPack] = {}  # every pack whose row does not say yet how it ended
        # Poisoned packs and their durable lengths. Never forgotten: an upload may ask for the lost bytes long after
        # the pack's row was settled, and must not take silence for durability.
        self.lost: dict[int, int] = {}
        # Packs in a row that the disk failed (a full one has not), without one successful flush between them.
        self.failures_in_a_row = 0
        self.has_leftovers = False  # files without a row, which adoption has to remove

    def append(self, kind: PackKind, frame: EncodedFrame, chunks: int) -> tuple[int, int, int]:
        """(pack, offset, ordinal of the first chunk). Written on return, not durable.

        Raises NoSpace, PackPoisoned, PlaceFailed.
        """
        while True:
            pack = self._current.get(kind) or self._open(kind)
            with self._remember_lost():
                placed = pack.append(frame, chunks)
            if placed is not None:
                return pack.pack, *placed
            with self._lock:
                if self._current.get(kind) is pack:
                    del self._current[kind]

    def make_durable(self, pack: int, end: int) -> PackProgress | None:
        """None: it ended before, and its row says so. Raises PackPoisoned."""
        with self._lock:
            open_pack = self._unsettled.get(pack)
        if open_pack is not None:
            with self._remember_lost():
                progress = open_pack.make_durable(end)
            if end and not progress.footerless:
                self.failures_in_a_row = 0
            return progress
        if end > self.lost.get(pack, end):
            raise PackPoisoned(pack, self.lost[pack], "an earlier flush or write failed")
        return None

    def ended(self) -> list[PackProgress]:
        """Packs that ended but whose row does not say so yet. Full packs are sealed first, if nobody writes to them."""
        with self._lock:
            packs = [pack for pack in self._unsettled.values() if pack is not self._current.get(pack.kind)]
        steps = [pack.make_durable(0) for pack in packs]
        for step in steps:
            if step.footerless:
                self.lost[step.pack] = step.length
                if not step.length:
                    self._abandon(step.pack)
        return [step for step in steps if step.state != PackState.OPEN and step.length > 0]

    def settle(self, steps: Iterable[PackProgress]) -> None:
        """A commit has written these."""
        for step in steps:
            with self._lock:
                pack = self._unsettled.get(step.pack)
            if pack is not None:
                pack.has_row = True
                if step.footerless:
                    self.lost[step.pack] = step.length
                if step.state != PackState.OPEN:
                    self._drop(step.pack)

    def seal(self, born_before: float | None = None) -> None:
        """Seal every open pack (whose first byte is older). A pack that cannot be sealed now stays for later."""
        with self._lock:
            packs = [p for p in self._unsettled.values() if born_before is None or p.born <= born_before]
            for kind, pack in list(self._current.items()):
                if pack in packs:
                    del self._current[kind]
        for pack in packs:
            with suppress(PackPoisoned), self._remember_lost():
                pack.seal()  # if it fails, the row will say what is durable, and who needed more is told

    def close(self) -> None:
        """Let go of the files that are still open."""
        with self._lock:
            packs = list(self._unsettled.values())
            # A full disk: the pack got its header, but neither a frame that was published nor a footer.
            self.has_leftovers |= any(not pack.has_row for pack in packs)
            self._unsettled.clear()
            self._current.clear()
        for pack in packs:
            pack.close()

    def _open(self, kind: PackKind) -> OpenPack:
        with self._lock:
            pack = self._current.get(kind)
            if pack is None:
                pack = self._create(kind)
                self._unsettled[pack.pack] = self._current[kind] = pack
            return pack

    def _create(self, kind: PackKind) -> OpenPack:
        if self._writer == NO_WRITER:
            raise PlaceFailed("this process has no writer number: it may not make packs")
        number = self._writer << 32 | next(self._counter)
        header = PackHeader.of(self._identity, number, kind)
        try:
            writer = self._place.create(number)
            try:
                return OpenPack(writer, header, target_bytes=self._target_bytes, born=self._clock())
            except BaseException:
                writer.close()
                self._place.remove(number)
                raise
        except OSError as error:
            self.failures_in_a_row += 1
            raise PlaceFailed(f"pack {number:016x} cannot be made: {error}") from error

    @contextmanager
    def _remember_lost(self) -> Iterator[None]:
        try:
            yield
        except PackPoisoned as error:
            if error.pack not in self.lost and isinstance(error.__cause__, OSError):
                self.failures_in_a_row += 1
            self.lost[error.pack] = error.durable
            raise

    def _abandon(self, pack: int) -> None:
        """Poisoned before anything was durable: no row, the file is garbage."""
        self._drop(pack)
        try:
            self._place.remove(pack)
        except OSError:
            self.has_leftovers = True

    def _drop(self, pack: int) -> None:
        with self._lock:
            dropped = self._unsettled.pop(pack, None)
        if dropped is not None:
            dropped.close()
