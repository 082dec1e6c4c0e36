"""`run/readonly`: the mark that nothing may be written to this store, while reading goes on.

Made when a restart of all processes cannot help: syncs failed again after one, or recovery found no room or a disk
that does not take writes. Every commit of every process looks for it under the commit lock, beside `run/poisoned`.
It is not synced (the disk may be what fails) and need not be: after a power cut everything is recovered anyway. It is
removed by an opener that was told that the operator starts the server anew; one made for lack of room (its text
begins with FULL) by any opener that can recover.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FULL = "no room: "


def readonly_path(directory: Path) -> Path:
    return directory / "run" / "readonly"


def readonly_reason(directory: Path) -> str | None:
    """Why the store is read-only; None if it is not. Raises OSError if the disk does not even say that."""
    try:
        return readonly_path(directory).read_text(errors="replace").strip() or "no reason was recorded"
    except FileNotFoundError:
        return None


def set_readonly(directory: Path, reason: str) -> None:
    """The first reason stays. Raises OSError; the mark may then be there, empty."""
    if readonly_reason(directory) is None:
        fd = os.open(readonly_path(directory), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{reason}\n".encode())
        finally:
            os.close(fd)


def clear_readonly(directory: Path) -> None:
    """Raises OSError."""
    readonly_path(directory).unlink(missing_ok=True)
