"""Publications: what a commit must hold so that an upload's chunks are known and stay.

The order is fixed: `ChunkStore.sync` (bytes durable), `apply` inside the commit, `settle` after it. A publication
is only data; applying it twice, or applying it in a commit that fails, does no harm. It may have a tail: chunks that
`sync` writes before it flushes (`cas.gathering`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.catalog import decode_placement
from cas.publishing import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cas.appender import Appender
    from cas.catalog import PackProgress
    from cas.gathering import Tail
    from cas.pending import Batch
    from cas.ports import Transaction


class Publication:
    """See the module. Made by an ingest or a composition; used by one thread at a time."""

    def __init__(
        self,
        batch: Batch,
        needed: dict[int, int],
        relied: frozenset[int],
        on_settle: Callable[[bool], None],
        tail: Tail | None = None,
    ) -> None:
        """Takes `batch` and `needed` over: both grow when the tail is written."""
        self.tail = tail
        self._batch = batch
        self._needed = needed  # pack of this process -> how much of it must be durable
        self._relied = relied
        self._on_settle: Callable[[bool], None] | None = on_settle
        self._appender: Appender | None = None
        self._progress: Sequence[PackProgress] | None = None

    def __len__(self) -> int:
        """How many placements it carries, those to come included."""
        return len(self._batch.placements) + (len(self.tail.chunks) if self.tail is not None else 0)

    def apply(self, txn: Transaction) -> None:
        """Inside the commit, after `ChunkStore.sync`. Raises PackGone; the commit must fail then."""
        if self._progress is None or (self.tail is not None and self.tail.chunks):
            raise RuntimeError("a publication is applied before its packs were synced")
        publish(txn, self._batch.placements, self._relied, self._progress, self._batch.bases)

    def settle(self, committed: bool) -> None:
        """After the commit, or instead of it. Idempotent: the first call counts."""
        on_settle, self._on_settle = self._on_settle, None
        if on_settle is None:
            return
        if committed and self._appender is not None and self._progress is not None:
            self._appender.settle(self._progress)
        on_settle(committed)

    def complete(self, placements: Mapping[bytes, bytes], relied: Iterable[int]) -> None:
        """Where the chunks of its tail are; those missing here have been published by others, in packs `relied`."""
        self._batch.placements.update(placements)
        for chunk, row in placements.items():
            placement = decode_placement(chunk, row)
            self._needed[placement.pack] = max(self._needed.get(placement.pack, 0), placement.frame_end)
        self._relied |= frozenset(relied)

    def make_durable(self, appender: Appender) -> None:
        """Flush what it needs; see `ChunkStore.sync`. Raises PackPoisoned."""
        progress = []
        ended = set()
        for pack, end in sorted(self._needed.items()):
            step = appender.make_durable(pack, end)
            if step is None:
                ended.add(pack)
            else:
                progress.append(step)
        self._relied |= ended
        self._appender = appender
        self._progress = progress

    def carry(self, steps: Sequence[PackProgress]) -> None:
        """Let this commit also write how other packs of the process ended."""
        assert self._progress is not None
        known = {step.pack for step in self._progress}
        self._progress = [*self._progress, *(step for step in steps if step.pack not in known)]
