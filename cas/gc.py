"""Collection by "retire first": packs of little use are emptied and removed while everything else goes on.

1. *Retire*, one commit: sealed packs become condemned, the epoch grows. From now on a lookup treats their chunks as
   unknown, and a new copy overrides the placement.
2. *Wait* until every operation that began before is over. Now only manifests that exist can rely on these packs.
3. *Mark* (`cas.marking`), then copy what is live and still placed there; each pack's commits swap the placements
   that still name a condemned pack.
4. The epoch grows again; *wait* as before; then the rows that are left are dropped, the pack's row goes, and the file
   is removed.

Why nothing live is lost. After step 2 a new manifest names a chunk placed in a condemned pack P only as the copy of a
manifest that its own transaction reads; so, going back, of one that the snapshot of step 3 shows, whose chunks are all
marked. Any other new manifest comes with a copy of its own, which its commit puts in P's place. So what is neither
marked nor moved is named by nobody, now or later. Readers that found a chunk in P before the swap began before the
epoch of step 4. Step 2 waits for readers too, though writers would do: the run file tells one epoch for both, and
step 4 waits for the same readers anyway, so the end is not delayed.

Crashes: everything is in rows (condemned packs with their epochs, packs whose files are still to be removed). Every
step may be repeated, by any process: whoever collects next waits for the condemned packs it finds, marks, and goes on.

Damage: a live chunk that cannot be read keeps its placement; its pack stays, condemned, is marked damaged and
reported, and the others go on. (An upload of the same bytes heals it, for it brings a copy of its own.)

The functions that work through packs are generators: they yield the number of raw bytes just handled, so that the
caller may pause, and never wait for anything themselves. One collector at a time (the caller holds a lock); no locks
here. Memory: one pack's footer, and a window of chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

from cas.adoption import inspect
from cas.bases import iterate_bases_of
from cas.catalog import (
    PLACEMENTS,
    PackState,
    condemn,
    decode_placement,
    drop_placements,
    forget_pack,
    get_pack,
    iterate_packs,
    pack_of,
    put_pack,
    read_condemned,
    read_gone,
    settle_gone,
)
from cas.errors import CorruptChunk, CorruptPack, MissingChunk, MissingPack, PackUnreadable
from cas.frame import NORMAL
from cas.openpack import TARGET_BYTES
from cas.pack import PackKind
from cas.reading import Span

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from cas.bases import FrameKey
    from cas.catalog import PackRow, Placement
    from cas.frame import Effort
    from cas.ports import OrderedMap, PackPlace, Transaction
    from cas.relocation import Relocation
    from cas.store import ChunkStore

WINDOW_BYTES: Final = 4 << 20  # raw; read, verified and stored at a time
BATCH_ROWS: Final = 4096  # of one commit: holds the map's write lock for some 10 ms

Placed = list[tuple[bytes, "Placement"]]


class Needed(Protocol):
    """A set of (pack, ordinal): `cas.marking.Bits`, or all."""

    def __contains__(self, place: tuple[int, int], /) -> bool: ...


class Everything:
    """What an incomplete mark comes to: nothing may be dropped, and all that is placed is copied."""

    def __contains__(self, place: tuple[int, int], /) -> bool:
        return True


# --- deciding -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """What is worth collecting. Shares are of a pack's raw bytes."""

    target_bytes: int = TARGET_BYTES
    sparse_share: float = 0.5  # with less live data a pack is always worth it: more comes back than is copied
    dense_share: float = 0.9  # with more it never is
    tolerated_garbage: float = 0.1  # of all stored bytes; beyond it, packs between the two are taken as well
    batch_packs: int = 1024  # condemned at once
    batch_copy_bytes: int = 4 << 30  # stored bytes copied for them, at most (but for one pack)
    small_packs: int = 16  # so many small packs are merged, however little they hold


@dataclass(frozen=True, slots=True)
class Plan:
    """What to condemn now; sizes are estimates of stored bytes."""

    packs: tuple[int, ...] = ()
    copy_bytes: int = 0  # that will be written anew
    free_bytes: int = 0  # that will come back, net
    more: bool = False  # there is more than one batch


