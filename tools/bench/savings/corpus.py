"""A corpus: a folder of files that goes through versions, each of which is stored whole by everything compared.

A generator of versions writes into `Site.folder` and yields when a version is complete; it may then change, add and
remove files. What it makes depends on the seed, the scale and this machine's files, on nothing else.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
EPOCH = 1_700_000_000  # seconds: the time of the first version
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Site:
    folder: Path  # the versions; empty at first
    scratch: Path  # what a generator keeps beside them; empty at first
    git: Path  # a repository with history
    scale: float = 1.0

    def size(self, mib: float) -> int:
        """Bytes: so many MiB, scaled; at least 64 KiB."""
        return max(64 << 10, int(mib * MIB * self.scale))

    def states(self, count: int) -> int:
        """So many versions, fewer (but 3) at scales under a quarter, for what cannot be made smaller itself."""
        return max(3, min(count, int(4 * count * self.scale)))


@dataclass(frozen=True, slots=True)
class Corpus:
    """`versions` raises FileNotFoundError, with its name, if a program that it needs is not installed."""

    name: str
    about: str  # what it is, in the words of the published table
    versions: Callable[[Site], Iterator[None]]
    real: bool = False  # the bytes are this machine's, changes aside; else they are generated
    bound: str = ""  # measured for a bound of its own, and left out of the mean: "random" or "encrypted"


def seed(name: str) -> int:
    """The same for a name on every machine (`hash` is not)."""
    return zlib.crc32(name.encode())
