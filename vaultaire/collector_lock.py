"""Exactly one process collects: `run/collector.lock`, held for each slice of work."""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class CollectorLock:
    """See the module. Remembers whether another process held it since we last did."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._token = secrets.token_bytes(16)

    def acquire(self, *, wait: bool = False) -> bool:
        """Blocking with `wait`. The collector of a maintenance process lets go after each slice."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def claim(self) -> bool:
        """True if nobody else has held it since the last call."""
        if os.pread(self._fd, 16, 0) == self._token:
            return True
        os.pwrite(self._fd, self._token, 0)
        return False

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
