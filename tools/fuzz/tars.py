"""The walk along a tar's headers: any bytes are cut, in any split the same, nothing is lost, little is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.tar_cuts import RECORD, TarCuts

if TYPE_CHECKING:
    from collections.abc import Sequence

TAR_WORDS = (
    b"ustar\x0000", b"ustar  \0", bytes(100) + b"ustar", bytes(512), b"00000010000\0", b"77777777777\0", b"\x80" + b"\xff" * 11,
)  # fmt: skip


def tar_seeds() -> list[bytes]:
    big, small = _header(5000) + b"a" * 5120, _header(100) + b"b" * 512
    damaged = _header(9000)[:200] + b"?" + _header(9000)[201:]
    sparse = _header(4096, b"S", extended=True) + bytes(504) + b"\1" + bytes(519) + b"c" * 4096
    return [
        big + small + big + bytes(1024),
        b"!" + small + big,
        damaged + big,
        sparse + _header(1, b"x") + big,
        big[:700],
    ]


def take(data: bytes, pieces: Sequence[bytes]) -> None:
    assert _cuts([data]) == _cuts(pieces)


def _cuts(blocks: Sequence[bytes]) -> set[int]:
    cutter, found, given = TarCuts(), set(), []
    for block in blocks:
        given += cutter.feed(block)
        assert cutter.held_bytes < RECORD
    given += cutter.finish()
    assert b"".join(piece for piece, _ in given) == b"".join(blocks)
    at = 0
    for piece, ends in given:
        at += len(piece)
        if ends:
            found.add(at)
    return found - {0, at}


def _header(size: int, kind: bytes = b"0", *, extended: bool = False) -> bytes:
    record = bytearray(RECORD)
    record[124:136] = b"%011o\0" % size
    record[148:156] = b" " * 8
    record[156:157] = kind
    record[257:265] = b"ustar\x0000"
    record[482] = extended
    record[148:156] = b"%06o\0 " % sum(record)
    return bytes(record)
