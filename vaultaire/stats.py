"""The numbers users ask for, by their exact definitions.

* `objects`, `logical_bytes`: number and sizes of all versions, whether current or not, without delete markers.
* `unique_bytes`: raw bytes of placed chunks, plus objects kept inline.
* `stored_bytes`: written (not preallocated) bytes of packs, plus LMDB pages in use.
* `overhead_bytes`: journal, checkpoints and reserve; shown apart, never hidden, never in the ratios.
* `dedup_ratio` = logical / unique; `compression_ratio` = unique / stored. Their product is logical / stored.

For the whole store these are counters kept in the commits. `unique_bytes` of one bucket needs a walk over its
manifests: one bit per chunk while it runs. A chunk shared by two buckets counts in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cas.manifest import Manifest
from index.buckets import list_buckets
from index.counters import statistics as name_statistics
from index.versions import iterate_versions

if TYPE_CHECKING:
    from index.kv import Reader
    from index.records import BucketRecord
    from vaultaire.store import Store


@dataclass(frozen=True, slots=True)
class BucketStatistics:
    name: str
    owner: str
    objects: int
    logical_bytes: int
    unique_bytes: int


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

    @property
    def dedup_ratio(self) -> float:
        return self.logical_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        return self.unique_bytes / self.stored_bytes if self.stored_bytes else 1.0


def collect(store: Store) -> StoreStatistics:
    """One consistent picture. Blocking; takes as long as a walk over every manifest."""
    engine = store.kv.statistics()
    with store.operation(), store.kv.snapshot() as reader:
        buckets = tuple(_bucket(store, reader, bucket) for bucket in list_buckets(reader).buckets)
        names = name_statistics(reader, None)
        chunks = store.chunks.statistics(reader)
    return StoreStatistics(
        objects=names.objects,
        logical_bytes=names.logical_bytes,
        unique_bytes=chunks.unique_bytes + names.inline_bytes,
        stored_bytes=chunks.pack_bytes + engine.used_bytes,
        overhead_bytes=engine.journal_bytes + engine.checkpoint_bytes + store.space.probe().reserve,
        chunks=chunks.chunks,
        packs=chunks.packs,
        buckets=buckets,
    )


def _bucket(store: Store, reader: Reader, bucket: BucketRecord) -> BucketStatistics:
    names = name_statistics(reader, bucket.id)
    marked = store.chunks.marker(reader)
    for _key, record in iterate_versions(reader, bucket.id):
        if record.manifest is not None:
            marked.add(Manifest.decode(record.manifest))
    return BucketStatistics(
        name=bucket.name,
        owner=bucket.owner,
        objects=names.objects,
        logical_bytes=names.logical_bytes,
        unique_bytes=marked.raw_bytes + names.inline_bytes,
    )
