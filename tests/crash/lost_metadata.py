"""LMDB deleted after random histories: what is rebuilt from checkpoints and journal is what was there, to the last row.

    python -m tests.crash.lost_metadata --seeds 0-999 [--record]

A seed is a history of a store on the real disk: some processes one after the other, each with two clients, checkpoints,
sealing and collection; some are killed. Then LMDB is deleted and the store opened: every row of every table must be what
it was, and every client's part what it was told.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.crash import results, workload
from tests.crash.forked import Child, Said
from tests.crash.knowledge import Knowledge
from tests.crash.power_cut import CLIENTS, work
from vaultaire.store import NEXT_WRITER, TABLES, Store

SECONDS = 120.0  # a hang is a finding
Rows = dict[tuple[str, bytes], bytes]


def differences(seed: int, directory: Path) -> tuple[int, str | None]:
    """(acknowledged operations, what differs after the rebuild)."""
    rng = random.Random(seed)
    knowledge = Knowledge.of(CLIENTS)
    for number in range(rng.randrange(1, 4)):
        steps = rng.randrange(2, 15)
        wrong = _hear(
            Child(lambda said, n=number, s=steps: _live(directory, said, f"{seed} {n}", s)),
            knowledge,
            stop_after=rng.randrange(3, 20) if rng.random() < 0.3 else None,
        )
        if wrong is not None:
            return knowledge.acknowledged, wrong
    return knowledge.acknowledged, _hear(Child(lambda said: _lose(directory, knowledge, said)), knowledge)


def _hear(child: Child, knowledge: Knowledge, stop_after: int | None = None) -> str | None:
    deadline = time.monotonic() + SECONDS
    answers, last = 0, "nothing"
    try:
        while (message := child.receive(deadline)) is not None:
            knowledge.hear(message)
            last = message[0]
            answers += last == "done"
            if last in ("raised", "failed", "wrong"):
                return str(message)
            if answers == stop_after:
                child.kill()
                stop_after = -1
    finally:
        child.end()
    return None if last == "closed" or stop_after == -1 else f"ended after {last}"


def _live(directory: Path, said: Said, seed: str, steps: int) -> None:
    with Store.open(directory, kind="worker", create=True) as store:
        found = workload.read_states(store, CLIENTS)
        said("found", found)
        workload.make_buckets(store)
        work(store, found, said, seed, steps, quiet=False)
    said("closed")


def _lose(directory: Path, knowledge: Knowledge, said: Said) -> None:
    with Store.open(directory, kind="command") as store:
        before = _rows(store)
    shutil.rmtree(directory / "meta")
    with Store.open(directory, kind="command") as store:
        after = _rows(store)
        found = workload.read_states(store, CLIENTS)
    if before != after:
        differing = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        said("wrong", f"{len(differing)} rows differ: {sorted(differing)[:5]}")
    elif (wrong := knowledge.judge(found)) is not None:
        said("wrong", wrong)
    else:
        said("closed")


def _rows(store: Store) -> Rows:
    with store.kv.snapshot() as reader:
        rows = {(table, key): value for table in TABLES for key, value in reader.scan(table)}
    del rows["srv.settings", NEXT_WRITER]  # each opening takes a number
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.lost_metadata", description=__doc__)
    parser.add_argument("--seeds", type=results.parse_seeds, default=range(20))
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no seed after this time")
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    workload.shrink()
    logging.getLogger("vaultaire").setLevel(logging.ERROR)
    gc.freeze()
    began, acknowledged, findings, last = time.monotonic(), 0, 0, options.seeds.start - 1
    for seed in options.seeds:
        if time.monotonic() - began > options.seconds:
            break
        with tempfile.TemporaryDirectory(prefix="vaultaire-lost-") as folder:
            told, wrong = differences(seed, Path(folder) / "store")
        acknowledged += told
        last = seed
        if wrong is not None:
            findings += 1
            print(f"seed {seed}: {wrong}", file=sys.stderr, flush=True)
    done = range(options.seeds.start, last + 1)
    counts = f"{len(done):,} histories, {acknowledged:,} acknowledged"
    print(f"{counts}, {findings} with differences")
    if options.record and done:
        command = f"python -m tests.crash.lost_metadata --seeds {done.start}-{done.stop - 1}"
        results.record(results.Run("LMDB deleted", done, counts, findings, command))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
