"""Choosing bases: what a frame of new chunks is probably a changed version of.

After a stretch that the store knows, a stream has something new; then the bytes that followed the same stretch when it
was stored are likely an earlier version of them. They lie behind it in its pack. So the chunks of a frame are told with
their *anchor*, the row of the last known chunk before them, and the frame may be compressed against what follows that.

Policy only: whatever is chosen, any reader can decode it (`cas.bases` has the rules that make that so). What cannot
be found or read is left out, never an error: then the frame stays without bases.

Memory: PREFIX_BYTES for the frame, and what reading holds for it (`cas.reading`).
"""

from __future__ import annotations

import bisect
import logging
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.catalog import decode_placement
from cas.errors import CasError
from cas.frame import MAX_BASES, decode_header, header_length
from cas.reading import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.chunk import ChunkId
    from cas.frame import FrameHeader
    from cas.pending import Known
    from cas.ports import PackPlace
    from cas.reading import FrameReader

PREFIX_BYTES: Final = 384 << 10
BACK_BYTES: Final = 32 << 10  # deep in a stretch of new bytes the old ones have drifted either way
MAX_SKIP_BYTES: Final = 8 << 20  # behind its anchor; further on the two versions have lost each other
# Where nobody has asked for it: of many tars the newest would be read 1.6 times slower with BASES_GAIN, 1.3 with this.
AUTO_GAIN: Final = 0.4
_MAX_FRAMES: Final = 64  # headers looked at for one frame
_HEADER_GUESS: Final = 4096

log = logging.getLogger("vaultaire.prefix")


class Prefixes(Enum):
    """Whether new frames may have bases."""

    OFF = "off"
    AUTO = "auto"  # where it has lately been worth it, and saves AUTO_GAIN
    ON = "on"  # wherever there is an anchor, and it saves BASES_GAIN


@dataclass(slots=True)
class Run:
    """New chunks that came one after the other: `length` bytes, `skip` bytes behind their anchor."""

    anchor: bytes  # its placement's row
    skip: int
    length: int


class Chosen(NamedTuple):
    ids: tuple[ChunkId, ...]
    prefix: bytes  # their raw bytes, one after the other


class BaseFinder:
    """See the module. Thread-safe."""

    def __init__(
        self,
        known: Known,
        place: PackPlace,
        frames: FrameReader,
        chunk_id: Callable[[memoryview], ChunkId],
    ) -> None:
        self._known = known
        self._place = place
        self._frames = frames
        self._chunk_id = chunk_id

    def find(self, runs: Sequence[Run]) -> Chosen | None:
        """Bases for a frame of these runs; None if there is nothing of use. Blocking. The caller is an operation."""
        try:
            return self._choose(runs)
        except CasError:
            return None  # damage is found, and told, by those who read for a client

    def _choose(self, runs: Sequence[Run]) -> Chosen | None:
        walk = _Walk(self._place)
        candidates: dict[ChunkId, None] = {}  # ordered
        for run in runs:
            if run.skip <= MAX_SKIP_BYTES:
                candidates.update(dict.fromkeys(walk.behind(run, run.length + run.length // 2)))
        try:
            rows = self._known.published(candidates)
        except Exception:  # whatever the map raises: of what an upload does not need
            log.exception("earlier chunks cannot be looked up")
            return None
        spans: list[Span] = []
        total = 0
        for chunk in candidates:
            row = rows.get(chunk)
            if row is None:
                continue
            placement = decode_placement(chunk, row)
            if placement.has_bases or placement.raw_frame:
                continue  # the one may not be, the other is noise
            if total + placement.length > PREFIX_BYTES or len(spans) == MAX_BASES:
                break
            spans.append(Span(chunk, 0, placement.length, placement))
            total += placement.length
        if not spans:
            return None
        prefix = b"".join(self._frames.read(spans, self._chunk_id))
        return Chosen(tuple(span.chunk for span in spans), prefix)


class _Listed(NamedTuple):
    """A frame as its header has it. `ends`: where each chunk ends in the raw bytes."""

    header: FrameHeader
    ends: Sequence[int]


class _Walk:
    """From frame to frame of packs, by their headers: each is read once, and a few of them in all."""

    def __init__(self, place: PackPlace) -> None:
        self._place = place
        self._seen: dict[tuple[int, int], _Listed | None] = {}

    def behind(self, run: Run, wanted: int) -> Iterator[ChunkId]:
        """Ids of about `wanted` bytes of chunks, from `run.skip` bytes behind its anchor on.

        Of a frame that has bases these are named instead: they are the version before it.
        """
        anchor = decode_placement(b"", run.anchor)
        offset, start = anchor.frame, anchor.inside + anchor.length + max(0, run.skip - BACK_BYTES)
        while wanted > 0 and (found := self._frame(anchor.pack, offset)) is not None:
            header, ends = found
            if start < header.raw_length:
                first = bisect.bisect_right(ends, start)
                after = bisect.bisect_left(ends, start + wanted) + 1
                yield from header.bases or header.ids[first:after]
                wanted -= header.raw_length - start
            start = max(0, start - header.raw_length)
            offset += header.total_length

    def _frame(self, pack: int, offset: int) -> _Listed | None:
        """None: no frame is there, or enough were looked at."""
        key = (pack, offset)
        if key not in self._seen:
            self._seen[key] = self._read(pack, offset) if len(self._seen) < _MAX_FRAMES else None
        return self._seen[key]

    def _read(self, pack: int, offset: int) -> _Listed | None:
        try:
            (head,) = self._place.read(pack, [(offset, _HEADER_GUESS)])
            length = header_length(head)
            if length > len(head):
                (head,) = self._place.read(pack, [(offset, length)])
            header = decode_header(head)
        except CasError:
            return None
        return _Listed(header, list(accumulate(header.lengths)))
