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
NO_ROOM_SECONDS: Final = 3600.0  # to another try to copy, where the disk seems to have no more room
MORE_ROOM_BYTES: Final = 4 << 20  # that is more: what others write and remove all the time is not


@dataclass(frozen=True, slots=True)
class Standing:
    """What the counters say, to see later how much was deleted since."""

    at_seconds: float  # wall clock: decides only when to look, never what may go
    sequence: int
    logical_bytes: int  # not inline
    placed_bytes: int
    busy_seconds: float = 0.0  # working time of the round that ended here


@dataclass(frozen=True, slots=True)
class Shortage:
    """There was no room for copies."""

    at_seconds: float  # monotonic
    free_bytes: int  # on the disk then


def plan_retry(shortage: Shortage, now_seconds: float, free_bytes: int) -> bool:
    """Whether another try to copy is worth its mark. Pure."""
    more = free_bytes - shortage.free_bytes
    return more >= MORE_ROOM_BYTES or now_seconds - shortage.at_seconds >= NO_ROOM_SECONDS


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
