"""SIGKILL at random moments of a store process: nothing acknowledged is lost or altered, nothing dangles.

    python -m tests.crash.store_kill --seeds 0-39 [--kills 25] [--record]

A seed is one history: a directory, and `--kills` processes one after the other. Each opens the store, reads every byte
of it against what the clients know, then works with two client threads and a collector until it is killed; one in
four is killed while it opens; one in ten finds LMDB gone. Then the store is opened, verified (`verify --read-data`) and
closed in order, three times: the second time LMDB is rebuilt from the journal. `--mutant` breaks the store on purpose;
the laboratory must then find something (exit status 1).

A kill leaves the page cache whole, so it says nothing about missing flushes: that is for power cuts.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash import checks, mutants, results, workload
from tests.crash.forked import Child, Said
from tests.crash.knowledge import Knowledge
from vaultaire.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.model import State

CLIENTS = ("a", "b")
OPEN_SECONDS = 60.0  # a hang is a finding; an opening takes some 15 ms
MESSAGES = 24  # of the clients and the collector, at most, before the kill: counted, for machines differ
KILL_SECONDS = 0.004  # at most, from the last of them to the kill: about one operation
STEPS = 100_000  # more than any child lives to do


@dataclass(slots=True)
class History:
    """One seed: see the module."""

    seed: int
    directory: Path
    mutant: mutants.Mutant | None = None
    kills: int = 0
    finding: str | None = None
    knowledge: Knowledge = field(default_factory=lambda: Knowledge.of(CLIENTS))
    opening_seconds: float = 0.02

    def run(self, kills: int) -> None:
        rng = random.Random(self.seed)
        for number in range(kills):
            self._one(rng, number)
            if self.finding is not None:
                return
        self._last(rng)

    def _one(self, rng: random.Random, number: int) -> None:
        if rng.random() < 0.1:
            shutil.rmtree(self.directory / "meta", ignore_errors=True)
        began = time.monotonic()
        child = Child(lambda said: self._live(said, number))
        try:
            if rng.random() < 0.25:
                self._hear(child, began + rng.uniform(0, 1.2 * self.opening_seconds))
            elif self._hear(child, began + OPEN_SECONDS, until="found"):
                self.opening_seconds = 0.8 * self.opening_seconds + 0.2 * (time.monotonic() - began)
                self._hear(child, time.monotonic() + OPEN_SECONDS, messages=rng.randrange(MESSAGES))
                self._hear(child, time.monotonic() + rng.uniform(0, KILL_SECONDS))
            elif self.finding is None:
                self.finding = f"not open after {OPEN_SECONDS} s"
            child.kill()
            self._hear(child, time.monotonic() + OPEN_SECONDS)
        finally:
            status = child.end()
        self.kills += 1
        if status != -9 and self.finding is None:
            self.finding = f"the process ended by itself with status {status}"

    def _last(self, rng: random.Random) -> None:
        """Open, end in order; then without LMDB, and once more: all show the same."""
        for number, lost in enumerate((False, True, False)):
            if lost:
                shutil.rmtree(self.directory / "meta", ignore_errors=True)
            child = Child(lambda said, seed=-1 - number: self._live(said, seed, steps=rng.randrange(10)))
            try:
                self._hear(child, time.monotonic() + OPEN_SECONDS, until="closed")
            finally:
                status = child.end()
            if self.finding is None and status not in (0, -9):
                self.finding = f"the process that should end in order ended with status {status}"

    def _hear(self, child: Child, deadline: float, until: str = "", messages: int = 1 << 62) -> bool:
        """Take in so many messages until the deadline or its end; True once it has said `until`."""
        for _ in range(messages):
            if self.finding is not None:
                break
            message = child.receive(deadline)
            if message is None:
                return False
            self.knowledge.hear(message)
            if message[0] in ("raised", "failed", "wrong"):
                self.finding = f"{message[0]}: {message[-1]}"
            if message[0] == until:
                return True
        return False

    def _live(self, said: Said, number: int, steps: int = STEPS) -> None:
        """A child's whole life."""
        if self.mutant is not None:
            self.mutant.install()
        with Store.open(self.directory, kind="worker", create=True) as store:
            found = workload.read_states(store, CLIENTS)
            wrong = self.knowledge.judge(found)
            if wrong is None and number < 0:
                wrong = checks.verify_alone(store)
            if wrong is not None:
                said("wrong", wrong)
                return
            said("found", found)
            workload.make_buckets(store)
            self._work(store, found, said, number, steps)
        said("closed")

    def _work(self, store: Store, found: dict[str, State], said: Said, number: int, steps: int) -> None:
        early = self.mutant is not None and self.mutant.answers_early
        workers = [
            workload.Worker(
                *(store, name, random.Random(f"{self.seed} {number} {name}"), found[name], said),
                care=(workload.write_checkpoint, workload.seal_packs) if name == "a" else (),
                answers_early=early,
            )
            for name in CLIENTS
        ]
        done = threading.Event()

        def collect() -> None:
            while not done.is_set():
                workload.collect(store)
                said("collected")
                workload.protect(store)
                said("protected")

        def work() -> None:
            try:
                run_all([lambda worker=worker: worker.run(steps) for worker in workers])
            finally:
                done.set()

        run_all([work, collect])


def run_all(jobs: list[Callable[[], None]]) -> None:
    """Each in a thread of its own; raises the first error once all have ended."""
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not errors:
            thread.join(0.05)
    if errors:
        raise errors[0]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.store_kill", description=__doc__)
    parser.add_argument("--seeds", type=results.parse_seeds, default=range(4))
    parser.add_argument("--kills", type=int, default=25, help="per seed")
    parser.add_argument(
        "--directory", type=Path, help="where the stores are made (default: a temporary directory)"
    )
    parser.add_argument("--mutant", choices=sorted(mutants.BY_NAME))
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md")
    options = parser.parse_args()
    workload.shrink()
    logging.getLogger("vaultaire").setLevel(logging.ERROR)  # a rebuild of LMDB is what one in ten asks for
    gc.freeze()  # what is imported is never garbage: children need not copy its pages to look
    mutant = mutants.BY_NAME.get(options.mutant)
    kills = acknowledged = 0
    findings: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vaultaire-kill-", dir=options.directory) as folder:
        for seed in options.seeds:
            history = History(seed, Path(folder) / "store", mutant)
            history.run(options.kills)
            shutil.rmtree(history.directory, ignore_errors=True)
            kills += history.kills
            acknowledged += history.knowledge.acknowledged
            if history.finding is not None:
                findings.append(f"seed {seed}, kill {history.kills}: {history.finding}")
                print(findings[-1], file=sys.stderr, flush=True)
                if mutant is not None:
                    break
    counts = f"{kills:,} kills, {acknowledged:,} acknowledged, {len(findings)} findings"
    print(f"{counts}, {(time.monotonic() - began) / max(kills, 1) * 1000:.0f} ms per kill")
    if options.record:
        what = "store kills" if mutant is None else f"store kills, mutant {options.mutant}"
        command = f"python -m tests.crash.store_kill --seeds {options.seeds.start}-{options.seeds.stop - 1} --kills {options.kills}"
        command += "" if mutant is None else f" --mutant {options.mutant}"
        results.record(
            results.Run(
                what, options.seeds, f"{kills:,} kills, {acknowledged:,} acknowledged", len(findings), command
            )
        )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
