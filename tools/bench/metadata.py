"""What metadata takes: bytes of the database, its checkpoint and the packs' own structure, per object and per TB.

    python -m tools.bench.metadata [MIB_PER_SHAPE]

Each shape is a store of its own with objects of one size, of noise, so that nothing is found twice and nothing
compresses: the most metadata that this size can have. Data goes through the real ingest, commits and catalog, 64
objects in a commit. Random chunk ids fill the pages of their B-tree as they do in any store (about two thirds).
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from index.buckets import create_bucket, get_bucket
from index.records import ObjectRecord
from index.versions import Change, put_object
from vaultaire.ingest import INLINE_MAX_BYTES
from vaultaire.store import Store

KIB, MIB, GB, TB = 1 << 10, 1 << 20, 10**9, 10**12
SHAPES = (KIB, 4 * KIB, 16 * KIB, 128 * KIB, MIB, 64 * MIB)
BATCH = 64
MOST_OBJECTS = 30_000


@dataclass(frozen=True, slots=True)
class Measured:
    """One shape. All but `object_bytes` and `objects` are bytes beyond those of an empty store."""

    object_bytes: int
    objects: int
    chunks: int
    database: int  # LMDB pages in use, inline data included
    checkpoint: int
    structure: int  # of packs: headers, footers, nodes of manifests; what is not data

    def line(self) -> str:
        data_tb = self.object_bytes * self.objects / TB
        database, checkpoint, structure = (
            size / GB / data_tb for size in (self.database, self.checkpoint, self.structure)
        )
        return (
            f"{_size(self.object_bytes):>8} {self.objects:>7,} {self.chunks / self.objects:>8.1f} "
            f"{self.database / self.objects:>10,.0f} {database:>10.2f} {checkpoint:>11.2f} {structure:>9.2f}"
        )


def main() -> None:
    budget = (int(sys.argv[1]) if len(sys.argv) > 1 else 128) * MIB
    print(f"{'':27}{'database':>12}{'database':>9}{'checkpoint':>12}{'packs':>10}")
    print("  object objects   chunks   B/object      GB/TB       GB/TB     GB/TB")
    for size in SHAPES:
        with tempfile.TemporaryDirectory() as directory:
            print(measure(Path(directory) / "store", size, budget).line(), flush=True)


def measure(directory: Path, size: int, budget: int) -> Measured:
    count = max(1, min(budget // size, MOST_OBJECTS))
    rng = random.Random(size)
    with Store.open(directory, kind="command", create=True) as store:
        store.kv.commit(lambda txn: create_bucket(txn, "bench", "root", 1))
        empty = store.kv.statistics().used_bytes
        for first in range(0, count, BATCH):
            put(store, range(first, min(first + BATCH, count)), size, rng)
        with store.kv.snapshot() as reader:
            chunks = store.chunks.statistics(reader)
        store.kv.write_checkpoint()
        engine = store.kv.statistics()
        data = 0 if size <= INLINE_MAX_BYTES else size * count
        return Measured(
            size,
            count,
            chunks.chunks,
            engine.used_bytes - empty,
            engine.checkpoint_bytes,
            chunks.pack_bytes - data,
        )


def put(store: Store, numbers: range, size: int, rng: random.Random) -> None:
    publications, records = [], []
    for number in numbers:
        body = rng.randbytes(size)
        record = ObjectRecord(size, 1, hashlib.md5(body).hexdigest(), "root")
        if size <= INLINE_MAX_BYTES:
            record = replace(record, inline=body)
        else:
            ingest = store.chunks.ingest()
            for offset in range(0, size, MIB):
                ingest.feed(body[offset : offset + MIB])
            record = replace(record, manifest=ingest.finish().encode())
            publications.append(ingest.publication())
        records.append((b"folder-%03d/file-%08d.bin" % (number % 100, number), record))
    store.chunks.sync(publications)

    def commit(txn) -> None:
        for publication in publications:
            publication.apply(txn)
        bucket = get_bucket(txn, "bench")
        for key, record in records:
            put_object(txn, bucket, key, record, Change(store.writer, 1, bytes(8)))

    store.kv.commit(commit)
    for publication in publications:
        publication.settle(True)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= MIB else f"{count >> 10} KiB"


if __name__ == "__main__":
    main()
