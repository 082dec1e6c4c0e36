"""Processes that share one engine are killed at random: nothing acknowledged is lost, and LMDB equals its rebuild.

A process kill keeps the page cache, so this shows ordering among processes and recovery, not missing syncs: those are
shown by the tests that fail and undo effects (tests/index) and by a disk that loses what was not flushed.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from index.lmdb_kv import LmdbKv, recover
from index.poison import poison_reason
from tests.crash.kv_child import KEPT_ROWS, MAP_SIZE_BYTES, STORE_ID, TABLES, TUNING, row_key

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
WRITERS = 3
Rows = dict[tuple[str, bytes], bytes]

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="on macOS nobody frees LMDB's write lock when its holder is killed"
)


class Child:
    """A process that is started anew whenever it has died, until `stop`."""

    def __init__(
        self, directory: Path, role: str, number: int, randomness: random.Random, deaths: float
    ) -> None:
        self.acknowledged = 0
        self.deaths = 0
        self.complaints: list[str] = []
        self._arguments = [str(directory), role, str(number)]
        self._randomness = randomness
        self._deaths_per_effect = deaths
        self._stopping = False
        self._is_at_work = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def kill_at_work(self) -> None:
        """Only once it has got somewhere: a machine that is slow to start processes is to be tested too."""
        if self._is_at_work:
            self.kill()

    def stop(self) -> None:
        """On return the process is dead and all it has printed was read."""
        self._stopping = True
        while self._thread.is_alive():
            self.kill()
            self._thread.join(0.05)

    def _run(self) -> None:
        while not self._stopping:
            seed = str(self._randomness.randrange(1 << 30))
            command = [sys.executable, str(ROOT / "tests" / "crash" / "kv_child.py"), *self._arguments, seed]
            with subprocess.Popen(
                [*command, str(self._deaths_per_effect)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PYTHONPATH": str(ROOT)},
            ) as process:
                self._is_at_work = False
                self._process = process
                assert process.stdout is not None
                assert process.stderr is not None
                for line in process.stdout:
                    self._is_at_work = True
                    if line.endswith(b"\n"):
                        self.acknowledged = max(self.acknowledged, int(line))
                complaint = process.stderr.read().decode()
            self.deaths += 1
            if process.returncode != -signal.SIGKILL:
                self.complaints.append(f"status {process.returncode}: {complaint}")
                return


def recovered_rows(directory: Path) -> Rows:
    recover(directory, tables=TABLES, store_id=STORE_ID, map_size_bytes=MAP_SIZE_BYTES, tuning=TUNING)
    kv = LmdbKv.open(
        directory,
        tables=TABLES,
        store_id=STORE_ID,
        writer_tag=bytes(16),
        map_size_bytes=MAP_SIZE_BYTES,
        tuning=TUNING,
    )
    try:
        with kv.snapshot() as reader:
            return {(table, key): value for table in TABLES for key, value in reader.scan(table)}
    finally:
        kv.close()


def check(rows: Rows, acknowledged: Mapping[int, int]) -> None:
    """Every writer's rows are exactly those of its counter, which is at least what it was told."""
    wanted = set()
    for number in range(WRITERS):
        counter = int(rows.get(("idx.counters", b"%d" % number), b"0"))
        assert counter >= acknowledged[number]
        wanted |= {row_key(number, n) for n in range(max(1, counter - KEPT_ROWS + 1), counter + 1)}
    assert {key for table, key in rows if table == "idx.rows"} == wanted


def run_round(
    directory: Path, seconds: float, randomness: random.Random, deaths: float
) -> tuple[dict[int, int], int]:
    """What was acknowledged per writer, and how many processes died."""
    children = [
        Child(directory, "writer", n, random.Random(randomness.random()), deaths) for n in range(WRITERS)
    ]
    children.append(Child(directory, "checkpointer", 0, random.Random(randomness.random()), deaths))
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            time.sleep(randomness.uniform(0.0, 0.3))
            randomness.choice(children).kill_at_work()
    finally:
        for child in children:
            child.stop()
    assert [complaint for child in children for complaint in child.complaints] == []
    return {n: children[n].acknowledged for n in range(WRITERS)}, sum(child.deaths for child in children)


@pytest.mark.parametrize(
    ("rounds", "seconds"),
    [
        pytest.param(2, 2.5, id="short", marks=pytest.mark.slow),
        pytest.param(20, 6.0, id="long", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("deaths", [0.0, 0.003], ids=["killed from outside", "and dying inside the lock"])
def test_killed_processes_lose_nothing_acknowledged(tmp_path, rounds, seconds, deaths):
    randomness = random.Random(f"{rounds} {deaths}")
    acknowledged = dict.fromkeys(range(WRITERS), 0)
    total_deaths = 0
    for _ in range(rounds):
        told, died = run_round(tmp_path, seconds, randomness, deaths)
        total_deaths += died
        acknowledged = {number: max(acknowledged[number], told[number]) for number in told}
        assert poison_reason(tmp_path) is None
        live = recovered_rows(tmp_path)
        check(live, acknowledged)
        shutil.rmtree(tmp_path / "meta")
        assert recovered_rows(tmp_path) == live
    assert total_deaths > rounds * WRITERS
    assert all(acknowledged.values())
    print(f"{total_deaths} deaths, acknowledged: {acknowledged}")
