"""Storing a stream of chunks of one kind: known ones are dropped, new ones are gathered into frames and appended.

A frame is closed before it would exceed the size that the effort says (`cas.frame.Effort`). A chunk of that size or
more (joined ones are) is a frame of its own, written at once, beside the one that is being filled. Frames that are
complete are encoded side by side, then appended in order. Nothing of a caller's buffer is kept: at the end of `take`
the chunks of the unfinished frame are copied.

With a `BaseFinder` a frame that follows something known is also tried with bases (`cas.prefix`). That costs as much
as compressing it does, so after a try that was not worth it some frames are left out, more each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cas.bases import FrameBases
from cas.catalog import has_bases, placement_rows
from cas.frame import BASES_GAIN, HURRIED, MAX_CHUNKS, NORMAL, Codec, encode_frame, encode_with_bases
from cas.pack import PackKind
from cas.prefix import AUTO_GAIN, Prefixes, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cas.appender import Appender
    from cas.frame import Effort, EncodedFrame
    from cas.pending import Lookup, Pending
    from cas.ports import Buffer, ParallelMap
    from cas.prefix import BaseFinder, Chosen

_MAX_SEEN: Final = 64  # chunks of a known stretch that are looked at for an anchor
_MAX_LEFT_OUT: Final = 32  # frames, after many tries with bases that were not worth it


class _Draft:
    """A frame being filled."""

    __slots__ = ("chosen", "chunks", "effort", "finder", "ids", "least_gain", "plain", "raw_length", "runs")

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.chunks: list[Buffer] = []
        self.raw_length = 0
        self.runs: list[Run] = []
        self.plain = False  # it may not have bases: others may decode by its chunks
        self.finder: BaseFinder | None = None  # set if it is to be tried with bases
        self.chosen: Chosen | None = None  # bases that are known already
        self.least_gain = BASES_GAIN
        self.effort = NORMAL

    def add(self, chunk_id: bytes, chunk: Buffer, length: int) -> None:
        self.ids.append(chunk_id)
        self.chunks.append(chunk)
        self.raw_length += length

    def follows(self, anchor: bytes, skip: int, length: int) -> None:
        """The chunk that was just added lies `skip` bytes behind `anchor`."""
        last = self.runs[-1] if self.runs else None
        if last is not None and last.anchor is anchor and last.skip + last.length == skip:
            last.length += length
        else:
            self.runs.append(Run(anchor, skip, length))

    def encode(self) -> EncodedFrame:
        plain = encode_frame(self.ids, self.chunks, self.effort)
        if plain.codec == Codec.RAW:
            return plain
        chosen = self.chosen
        if chosen is None and self.finder is not None:
            chosen = self.finder.find(self.runs)
        if chosen is None:
            return plain
        return encode_with_bases(plain, self.ids, self.chunks, *chosen, self.effort, self.least_gain) or plain


class Sink:
    """See the module. One thread at a time."""

    def __init__(
        self,
        kind: PackKind,
        appender: Appender,
        pending: Pending,
        parallel_map: ParallelMap,
        finder: BaseFinder | None = None,
        prefixes: Prefixes = Prefixes.OFF,
        effort: Callable[[], Effort] = lambda: NORMAL,
    ) -> None:
        """`effort` is asked for before frames are made."""
        self._kind = kind
        self._appender = appender
        self._pending = pending
        self._parallel_map = parallel_map
        self._finder = None if prefixes is Prefixes.OFF else finder
        self._effort = effort
        self._frame_bytes = effort().frame_bytes
        self._patient = prefixes is Prefixes.ON
        self._least_gain = AUTO_GAIN if prefixes is Prefixes.AUTO else BASES_GAIN
        self._misses = 0  # tries with bases in a row that were not worth it
        self._left_out = 0  # frames that are still to be left out for them
        self._anchor: bytes | None = None
        self._since = 0  # new bytes since the anchor
        self._draft = _Draft()

    @property
    def held_bytes(self) -> int:
        """Raw bytes of the unfinished frame."""
        return self._draft.raw_length

    def take(self, ids: Sequence[bytes], chunks: Sequence[Buffer]) -> None:
        """Store what is new of these chunks. Raises NoSpace, PackPoisoned, PlaceFailed; the upload is lost then."""
        pending = self._pending
        found = pending.find(ids)
        in_flight, published, displaced = found
        held = pending.held
        draft = self._draft
        full: list[_Draft] = []
        passed = 0  # chunks up to here are taken into account by the anchor
        for index, (chunk_id, chunk) in enumerate(zip(ids, chunks, strict=True)):
            if chunk_id in published or chunk_id in held or chunk_id in in_flight:
                continue
            held.add(chunk_id)
            length = len(chunk)
            if passed < index:
                self._pass(found, ids[passed:index], chunks[passed:index])
            passed = index + 1
            if length >= self._frame_bytes:
                alone = _Draft()
                alone.add(chunk_id, chunk, length)
                full.append(alone)
            else:
                if draft.ids and (
                    draft.raw_length + length > self._frame_bytes or len(draft.ids) == MAX_CHUNKS
                ):
                    full.append(draft)
                    draft = _Draft()
                draft.add(chunk_id, chunk, length)
                if self._anchor is not None:
                    draft.follows(self._anchor, self._since, length)
                if displaced and chunk_id in displaced:
                    draft.plain = True
            self._since += length
        if passed < len(ids):
            self._pass(found, ids[passed:], chunks[passed:])
        self._draft = draft
        self._write(full)
        draft.chunks = [bytes(chunk) for chunk in draft.chunks]  # no copy if they are bytes already

    def take_behind(self, ids: Sequence[bytes], chunks: Sequence[Buffer], chosen: Chosen) -> None:
        """Store what is new of these chunks as one frame, with these bases if that is worth it. Raises as `take`."""
        found = self._pending.find(ids)
        draft = _Draft()
        draft.chosen = chosen
        for chunk_id, chunk in zip(ids, chunks, strict=True):
            if chunk_id not in self._pending.held and chunk_id not in found.published:
                self._pending.held.add(chunk_id)
                draft.add(chunk_id, chunk, len(chunk))
        if draft.ids:
            self._write([draft])

    def leave(self, most_bytes: int) -> dict[bytes, Buffer]:
        """The unfinished frame (id -> bytes), for others to write, if it is no longer than that; or it is written.

        So is one that may have bases: alone it takes less. Raises as `take`.
        """
        draft = self._draft
        if draft.raw_length > most_bytes or (self._finder is not None and draft.runs):
            self.flush()
            return {}
        self._draft = _Draft()
        return dict(zip(draft.ids, draft.chunks, strict=True))

    def _pass(self, found: Lookup, ids: Sequence[bytes], chunks: Sequence[Buffer]) -> None:
        """A stretch of known chunks: the last one that is in a frame without bases is the anchor from now on."""
        if self._finder is None:
            return
        since = 0
        for chunk_id, chunk in zip(ids[: -_MAX_SEEN - 1 : -1], chunks[: -_MAX_SEEN - 1 : -1], strict=True):
            row = found.row(chunk_id)
            if row is not None and not has_bases(row):
                self._anchor, self._since = row, since
                return
            since += len(chunk)
        self._since += sum(map(len, chunks))

    def flush(self) -> None:
        """Write the unfinished frame. Raises as `take`."""
        draft, self._draft = self._draft, _Draft()
        if draft.ids:
            self._write([draft])

    def _write(self, drafts: Sequence[_Draft]) -> None:
        effort = self._effort()
        for draft in drafts:
            draft.effort = effort
            draft.finder = self._finder if self._is_tried(draft, effort) else None
            if draft.chosen is None:  # what is stored behind bases already stays so
                draft.least_gain = self._least_gain
        if len(drafts) > 1:
            encoded = list(self._parallel_map(_Draft.encode, drafts))
        else:
            encoded = [draft.encode() for draft in drafts]
        for draft, frame in zip(drafts, encoded, strict=True):
            if draft.finder is not None:
                self._learn(worth_it=bool(frame.bases))
            self._append(draft, frame)

    def _is_tried(self, draft: _Draft, effort: Effort) -> bool:
        if self._finder is None or draft.plain or not draft.runs or effort is HURRIED:
            return False
        if self._left_out and not self._patient:
            self._left_out -= 1
            return False
        return True

    def _learn(self, *, worth_it: bool) -> None:
        self._misses = 0 if worth_it else self._misses + 1
        self._left_out = min((1 << self._misses) - 1, _MAX_LEFT_OUT)

    def _append(self, draft: _Draft, frame: EncodedFrame) -> None:
        pack, offset, ordinal = self._appender.append(self._kind, frame, len(draft.ids))
        lengths = [len(chunk) for chunk in draft.chunks]
        rows = placement_rows(
            pack,
            offset,
            frame.codec,
            len(frame.header),
            frame.stored_length,
            lengths,
            ordinal,
            bool(frame.bases),
        )
        bases = FrameBases(ordinal, len(draft.ids), frame.bases) if frame.bases else None
        pending = self._pending
        pending.store(dict(zip(draft.ids, rows, strict=True)), pack, offset + frame.total_length, bases)
        pending.new_stored_bytes += frame.total_length
        if self._kind == PackKind.DATA:
            pending.new_raw_bytes += draft.raw_length
