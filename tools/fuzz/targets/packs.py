"""What a disk gives back of the chunk store: packs, their sidecars, manifests, rows of the catalog."""

from __future__ import annotations

import struct

from blake3 import blake3

from cas import catalog, frame, manifest, pack, parity
from cas.adoption import placements
from cas.bases import decode_bases
from cas.chunk import ChunkId, Identity
from cas.errors import CasError, CorruptFrame, CorruptManifest, CorruptPack, CorruptRow, UnsupportedFormat
from tools.fuzz.targets.target import BINARY_WORDS, PACK, STORE_ID, Target, allow, cuts, sealable
from tools.fuzz.tars import TAR_WORDS, tar_seeds
from tools.fuzz.tars import take as take_tar_cuts


def take_frame(data: bytes) -> None:
    """Sealed anew where the first byte is odd."""
    body = bytearray(data[1:])
    if data[:1] and data[0] & 1:
        _seal_frame(body)
    allow(CasError, lambda: frame.decompress(bytes(body)))
    header, raw = frame.decode_frame(bytes(body), lambda header: b"".join(header.bases))
    assert len(raw) == header.raw_length == sum(header.lengths)


def _seal_frame(body: bytearray) -> None:
    """Make both checksums right, if there is a header as long as it says."""
    if len(body) < frame.HEAD.size:
        return
    length = frame.HEAD.unpack_from(body)[4]
    stored = frame.HEAD.unpack_from(body)[7]
    if not frame.MIN_HEADER_BYTES <= length <= len(body):
        return
    payload = bytes(body[length : length + stored])
    frame.CHECKSUM.pack_into(body, length - frame.CHECKSUMS_BYTES, frame.crc64nvme(payload))
    frame.CHECKSUM.pack_into(body, length - 8, frame.crc64nvme(bytes(body[: length - 8])))


def take_pack(data: bytes) -> None:
    """By its footer and frame by frame. Where the first byte is odd, its trailer and footer are sealed anew."""
    body = bytearray(data[1:])
    if data[:1] and data[0] & 1:
        _seal_footer(body)
    file = bytes(body)

    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= 1 << 64
        assert 0 <= length <= frame.MAX_RAW_BYTES + pack.MAX_FOOTER_BYTES, f"{length} bytes are asked for"
        return file[offset : offset + length]

    for look in (
        lambda: pack.read_contents(PACK, read, len(file)),
        lambda: pack.scan_contents(PACK, read),
        lambda: pack.scan_contents(PACK, read, len(file)),
    ):
        try:
            contents = look()
        except (CorruptPack, UnsupportedFormat):
            continue
        rows = dict(placements(PACK, contents))
        for chunk, row in rows.items():
            catalog.decode_placement(chunk, row)


def _seal_footer(body: bytearray) -> None:
    size = pack.TRAILER_BYTES
    if len(body) < size:
        return
    _, _, end, length = struct.Struct(">4sB3xQI").unpack_from(body, len(body) - size)
    if end + length + size == len(body) and length > 8:
        footer = bytes(body[end : end + length - 8])
        frame.CHECKSUM.pack_into(body, end + length - 8, frame.crc64nvme(footer))
    frame.CHECKSUM.pack_into(body, len(body) - 8, frame.crc64nvme(bytes(body[-size:-8])))


def take_sidecar(data: bytes) -> None:
    """Header (sealed anew where the first byte is odd) and pages; everything a geometry says stays within bounds."""
    header = bytearray(data[1 : 1 + parity.HEADER_BYTES])
    if data[:1] and data[0] & 1 and len(header) == parity.HEADER_BYTES:
        body = bytes(header[: parity.HEADER_BYTES - 8])
        frame.CHECKSUM.pack_into(header, parity.HEADER_BYTES - 8, frame.crc64nvme(body))
    allow(CasError, lambda: parity.decode_page(bytes(header), 0, data[parity.HEADER_BYTES + 1 :]))
    geometry = parity.decode_header(bytes(header), STORE_ID, PACK)
    for number in (0, geometry.blocks - 1):
        offset, length = geometry.block(number)
        assert 0 <= offset < offset + length <= geometry.pack_bytes
    for number in (0, geometry.pages - 1):
        first, second, length = geometry.page(number)
        assert 0 < first < first + length <= geometry.file_bytes
        assert first < second < second + length <= geometry.file_bytes
    offset, length = geometry.parity_block(geometry.parity_rows - 1, geometry.groups - 1)
    assert offset + length <= geometry.file_bytes


