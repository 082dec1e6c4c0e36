"""Content-defined chunking, sans-io: bytes in, complete chunks out.

Content decides, never arrival: any split of the input into feeds gives the same chunks. A cut is accepted only if a
mask or the maximum length made it; a cut at the end of what has arrived is no cut, those bytes wait for more.

Nothing is scanned before it can be decided: feeds are gathered until the maximum length is there, so tiny feeds do
not scan the same bytes again and again. Only the bytes carried over are copied, with as many of the next block as
decide where their chunk ends; all other chunks are views onto the block.

FastCDC 2020: Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage
Systems", IEEE TPDS 31(9); kernel: pyfastcdc (releases the GIL). Golden vectors: tests/cas/test_chunker.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, cast

from pyfastcdc import FastCDC

from cas.chunk import MAX_RAW_BYTES
from cas.errors import UnsupportedFormat

_RULE: Final = re.compile(r"fastcdc2020/(\d+)/(\d+)/(\d+)/nc([0-3])")


@dataclass(frozen=True, slots=True)
class CutRules:
    """Sizes in bytes. The real mean is a little above `average`, for nothing is cut below `minimum`."""

    average: int
    minimum: int
    maximum: int
    normalization: int

    @classmethod
    def parse(cls, text: str) -> CutRules:
        """From its name in the store's identity. Raises UnsupportedFormat."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise UnsupportedFormat(f"cut rule {text!r} is not known here")
        rules = cls(*map(int, match.groups()))
        if not 64 <= rules.minimum <= rules.average <= rules.maximum <= MAX_RAW_BYTES:
            raise UnsupportedFormat(f"cut rule {text!r} is out of bounds")
        return rules

    def cutter(self) -> FastCDC:
        return FastCDC(
            self.average,
            min_size=self.minimum,
            max_size=self.maximum,
            normalized_chunking=cast("Literal[0, 1, 2, 3]", self.normalization),
        )


class Chunker:
    """One stream. One thread at a time. Holds less than `rules.maximum` bytes between feeds."""

    def __init__(self, rules: CutRules) -> None:
        self._minimum = rules.minimum
        self._maximum = rules.maximum
        self._cutter = rules.cutter()
        self._tail = bytearray()

    @property
    def held_bytes(self) -> int:
        return len(self._tail)

    def feed(self, block: bytes | memoryview) -> list[memoryview]:
        """Every chunk that is complete now, in order, as views onto `block` or onto bytes of their own.

        The views stay valid as long as the caller does not change `block`; the chunker keeps no reference to it.
        """
        view = memoryview(block)
        if len(self._tail) + len(view) < self._maximum:
            self._tail += view
            return []
        chunks: list[memoryview] = []
        start = self._cut_across(view, chunks) if self._tail else 0
        self._cut_block(view[start:], chunks)
        return chunks

    def settle(self) -> list[memoryview]:
        """Chunks among the bytes held that are complete: `feed` looks for them only when it has `rules.maximum` bytes.

        For a caller that is short of memory. The cuts are the same.
        """
        held = bytes(self._tail)
        self._tail = bytearray()
        chunks: list[memoryview] = []
        self._cut_block(memoryview(held), chunks)
        return chunks

    def feed_last(self, block: memoryview) -> list[memoryview]:
        """As `feed`, then `finish`; what lies in `block` is not copied if nothing was held."""
        if self._tail:
            return self.feed(block) + self.finish()
        if len(block) <= self._minimum:
            return [block] if block else []
        return [cut.data for cut in self._cutter.cut_buf(block)]

    def finish(self) -> list[memoryview]:
        """What is left, cut as the end of the stream; the chunker is empty again."""
        if not self._tail:
            return []
        rest = bytes(self._tail)
        self._tail.clear()
        return [cut.data for cut in self._cutter.cut_buf(rest)]

    def _cut_across(self, view: memoryview, chunks: list[memoryview]) -> int:
        """Cut the chunks that begin in the tail; where in `view` the next one begins.

        With `maximum` bytes of the block behind the tail, each of these chunks is decided inside `head`.
        """
        carried = len(self._tail)
        head = b"".join((self._tail, view[: self._maximum]))
        self._tail.clear()
        end = 0
        for cut in self._cutter.cut_buf(head):
            end = cut.offset + cut.length
            if end == len(head) and cut.length < self._maximum:
                # Undecided, hence (see above) the block ended inside `head`: the rest is the new tail.
                self._tail += cut.data
                return len(view)
            chunks.append(cut.data)
            if end >= carried:
                break
        return end - carried

    def _cut_block(self, view: memoryview, chunks: list[memoryview]) -> None:
        if not view:
            return
        last = None
        append = chunks.append
        for last in self._cutter.cut_buf(view):
            append(last.data)
        if last is not None and last.length < self._maximum:
            # pyfastcdc ends its last cut where the buffer ends; a mask cuts before that, always.
            chunks.pop()
            self._tail += last.data
