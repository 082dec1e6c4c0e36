"""Power cuts: on a disk that forgets what was not flushed, nothing acknowledged is lost and every store opens.

    python -m tests.crash.power_cut --seeds 0-9 [--cuts 100] [--filesystem ext4|xfs] [--record]

A seed is one history on a fresh filesystem on a logging disk (`tests.crash.blocklog`): processes one after the other
make, use, checkpoint, seal and collect a store; one ends in order, one is killed, one finds LMDB gone. Whatever is said to a
client is noted with the length of the disk's log at that moment. Then the power fails `--cuts` times, at moments spread
over the log, every second one right after an answer: the image of the moment is mounted (which replays the
filesystem's own journal) and a process opens the store, reads every byte of it, judges it by what had been said by
then. One in four is verified (`verify --read-data`), one in five opened once more without LMDB; all go on working a
little.

Every fourth seed is a quiet store: one client, small commits, a checkpoint after each, so that no later flush hides a
missing one. `--mutant` takes a flush away; the laboratory must then find something (exit status 1). Exit status 77:
this machine cannot do it (the reason is on stderr). A finding leaves its log in --keep DIRECTORY.
"""

from __future__ import annotations

import argparse
import gc
import logging
import pickle
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vaultaire.store
from tests.crash import checks, flush_mutants, results, workload
from tests.crash.blocklog import Images, LoggedDisk, Unavailable, entries_before, read_log
from tests.crash.collecting import collect
from tests.crash.forked import Child, Said
from tests.crash.knowledge import Knowledge
from tests.crash.store_kill import run_all
from vaultaire.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from index.recovery import RecoveryReport
    from tests.crash.blocklog import Entry, Filesystem
    from tests.crash.model import State

CLIENTS = ("a", "b")
CARE = (*workload.CARE, collect)
WORK_SECONDS = 120.0  # a hang is a finding
CHECK_SECONDS = 120.0
UNAVAILABLE = 77
STEPS = 25  # of each client, per process
QUIET_STEPS = 8
TMPFS = Path("/dev/shm")
ROOM_BYTES = 1 << 30


class Stamped:
    """What a client is told, with the length of the disk's log at that moment. Thread-safe."""

    def __init__(self, said: Said, disk: LoggedDisk) -> None:
        self._said = said
        self._disk = disk
        self._lock = threading.Lock()

    def __call__(self, *message: Any) -> None:
        with self._lock:  # in the order of the log
            self._said("at", self._disk.position(), message)


@dataclass(slots=True)
class History:
    """What happened on one disk: events as (length of the log, message), in order."""

    seed: int
    mutant: flush_mutants.Mutant | None = None
    events: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)
    finding: str | None = None

    @property
    def quiet(self) -> bool:
        return self.seed % 4 == 3

    def make(self, disk: LoggedDisk) -> None:
        """Sets `finding` if a process does not behave even before any cut."""
        rng = random.Random(self.seed)
        directory = disk.mount / "store"
        ends = ["closed", "killed", "killed", "closed"]
        rng.shuffle(ends)
        for number, end in enumerate(ends):
            if number and rng.random() < 0.3:
                shutil.rmtree(directory / "meta", ignore_errors=True)
            steps = (QUIET_STEPS if self.quiet else STEPS) * (1000 if end == "killed" else 1)
            child = Child(lambda said, n=number, s=steps: self._live(Stamped(said, disk), directory, n, s))
            try:
                last = self._hear(child, stop_after=rng.randrange(20, 3 * STEPS) if end == "killed" else None)
            finally:
                status = child.end()
            if self.finding is None and (last != "closed" if end == "closed" else status != -9):
                self.finding = f"process {number} ended with status {status}, after {last}"
            if self.finding is not None:
                return

    def acknowledged(self) -> list[int]:
        """The lengths of the log at which something was said to a client."""
        return [position for position, message in self.events if message[0] == "done"]

    def known_at(self, position: int) -> Knowledge:
        knowledge = Knowledge.of(CLIENTS)
        for stamp, message in self.events:
            if stamp > position:
                break
            knowledge.hear(message)
        return knowledge

    def _hear(self, child: Child, stop_after: int | None) -> str:
        """Take in what it says to its end, or kill it after so many answers; the kind of the last message."""
        deadline = time.monotonic() + WORK_SECONDS
        last, answers = "nothing", 0
        while (message := child.receive(deadline)) is not None:
            if message[0] != "at":
                self.finding = str(message[-1])
                return "raised"
            _, position, inner = message
            self.events.append((position, inner))
            last = inner[0]
            answers += last == "done"
            if last in ("failed", "wrong"):
                self.finding = f"{last}: {inner}"
                return str(last)
            if answers == stop_after:
                child.kill()
        return str(last)

    def _live(self, said: Stamped, directory: Path, number: int, steps: int) -> None:
        """A process on the logging disk: its whole life."""
        if self.mutant is not None:
            self.mutant.install()
        with Store.open(directory, kind="worker", create=True) as store:
            found = workload.read_states(store, CLIENTS)
            said("found", found)
            workload.make_buckets(store)
            work(store, found, said, f"{self.seed} {number}", steps, quiet=self.quiet)
        said("closed")


