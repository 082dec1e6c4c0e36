"""Deterministic simulation: the real store on a simulated machine, its processes interleaved, killed and cut off power.

    python -m tests.crash.sim.simulation --seeds 0-999 [--record]
    python -m tests.crash.sim.simulation --seed 4711          # the same history again, to the last system call
    python -m tests.crash.sim.simulation --mutant early-unlink --seeds 0-999   # status 0: it was found

A seed decides everything: how many processes with how many clients, what they do, who has the next turn at each system
call, which call is the last one of a process or of the machine, what the power cut leaves of what was not synced, which
sync fails, when the disk is full. After each death the store is opened, all of it is read, and every client's part is held
against what it was told: see `tests.crash.knowledge`. Readers read what others write and collect, all the while.

What runs is the store itself (packs, journal, recovery, checkpoints, run files, collection) on `tests.crash.sim.kernel`;
only LMDB is replaced, by what it promises.
"""

from __future__ import annotations

import argparse
import functools
import gc
import logging
import os
import random
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cas.packs
import vaultaire.store
from cas.catalog import iterate_packs
from cas.chunk import Identity
from cas.errors import CorruptChunk, CorruptManifest, CorruptPack, CorruptRow, MissingChunk, MissingPack
from cas.manifest import Manifest
from cas.store import ChunkStore
from index.environment import Tuning
from index.kv import CorruptJournal, CorruptValue, StorePoisoned
from index.listing import list_objects
from index.lmdb_kv import LmdbKv
from index.records import ObjectRecord
from tests.crash import checks, results, workload
from tests.crash.collecting import collect, delete_all
from tests.crash.knowledge import Knowledge
from tests.crash.sim import mutants
from tests.crash.sim.kernel import NEVER, Kernel, Process, SimPath, installed, remove_tree
from vaultaire.space import SpacePolicy
from vaultaire.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from index.recovery import RecoveryReport


MODULES = ("cas.", "index.", "vaultaire.", "tests.crash.workload")
CLIENTS = ("a", "b", "c", "d", "e")
CARE = (workload.write_checkpoint, workload.seal_packs, workload.protect)
DIRECTORY = "/store"
DAMAGE = (
    CorruptChunk,
    CorruptManifest,
    CorruptPack,
    CorruptRow,
    MissingChunk,
    MissingPack,
    CorruptValue,
    CorruptJournal,
)
SIZES = (0, 700, 4_097, 6_000, 12_000, 25_000)
SIZE_WEIGHTS = (1, 3, 2, 5, 3, 1)
PACK_TARGET_BYTES = 30_000
SHARED_BODIES = 10
OWN_BODIES = 3
WINDOW_BYTES = 5_000
KEYS = 1  # per client and bucket
EXTENT_BYTES = 4_096
SEGMENT_BYTES = 8_000
TUNING = Tuning(
    zero_ahead_bytes=2_048,
    replay_bytes=3_000,
    max_readers=64,
    checkpoint_least_bytes=4_000,
    monotonic=lambda: 0.0,
)
DAWDLING_TURNS = (0, 0, 0, 10, 100, 500)  # between two system calls, each a turn of somebody
STEP_TURNS = (1, 1, 1, 5, 30)  # between two steps of collection
MANY = 20  # deaths in a row while the store is opened


class ClientRandom(random.Random):
    """Knows whose it is, for `body_of`."""

    pool = 0


def body_of(rng: random.Random, size: int) -> bytes:
    """Mostly one of a few: what was deleted is soon uploaded again, while collection is at it.

    Some are everybody's; some only one client has, so that they are dead for sure once it has deleted them.
    """
    chance = rng.random()
    if chance < 0.3:
        return _body(0, rng.randrange(SHARED_BODIES))
    if chance < 0.8 and isinstance(rng, ClientRandom):
        return _body(rng.pool, rng.randrange(OWN_BODIES))
    return rng.randbytes(size)


