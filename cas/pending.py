"""What an upload has stored or found and not yet published; and the table by which uploads share it.

A placement is pending from the moment its frame is written until a commit holds it. Meanwhile the in-flight table
offers it to every other upload of the process: whoever takes it up publishes it too (insert if absent) and makes
the pack durable too, so it does not matter which of them commits, or whether the first one fails.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cas.catalog import PLACEMENTS, CondemnedCache, decode_placement, pack_of
from cas.damage import known_damage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cas.ports import OrderedMap

PUBLISH_BATCH: Final = 4096  # placements; a commit of them holds the map's write lock for some 10 ms


class Known:
    """What the process knows of chunks beyond one upload: the catalog, and what is in flight. Thread-safe."""

    def __init__(self, kv: OrderedMap, lost: Collection[int]) -> None:
        """`lost`: the packs of this process that are poisoned; a live view."""
        self._kv = kv
        self._lost = lost
        self._condemned = CondemnedCache()
        self._lock = threading.Lock()
        self._in_flight: dict[bytes, bytes] = {}  # id -> placement's row

    def find(self, ids: Collection[bytes]) -> tuple[dict[bytes, bytes], dict[bytes, int]]:
        """(in flight: id -> row, in the catalog: id -> pack) of those known. Chunks of condemned packs are not,
        nor damaged ones, nor chunks in flight in poisoned packs.
        """
        in_flight = self._in_flight
        # The table before the catalog: what is published in between is found in the later snapshot.
        shared = {chunk: row for chunk in ids if (row := in_flight.get(chunk))} if in_flight else {}
        asked = sorted(ids - shared.keys()) if shared else sorted(ids)
        with self._kv.snapshot() as reader:
            condemned = self._condemned.get(reader)
            rows = reader.get_many(PLACEMENTS, asked) if asked else []
            damaged = known_damage(reader, ids)
        published = {chunk: pack_of(row) for chunk, row in zip(asked, rows, strict=True) if row is not None}
        if damaged:
            published = {chunk: pack for chunk, pack in published.items() if chunk not in damaged}
        if condemned:
            published = {chunk: pack for chunk, pack in published.items() if pack not in condemned}
        if shared and (condemned or damaged or self._lost):
            bad = condemned.union(self._lost)
            shared = {
                chunk: row
                for chunk, row in shared.items()
                if pack_of(row) not in bad and chunk not in damaged  # it may be the damaged copy itself
            }
        return shared, published

    def offer(self, placements: Mapping[bytes, bytes]) -> None:
        """Written now: others may take them up."""
        with self._lock:
            self._in_flight.update(placements)

    def withdraw(self, placements: Mapping[bytes, bytes]) -> None:
        """Published or given up."""
        with self._lock:
            for chunk, row in placements.items():
                # Another upload may have stored its own copy since, if ours was in a pack condemned meanwhile.
                if self._in_flight.get(chunk) is row:
                    del self._in_flight[chunk]

    def __len__(self) -> int:
        return len(self._in_flight)


class Pending:
    """One upload's share. One thread at a time, but for `published`, which may come from the committer's."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.held: set[bytes] = (
            set()
        )  # ids that this upload has stored or is about to store, not yet published
        self.placements: dict[bytes, bytes] = {}  # id -> row, waiting for a publication
        self.needed: dict[int, int] = {}  # own pack -> how much of it must be durable
        self.relied: set[int] = set()  # packs of chunks that others have published
        self.new_stored_bytes = 0
        self.new_raw_bytes = 0

    def find(self, ids: Iterable[bytes]) -> set[bytes]:
        """Which of these chunks need not be stored; from now on this upload relies on them."""
        asked = {chunk for chunk in ids if chunk not in self.held}
        if not asked:
            return asked
        shared, published = self.known.find(asked)
        self.relied.update(published.values())
        for chunk, row in shared.items():
            placement = decode_placement(chunk, row)
            self._need(placement.pack, placement.frame_end)
        self.placements.update(shared)
        self.held.update(shared)
        return shared.keys() | published.keys()

    def store(self, placements: Mapping[bytes, bytes], pack: int, end: int) -> None:
        """A frame of this upload was written; it ends at `end` of `pack`."""
        self._need(pack, end)
        self.placements.update(placements)
        self.known.offer(placements)

    def published(self, placements: Mapping[bytes, bytes]) -> None:
        """They are in the catalog now."""
        self.known.withdraw(placements)
        self.held.difference_update(placements)

    def _need(self, pack: int, end: int) -> None:
        if self.needed.get(pack, 0) < end:
            self.needed[pack] = end
