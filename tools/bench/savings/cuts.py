"""`python -m tools.bench.savings.cuts [--only NAME ...] [--scale S] [--git REPOSITORY] [--work DIR]`.

What the cut rules save: stores each corpus, file after file, in chunk stores of its own: with FastCDC alone, with tar-1, and
with tar-1 and uniform-1. "stored" is what the sealed packs take on the disk (frames, headers, footers, nodes of manifests),
manifests, and 100 bytes for each chunk's row in the catalog; "CPU" is of the whole process, making the corpus not included.
Where a tool of a corpus is missing it says so, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from cas.catalog import PLACEMENTS, TABLES
from cas.chunk import Identity
from cas.packs import LocalPacks
from cas.store import ChunkStore
from index.memory_kv import MemoryKv
from tools.bench.savings.__main__ import CORPORA
from tools.bench.savings.corpus import Corpus, Site

MIB = 1 << 20
ROW_BYTES = 100
NAMES = ("git-own", "packages-gnu", "zip-deflated", "random", "restic")
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
    parser = argparse.ArgumentParser(prog="python -m tools.bench.savings.cuts", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CORPORA, default=NAMES, metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="of the corpora's sizes")
    parser.add_argument(
        "--git", type=Path, default=Path(), help="a repository with history (default: this one)"
    )
    parser.add_argument("--work", type=Path, help="where to put the data (default: the temporary folder)")
    arguments = parser.parse_args()
    print(
        f"{'corpus':<24}{'MB':>7}  {'rules':<7}{'stored MB':>10}{'ratio':>8}{'chunks/MiB':>12}{'CPU s/GB':>10}"
    )
    missing = 0
    for name in arguments.only:
        try:
            measured = measure(CORPORA[name], arguments)
        except FileNotFoundError as error:
            print(f"{name:<24}not run: {error}")
            missing += 1
            continue
        for rules, result in measured.items():
            print(
                f"{name:<24}{result.logical_bytes / 1e6:7.0f}  {rules:<7}{result.stored_bytes / 1e6:10.2f}"
                f"{result.ratio:8.3f}{result.chunks * MIB / result.logical_bytes:12.2f}"
                f"{result.cpu_seconds * 1e9 / result.logical_bytes:10.2f}",
                flush=True,
            )
    return 2 if missing else 0


def measure(corpus: Corpus, arguments: argparse.Namespace) -> dict[str, Result]:
    """By rules. The versions are made once, and go into all stores."""
    with tempfile.TemporaryDirectory(prefix="vaultaire-savings-", dir=arguments.work) as work:
        site = Site(Path(work, "versions"), Path(work, "scratch"), arguments.git, arguments.scale)
        site.folder.mkdir()
        site.scratch.mkdir()
        kept = {
            rules: Kept(Path(work, rules), replace(Identity.create(), tar=tar, uniform=uniform))
            for rules, (tar, uniform) in RULES.items()
        }
        for _ in corpus.versions(site):
            for path in sorted(path for path in site.folder.rglob("*") if path.is_file()):
                for each in kept.values():
                    each.put(path.read_bytes())
        return {rules: each.close() for rules, each in kept.items()}


class Kept:
    """A chunk store over packs below `folder` and a catalog in memory."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        folder.mkdir()
        self._folder = folder
        self._kv = MemoryKv(TABLES)
        self._chunks = ChunkStore(self._kv, LocalPacks(folder), identity, 1)
        self._result = Result()

    def put(self, data: bytes) -> None:
        began = time.process_time()
        ingest = self._chunks.ingest()
        for at in range(0, len(data), 4 * MIB):
            ingest.feed(data[at : at + 4 * MIB])
        self._result.stored_bytes += len(ingest.finish().encode())
        publication = ingest.publication()
        self._chunks.sync([publication])
        self._kv.commit(publication.apply)
        publication.settle(True)
        self._result.logical_bytes += len(data)
        self._result.chunks += ingest.chunks
        self._result.cpu_seconds += time.process_time() - began

    def close(self) -> Result:
        self._chunks.close()
        self._result.stored_bytes += sum(path.stat().st_size for path in self._folder.rglob("*.pack"))
        with self._kv.snapshot() as reader:
            self._result.stored_bytes += ROW_BYTES * sum(1 for _ in reader.scan(PLACEMENTS, b""))
        return self._result


if __name__ == "__main__":
    sys.exit(main())
