"""Parts of large chunks, for streams that can hold no more of them."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from awscrt.checksums import crc64nvme

if TYPE_CHECKING:
    from cas.chunk import ChunkId
    from cas.reading import ChunkIdOf, FrameReader, Span


class Slices:
    """Parts of chunks, for who can hold no more of a large one (of noise, up to 2 MiB): read in order, each a copy.

    A large chunk is read and verified whole for its first part. Of the others a checksum is taken then, and they are read
    alone and held against that; if it does not match, the whole is read and verified again. So a sound chunk is
    read about twice, whatever the number of its parts. One stream, one thread at a time.
    """

    def __init__(self, frames: FrameReader, chunk_id: ChunkIdOf, part_bytes: int) -> None:
        """`part_bytes`: the length of all parts of a chunk but its last, counted from the first that is asked for."""
        self._frames = frames
        self._chunk_id = chunk_id
        self._part_bytes = part_bytes
        self._chunk: ChunkId | None = None  # whose parts these are
        self._first = 0  # where the first of them begins
        self._checksums = array("Q")

    def read(self, span: Span) -> bytes:
        """Raises as `FrameReader.read`."""
        part, rest = divmod(span.start - self._first, self._part_bytes)
        if span.chunk == self._chunk and not rest and 0 <= part < len(self._checksums):
            data = self._frames.read_unverified(span)
            if data is not None and crc64nvme(data) == self._checksums[part]:
                return data
        (chunk,) = self._frames.read([span._replace(start=0, stop=span.placement.length)], self._chunk_id)
        self._take_checksums(span, chunk)
        return bytes(chunk[span.start : span.stop])

    def _take_checksums(self, span: Span, chunk: memoryview) -> None:
        starts = (
            range(span.start, span.placement.length, self._part_bytes) if span.placement.raw_frame else ()
        )
        self._chunk, self._first = span.chunk, span.start
        self._checksums = array("Q", [crc64nvme(chunk[start : start + self._part_bytes]) for start in starts])
