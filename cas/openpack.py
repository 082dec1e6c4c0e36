"""One pack while its process appends to it: places are reserved, written side by side, made durable together.

* `append` reserves a place under a lock held for microseconds and writes outside it, so threads write in parallel.
  Frames lie in the pack in the order of their reservations; a chunk's ordinal follows from that order.
* `make_durable` waits until everything below the wanted offset is written, then flushes once for all who wait
  (a group: who comes while a flush runs shares the next one).
* A write that fails leaves a hole unless it was the last reservation; a flush that fails leaves nothing to trust.
  Either poisons the pack: it ends at its last durable length, whoever needed more gets PackPoisoned, and the file
  is never written or flushed again.
* A full pack is sealed by whoever makes it durable once nobody writes to it: footer, cut, flush.
"""

from __future__ import annotations

import bisect
import threading
from typing import TYPE_CHECKING, Final

from cas.catalog import PackProgress, PackState
from cas.errors import NoSpace, PackPoisoned
from cas.pack import encode_footer

if TYPE_CHECKING:
    from cas.frame import EncodedFrame
    from cas.pack import PackHeader
    from cas.ports import PackWriter

TARGET_BYTES: Final = 64 << 20


class OpenPack:
    """See the module. Thread-safe. `born`: the time of its first byte."""

    def __init__(self, writer: PackWriter, header: PackHeader, *, target_bytes: int, born: float) -> None:
        """Takes `writer` over. Raises NoSpace, OSError."""
        self.pack = header.pack
        self.kind = header.kind
        self.born = born
        self.has_row = False  # set when a commit that holds its row has succeeded
        self._domain = header.domain
        self._writer = writer
        self._target = target_bytes
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        encoded = header.encode()
        writer.prepare(len(encoded))
        writer.write(0, [encoded])
        self._tail = len(encoded)  # where the next reservation begins
        self._durable = 0
        self._writing: set[int] = set()  # offsets reserved and not yet written
        self._frames: list[tuple[int, bytes]] = []  # (offset, header)
        self._totals: list[tuple[int, int, int]] = []  # per frame: its end; chunks and raw bytes up to there
        self._flushing = False
        self._full = False
        self._sealed = False
        self._footer_fits = True
        self._poison: Exception | None = None

    def append(self, frame: EncodedFrame, chunks: int) -> tuple[int, int] | None:
        """(offset, ordinal of the first chunk); None: this pack takes no more, take another.

        Written on return, not durable. Raises NoSpace (nothing happened), PackPoisoned.
        """
        size = frame.total_length
        with self._changed:
            if self._full or (self._frames and self._tail + size > self._target):
                self._full = True
                return None
            self._writer.prepare(self._tail + size)
            offset, ordinal = self._reserve(frame, size, chunks)
        try:
            self._writer.write(offset, (frame.header, *frame.payload))
        except Exception as error:
            self._write_failed(offset, error)
            if isinstance(error, NoSpace):
                raise
            raise PackPoisoned(self.pack, self._durable, f"write failed: {error}") from error
        with self._changed:
            self._writing.remove(offset)
            self._changed.notify_all()
        return offset, ordinal

    def make_durable(self, end: int) -> PackProgress:
        """Return when the first `end` bytes are durable; a full pack is sealed on the way. Raises PackPoisoned."""
        while True:
            with self._changed:
                if self._writer.ends_at_sync and self._durable < end:
                    self._full = True
                self._changed.wait_for(lambda: self._can_go_on(end))
                seal = self._sealable()
                if self._durable >= end and not seal:
                    return self._progress()
                if self._poison is not None:
                    raise PackPoisoned(self.pack, self._durable, str(self._poison)) from self._poison
                self._flushing = True
                goal = min(self._writing, default=self._tail)
            try:
                durable = self._seal(goal) if seal else self._flush(goal)
            except Exception as error:
                self._flush_failed(error)
            else:
                self._flushed(durable)

    def seal(self) -> PackProgress:
        """End the pack and make all of it durable. Raises PackPoisoned. May be asked again after a full disk."""
        with self._changed:
            self._full = True
            self._footer_fits = True
            self._changed.wait_for(lambda: not self._writing)
            end = self._tail
        return self.make_durable(end)

    def progress(self) -> PackProgress:
        """How far it has come."""
        with self._changed:
            return self._progress()

    def close(self) -> None:
        """Let go of the file. Nobody may append any more."""
        self._writer.close()

    # The rest serves the above. _changed is held, but by _seal, _flush and the methods that take it themselves.

    def _reserve(self, frame: EncodedFrame, size: int, chunks: int) -> tuple[int, int]:
        offset = self._tail
        _, ordinal, raw_bytes = self._totals[-1] if self._totals else (0, 0, 0)
        self._tail += size
        self._frames.append((offset, frame.header))
        self._totals.append((self._tail, ordinal + chunks, raw_bytes + frame.raw_length))
        self._writing.add(offset)
        return offset, ordinal

    def _can_go_on(self, end: int) -> bool:
        if self._flushing:
            return False
        if self._poison is not None or self._durable >= end:
            return True
        if self._writer.ends_at_sync:
            return not self._writing
        return min(self._writing, default=self._tail) >= end

    def _sealable(self) -> bool:
        idle = not self._writing and not self._flushing
        return self._full and idle and not self._sealed and self._footer_fits and self._poison is None

    def _flush(self, goal: int) -> int:
        self._writer.sync()
        return goal

    def _seal(self, end: int) -> int:
        footer = encode_footer(end, self._frames)
        try:
            self._writer.prepare(end + len(footer))
            self._writer.write(end, [footer])
        except NoSpace:
            # The frames are sound; the pack only stays unsealed until somebody asks again.
            self._footer_fits = False
            return self._flush(end)
        self._writer.finish(end + len(footer))
        self._sealed = True
        return end + len(footer)

    def _flushed(self, durable: int) -> None:
        with self._changed:
            self._flushing = False
            self._durable = durable
            self._changed.notify_all()

    def _flush_failed(self, error: Exception) -> None:
        with self._changed:
            self._flushing = False
            self._full = True
            self._poison = error
            self._changed.notify_all()

    def _write_failed(self, offset: int, error: Exception) -> None:
        with self._changed:
            self._writing.remove(offset)
            if self._frames[-1][0] == offset and isinstance(error, NoSpace):
                self._frames.pop()
                self._totals.pop()
                self._tail = offset
            else:
                self._full = True
                self._poison = self._poison or error
            self._changed.notify_all()

    def _progress(self) -> PackProgress:
        ended = self._sealed or self._poison is not None
        frames = bisect.bisect_right(self._totals, self._durable, key=lambda total: total[0])
        _, chunks, raw_bytes = self._totals[frames - 1] if frames else (0, 0, 0)
        return PackProgress(
            pack=self.pack,
            kind=self.kind,
            domain=self._domain,
            state=PackState.SEALED if ended else PackState.OPEN,
            footerless=ended and not self._sealed,
            length=self._durable,
            frames=frames,
            chunks=chunks,
            raw_bytes=raw_bytes,
            has_row=self.has_row,
        )
