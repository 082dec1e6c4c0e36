"""The Nth system call fails, or the process dies at it, for every N of a workload.

    python -m tests.crash.syscall_faults [--every 40] [--offset 0] [--calls fsync,fdatasync] [--record]

A child works through a fixed script on a store while strace makes its Nth call of one kind fail with EIO, ENOSPC,
EDQUOT or EINTR, or every call from the Nth on, or kills it there; "short" writes half of the Nth of our own writes.
Two scripts: a store that is made, and one that is opened after a kill (adoption, replay). What must hold, for all N:

* an operation that was answered with success is there afterwards, whole; one that was refused is not (only a poisoned
  store may leave it open); what is read meanwhile is right or a documented error;
* errors are those of the layers' error modules, from opening and closing also OSError; nothing else, no signal;
* no call takes more than `HANG_SECONDS`;
* without the fault the store, started by a person, opens again (for every second N from its journal alone), shows all of that, is verified
  clean, and works.

Counts are small where Python has no system call of its own: LMDB's are counted as they come (strace sees all).
Needs Linux, strace, and the right to trace.
"""

from __future__ import annotations

import argparse
import collections
import copy
import gc
import itertools
import logging
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.crash import checks, mutants, results, workload
from tests.crash.forked import Child, Said
from tests.crash.knowledge import Knowledge
from tests.crash.store_kill import History
from vaultaire.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = (
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "msync", "openat", "open", "rename",
    "renameat", "renameat2", "ftruncate", "fallocate", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "flock",
    "pread64", "preadv", "preadv2",
)  # fmt: skip
READS = ("pread64", "preadv", "preadv2")
FAULTS = ("EIO", "ENOSPC", "EDQUOT", "EINTR", "EIO+", "ENOSPC+", "KILL")
SHORT = "short"
KINDS = (*FAULTS, SHORT)
PYTHON_WRITES = {"pwrite": ("pwrite64",), "pwritev": ("pwritev", "pwritev2"), "write": ("write",)}
STEPS = 24
HANG_SECONDS = 30.0  # for one operation on a busy machine; the promise is 5 s on a quiet one
ATTACH_SECONDS = 60.0  # on a busy machine
EXPECTED = (*workload.DOCUMENTED, OSError)


@dataclass(frozen=True, slots=True)
class Fault:
    script: str  # "new" or "killed"
    call: str
    number: int  # from 1
    kind: str

    def __str__(self) -> str:
        return f"{self.script}: {self.call} {self.number} {self.kind}"

    @property
    def slot(self) -> int:
        """Deals faults out among runs, evenly, the same whatever counts are: in each of 7, every N fails in one way."""
        spread = zlib.crc32(f"{self.script} {self.call} {self.number}".encode())
        return 7 * spread + KINDS.index(self.kind) + self.number


