"""What is stored: bytes that neither compress nor repeat, and a tar of files that this machine has."""

from __future__ import annotations

import os
import random
import tarfile
from pathlib import Path

MIB = 1 << 20
BLOCK = 16 * MIB
TAR_SOURCES = ("/usr", "/opt", "/home")  # the first that exist, until the tar is full


def make_random(path: Path, size: int, seed: int) -> Path:
    rng = random.Random(seed)
    with open(path, "wb") as file:
        left = size
        while left > 0:
            file.write(rng.randbytes(min(BLOCK, left)))
            left -= BLOCK
    return path


def make_tar(path: Path, size: int) -> Path:
    """Regular files in sorted order until `size` is reached, then cut to it exactly (no reader wants the end)."""
    with tarfile.open(path, "w") as tar:
        for file in _files():
            try:
                tar.add(file, recursive=False)
            except OSError:
                continue
            if tar.offset >= size:
                break
    os.truncate(path, min(size, path.stat().st_size))
    return path


def _files():
    for source in TAR_SOURCES:
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def make_small_files(folder: Path, count: int, size: int, seed: int) -> Path:
    rng = random.Random(seed)
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06}").write_bytes(rng.randbytes(size))
    return folder