def take_manifest(data: bytes) -> None:
    """Decoded, walked (nodes are pieces of the input), cut and joined."""
    parsed = manifest.Manifest.decode(data)
    assert manifest.Manifest.decode(parsed.encode()) == parsed
    fetched = 0

    def fetch(node: ChunkId) -> bytes:
        nonlocal fetched
        fetched += 1
        if fetched > 50:
            raise CorruptManifest("enough")
        return manifest.encode_node(max(0, parsed.level - fetched), data[12 : 12 + 48 * (node[0] % 4)])

    for entry in manifest.walk(parsed.level, parsed.entries, 0, parsed.size, fetch):
        assert entry.length >= 0
    if parsed.size > 2:
        manifest.cut(parsed, 1, parsed.size - 1)


def take_tar(data: bytes) -> None:
    take_tar_cuts(data, cuts(data))


def take_node(data: bytes) -> None:
    for level in range(3):
        allow(CasError, lambda level=level: list(manifest.unpack(level, manifest.decode_node(data, level))))


def take_catalog(data: bytes) -> None:
    allow(CasError, lambda: catalog.decode_placement(b"c" * 32, data))
    allow(CasError, lambda: catalog.PackRow.decode(catalog.pack_key(PACK), data))
    allow(CasError, lambda: decode_bases(data[:12], data[12:]))


def _frame() -> bytes:
    chunks = [b"text " * 300, bytes(range(256)) * 4]
    encoded = frame.encode_frame([bytes([n]) * 32 for n in range(len(chunks))], chunks)
    return encoded.header + b"".join(encoded.payload)


def _raw_frame() -> bytes:
    encoded = frame.encode_frame([b"r" * 32], [blake3(b"noise").digest(length=900)])
    return encoded.header + b"".join(encoded.payload)


def _frame_with_bases() -> bytes:
    """Behind its bases' ids, which stand for their bytes."""
    base = ChunkId(blake3(b"base").digest())
    noise = blake3(b"noise").digest(length=900)  # much longer than what the same chunk takes behind its base
    plain = frame.encode_frame([b"p" * 32], [noise])
    encoded = frame.encode_with_bases(plain, [b"p" * 32], [base * 20], [base], base)
    assert encoded is not None
    return encoded.header + b"".join(encoded.payload)


def _packs() -> list[bytes]:
    header = pack.PackHeader.of(Identity(STORE_ID, b"k" * 32), PACK, pack.PackKind.DATA).encode()
    body, frames = header, []
    for each in (_frame(), _raw_frame()):
        frames.append((len(body), each[: frame.header_length(each)]))
        body += each
    sealed = body + pack.encode_footer(len(body), frames)
    return [mark + data for data in (sealed, body, body + bytes(500)) for mark in (b"\0", b"\1")]


def _sidecars() -> list[bytes]:
    geometry = parity.plan_geometry(300_000, 10)
    header = parity.encode_header(STORE_ID, PACK, geometry)
    digests = [parity.digest(bytes([n % 256])) for n in range(geometry.blocks + geometry.parity_blocks)]
    return [header + parity.encode_pages(header, digests)]


def _manifests() -> list[bytes]:
    leaves = [manifest.Entry(ChunkId(bytes([n]) * 32), n, 100 + n) for n in range(3)]
    branches = [manifest.Entry(ChunkId(bytes([n]) * 32), 0, 1000) for n in range(2)]
    found = [manifest.EMPTY.encode()]
    for level, entries in ((0, leaves), (1, branches), (3, branches)):
        size = sum(entry.length for entry in entries)
        found.append(manifest.Manifest(level, size, manifest.pack(level, entries)).encode())
    return found


def _nodes() -> list[bytes]:
    entries = [manifest.Entry(ChunkId(bytes([n]) * 32), 0, 100) for n in range(3)]
    return [manifest.encode_node(level, manifest.pack(level, entries)) for level in range(3)]


def _catalog() -> list[bytes]:
    row = catalog.PackRow(pack.PackKind.DATA, 0, catalog.PackState.OPEN, 100, 1, 1, 100)
    contents = pack.read_contents(
        PACK, lambda at, size: _packs()[0][1:][at : at + size], len(_packs()[0]) - 1
    )
    return [row.encode(), *(row for _, row in placements(PACK, contents))]


TARGETS = (
    Target("frame", take_frame, (CorruptFrame, UnsupportedFormat), lambda: sealable([_frame(), _raw_frame(), _frame_with_bases()]), BINARY_WORDS),
    Target("pack", take_pack, (), _packs, BINARY_WORDS),
    Target("sidecar", take_sidecar, (CorruptFrame, UnsupportedFormat), lambda: sealable(_sidecars()), BINARY_WORDS),
    Target("manifest", take_manifest, (CorruptManifest, UnsupportedFormat), _manifests, BINARY_WORDS),
    Target("tar", take_tar, (), tar_seeds, TAR_WORDS),
    Target("node", take_node, (), _nodes, BINARY_WORDS),
    Target("catalog", take_catalog, (CorruptRow, UnsupportedFormat), _catalog, BINARY_WORDS),
)  # fmt: skip