@dataclass(slots=True)
class Laboratory:
    """Two prepared scripts; `try_fault` runs one of them with one fault."""

    folder: Path
    mutant: mutants.Mutant | None = None
    knowledge: dict[str, Knowledge] = field(default_factory=dict)
    slowest: float = 0.0  # seconds: the longest silence of a child that spoke again, and so of one operation

    def prepare(self, seed: int = 0, kept: Path | None = None) -> None:
        """With `kept`, the killed store is taken from there if it is there, and else put there."""
        self.knowledge["new"] = Knowledge.of(["a", "b"])
        if kept is not None and kept.exists():
            shutil.copytree(kept / "store", self.folder / "killed")
            self.knowledge["killed"] = pickle.loads((kept / "knowledge").read_bytes())
            return
        history = History(seed, self.folder / "killed")
        rng = random.Random(seed)
        for number in range(6):
            history._one(rng, number)
        assert history.finding is None, history.finding
        self.knowledge["killed"] = history.knowledge
        if kept is not None:
            shutil.copytree(self.folder / "killed", kept / "store")
            (kept / "knowledge").write_bytes(pickle.dumps(history.knowledge))

    def count(self, script: str) -> dict[str, int]:
        """How often the script makes each call."""
        log = self.folder / "calls"
        child, tracer = self._start(
            script, ["-o", str(log), "-e", "trace=" + ",".join(f"?{c}" for c in CALLS)]
        )
        outcome = self._listen(child, copy.deepcopy(self.knowledge[script]))
        child.end()
        tracer.wait()
        assert outcome is None, outcome
        names = re.findall(r"^(?:\d+ +)?(\w+)\(", log.read_text(), re.MULTILINE)
        return dict(collections.Counter(names))

    def try_fault(self, fault: Fault) -> str | None:
        """What is wrong; None if everything is as it must be."""
        known = copy.deepcopy(self.knowledge[fault.script])
        tracer = None
        if fault.kind == SHORT:
            child = self._prepared(fault.script, fault)
            child.go()
        else:
            child, tracer = self._start(fault.script, ["-o", os.devnull, *_inject(fault)])
        try:
            wrong = self._listen(child, known)
        finally:
            killed = not child.ended
            status = child.end()
            if tracer is not None:
                tracer.wait()
        if wrong is None and not killed and status != (-9 if fault.kind == "KILL" else 0) and status != 0:
            wrong = f"the process ended with status {status}"
        return wrong or self._look_again(known, rebuild=fault.number % 2 == 0)

    def _start(self, script: str, tracing: list[str]) -> tuple[Child, subprocess.Popen[bytes]]:
        child = self._prepared(script, None)
        command = ["strace", "-f", "-qq", "-p", str(child.pid), *tracing]
        complaints = self.folder / "strace"
        with open(complaints, "wb") as stderr:
            tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        deadline = time.monotonic() + ATTACH_SECONDS
        status = Path(f"/proc/{child.pid}/status")
        while "TracerPid:\t0\n" in status.read_text():
            if tracer.poll() is not None or time.monotonic() > deadline:
                child.end()
                raise RuntimeError(f"strace could not attach: {complaints.read_text()}")
            time.sleep(0.0005)
        child.go()
        return child, tracer

    def _prepared(self, script: str, short: Fault | None) -> Child:
        """A child whose directory is ready, and which waits."""
        child = Child(lambda said: self._live(script, said, short))
        message = child.receive(time.monotonic() + HANG_SECONDS)
        assert message == ("ready",), message
        return child

    def _live(self, script: str, said: Said, short: Fault | None) -> None:
        """The child's life: from `ready` on every step of it may meet the fault."""
        directory = self.folder / "victim"
        shutil.rmtree(directory, ignore_errors=True)
        if script == "killed":
            shutil.copytree(self.folder / "killed", directory)
        said("ready")
        said.wait()
        if self.mutant is not None:
            self.mutant.install()
        if short is not None:
            _write_short(short)
        known = copy.deepcopy(self.knowledge[script])

        def tell(*message: Any) -> None:
            known.hear(message)
            said(*message)

        try:
            store = Store.open(directory, kind="worker", create=True)
        except EXPECTED as error:
            return said("refused", "open", type(error).__name__, str(error))
        try:
            _work(store, known, tell)
        finally:
            try:
                store.close()
            except EXPECTED as error:
                said("refused", "close", type(error).__name__, str(error))
        said("closed")
        return None

    def _look_again(self, known: Knowledge, *, rebuild: bool) -> str | None:
        """Without the fault: it opens (with `rebuild`: from the journal), shows what it must, is clean, works."""
        if rebuild:
            shutil.rmtree(self.folder / "victim" / "meta", ignore_errors=True)

        def look(said: Said) -> None:
            victim = self.folder / "victim"
            with Store.open(victim, kind="worker", create=True, by_operator=True) as store:
                found = workload.read_states(store, known.names)
                wrong = known.judge(found) or checks.verify_alone(store)
                if wrong is not None:
                    return said("wrong", f"afterwards: {wrong}")
                workload.make_buckets(store)
                said("found", found)
                worker = workload.Worker(store, "a", random.Random(1), found["a"], said, workload.CARE)
                worker.run(6)
            return said("closed")

        child = Child(look)
        try:
            return self._listen(child, known, allow_failures=False)
        finally:
            child.end()

    def _listen(self, child: Child, known: Knowledge, *, allow_failures: bool = True) -> str | None:
        """To the child's end. What is wrong with what it says."""
        while True:
            began = time.monotonic()
            message = child.receive(began + HANG_SECONDS)
            self.slowest = max(self.slowest, time.monotonic() - began)
            if message is None:
                return None if child.ended else f"it hangs; the last operation: {known.pending}"
            known.hear(message)
            if message[0] in ("raised", "wrong") or (
                message[0] in ("failed", "refused") and not allow_failures
            ):
                return f"{message[0]}: {' '.join(map(str, message[1:]))}"


