"""Space amplification while a store is overwritten all the time, and what is left after everything was deleted.

    python -m tools.bench.churn [LIVE_MIB] [TURNS]

One process writes and collects by turns: a twentieth of the live bytes is overwritten, then a round runs. Packs are
small in proportion (a 64th of the live bytes), as they are in a large store. Amplification: stored bytes (packs and
LMDB pages in use) over the raw bytes of what is visible; bodies are noise, so that compression hides nothing.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import sys
import tempfile
from pathlib import Path

from cas import gc
from cas.store import ChunkStore
from index.buckets import create_bucket, get_bucket
from index.counters import statistics as name_statistics
from index.records import ObjectRecord
from index.versions import Change, delete_object, put_object
from vaultaire.collection import Collector
from vaultaire.store import Store

OBJECT_BYTES = 512 << 10


def main() -> None:
    live = (int(sys.argv[1]) if len(sys.argv) > 1 else 128) << 20
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    with (
        tempfile.TemporaryDirectory() as directory,
        Store.open(Path(directory) / "store", kind="command", create=True) as store,
    ):
        run(store, live, turns)


def run(store: Store, live: int, turns: int) -> None:
    target = live // 64
    store.chunks = ChunkStore(
        store.kv, store.packs, store.identity, store.writer, store.run_file, pack_target_bytes=target
    )
    collector = Collector(store, policy=gc.Policy(target_bytes=target), bytes_per_second=0)
    store.before_close.append(collector.close)
    store.kv.commit(lambda txn: create_bucket(txn, "bench", "root", 1))
    rng = random.Random(1)
    keys = [b"key-%06d" % number for number in range(live // OBJECT_BYTES)]
    for key in keys:
        put(store, key, rng)
    worst: list[float] = []
    after: list[float] = []
    written = copied = 0
    for turn in range(turns):
        for key in rng.sample(keys, len(keys) // 20):
            put(store, key, rng)
            written += OBJECT_BYTES
        before = amplification(store)
        progress = collector.run()
        copied += progress.copied_bytes
        if turn >= 20:  # steady by now: everything was overwritten once
            worst.append(before)
            after.append(amplification(store))
    print(
        f"{live >> 20} MiB live, {written >> 20} MiB overwritten in {turns} turns: amplification at most "
        f"{max(worst):.2f} before a round, {statistics.mean(after):.2f} on average after one; "
        f"{copied / written:.2f} bytes copied per byte written"
    )
    peak = stored(store)
    for key in keys:
        store.kv.commit(
            lambda txn, key=key: delete_object(txn, get_bucket(txn, "bench"), key, "root", change(store))
        )
    store.chunks._appender.seal()  # as ten minutes later, or at a stop
    store.chunks._settle_ended()
    collector.run()
    left = store.chunks.statistics
    with store.kv.snapshot() as reader:
        packs = left(reader).packs
    print(
        f"after everything was deleted: {packs} packs, {stored(store):,} of {peak:,} bytes ({stored(store) / peak:.2%})"
    )


def change(store: Store) -> Change:
    return Change(store.writer, 1, bytes(8))


def put(store: Store, key: bytes, rng: random.Random) -> None:
    data = rng.randbytes(OBJECT_BYTES)
    ingest = store.chunks.ingest()
    ingest.feed(data)
    manifest = ingest.finish()
    publication = ingest.publication()
    store.chunks.sync([publication])
    etag = hashlib.md5(data).hexdigest()
    record = ObjectRecord(len(data), 1, etag, "root", manifest=manifest.encode())

    def commit(txn) -> None:
        publication.apply(txn)
        put_object(txn, get_bucket(txn, "bench"), key, record, change(store))

    store.kv.commit(commit)
    publication.settle(True)


def stored(store: Store) -> int:
    with store.kv.snapshot() as reader:
        return store.chunks.statistics(reader).pack_bytes + store.kv.statistics().used_bytes


def amplification(store: Store) -> float:
    with store.kv.snapshot() as reader:
        return stored(store) / name_statistics(reader).logical_bytes


if __name__ == "__main__":
    main()
