"""Small objects leave the database: for archives, where room counts more than the last fraction of a millisecond.

An upload of up to 4 KiB stays in its record: one commit, no pack. It is neither deduplicated nor compressed there, and
pages of LMDB are half to three quarters full. Here the bytes of such versions become chunks, many to a frame, and their
records name these; nothing that a client sees changes, nor does a lock: what a version holds stays the same.

Each batch is what a group commit of as many uploads would be (`ChunkStore.sync`, then one function per version, which
looks again at what is there: what was changed or deleted meanwhile is left alone). So it may be cut off anywhere, runs
beside a server, and repeats nothing. Blocking. Memory: a batch. What it takes in packs comes back on the disk only with a
rebuild: who calls it looks for room before each step (`vaultaire.archiving`).
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.errors import PackGone
from cas.prefix import Prefixes
from index.buckets import bucket_by_id, list_buckets
from index.errors import NamesError
from index.expiry import object_page, version_page
from index.kv import CorruptValue
from index.records import ObjectRecord
from index.versions import store_outside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.manifest import Manifest
    from cas.publication import Publication
    from cas.store import Ingest
    from index.expiry import Row
    from index.kv import Reader, Transaction
    from vaultaire.store import Store

    _Page = Callable[[Reader, int, bytes, tuple[bytes, bytes], int], list[Row]]

# A record without data, the chunk's placement and its share of a frame take some 250 bytes of pages.
LEAST_BYTES: Final = 256
BATCH: Final = 256  # versions of one commit: some 10 ms of the write lock

log = logging.getLogger("vaultaire.small_objects")


class Moved(NamedTuple):
    objects: int  # versions
    raw_bytes: int
    stored_bytes: int = 0  # what they take in packs


class _Small(NamedTuple):
    bucket_id: int
    key: bytes
    record: ObjectRecord


@dataclass(frozen=True, slots=True)
class _Move:
    """One version, inside its commit. Tells whether it was still there."""

    bucket_id: int
    key: bytes
    record: ObjectRecord
    writer: int
    ingest: Ingest
    manifest: Manifest
    publication: Publication

    def __call__(self, txn: Transaction) -> bool:
        bucket = bucket_by_id(txn, self.bucket_id)
        # No more than was counted: a quota does not refuse what adds nothing. Marks count what buckets really take.
        stored_bytes = min(self.ingest.new_stored_bytes, self.record.new_stored_bytes)
        if not store_outside(
            txn, bucket, self.key, self.record, self.manifest.encode(), stored_bytes, self.writer
        ):
            return False
        self.publication.apply(txn)
        return True


def move_small_objects(store: Store, until_ms: float = math.inf) -> Iterator[Moved]:
    """All versions with LEAST_BYTES or more in their records, last modified up to then. Raises what the store raises.

    Yields after each step what it moved: at most a batch, often nothing.
    """
    batch: list[_Small] = []
    for page in _pages(store, until_ms):
        batch += page
        if len(batch) < BATCH:
            yield Moved(0, 0)
        else:
            yield _move(store, batch[:BATCH])
            del batch[:BATCH]
    if batch:
        yield _move(store, batch)


def count_small_objects(store: Store, until_ms: float = math.inf) -> Iterator[Moved]:
    """What `move_small_objects` would move, page by page."""
    for page in _pages(store, until_ms):
        yield Moved(len(page), sum(small.record.size for small in page))


def _pages(store: Store, until_ms: float) -> Iterator[list[_Small]]:
    """The small ones of each page, last modified up to then, read in short snapshots."""
    for bucket_id in _buckets(store):
        for page in (object_page, version_page):
            for rows in _rows(store, page, bucket_id):
                found = [_small(bucket_id, key, value) for key, _, value in rows]
                yield [small for small in found if small is not None and small.record.modified_ms <= until_ms]


def _buckets(store: Store) -> list[int]:
    with store.kv.snapshot() as reader:
        return [bucket.id for bucket in list_buckets(reader).buckets]


def _rows(store: Store, page: _Page, bucket_id: int) -> Iterator[list[Row]]:
    """A table of one bucket, page by page. What is damaged is left to `verify`, and what is behind it in the table too."""
    after = (b"", b"")
    while True:
        try:
            with store.kv.snapshot() as reader:
                rows = page(reader, bucket_id, b"", after, BATCH)
        except (CorruptValue, NamesError) as error:
            log.error(
                "small objects are left where they are: %s (vaultaire verify names what is damaged)", error
            )
            return
        if not rows:
            return
        after = rows[-1][:2]
        yield rows


def _small(bucket_id: int, key: bytes, value: bytes) -> _Small | None:
    try:
        record = ObjectRecord.decode(value)
    except NamesError:
        return None
    is_small = record.inline is not None and len(record.inline) >= LEAST_BYTES
    return _Small(bucket_id, key, record) if is_small else None


def _move(store: Store, batch: Sequence[_Small]) -> Moved:
    objects = raw_bytes = stored_bytes = 0
    with store.operation(), ExitStack() as ending:
        moves = []
        for small in batch:
            ingest = store.chunks.ingest(Prefixes.OFF)
            ending.callback(ingest.abort)  # harmless after its end
            ingest.feed(small.record.inline or b"")
            manifest = ingest.finish()
            moves.append(_Move(*small, store.writer, ingest, manifest, ingest.publication()))
        store.chunks.sync([move.publication for move in moves])
        outcomes = store.kv.commit_many(moves)
        for move, outcome in zip(moves, outcomes, strict=True):
            done = outcome.error is None and outcome.unwrap()
            move.publication.settle(done)
            if done:
                objects += 1
                raw_bytes += move.record.size
                stored_bytes += move.ingest.new_stored_bytes
    for outcome in outcomes:
        if outcome.error is not None and not isinstance(outcome.error, PackGone | NamesError):
            raise outcome.error  # the others are moved, and not told of
    return Moved(objects, raw_bytes, stored_bytes)
