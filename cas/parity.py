"""The bytes of a parity sidecar: what is stored beside a sealed pack so that damaged blocks of it can be mended. Pure.

A pack is cut into blocks; block `i` belongs to group `i mod groups` and is its data piece `i div groups`. So a row of
`groups` neighbouring blocks holds one piece of every group, and a burst of damage spreads over all groups: any
`parity_rows` lost blocks per group come back, and any burst of `parity_rows * groups` blocks. The sidecar holds a
digest of every block, of data and of parity, so that damage is located before it is mended and what was mended is
proven. Header and digests are stored twice, at both ends. Layout: cas/FORMAT.md.

Block size, rows and groups are policy (`plan_geometry`); the header states what was used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from awscrt.checksums import crc64nvme
from blake3 import blake3

from cas.errors import CorruptFrame, UnsupportedFormat
from cas.frame import CHECKSUM, INCOMPATIBLE_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cas.ports import Buffer

MAGIC: Final = b"VtPa"
VERSION: Final = 1
KNOWN_FLAGS: Final = 0

_HEADER: Final = struct.Struct(">4sB3xII16sQQIIHHI")
HEADER_BYTES: Final = _HEADER.size + CHECKSUM.size
DIGEST_BYTES: Final = 16
PAGE_DIGESTS: Final = 255
PAGE_BYTES: Final = (PAGE_DIGESTS + 1) * DIGEST_BYTES

MAX_PACK_BYTES: Final = 1 << 30  # the maker of a sidecar holds the whole pack
MAX_BLOCK_BYTES: Final = 1 << 20
BLOCK_UNIT: Final = 64  # block sizes are multiples of it
MAX_PIECES: Final = 256  # of a group, data and parity: the field has no more elements

# Policy from here on; may change at any time.
BLOCK_BYTES: Final = 4096  # what a disk loses at once
PARITY_ROWS: Final = 8  # more cost more CPU; fewer mend less when damage is scattered
LEAST_PARITY_ROWS: Final = 2  # so that a burst across the border of two blocks is mended in small packs too


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a pack is cut, and what its sidecar holds where. Counts of blocks unless the name says bytes."""

    pack_bytes: int
    block_bytes: int
    groups: int
    parity_rows: int

    @property
    def blocks(self) -> int:
        return -(-self.pack_bytes // self.block_bytes)

    @property
    def data_rows(self) -> int:
        return -(-self.blocks // self.groups)

    @property
    def parity_blocks(self) -> int:
        return self.parity_rows * self.groups

    @property
    def pages(self) -> int:
        return -(-(self.blocks + self.parity_blocks) // PAGE_DIGESTS)

    @property
    def index_bytes(self) -> int:
        """All pages of digests."""
        return (self.blocks + self.parity_blocks + self.pages) * DIGEST_BYTES

    @property
    def file_bytes(self) -> int:
        return 2 * (HEADER_BYTES + self.index_bytes) + self.parity_blocks * self.block_bytes

    @property
    def burst_bytes(self) -> int:
        """A burst of damage of this length is always mended, wherever it begins."""
        return (self.parity_blocks - 1) * self.block_bytes + 1

    def block(self, number: int) -> tuple[int, int]:
        """(offset, length) of a block in the pack; the last one may be shorter."""
        offset = number * self.block_bytes
        return offset, min(self.block_bytes, self.pack_bytes - offset)

    def members(self, group: int) -> range:
        """The blocks of a group, in the order of its data pieces."""
        return range(group, self.blocks, self.groups)

    def parity_block(self, row: int, group: int) -> tuple[int, int]:
        """(offset, length) in the sidecar; its digest is number `blocks + row * groups + group`."""
        start = HEADER_BYTES + self.index_bytes
        return start + (row * self.groups + group) * self.block_bytes, self.block_bytes

    def page(self, number: int) -> tuple[int, int, int]:
        """(offset of the first copy, offset of the second, length) in the sidecar."""
        offset = number * PAGE_BYTES
        length = min(PAGE_BYTES, self.index_bytes - offset)
        second = HEADER_BYTES + self.index_bytes + self.parity_blocks * self.block_bytes
        return HEADER_BYTES + offset, second + offset, length


def plan_geometry(pack_bytes: int, percent: int, block_bytes: int = BLOCK_BYTES) -> Geometry:
    """How to protect a pack with about `percent` (1 to 100) of its length, or a little more if it is small."""
    if not 0 < pack_bytes <= MAX_PACK_BYTES or not 1 <= percent <= 100:
        raise ValueError(f"no parity of {percent} % for {pack_bytes} bytes")
    blocks = -(-pack_bytes // block_bytes)
    wanted_rows = min(PARITY_ROWS, max(LEAST_PARITY_ROWS, MAX_PIECES * percent // (100 + percent)))
    most_data_rows = min(max(1, wanted_rows * 100 // percent), MAX_PIECES - wanted_rows)
    groups = -(-blocks // most_data_rows)
    data_rows = -(-blocks // groups)
    parity_rows = min(wanted_rows, max(LEAST_PARITY_ROWS, -(-data_rows * percent // 100)))
    return Geometry(pack_bytes, block_bytes, groups, parity_rows)


def digest(data: Buffer) -> bytes:
    """Names the content of a block; a false match cannot be made by chance, and hardly by intent."""
    return blake3(data).digest(length=DIGEST_BYTES)


def encode_header(store_id: bytes, pack: int, geometry: Geometry) -> bytes:
    g = geometry
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        0,
        store_id,
        pack,
        g.pack_bytes,
        g.block_bytes,
        g.groups,
        g.parity_rows,
        0,
        0,
    )
    return head + CHECKSUM.pack(crc64nvme(head))


def decode_header(header: Buffer, store_id: bytes, pack: int) -> Geometry:
    """Raises CorruptFrame (damaged, or of another pack or store), UnsupportedFormat."""
    if len(header) != HEADER_BYTES or bytes(header[:4]) != MAGIC:
        raise CorruptFrame("no sidecar begins here")
    (wanted,) = CHECKSUM.unpack_from(header, _HEADER.size)
    if crc64nvme(memoryview(header)[: _HEADER.size]) != wanted:
        raise CorruptFrame("the sidecar header's checksum does not match")
    _, version, length, flags, store, number, pack_bytes, block_bytes, groups, rows, _, _ = (
        _HEADER.unpack_from(header)
    )
    if version != VERSION or flags & INCOMPATIBLE_FLAGS & ~KNOWN_FLAGS or length != HEADER_BYTES:
        raise UnsupportedFormat(f"parity sidecar version {version}, flags {flags:#x}: not known here")
    if store != store_id or number != pack:
        raise CorruptFrame(f"the sidecar is of pack {number:016x} of store {store.hex()}")
    if (
        not 1 <= pack_bytes <= MAX_PACK_BYTES
        or not BLOCK_UNIT <= block_bytes <= MAX_BLOCK_BYTES
        or block_bytes % BLOCK_UNIT
        or not 1 <= groups <= -(-pack_bytes // block_bytes)
        or rows < 1
    ):
        raise CorruptFrame("the sidecar's geometry is out of bounds")
    geometry = Geometry(pack_bytes, block_bytes, groups, rows)
    if geometry.data_rows + rows > MAX_PIECES:
        raise CorruptFrame("the sidecar has too many rows")
    return geometry


def encode_pages(header: bytes, digests: Sequence[bytes]) -> bytes:
    """The digests of all blocks, data first, in pages with a checksum each."""
    return b"".join(
        page + _page_checksum(header, number, page) for number, page in enumerate(_cut_pages(digests))
    )


def decode_page(header: bytes, number: int, page: bytes) -> list[bytes]:
    """The digests of one page. Raises CorruptFrame."""
    body = page[:-DIGEST_BYTES]
    if len(page) < 2 * DIGEST_BYTES or _page_checksum(header, number, body) != page[-DIGEST_BYTES:]:
        raise CorruptFrame(f"page {number} of the sidecar does not match its checksum")
    return [body[at : at + DIGEST_BYTES] for at in range(0, len(body), DIGEST_BYTES)]


def _cut_pages(digests: Sequence[bytes]) -> Iterator[bytes]:
    for start in range(0, len(digests), PAGE_DIGESTS):
        yield b"".join(digests[start : start + PAGE_DIGESTS])


def _page_checksum(header: bytes, number: int, body: bytes) -> bytes:
    # The header is hashed with it: pages of another sidecar, or of another place in this one, do not pass.
    return digest(header + number.to_bytes(4, "big") + body)
