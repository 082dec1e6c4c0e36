"""All cut rules of a store together: bytes in, chunks out. Sans-io.

tar-1 cuts the stream into segments; in each segment FastCDC begins anew; uniform-1 joins chunks inside one segment.
Each of the two can be off. Content decides, never arrival: any split of the input into feeds gives the same chunks,
with one exception that its caller asks for (`settle`).

Memory between feeds: less than the largest base chunk, 512 bytes, and an open joined chunk (up to 2 MiB, of noise
only).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.chunker import Chunker, CutRules
from cas.tar_cuts import TarCuts
from cas.uniform import Joiner

if TYPE_CHECKING:
    from cas.chunk import Identity


class Cutter:
    """One stream. One thread at a time."""

    def __init__(self, rules: CutRules, *, tar: bool, uniform: bool) -> None:
        self._chunker = Chunker(rules)
        self._tar = TarCuts() if tar else None
        self._joiner = Joiner(rules.average) if uniform else None
        self._position = 0  # how much the chunker was fed

    @classmethod
    def of(cls, identity: Identity) -> Cutter:
        """By a store's rules. Raises UnsupportedFormat."""
        return cls(CutRules.parse(identity.cdc), tar=bool(identity.tar), uniform=bool(identity.uniform))

    @property
    def held_bytes(self) -> int:
        held = self._chunker.held_bytes
        if self._tar is not None:
            held += self._tar.held_bytes
        if self._joiner is not None:
            held += self._joiner.held_bytes
        return held

    def feed(self, block: bytes | memoryview) -> list[memoryview]:
        """Every chunk that is complete now, in order, as views onto `block` or onto bytes of their own.

        The views stay valid as long as the caller does not change `block`; no reference to it is kept.
        """
        chunks: list[memoryview] = []
        for piece, ends in [(memoryview(block), False)] if self._tar is None else self._tar.feed(block):
            self._cut(piece, ends, chunks)
        if self._joiner is not None:
            self._joiner.keep()
        return chunks

    def settle(self) -> list[memoryview]:
        """Give out all but one undecided base chunk, for a caller that is short of memory.

        An open joined chunk ends here, which the same bytes, fed without this, would not do: it will not be found
        again, nor what follows up to the next end that content makes. The bound of memory is worth more.
        """
        chunks = self._chunker.settle()
        if self._joiner is None:
            return chunks
        done = self._joiner.take(chunks, memoryview(b""), self._position)
        return done + self._joiner.relent()

    def finish(self) -> list[memoryview]:
        """What is left, cut as the end of the stream."""
        chunks: list[memoryview] = []
        for piece, ends in [] if self._tar is None else self._tar.finish():
            self._cut(piece, ends, chunks)
        self._cut(memoryview(b""), True, chunks)
        return chunks

    def _cut(self, piece: memoryview, ends: bool, chunks: list[memoryview]) -> None:
        base = self._chunker.feed_last(piece) if ends else self._chunker.feed(piece)
        if self._joiner is None:
            chunks += base
            return
        chunks += self._joiner.take(base, piece, self._position)
        self._position += len(piece)
        if ends:
            chunks += self._joiner.end(piece, self._position - len(piece))
