"""Frames: consecutive new chunks, compressed together. The bytes of one frame; pure but for thread-local codecs.

Small chunks for identity, big frames for ratio. A frame is a header (codec, lengths, the id and length of every
chunk, checksums) and a payload: the chunks' raw bytes one after the other, as one zstd frame or as they are.
Layout: cas/FORMAT.md. Nothing in it names a level, a target size or a splitter: those are policy, below.

Guarantees of the decoders: every length is checked before anything is allocated by it, at most MAX_RAW_BYTES are
ever produced, and damage is CorruptFrame, never another exception. Decoding does not verify chunk ids (that needs
the hash key and is done by whoever serves bytes); `check_payload` verifies the stored bytes without any key.

Checksums are CRC-64/NVME: 19 GB/s measured, so they cost nothing beside the hash; they detect damage, not malice.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import zstandard
from awscrt.checksums import crc64nvme

from cas.chunk import ID_BYTES, MAX_RAW_BYTES, ChunkId
from cas.errors import CorruptFrame, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cas.ports import Buffer

MAGIC: Final = b"VtFr"
VERSION: Final = 1
KNOWN_FLAGS: Final = 0
INCOMPATIBLE_FLAGS: Final = 0xFFFF  # low half: refuse what is unknown; high half: skip it

HEAD: Final = struct.Struct(">4sBBHIIIIII")  # magic version codec 0 length flags raw stored chunks bases
ENTRY: Final = struct.Struct(">32sI")  # chunk id, length
CHECKSUM: Final = struct.Struct(">Q")
CHECKSUMS_BYTES: Final = 2 * CHECKSUM.size
MIN_HEADER_BYTES: Final = HEAD.size + CHECKSUMS_BYTES
WORD: Final = 4  # header lengths are multiples of it
MAX_HEADER_BYTES: Final = 0xFFFF * WORD  # a placement keeps it in 16 bits
MAX_CHUNKS: Final = 4096

# Policy from here on; may change at any time.
TARGET_RAW_BYTES: Final = 256 << 10
_MIN_GAIN: Final = 0.03  # below it a frame is stored raw: decoding costs more than the bytes are worth
# The default level-3 table for inputs up to 256 KiB is a bad spot: pinned it is 2 % smaller and 6 % cheaper.
_PARAMETERS: Final = zstandard.ZstdCompressionParameters.from_level(
    3, source_size=8 << 20, window_log=18, write_content_size=1, write_checksum=0, write_dict_id=0
)
_PROBE_FROM_BYTES: Final = 32 << 10
_PROBE_STEP_BYTES: Final = 32 << 10
_PROBE_PIECE_BYTES: Final = 2048
_PROBE_GAIN: Final = 0.01
_ZSTD_MAX_WINDOW: Final = MAX_RAW_BYTES


class Codec(IntEnum):
    RAW = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What the header says. `ids` and `lengths` run side by side, in the order of the raw bytes."""

    codec: Codec
    header_length: int
    raw_length: int
    stored_length: int
    ids: tuple[ChunkId, ...]
    lengths: tuple[int, ...]
    bases: tuple[ChunkId, ...]
    checksum: int  # of the payload

    @property
    def total_length(self) -> int:
        """Header and payload: the next frame begins there."""
        return self.header_length + self.stored_length


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """Ready to be written: `header`, then the parts of `payload`. A raw payload is the caller's chunks, not copied."""

    header: bytes
    payload: Sequence[Buffer]
    codec: Codec
    raw_length: int
    stored_length: int

    @property
    def total_length(self) -> int:
        return len(self.header) + self.stored_length