def _work(store: Store, known: Knowledge, tell: Any) -> None:
    try:
        found = workload.read_states(store, known.names)
        wrong = known.judge(found)
        if wrong is not None:
            return tell("wrong", wrong)
        tell("found", found)
        workload.make_buckets(store)
        worker = workload.Worker(store, "a", random.Random(7), found["a"], tell, workload.CARE)
        for number in range(STEPS):
            worker.step()
            if number % (STEPS // 2) == STEPS // 2 - 1:
                worker.take_all_care()
            if known.poisoned:  # then a process ends
                break
        found = workload.read_states(store, known.names)
    except EXPECTED as error:
        return tell("refused", "work", type(error).__name__, str(error))
    wrong = known.judge(found)
    return None if wrong is None else tell("wrong", f"at the end of the work: {wrong}")


def _inject(fault: Fault) -> list[str]:
    sticky = "+" if fault.kind.endswith("+") else ""
    kind = "signal=KILL" if fault.kind == "KILL" else f"error={fault.kind.rstrip('+')}"
    return ["-e", f"trace={fault.call}", "-e", f"inject={fault.call}:{kind}:when={fault.number}{sticky}"]


def _write_short(fault: Fault) -> None:
    """The Nth write of our own writes half of its bytes, and says so."""
    original: Any = getattr(os, fault.call)
    calls = itertools.count(1)

    def short(fd: int, data: Any, *rest: Any) -> int:
        if next(calls) != fault.number:
            return original(fd, data, *rest)
        if fault.call == "pwritev":
            whole = b"".join(data)
            return os.pwrite(fd, whole[: len(whole) // 2], *rest)
        return original(fd, memoryview(data)[: len(data) // 2], *rest)

    setattr(os, fault.call, short)


def faults(script: str, counts: dict[str, int]) -> Iterator[Fault]:
    """All of them."""
    for call, count in sorted(counts.items()):
        for kind in ("EIO", "EIO+") if call in READS else FAULTS:
            for number in range(1, count + 1):
                yield Fault(script, call, number, kind)
    for call, made in PYTHON_WRITES.items():
        for number in range(1, max(counts.get(name, 0) for name in made) + 1):
            yield Fault(script, call, number, SHORT)


def warm_up(folder: Path) -> None:
    """What is imported late or cached must be there before the fork: its system calls are not the store's."""
    with Store.open(folder, kind="worker", create=True) as store:
        workload.make_buckets(store)
        worker = workload.Worker(
            store, "a", random.Random(7), workload.State(), lambda *_: None, workload.CARE
        )  # type: ignore[arg-type]
        worker.run(2 * STEPS)
        worker.take_all_care()
        workload.read_states(store, ["a"])
        checks.verify(store)


def _shown(value: range | str | None) -> str:
    return f"{value.start}-{value.stop - 1}" if isinstance(value, range) else value or ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.syscall_faults", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only one fault in so many, spread evenly")
    parser.add_argument("--offset", type=int, default=0, help="which of them: 0 to every - 1")
    parser.add_argument("--calls", help="only these system calls, with commas")
    parser.add_argument("--kinds", help="only these faults, with commas")
    parser.add_argument("--numbers", type=results.parse_seeds, help="only these N")
    parser.add_argument("--script", choices=("new", "killed"))
    parser.add_argument(
        "--directory", type=Path, help="where the stores are made (default: a temporary directory)"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        help="where the killed store is kept: it differs from one making to the next, and so do its N",
    )
    parser.add_argument("--mutant", choices=sorted(mutants.BY_NAME))
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        print("strace is not installed")
        return 2
    workload.shrink()
    workload.one_thread()
    logging.disable(logging.CRITICAL)
    began, tried = time.monotonic(), 0
    findings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vaultaire-faults-", dir=options.directory) as folder:
        warm_up(Path(folder) / "warm")
        gc.freeze()
        laboratory = Laboratory(Path(folder), mutants.BY_NAME.get(options.mutant))
        laboratory.prepare(kept=options.keep)
        wanted: list[Fault] = []
        for script in ("new", "killed"):
            counts = laboratory.count(script)
            print(f"{script}: {dict(sorted(counts.items()))}", flush=True)
            wanted += faults(script, counts)
        for fault in wanted:
            if fault.slot % options.every != options.offset:
                continue
            if options.calls and fault.call not in options.calls.split(","):
                continue
            if options.kinds and fault.kind not in options.kinds.split(","):
                continue
            if options.numbers and fault.number not in options.numbers:
                continue
            if options.script and fault.script != options.script:
                continue
            tried += 1
            wrong = laboratory.try_fault(fault)
            if wrong is not None:
                findings.append(f"{fault}: {wrong}")
                print(findings[-1], file=sys.stderr, flush=True)
    each = (time.monotonic() - began) / max(tried, 1)
    slowest = laboratory.slowest
    print(
        f"{tried:,} faults of {len(wanted):,}, {len(findings)} findings, {each * 1000:.0f} ms per fault, "
        f"slowest operation {slowest:.1f} s"
    )
    if options.record:
        command = f"python -m tests.crash.syscall_faults --every {options.every} --offset {options.offset}"
        command += "".join(
            f" --{name} {value}"
            for name in ("calls", "kinds", "script", "numbers")
            if (value := _shown(getattr(options, name)))
        )
        counts_text = f"{tried:,} faults of {len(wanted):,} in all; slowest operation {slowest:.1f} s"
        run = results.Run(
            "system calls", range(options.offset, options.offset + 1), counts_text, len(findings), command
        )
        results.record(run)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
