"""The bytes of a pack: header, frames, footer, trailer. Pure; whoever calls brings the bytes.

A pack is understood without any other file: its header names the store, the dedup domain and the key of the chunk
ids; every frame names its chunks; the footer of a sealed pack repeats every frame header, so that marking and
rebuilding read footers, never frames. Layout: cas/FORMAT.md.

A pack without a footer (open, or its writer died) is scanned frame by frame. The first bytes that are no whole,
intact frame are a torn tail if they lie at or past the durable length; below it they are corruption.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from awscrt.checksums import crc64nvme

from cas.errors import CorruptFrame, CorruptPack, UnsupportedFormat
from cas.frame import CHECKSUM, HEAD, INCOMPATIBLE_FLAGS, check_payload, decode_header, header_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.chunk import Identity
    from cas.frame import FrameHeader

    Read = Callable[[int, int], bytes]  # (offset, length) -> bytes, fewer where the pack ends

MAGIC: Final = b"VtPk"
FOOTER_MAGIC: Final = b"VtFo"
TRAILER_MAGIC: Final = b"VtEn"
VERSION: Final = 1
KNOWN_FLAGS: Final = 0
CLEAR_KEY: Final = 0  # key id: the key field holds the hash key itself

_HEADER: Final = struct.Struct(">4sBBHII16sQIIHH")
_FOOTER: Final = struct.Struct(">4sB3xIIII")
_OFFSET: Final = struct.Struct(">Q")
_TRAILER: Final = struct.Struct(">4sB3xQI")
TRAILER_BYTES: Final = _TRAILER.size + CHECKSUM.size

MAX_HEADER_BYTES: Final = 4096
MAX_FOOTER_BYTES: Final = 64 << 20  # a pack of only the smallest frames stays below


class PackKind(IntEnum):
    """Manifest nodes have packs of their own, so that marking reads them in order and never reads data."""

    DATA = 1
    NODE = 2


@dataclass(frozen=True, slots=True)
class PackHeader:
    pack: int
    kind: PackKind
    store_id: bytes
    domain: int
    key_id: int
    key: bytes  # the hash key in clear while key_id is CLEAR_KEY, else a wrapped key

    @classmethod
    def of(cls, identity: Identity, pack: int, kind: PackKind) -> PackHeader:
        return cls(pack, kind, identity.store_id, identity.domain, CLEAR_KEY, identity.hash_key)

    def encode(self) -> bytes:
        length = _HEADER.size + len(self.key) + CHECKSUM.size
        head = _HEADER.pack(
            MAGIC,
            VERSION,
            self.kind,
            0,
            length,
            0,
            self.store_id,
            self.pack,
            self.domain,
            self.key_id,
            len(self.key),
            0,
        )
        return _with_checksum(head + self.key)

    @classmethod
    def decode(cls, head: bytes) -> tuple[PackHeader, int]:
        """The header and its length (the first frame begins there). Raises CorruptFrame, UnsupportedFormat."""
        if len(head) < _HEADER.size or head[:4] != MAGIC:
            raise CorruptFrame("no pack header")
        _, version, kind, _, length, flags, store_id, pack, domain, key_id, key_length, _ = (
            _HEADER.unpack_from(head)
        )
        if not _HEADER.size + key_length + CHECKSUM.size <= length <= min(MAX_HEADER_BYTES, len(head)):
            raise CorruptFrame(f"pack header length {length} is out of bounds")
        _verify_checksum(head[:length], "pack header")
        if version != VERSION or flags & INCOMPATIBLE_FLAGS & ~KNOWN_FLAGS or kind not in (1, 2):
            raise UnsupportedFormat(f"pack version {version}, flags {flags:#x}, kind {kind}: not known here")
        key = head[_HEADER.size : _HEADER.size + key_length]
        return cls(pack, PackKind(kind), store_id, domain, key_id, key), length


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a pack. `ordinal`: how many chunks of the pack lie before it."""

    offset: int
    ordinal: int
    header: FrameHeader

    @property
    def end(self) -> int:
        return self.offset + self.header.total_length


@dataclass(frozen=True, slots=True)
class PackContents:
    """A pack as its own bytes describe it. `end`: where the frames end; the footer, if there is one, begins there."""

    header: PackHeader
    frames: tuple[Frame, ...]
    end: int
    sealed: bool


def encode_footer(end: int, frames: Sequence[tuple[int, bytes]]) -> bytes:
    """Footer and trailer of a pack whose frames, given as (offset, header), end at `end`."""
    parts = [part for offset, header in frames for part in (_OFFSET.pack(offset), header)]
    length = _FOOTER.size + sum(map(len, parts)) + CHECKSUM.size
    footer = _with_checksum(
        b"".join([_FOOTER.pack(FOOTER_MAGIC, VERSION, length, 0, len(frames), 0), *parts])
    )
    return footer + _with_checksum(_TRAILER.pack(TRAILER_MAGIC, VERSION, end, length))


