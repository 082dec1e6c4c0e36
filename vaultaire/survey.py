"""Walking all manifests: which chunks are needed, and what each bucket holds.

Generators, so that whoever drives them may pause at each yield. Memory: `mark` one bit per chunk; `measure` up to
three while it runs (this bucket, any bucket before, more than one bucket), less where buckets have packs of their
own. Both need the roots' one snapshot and hold no other: see `cas.marking`.

`measure` is exact. A chunk is *unique* to be counted once per bucket that names it, and *exclusive* to a bucket if no
other names it: that is what deleting the bucket would free. Buckets are walked one after the other, each with bits of
its own, which are then added to those of the buckets before; what was in both is shared. Who else shares it is known
only at the end: so if anything is shared by buckets, they are walked once more, against the final set.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cas.catalog import iterate_packs
from cas.marking import Bits

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from cas.catalog import PackRow
    from cas.marking import Marker
    from cas.store import ChunkStore
    from index.kv import OrderedMap
    from vaultaire.roots import Roots


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BucketUsage:
    """Of one bucket, inline objects included."""

    unique_bytes: int  # raw bytes of the chunks that it names, once each
    stored_bytes: int  # what they take in their packs (each pack's ratio taken as even)
    exclusive_bytes: int  # of the unique ones, those that no other bucket names


@dataclass(slots=True)
class Usage:
    buckets: dict[int, BucketUsage] = field(default_factory=dict)
    corrections: dict[int, int] = field(default_factory=dict)  # stored bytes found less those counted by then
    live: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))  # pack -> raw bytes marked
    incomplete: bool = False  # something that is named may not be counted
    errors: list[str] = field(default_factory=list)  # the first things that could not be read
    missing: int = 0  # chunks without a placement


def exhaust(work: Generator[object, None, T]) -> T:
    """What it comes to, without a pause."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def mark(chunks: ChunkStore, roots: Roots) -> Generator[int, None, Marker]:
    """Mark what any bucket needs."""
    marker = chunks.marker()
    for bucket_id in roots.buckets:
        yield from _walk(marker, roots, bucket_id)
    marker.finish()
    yield from marker.add_bases()
    return marker


def measure(chunks: ChunkStore, kv: OrderedMap, roots: Roots) -> Generator[int, None, Usage]:
    """Count what each bucket needs, and what of each pack is needed at all."""
    with kv.snapshot() as reader:
        packs = dict(iterate_packs(reader))
    usage = Usage()
    seen, shared = Bits(), Bits()
    raw: dict[int, int] = {}
    stored: dict[int, int] = {}
    for bucket_id in roots.buckets:
        marker = yield from _walked(chunks.marker(seen), roots, bucket_id)
        raw[bucket_id] = marker.raw_bytes
        stored[bucket_id] = stored_of(packs, marker.fresh, marker.shared)
        for counts in (marker.fresh, marker.nodes):
            for pack, length in counts.items():
                usage.live[pack] += length
        usage.missing += marker.missing
        usage.incomplete |= marker.incomplete
        usage.errors += marker.errors
        shared.update(seen.common(marker.bits))
        seen.update(marker.bits)
    only_bases = chunks.marker(seen)  # they are kept, and are in no bucket's figures
    yield from only_bases.add_bases()
    for pack, length in only_bases.fresh.items():
        usage.live[pack] += length
    usage.missing += only_bases.missing
    usage.errors += only_bases.errors
    del seen
    usage.incomplete |= roots.damaged > 0
    usage.errors += roots.errors
    for bucket_id in roots.buckets:
        common = 0
        if shared:
            common = (yield from _walked(chunks.marker(shared), roots, bucket_id)).shared_bytes
        rest = roots.counted[bucket_id].inline_bytes
        usage.buckets[bucket_id] = BucketUsage(
            raw[bucket_id] + rest, stored[bucket_id] + rest, raw[bucket_id] - common + rest
        )
        counted = roots.counted[bucket_id]
        usage.corrections[bucket_id] = (
            stored[bucket_id] + rest - counted.stored_bytes - counted.part_stored_bytes
        )
    return usage


def _walked(marker: Marker, roots: Roots, bucket_id: int) -> Generator[int, None, Marker]:
    yield from _walk(marker, roots, bucket_id)
    marker.finish()
    return marker


def _walk(marker: Marker, roots: Roots, bucket_id: int) -> Generator[int, None, None]:
    for manifest in roots.manifests_of(bucket_id):
        yield from marker.add(manifest)


def stored_of(packs: Mapping[int, PackRow], *marked: Mapping[int, int]) -> int:
    """What marked raw bytes (pack -> bytes) take in their packs, each pack's ratio taken as even."""
    total = 0.0
    for counts in marked:
        for pack, length in counts.items():
            row = packs.get(pack)
            total += length * (row.length / row.raw_bytes if row is not None and row.raw_bytes else 1.0)
    return round(total)
