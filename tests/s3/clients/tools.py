"""Finding and running client programs. A missing one skips its test with a reason that names it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.s3.harness import Server

MIB = 1 << 20
SIZES = {"empty": 0, "one-byte": 1, "5MiB": 5 * MIB, "5MiB+1": 5 * MIB + 1}
NAMES = ["plain.txt", "with space.bin", "plus+sign", "per%2Fcent", "dir/ünï-é", "dir/sub/🎉.bin", "a&b='c'"]
RUN_SECONDS = 180.0


def program(name: str, *, how: str) -> str:
    """The path of a program: beside this Python first (pip puts it there), then on the search path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        pytest.skip(f"the client {name} is not installed ({how})")
    return found


def environment(server: Server, home: Path, **more: str) -> dict[str, str]:
    """What every client gets: keys, region, the certificate to trust, and a home without settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    variables = {
        **kept,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(home / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "none"),
        "AWS_PAGER": "",
    }
    if server.certificate is not None:
        cert = str(server.certificate.cert)
        variables |= {"AWS_CA_BUNDLE": cert, "SSL_CERT_FILE": cert, "NODE_EXTRA_CA_CERTS": cert}
    return {**variables, **more}


def run(
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    cwd: Path | None = None,
    timeout: float = RUN_SECONDS,
    warnings: Sequence[str] = (),
) -> str:
    """Run a client to its end; its output. It must succeed and complain of nothing.

    `warnings` are words of messages that are not about the server, each with its reason where it is passed.
    """
    done = subprocess.run(
        command,
        env=dict(variables),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    shown = f"{' '.join(command)}\n--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-3000:]}"
    assert done.returncode == 0, f"exit status {done.returncode}: {shown}"
    complaints = [line for line in done.stderr.splitlines() if line and not any(w in line for w in warnings)]
    assert not complaints, f"a complaint: {shown}"
    assert "warn" not in done.stdout.lower(), f"a warning: {shown}"
    return done.stdout


def make_files(
    folder: Path, rng, sizes: Mapping[str, int] = SIZES, names: Sequence[str] = NAMES
) -> dict[str, bytes]:
    """Files to store: relative name -> content. Also written under `folder`."""
    contents = {name: rng.randbytes(size) for name, size in sizes.items()}
    contents |= {name: name.encode() * 100 for name in names}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return contents


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def make_large_file(path: Path, rng, size: int = 1 << 30) -> Path:
    """1 GiB that neither compresses nor repeats."""
    with open(path, "wb") as file:
        file.writelines(rng.randbytes(16 * MIB) for _ in range(size // (16 * MIB)))
    return path


def same_files(one: Path, other: Path) -> bool:
    """Compared piece by piece: the files may be larger than the memory."""
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            left, right = a.read(4 * MIB), b.read(4 * MIB)
            if left != right:
                return False
            if not left:
                return True
