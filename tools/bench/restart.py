"""How long a store with many chunks takes to open: after a clean stop, and after a kill.

    python -m tools.bench.restart --chunks 10000000 [--directory DIR]

The catalog is synthetic: placements and pack rows as uploads make them (one pack of 64 MiB per 2,048 chunks), committed
through the real map and journal, without bytes behind them; ids ascend, which fills LMDB's pages more densely than
random ones. Each opening is a process of its own, from its start (imports included) to an open store; "kill" is SIGKILL
of a process that is committing, so that its open pack is adopted and the journal's end is looked at; "lost" is an
opening after LMDB was deleted: a rebuild from checkpoint and journal, for comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cas.catalog import PLACEMENTS, PackRow, PackState, placement_rows, put_pack
from cas.frame import Codec
from cas.pack import PackKind
from vaultaire.store import Store

CHUNKS_PER_PACK = 2048
CHUNK_BYTES = 32 << 10
PACKS_PER_COMMIT = 16
WRITER = 0xF0000000  # no process has it


def fill(directory: Path, chunks: int) -> None:
    """A catalog of that size, checkpointed as the maintenance process does it."""
    with Store.open(directory, kind="command", create=True) as store:
        packs = -(-chunks // CHUNKS_PER_PACK)
        for first in range(0, packs, PACKS_PER_COMMIT):
            numbers = range(first, min(packs, first + PACKS_PER_COMMIT))
            store.kv.commit(lambda txn, numbers=numbers: _add(txn, numbers))
            if store.kv.checkpoint_due():
                store.kv.write_checkpoint()


def _add(txn, numbers: range) -> None:
    for number in numbers:
        pack = WRITER << 32 | number + 1
        rows = placement_rows(
            pack, 92, Codec.RAW, 96, CHUNK_BYTES, [CHUNK_BYTES] * CHUNKS_PER_PACK, number * CHUNKS_PER_PACK
        )
        for ordinal, row in enumerate(rows):
            txn.put(PLACEMENTS, (number * CHUNKS_PER_PACK + ordinal).to_bytes(32, "big"), row)
        size = CHUNKS_PER_PACK * CHUNK_BYTES
        held = {"frames": 256, "chunks": CHUNKS_PER_PACK, "raw_bytes": size}
        placed = {"placed_chunks": CHUNKS_PER_PACK, "placed_bytes": size}
        put_pack(txn, pack, PackRow(PackState.SEALED, PackKind.DATA, 0, size, **held, **placed))


CHILD = """
import sys
from pathlib import Path
from vaultaire.store import Store
store = Store.open(Path(sys.argv[1]), kind="worker")
print("open", flush=True)
if sys.argv[2] == "stop":
    store.close()
    sys.exit()
number = 0
while True:
    number += 1
    store.kv.commit(lambda txn: txn.put("srv.settings", b"bench", number.to_bytes(8, "big")))
    if number == 200:
        print("working", flush=True)
"""


def opening(directory: Path, end: str) -> float:
    """Seconds from the start of a process to its open store; then it is ended in that way."""
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), end], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"open\n", "it did not open"
    seconds = time.monotonic() - began
    if end == "kill":
        child.stdout.readline()
        child.kill()
    child.wait()
    child.stdout.close()
    return seconds


def drop_cache() -> bool:
    with contextlib.suppress(OSError):
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.restart", description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000_000)
    parser.add_argument("--directory", type=Path, help="for the store (default: a temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vaultaire-restart-", dir=options.directory) as folder:
        directory = Path(folder) / "store"
        began = time.monotonic()
        fill(directory, options.chunks)
        print(
            f"{options.chunks:,} chunks made in {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        for name, size in sizes(directory).items():
            print(f"  {name}: {size / 1e6:,.0f} MB")
        opening(directory, "stop")
        print(f"after a clean stop: {opening(directory, 'stop'):.2f} s", flush=True)
        cold = drop_cache()
        if cold:
            print(f"after a clean stop, cold cache: {opening(directory, 'kill'):.2f} s", flush=True)
        print(f"after a kill: {opening(directory, 'kill'):.2f} s", flush=True)
        if cold and drop_cache():
            print(f"after a kill, cold cache: {opening(directory, 'stop'):.2f} s", flush=True)
        shutil.rmtree(directory / "meta")
        print(f"after the loss of LMDB: {opening(directory, 'stop'):.2f} s", flush=True)


def sizes(directory: Path) -> dict[str, int]:
    return {
        name: sum(path.stat().st_size for path in (directory / name).iterdir())
        for name in ("meta", "journal", "checkpoint")
    }


if __name__ == "__main__":
    main()
