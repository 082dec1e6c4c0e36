"""How fast a mark is, and what memory it takes, over a synthetic store of many chunks.

    python -m tools.bench.marking [CHUNKS] [DIRECTORY]

The catalog, the names and the nodes of manifests are real; data packs have rows and no files, for marking never reads
them. Half of the chunks are in objects of 10, half in objects of 1,000 (trees). Chunks lie in their packs in another
order than their ids sort, as they do in a real store: every lookup goes to a random page.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

from cas.catalog import PACKS, PLACEMENTS, PackRow, PackState, pack_key, placement_rows
from cas.frame import Codec
from cas.manifest import LEAF, Builder
from cas.pack import PackKind
from index.buckets import create_bucket, get_bucket
from index.records import ObjectRecord
from index.versions import Change, put_object
from vaultaire.roots import Roots
from vaultaire.store import Store
from vaultaire.survey import mark, measure

PER_PACK = 4096
LENGTH = 32_768
STRIDE = 2_654_435_761  # odd and no multiple of what counts of chunks have: a permutation
SMALL, LARGE = 10, 1000
WRITER = 0x7FFFFFFF


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    if len(sys.argv) > 2:
        run(Path(sys.argv[2]), count)
        return
    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory) / "store", count)


def run(directory: Path, count: int) -> None:
    began = time.perf_counter()
    if not (directory / "store.json").exists():
        with Store.open(directory, kind="command", create=True) as store:
            fill(store, count)
    print(f"made {count:,} chunks in {time.perf_counter() - began:.0f} s", flush=True)
    with Store.open(directory, kind="command") as store:
        for _ in range(2):
            measure_mark(store, count)
        measure_usage(store)


def measure_mark(store: Store, count: int) -> None:
    before, cpu = anonymous_bytes(), time.process_time()
    began = time.perf_counter()
    roots = Roots(store.kv)
    for _ in roots.copy(store.directory / "tmp"):
        pass
    copied = time.perf_counter()
    pauses, marker = drive(mark(store.chunks, roots))
    ended = time.perf_counter()
    roots.close()
    assert marker.chunks == count, marker.chunks
    print(
        f"mark: {ended - began:.1f} s, CPU {time.process_time() - cpu:.1f} s; "
        f"snapshot held {copied - began:.1f} s; longest step {pauses * 1000:.0f} ms; "
        f"bits {marker.bits.held_bytes / 1e6:.2f} MB ({marker.bits.held_bytes * 8 / count:.2f} bits a chunk), "
        f"RssAnon +{(anonymous_bytes() - before) / 1e6:.1f} MB",
        flush=True,
    )


def measure_usage(store: Store) -> None:
    before, cpu = anonymous_bytes(), time.process_time()
    began = time.perf_counter()
    roots = Roots(store.kv)
    for _ in roots.copy(store.directory / "tmp"):
        pass
    _, usage = drive(measure(store.chunks, store.kv, roots))
    roots.close()
    print(
        f"figures of {len(usage.buckets)} buckets: {time.perf_counter() - began:.1f} s, "
        f"CPU {time.process_time() - cpu:.1f} s, RssAnon +{(anonymous_bytes() - before) / 1e6:.1f} MB",
        flush=True,
    )


def drive(work):
    """(the longest step in seconds, the result)."""
    longest = 0.0
    while True:
        began = time.perf_counter()
        try:
            next(work)
        except StopIteration as end:
            return longest, end.value
        longest = max(longest, time.perf_counter() - began)


# --- the store ----------------------------------------------------------------------------------------------------


def chunk_id(number: int, count: int) -> bytes:
    return (number * ((1 << 64) // count)).to_bytes(8, "big") + bytes(24)


def place(number: int, count: int) -> int:
    """Where the chunk lies among all: its pack and ordinal follow."""
    return number * STRIDE % count


def fill(store: Store, count: int) -> None:
    for first in range(0, count, 50_000):
        store.kv.commit(
            lambda txn, first=first: put_placements(txn, first, min(first + 50_000, count), count)
        )
    packs = range((count + PER_PACK - 1) // PER_PACK)
    store.kv.commit(lambda txn: [txn.put(PACKS, pack_key(number_of(pack)), pack_row()) for pack in packs])
    store.kv.commit(lambda txn: create_bucket(txn, "bench", "root", 1))
    half = count // 2
    put_small(store, range(0, half, SMALL), half, count)
    put_large(store, range(half, count, LARGE), count)


def number_of(pack: int) -> int:
    return WRITER << 32 | pack + 1


def pack_row() -> bytes:
    raw = PER_PACK * LENGTH
    row = PackRow(PackState.SEALED, PackKind.DATA, 0, raw, frames=512, chunks=PER_PACK, raw_bytes=raw)
    return row.encode()


def put_placements(txn, first: int, stop: int, count: int) -> None:
    for number in range(first, stop):
        pack, ordinal = divmod(place(number, count), PER_PACK)
        row = placement_rows(number_of(pack), ordinal * 4000, Codec.ZSTD, 400, 4000, [LENGTH], ordinal)[0]
        txn.put(PLACEMENTS, chunk_id(number, count), row)


def entries(numbers, count: int) -> bytes:
    # An object's chunks lie together, as they were uploaded; their ids do not.
    inverse = pow(STRIDE, -1, count)
    return b"".join(LEAF.pack(chunk_id(number * inverse % count, count), 0, LENGTH) for number in numbers)


def put_small(store: Store, starts: range, stop: int, count: int) -> None:
    for first in range(0, len(starts), 2000):

        def commit(txn, first=first) -> None:
            bucket = get_bucket(txn, "bench")
            for start in starts[first : first + 2000]:
                builder = Builder(lambda data: b"")
                builder.add(entries(range(start, min(start + SMALL, stop)), count), LENGTH * SMALL)
                manifest, _ = builder.finish()
                record = ObjectRecord(
                    manifest.size, 1, "0" * 32, "root", manifest=manifest.encode(), content_type="text/plain"
                )
                put_object(txn, bucket, b"small/%09d" % start, record, Change(store.writer, 1, bytes(8)))

        store.kv.commit(commit)


def put_large(store: Store, starts: range, count: int) -> None:
    hasher = store.chunks._hasher
    for first in range(0, len(starts), 100):
        records = []
        nodes = []
        for start in starts[first : first + 100]:
            builder = Builder(hasher.node_id)
            numbers = range(start, min(start + LARGE, count))
            nodes += builder.add(entries(numbers, count), LENGTH * len(numbers))
            manifest, last = builder.finish()
            nodes += last
            records.append((b"large/%09d" % start, manifest))
        relocation = store.chunks.relocation(PackKind.NODE)
        relocation.take([node.id for node in nodes], [node.data for node in nodes])
        publication = relocation.publication()
        store.chunks.sync([publication])

        def commit(txn, records=records, publication=publication) -> None:
            publication.apply(txn)
            bucket = get_bucket(txn, "bench")
            for key, manifest in records:
                record = ObjectRecord(manifest.size, 1, "0" * 32, "root", manifest=manifest.encode())
                put_object(txn, bucket, key, record, Change(store.writer, 1, bytes(8)))

        store.kv.commit(commit)
        publication.settle(True)


def anonymous_bytes() -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
