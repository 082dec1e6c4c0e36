"""Relocation: storing the live chunks of a condemned pack anew. An upload without a manifest, made by the collector.

It goes the way of every upload: what is known elsewhere is not stored again, frames are appended to packs of this
process, and a publication puts the new placements where the old ones name a condemned pack. One that was replaced
meanwhile by a client's own upload stays as it is.

Chunks of a frame with bases may keep them. The mark that collection goes by has marked these bases, for their frame has a
marked chunk; so they stay placed, wherever they are, until the commit that holds the new frame, and from then on its
own row keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.frame import NORMAL
from cas.pending import Pending
from cas.publication import Publication
from cas.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cas.appender import Appender
    from cas.frame import Effort
    from cas.pack import PackKind
    from cas.pending import Known
    from cas.ports import Buffer, ParallelMap
    from cas.prefix import Chosen


class Relocation:
    """See the module. One thread at a time; ends with `publication` + settle, or with `abort`."""

    def __init__(
        self,
        kind: PackKind,
        known: Known,
        appender: Appender,
        parallel_map: ParallelMap,
        effort: Effort = NORMAL,
    ) -> None:
        self._pending = Pending(known)
        self._sink = Sink(kind, appender, self._pending, parallel_map, effort=lambda: effort)

    @property
    def new_stored_bytes(self) -> int:
        """Bytes of the frames that were appended."""
        return self._pending.new_stored_bytes

    @property
    def waiting(self) -> int:
        """Placements that the next publication will hold."""
        return len(self._pending.placements)

    def take(self, ids: Sequence[bytes], chunks: Sequence[Buffer]) -> None:
        """Store these verified chunks. Raises NoSpace, PackPoisoned, PlaceFailed: then only `abort` is left."""
        self._sink.take(ids, chunks)

    def take_behind(self, ids: Sequence[bytes], chunks: Sequence[Buffer], bases: Chosen) -> None:
        """As `take`, for live chunks of one frame with these bases."""
        self._sink.take_behind(ids, chunks, bases)

    def publication(self) -> Publication:
        """All that was taken since the last one. Raises as `take`."""
        self._sink.flush()
        pending = self._pending
        batch = pending.take()
        needed, pending.needed = pending.needed, {}

        def on_settle(committed: bool) -> None:
            del committed  # either way nobody shall find them in flight any more
            pending.published(batch.placements)

        return Publication(batch, needed, frozenset(), on_settle)

    def abort(self) -> None:
        """Forget what waits. Idempotent, and harmless after the end."""
        self._pending.published(self._pending.take().placements)