def work(
    store: Store, found: dict[str, State], said: Callable[..., None], seed: str, steps: int, *, quiet: bool
) -> None:
    clients = [
        workload.Worker(
            store, name, random.Random(f"{seed} {name}"), found[name], said,  # type: ignore[arg-type]
            care=CARE if name == "a" and not quiet else (),
        )
        for name in (CLIENTS[:1] if quiet else CLIENTS)
    ]  # fmt: skip
    if not quiet:
        run_all([lambda client=client: client.run(steps) for client in clients])
        return
    for _ in range(steps):
        clients[0].run(clients[0].rng.randrange(1, 3))
        store.kv.write_checkpoint()


# --- A cut ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Opening:
    """What a process found after a cut."""

    reports: list[RecoveryReport] = field(default_factory=list)

    def watch(self) -> None:
        """Note what recovery reports, in this process for good."""
        recover = vaultaire.store.recover

        def reporting(*arguments: Any, **options: Any) -> RecoveryReport:
            self.reports.append(recover(*arguments, **options))
            return self.reports[-1]

        vaultaire.store.recover = reporting  # type: ignore[assignment]


def examine(directory: Path, knowledge: Knowledge, said: Said, rng: random.Random) -> None:
    """In a process of its own: says ("wrong", what) or ("right", actions of recovery)."""
    opening = Opening()
    opening.watch()
    states = None
    rounds = 3 if rng.random() < 0.2 else 1
    verifies = rng.random() < 0.25
    for number in range(rounds):
        if number == 1:
            shutil.rmtree(directory / "meta")
        with Store.open(directory, kind="worker", create=True) as store:
            found = workload.read_states(store, CLIENTS)
            wrong = knowledge.judge(found) if states is None else None
            if states is not None and found != states:
                wrong = "without LMDB the store shows something else"
            if wrong is None and number == 0 and verifies:
                wrong = checks.verify_alone(store)
            if wrong is not None:
                said("wrong", wrong)
                return
            states = found
            workload.make_buckets(store)
            if number == rounds - 1:
                work(store, found, _refuse_failures, f"{rng.random()}", 3, quiet=False)
    gap = [report.reason for report in opening.reports if "older than the journal" in report.reason]
    if gap:
        said("wrong", f"a gap between LMDB and the journal: {gap[0]}")
        return
    said("right", opening.reports[0].action)


def _refuse_failures(*message: Any) -> None:
    assert message[0] != "failed", message


def choose_cuts(
    entries: Sequence[Entry], acknowledged: Sequence[int], count: int, rng: random.Random
) -> list[int]:
    """Ascending numbers of entries before which the power fails; every second one right after an answer."""
    cuts = [rng.randrange(len(entries) + 1) for _ in range(count)]
    if acknowledged:
        for n in range(0, count, 2):
            cuts[n] = entries_before(entries, rng.choice(acknowledged))
    return sorted(cuts)


def power_fails(
    images: Images, history: History, entries: Sequence[Entry], cut: int, seed: str
) -> tuple[str, str]:
    """One cut: ("right", what recovery did) or ("wrong", why)."""
    position = entries[cut - 1].end if cut else 0
    # Whatever was said before the next entry was logged is known, also if the log did not grow for it.
    knowledge = history.known_at(position)
    rng = random.Random(seed)
    with images.after(cut, rng) as mount:
        child = Child(lambda said: examine(mount / "store", knowledge, said, rng))
        try:
            message = child.receive(time.monotonic() + CHECK_SECONDS)
        finally:
            status = child.end() if child.wait(CHECK_SECONDS if message else 0.1) is None else child.status
    if message is None:
        return "wrong", f"the process that opens the store ended with status {status}"
    return ("right", message[1]) if message[0] == "right" else ("wrong", str(message[-1]))


