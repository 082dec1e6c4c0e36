"""One process of the kill test: opens the engine as any process of a store does, then works until it is killed.

usage: kv_child.py DIRECTORY writer|checkpointer NUMBER SEED DEATHS_PER_EFFECT

A writer prints a counter after the commit that holds it, a checkpointer a 0 after each checkpoint. With DEATHS_PER_EFFECT > 0 it also kills itself at the
engine's own effects: before one, after half of a write, or after one; most of these are inside the commit lock.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from index.fileops import FileOps
from index.lmdb_kv import LmdbKv, NotRecovered, Tuning, recover

if TYPE_CHECKING:
    import lmdb

    from index.kv import Transaction

STORE_ID = b"kill test store!"
TABLES = ("idx.rows", "idx.counters")
MAP_SIZE_BYTES = 1 << 30
SEGMENT_BYTES = 20_000
TUNING = Tuning(zero_ahead_bytes=4096, max_readers=256, replay_bytes=5000)
KEPT_ROWS = 50  # a writer deletes its older rows


class KillingFiles(FileOps):
    def __init__(self, randomness: random.Random, deaths_per_effect: float) -> None:
        self._random = randomness
        self._deaths_per_effect = deaths_per_effect

    def _dies(self) -> bool:
        return self._random.random() < self._deaths_per_effect

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _maybe_die(self) -> None:
        if self._dies():
            self._die()

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        if self._dies():
            os.pwrite(fd, data[: self._random.randrange(len(data) + 1)], offset)
            self._die()
        super().pwrite(fd, data, offset)

    def truncate(self, fd: int, length: int) -> None:
        self._maybe_die()
        super().truncate(fd, length)
        self._maybe_die()

    def open(self, path: Path, flags: int) -> int:
        fd = super().open(path, flags)
        self._maybe_die()
        return fd

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self._maybe_die()

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._maybe_die()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._maybe_die()

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._maybe_die()

    def commit(self, txn: lmdb.Transaction[bytes]) -> None:
        self._maybe_die()
        super().commit(txn)
        self._maybe_die()


def open_as_a_store_does(directory: Path, tag: bytes, files: FileOps) -> LmdbKv:
    """`store.lock` exclusively and recover, or shared; the lock stays held until the process ends."""
    lock = os.open(directory / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            recover(
                directory,
                tables=TABLES,
                store_id=STORE_ID,
                map_size_bytes=MAP_SIZE_BYTES,
                files=files,
                tuning=TUNING,
            )
        except BlockingIOError:
            pass
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            return LmdbKv.open(
                directory,
                tables=TABLES,
                store_id=STORE_ID,
                writer_tag=tag,
                map_size_bytes=MAP_SIZE_BYTES,
                segment_bytes=SEGMENT_BYTES,
                files=files,
                tuning=TUNING,
            )
        except NotRecovered:  # the process that recovered died at it
            fcntl.flock(lock, fcntl.LOCK_UN)


def row_key(number: int, counter: int) -> bytes:
    return b"%d/%012d" % (number, counter)


def write(kv: LmdbKv, number: int, randomness: random.Random) -> None:
    name = b"%d" % number

    def step(txn: Transaction) -> int:
        counter = int(txn.get("idx.counters", name) or b"0") + 1
        txn.put("idx.counters", name, b"%d" % counter)
        txn.put(
            "idx.rows", row_key(number, counter), randomness.randbytes(randomness.choice((10, 300, 3000)))
        )
        txn.delete("idx.rows", row_key(number, counter - KEPT_ROWS))
        return counter

    def failing(txn: Transaction) -> int:
        txn.put("idx.rows", b"ghost", b"of a function that failed")
        raise ValueError("this function fails alone")

    while True:
        fns = [step] * randomness.randrange(1, 5) + [failing] * randomness.randrange(2)
        outcomes = kv.commit_many(fns)
        acknowledged = max(outcome.value for outcome in outcomes if outcome.value is not None)
        os.write(1, b"%d\n" % acknowledged)


def write_checkpoints(kv: LmdbKv) -> None:
    while True:
        kv.write_checkpoint()
        kv.check_readers()
        os.write(1, b"0\n")
        time.sleep(0.02)


def main() -> None:
    directory, role, number, seed, deaths = Path(sys.argv[1]), sys.argv[2], *sys.argv[3:]
    randomness = random.Random(int(seed))
    kv = open_as_a_store_does(directory, randomness.randbytes(16), KillingFiles(randomness, float(deaths)))
    if role == "writer":
        write(kv, int(number), randomness)
    else:
        write_checkpoints(kv)


if __name__ == "__main__":
    main()
