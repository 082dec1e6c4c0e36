"""Gathering: the ends of the uploads of one group commit go into joint frames.

Most uploads are small, and what is left of one for its last frame is smaller than a frame should be: alone it costs a
frame of its own and compresses badly. So an ingest leaves that rest, its tail, with its publication, and
`ChunkStore.sync` writes the tails of all its publications together. A tail is in memory only until then: an upload that
is given up before its commit has left nothing of it anywhere.

Guarantees: afterwards every publication has a placement for each chunk of its tail, in frames that are written (not
durable: the rest of `sync` sees to that), or relies on the pack of one that others have published meanwhile. Joint
frames have no bases. A chunk of several tails is stored once. If a frame cannot be written, the publications of that
frame and of later ones still have their tails, whole, and may be gathered again, by themselves: the error is theirs
alone. None is written twice.

What an upload has added is known only now: its share of each frame, by raw length; the shares add up to the frame.

Blocking, in the thread of whoever syncs: a process's committer. Its frames are compressed side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from cas.catalog import has_bases, pack_of, placement_rows
from cas.frame import MAX_CHUNKS, NORMAL, encode_frame
from cas.pack import PackKind

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from cas.appender import Appender
    from cas.frame import Effort, EncodedFrame
    from cas.pending import Known, Pending
    from cas.ports import Buffer, ParallelMap
    from cas.publication import Publication

# Less than other frames: a joint frame is decoded whole to read one small object. Measured with texts of 16 KiB:
# 64 KiB store 13 % less and a read takes 52 us more (a GET, some 700), 128 KiB 16 % and 123 us, 256 KiB 15 % and 260 us.
JOINT_RAW_BYTES: Final = 64 << 10
TAIL_RAW_BYTES: Final = JOINT_RAW_BYTES // 2  # a longer rest is a frame of its own: it would gain little


class Tail:
    """New chunks of one upload that its commit shall write. One thread at a time."""

    __slots__ = ("_pending", "chunks")

    def __init__(self, chunks: Mapping[bytes, Buffer], pending: Pending) -> None:
        """`chunks`: id -> bytes, which must not change any more. `pending` counts what the upload has added."""
        self.chunks = chunks  # none any more once they are written
        self._pending = pending

    @property
    def raw_length(self) -> int:
        return sum(map(len, self.chunks.values()))

    def written(self, stored_bytes: int, raw_bytes: int) -> None:
        """All of it can be found; so much was added to packs for it."""
        self.chunks = {}
        self._pending.new_stored_bytes += stored_bytes
        self._pending.new_raw_bytes += raw_bytes


@dataclass(slots=True)
class JointFrame:
    """A frame to be: its chunks, and of each tail that it completes: the tail's number, its own bytes in here."""

    chunks: dict[bytes, Buffer] = field(default_factory=dict)
    raw_length: int = 0
    members: list[tuple[int, int]] = field(default_factory=list)

    def has_room(self, chunks: int, raw_bytes: int, most_bytes: int) -> bool:
        return self.raw_length + raw_bytes <= most_bytes and len(self.chunks) + chunks <= MAX_CHUNKS

    def encode(self, effort: Effort) -> EncodedFrame | None:
        return encode_frame(list(self.chunks), list(self.chunks.values()), effort) if self.chunks else None


def plan_gather(
    tails: Sequence[Mapping[bytes, Buffer]], known: Container[bytes], most_bytes: int
) -> list[JointFrame]:
    """The frames to write, in order: every chunk that is not `known` is in one of them, once.

    All that is a tail's own (in no tail before it) is in one frame, which holds at most `most_bytes`, or that tail
    alone. When that frame and those before it are written the tail is complete. Only the first frame may be empty:
    nothing is to be written then.
    """
    frames = [JointFrame()]
    placed: set[bytes] = set()
    for number, tail in enumerate(tails):
        own = {chunk: data for chunk, data in tail.items() if chunk not in known and chunk not in placed}
        length = sum(map(len, own.values()))
        frame = frames[-1]
        if own and frame.chunks and not frame.has_room(len(own), length, most_bytes):
            frame = JointFrame()
            frames.append(frame)
        frame.chunks.update(own)
        frame.raw_length += length
        frame.members.append((number, length))
        placed.update(own)
    return frames


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided in proportion to `weights`; the shares add up to it, unless all weights are 0."""
    whole = sum(weights) or 1
    return [
        total * end // whole - total * begin // whole
        for begin, end in pairwise(accumulate(weights, initial=0))
    ]


def gather(
    publications: Sequence[Publication],
    known: Known,
    appender: Appender,
    parallel_map: ParallelMap,
    effort: Effort = NORMAL,
) -> None:
    """Write the tails of these publications; see the module. Blocking. Raises NoSpace, PackPoisoned, PlaceFailed."""
    waiting = [(each, each.tail) for each in publications if each.tail is not None and each.tail.chunks]
    if not waiting:
        return
    tails = [tail.chunks for _, tail in waiting]
    # Others may have stored the same chunks since these uploads looked.
    found = known.find({chunk for tail in tails for chunk in tail})
    # What is in flight behind bases would bring these along: it is simpler to store it once more.
    rows = {chunk: row for chunk, row in found.in_flight.items() if not has_bases(row)}
    published = {chunk: pack_of(row) for chunk, row in found.published.items()}
    frames = plan_gather(tails, rows.keys() | published.keys(), JOINT_RAW_BYTES)
    encode = partial(JointFrame.encode, effort=effort)
    encoded = list(parallel_map(encode, frames)) if len(frames) > 1 else [encode(frames[0])]
    for frame, encoded_frame in zip(frames, encoded, strict=True):
        total = 0
        if encoded_frame is not None:
            total = encoded_frame.total_length
            new = _append(appender, frame, encoded_frame)
            known.offer(new)
            rows.update(new)
        added = shares(total, [length for _, length in frame.members])
        for (number, length), stored_bytes in zip(frame.members, added, strict=True):
            publication, tail = waiting[number]
            publication.complete(
                {chunk: rows[chunk] for chunk in tail.chunks if chunk in rows},
                {published[chunk] for chunk in tail.chunks if chunk in published},
            )
            tail.written(stored_bytes, length)


def _append(appender: Appender, frame: JointFrame, encoded: EncodedFrame) -> dict[bytes, bytes]:
    """id -> row of the frame's chunks."""
    pack, offset, ordinal = appender.append(PackKind.DATA, encoded, len(frame.chunks))
    lengths = [len(data) for data in frame.chunks.values()]
    header_length = len(encoded.header)
    rows = placement_rows(pack, offset, encoded.codec, header_length, encoded.stored_length, lengths, ordinal)
    return dict(zip(frame.chunks, rows, strict=True))