# --- The run --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    filesystem: Filesystem
    cuts: int  # per seed
    mutant: flush_mutants.Mutant | None = None
    keep: Path | None = None
    done: int = 0
    acknowledged: int = 0
    actions: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def seed(self, seed: int, folder: Path, fast: Path) -> None:
        disk = LoggedDisk(folder, self.filesystem)
        history = History(seed, self.mutant)
        with disk:
            history.make(disk)
        if history.finding is not None:
            self._found(seed, -1, history.finding, disk, history)
            return
        self.acknowledged += len(history.acknowledged())
        log = disk.log.read_bytes()
        entries = read_log(log)
        rng = random.Random(f"cuts {seed}")
        images = Images(disk.base, log, entries, self.filesystem, fast)
        for cut in choose_cuts(entries, history.acknowledged(), self.cuts, rng):
            verdict, text = power_fails(images, history, entries, cut, f"{seed} {cut} {rng.random()}")
            self.done += 1
            if verdict == "right":
                self.actions[text] = self.actions.get(text, 0) + 1
            else:
                self._found(seed, cut, text, disk, history)
                if self.mutant is not None:
                    return

    def _found(self, seed: int, cut: int, text: str, disk: LoggedDisk, history: History) -> None:
        self.findings.append(f"seed {seed}, cut {cut}: {text}")
        print(self.findings[-1], file=sys.stderr, flush=True)
        if self.keep is not None and len(self.findings) <= 3:
            target = self.keep / f"seed-{seed}-cut-{cut}"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(disk.log, target)
            shutil.copy(disk.base, target)
            (target / "events.pickle").write_bytes(pickle.dumps(history.events))


def _fast_folder() -> Path | None:
    """Where images are built: in memory if there is room."""
    try:
        return TMPFS if shutil.disk_usage(TMPFS).free > ROOM_BYTES else None
    except OSError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.power_cut", description=__doc__)
    parser.add_argument("--seeds", type=results.parse_seeds, default=range(1))
    parser.add_argument("--cuts", type=int, default=100, help="per seed")
    parser.add_argument("--filesystem", choices=("ext4", "xfs"), default="ext4")
    parser.add_argument("--mutant", choices=sorted(flush_mutants.BY_NAME))
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no seed after this time")
    parser.add_argument("--keep", type=Path, help="where the logs of findings are kept")
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is mounted is unmounted
    workload.shrink()
    logging.getLogger("vaultaire").setLevel(logging.ERROR)
    gc.freeze()
    run = Run(options.filesystem, options.cuts, flush_mutants.BY_NAME.get(options.mutant), options.keep)
    began = time.monotonic()
    last = options.seeds.start - 1
    try:
        for seed in options.seeds:
            if time.monotonic() - began > options.seconds:
                break
            with (
                tempfile.TemporaryDirectory(prefix="vaultaire-cut-") as folder,
                tempfile.TemporaryDirectory(prefix="vaultaire-cut-", dir=_fast_folder()) as fast,
            ):
                run.seed(seed, Path(folder), Path(fast))
            last = seed
            if run.findings and run.mutant is not None:
                break
    except Unavailable as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE
    report(run, range(options.seeds.start, last + 1), options, time.monotonic() - began)
    return 1 if run.findings else 0


def report(run: Run, seeds: range, options: argparse.Namespace, seconds: float) -> None:
    counts = f"{run.done:,} cuts, {run.acknowledged:,} acknowledged"
    actions = ", ".join(f"{number} {action}" for action, number in sorted(run.actions.items()))
    print(
        f"{counts}, {len(run.findings)} findings; {actions}; {seconds / max(run.done, 1) * 1000:.0f} ms per cut"
    )
    if options.record and seeds:
        mutant = "" if run.mutant is None else f", mutant {run.mutant.name}"
        command = f"python -m tests.crash.power_cut --filesystem {run.filesystem} --cuts {run.cuts} --seeds {seeds.start}-{seeds.stop - 1}"
        command += "" if run.mutant is None else f" --mutant {run.mutant.name}"
        what = f"power cuts {run.filesystem}{mutant}"
        results.record(results.Run(what, seeds, counts, len(run.findings), command))


if __name__ == "__main__":
    sys.exit(main())
