"""Decisions of a move, pure: what is done already, what may be overwritten, how bodies are cut.

**Done** means the same length and the same ETag on both sides. Where the source's ETag says nothing (it is no MD5), the
same length and time count instead: an import keeps the source's times.

**Overwriting.** What the destination has and is not the same is replaced by default only if the source's is newer
(`OLDER`); what a client has written there since is kept, and counted. Locks are not decided here: `index.versions`.
"""

from __future__ import annotations

import re
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from vaultaire.moving.places import Entry

MIB: Final = 1 << 20
SINGLE_PUT_BYTES: Final = (
    32 * MIB
)  # up to this an object without parts is exported by one PUT: its ETag stays
PART_BYTES: Final = 32 * MIB
MAX_PARTS: Final = 10_000

_ETAG = re.compile(r"[0-9a-f]{32}(?:-([1-9][0-9]{0,4}))?")


class Overwrite(Enum):
    """What may be done to an object that is there and different."""

    OLDER = "older"
    NEVER = "never"
    ALWAYS = "always"


class Verdict(Enum):
    TAKE = "take"
    DONE = "done"
    REFRESH = "refresh"  # the same bytes, and the source's is newer: its metadata may be other
    ASK = "ask"  # the listings cannot tell: look at the source's object
    KEEP = "keep"  # the destination has something else, which is not to be overwritten


def etag_parts(etag: str) -> int | None:
    """N of an ETag "digest-N", 0 of a plain one; None: it is of neither form, hence says nothing."""
    match = _ETAG.fullmatch(etag)
    if match is None:
        return None
    return int(match[1] or 0)


def plan_object(source: Entry, found: Entry | None, overwrite: Overwrite) -> Verdict:
    """`found`: what the destination shows under that key."""
    if found is None:
        return Verdict.TAKE
    same_size = source.size == found.size
    newer = _is_newer(source.modified_ms, found.modified_ms)
    if same_size and source.etag and source.etag == found.etag:
        return Verdict.REFRESH if newer else Verdict.DONE
    if same_size and source.modified_ms == found.modified_ms:
        return Verdict.DONE if etag_parts(source.etag) is None else Verdict.ASK
    if overwrite is Overwrite.ALWAYS or (overwrite is Overwrite.OLDER and newer):
        return Verdict.TAKE
    return Verdict.KEEP


def _is_newer(source_ms: int, found_ms: int) -> bool:
    """Many servers tell whole seconds, in some answers or in all: then only those can be compared."""
    if source_ms % 1000 == 0 or found_ms % 1000 == 0:
        return source_ms // 1000 > found_ms // 1000
    return source_ms > found_ms


def plan_chain(source: Sequence[Hashable], destination: Sequence[Hashable]) -> int | None:
    """How many of a key's versions (marks, the oldest first) are there already; None: there is something else.

    What was moved before is the beginning of `source`, and the end of `destination`, which may have more before it: the
    source's rules may have removed its oldest since.
    """
    if not destination:
        return 0
    for count in range(min(len(source), len(destination)), 0, -1):
        if list(source[:count]) == list(destination[-count:]):
            return count
    return None


def windows(size: int, window_bytes: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover [0, size) in order."""
    for start in range(0, size, window_bytes):
        yield start, min(start + window_bytes, size)


def equal_parts(size: int, count: int, first: int) -> tuple[int, ...]:
    """The sizes of `count` parts that are all as long as the first but the last; () if that cannot be."""
    last = size - first * (count - 1)
    if count < 1 or not 0 < last <= max(first, 1) * (1 if count > 1 else size):
        return ()
    return (*(first,) * (count - 1), last)


def upload_parts(size: int, made_of: Sequence[int]) -> tuple[int, ...]:
    """The parts by which an object is exported; () for one PUT. `made_of`: the parts it was uploaded in, if known.

    The same parts give the same ETag again.
    """
    if made_of and sum(made_of) == size and all(part >= 5 * MIB for part in made_of[:-1]):
        return tuple(made_of)
    if size <= SINGLE_PUT_BYTES:
        return ()
    part = PART_BYTES
    while size > part * MAX_PARTS:
        part *= 2
    return tuple(stop - start for start, stop in windows(size, part))


def offsets(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive parts."""
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return list(pairwise(ends))


def backoff_seconds(attempt: int, asked_seconds: float, jitter: float) -> float:
    """Before the next attempt; `attempt` from 0, `jitter` in [0, 1). What a server asks for counts, up to a minute."""
    return max(min(asked_seconds, 60.0), min(0.1 * 2.0**attempt, 10.0) * (0.5 + jitter / 2))
