"""Small objects leave the database: for archives, where room counts more than the last fraction of a millisecond.

An upload of up to 4 KiB stays in its record: one commit, no pack. It is neither deduplicated nor compressed there, and
pages of LMDB are half to three quarters full. Here the bytes of such versions become chunks, many to a frame, and their
records name these; nothing that a client sees changes, nor does a lock: what a version holds stays the same.

Each batch is what a group commit of as many uploads would be (`ChunkStore.sync`, then one function per version, which
looks again at what is there: what was changed or deleted meanwhile is left alone). So it may be cut off anywhere, runs
beside a server, and repeats nothing. Blocking. Memory: a batch.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.errors import PackGone
from cas.prefix import Prefixes
from index.buckets import bucket_by_id, list_buckets
from index.errors import NamesError
from index.expiry import object_page, version_page
from index.records import ObjectRecord
from index.versions import store_outside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cas.manifest import Manifest
    from cas.publication import Publication
    from cas.store import Ingest
    from index.kv import Transaction
    from vaultaire.store import Store

# A record without data, the chunk's placement and its share of a frame take some 250 bytes of pages.
LEAST_BYTES: Final = 256
BATCH: Final = 256  # versions of one commit: some 10 ms of the write lock


@dataclass(slots=True)
class Moved:
    objects: int = 0  # versions
    raw_bytes: int = 0


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


def move_small_objects(store: Store, on_progress: Callable[[Moved], None] = lambda _: None) -> Moved:
    """All versions with LEAST_BYTES or more in their records. Raises what the store raises."""
    moved = Moved()
    batch: list[tuple[int, bytes, ObjectRecord]] = []
    for bucket_id in _buckets(store):
        for key, record in _small(store, bucket_id):
            batch.append((bucket_id, key, record))
            if len(batch) == BATCH:
                _move(store, batch, moved)
                batch.clear()
                on_progress(moved)
    if batch:
        _move(store, batch, moved)
    return moved


def _buckets(store: Store) -> list[int]:
    with store.kv.snapshot() as reader:
        return [bucket.id for bucket in list_buckets(reader).buckets]


def _small(store: Store, bucket_id: int) -> Iterator[tuple[bytes, ObjectRecord]]:
    """Read in short snapshots. What is damaged is left to `verify`."""
    for page in (object_page, version_page):
        after = (b"", b"")
        while True:
            with store.kv.snapshot() as reader:
                rows = page(reader, bucket_id, b"", after, BATCH)
            if not rows:
                break
            after = rows[-1][:2]
            for key, _, value in rows:
                try:
                    record = ObjectRecord.decode(value)
                except NamesError:
                    continue
                if record.inline is not None and len(record.inline) >= LEAST_BYTES:
                    yield key, record


def _move(store: Store, batch: list[tuple[int, bytes, ObjectRecord]], moved: Moved) -> None:
    with store.operation(), ExitStack() as ending:
        moves = []
        for bucket_id, key, record in batch:
            ingest = store.chunks.ingest(Prefixes.OFF)
            ending.callback(ingest.abort)  # harmless after its end
            ingest.feed(record.inline or b"")
            manifest = ingest.finish()
            publication = ingest.publication()
            moves.append(_Move(bucket_id, key, record, store.writer, ingest, manifest, publication))
        store.chunks.sync([move.publication for move in moves])
        for move, outcome in zip(moves, store.kv.commit_many(moves), strict=True):
            if outcome.error is not None and not isinstance(outcome.error, PackGone | NamesError):
                raise outcome.error
            done = outcome.error is None and outcome.unwrap()
            move.publication.settle(done)
            if done:
                moved.objects += 1
                moved.raw_bytes += move.record.size
