"""How hard to compress, by how busy the machine is. Policy only: any reader decodes what any effort made.

Uploads: normal, and hurried while many blocks wait for a core; a while after the queue is short again, normal once more.
Neither changes at every block: a level that flutters costs the ratio and hides why. Collection: thorough where the
machine has nothing else to do, for then the time is free.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from cas.frame import HURRIED, NORMAL, THOROUGH, Effort

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE_PER_CORE: Final = 8  # blocks that wait: with as many a client waits seconds for its megabytes
HURRY_AFTER_SECONDS: Final = 1.0  # of such a queue
RELAX_AFTER_SECONDS: Final = 5.0  # of one half as long
IDLE_LOAD_PER_CORE: Final = 0.25  # beside collection itself


class UploadEffort:
    """Call it before frames are made. Any thread (a race costs a look, nothing else)."""

    def __init__(
        self, waiting: Callable[[], int], cores: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`waiting`: how many blocks wait for a core."""
        self._waiting = waiting
        self._many = QUEUE_PER_CORE * cores
        self._clock = clock
        self._effort = NORMAL
        self._changing_since: float | None = None

    def __call__(self) -> Effort:
        hurried = self._effort is HURRIED
        waiting = self._waiting()
        wants_change = waiting < self._many // 2 if hurried else waiting >= self._many
        if not wants_change:
            self._changing_since = None
            return self._effort
        now = self._clock()
        since = self._changing_since
        if since is None:
            self._changing_since = since = now
        if now - since >= (RELAX_AFTER_SECONDS if hurried else HURRY_AFTER_SECONDS):
            self._effort = NORMAL if hurried else HURRIED
            self._changing_since = None
        return self._effort


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return float("inf")  # unknown: then the machine is not taken to be idle


def collection_effort(load: Callable[[], float] = _load, cores: int | None = None) -> Effort:
    """`load`: processes that want a core, of late; the collector is one of them."""
    cores = cores or os.cpu_count() or 1
    return THOROUGH if load() < 1 + IDLE_LOAD_PER_CORE * cores else NORMAL
