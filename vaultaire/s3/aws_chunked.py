"""The aws-chunked encoding of request bodies, decoded sans-io and verified.

    body     = *chunk last-chunk [trailers] CRLF
    chunk    = size-hex [";chunk-signature=" 64hex] CRLF data CRLF
    last     = "0" [";chunk-signature=" 64hex] CRLF
    trailers = 1*(name ":" value CRLF) ["x-amz-trailer-signature:" 64hex CRLF]

Guarantees, for any split of the input into blocks:

* `finish` returns only if every chunk signature (signed kinds) and the trailer signature held, the final chunk came,
  the payload has exactly the announced length, the trailers are those that were announced, and nothing followed.
* Memory is bounded by one header or trailer line (1 KiB) plus the trailers, whatever the size of a chunk: payload is
  handed out as it comes, as views of the caller's block. **A chunk's signature is known only at its end**, so its
  bytes are given out before it is verified; the caller commits nothing before `finish` returned.
* A chunk's size is bounded by what is left of the announced length, not by a constant: the SDKs of Rust and C send a
  whole part as one chunk.

After an S3Error the decoder is of no further use. Not thread-safe; large SHA-256 updates release the GIL.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING

from vaultaire.s3.errors import S3Error
from vaultaire.s3.sigv4 import Payload
from vaultaire.s3.sigv4_text import ALGORITHM

if TYPE_CHECKING:
    from collections.abc import Collection

    from vaultaire.s3.sigv4 import Verified

MAX_LINE_BYTES = 1024  # a signed header line has 18 + 80 bytes; trailers are about as long
MAX_TRAILERS = 16
MIN_SIGNED_CHUNK_BYTES = 8192  # S3's rule for all but the last; it bounds the work per byte received

# For unsigned chunks, which S3 does not bound: a sender may be wasteful for a while, not for ever. One chunk costs some
# microseconds of a core whatever it holds, so chunks of one byte would buy a second of work with a few hundred KB.
FREE_CHUNKS = 1024
MEAN_CHUNK_BYTES = 512

_EMPTY_SHA256 = sha256(b"").hexdigest()
_HEX = frozenset(b"0123456789abcdefABCDEF")
_LOWER_HEX = frozenset(b"0123456789abcdef")

_SIGNED = (Payload.STREAMING_SIGNED, Payload.STREAMING_SIGNED_TRAILER)
_TRAILING = (Payload.STREAMING_SIGNED_TRAILER, Payload.STREAMING_UNSIGNED_TRAILER)

# What the decoder waits for.
_HEADER, _DATA, _DATA_END, _TRAILER, _END = range(5)


class Decoder:
    """One request body. Feed blocks in order, then call `finish` once."""

    def __init__(
        self,
        kind: Payload,
        verified: Verified | None,
        decoded_length: int,
        trailer_names: Collection[str] = (),
    ) -> None:
        """`decoded_length` is x-amz-decoded-content-length; `trailer_names` are lower-case, from x-amz-trailer.

        `verified` holds the seed of the chain; only an unsigned kind goes without.
        """
        if kind not in _SIGNED and kind not in _TRAILING:
            raise ValueError(f"{kind} is not aws-chunked")
        self._chain = _Chain(verified) if kind in _SIGNED and verified is not None else None
        if kind in _SIGNED and self._chain is None:
            raise ValueError("a signed stream needs the verified signature of its request")
        self._trailing = kind in _TRAILING
        self._announced = frozenset(trailer_names) if self._trailing else frozenset()
        self._remaining = decoded_length  # of the whole payload
        self._state = _HEADER
        self._line = bytearray()  # a header or trailer line that a block cut in two
        self._chunk_left = 0
        self._chunks = 0
        self._announced_bytes = 0  # by the headers of the chunks begun
        self._chunk_size = 0  # of the last chunk begun; 0 before the first
        self._signature = b""
        self._trailers: dict[str, str] = {}
        self._trailer_lines: list[bytes] = []
        self._trailer_signature: bytes | None = None

    def feed(self, block: bytes | memoryview) -> list[memoryview]:
        """The payload in `block`, in order: views of it, valid as long as the caller keeps it unchanged.

        Raises S3Error on the first byte that is out of place or a signature that does not hold.
        """
        view = memoryview(block)
        end = len(view)
        position = 0
        payload: list[memoryview] = []
        while position < end:
            if self._state == _DATA:
                piece = view[position : position + self._chunk_left]
                position += len(piece)
                self._take(piece)
                payload.append(piece)
            elif self._state == _END:
                raise _malformed("there is data after the end of the body")
            else:
                line, position = self._read_line(view, position)
                if line is not None:
                    self._on_line(line)
        return payload

    def finish(self) -> dict[str, str]:
        """Call when the body has ended. The trailers, lower-case names. Raises IncompleteBody if it is cut short."""
        if self._state != _END:
            raise _incomplete()
        return self._trailers

    def _take(self, piece: memoryview) -> None:
        self._chunk_left -= len(piece)
        self._remaining -= len(piece)
        if self._chain is not None:
            self._chain.update(piece)
        if not self._chunk_left:
            self._state = _DATA_END

    def _read_line(self, view: memoryview, position: int) -> tuple[bytes | None, int]:
        """(line without CRLF, position behind it); (None, end) if the block ends inside the line."""
        room = MAX_LINE_BYTES + 2 - len(self._line)
        window = bytes(view[position : position + room])
        if self._line.endswith(b"\r") and window.startswith(b"\n"):
            found = -1  # the CR is in the block before
        else:
            found = window.find(b"\r\n")
            if found < 0:
                if len(window) == room:
                    raise _malformed("a chunk header or trailer line is too long")
                self._line += window
                return None, position + len(window)
        line = bytes(self._line + window[: found + 2])[:-2]
        self._line.clear()
        return line, position + found + 2

    def _on_line(self, line: bytes) -> None:
        if self._state == _HEADER:
            self._on_header(line)
        elif self._state == _DATA_END:
            if line:
                raise _malformed("a chunk is longer than its header says")
            self._end_chunk()
            self._state = _HEADER
        else:
            self._on_trailer(line)

    def _on_header(self, line: bytes) -> None:
        digits, _, extension = line.partition(b";")
        if not digits or len(digits) > 16 or not _HEX.issuperset(digits):
            raise _malformed("a chunk header does not begin with a size")
        size = int(digits, 16)
        if self._chain is not None:
            self._signature = _signature(extension, b"chunk-signature=")
            if size and 0 < self._chunk_size < MIN_SIGNED_CHUNK_BYTES:
                raise S3Error("InvalidChunkSizeError", extra={"BadChunkSize": self._chunk_size})
        elif extension:
            raise _malformed("an unsigned chunk has an extension")
        else:
            self._count_chunk(size)
        if size > self._remaining:
            raise _incomplete()
        if size:
            self._chunk_size = self._chunk_left = size
            self._state = _DATA
            return
        if self._remaining:
            raise _incomplete()
        self._end_chunk()
        self._state = _TRAILER

    def _count_chunk(self, size: int) -> None:
        self._chunks += 1
        self._announced_bytes += size
        if self._chunks > FREE_CHUNKS + self._announced_bytes // MEAN_CHUNK_BYTES:
            raise S3Error("InvalidChunkSizeError", extra={"BadChunkSize": size})

    def _end_chunk(self) -> None:
        if self._chain is not None:
            self._chain.check_chunk(self._signature)

    def _on_trailer(self, line: bytes) -> None:
        if not line:
            self._end_trailers()
            self._state = _END
            return
        if not self._trailing:
            raise _malformed("there is data after the final chunk")
        name, colon, value = line.partition(b":")
        # minio-go ends a trailer with LF CRLF, after an example in Amazon's documentation.
        value = value.removesuffix(b"\n").strip(b" \t")
        if not colon or self._trailer_signature is not None or len(self._trailers) >= MAX_TRAILERS:
            raise S3Error("MalformedTrailerError")
        if name == b"x-amz-trailer-signature":
            if self._chain is None:
                raise S3Error("MalformedTrailerError")
            self._trailer_signature = _signature(value, b"")
            return
        text = name.decode("latin-1").lower()
        if text not in self._announced or text in self._trailers:
            raise S3Error("MalformedTrailerError")
        self._trailers[text] = value.decode("latin-1")
        self._trailer_lines.append(name + b":" + value + b"\n")

    def _end_trailers(self) -> None:
        if len(self._trailers) != len(self._announced):
            raise S3Error("MalformedTrailerError")
        if self._chain is not None and self._trailing:
            if self._trailer_signature is None:
                raise S3Error("MalformedTrailerError")
            self._chain.check_trailer(b"".join(self._trailer_lines), self._trailer_signature)


class _Chain:
    """The chain of chunk signatures: each one signs the one before it and the chunk's hash."""

    def __init__(self, verified: Verified) -> None:
        self._key = verified.signing_key
        self._context = f"{verified.timestamp}\n{verified.scope}\n"
        self._previous = verified.seed_signature
        self._digest = sha256()
        self.update = self._digest.update

    def check_chunk(self, signature: bytes) -> None:
        self._check(
            f"{ALGORITHM}-PAYLOAD\n{self._context}{self._previous}\n{_EMPTY_SHA256}\n{self._digest.hexdigest()}",
            signature,
        )
        self._digest = sha256()
        self.update = self._digest.update

    def check_trailer(self, lines: bytes, signature: bytes) -> None:
        self._check(
            f"{ALGORITHM}-TRAILER\n{self._context}{self._previous}\n{sha256(lines).hexdigest()}", signature
        )

    def _check(self, to_sign: str, signature: bytes) -> None:
        expected = hmac.digest(self._key, to_sign.encode("latin-1"), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature):
            raise S3Error("SignatureDoesNotMatch", extra={"StringToSign": to_sign})
        self._previous = expected


def _signature(text: bytes, prefix: bytes) -> bytes:
    value = text.removeprefix(prefix)
    if not text.startswith(prefix) or len(value) != 64 or not _LOWER_HEX.issuperset(value):
        raise S3Error("SignatureDoesNotMatch")
    return value


def _incomplete() -> S3Error:
    return S3Error("IncompleteBody", "The request body terminated unexpectedly")


def _malformed(problem: str) -> S3Error:
    return S3Error("InvalidRequest", f"The aws-chunked request body is malformed: {problem}")
