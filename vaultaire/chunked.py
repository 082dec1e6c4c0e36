"""The chunked transfer coding of HTTP/1.1, decoding, sans-io: any split of the bytes gives the same body.

What it guarantees: lines end in CRLF only, sizes are 1 to 16 hexadecimal digits with nothing around them, extensions
and trailers are bounded and thrown away, and framing may not outgrow the data (many tiny chunks with long
extensions cost us more than they cost their sender: CVE-2023-39326). It is stricter than h11 throughout; a
differential test holds it to a subset. Memory: one line at most, plus what is returned.

RFC 9112, section 7.1.
"""

from __future__ import annotations

import re

MAX_LINE_BYTES = 1024  # a size line, extensions included
MAX_TRAILER_BYTES = 8 * 1024
# Framing bytes allowed beyond 16 and twice the data per chunk: the figure of Go's net/http.
MAX_EXCESS_BYTES = 16 * 1024

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+:[\t\x20-\x7e\x80-\xff]*")


class ChunkedError(Exception):
    """The body is not chunked as RFC 9112 says; where it ends cannot be known."""


class ChunkedDecoder:
    """Feed it what arrives; `done` after the last CRLF, then `unused` holds what belongs to the next request."""

    __slots__ = ("_excess", "_left", "_line", "_trailer_bytes", "_wants", "done", "unused")

    def __init__(self) -> None:
        self.done = False
        self.unused = b""
        self._wants = "size"  # "size", "data", "end" (the CRLF after a chunk's data) or "trailer"
        self._left = 0  # bytes of the current chunk still to come
        self._line = b""  # the beginning of a line
        self._excess = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """The body bytes in `data` (a copy, unless all of it is body). Raises ChunkedError; then never call again."""
        if self._wants == "data" and len(data) <= self._left:
            self._took(len(data))
            return data
        pieces: list[memoryview] = []
        view = memoryview(data)
        position = 0
        while position < len(data) and not self.done:
            if self._wants == "data":
                piece = view[position : position + self._left]
                self._took(len(piece))
                pieces.append(piece)
                position += len(piece)
            else:
                position = self._read_line(data, position)
        if self.done:
            self.unused = data[position:]
        return b"".join(pieces)

    def _took(self, count: int) -> None:
        self._left -= count
        if not self._left:
            self._wants = "end"

    def _read_line(self, data: bytes, position: int) -> int:
        """Take one line (or what there is of it) from `data` at `position`; returns where the rest begins."""
        limit = {"size": MAX_LINE_BYTES, "trailer": MAX_TRAILER_BYTES, "end": 2}[self._wants]
        newline = data.find(b"\n", position)
        end = newline + 1 if newline >= 0 else len(data)
        if len(self._line) + end - position > limit:
            raise ChunkedError("overlong line in a chunked body")
        self._line += data[position:end]
        if newline >= 0:
            line, self._line = self._line, b""
            if line[-2:] != b"\r\n":
                raise ChunkedError("a line of a chunked body ends in a bare LF")
            self._take_line(line[:-2])
        return end

    def _take_line(self, line: bytes) -> None:
        if self._wants == "size":
            self._take_size(line)
        elif self._wants == "end":
            if line:
                raise ChunkedError("a chunk is longer than its size")
            self._wants = "size"
        elif not line:
            self.done = True
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > MAX_TRAILER_BYTES or not _TRAILER_LINE.fullmatch(line):
                raise ChunkedError("malformed or overlong trailers")

    def _take_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise ChunkedError("malformed chunk size")
        self._left = int(match[1], 16)
        self._excess = max(0, self._excess + len(line) - 16 - 2 * self._left)
        if self._excess > MAX_EXCESS_BYTES:
            raise ChunkedError("too much framing for too little data")
        self._wants = "data" if self._left else "trailer"
