"""Whether the wall clock can be believed: it is compared with one that nobody can set.

Nothing's safety depends on the wall clock, but expiry by age does: a clock that jumps a year ahead would make lifecycle
delete what it should keep. So after a jump of more than `TOLERANCE_SECONDS` nothing expires until the clock is back
where it should be, or has stayed where it is for `SETTLING_SECONDS` (the operator meant it). What the clock said when
the process started is believed: there is nothing to compare it with.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE_SECONDS: Final = 3600.0
SETTLING_SECONDS: Final = 24 * 3600.0

log = logging.getLogger("vaultaire.clock")


def steady() -> float:
    """Seconds since some moment, also those in which the machine slept (where the system counts them)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class ClockWatch:
    """One thread at a time."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = steady) -> None:
        self._wall = wall
        self._steady = steady
        self._believed = self._offset()
        self._jumped_to: float | None = None
        self._jumped_at = 0.0

    def is_believable(self) -> bool:
        """Call it now and then; small corrections are followed."""
        offset = self._offset()
        if abs(offset - self._believed) <= TOLERANCE_SECONDS:
            self._believed, self._jumped_to = offset, None
            return True
        if self._jumped_to is None or abs(offset - self._jumped_to) > TOLERANCE_SECONDS:
            self._jumped_to, self._jumped_at = offset, self._steady()
            log.error(
                "the clock jumped by %+.0f s: nothing expires before it is set right, or has kept that time for %d h",
                offset - self._believed,
                SETTLING_SECONDS // 3600,
            )
        if self._steady() - self._jumped_at < SETTLING_SECONDS:
            return False
        self._believed, self._jumped_to = offset, None
        return True

    def _offset(self) -> float:
        return self._wall() - self._steady()
