"""The chunk store: bytes in, manifest out; manifest in, verified bytes out.

    ingest -> feed ... finish -> publication -> sync -> (commit: apply) -> settle
    locate or windows -> read

Guarantees: nothing that a committed publication names is missing or volatile; every chunk is verified before a byte
of it is returned; memory is bounded whatever the size of an object. Thread-safe; blocking.

What it leaves to others: names (whoever stores manifests), the commit itself, and when an operation begins and ends.
Callers that read hold an operation from before their first snapshot; copies and compositions look at their sources
again inside the commit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cas.adoption import Adoption, adopt
from cas.appender import Appender
from cas.bases import get_bases
from cas.catalog import CasStatistics, PackState, get_pack, statistics
from cas.chunk import MAX_RAW_BYTES, ChunkId, Hasher
from cas.cutter import Cutter
from cas.errors import CasError
from cas.frame import NORMAL
from cas.frame_cache import CACHE_BYTES, FrameCache
from cas.gathering import gather
from cas.healing import Healer
from cas.ingest import Ingest
from cas.manifest import MAX_LEVEL, Builder, Entry, Manifest, concatenate, cut, pack, walk, walk_down, wrap
from cas.marking import Marker
from cas.openpack import TARGET_BYTES
from cas.pack import PackKind
from cas.pending import Known, Pending
from cas.prefix import BaseFinder, Chosen, Prefixes
from cas.publication import Publication
from cas.publishing import publish
from cas.reading import FrameReader, Span, resolve
from cas.recovery import Recovery
from cas.relocation import Relocation
from cas.sink import Sink
from cas.slices import Slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cas.bases import FrameKey
    from cas.catalog import Placement
    from cas.chunk import Identity
    from cas.frame import Effort
    from cas.manifest import Node
    from cas.marking import Bits
    from cas.ports import Operations, OrderedMap, PackPlace, ParallelMap, R, Reader, Sidecars, T

__all__ = ["Adoption", "CasStatistics", "ChunkStore", "Composition", "Ingest", "Publication", "Span"]

SEAL_AFTER_SECONDS: Final = 600.0  # an open pack is sealed this long after its first byte


@dataclass(frozen=True, slots=True)
class Composition:
    """What `compose` made; the manifest counts once the publication is committed."""

    manifest: Manifest
    publication: Publication


def _serial_map(fn: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
    return map(fn, items)


class ChunkStore:
    """See the module. `writer`: this process's number, never used before; 0: it only reads."""

    def __init__(
        self,
        kv: OrderedMap,
        packs: PackPlace,
        identity: Identity,
        writer: int,
        operations: Operations | None = None,
        *,
        sidecars: Sidecars | None = None,
        parallel_map: ParallelMap = _serial_map,
        clock: Callable[[], float] = time.monotonic,
        pack_target_bytes: int = TARGET_BYTES,
        cache_bytes: int = CACHE_BYTES,
        effort: Callable[[], Effort] = lambda: NORMAL,
    ) -> None:
        """With `operations` every ingest counts as one from its making to its end; without, the caller sees to it.

        With `sidecars` damage is made good from parity when it is read. `parallel_map` compresses, and decodes, frames
        side by side. `clock`: seconds, any origin. `cache_bytes`: decoded frames that are kept.
        `effort`: how hard to compress what is uploaded, now; asked for by any thread.
        """
        self._kv = kv
        self._packs = packs
        self._operations = operations
        self._parallel_map = parallel_map
        self.effort = effort  # may be replaced at any time
        Cutter.of(identity)  # refuses unknown rules
        self._identity = identity
        self._hasher = Hasher(identity.hash_key)
        self._appender = Appender(packs, identity, writer, clock, pack_target_bytes)
        self._known = Known(kv, self._appender.lost)
        self.recovery = None if sidecars is None else Recovery(packs, sidecars, identity.store_id)
        healer = Healer(kv, packs, self.recovery)
        cache = FrameCache(cache_bytes)
        self._frames = FrameReader(packs, kv.snapshot, self._hasher.chunk_id, healer, cache, parallel_map)
        alone = FrameReader(packs, kv.snapshot, self._hasher.chunk_id, healer, cache)
        self._finder = BaseFinder(self._known, packs, alone, self._hasher.chunk_id)

    # --- writing ------------------------------------------------------------------------------------------------

    def ingest(self, prefixes: Prefixes = Prefixes.AUTO) -> Ingest:
        """Begin an upload. `prefixes`: whether its frames may have bases."""
        operations = self._operations
        on_end = (lambda: None) if operations is None else partial(operations.end, operations.begin())
        cutter = Cutter.of(self._identity)
        return Ingest(
            cutter,
            self._hasher,
            self._known,
            self._appender,
            self._parallel_map,
            on_end,
            self._finder,
            prefixes,
            self.effort,
        )

    def compose(self, parts: Sequence[tuple[Manifest, int, int]]) -> Composition:
        """One manifest for the ranges [start, stop) of these manifests, in order. Metadata only.

        The sources must be committed, and their records be read again in the commit. Raises ValueError for a range
        outside its manifest; NoSpace, PackPoisoned, PlaceFailed; rarely (rebuilding a deep tree) what `read` raises.
        """
        pending = Pending(self._known)
        sink = Sink(PackKind.NODE, self._appender, pending, self._parallel_map)
        cuts = [cut(manifest, start, stop) for manifest, start, stop in parts]
        try:
            manifest, nodes = concatenate(cuts, self._hasher.node_id)
            if manifest.level > MAX_LEVEL:
                manifest = self._rebuild(cuts, sink)
            else:
                _store_nodes(sink, nodes)
            sink.flush()
        except BaseException:
            pending.known.withdraw(pending.placements)  # nobody would ever publish them
            raise
        batch = pending.take()

        def on_settle(committed: bool) -> None:
            del committed  # either way nobody needs them in flight any more
            pending.known.withdraw(batch.placements)

        publication = Publication(batch, pending.needed, frozenset(pending.relied), on_settle)
        return Composition(manifest, publication)

    def sync(self, publications: Sequence[Publication]) -> None:
        """Write what they left to their commit, in joint frames, and make the bytes of all their packs durable; one
        flush per pack. May be repeated, with fewer of them: what is done stays done. Raises NoSpace, PackPoisoned,
        PlaceFailed: some of them are not synced then; by themselves the others can be.
        """
        gather(publications, self._known, self._appender, self._parallel_map, self.effort())
        for publication in publications:
            publication.make_durable(self._appender)
        if publications:
            publications[0].carry(self._appender.ended())

    # --- reading ------------------------------------------------------------------------------------------------

    def locate(self, reader: Reader, manifest: Manifest, start: int, stop: int) -> list[Span]:
        """Where bytes [start, stop) are. Reads nodes, hence packs, if the manifest is a tree; see `windows`.

        Raises MissingChunk, CorruptChunk, CorruptManifest.
        """
        fetch = partial(self._fetch_node, reader)
        return resolve(reader, list(walk(manifest.level, manifest.entries, start, stop, fetch)))

    def windows(
        self,
        manifest: Manifest,
        start: int,
        stop: int,
        window_bytes: int,
        span_bytes: int = MAX_RAW_BYTES,
    ) -> Iterator[list[Span]]:
        """As `locate`, about `window_bytes` at a time (never less, but for the last; more by less than a span).

        Longer spans than `span_bytes` are divided: see `slices`. Each step takes a short snapshot of its own; the
        generator may move between threads. Raises as `locate`.
        """
        batch: list[Entry] = []
        held = 0
        for entry in walk(manifest.level, manifest.entries, start, stop, self._fetch_node_now):
            for part in (entry,) if entry.length <= span_bytes else _divided(entry, span_bytes):
                batch.append(part)
                held += part.length
                if held >= window_bytes:
                    yield self._resolve(batch)
                    batch, held = [], 0
        if batch:
            yield self._resolve(batch)

    def read(self, spans: Sequence[Span]) -> list[memoryview]:
        """The bytes of each span, in order; every chunk is verified before anything is returned.

        Raises CorruptChunk, MissingChunk, PackUnreadable.
        """
        return self._frames.read(spans, self._hasher.chunk_id)

    def slices(self, span_bytes: int) -> Slices:
        """Reads windows of one span that were divided to `span_bytes`."""
        return Slices(self._frames, self._hasher.chunk_id, span_bytes)

    def read_node(self, reader: Reader, node: ChunkId) -> memoryview:
        """The bytes of a manifest's node, verified. Raises as `read`."""
        return self._fetch_node(reader, node)

    def can_be_read(self, reader: Reader, chunks: Sequence[bytes]) -> list[bool]:
        """Which of these chunks (or nodes) stand whole in their packs; parity is not asked."""
        plain = FrameReader(self._packs, self._kv.snapshot, self._hasher.chunk_id, cache=FrameCache(0))
        found = []
        for chunk in chunks:
            try:
                (span,) = resolve(reader, [Entry(ChunkId(chunk), 0, 0)])
                plain.read([span], partial(self._either_id, chunk))
            except CasError:
                found.append(False)
            else:
                found.append(True)
        return found

    def read_bases(self, pack: int, frame: int) -> bytes | None:
        """The raw bytes that a published frame is decoded behind; None if it has no bases, or needs none any more.

        (That of a pack which is condemned, or gone: nobody may read there.) Raises as `read`, and CorruptFrame.
        """
        with self._kv.snapshot() as reader:
            bases = get_bases(reader, (pack, frame))
            row = get_pack(reader, pack)
        if bases is None or row is None or row.state == PackState.CONDEMNED:
            return None
        return self._frames.prefix(bases.ids)

    def marker(self, earlier: Bits | None = None) -> Marker:
        """Finds and counts what manifests name, each chunk once; see `cas.marking`."""
        return Marker(self._kv.snapshot, self._fetch_placed_node, earlier)

    def statistics(self, reader: Reader) -> CasStatistics:
        return statistics(reader)

    # --- collection ---------------------------------------------------------------------------------------------

    def relocation(self, kind: PackKind, effort: Effort = NORMAL) -> Relocation:
        """Stores chunks of condemned packs anew, in this process's packs: see `cas.relocation`."""
        return Relocation(kind, self._known, self._appender, self._parallel_map, effort)

    def read_chunks(self, kind: PackKind, spans: Sequence[Span]) -> list[memoryview]:
        """As `read`, for chunks of packs of either kind: nodes have ids of their own."""
        return self._frames.read(
            spans, self._hasher.chunk_id if kind == PackKind.DATA else self._hasher.node_id
        )

    def find_bases(self, frame: FrameKey) -> Chosen | None:
        """The bases of a published frame, to store its chunks behind them again; None if they cannot be read."""
        try:
            with self._kv.snapshot() as reader:
                bases = get_bases(reader, frame)
            return None if bases is None else Chosen(bases.ids, self._frames.prefix(bases.ids))
        except CasError:
            return None

    @property
    def failures_in_a_row(self) -> int:
        """How many packs the disk has failed (writing, flushing, making them) since the last flush that succeeded."""
        return self._appender.failures_in_a_row

    # --- care for packs -----------------------------------------------------------------------------------------

    def seal_idle(self, now: float) -> None:
        """Seal packs whose first byte is SEAL_AFTER_SECONDS old, and commit how packs ended. Call it now and then.

        `now` is by the store's clock (`time.monotonic` unless it was given another). Raises what the map raises.
        """
        self._appender.seal(born_before=now - SEAL_AFTER_SECONDS)
        self._settle_ended()

    def close(self) -> None:
        """Seal what is open. Nothing may be under way. Idempotent."""
        try:
            self._appender.seal()
            self._settle_ended()
        finally:
            self._appender.close()
            self._packs.close()

    @property
    def is_tidy(self) -> bool:
        """False: a pack file without a row stayed, which is then left to whoever adopts this writer. Ask after `close`."""
        return not self._appender.has_leftovers

    def adopt(self, dead_writer: int) -> Adoption:
        """Put the packs of a process that is gone in order: see `cas.adoption`."""
        return adopt(self._kv, self._packs, dead_writer)

    def _settle_ended(self) -> None:
        # An operation like any other: another thread may settle the same packs meanwhile, and collection remove them.
        token = self._operations.begin() if self._operations is not None else 0
        try:
            steps = self._appender.ended()
            if steps:
                self._kv.commit(lambda txn: publish(txn, {}, (), steps))
                self._appender.settle(steps)
        finally:
            if self._operations is not None:
                self._operations.end(token)

    # --- nodes --------------------------------------------------------------------------------------------------

    def _either_id(self, wanted: bytes, data: memoryview) -> ChunkId:
        as_chunk = self._hasher.chunk_id(data)
        return as_chunk if as_chunk == wanted else self._hasher.node_id(data)

    def _fetch_node(self, reader: Reader, node: ChunkId) -> memoryview:
        return self._read_node(resolve(reader, [Entry(node, 0, 0)]))

    def _fetch_node_now(self, node: ChunkId) -> memoryview:
        return self._read_node(self._resolve([Entry(node, 0, 0)]))

    def _fetch_placed_node(self, node: ChunkId, placement: Placement) -> memoryview:
        return self._frames.read([Span(node, 0, placement.length, placement)], self._hasher.node_id)[0]

    def _read_node(self, spans: Sequence[Span]) -> memoryview:
        whole = [span._replace(stop=span.placement.length) for span in spans]
        return self._frames.read(whole, self._hasher.node_id)[0]

    def _resolve(self, entries: Sequence[Entry]) -> list[Span]:
        with self._kv.snapshot() as reader:
            return resolve(reader, entries)

    def _rebuild(self, parts: Sequence[Manifest], sink: Sink) -> Manifest:
        """A shallow tree over the lowest nodes of `parts`, which stay as they are."""
        builder = Builder(self._hasher.node_id, level=1)
        for part in parts:
            if part.level:
                entries = walk_down(1, part.level, part.entries, 0, part.size, self._fetch_node_now)
                for entry in entries:
                    _store_nodes(sink, builder.add(pack(1, [entry]), entry.length))
            elif part.size:
                nodes: list[Node] = []
                wrapped = wrap(0, part.entries, nodes, self._hasher.node_id)
                _store_nodes(sink, nodes + builder.add(wrapped, part.size))
        manifest, nodes = builder.finish()
        _store_nodes(sink, nodes)
        return manifest


def _divided(entry: Entry, most: int) -> Iterator[Entry]:
    for start in range(0, entry.length, most):
        yield Entry(entry.id, entry.start + start, min(most, entry.length - start))


def _store_nodes(sink: Sink, nodes: Sequence[Node]) -> None:
    if nodes:
        sink.take([node.id for node in nodes], [node.data for node in nodes])