@functools.cache
def _body(pool: int, number: int) -> bytes:
    rng = random.Random(pool << 8 | number)
    return rng.randbytes(rng.randrange(4_500, 15_000))


def shrink() -> None:
    """Once per process: as `workload.shrink`, smaller still."""
    workload.SIZES, workload.SIZE_WEIGHTS, workload.KEYS = SIZES, SIZE_WEIGHTS, KEYS
    workload.body_of = body_of
    workload.PACK_TARGET_BYTES = PACK_TARGET_BYTES
    workload.one_thread()
    names: Any = vaultaire.store
    options = {"map_size_bytes": 1 << 28}
    recover = names.recover
    names.LmdbKv = SimpleNamespace(
        open=lambda directory, **given: LmdbKv.open(
            directory, **given, **options, segment_bytes=SEGMENT_BYTES, tuning=workload.TUNING
        )
    )

    def recover_small(directory: Any, **given: Any) -> RecoveryReport:
        report: RecoveryReport = recover(directory, **given, **options, tuning=workload.TUNING)
        if "older than the journal" in report.reason:
            raise Wrong(f"a gap between LMDB and the journal: {report.reason}")
        return report

    names.recover = recover_small
    names.ChunkStore = functools.partial(ChunkStore, pack_target_bytes=PACK_TARGET_BYTES)
    packs: Any = cas.packs
    packs.FIRST_EXTENT_BYTES = EXTENT_BYTES
    policy: Any = SpacePolicy
    policy.of = staticmethod(
        lambda filesystem_bytes: SpacePolicy(0, 0)
    )  # a full disk comes without warning here
    create = Identity.create
    Identity.create = staticmethod(lambda: replace(create(), cdc=workload.CUT_RULES))  # type: ignore[method-assign]


class Wrong(Exception):
    """A finding."""


class SlowWorker(workload.Worker):
    """A client that may take long between the last byte of its upload and its commit."""

    kernel: Kernel
    churns = False

    def step(self) -> None:
        """Deletes more than others do, so that there is something to collect."""
        if self.churns:
            self.rng.choice((self.put, self.put, self.delete, self.delete_version, self.copy))()
        elif self.rng.random() < 0.3:
            self.rng.choice((self.delete, self.delete_version, self.delete_version, self.abort))()
        else:
            super().step()

    def _commit(self, fn: Callable[[Any], Any], publications: Any = ()) -> Any:
        dawdle(self.kernel, self.rng)
        return super()._commit(fn, publications)


def dawdle(kernel: Kernel, rng: random.Random) -> None:
    for _ in range(rng.choice(DAWDLING_TURNS)):
        kernel.pause()