@dataclass(frozen=True, slots=True)
class _Candidate:
    pack: int
    row: PackRow
    share: float  # live

    @property
    def live_bytes(self) -> int:
        return int(self.row.length * self.share)

    @property
    def free_bytes(self) -> int:
        return self.row.length - self.live_bytes


def plan_collection(
    packs: Iterable[tuple[int, PackRow]],
    live: Mapping[int, int],
    epoch: int,
    policy: Policy,
    anew: Container[int] = (),
) -> Plan:
    """Which packs to condemn. Pure. `anew`: packs that are to be stored anew however much of them is needed.

    `live`: raw bytes of the marked chunks of every pack that was sealed when the mark began; of one that is not there
    all that is placed counts as live. `epoch`: every operation that runs began in it or later, and so did the mark.
    What was published into since then is left alone: it may belong to an upload that is running, and would be copied
    for nothing (only to spare work: it would be safe).
    """
    candidates = []
    stored = garbage = 0
    for pack, row in packs:
        if row.state != PackState.SEALED:
            continue
        needed = min(live.get(pack, row.placed_bytes), row.raw_bytes)
        candidate = _Candidate(pack, row, needed / row.raw_bytes if row.raw_bytes else 0.0)
        stored += row.length
        garbage += candidate.free_bytes
        # A damaged pack is left to repair, unless nobody needs anything of it.
        if row.touched_epoch < epoch and not (row.damaged and needed):
            candidates.append(candidate)
    candidates.sort(key=lambda c: (c.share, c.pack))
    chosen = _sparse(candidates, garbage - policy.tolerated_garbage * stored, policy)
    rest = candidates[len(chosen) :]
    chosen += [candidate for candidate in rest if candidate.pack in anew]
    chosen += _small([candidate for candidate in rest if candidate.pack not in anew], policy)
    return _first_batch(chosen, policy)


def _sparse(candidates: Sequence[_Candidate], surplus: float, policy: Policy) -> list[_Candidate]:
    """The first of them, sorted as they are; beyond the sparse ones only while more garbage is left than is tolerated."""
    chosen = []
    for candidate in candidates:
        if candidate.share >= policy.sparse_share and (surplus <= 0 or candidate.share >= policy.dense_share):
            break
        chosen.append(candidate)
        surplus -= candidate.free_bytes
    return chosen


def _small(candidates: Sequence[_Candidate], policy: Policy) -> list[_Candidate]:
    """Packs under a quarter of the target, where they make one that is not small: else they would be copied for ever."""
    quarter = policy.target_bytes // 4
    groups: dict[tuple[PackKind, int], list[_Candidate]] = {}
    for candidate in candidates:
        if candidate.row.length < quarter:
            groups.setdefault((candidate.row.kind, candidate.row.domain), []).append(candidate)
    chosen: list[_Candidate] = []
    for group in groups.values():
        together = sum(candidate.live_bytes for candidate in group)
        if len(group) >= policy.small_packs or (len(group) > 1 and together >= quarter):
            chosen += group
    return chosen


def _first_batch(chosen: Sequence[_Candidate], policy: Policy) -> Plan:
    packs: list[int] = []
    copied = freed = 0
    for candidate in chosen:
        full = len(packs) >= policy.batch_packs or copied + candidate.live_bytes > policy.batch_copy_bytes
        if packs and full:
            return Plan(tuple(sorted(packs)), copied, freed, more=True)
        packs.append(candidate.pack)
        copied += candidate.live_bytes
        freed += candidate.free_bytes
    return Plan(tuple(sorted(packs)), copied, freed)


# --- steps --------------------------------------------------------------------------------------------------------


def begin_epoch(kv: OrderedMap) -> int:
    """Let the epoch grow; the new one. Operations that show it, or a later one, began after this commit."""
    return kv.commit(lambda txn: condemn(txn, ()))


def retire(kv: OrderedMap, packs: Sequence[int]) -> int:
    """Step 1. The new epoch."""
    return kv.commit(lambda txn: condemn(txn, packs))


def find_condemned(kv: OrderedMap) -> dict[int, PackRow]:
    """The condemned packs, whoever condemned them."""
    with kv.snapshot() as reader:
        rows = {pack: get_pack(reader, pack) for pack in sorted(read_condemned(reader))}
    return {pack: row for pack, row in rows.items() if row is not None}