def read_contents(pack: int, read: Read, length: int) -> PackContents:
    """What a pack of `length` bytes holds: by its footer, or frame by frame up to the torn tail if it has none.

    Raises CorruptPack (its header), UnsupportedFormat.
    """
    footer = read_footer(read, length)
    if footer is None:
        return scan_contents(pack, read)
    header, _ = _read_header(pack, read)
    return PackContents(header, tuple(_number(footer[1])), footer[0], sealed=True)


def scan_contents(pack: int, read: Read, durable: int | None = None) -> PackContents:
    """What its frames say, each one read and verified. Needs no footer, and does not look for one.

    With `durable` exactly the frames below it, and all of them must be intact; without, up to the torn tail.
    Raises CorruptPack, UnsupportedFormat.
    """
    header, start = _read_header(pack, read)
    frames = tuple(_number(_scan(pack, read, start, durable)))
    return PackContents(header, frames, frames[-1].end if frames else start, sealed=False)


def _read_header(pack: int, read: Read) -> tuple[PackHeader, int]:
    try:
        header, length = PackHeader.decode(read(0, MAX_HEADER_BYTES))
        if header.pack != pack:
            raise CorruptFrame(f"its header says it is pack {header.pack:016x}")
    except CorruptFrame as error:
        raise CorruptPack(pack, 0, str(error)) from error
    return header, length


def _scan(pack: int, read: Read, start: int, durable: int | None) -> Iterator[tuple[int, FrameHeader]]:
    offset = start
    while durable is None or offset < durable:
        try:
            head = read(offset, HEAD.size)
            header = decode_header(read(offset, header_length(head)))
            check_payload(header, read(offset + header.header_length, header.stored_length))
        except CorruptFrame as error:
            if durable is not None:
                raise CorruptPack(pack, offset, str(error)) from error
            return
        yield offset, header
        offset += header.total_length
    if durable is not None and offset != durable:
        raise CorruptPack(pack, durable, f"the frames end at {offset}, not at the durable length")


def read_footer(read: Read, length: int) -> tuple[int, list[tuple[int, FrameHeader]]] | None:
    """(end of the frames, frames) by an intact footer at the very end; None if there is none."""
    try:
        trailer = read(length - TRAILER_BYTES, TRAILER_BYTES) if length > TRAILER_BYTES else b""
        end, footer_length = decode_trailer(trailer)
        if footer_length > MAX_FOOTER_BYTES or end + footer_length + TRAILER_BYTES != length:
            return None
        return end, decode_footer(read(end, footer_length), footer_length, end)
    except CorruptFrame:
        return None


def decode_trailer(trailer: bytes) -> tuple[int, int]:
    if len(trailer) != TRAILER_BYTES or trailer[:4] != TRAILER_MAGIC:
        raise CorruptFrame("no trailer")
    _verify_checksum(trailer, "trailer")
    _, version, end, length = _TRAILER.unpack_from(trailer)
    if version != VERSION:
        raise UnsupportedFormat(f"pack trailer of version {version} is not known here")
    return end, length


def decode_footer(footer: bytes, length: int, end: int) -> list[tuple[int, FrameHeader]]:
    if len(footer) != length or length < _FOOTER.size + CHECKSUM.size or footer[:4] != FOOTER_MAGIC:
        raise CorruptFrame("no footer")
    _verify_checksum(footer, "footer")
    _, version, _, flags, count, _ = _FOOTER.unpack_from(footer)
    if version != VERSION or flags & INCOMPATIBLE_FLAGS & ~KNOWN_FLAGS:
        raise UnsupportedFormat(f"footer version {version}, flags {flags:#x}: not known here")
    frames = []
    at = _FOOTER.size
    view = memoryview(footer)
    for _ in range(count):
        if at + _OFFSET.size > length - CHECKSUM.size:
            raise CorruptFrame("the footer ends inside its records")
        (offset,) = _OFFSET.unpack_from(footer, at)
        header = decode_header(view[at + _OFFSET.size : length - CHECKSUM.size])
        if offset + header.total_length > end:
            raise CorruptFrame("a frame of the footer lies outside the pack")
        frames.append((offset, header))
        at += _OFFSET.size + header.header_length
    return frames


def _number(frames: Iterator[tuple[int, FrameHeader]] | Sequence[tuple[int, FrameHeader]]) -> Iterator[Frame]:
    ordinal = 0
    for offset, header in frames:
        yield Frame(offset, ordinal, header)
        ordinal += len(header.ids)


def _with_checksum(data: bytes) -> bytes:
    return data + CHECKSUM.pack(crc64nvme(data))


def _verify_checksum(data: bytes, what: str) -> None:
    (wanted,) = CHECKSUM.unpack_from(data, len(data) - CHECKSUM.size)
    if crc64nvme(memoryview(data)[: -CHECKSUM.size]) != wanted:
        raise CorruptFrame(f"the {what}'s checksum does not match")
