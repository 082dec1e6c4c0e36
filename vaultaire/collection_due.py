"""When collection is due: a pure decision by what the counters say now, and what they said after the last round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOON_SECONDS: Final = 15.0  # from the end of a round to the next one, when much was deleted
LATER_SECONDS: Final = 600.0  # when anything changed
SOON_DUTY: Final = 10  # a round begins at the earliest after so many times the last one's working time
LATER_DUTY: Final = 50
MUCH_BYTES: Final = 16 << 20
MUCH_SHARE: Final = 0.02  # of what is stored


@dataclass(frozen=True, slots=True)
class Standing:
    """What the counters say, to see later how much was deleted since."""

    at_seconds: float  # wall clock: decides only when to look, never what may go
    sequence: int
    logical_bytes: int  # not inline
    placed_bytes: int
    busy_seconds: float = 0.0  # working time of the round that ended here


def plan_round(last: Standing | None, now: Standing) -> bool:
    """Whether a round is due. Pure."""
    if last is None:
        return True
    if now.sequence == last.sequence:
        return False
    elapsed = now.at_seconds - last.at_seconds
    if elapsed < 0:  # the clock was set back
        return True
    # What is placed grows by what comes in, what clients see by that less what they delete. Dedup hides some of it.
    deleted = (now.placed_bytes - last.placed_bytes) - (now.logical_bytes - last.logical_bytes)
    much = deleted > max(MUCH_BYTES, MUCH_SHARE * now.placed_bytes)
    if much and elapsed >= max(SOON_SECONDS, SOON_DUTY * last.busy_seconds):
        return True
    return elapsed >= max(LATER_SECONDS, LATER_DUTY * last.busy_seconds)
