"""The C library's memory allocator, told how the process is used: many clients, or few and fast ones.

glibc keeps freed blocks for reuse and, by default, raises the size from which a block is given back to the system at
once. That is right for a few fast streams (fresh pages cost 10 % of a download), and wrong for a thousand slow ones:
their buffers end up scattered in half-empty heaps, at twice the memory that is in use. So with a crowd blocks from
`CROWD_BLOCK_BYTES` on come from the system and go back to it. The number of heaps is bounded by the environment that
the supervisor gives its children. Elsewhere than on glibc all of this does nothing.

https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

CROWD_STREAMS: Final = 64  # from so many on it is a crowd, below half of it no more
CROWD_BLOCK_BYTES: Final = 32 << 10
USUAL_BLOCK_BYTES: Final = 32 << 20  # the largest that glibc itself would raise it to
_M_MMAP_THRESHOLD: Final = -3


class Allocator:
    """Tell it how many streams run. Used by one thread."""

    def __init__(self, mallopt: Callable[[int, int], object] | None = None) -> None:
        self._mallopt = mallopt if mallopt is not None else _find_mallopt()
        self._crowded = False

    def streams_changed(self, streams: int) -> None:
        """Cheap: acts only where a crowd comes or goes."""
        if self._crowded:
            if streams < CROWD_STREAMS // 2:
                self._set(USUAL_BLOCK_BYTES, crowded=False)
        elif streams >= CROWD_STREAMS:
            self._set(CROWD_BLOCK_BYTES, crowded=True)

    def _set(self, threshold: int, *, crowded: bool) -> None:
        self._crowded = crowded
        self._mallopt(_M_MMAP_THRESHOLD, threshold)


def _find_mallopt() -> Callable[[int, int], object]:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            function: Callable[[int, int], object] = ctypes.CDLL(None).mallopt
            return function
    return lambda _parameter, _value: None
