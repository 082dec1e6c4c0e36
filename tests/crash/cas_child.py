"""The victim of test_cas_kill: opens a store, uploads for ever in two threads, says what was committed.

`body` and the store's layout are shared with the test. Run as: python cas_child.py DIRECTORY WRITER
"""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from cas.catalog import TABLES as CAS_TABLES
from cas.chunk import Identity
from cas.packs import LocalPacks
from cas.store import ChunkStore
from index.lmdb_kv import LmdbKv, recover

OBJECTS = "test.objects"
TABLES = (*CAS_TABLES, OBJECTS)
IDENTITY = Identity(b"S" * 16, b"K" * 32, "fastcdc2020/1024/256/4096/nc2")


def body(writer: int, number: int) -> bytes:
    """Half of it shared with other uploads; now and then large enough for a tree and for several packs."""
    rng = random.Random(writer << 32 | number)
    shared = random.Random(number % 7).randbytes(rng.choice([3_000, 60_000]))
    own = rng.randbytes(rng.choice([0, 500, 20_000, 150_000]))
    return own + shared + b"text " * rng.randrange(4000)


def open_store(directory: Path, writer: int) -> tuple[LmdbKv, ChunkStore]:
    """Recover, open, and adopt every earlier writer (all of them are dead)."""
    for folder in ("journal", "checkpoint", "run", "tmp", "packs"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    recover(directory, tables=TABLES, store_id=IDENTITY.store_id, map_size_bytes=1 << 28)
    kv = LmdbKv.open(
        directory, tables=TABLES, store_id=IDENTITY.store_id, writer_tag=writer.to_bytes(16, "big"),
        map_size_bytes=1 << 28, segment_bytes=1 << 20,
    )  # fmt: skip
    store = ChunkStore(kv, LocalPacks(directory / "packs"), IDENTITY, writer, pack_target_bytes=400_000)
    for dead in range(1, writer):
        adoption = store.adopt(dead)
        if adoption.damaged:
            raise SystemExit(f"damaged: {adoption.damaged}")
    return kv, store


def upload(kv: LmdbKv, store: ChunkStore, writer: int, number: int) -> None:
    data = body(writer, number)
    ingest = store.ingest()
    for start in range(0, len(data), 10_000):
        ingest.feed(data[start : start + 10_000])
    manifest = ingest.finish()
    if number % 5 == 4:
        ingest.abort()
        return
    publication = ingest.publication()
    store.sync([publication])

    def commit(txn) -> None:
        publication.apply(txn)
        txn.put(OBJECTS, writer.to_bytes(4, "big") + number.to_bytes(4, "big"), manifest.encode())

    kv.commit(commit)
    # The acknowledgement: after the commit, before anything else; in one piece, whatever other threads write.
    os.write(1, b"%d\n" % number)
    publication.settle(True)


def main() -> None:
    writer = int(sys.argv[2])
    kv, store = open_store(Path(sys.argv[1]), writer)
    print("ready", flush=True)

    def run(first: int) -> None:
        for number in range(first, 1_000_000, 2):
            upload(kv, store, writer, number)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