class _Codecs(threading.local):
    """zstd contexts, one set per thread: they are not thread-safe, and making one costs more than a frame."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_PARAMETERS)
        self.probe = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)


_codecs = _Codecs()


def encode_frame(ids: Sequence[bytes], chunks: Sequence[Buffer]) -> EncodedFrame:
    """One frame of these chunks, compressed if that pays. A raw frame refers to `chunks` until it is written."""
    lengths = [len(chunk) for chunk in chunks]
    raw_length = sum(lengths)
    if not 1 <= len(ids) <= MAX_CHUNKS or not 1 <= raw_length <= MAX_RAW_BYTES:
        raise ValueError(f"a frame of {len(ids)} chunks, {raw_length} bytes is out of bounds")
    compressed = _compress(chunks, raw_length)
    payload = chunks if compressed is None else (compressed,)
    codec = Codec.RAW if compressed is None else Codec.ZSTD
    stored_length = raw_length if compressed is None else len(compressed)
    length = HEAD.size + ENTRY.size * len(ids) + CHECKSUMS_BYTES
    parts = [HEAD.pack(MAGIC, VERSION, codec, 0, length, 0, raw_length, stored_length, len(ids), 0)]
    parts += map(ENTRY.pack, ids, lengths)
    checksum = 0
    for part in payload:
        checksum = crc64nvme(part, checksum)
    parts.append(CHECKSUM.pack(checksum))
    header = b"".join(parts)
    return EncodedFrame(header + CHECKSUM.pack(crc64nvme(header)), payload, codec, raw_length, stored_length)


def _compress(chunks: Sequence[Buffer], raw_length: int) -> bytes | None:
    """None if it does not pay. Noise is found out by a sample of every chunk: 13 GB/s instead of 2."""
    if raw_length > _PROBE_FROM_BYTES:
        sample = b"".join(_samples(chunks))
        if len(_codecs.probe.compress(sample)) > len(sample) * (1 - _PROBE_GAIN):
            return None
    raw = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    payload = _codecs.compressor.compress(raw)
    return payload if len(payload) <= raw_length * (1 - _MIN_GAIN) else None


def _samples(chunks: Sequence[Buffer]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(len(view) // 3, len(view), _PROBE_STEP_BYTES):
            yield view[start : start + _PROBE_PIECE_BYTES]


def header_length(head: Buffer) -> int:
    """Length of the header that begins with `head` (its first HEAD.size bytes will do). Raises CorruptFrame."""
    if len(head) < HEAD.size:
        raise CorruptFrame("the bytes end inside a frame's header")
    magic, _, _, _, length, *_ = HEAD.unpack_from(head)
    if magic != MAGIC:
        raise CorruptFrame("no frame begins here")
    if not MIN_HEADER_BYTES <= length <= MAX_HEADER_BYTES or length % WORD:
        raise CorruptFrame(f"header length {length} is out of bounds")
    return int(length)


def decode_header(header: Buffer) -> FrameHeader:
    """Decode and verify a whole header (bytes beyond it are ignored). Raises CorruptFrame, UnsupportedFormat.

    The checksum is verified before the version is judged, lest damage passes for a newer format.
    """
    length = header_length(header)
    view = memoryview(header)[:length]
    (wanted,) = CHECKSUM.unpack(view[-CHECKSUM.size :]) if len(view) == length else (None,)
    if crc64nvme(view[: -CHECKSUM.size]) != wanted:
        raise CorruptFrame("the header's checksum does not match")
    _, version, codec, _, _, flags, raw, stored, count, base_count = HEAD.unpack_from(view)
    if (
        version != VERSION
        or flags & INCOMPATIBLE_FLAGS & ~KNOWN_FLAGS
        or codec not in (Codec.RAW, Codec.ZSTD)
    ):
        raise UnsupportedFormat(f"frame version {version}, flags {flags:#x}, codec {codec}: not known here")
    if (
        not 1 <= raw <= MAX_RAW_BYTES
        or not 1 <= stored <= MAX_RAW_BYTES
        or (codec == Codec.RAW and raw != stored)
    ):
        raise CorruptFrame(f"lengths {raw} (raw) and {stored} (stored) are out of bounds")
    # Longer is allowed: a compatible newer header may carry more after the bases.
    if not 1 <= count <= MAX_CHUNKS or length < MIN_HEADER_BYTES + count * ENTRY.size + base_count * ID_BYTES:
        raise CorruptFrame(f"{count} chunks and {base_count} bases do not fit the header")
    ids, lengths, bases = _decode_entries(view, count, base_count)
    if sum(lengths) != raw or 0 in lengths:
        raise CorruptFrame("the chunks' lengths do not add up to the raw length")
    (checksum,) = CHECKSUM.unpack(view[-CHECKSUMS_BYTES : -CHECKSUM.size])
    return FrameHeader(Codec(codec), length, raw, stored, ids, lengths, bases, checksum)


def _decode_entries(
    header: memoryview, count: int, base_count: int
) -> tuple[tuple[ChunkId, ...], tuple[int, ...], tuple[ChunkId, ...]]:
    bases_at = HEAD.size + count * ENTRY.size
    entries = list(ENTRY.iter_unpack(header[HEAD.size : bases_at]))
    base_ends = range(bases_at + ID_BYTES, bases_at + base_count * ID_BYTES + 1, ID_BYTES)
    bases = tuple([ChunkId(bytes(header[end - ID_BYTES : end])) for end in base_ends])
    return tuple([entry[0] for entry in entries]), tuple([entry[1] for entry in entries]), bases


def check_payload(header: FrameHeader, payload: Buffer) -> None:
    """Verify the stored bytes against the header. Raises CorruptFrame."""
    if len(payload) != header.stored_length:
        raise CorruptFrame(f"payload of {len(payload)} bytes instead of {header.stored_length}")
    if crc64nvme(payload) != header.checksum:
        raise CorruptFrame("the payload's checksum does not match")


def decompress(payload: Buffer) -> bytes:
    """The raw bytes of a zstd payload, at most MAX_RAW_BYTES. Raises CorruptFrame."""
    try:
        length = zstandard.get_frame_parameters(payload).content_size
        # The library allocates what the payload claims, whatever limit it is given: check the claim first.
        if not 1 <= length <= MAX_RAW_BYTES:
            raise CorruptFrame(f"the payload claims {length} raw bytes")
        raw = _codecs.decompressor.decompress(payload, max_output_size=MAX_RAW_BYTES, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptFrame(f"zstd: {error}") from error
    if len(raw) != length:
        raise CorruptFrame(f"zstd gave {len(raw)} bytes instead of {length}")
    return raw


def decode_frame(frame: Buffer) -> tuple[FrameHeader, Buffer]:
    """Header and raw bytes of a whole frame, both verified. Raises CorruptFrame, UnsupportedFormat."""
    header = decode_header(frame)
    if header.bases:
        raise UnsupportedFormat("frames with base chunks are not known here")
    payload = memoryview(frame)[header.header_length : header.total_length]
    check_payload(header, payload)
    raw = decompress(payload) if header.codec == Codec.ZSTD else payload
    if len(raw) != header.raw_length:
        raise CorruptFrame(f"{len(raw)} raw bytes instead of {header.raw_length}")
    return header, raw
