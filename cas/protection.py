"""Making a parity sidecar: from a sealed pack that was found sound, once, in short steps.

A sidecar made from damaged bytes would protect the damage, so the pack is read whole and every checksum in it is
verified first. The pack stays in memory (64 MiB as a rule) until its sidecar is made; parity and digests are
computed from those very bytes. CPU per GiB on one core: see docs/repair.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cas.errors import CorruptPack
from cas.pack import read_contents, scan_contents
from cas.parity import digest, encode_header, encode_pages, plan_geometry

if TYPE_CHECKING:
    from collections.abc import Generator

    from cas.pack import Read
    from cas.parity import Geometry
    from cas.ports import PackPlace

_READ_BYTES: Final = 4 << 20
_STEP_GROUPS: Final = 64  # about 20 MiB of data, some 50 ms
_STEP_BLOCKS: Final = 4096


def read_image(place: PackPlace, pack: int, length: int) -> bytearray:
    """The first `length` bytes of a pack. Raises CorruptPack if it is shorter, MissingPack, PackUnreadable."""
    image = bytearray(length)
    for offset in range(0, length, _READ_BYTES):
        wanted = min(_READ_BYTES, length - offset)
        (data,) = place.read(pack, [(offset, wanted)])
        if len(data) != wanted:
            raise CorruptPack(pack, offset + len(data), f"it ends there instead of at {length}")
        image[offset : offset + wanted] = data
    return image


def check_image(pack: int, image: bytearray, *, footerless: bool = False) -> None:
    """Verify every checksum of a sealed pack. Raises CorruptPack, UnsupportedFormat."""
    if footerless:
        scan_contents(pack, _reader(image), len(image))
        return
    contents = read_contents(pack, _reader(image), len(image))
    if not contents.sealed:
        raise CorruptPack(pack, contents.end, "its footer is damaged")
    scanned = scan_contents(pack, _reader(image), contents.end)
    if scanned.frames != contents.frames:
        raise CorruptPack(pack, contents.end, "its footer and its frames do not agree")


def build_sidecar(
    store_id: bytes, pack: int, image: bytearray, geometry: Geometry
) -> Generator[None, None, bytes]:
    """The bytes of the sidecar of a pack that `check_image` has passed. Yields after each step of some 50 ms."""
    parity = yield from _parity(geometry, image)
    digests: list[bytes] = []
    for data in (memoryview(image), memoryview(parity)):
        for offset in range(0, len(data), geometry.block_bytes):
            digests.append(digest(data[offset : offset + geometry.block_bytes]))
            if len(digests) % _STEP_BLOCKS == 0:
                yield
    header = encode_header(store_id, pack, geometry)
    pages = encode_pages(header, digests)
    return b"".join([header, pages, parity, pages, header])


def make_sidecar(
    place: PackPlace, store_id: bytes, pack: int, length: int, percent: int, *, footerless: bool
) -> Generator[None, None, bytes]:
    """All of it, in steps: read, verify, build. Raises CorruptPack, MissingPack, PackUnreadable, UnsupportedFormat."""
    image = read_image(place, pack, length)
    yield
    check_image(pack, image, footerless=footerless)
    yield
    return (yield from build_sidecar(store_id, pack, image, plan_geometry(length, percent)))


def finish(steps: Generator[None, None, bytes]) -> bytes:
    """Run steps to their end at once; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            data: bytes = end.value
            return data


def _parity(geometry: Geometry, image: bytearray) -> Generator[None, None, bytearray]:
    from cas.erasure import combine, parity_matrix  # numpy: 9 MB that few processes ever need

    g = geometry
    matrix = parity_matrix(g.data_rows, g.parity_rows)
    parity = bytearray(g.parity_blocks * g.block_bytes)
    view = memoryview(image)
    for first in range(0, g.groups, _STEP_GROUPS):
        count = min(_STEP_GROUPS, g.groups - first)
        starts = [(row * g.groups + first) * g.block_bytes for row in range(g.data_rows)]
        pieces = (view[start : start + count * g.block_bytes] for start in starts)
        for row, data in enumerate(combine(matrix, pieces, count, g.block_bytes)):
            start = (row * g.groups + first) * g.block_bytes
            parity[start : start + len(data)] = data
        yield
    return parity


def _reader(image: bytearray) -> Read:
    return lambda offset, length: bytes(memoryview(image)[offset : offset + length])
