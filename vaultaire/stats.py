"""The numbers users ask for, by their exact definitions.

* `objects`, `logical_bytes`: number and sizes of all versions, whether current or not, without delete markers.
* `unique_bytes`: raw bytes of placed chunks, plus objects kept inline.
* `stored_bytes`: written (not preallocated) bytes of packs, plus LMDB pages in use.
* `overhead_bytes`: journal, checkpoints, parity and reserve; shown apart, never hidden, never in the ratios.
* `dedup_ratio` = logical / unique; `compression_ratio` = unique / stored. Their product is logical / stored.

For the whole store these are counters kept in the commits. Of one bucket, `objects` and `logical_bytes` are; the rest
needs a walk over all manifests (`vaultaire.survey`), which collection makes now and then and leaves with its time in
`srv.reports`. A small store is walked at once, so that its figures are those of now.

* `unique_bytes` of a bucket: raw bytes of the chunks that it names; one shared by two buckets counts in both.
* `stored_bytes` of a bucket: what these take in packs.
* `exclusive_bytes`: of the unique ones, those that no other bucket names: what deleting the
  bucket would free, before compression (`vaultaire du` has it as it lies on the disk).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from index.buckets import list_buckets
from index.counters import statistics as name_statistics
from vaultaire.collection_report import BUCKETS_SUBJECT, SUBJECT
from vaultaire.parity import sidecar_bytes
from vaultaire.reports import get_report
from vaultaire.roots import Roots
from vaultaire.survey import BucketUsage, exhaust, measure

if TYPE_CHECKING:
    from index.counters import NamesStatistics
    from index.records import BucketRecord
    from vaultaire.store import Store
    from vaultaire.survey import Usage

WALK_CHUNKS: Final = 500_000  # up to so many the walk takes some seconds


@dataclass(frozen=True, slots=True)
class BucketStatistics:
    name: str
    owner: str
    objects: int
    logical_bytes: int
    unique_bytes: int | None  # this and the next: None if the last walk did not know the bucket yet
    stored_bytes: int | None = None
    exclusive_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    objects: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    overhead_bytes: int
    chunks: int
    packs: int
    buckets: tuple[BucketStatistics, ...]
    walked_ms: int | None = None  # when the manifests were walked; None: now
    complete: bool = True  # that walk could read all that is named
    collection: dict[str, Any] | None = None  # what collection did last: see `vaultaire.collection`

    @property
    def dedup_ratio(self) -> float:
        return self.logical_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        return self.unique_bytes / self.stored_bytes if self.stored_bytes else 1.0


def collect(store: Store, *, walk: bool = False) -> StoreStatistics:
    """All figures. Blocking. With `walk`, or in a small store, the buckets' are those of now: as long as a walk takes."""
    engine = store.kv.statistics()
    with store.kv.snapshot() as reader:
        buckets = list_buckets(reader).buckets
        names = name_statistics(reader, None)
        counted = [name_statistics(reader, bucket.id) for bucket in buckets]
        chunks = store.chunks.statistics(reader)
        report = get_report(reader, BUCKETS_SUBJECT)
        collection = get_report(reader, SUBJECT)
    if walk or report is None or chunks.chunks <= WALK_CHUNKS:
        walked = _walk(store)
        usage, walked_ms, complete = walked.buckets, None, not walked.incomplete
    else:
        usage, walked_ms, complete = _reported(report), report["at_ms"], report["complete"]
    return StoreStatistics(
        objects=names.objects,
        logical_bytes=names.logical_bytes,
        unique_bytes=chunks.unique_bytes + names.inline_bytes,
        stored_bytes=chunks.pack_bytes + engine.used_bytes,
        overhead_bytes=engine.journal_bytes
        + engine.checkpoint_bytes
        + sidecar_bytes(store)
        + store.space.probe().reserve,
        chunks=chunks.chunks,
        packs=chunks.packs,
        buckets=tuple(
            _bucket(bucket, counts, usage.get(bucket.id))
            for bucket, counts in zip(buckets, counted, strict=True)
        ),
        walked_ms=walked_ms,
        complete=complete,
        collection=collection,
    )


def _walk(store: Store) -> Usage:
    with store.operation():  # the nodes that are read stay
        roots = Roots(store.kv)
        try:
            exhaust(roots.copy(store.directory / "tmp"))
            return exhaust(measure(store.chunks, store.kv, roots))
        finally:
            roots.close()


def _reported(report: dict[str, Any]) -> dict[int, BucketUsage]:
    return {int(bucket_id): BucketUsage(**usage) for bucket_id, usage in report["buckets"].items()}


def _bucket(bucket: BucketRecord, counts: NamesStatistics, usage: BucketUsage | None) -> BucketStatistics:
    return BucketStatistics(
        name=bucket.name,
        owner=bucket.owner,
        objects=counts.objects,
        logical_bytes=counts.logical_bytes,
        unique_bytes=usage.unique_bytes if usage else None,
        stored_bytes=usage.stored_bytes if usage else None,
        exclusive_bytes=usage.exclusive_bytes if usage else None,
    )
