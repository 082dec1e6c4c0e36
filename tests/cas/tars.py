"""Tars made byte by byte, so that they are the same under every Python; and tar-1 once more, without streaming."""

from __future__ import annotations

import random
import tarfile
from typing import TYPE_CHECKING

from cas.tar_cuts import EXAMINED_EVERY_BYTES, has_checksum, header_size, padded

if TYPE_CHECKING:
    from collections.abc import Sequence

BURST_BYTES = 64 * EXAMINED_EVERY_BYTES


def header(
    name: str = "file",
    size: int = 0,
    kind: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    link: bytes = b"",
    mtime: int = 0,
    size_field: bytes | None = None,
    extended: bool = False,
) -> bytes:
    record = bytearray(512)
    record[: len(name)] = name.encode()
    record[100:124] = b"0000644\x000000000\x000000000\x00"
    record[124:136] = b"%011o\0" % size if size_field is None else size_field.ljust(12, b"\0")
    record[136:148] = b"%011o\0" % mtime
    record[156:157] = kind
    record[157 : 157 + len(link)] = link
    record[257:265] = magic
    record[482] = extended
    return summed(record)


def summed(record: bytes | bytearray) -> bytes:
    """With its checksum."""
    found = bytearray(record)
    found[148:156] = b" " * 8
    found[148:156] = b"%06o\0 " % sum(found)
    return bytes(found)


def member(data: bytes, name: str = "file", **fields: object) -> bytes:
    return header(name, len(data), **fields) + data + bytes(-len(data) % 512)  # type: ignore[arg-type]


def text(length: int, seed: int) -> bytes:
    rng = random.Random(seed)
    words = [b"%x" % rng.getrandbits(24) for _ in range(400)]
    return b" ".join(rng.choices(words, k=length // 3 + 1))[:length]


def tree(seed: int, files: int = 60, *, mtime: int = 0, texts_only: bool = False) -> bytes:
    """A tar of files of 0 to 90,000 bytes, some in folders, with the end that tars have."""
    rng = random.Random(seed)
    out = [header("folder/", kind=b"5", mtime=mtime)]
    for number in range(files):
        length = rng.choice([0, 300, 3585, 4096, 9_000, 30_000, 90_000])
        noisy = number % 3 == 2 and not texts_only
        data = rng.randbytes(length) if noisy else text(length, seed * 1000 + number)
        out.append(member(data, f"folder/{number}", mtime=mtime))
    return b"".join(out) + bytes(10_240)


def by_tarfile(layout: int, encoding_errors: bool = False) -> bytes:
    """A tar as Python writes it: with links, long names, and (of pax) extended headers."""
    import io

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=layout) as tar:
        for number in range(20):
            long = "x" * 120 + "/" if number % 4 == 0 and layout != tarfile.USTAR_FORMAT else ""
            info = tarfile.TarInfo(f"{long}{number}")
            info.mtime = number + (0.5 if layout == tarfile.PAX_FORMAT else 0)
            data = text(number * 1700, number)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "0"
        tar.addfile(link)
    return packed.getvalue()


def cuts_of(data: bytes) -> list[int]:
    """The forced cuts of tar-1 inside `data`, ascending: the rule as FORMAT.md has it, on all the bytes at once."""
    return sorted({cut for cut in _Reference(data).run() if 0 < cut < len(data)})


class _Reference:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.charged = 0

    def run(self) -> list[int]:
        data, at, cuts = self.data, 0, []
        while at < len(data):
            record = data[at : at + 512]
            size = header_size(record) if len(record) == 512 else None
            if size is None or (size > 3584 and not has_checksum(record)):
                cuts.append(at)
                at = self.search(at)
                cuts.append(at)
                continue
            at += 512
            if record[156] in b"xgLKXVN":
                at += padded(size)
            elif size and record[156] not in b"123456":
                if record[156:157] == b"S" and record[482]:
                    while len(data) >= at + 512:
                        at += 512
                        if not data[at - 512 + 504]:
                            break
                    else:
                        return cuts
                if len(data) >= at + 512 and self.is_member(at):
                    continue
                if padded(size) >= 4096:
                    cuts += (at, at + padded(size))
                at += padded(size)
        return cuts

    def search(self, at: int) -> int:
        found = self.data.find(bytes(100) + b"ustar", at + 157)
        while found >= 0:
            place = found - 157
            if place + 512 <= len(self.data) and self.is_member(place):
                return place
            found = self.data.find(bytes(100) + b"ustar", found + 1)
        return len(self.data)

    def is_member(self, at: int) -> bool:
        record = self.data[at : at + 512]
        if header_size(record) is None or self.charged - at > BURST_BYTES:
            return False
        self.charged = max(self.charged, at) + EXAMINED_EVERY_BYTES
        return has_checksum(record)


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    ends = [*cuts, len(data)]
    return [data[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