def find_sealed(kv: OrderedMap) -> list[tuple[int, PackRow]]:
    """Every pack that might be condemned."""
    with kv.snapshot() as reader:
        return [(pack, row) for pack, row in iterate_packs(reader) if row.state == PackState.SEALED]


def has_small_frames(kv: OrderedMap, place: PackPlace, pack: int, row: PackRow, frame_bytes: int) -> bool:
    """Whether a pack holds data in more than twice the frames that frames of `frame_bytes` raw bytes would be.

    Those with bases do not count: they are never joined. Of a pack that has some, the footer is read.
    """
    if row.kind != PackKind.DATA or not _are_many(row.frames, row.raw_bytes, frame_bytes):
        return False
    with kv.snapshot() as reader:
        has_bases = next(iterate_bases_of(reader, pack), None) is not None
    if not has_bases:
        return True
    try:
        headers = [frame.header for frame in inspect(place, pack).frames if not frame.header.bases]
    except (CorruptPack, MissingPack, PackUnreadable):
        return False  # is left to repair
    return _are_many(len(headers), sum(header.raw_length for header in headers), frame_bytes)


def _are_many(frames: int, raw_bytes: int, frame_bytes: int) -> bool:
    return frames > 2 * -(-raw_bytes // frame_bytes)


@dataclass(slots=True)
class Evacuation:
    """What became of the live chunks of one pack."""

    pack: int
    copied_bytes: int = 0  # of new frames
    damaged: list[str] = field(default_factory=list)  # what could not be read, and stays

    def run(
        self,
        store: ChunkStore,
        kv: OrderedMap,
        place: PackPlace,
        row: PackRow,
        live: Needed,
        effort: Effort = NORMAL,
    ) -> Iterator[int]:
        """Step 3 for one pack: copy what is live and still placed there, and swap its placements.

        `effort`: how hard to compress data; nodes are copied as they always are, for marking reads them alone.

        Durable when it ends. Raises NoSpace, PackPoisoned, PlaceFailed; what was swapped stays swapped.
        """
        relocation = store.relocation(row.kind, effort if row.kind == PackKind.DATA else NORMAL)
        try:
            for batch in _placed(kv, place, self.pack):
                wanted = [item for item in batch if (self.pack, item[1].ordinal) in live]
                for window in _windows(wanted):
                    for frame, placed in _by_bases(window):
                        ids, chunks = self._read(store, row.kind, placed)
                        bases = None if frame is None else store.find_bases(frame)
                        if bases is None:
                            relocation.take(ids, chunks)
                        else:
                            relocation.take_behind(ids, chunks, bases)
                    if relocation.waiting >= BATCH_ROWS:
                        self._swap(store, kv, relocation)
                    yield sum(placement.length for _, placement in window)
            self._swap(store, kv, relocation)
        finally:
            self.copied_bytes += relocation.new_stored_bytes
            relocation.abort()

    def _read(
        self, store: ChunkStore, kind: PackKind, window: Placed
    ) -> tuple[list[bytes], list[memoryview]]:
        """What of a window can be read, verified."""
        spans = [Span(chunk, 0, placement.length, placement) for chunk, placement in window]  # type: ignore[arg-type]
        try:
            return [chunk for chunk, _ in window], store.read_chunks(kind, spans)
        except (CorruptChunk, MissingChunk, PackUnreadable):
            pass
        ids, chunks = [], []
        for span in spans:  # one by one, to know which
            try:
                chunks += store.read_chunks(kind, [span])
            except (CorruptChunk, MissingChunk, PackUnreadable) as error:
                self.damaged.append(str(error))
            else:
                ids.append(span.chunk)
        return list(ids), chunks

    @staticmethod
    def _swap(store: ChunkStore, kv: OrderedMap, relocation: Relocation) -> None:
        publication = relocation.publication()
        if not len(publication):
            publication.settle(False)
            return
        committed = False
        try:
            store.sync([publication])
            kv.commit(publication.apply)
            committed = True
        finally:
            publication.settle(committed)


def drop_dead(kv: OrderedMap, place: PackPlace, pack: int, live: Needed) -> Iterator[int]:
    """Step 4, after the waiting: drop the rows that still name `pack` and are not marked. Never a marked one."""
    for batch in _placed(kv, place, pack):
        dead = {chunk: placement for chunk, placement in batch if (pack, placement.ordinal) not in live}
        if dead:
            kv.commit(lambda txn, dead=dead: drop_placements(txn, pack, dead))  # type: ignore[misc]
        yield len(batch)


def forget_empty(kv: OrderedMap, packs: Sequence[int]) -> list[int]:
    """Step 4, the end: the rows of these packs go. Those in which chunks are left stay, marked damaged: returned."""

    def commit(txn: Transaction) -> list[int]:
        kept = []
        for pack in packs:
            row = get_pack(txn, pack)
            if row is None:
                continue
            if row.state != PackState.CONDEMNED:
                raise RuntimeError(f"pack {pack:016x} was to be removed, and is not condemned")
            if row.placed_chunks:
                kept.append(pack)
                put_pack(txn, pack, replace(row, damaged=True))
            else:
                forget_pack(txn, pack)
        return kept

    return kv.commit(commit)


def sweep_gone(kv: OrderedMap, place: PackPlace) -> int:
    """Remove the files of packs that have no row any more, also those that a crash left. Returns how many."""
    with kv.snapshot() as reader:
        packs = read_gone(reader)
    for pack in packs:
        place.remove(pack)
    if packs:
        kv.commit(lambda txn: settle_gone(txn, packs))
    return len(packs)


# --- what a pack holds --------------------------------------------------------------------------------------------


def _placed(kv: OrderedMap, place: PackPlace, pack: int) -> Iterator[Placed]:
    """The chunks that the catalog places in `pack`, in batches, in the order in which they lie there."""
    ids = _listed(place, pack)
    if ids is None:
        yield from _placed_by_catalog(kv, pack)
        return
    for first in range(0, len(ids), BATCH_ROWS):
        batch = sorted(set(ids[first : first + BATCH_ROWS]))
        with kv.snapshot() as reader:
            rows = reader.get_many(PLACEMENTS, batch)
        found = _naming(pack, zip(batch, rows, strict=True))
        if found:
            yield found


def _listed(place: PackPlace, pack: int) -> list[bytes] | None:
    """The ids in a pack by its intact footer; None without one (a scan of frames would end at the first damage)."""
    try:
        contents = inspect(place, pack)
    except (CorruptPack, MissingPack, PackUnreadable):
        return None
    if not contents.sealed:
        return None
    return [chunk for frame in contents.frames for chunk in frame.header.ids]


def _placed_by_catalog(kv: OrderedMap, pack: int) -> Iterator[Placed]:
    """By a walk over all placements: slow, and needs nothing of the pack."""
    start = b""
    while True:
        with kv.snapshot() as reader:
            rows = list(reader.scan(PLACEMENTS, start, limit=BATCH_ROWS))
        if not rows:
            return
        yield _naming(pack, rows)
        start = rows[-1][0] + b"\x00"


def _naming(pack: int, rows: Iterable[tuple[bytes, bytes | None]]) -> Placed:
    placed = [
        (chunk, decode_placement(chunk, row))
        for chunk, row in rows
        if row is not None and pack_of(row) == pack
    ]
    placed.sort(key=lambda item: (item[1].frame, item[1].inside))
    return placed


def _by_bases(window: Placed) -> Iterator[tuple[FrameKey | None, Placed]]:
    """Chunks of each frame with bases apart, and stretches of others together (None)."""

    def frame_with_bases(item: tuple[bytes, Placement]) -> FrameKey | None:
        placement = item[1]
        return (placement.pack, placement.frame) if placement.has_bases else None

    for frame, group in groupby(window, frame_with_bases):
        yield frame, list(group)


def _windows(placed: Placed) -> Iterator[Placed]:
    window: Placed = []
    held = 0
    for item in placed:
        if window and held + item[1].length > WINDOW_BYTES:
            yield window
            window, held = [], 0
        window.append(item)
        held += item[1].length
    if window:
        yield window
