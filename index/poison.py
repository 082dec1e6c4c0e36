"""`run/poisoned`: the mark that no process may commit any more and that the next opener rebuilds LMDB.

Made after a failed sync, when a journal record that must not count could not be erased, or after a crash in C. Every commit of every
process looks for it under the commit lock. Only recovery, alone in the store and done with its rebuild, removes it.

It leaves `run/poisoned.before`: if a sync fails again while that is there, another restart would not help either, and
the store becomes read-only (`index.readonly`). Whoever has seen the store work for long enough removes it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from index.fileops import FileOps


CRASHED: Final = "a process crashed"  # how the reason begins if LMDB itself may end whoever looks at it


def poison_path(directory: Path) -> Path:
    return directory / "run" / "poisoned"


def earlier_poison_path(directory: Path) -> Path:
    return directory / "run" / "poisoned.before"


def poison_reason(directory: Path) -> str | None:
    """Why the store is poisoned; None if it is not."""
    try:
        return poison_path(directory).read_text(errors="replace").strip() or "no reason was recorded"
    except FileNotFoundError:
        return None


def set_poison(directory: Path, reason: str, ops: FileOps) -> None:
    """Durable on return. Raises OSError; the mark may then be there or not."""
    path = poison_path(directory)
    fd = ops.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        ops.pwrite(fd, f"{reason}\n".encode(), 0)
        ops.sync_file(fd)
    finally:
        os.close(fd)
    ops.sync_directory(path.parent)


def clear_poison(directory: Path, ops: FileOps) -> None:
    """It was, and is no more. Durable on return. Raises OSError."""
    path = poison_path(directory)
    if path.exists():
        ops.rename(path, earlier_poison_path(directory))
        ops.sync_directory(path.parent)


def forget_poison(directory: Path) -> None:
    """The store has worked well since. Raises OSError."""
    earlier_poison_path(directory).unlink(missing_ok=True)
