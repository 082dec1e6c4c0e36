"""Storing a stream of chunks of one kind: known ones are dropped, new ones are gathered into frames and appended.

A frame is closed before it would exceed its target size, so all of it lies in zstd's window. A chunk of that size or
more (joined ones are) is a frame of its own, written at once, beside the one that is being filled. Frames that are complete are encoded side by side, then appended in order. Nothing of a caller's
buffer is kept: at the end of `take` the chunks of the unfinished frame are copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.catalog import placement_rows
from cas.frame import MAX_CHUNKS, TARGET_RAW_BYTES, encode_frame
from cas.pack import PackKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cas.appender import Appender
    from cas.frame import EncodedFrame
    from cas.pending import Pending
    from cas.ports import Buffer, ParallelMap


class _Draft:
    """A frame being filled."""

    __slots__ = ("chunks", "ids", "raw_length")

    def __init__(self, ids: list[bytes], chunks: list[Buffer], raw_length: int) -> None:
        self.ids = ids
        self.chunks = chunks
        self.raw_length = raw_length

    def encode(self) -> EncodedFrame:
        return encode_frame(self.ids, self.chunks)


class Sink:
    """See the module. One thread at a time."""

    def __init__(
        self, kind: PackKind, appender: Appender, pending: Pending, parallel_map: ParallelMap
    ) -> None:
        self._kind = kind
        self._appender = appender
        self._pending = pending
        self._parallel_map = parallel_map
        self._draft = _Draft([], [], 0)

    @property
    def held_bytes(self) -> int:
        """Raw bytes of the unfinished frame."""
        return self._draft.raw_length

    def take(self, ids: Sequence[bytes], chunks: Sequence[Buffer]) -> None:
        """Store what is new of these chunks. Raises NoSpace, PackPoisoned, PlaceFailed; the upload is lost then."""
        pending = self._pending
        known = pending.find(ids)
        held = pending.held
        draft = self._draft
        full: list[_Draft] = []
        for chunk_id, chunk in zip(ids, chunks, strict=True):
            if chunk_id in held or chunk_id in known:
                continue
            held.add(chunk_id)
            length = len(chunk)
            if length >= TARGET_RAW_BYTES:
                full.append(_Draft([chunk_id], [chunk], length))
                continue
            if draft.ids and (draft.raw_length + length > TARGET_RAW_BYTES or len(draft.ids) == MAX_CHUNKS):
                full.append(draft)
                draft = _Draft([], [], 0)
            draft.ids.append(chunk_id)
            draft.chunks.append(chunk)
            draft.raw_length += length
        self._draft = draft
        self._write(full)
        draft.chunks = [bytes(chunk) for chunk in draft.chunks]  # no copy if they are bytes already

    def leave(self, most_bytes: int) -> dict[bytes, Buffer]:
        """The unfinished frame (id -> bytes), for others to write, if it is no longer than that; or it is written.

        Raises as `take`.
        """
        draft = self._draft
        if draft.raw_length > most_bytes:
            self.flush()
            return {}
        self._draft = _Draft([], [], 0)
        return dict(zip(draft.ids, draft.chunks, strict=True))

    def flush(self) -> None:
        """Write the unfinished frame. Raises as `take`."""
        draft, self._draft = self._draft, _Draft([], [], 0)
        if draft.ids:
            self._write([draft])

    def _write(self, drafts: Sequence[_Draft]) -> None:
        if len(drafts) > 1:
            encoded = list(self._parallel_map(_Draft.encode, drafts))
        else:
            encoded = [draft.encode() for draft in drafts]
        for draft, frame in zip(drafts, encoded, strict=True):
            self._append(draft, frame)

    def _append(self, draft: _Draft, frame: EncodedFrame) -> None:
        pack, offset, ordinal = self._appender.append(self._kind, frame, len(draft.ids))
        lengths = [len(chunk) for chunk in draft.chunks]
        rows = placement_rows(
            pack, offset, frame.codec, len(frame.header), frame.stored_length, lengths, ordinal
        )
        pending = self._pending
        pending.store(dict(zip(draft.ids, rows, strict=True)), pack, offset + frame.total_length)
        pending.new_stored_bytes += frame.total_length
        if self._kind == PackKind.DATA:
            pending.new_raw_bytes += draft.raw_length
