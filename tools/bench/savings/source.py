"""Trees of files in memory, from what this machine has, and edits of them as releases and upgrades make them.

A tree maps relative paths to contents. Every choice comes from the generator that is passed in.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.savings.corpus import EPOCH

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

Tree = dict[str, bytes]
SKIPPED = {"__pycache__", ".git", "node_modules"}


def sample(roots: Iterable[Path], limit_bytes: int, rng: random.Random, suffix: str = "") -> Tree:
    """Whole folders of the roots, drawn by chance, until the limit; no file over an eighth of it.

    Raises FileNotFoundError if there is next to nothing.
    """
    folders = [found for root in roots for found in _folders(root)]
    tree: Tree = {}
    left = limit_bytes
    for folder in rng.sample(folders, len(folders)):
        for path in sorted(folder.iterdir()):
            if not path.name.endswith(suffix) or path.is_symlink() or not path.is_file():
                continue
            try:
                if path.stat().st_size > min(left, limit_bytes // 8):
                    continue
                data = path.read_bytes()
            except OSError:
                continue
            tree[str(path).lstrip("/")] = data
            left -= len(data)
        if left < limit_bytes // 50:
            break
    if sum(map(len, tree.values())) < limit_bytes // 4:
        raise FileNotFoundError(f"{limit_bytes} bytes of files below {', '.join(map(str, roots))}")
    return dict(sorted(tree.items()))


def _folders(root: Path) -> list[Path]:
    found = []
    for folder, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        found.append(Path(folder))
    return found


def edit(data: bytes, rng: random.Random) -> bytes:
    """A later version of one file: some lines changed, added and gone; a binary as if it had been built again."""
    return _edit_binary(data, rng) if b"\0" in data[:4096] else _edit_text(data, rng)


def _edit_text(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    for _ in range(1 + len(lines) // 150):
        at, count = rng.randrange(len(lines)), rng.randint(1, 4)
        other = lines[at : at + count]
        kind = rng.random()
        if kind < 0.4:
            new = [_reworded(line, rng) for line in other]
        elif kind < 0.8:
            new = [*other, *(_reworded(line, rng) for line in rng.choices(lines, k=count))]
        else:
            new = []
        lines[at : at + count] = new or [b""]
    return b"\n".join(lines)


def _reworded(line: bytes, rng: random.Random) -> bytes:
    """The same indentation, most of the words, one new."""
    body = line.lstrip()
    words = body.split(b" ")
    words[rng.randrange(len(words))] = b"%x" % rng.getrandbits(rng.choice((8, 16, 40)))
    return line[: len(line) - len(body)] + b" ".join(words)


def _edit_binary(data: bytes, rng: random.Random) -> bytes:
    """A few stretches move by some bytes, and addresses (words of 4 bytes) change in a tenth of the pages."""
    out = bytearray(data)
    for _ in range(1 + len(out) // 400_000):
        at = rng.randrange(len(out))
        out[at : at + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
    for page in range(0, len(out) - 4096, 4096):
        if rng.random() < 0.1:
            for _ in range(8):
                at = page + rng.randrange(1000) * 4
                out[at : at + 4] = rng.randbytes(4)
    return bytes(out)


def upgrade(tree: Tree, rng: random.Random, share: float, *, depth: int) -> Tree:
    """A share of the packages (files with the same first `depth` parts of their paths) in a later version.

    Of an upgraded package a third of the files changed, some are new, some are gone.
    """
    packages = sorted({_package(path, depth) for path in tree})
    chosen = {name for name in packages if rng.random() < share} or {rng.choice(packages)}
    new: Tree = {}
    for path, data in tree.items():
        kind = rng.random()
        if _package(path, depth) not in chosen or kind > 0.35:
            new[path] = data
        elif kind > 0.02:
            new[path] = edit(data, rng)
        if kind < 0.04 and _package(path, depth) in chosen:
            new[f"{path}.new{rng.randrange(1000)}"] = edit(data, rng)
    return dict(sorted(new.items()))


def _package(path: str, depth: int) -> str:
    return "/".join(path.split("/")[:depth])


def tar(tree: Tree, path: Path, times: dict[str, int] | int = EPOCH, form: int = tarfile.GNU_FORMAT) -> None:
    """`times`: seconds, of each file or of all; in a pax archive they have a fraction, so that each has its own header."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = times if isinstance(times, int) else times[name]
            if form == tarfile.PAX_FORMAT:
                info.pax_headers["mtime"] = f"{info.mtime}.{len(data) * 7919 % 10**9:09}"
            archive.addfile(info, io.BytesIO(data))


def files(tree: Tree, folder: Path) -> None:
    """Make the folder hold the tree, and nothing else."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(folder)) not in tree:
            path.unlink()
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
