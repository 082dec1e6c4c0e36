"""`python -m tools.bench.savings [--git REPOSITORY] [--mib N] [--work DIR]`.

Stores each corpus, object after object, in a chunk store of its own: with FastCDC alone, and with tar-1 and uniform-1.
"stored" is what the sealed packs take on the disk (frames, headers, footers, nodes of manifests) and 100 bytes for
each chunk's row in the catalog; "CPU" is of the whole process, reading the corpus not included. Where a tool of a corpus is missing
it says so, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cas.catalog import PLACEMENTS, TABLES
from cas.chunk import Identity
from cas.packs import LocalPacks
from cas.store import ChunkStore
from index.memory_kv import MemoryKv
from tools.bench.savings import corpora

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
ROW_BYTES = 100
RULES = {"plain": (0, 0), "tar-1": (1, 0), "both": (1, 1)}


@dataclass(slots=True)
class Result:
    logical_bytes: int = 0
    stored_bytes: int = 0
    chunks: int = 0  # references; known ones count each time
    cpu_seconds: float = 0.0

    @property
    def ratio(self) -> float:
        return self.logical_bytes / self.stored_bytes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.savings", description=__doc__)
    parser.add_argument("--git", type=Path, default=Path(), help="a repository with tags (default: this one)")
    parser.add_argument("--mib", type=int, default=96, help="size of the other corpora, about")
    parser.add_argument("--work", type=Path, help="where to put the data (default: the temporary folder)")
    arguments = parser.parse_args()
    print(
        f"{'corpus':<24}{'MB':>7}  {'rules':<7}{'stored MB':>10}{'ratio':>8}{'chunks/MiB':>12}{'CPU s/GB':>10}"
    )
    missing = 0
    for name, objects in corpora.all_of(arguments.git, arguments.mib * MIB).items():
        for rules, (tar, uniform) in RULES.items():
            try:
                result = store(
                    objects(), replace(Identity.create(), tar=tar, uniform=uniform), arguments.work
                )
            except FileNotFoundError as error:
                print(f"{name:<24}not run: {error}")
                missing += 1
                break
            print(
                f"{name:<24}{result.logical_bytes / 1e6:7.0f}  {rules:<7}{result.stored_bytes / 1e6:10.2f}"
                f"{result.ratio:8.3f}{result.chunks * MIB / result.logical_bytes:12.2f}"
                f"{result.cpu_seconds * 1e9 / result.logical_bytes:10.2f}",
                flush=True,
            )
    return 2 if missing else 0


def store(objects: Iterator[bytes], identity: Identity, work: Path | None) -> Result:
    result = Result()
    with tempfile.TemporaryDirectory(prefix="vaultaire-savings-", dir=work) as folder:
        kv = MemoryKv(TABLES)
        packs = Path(folder, "packs")
        packs.mkdir()
        chunks = ChunkStore(kv, LocalPacks(packs), identity, 1)
        for data in objects:
            began = time.process_time()
            put(chunks, kv, data, result)
            result.cpu_seconds += time.process_time() - began
        chunks.close()
        result.stored_bytes += sum(path.stat().st_size for path in packs.rglob("*.pack"))
        with kv.snapshot() as reader:
            result.stored_bytes += ROW_BYTES * sum(1 for _ in reader.scan(PLACEMENTS, b""))
    return result


def put(chunks: ChunkStore, kv: MemoryKv, data: bytes, result: Result) -> None:
    ingest = chunks.ingest()
    for at in range(0, len(data), 4 * MIB):
        ingest.feed(data[at : at + 4 * MIB])
    result.stored_bytes += len(ingest.finish().encode())
    publication = ingest.publication()
    chunks.sync([publication])
    kv.commit(publication.apply)
    publication.settle(True)
    result.logical_bytes += len(data)
    result.chunks += ingest.chunks


if __name__ == "__main__":
    sys.exit(main())
