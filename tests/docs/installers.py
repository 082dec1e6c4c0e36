"""pip, npm, apt-get and go get as pages call them, in the sandbox: they check what is asked for, and install nothing.

    python installers.py pip install 'vaultaire[s3]'

Ends with 1 and a line that says so if a package is unknown: a page must not name what nobody has tried.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
JS: Final = REPOSITORY / "tests/s3/clients/js"
DEBIAN: Final = {
    "borgbackup",
    "caddy",
    "curl",
    "jq",
    "nginx",
    "pgbackrest",
    "postgresql",
    "python3-venv",
    "restic",
    "s3fs",
    "sqlite3",
}


def pip(packages: list[str]) -> str | None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for package in packages:
        name, extra = re.fullmatch(r"([\w./+:@-]+?)(?:\[([\w,]+)\])?(?:[=<>~!].*)?", package).groups()
        if name in (".", "vaultaire"):
            if extra and extra not in project["optional-dependencies"]:
                return f"vaultaire has no extra {extra}"
            continue
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} is not installed here, so nobody knows whether this page is true"
    return None


def npm(packages: list[str]) -> str | None:
    known = json.loads((JS / "package.json").read_text())["dependencies"]
    if unknown := [package for package in packages if package not in known]:
        return f"{unknown} are not in {JS.relative_to(REPOSITORY)}/package.json"
    modules = Path("node_modules")
    if not modules.exists():
        modules.symlink_to(JS / "node_modules")
    return None


def apt_get(packages: list[str]) -> str | None:
    unknown = [package for package in packages if package not in DEBIAN]
    return f"{unknown}: see DEBIAN in {Path(__file__).name}" if unknown else None


def go(packages: list[str]) -> str | None:
    known = (REPOSITORY / "tests/s3/clients/go/go.mod").read_text()
    unknown = [package for package in packages if f"{package} v" not in known]
    return f"{unknown} are not in tests/s3/clients/go/go.mod" if unknown else None


def main(name: str, command: str, *arguments: str) -> str | None:
    if command not in ("install", "ci"):
        return None if command in ("update", "init") else f"{name} {command} is not known here"
    packages = [argument for argument in arguments if not argument.startswith("-")]
    return {"pip": pip, "pipx": pip, "npm": npm, "apt-get": apt_get, "go": go}[name](packages)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