@dataclass(slots=True)
class Simulation:
    """One seed: see the module."""

    seed: int
    deaths: int = 0
    cuts: int = 0
    knowledge: Knowledge = field(default_factory=lambda: Knowledge.of(CLIENTS))
    finding: str | None = None
    rng: random.Random = field(init=False)
    kernel: Kernel = field(init=False)
    faulty: bool = field(init=False)
    churns: bool = field(init=False)  # long lives, and collection all the while
    clients: int = 0  # that work now
    boots: int = 0
    poisoned: bool = False  # a process has said so: all are to be stopped and started

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        switch = self.rng.choice((0.01, 0.1, 0.4))
        self.kernel = Kernel(random.Random(self.seed + 1), switch=switch, ordered=self.rng.random() < 0.5)
        self.faulty = self.rng.random() < 0.3
        self.churns = self.rng.random() < 0.4

    def run(self) -> None:
        with installed(self.kernel, MODULES):
            try:
                for _ in range(1 if self.churns else self.rng.randrange(1, 4)):
                    self._restart()
                    self._live()
                self._restart()
                self._in_one_process("loser", self._lose_metadata)
                self._restart()
                self._in_one_process("last", self._delete_all)
                self._in_one_process("collector", self._collect_all)
            except Exception as error:
                self.finding = str(error) if isinstance(error, Wrong) else traceback.format_exc()

    # Deaths

    def _schedule_death(self, calls: int) -> None:
        """Something dies within so many system calls, or nothing does."""
        kernel = self.kernel
        kernel.dies = self.rng.choice((self._kill_one, self._kill_all, self._cut_power, self._cut_power))
        kernel.dies_at = kernel.calls + 1 + self.rng.randrange(calls) if self.rng.random() < 0.85 else NEVER

    def _kill_one(self) -> None:
        self.deaths += 1
        assert self.kernel.process is not None
        self.kernel.kill(self.kernel.process)

    def _kill_all(self) -> None:
        self.deaths += 1
        for process in {thread.process for thread in self.kernel.threads}:
            self.kernel.kill(process)

    def _cut_power(self) -> None:
        self.cuts += 1
        self.boots += 1
        workload.TUNING = replace(TUNING, boot=self.boots.to_bytes(16, "big"))
        self.kernel.cut_power()

    # Phases

    def _restart(self) -> None:
        """Open the store, read all of it and judge; whatever dies meanwhile is started again."""
        self.kernel.faults.clear()
        self.kernel.disk.full = False
        self.poisoned = False
        for attempt in range(MANY):
            if attempt < MANY // 2 and self.rng.random() < 0.4:
                self._schedule_death(400)
            if self._in_one_process("opener", self._examine):
                self.kernel.dies_at = NEVER
                return
        raise Wrong("the store was never opened")

    def _in_one_process(self, name: str, work: Callable[[], object]) -> bool:
        """Did it come to its end?"""
        process = Process(name)
        thread = self.kernel.start(process, work)
        self.kernel.run()
        if thread.error is not None:
            raise Wrong(_text(thread.error))
        return not process.dead

    def _examine(self) -> None:
        with Store.open(self._directory(), kind="command", create=True, by_operator=True) as store:
            found = workload.read_states(store, CLIENTS)
            wrong = self.knowledge.judge(found)
            if wrong is None and self.rng.random() < 0.3:
                wrong = checks.verify_alone(store)
            if wrong is not None:
                raise Wrong(wrong)
            self.knowledge.hear(("found", found))
            workload.make_buckets(store)

    def _lose_metadata(self) -> None:
        remove_tree(self._directory() / "meta")

    def _delete_all(self) -> None:
        with Store.open(self._directory(), kind="command") as store:
            for name in CLIENTS:
                worker = workload.Worker(store, name, self.rng, self.knowledge.states[name], self._hear)  # type: ignore[arg-type]
                delete_all(worker)

    def _collect_all(self) -> None:
        with Store.open(self._directory(), kind="command") as store:
            collect(store)
            with store.kv.snapshot() as reader:
                rows = dict(iterate_packs(reader))
            left = {f"{pack:x}": rows.get(pack) for pack in store.packs.packs()}
            if left:
                raise Wrong(f"all is deleted and collected, and there are still packs: {left}")
            wrong = checks.verify_alone(store)
            if wrong is not None:
                raise Wrong(wrong)

    def _directory(self) -> SimPath:
        return SimPath(DIRECTORY)

    def _live(self) -> None:
        """Several processes work; some, or all, or the machine, may die."""
        names = list(CLIENTS)
        self.rng.shuffle(names)
        for number in range(self.rng.choice((1, 1, 2, 3))):
            mine = [names.pop() for _ in range(self.rng.choice((1, 1, 2))) if names]
            self._start_process(f"worker {number}", [*map(self._client, mine), self._reader])
        if self.rng.random() < 0.7:
            self._start_process("maintenance", [self._maintenance])
        if self.faulty:
            self._schedule_faults()
        self._schedule_death(20_000 if self.churns else self.rng.choice((1_000, 5_000)))
        self.kernel.run()
        self.kernel.dies_at = NEVER

    def _schedule_faults(self) -> None:
        kinds = ("sync .pack", "sync .log", "lmdb commit", "lmdb sync", "sync .ckpt", "sync .json")
        self.kernel.faults = {self.rng.choice(kinds): self.rng.choice((0.01, 0.05, 0.2))}
        if self.rng.random() < 0.5:
            nemesis = Process("nemesis")
            self.kernel.start(nemesis, self._fill_and_free)

    def _fill_and_free(self) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            for full in (True, False):
                for _ in range(self.rng.randrange(1, 60)):
                    self.kernel.pause()
                self.kernel.disk.full = full

    def _start_process(self, name: str, jobs: list[Callable[[Store, random.Random], object]]) -> None:
        """A process with a thread per job, that ends in order when all have ended."""
        process = Process(name)
        seed = self.rng.random()

        def main() -> None:
            store = Store.open(self._directory(), kind="worker")
            threads = [
                self.kernel.start(process, functools.partial(job, store, random.Random(f"{seed} {number}")))
                for number, job in enumerate(jobs)
            ]
            while not all(thread.ended for thread in threads):
                self.kernel.pause()
                store.run_file.tick()
            errors = [thread.error for thread in threads if thread.error is not None]
            if errors:
                raise errors[0]
            store.close()

        def guarded() -> None:
            try:
                main()
            except (*workload.DOCUMENTED, OSError) as error:
                self.poisoned = self.poisoned or isinstance(error, StorePoisoned)
                if not self.faulty or isinstance(error, DAMAGE):
                    self.finding = self.finding or _text(error)
            except Exception as error:
                self.finding = self.finding or _text(error)

        self.kernel.start(process, guarded)

    # Jobs

    def _client(self, name: str) -> Callable[[Store, random.Random], None]:
        def run(store: Store, seeded: random.Random) -> None:
            rng = ClientRandom(seeded.random())
            rng.pool = 1 + CLIENTS.index(name)
            state = self.knowledge.states[name]
            worker = SlowWorker(store, name, rng, state, self._hear, care=CARE)  # type: ignore[arg-type]
            worker.kernel, worker.churns = self.kernel, self.churns
            self.clients += 1
            try:
                for _ in range(rng.randrange(20, 40) if self.churns else rng.randrange(4, 15)):
                    if self.poisoned or self.finding is not None or store.kv.read_only_reason() is not None:
                        return
                    worker.step()
                    if rng.random() < 0.3:
                        store.chunks.seal_idle(self.kernel.now + 1e6)
                    self.kernel.pause()
            finally:
                self.clients -= 1

        return run

    def _maintenance(self, store: Store, rng: random.Random) -> None:
        rounds = rng.randrange(2, 7)
        while rounds > 0 or (self.churns and self.clients):
            rounds -= 1
            dawdle(self.kernel, rng)
            if self.poisoned or self.finding is not None or store.kv.read_only_reason() is not None:
                return
            store.adopt_dead_writers()
            store.chunks.seal_idle(self.kernel.now + 1e6)
            if rng.random() < 0.5:
                store.kv.write_checkpoint()
            collect(store, lambda: self._between_steps(rng), archives=rng.random() < 0.3)

    def _between_steps(self, rng: random.Random) -> None:
        for _ in range(rng.choice(STEP_TURNS)):
            if self.poisoned:
                raise StorePoisoned("another process saw it")  # the supervisor ends all
            self.kernel.pause()

    def _reader(self, store: Store, rng: random.Random) -> None:
        """Slowly reads what anybody has written, while it is replaced and collected."""
        reads = rng.randrange(10)
        while reads > 0 or (self.churns and self.clients and not self.poisoned):
            reads -= 1
            self.kernel.pause()
            with store.operation():
                with store.kv.snapshot() as reader:
                    listed = list_objects(reader, workload._bucket(reader, "plain")).entries
                if listed:
                    self._read(store, ObjectRecord.decode(rng.choice(listed)[1]), rng)

    def _read(self, store: Store, record: ObjectRecord, rng: random.Random) -> None:
        data = record.inline or b""
        if record.manifest is not None:
            pieces = []
            for spans in store.chunks.windows(Manifest.decode(record.manifest), 0, record.size, WINDOW_BYTES):
                dawdle(self.kernel, rng)
                pieces += store.chunks.read(spans)
            data = b"".join(pieces)
        if workload.digest(data).digest.hex() != record.etag[:32]:
            raise Wrong("a reader got other bytes")

    def _hear(self, *message: Any) -> None:
        self.knowledge.hear(message)
        if message[0] == "failed":
            self.poisoned = self.poisoned or message[2] == "StorePoisoned"
            if not self.faulty:
                self.finding = self.finding or f"failed without a fault: {message}"


