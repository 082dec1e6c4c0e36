"""What a target is, and what targets share: checked cutting, sealing, words that mutations put in."""

from __future__ import annotations

import contextlib
import os
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CORPUS = Path(__file__).parents[1] / "corpus"
PACK = 0x0000_0001_0000_0001
STORE_ID = bytes(range(16))
DEEP = b"[" * 50_000  # deeper than Python's own parser goes
JSON_WORDS = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"null", b"true", b"1e999", b"-0", b"NaN", b"\\u0000", b"\\ud800", b"\\$",
    b"Condition", b"Statement", b"expiration", b"conditions", b"[" * 200, b"arn:aws:s3:::", b"*", b"?", b"${aws:username}",
)  # fmt: skip
BINARY_WORDS = (
    b"VltJ",
    b"VtFr",
    b"VtPk",
    b"VtFo",
    b"VtEn",
    b"VtNd",
    b"VltH",
    b"VltA",
    bytes(8),
    b"\xff" * 8,
)


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    take: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    words: Sequence[bytes] = ()

    def corpus(self) -> list[bytes]:
        """The seeds, and what is kept in tools/fuzz/corpus."""
        files = sorted((CORPUS / self.name).glob("*")) if (CORPUS / self.name).is_dir() else []
        return [*self.seeds(), *(path.read_bytes() for path in files)]


def cuts(data: bytes) -> list[bytes]:
    """`data` in pieces; where they end depends on `data` alone."""
    pieces, at, step = [], 0, 1 + zlib.crc32(data) % 97
    while at < len(data):
        pieces.append(data[at : at + step])
        at += step
        step = 1 + step * 7 % 251
    return pieces


def sealable(seeds: Iterable[bytes]) -> list[bytes]:
    return [mark + seed for seed in seeds for mark in (b"\0", b"\1")]


@cache
def fast_directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def allow(errors: type[Exception] | tuple[type[Exception], ...], work: Callable[[], object]) -> None:
    with contextlib.suppress(errors):
        work()
