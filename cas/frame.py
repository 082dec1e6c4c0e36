"""Frames: consecutive new chunks, compressed together. The bytes of one frame; pure but for thread-local codecs.

Small chunks for identity, big frames for ratio. A frame is a header (codec, lengths, the id and length of every
chunk, checksums) and a payload: the chunks' raw bytes one after the other, as one zstd frame or as they are.
A zstd payload may refer to a *prefix*: the raw bytes of the chunks that the header names as its **bases**, one after
the other. Without them the frame cannot be decoded, and they are themselves in frames without bases.
Layout: cas/FORMAT.md. Nothing in it names a level, a target size or a splitter: those are policy, below.

Guarantees of the decoders: every length is checked before anything is allocated by it, at most MAX_RAW_BYTES are
ever produced, and damage is CorruptFrame, never another exception. Decoding does not verify chunk ids (that needs
the hash key and is done by whoever serves bytes); `check_payload` verifies the stored bytes without any key.

Checksums are CRC-64/NVME: 19 GB/s measured, so they cost nothing beside the hash; they detect damage, not malice.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import zstandard
from awscrt.checksums import crc64nvme

from cas.chunk import ID_BYTES, MAX_RAW_BYTES, ChunkId
from cas.errors import CorruptFrame, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.ports import Buffer

MAGIC: Final = b"VtFr"
VERSION: Final = 1
KNOWN_FLAGS: Final = 0
INCOMPATIBLE_FLAGS: Final = 0xFFFF  # low half: refuse what is unknown; high half: skip it

HEAD: Final = struct.Struct(">4sBBHIIIIII")  # magic version codec 0 length flags raw stored chunks bases
ENTRY: Final = struct.Struct(">32sI")  # chunk id, length
_BASE: Final = struct.Struct(f"{ID_BYTES}s")
CHECKSUM: Final = struct.Struct(">Q")
CHECKSUMS_BYTES: Final = 2 * CHECKSUM.size
MIN_HEADER_BYTES: Final = HEAD.size + CHECKSUMS_BYTES
WORD: Final = 4  # header lengths are multiples of it
MAX_HEADER_BYTES: Final = 0xFFFF * WORD  # a placement keeps it in 16 bits
MAX_CHUNKS: Final = 4096
MAX_BASES: Final = 256  # their raw bytes and the frame's own together: MAX_RAW_BYTES at most

# Policy from here on; may change at any time.
_MIN_GAIN: Final = 0.03  # below it a frame is stored raw: decoding costs more than the bytes are worth
BASES_GAIN: Final = 0.2  # less, against the frame without bases, is not worth what its readers pay
_PREFIX_WINDOW_LOG: Final = 20  # a prefix and a frame behind it


class Effort(NamedTuple):
    """How hard to try. A frame is closed before it would exceed `frame_bytes` (raw), so all of it lies in the window."""

    level: int  # of zstd
    frame_bytes: int
    window_log: int


NORMAL: Final = Effort(3, 256 << 10, 18)
HURRIED: Final = Effort(1, 256 << 10, 18)  # the CPU is short: a third less work for 3 % more bytes
# For what has been there a while and is copied anyway: 8 to 15 % less, and a read of 4 KiB decodes four times as much.
THOROUGH: Final = Effort(6, 1 << 20, 20)

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
    bases: tuple[ChunkId, ...] = ()
    saved_bytes: int = 0  # that the payload would be longer without bases

    @property
    def total_length(self) -> int:
        return len(self.header) + self.stored_length


@cache
def _parameters(level: int, window_log: int) -> zstandard.ZstdCompressionParameters:
    # The default level-3 table for inputs up to 256 KiB is a bad spot: pinned it is 2 % smaller and 6 % cheaper.
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=8 << 20,
        window_log=window_log,
        write_content_size=1,
        write_checksum=0,
        write_dict_id=0,
    )


class _Codecs(threading.local):
    """zstd contexts, one set per thread: they are not thread-safe, and making one costs more than a frame."""

    def __init__(self) -> None:
        self.compressors: dict[Effort, zstandard.ZstdCompressor] = {}
        self.probe = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)

    def compressor(self, effort: Effort) -> zstandard.ZstdCompressor:
        made = self.compressors.get(effort)
        if made is None:
            parameters = _parameters(effort.level, effort.window_log)
            made = self.compressors[effort] = zstandard.ZstdCompressor(compression_params=parameters)
        return made


_codecs = _Codecs()


def encode_frame(ids: Sequence[bytes], chunks: Sequence[Buffer], effort: Effort = NORMAL) -> EncodedFrame:
    """One frame of these chunks, compressed if that pays. A raw frame refers to `chunks` until it is written."""
    raw_length = _bounded(ids, chunks)
    compressed = _compress(chunks, raw_length, effort)
    payload = chunks if compressed is None else (compressed,)
    codec = Codec.RAW if compressed is None else Codec.ZSTD
    return _assemble(ids, chunks, (), codec, payload)


def encode_with_bases(
    plain: EncodedFrame,
    ids: Sequence[bytes],
    chunks: Sequence[Buffer],
    bases: Sequence[ChunkId],
    prefix: Buffer,
    effort: Effort = NORMAL,
    least_gain: float = BASES_GAIN,
) -> EncodedFrame | None:
    """`plain` (the same chunks) once more, against the raw bytes of `bases`; None if less than `least_gain` of its
    length is saved.
    """
    raw_length = _bounded(ids, chunks)
    if not 1 <= len(bases) <= MAX_BASES or raw_length + len(prefix) > MAX_RAW_BYTES:
        raise ValueError(f"a prefix of {len(bases)} chunks, {len(prefix)} bytes is out of bounds")
    compressor = zstandard.ZstdCompressor(
        dict_data=_raw_dictionary(prefix), compression_params=_parameters(effort.level, _PREFIX_WINDOW_LOG)
    )
    payload = compressor.compress(_joined(chunks))
    frame = _assemble(ids, chunks, bases, Codec.ZSTD, (payload,))
    if frame.total_length > plain.total_length * (1 - least_gain):
        return None
    return replace(frame, saved_bytes=plain.stored_length - frame.stored_length)


def _bounded(ids: Sequence[bytes], chunks: Sequence[Buffer]) -> int:
    raw_length = sum(map(len, chunks))
    if not 1 <= len(ids) <= MAX_CHUNKS or not 1 <= raw_length <= MAX_RAW_BYTES:
        raise ValueError(f"a frame of {len(ids)} chunks, {raw_length} bytes is out of bounds")
    return raw_length


def _assemble(
    ids: Sequence[bytes],
    chunks: Sequence[Buffer],
    bases: Sequence[ChunkId],
    codec: Codec,
    payload: Sequence[Buffer],
) -> EncodedFrame:
    lengths = [len(chunk) for chunk in chunks]
    raw_length, stored_length = sum(lengths), sum(map(len, payload))
    length = HEAD.size + ENTRY.size * len(ids) + ID_BYTES * len(bases) + CHECKSUMS_BYTES
    head = HEAD.pack(MAGIC, VERSION, codec, 0, length, 0, raw_length, stored_length, len(ids), len(bases))
    checksum = 0
    for part in payload:
        checksum = crc64nvme(part, checksum)
    header = b"".join([head, *map(ENTRY.pack, ids, lengths), *bases, CHECKSUM.pack(checksum)])
    header += CHECKSUM.pack(crc64nvme(header))
    return EncodedFrame(header, payload, codec, raw_length, stored_length, tuple(bases))


def _compress(chunks: Sequence[Buffer], raw_length: int, effort: Effort) -> bytes | None:
    """None if it does not pay. Noise is found out by a sample of every chunk: 13 GB/s instead of 2."""
    if raw_length > _PROBE_FROM_BYTES:
        sample = b"".join(_samples(chunks))
        if len(_codecs.probe.compress(sample)) > len(sample) * (1 - _PROBE_GAIN):
            return None
    payload = _codecs.compressor(effort).compress(_joined(chunks))
    return payload if len(payload) <= raw_length * (1 - _MIN_GAIN) else None


def _joined(chunks: Sequence[Buffer]) -> Buffer:
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _raw_dictionary(prefix: Buffer) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


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
    if bases:
        _check_bases(Codec(codec), ids, bases)
    (checksum,) = CHECKSUM.unpack(view[-CHECKSUMS_BYTES : -CHECKSUM.size])
    return FrameHeader(Codec(codec), length, raw, stored, ids, lengths, bases, checksum)


def _decode_entries(
    header: memoryview, count: int, base_count: int
) -> tuple[tuple[ChunkId, ...], tuple[int, ...], tuple[ChunkId, ...]]:
    bases_at = HEAD.size + count * ENTRY.size
    ids, lengths = zip(*ENTRY.iter_unpack(header[HEAD.size : bases_at]), strict=True)  # count is 1 at least
    bases = _BASE.iter_unpack(header[bases_at : bases_at + base_count * ID_BYTES])
    return ids, lengths, tuple([base for (base,) in bases])


def _check_bases(codec: Codec, ids: tuple[ChunkId, ...], bases: tuple[ChunkId, ...]) -> None:
    if codec == Codec.RAW or len(bases) > MAX_BASES or len(set(bases)) < len(bases):
        raise CorruptFrame(f"{len(bases)} bases are out of bounds, or of no use")
    if not set(bases).isdisjoint(ids):
        raise CorruptFrame("a chunk is a base of its own frame")


def check_payload(header: FrameHeader, payload: Buffer) -> None:
    """Verify the stored bytes against the header. Raises CorruptFrame."""
    if len(payload) != header.stored_length:
        raise CorruptFrame(f"payload of {len(payload)} bytes instead of {header.stored_length}")
    if crc64nvme(payload) != header.checksum:
        raise CorruptFrame("the payload's checksum does not match")


def decompress(payload: Buffer, prefix: Buffer = b"") -> bytes:
    """The raw bytes of a zstd payload, at most MAX_RAW_BYTES. `prefix`: those of its bases. Raises CorruptFrame."""
    try:
        length = zstandard.get_frame_parameters(payload).content_size
        # The library allocates what the payload claims, whatever limit it is given: check the claim first.
        if not 1 <= length <= MAX_RAW_BYTES:
            raise CorruptFrame(f"the payload claims {length} raw bytes")
        decompressor = _codecs.decompressor if not prefix else _decompressor_after(prefix)
        raw = decompressor.decompress(payload, max_output_size=MAX_RAW_BYTES, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptFrame(f"zstd: {error}") from error
    if len(raw) != length:
        raise CorruptFrame(f"zstd gave {len(raw)} bytes instead of {length}")
    return raw


def _decompressor_after(prefix: Buffer) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(dict_data=_raw_dictionary(prefix), max_window_size=_ZSTD_MAX_WINDOW)


def decode_frame(
    frame: Buffer, prefix_of: Callable[[FrameHeader], Buffer] | None = None
) -> tuple[FrameHeader, Buffer]:
    """Header and raw bytes of a whole frame, both verified; `prefix_of` gives the raw bytes of a frame's bases.

    Raises CorruptFrame, UnsupportedFormat; without `prefix_of` a frame with bases is a CorruptFrame too.
    """
    header = decode_header(frame)
    payload = memoryview(frame)[header.header_length : header.total_length]
    check_payload(header, payload)
    return header, raw_bytes(header, payload, prefix_of)


def raw_bytes(
    header: FrameHeader, payload: Buffer, prefix_of: Callable[[FrameHeader], Buffer] | None = None
) -> Buffer:
    """The raw bytes of a frame, of the length that its header says. Raises as `decode_frame`."""
    prefix: Buffer = b""
    if header.bases:
        if prefix_of is None:
            raise CorruptFrame("the frame needs base chunks, which are not at hand")
        prefix = prefix_of(header)
    raw = decompress(payload, prefix) if header.codec == Codec.ZSTD else payload
    if len(raw) != header.raw_length:
        raise CorruptFrame(f"{len(raw)} raw bytes instead of {header.raw_length}")
    return raw
