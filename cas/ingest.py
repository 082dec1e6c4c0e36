"""Ingests: one running upload into the chunk store.

Per block: cut, hash, look up (one round trip), compress what is new, append. Memory stays bounded whatever the
size: what is not cut yet (`cas.cutter`), one unfinished frame, one unfinished manifest node per level, and the
placements that wait for a publication (up to about PUBLISH_BATCH if the caller publishes early, as it should). At the
end the unfinished frame, if it is a small one, stays in memory until the sync of its publication writes it, with those
of others (`cas.gathering`).

Nothing that an ingest appends is visible or relied upon before a commit holds its publication; whatever fails or is
abandoned leaves garbage in packs, never half an object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.frame import NORMAL
from cas.gathering import TAIL_RAW_BYTES, Tail
from cas.manifest import LEAF, Builder
from cas.pack import PackKind
from cas.pending import PUBLISH_BATCH, Batch, Pending
from cas.prefix import Prefixes
from cas.publication import Publication
from cas.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cas.appender import Appender
    from cas.chunk import Hasher
    from cas.cutter import Cutter
    from cas.frame import Effort
    from cas.manifest import Manifest, Node
    from cas.pending import Known
    from cas.ports import ParallelMap
    from cas.prefix import BaseFinder


class Ingest:
    """See the module. One thread at a time; ends with `publication` + settle, or with `abort`."""

    def __init__(
        self,
        cutter: Cutter,
        hasher: Hasher,
        known: Known,
        appender: Appender,
        parallel_map: ParallelMap,
        on_end: Callable[[], None],
        finder: BaseFinder | None = None,
        prefixes: Prefixes = Prefixes.OFF,
        effort: Callable[[], Effort] = lambda: NORMAL,
    ) -> None:
        self._cutter = cutter
        self._hasher = hasher
        self._pending = Pending(known)
        self._data = Sink(PackKind.DATA, appender, self._pending, parallel_map, finder, prefixes, effort)
        self._nodes = Sink(PackKind.NODE, appender, self._pending, parallel_map)
        self._builder = Builder(hasher.node_id)
        self._on_end: Callable[[], None] | None = on_end
        self._manifest: Manifest | None = None
        self._tail = Tail({}, self._pending)
        self._last: Publication | None = None
        self._taken: list[Batch] = []  # for publications that are not committed yet
        self.size = 0  # bytes fed
        self.chunks = 0  # chunks cut, known ones included

    @property
    def new_stored_bytes(self) -> int:
        """Bytes of the frames that this ingest added to packs; final once the sync of its publication returned."""
        return self._pending.new_stored_bytes

    @property
    def new_raw_bytes(self) -> int:
        """Raw bytes of the data chunks in them; final likewise."""
        return self._pending.new_raw_bytes

    @property
    def held_bytes(self) -> int:
        """Raw bytes of the chunks that are not written yet."""
        return self._cutter.held_bytes + self._data.held_bytes + self._tail.raw_length

    def feed(self, block: bytes | memoryview) -> None:
        """Take the next bytes in; keeps nothing of `block`. Blocking. 64 KiB to 4 MiB at a time are best.

        Raises NoSpace, PackPoisoned, PlaceFailed: then only `abort` is left.
        """
        if self._manifest is not None:
            raise RuntimeError("an ingest is fed after it was finished")
        self.size += len(block)
        self._take(self._cutter.feed(block))

    def flush(self) -> None:
        """Write what there is, and hold no more than a base chunk that is not complete. Frames become smaller by it,
        and joined chunks of noise, which are then not found again (`Cutter.settle`).

        For a caller that is short of memory. Blocking. Raises as `feed`.
        """
        self._take(self._cutter.settle())
        self._data.flush()

    def finish(self) -> Manifest:
        """No more bytes: write what is left, but for a tail. Idempotent. Raises as `feed`."""
        if self._manifest is None:
            self._take(self._cutter.finish())
            self._tail = Tail(self._data.leave(TAIL_RAW_BYTES), self._pending)
            self._manifest, nodes = self._builder.finish()
            self._store_nodes(nodes)
            self._nodes.flush()
        return self._manifest

    def take_publication(self) -> Publication | None:
        """What waits to be published, once it is much; commit it on the way, so that the last commit stays short."""
        if len(self._pending.placements) < PUBLISH_BATCH:
            return None
        return self._publish(frozenset(), final=False)

    def publication(self) -> Publication:
        """After `finish`: all that is not published yet, and every pack that the manifest relies on. One, the same at
        every call.
        """
        if self._manifest is None:
            raise RuntimeError("the publication of an ingest is asked for before it was finished")
        if self._last is None:
            self._last = self._publish(frozenset(self._pending.relied), final=True)
        return self._last

    def abort(self) -> None:
        """Forget it; also after a failure, and harmless after its end. Idempotent."""
        for batch in (*self._taken, self._pending.take()):
            self._pending.known.withdraw(batch.placements)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def _take(self, chunks: Sequence[memoryview]) -> None:
        if not chunks:
            return
        ids = self._hasher.chunk_ids(chunks)
        self.chunks += len(ids)
        self._data.take(ids, chunks)
        encode = LEAF.pack
        lengths = [len(chunk) for chunk in chunks]
        entries = [encode(chunk_id, 0, length) for chunk_id, length in zip(ids, lengths, strict=True)]
        self._store_nodes(self._builder.add(b"".join(entries), sum(lengths)))

    def _store_nodes(self, nodes: Sequence[Node]) -> None:
        if nodes:
            # A known node needs no look at its leaves: this ingest has just found or stored every one of them.
            self._nodes.take([node.id for node in nodes], [node.data for node in nodes])

    def _publish(self, relied: frozenset[int], *, final: bool) -> Publication:
        pending = self._pending
        batch = pending.take()
        self._taken.append(batch)
        if final:
            # Early ones that failed or are still undecided are taken along: published twice does no harm, never would.
            batch = Batch(
                {chunk: row for taken in self._taken for chunk, row in taken.placements.items()},
                {frame: bases for taken in self._taken for frame, bases in taken.bases.items()},
            )
            self._taken.append(batch)  # it will hold those of the tail, too

        def on_settle(committed: bool) -> None:
            if committed:
                pending.published(batch.placements)
            if final:
                self.abort()
            elif committed:
                self._taken.remove(batch)

        tail = self._tail if final else None
        return Publication(batch, dict(pending.needed), relied, on_settle, tail)
