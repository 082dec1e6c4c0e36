"""Corpora: sequences of objects as a client would send them one after the other, made from this machine's files.

Each is a generator of objects, held one at a time. Nothing is downloaded; the same machine gives the same bytes, but for
the repository of restic, whose keys are random.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
VERSIONS = 14
PASSWORD = "savings"  # of a repository that lives as long as the run


def git_tars(repository: Path) -> Iterator[bytes]:
    """`git archive` of up to 14 tags, or of as many commits spread over the history: all times differ."""
    tags = _git(repository, "tag", "--sort=creatordate").decode().split()
    states = tags[-VERSIONS:]
    if len(states) < VERSIONS:
        history = _git(repository, "log", "--reverse", "--format=%H").decode().split()
        states = [history[len(history) * n // VERSIONS - 1] for n in range(1, VERSIONS + 1)]
    for state in states:
        yield _git(repository, "archive", state)


def packages(limit_bytes: int) -> Iterator[bytes]:
    """Three states of this Python's site-packages as tars: as it is; upgraded in part; that, unpacked anew."""
    yield from _states(Path(sysconfig.get_path("purelib")), limit_bytes, random.Random(1))


def noise(limit_bytes: int) -> Iterator[bytes]:
    """Random bytes; the same again; the same with 1,000 bytes put in."""
    data = random.Random(2).randbytes(limit_bytes // 4)
    yield data
    yield data
    yield data[: len(data) // 3] + random.Random(3).randbytes(1000) + data[len(data) // 3 :]


def wheels(limit_bytes: int) -> Iterator[bytes]:
    """Site-packages as deflated zips, of which the second has every tenth file changed."""
    import zipfile

    for state in range(2):
        packed, rng = io.BytesIO(), random.Random(4)
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in _files(Path(sysconfig.get_path("purelib")), limit_bytes // 2):
                changed = rng.random() < 0.1 and state
                archive.writestr(zipfile.ZipInfo(str(path)), data + b"\n# changed" if changed else data)
        yield packed.getvalue()


def restic(folder: Path) -> Iterator[bytes]:
    """The files of a repository of restic after two backups of `folder`. Raises FileNotFoundError without restic."""
    with tempfile.TemporaryDirectory(prefix="vaultaire-savings-") as work:
        environment = os.environ | {"RESTIC_REPOSITORY": f"{work}/repository", "RESTIC_PASSWORD": PASSWORD}
        for command in (["init"], ["backup", str(folder)], ["backup", str(folder), "--force"]):
            subprocess.run(
                ["restic", "--no-cache", *command], env=environment, check=True, capture_output=True
            )
        for path in sorted(Path(work, "repository").rglob("*")):
            if path.is_file():
                yield path.read_bytes()


def all_of(git: Path, limit_bytes: int) -> dict[str, Callable[[], Iterator[bytes]]]:
    return {
        f"git tars ({VERSIONS})": lambda: git_tars(git),
        "site-packages tars (3)": lambda: packages(limit_bytes),
        "zips, deflated (2)": lambda: wheels(limit_bytes),
        "random; again; shifted": lambda: noise(limit_bytes),
        "repository of restic": lambda: restic(Path(sysconfig.get_path("stdlib"))),
    }


def _git(repository: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", repository, *arguments], check=True, capture_output=True).stdout


def _files(root: Path, limit_bytes: int) -> Iterator[tuple[Path, bytes]]:
    total = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file() or path.stat().st_size > limit_bytes // 8:
                continue
            data = path.read_bytes()
            total += len(data)
            if total > limit_bytes:
                return
            yield path.relative_to(root), data


def _states(root: Path, limit_bytes: int, rng: random.Random) -> Iterator[bytes]:
    upgraded = set()
    for state in range(3):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path, data in _files(root, limit_bytes // 3):
                if state == 1 and rng.random() < 0.05:
                    upgraded.add(path)
                body = data.replace(b"e", b"ee", 3) if path in upgraded else data
                info = tarfile.TarInfo(str(path))
                info.size, info.mtime = len(body), 1_700_000_000 + (state == 2) * 86_400
                tar.addfile(info, io.BytesIO(body))
        yield packed.getvalue()
