"""The same data under other average chunk sizes, in the same pass.

Cut and hashed anew for each average (minimum a quarter, maximum four times of it, the other rules alike), with an id set
of their own, smaller than the main one. **Counted**: the new bytes and chunks. **Taken over** from the size that is
measured: what compression leaves of new bytes, for frames are of the same size whatever the chunks in them. **Calculated**:
rows, frame headers and manifest entries per new chunk. No frame is compressed, so an average costs 0.3 to 0.7 s per GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.chunk import Hasher
from cas.chunker import CutRules
from cas.cutter import Cutter
from cas.frame import ENTRY
from cas.manifest import LEAF
from vaultaire.analyze.ids import DEPTHS, IdSet, Seen, depth_of, short_id
from vaultaire.analyze.pages import Rows
from vaultaire.analyze.tally import PLACEMENT_KEY, PLACEMENT_VALUE
from vaultaire.analyze.trial import Sighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cas.chunk import Identity
    from vaultaire.analyze.tally import Part, Shares

LIMIT_IDS: Final = 2_000_000  # of each size: 26 MiB


@dataclass(frozen=True, slots=True)
class Point:
    average_bytes: int
    chunks: int  # different ones
    unique_bytes: int
    stored_bytes: int
    measured: bool  # False: an estimate, see the module


def scaled_rules(rules: CutRules, average: int) -> CutRules:
    """The same shape around another average."""
    minimum = rules.minimum * average // rules.average
    return CutRules(average, minimum, rules.maximum * average // rules.average, rules.normalization)


class Other:
    """One other average. Its counters belong to one thread (`fork`), its ids to all."""

    def __init__(self, identity: Identity, average: int, ids: IdSet | None = None) -> None:
        self._rules = scaled_rules(CutRules.parse(identity.cdc), average)
        self._identity = identity
        self._hasher = Hasher(identity.hash_key)
        self.average = average
        self.ids = IdSet(LIMIT_IDS) if ids is None else ids
        self.sighted = Sighted()
        self.chunks = 0
        self._cutter = self._new_cutter()

    def fork(self) -> Other:
        """For another thread."""
        return Other(self._identity, self.average, self.ids)

    def merge(self, other: Other) -> None:
        self.sighted.merge(other.sighted)
        self.chunks += other.chunks

    def feed(self, block: bytes | memoryview) -> None:
        self._take(self._cutter.feed(block))

    def finish(self) -> None:
        """The object ends; the next one begins."""
        self._take(self._cutter.finish())
        self._cutter = self._new_cutter()

    def _new_cutter(self) -> Cutter:
        return Cutter(self._rules, tar=bool(self._identity.tar), uniform=bool(self._identity.uniform))

    def _take(self, chunks: Sequence[memoryview]) -> None:
        shorts = [short_id(chunk_id) for chunk_id in self._hasher.chunk_ids(chunks)]
        self.chunks += len(shorts)
        sighted = self.sighted
        for short, chunk, seen in zip(shorts, chunks, self.ids.add(shorts), strict=True):
            if seen is not Seen.UNSAMPLED:
                depth = depth_of(short)
                sighted.seen_bytes[depth] += len(chunk)
                sighted.seen_chunks[depth] += 1
                if seen is Seen.NEW:
                    sighted.new_bytes[depth] += len(chunk)
                    sighted.new_chunks[depth] += 1


def curve(measured: Shares, part: Part, own_average: int, others: Sequence[Other]) -> list[Point]:
    """All sizes, ascending."""
    if not others:
        return []
    points = [
        Point(own_average, measured.new_chunks, measured.unique_bytes, measured.stored_bytes, measured=True)
    ]
    per_new = Rows().add(PLACEMENT_KEY, PLACEMENT_VALUE) + 2 * ENTRY.size + LEAF.size
    new = measured.unique_bytes - part.inline_bytes
    kept = (measured.payload_bytes - part.inline_bytes) / new if new else 1.0
    for other in others:
        level = other.ids.level
        unique = _part_of(part.chunked_bytes, other.sighted.new_bytes, other.sighted.seen_bytes, level)
        chunks = _part_of(other.chunks, other.sighted.new_chunks, other.sighted.seen_chunks, level)
        stored = measured.stored_bytes + (unique - new) * kept
        stored += (chunks - measured.new_chunks) * per_new
        points.append(
            Point(
                other.average,
                round(chunks),
                round(unique) + part.inline_bytes,
                max(0, round(stored)),
                measured=False,
            )
        )
    return sorted(points, key=lambda point: point.average_bytes)


def _part_of(whole: int, new: Sequence[int], seen: Sequence[int], level: int) -> float:
    below = sum(seen[level:DEPTHS])
    return whole * sum(new[level:DEPTHS]) / below if below else float(whole)
