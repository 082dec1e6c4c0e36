"""Flipped bits in the packs of an open store, judged by what they can touch: thousands per minute instead of hundreds.

Nothing but the frame around a byte (and what is decoded behind it) is read from it, and `verify` looks at one pack after the other. So of each flip the
chunks of that frame are read and compared with what they were before, and its pack alone is verified, by the code that
`verify --read-data` runs. Where both are content, and of every `FULL_EVERY`th byte anyway, the whole store is read and
verified: the shortcut must come to the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from cas.catalog import PLACEMENTS, decode_placement, iterate_packs
from cas.chunk import ChunkId
from cas.reading import FrameReader, Span
from vaultaire.findings import Findings, Report
from vaultaire.tolerant import TolerantMap
from vaultaire.verify_packs import PackVerification

if TYPE_CHECKING:
    from collections.abc import Callable

    from cas.pack import PackKind
    from vaultaire.store import Store

FULL_EVERY = 499


@dataclass(slots=True)
class FrameTruth:
    """The chunks of one frame as they were before any flip."""

    begin: int
    end: int
    spans: list[Span]
    chunks: list[bytes]


class PackFlips:
    """Of one open store, which nobody else writes to."""

    def __init__(self, store: Store, expected: tuple[type[Exception], ...]) -> None:
        """`expected`: what reading may raise. Reads everything once."""
        self._store = store
        self._expected = expected
        self._forget()
        spans: dict[tuple[int, int], list[Span]] = defaultdict(list)
        with store.kv.snapshot() as reader:
            self._kinds: dict[int, PackKind] = {pack: row.kind for pack, row in iterate_packs(reader)}
            for chunk, row in reader.scan(PLACEMENTS):
                placement = decode_placement(chunk, row)
                span = Span(ChunkId(chunk), 0, placement.length, placement)
                spans[placement.pack, placement.frame].append(span)
        self._frames: dict[int, list[FrameTruth]] = defaultdict(list)
        for (pack, begin), found in spans.items():
            chunks = [bytes(data) for data in self._read(pack, found)]
            self._frames[pack].append(FrameTruth(begin, found[0].placement.frame_end, found, chunks))

    def judge(self, file: str, offset: int, judge_all: Callable[[], tuple[str, str]]) -> tuple[str, str]:
        """(verdict, detail) of the flip that is in place; `judge_all` reads and verifies the whole store."""
        pack = int(PurePath(file).name.partition(".")[0], 16)
        self._forget()
        said = False
        for frame in self._frames[pack]:
            if frame.begin <= offset < frame.end:
                try:
                    found = self._read(pack, frame.spans)
                except self._expected:
                    said = True
                else:
                    if found != frame.chunks:
                        return "WRONG", f"other bytes are served of the frame at {frame.begin}"
        complaint = self._verify(pack)
        if said and complaint is None:
            return "WRONG", "verify says nothing, reading does"
        if complaint is None or offset % FULL_EVERY == 0:
            self._forget()
            verdict = judge_all()
            if complaint is not None and verdict[0] == "same":
                return "WRONG", f"the whole store is in order, but of this pack verify says: {complaint}"
            return verdict
        return ("said", "") if said else ("verify", complaint)

    def _forget(self) -> None:
        """No frame may come from a cache, nor be made good."""
        chunks: Any = self._store.chunks
        chunks._frames = FrameReader(self._store.packs, self._store.kv.snapshot, chunks._hasher.chunk_id)

    def _read(self, pack: int, spans: list[Span]) -> list[memoryview]:
        return self._store.chunks.read_chunks(self._kinds[pack], spans)

    def _verify(self, pack: int) -> str | None:
        report = Report(True, None)
        kv = TolerantMap(self._store.kv, lambda table, key: None)
        check: Any = PackVerification(
            self._store, kv, Findings(report), read_data=True, on_progress=lambda *_: None
        )
        check._check_pack(pack, 0)
        return report.findings[0].message if report.findings else None