def _text(error: Exception) -> str:
    return "".join(traceback.format_exception(error)) if not isinstance(error, Wrong) else str(error)


def simulate(seed: int) -> Simulation:
    workload.TUNING = replace(TUNING, boot=bytes(16))
    simulation = Simulation(seed)
    simulation.run()
    return simulation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.sim.simulation", description=__doc__)
    parser.add_argument("--seeds", type=results.parse_seeds, default=range(100))
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no seed after this time")
    parser.add_argument(
        "--mutant", choices=sorted(mutants.BY_NAME), action="append", default=[], help="may be repeated"
    )
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a history
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.crash.sim.simulation", *sys.argv[1:]])
    seeds = range(options.seed, options.seed + 1) if options.seed is not None else options.seeds
    logging.getLogger("vaultaire").setLevel(logging.CRITICAL)
    shrink()
    gc.disable()  # a seed makes little garbage; what there is goes with its simulation
    if options.mutant:
        # Each in a process of its own, that has imported everything already. All must be found: the status says if not.
        return max([_forked(functools.partial(hunt, seeds, options, name)) for name in options.mutant])
    return hunt(seeds, options, None)


def _forked(work: Callable[[], int]) -> int:
    """Its result, 1 if it found something; the other way round for who asks for mutants to be found."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        status = 2
        try:
            status = work()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return 0 if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1 else 1


def hunt(seeds: range, options: argparse.Namespace, mutant: str | None) -> int:
    """1 if something was found."""
    if mutant is not None:
        mutants.BY_NAME[mutant].install()
    began, cpu, totals = time.monotonic(), time.process_time(), [0] * 5
    findings, last = 0, seeds.start - 1
    for seed in seeds:
        if time.monotonic() - began > options.seconds:
            break
        simulation = simulate(seed)
        last = seed
        kernel = simulation.kernel
        counts = (simulation.deaths, simulation.cuts, simulation.knowledge.acknowledged, kernel.removed_packs)
        totals = [total + count for total, count in zip(totals, (*counts, kernel.calls), strict=True)]
        if simulation.finding is not None:
            findings += 1
            if mutant is not None:
                break
            print(f"seed {seed}: {simulation.finding}", file=sys.stderr, flush=True)
        if seed % 50 == 49:
            gc.collect()
    done = range(seeds.start, last + 1)
    nouns = ("kills", "cuts", "acknowledged", "packs removed", "system calls")
    counted = ", ".join(f"{total:,} {noun}" for total, noun in zip(totals, nouns, strict=True))
    each = (time.process_time() - cpu) / max(len(done), 1) * 1000
    name = "" if mutant is None else f"mutant {mutant}: "
    print(f"{name}{len(done):,} seeds, {counted}, {findings} findings; {each:.0f} ms of CPU per seed")
    if options.record and done:
        what = "simulation" if mutant is None else f"simulation, mutant {mutant}"
        command = f"python -m tests.crash.sim.simulation --seeds {done.start}-{done.stop - 1}"
        command += "" if mutant is None else f" --mutant {mutant}"
        results.record(results.Run(what, done, f"{len(done):,} seeds, {counted}", findings, command))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
