"""uniform-1: base chunks of incompressible data are joined to about 1 MiB. Sans-io.

Encrypted backups and compressed files are most of what many stores hold; nothing in them repeats but whole files, so
small chunks only cost rows, hashes and seeks. Whether a chunk looks like noise is decided by counting bytes, in
integers: what a compressor makes of it is no frozen function. The rule is in cas/FORMAT.md.

Joined chunks end by content, so they are found again behind an insertion. They also end before a base chunk that they
hold already: what repeats within `MAX_JOINED_BYTES` is still stored once.

Memory: the base chunks of one joined chunk, up to `MAX_JOINED_BYTES`; see `relent`.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

TARGET_BYTES: Final = 1 << 20
MAX_JOINED_BYTES: Final = 2 << 20
MIN_UNIFORM_BYTES: Final = 8192
_TAIL_BYTES: Final = 64

# Of a sample of k bytes, half of them from each quarter point: the sum of the squared counts of the byte values. Of
# noise it is 18,424 +- 181 for 2 KiB, and 270,304 +- 723 for 8 KiB; the bounds are six and five and a half of these off.
_FEW: Final = 2048
_MAX_OF_FEW: Final = 19_500
_MANY: Final = 8192
_MAX_OF_MANY: Final = 274_300
# Counting 8 KiB costs 20 us, so only one chunk in four (by its end) is asked: enough to part deflate from noise.
_ASKED: Final = 3 << 24
# With the sum below its bound no value can be counted more often: 64 alone is 56^2 off its share.
_MAX_COUNT: Final = 63


def is_uniform(chunk: memoryview, tail: int) -> bool:
    """Whether the bytes look like noise. O(1). `tail`: the CRC-32 of their last 64."""
    if len(chunk) < MIN_UNIFORM_BYTES:
        return False
    sample = _sample(chunk, _FEW)
    # These two only spare the counting for most of what is no noise; they follow from it.
    if sample.isascii() or sample.count(0) > _MAX_COUNT:
        return False
    if _squares(sample) > _MAX_OF_FEW:
        return False
    return bool(tail & _ASKED) or _squares(_sample(chunk, _MANY)) <= _MAX_OF_MANY


def _sample(chunk: memoryview, size: int) -> bytes:
    half = size // 2
    first, second = len(chunk) // 4 - half // 2, 3 * len(chunk) // 4 - half // 2
    return b"".join((chunk[first : first + half], chunk[second : second + half]))


def _squares(sample: bytes) -> int:
    counts = np.bincount(np.frombuffer(sample, np.uint8), minlength=256)
    return int(counts.dot(counts))


class Joiner:
    """Base chunks in, chunks out. One thread at a time."""

    def __init__(self, average: int) -> None:
        """`average`: of the base chunks, in bytes."""
        self._mask = (1 << max(0, (TARGET_BYTES // average).bit_length() - 1)) - 1
        self._position = 0  # offset in the stream behind the last base chunk
        self._start = 0  # of the open joined chunk
        self._parts: list[memoryview | bytes] = []  # its base chunks, in pieces
        self._own = 0  # so many of them are copies of our own
        self._tails: set[int] = set()  # CRC-32 of the ends of its base chunks
        self.held_bytes = 0

    def take(self, chunks: Iterable[memoryview], source: memoryview, origin: int) -> list[memoryview]:
        """All that is complete now. `source`: bytes of the stream from offset `origin` on, for chunks that lie in it."""
        done: list[memoryview] = []
        for chunk in chunks:
            tail = zlib.crc32(chunk[-_TAIL_BYTES:])
            if is_uniform(chunk, tail):
                self._join(chunk, tail, source, origin, done)
            else:
                if self._parts:
                    self._close(source, origin, done)
                done.append(chunk)
                self._position += len(chunk)
        return done

    def end(self, source: memoryview, origin: int) -> list[memoryview]:
        """The segment ends: the open chunk too."""
        done: list[memoryview] = []
        if self._parts:
            self._close(source, origin, done)
        return done

    def keep(self) -> None:
        """What was fed is going away: copy what is still needed of it."""
        if self._own < len(self._parts):
            self._parts[self._own :] = [b"".join(self._parts[self._own :])]
            self._own = len(self._parts)

    def relent(self) -> list[memoryview]:
        """Give the open chunk out as it stands, for there is no memory to wait for its end."""
        return self.end(memoryview(b""), self._position)

    def _join(
        self, chunk: memoryview, tail: int, source: memoryview, origin: int, done: list[memoryview]
    ) -> None:
        if self._parts and (self.held_bytes + len(chunk) > MAX_JOINED_BYTES or tail in self._tails):
            self._close(source, origin, done)
        if not self._parts:
            self._start = self._position
        self._parts.append(chunk)
        self._tails.add(tail)
        self._position += len(chunk)
        self.held_bytes += len(chunk)
        if not tail & self._mask:
            self._close(source, origin, done)

    def _close(self, source: memoryview, origin: int, done: list[memoryview]) -> None:
        if self._start >= origin:
            done.append(source[self._start - origin : self._position - origin])
        else:
            done.append(memoryview(b"".join(self._parts)))
        self._parts = []
        self._own = 0
        self._tails.clear()
        self.held_bytes = 0
