"""What a reader does about damage: serve the right bytes if parity has them, and tell those who mend.

Guarantees: a frame that is returned came from blocks whose digests match and passed its own checksums (its reader
verifies the chunk ids besides). Damage that was made good queues the pack to be mended on disk; chunks that are lost
are recorded as damaged, so that an upload of the same bytes heals them (`cas.damage`): with all chunks of their
frame that fail, whether they were asked for or not. Each is logged once. A report that cannot be written is logged
and never turns a good read into a failure. Thread-safe; blocking; commits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cas.catalog import PLACEMENTS, decode_placement, get_pack
from cas.damage import Damage, known_damage, packs_to_mend, queue_mending, record_damage
from cas.errors import CasError, CorruptFrame, CorruptPack
from cas.frame import HEAD, Codec, decode_frame, decode_header, header_length, raw_bytes
from cas.pack import read_contents

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cas.catalog import Placement
    from cas.chunk import ChunkId
    from cas.frame import FrameHeader
    from cas.ports import Buffer, OrderedMap, PackPlace, Transaction
    from cas.recovery import Recovery

    PrefixOf = Callable[[FrameHeader], Buffer]

log = logging.getLogger("vaultaire.healing")


class Healer:
    """See the module. `recovery`: None where packs have no parity of ours."""

    def __init__(self, kv: OrderedMap, place: PackPlace, recovery: Recovery | None) -> None:
        self._kv = kv
        self._place = place
        self._recovery = recovery

    def frame(self, placement: Placement, reason: CasError, prefix_of: PrefixOf) -> Buffer:
        """The raw bytes of a whole frame that could not be read or verified. Raises CasError if nothing helps.

        `prefix_of`: the raw bytes of the bases that a frame's header names.
        """
        if self._recovery is None:
            raise reason
        pack, frame = placement.pack, placement.frame
        stored, mended = self._recovery.recover(pack, frame, placement.frame_end)
        try:
            _, raw = decode_frame(stored, prefix_of)
        except CorruptFrame as error:
            raise CorruptPack(pack, frame, f"{error}, and its parity agrees") from error
        if mended:
            self._queue(pack, frame, reason)
        else:
            log.warning("%s; read again it was right: check memory and cables of this machine", reason)
        return raw

    def lost(
        self,
        chunks: Collection[bytes],
        placement: Placement,
        chunk_id: Callable[[memoryview], ChunkId],
        prefix_of: PrefixOf,
    ) -> None:
        """These chunks of one frame cannot be brought back."""
        pack, frame = placement.pack, placement.frame
        header = frame_header(self._place, pack, frame)
        failing = set(chunks)
        if header is not None:
            failing.difference_update(header.ids)
            failing |= failing_chunks(self._place, pack, frame, header, chunk_id, prefix_of)

        def write(txn: Transaction) -> int:
            queue_mending(txn, pack)  # whoever mends looks for more of the kind in the whole pack
            return record_placed(txn, dict.fromkeys(failing, Damage(pack, frame)))

        try:
            with self._kv.snapshot() as reader:
                if known_damage(reader, sorted(failing)) >= failing:
                    return
            recorded = self._kv.commit(write)
        except Exception:  # whatever the map raises: the read fails with what it found, not with this
            log.exception("%d damaged chunks could not be recorded", len(failing))
        else:
            if recorded:
                log.error(
                    "%d chunks of pack %016x, frame at %d, are lost. Uploading the same data again heals them; "
                    "`vaultaire repair` lists the objects",
                    recorded,
                    pack,
                    frame,
                )

    def _queue(self, pack: int, frame: int, reason: CasError) -> None:
        try:
            with self._kv.snapshot() as reader:
                row = get_pack(reader, pack)
                if row is None or row.footerless or pack in packs_to_mend(reader):
                    return
            self._kv.commit(lambda txn: queue_mending(txn, pack))
        except Exception:
            log.exception("pack %016x needs to be mended, which could not be recorded", pack)
        else:
            log.error(
                "%s. Its parity made it good, nothing is lost; pack %016x will be mended (frame at %d)",
                reason,
                pack,
                frame,
            )


def queue_damaged_pack(kv: OrderedMap, pack: int) -> bool:
    """Damage was seen in `pack`, by whoever: let it be mended. False if that is known, or the pack gone."""
    with kv.snapshot() as reader:
        row = get_pack(reader, pack)
        if row is None or pack in packs_to_mend(reader):
            return False
    kv.commit(lambda txn: queue_mending(txn, pack))
    return True


def record_placed(txn: Transaction, damage: dict[bytes, Damage]) -> int:
    """Record those chunks as damaged whose placement is where the damage was seen. How many were not known to be."""
    ids = sorted(damage)
    known = known_damage(txn, ids)
    found = {}
    for chunk, row in zip(ids, txn.get_many(PLACEMENTS, ids), strict=True):
        if row is None or chunk in known:
            continue
        placement = decode_placement(chunk, row)
        if (placement.pack, placement.frame) == damage[chunk]:
            found[chunk] = damage[chunk]
    if found:
        record_damage(txn, found)
    return len(found)


def failing_chunks(
    place: PackPlace,
    pack: int,
    frame: int,
    header: FrameHeader,
    chunk_id: Callable[[memoryview], ChunkId],
    prefix_of: PrefixOf,
) -> set[bytes]:
    """The chunks of a frame whose bytes cannot be read or do not have their ids."""
    payload = frame + header.header_length
    if header.codec == Codec.RAW:
        spans = _spans(header)
        return {
            c for c, begin, length in spans if _read_id(place, pack, payload + begin, length, chunk_id) != c
        }
    try:
        (stored,) = place.read(pack, [(payload, header.stored_length)])
        raw = memoryview(raw_bytes(header, stored, prefix_of))
    except CasError:
        return set(header.ids)
    return {c for c, begin, length in _spans(header) if chunk_id(raw[begin : begin + length]) != c}


def _spans(header: FrameHeader) -> Iterator[tuple[ChunkId, int, int]]:
    """(chunk, where it begins in the raw bytes, its length)."""
    begin = 0
    for chunk, length in zip(header.ids, header.lengths, strict=True):
        yield chunk, begin, length
        begin += length


def _read_id(
    place: PackPlace, pack: int, offset: int, length: int, chunk_id: Callable[[memoryview], ChunkId]
) -> ChunkId | None:
    try:
        (data,) = place.read(pack, [(offset, length)])
    except CasError:
        return None
    return chunk_id(memoryview(data))


def frame_header(place: PackPlace, pack: int, frame: int) -> FrameHeader | None:
    """From the frame itself, or else from the pack's footer."""
    try:
        (head,) = place.read(pack, [(frame, HEAD.size)])
        (header,) = place.read(pack, [(frame, header_length(head))])
        return decode_header(header)
    except CasError:
        pass
    try:
        contents = read_contents(pack, lambda o, n: place.read(pack, [(o, n)])[0], place.length(pack))
    except CasError:
        return None
    return next((each.header for each in contents.frames if each.offset == frame), None)
