"""The bytes of a stored object as a file that an HTTP client reads: seekable, of known length, verified chunk by chunk.

Its user holds an operation of the store for as long as it reads. Blocking; one thread at a time. Holds one window.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

from cas.manifest import Manifest
from vaultaire.reading import WINDOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

    from cas.store import ChunkStore
    from index.records import ObjectRecord

    Piece = bytes | memoryview


class StoredBody(io.RawIOBase):
    """Bytes [start, stop) of `record`. Reading raises CasError for damage."""

    def __init__(
        self, chunks: ChunkStore, record: ObjectRecord, start: int = 0, stop: int | None = None
    ) -> None:
        super().__init__()
        self._chunks = chunks
        self._record = record
        self._start = start
        self._length = (record.size if stop is None else stop) - start
        self._position = 0
        self._pieces: Iterator[Piece] = iter(())
        self._piece = memoryview(b"")
        self._pieces = self._read_from(0)

    def __len__(self) -> int:
        return self._length

    def pieces(self) -> Iterator[Piece]:
        """All of it, from the beginning, without a copy."""
        return self._read_from(0)

    def md5(self) -> bytes:
        """Of all of it; the position stays."""
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self.pieces():
            digest.update(piece)
        return digest.digest()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        wanted = min(max(base + offset, 0), self._length)
        if wanted != self._position:
            self._position = wanted
            self._piece = memoryview(b"")
            self._pieces = self._read_from(wanted)
        return wanted

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not len(self._piece):
            self._piece = memoryview(next(self._pieces, b""))
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        self._position += count
        return count

    def _read_from(self, position: int) -> Iterator[Piece]:
        record, start, stop = self._record, self._start + position, self._start + self._length
        if start >= stop:
            return
        if record.inline is not None:
            yield memoryview(record.inline)[start:stop]
            return
        assert record.manifest is not None
        for spans in self._chunks.windows(Manifest.decode(record.manifest), start, stop, WINDOW_BYTES):
            yield from self._chunks.read(spans)
