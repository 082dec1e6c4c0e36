"""One flipped bit, in every byte of every file of a store: never a wrong byte served, always seen or harmless.

    python -m tests.crash.bit_flips [--store small|large] [--seeds 0-299] [--scene NAME] [--file PART] [--record]

A seed is one byte of the store, in a shuffled order that covers all of them exactly once (`--all`: every byte); which
of its bits is flipped follows from it. The store is copied, the bit flipped, everything read, and verified. Scenes:

    stopped   a store that was closed in order is opened (all files but packs)
    rebuild   the same, but LMDB is gone: checkpoint and journal must bring everything back
    killed    a store whose process was killed is opened: adoption and replay (all files)
    packs     packs of a store that is open, without parity
    parity    packs and sidecars of a store with parity: everything must be read, and all be mended ("mended")

What may come of a flip: the store refuses to open ("refused"); or reading something raises a documented error ("said");
or everything is there, or something is missing, and `verify` complains ("verify"); or all reads are the same and
`verify` is content: unused space, or something that was made good ("same"). What must not: other bytes, something that
was never there, an undocumented error, a process that hangs, `verify` content where anything is not the same, and a process
that dies; but of a crash in C (LMDB walks damaged pages) the supervisor has LMDB rebuilt, and then everything must be there
("rebuilt").
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import logging
import random
import shutil
import sys
import tempfile
import time
from bisect import bisect_right
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cas.healing import queue_damaged_pack
from cas.manifest import Manifest
from index import buckets, uploads
from index.fileops import FileOps
from index.listing import list_objects, list_uploads, list_versions
from index.objects import get_object
from index.poison import CRASHED, set_poison
from index.versions import get_version
from tests.crash import checks, mutants, results, workload
from tests.crash.forked import Child, Said
from tests.crash.knowledge import Knowledge
from tests.crash.pack_flips import PackFlips
from vaultaire.access import Keyring, new_root
from vaultaire.store import Store
from vaultaire.supervisor import CRASHES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from index.kv import Reader
    from tests.crash.model import State

Scene = Literal["stopped", "rebuild", "killed", "packs", "parity"]
SCENES: tuple[Scene, ...] = ("stopped", "rebuild", "killed", "packs", "parity")
# "+": some of it could not be read, and that was said. The last three are findings.
Verdict = Literal["same", "refused", "said", "verify", "mended", "rebuilt", "WRONG", "UNDOCUMENTED", "DIED"]
FINDINGS = ("WRONG", "UNDOCUMENTED", "DIED")

ROOT = new_root("FLIPPEDBITSROOT00001", "a-root-key-that-must-come-back-or-be-refused")
STEPS = {"small": 10, "large": 400}  # per client and scene
MAX_BYTES = {"small": 6_000, "large": 300_000}  # of one object
FLIPS_PER_CHILD = 1000
FLIP_SECONDS = 60.0
EXPECTED = (*workload.DOCUMENTED, OSError)


@dataclass(frozen=True, slots=True)
class Flip:
    scene: Scene
    file: str  # inside the store
    offset: int
    bit: int

    def __str__(self) -> str:
        return f"{self.scene}: {self.file} byte {self.offset} bit {self.bit}"

    def apply(self, directory: Path) -> None:
        with open(directory / self.file, "r+b") as file:
            file.seek(self.offset)
            byte = file.read(1)[0]
            file.seek(self.offset)
            file.write(bytes((byte ^ 1 << self.bit,)))


# --- What there is, and what can be read --------------------------------------------------------------------------


def things(store: Store) -> Iterator[tuple[str, Callable[[Reader], Any]]]:
    """Every listing of the store, each with a function that reads it."""
    yield "buckets", lambda reader: [bucket.name for bucket in buckets.list_buckets(reader).buckets]
    yield "root key", lambda reader: [(k.access_key, k.secret_key) for k in _keyring(store, reader)]
    yield (
        "list",
        lambda reader: [key for key, _ in list_objects(reader, _plain(reader), max_keys=9999).entries],
    )
    yield (
        "versions",
        lambda reader: [
            (row.key, row.latest) for row in list_versions(reader, _versioned(reader), max_keys=9999).entries
        ],
    )
    yield (
        "uploads",
        lambda reader: [
            (row.key, row.upload_id) for row in list_uploads(reader, _plain(reader), max_uploads=9999).entries
        ],
    )


def objects_of(store: Store, state: State) -> Iterator[tuple[str, Callable[[Reader], Any]]]:
    """Every object, version and part that a client knows of."""
    for key in state.plain:
        yield (
            f"object {key!r}",
            lambda reader, key=key: workload.body_of_record(store, get_object(reader, _plain(reader), key)),
        )
    for key, versions in state.versions.items():
        for version in versions:
            id_ = bytes.fromhex(version.id)
            yield (
                f"version {key!r} {version.id}",
                lambda reader, key=key, id_=id_: workload.body_of_record(
                    store, get_version(reader, _versioned(reader), key, id_)
                ),
            )
    for upload in state.uploads.values():
        yield (
            f"upload {upload.id}",
            lambda reader, upload=upload: [
                (
                    part.number,
                    part.size,
                    part.etag,
                    workload.digest(workload.read_manifest(store, Manifest.decode(part.manifest))),
                )
                for part in uploads.list_parts(
                    reader, _plain(reader), upload.key, upload.id, limit=9999
                ).parts
            ],
        )


def _keyring(store: Store, reader: Reader) -> list[Any]:
    return Keyring.load(store.directory, reader).root_keys(reader)


def _plain(reader: Reader) -> int:
    return _id(reader, "plain")


def _versioned(reader: Reader) -> int:
    return _id(reader, "versioned")


def _id(reader: Reader, name: str) -> int:
    bucket = buckets.get_bucket(reader, name)
    return 0xFFFFFFFF if bucket is None else bucket.id


MISSING = (None, [], ())


def survey(store: Store, known: Known) -> tuple[dict[str, str], list[str]]:
    """What reading comes to: outcomes ("same", "said", "missing") with an example, and what must not be."""
    outcomes: dict[str, str] = {}
    wrong: list[str] = []
    everything = list(things(store))
    for state in known.states.values():
        everything += objects_of(store, state)
    with store.operation():
        for name, read in everything:
            try:
                with store.kv.snapshot() as reader:
                    found = read(reader)
            except EXPECTED as error:
                outcomes["said"] = f"{name}: {error!r}"
                continue
            if found == known.truth[name]:
                outcomes["same"] = name
            elif found in MISSING or _fewer(found, known.truth[name]):
                outcomes["missing"] = name
            else:
                wrong.append(f"{name}: {str(found)[:200]} instead of {str(known.truth[name])[:200]}")
    return outcomes, wrong


def _fewer(found: Any, true: Any) -> bool:
    return (
        isinstance(found, list)
        and isinstance(true, list)
        and len(found) < len(true)
        and all(f in true for f in found)
    )


def read_truth(store: Store, states: dict[str, State]) -> dict[str, Any]:
    everything = list(things(store))
    for state in states.values():
        everything += objects_of(store, state)
    with store.operation(), store.kv.snapshot() as reader:
        return {name: read(reader) for name, read in everything}


# --- One flip -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What a prepared store holds."""

    states: dict[str, State]
    truth: dict[str, Any]  # name of a thing -> what reading it gives


@dataclass(slots=True)
class Laboratory:
    """The stores that are copied and flipped: folders "stopped" and "killed"."""

    folder: Path
    known: dict[str, Known]

    @classmethod
    def prepare(cls, folder: Path, size: str) -> Laboratory:
        knowledge = Knowledge.of(["a", "b"])
        known: dict[str, Known] = {}
        for number, ending in enumerate(("first", "stopped", "parity", "killed")):
            work = partial(_fill, folder / "work", ending, number, size, knowledge)
            truth = _listen_for_truth(Child(work), knowledge)
            known[ending] = Known(dict(knowledge.states), truth)
            shutil.copytree(folder / "work", folder / ending)
        return cls(folder, known)

    def source(self, scene: Scene) -> tuple[Path, Known]:
        name = scene if scene in ("killed", "parity") else "stopped"
        return self.folder / name, self.known[name]

    def bytes_of(self, scenes: tuple[Scene, ...], part: str) -> list[tuple[Scene, str, int]]:
        """(scene, file, length) of all that can be flipped."""
        found: list[tuple[Scene, str, int]] = []
        for scene in scenes:
            source, _ = self.source(scene)
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                name = str(path.relative_to(source))
                is_pack = name.startswith("packs/")
                if part in name and path.stat().st_size and _counts(scene, name, is_pack):
                    found.append((scene, name, path.stat().st_size))
        return found


def _counts(scene: Scene, name: str, is_pack: bool) -> bool:
    """Each file where it is read."""
    if scene in ("packs", "parity"):
        return is_pack
    if scene == "rebuild":
        return name.startswith(("journal/", "checkpoint/"))
    if scene == "killed":
        return is_pack or name.startswith(("journal/", "run/", "meta/data"))
    return name.startswith(("journal/", "meta/data", "store.json", "secret.key"))


def _listen_for_truth(child: Child, knowledge: Knowledge) -> dict[str, Any]:
    truth: dict[str, Any] = {}
    try:
        while (message := child.receive(time.monotonic() + FLIP_SECONDS)) is not None:
            if message[0] == "raised":
                raise RuntimeError(message[1])
            knowledge.hear(message)
            if message[0] == "truth":
                truth = message[1]
                if message[2] == "killed":
                    child.kill()
    finally:
        child.end()
    return truth


def _fill(directory: Path, ending: str, number: int, size: str, knowledge: Knowledge, said: Said) -> None:
    """Work on the store; "first" and "stopped" end in order, "killed" is killed with everything open."""
    limit = MAX_BYTES[size]
    store = Store.open(directory, kind="worker", create=True)
    if ending == "parity":
        workload.protect(store)
    found = workload.read_states(store, knowledge.names)
    said("found", found)
    workload.make_buckets(store)
    with store.kv.snapshot() as reader:
        keyring = Keyring.open_or_create(directory, reader)
    store.kv.commit(lambda txn: keyring.ensure_root(txn, ROOT, given=True, now_ms=1))
    for name in knowledge.names:
        worker = workload.Worker(
            store, name, random.Random(f"{number} {name}"), found[name], said, max_bytes=limit
        )
        if ending != "parity":
            worker.run(STEPS[size])
        found[name] = worker.state
    if ending in ("first", "stopped"):
        store.kv.write_checkpoint()
        worker = workload.Worker(store, "a", random.Random("after"), found["a"], said, max_bytes=limit)
        worker.run(max(2, STEPS[size] // 10))  # some journal behind the checkpoint
        found["a"] = worker.state
    truth = read_truth(store, found)
    if ending != "killed":
        store.close()
    said("truth", truth, ending)
    if ending == "killed":
        time.sleep(FLIP_SECONDS)


def bring_back(source: Path, directory: Path) -> None:
    """Make `directory` a copy of `source`; what did not change since it last was one is not copied again.

    A copy has the times of its original. What LMDB maps is copied always: writing to a map need not change them.
    """
    wanted = {path.relative_to(source): path.stat() for path in source.rglob("*")}
    there = {path.relative_to(directory): path.stat() for path in directory.rglob("*")}
    for name in sorted(there.keys() - wanted.keys(), reverse=True):
        path = directory / name
        path.rmdir() if path.is_dir() else path.unlink()
    directory.mkdir(exist_ok=True)
    for name, status in sorted(wanted.items()):
        if (source / name).is_dir():
            (directory / name).mkdir(exist_ok=True)
            continue
        found = there.get(name)
        if (
            found is None
            or (found.st_mtime_ns, found.st_size) != (status.st_mtime_ns, status.st_size)
            or name.suffix == ".mdb"
        ):
            shutil.copy2(source / name, directory / name)


def try_flip(flip: Flip, source: Path, directory: Path, known: Known) -> tuple[str, str]:
    """(verdict, detail). Raises nothing that the store may raise."""
    bring_back(source, directory)
    flip.apply(directory)
    if flip.scene == "rebuild":
        shutil.rmtree(directory / "meta")
    try:
        store = Store.open(directory, kind="worker")
    except EXPECTED as error:
        return "refused", f"{type(error).__name__}: {error}"
    try:
        verdict = judge(store, known)
        return _mended(flip, store, known, verdict) if flip.scene == "parity" else verdict
    finally:
        with contextlib.suppress(EXPECTED):
            store.close()


def _mended(flip: Flip, store: Store, known: Known, verdict: tuple[str, str]) -> tuple[str, str]:
    """With parity nothing may be unreadable, and after mending nothing be damaged."""
    if verdict[0] not in ("same", "verify"):
        return "WRONG", f"in spite of parity: {verdict}"
    queue_damaged_pack(store.kv, int(Path(flip.file).name.partition(".")[0], 16))
    workload.protect(store)
    after = judge(store, known)
    return (
        after
        if after[0] in FINDINGS
        else ("mended" if after[0] == "same" else "WRONG", f"after mending: {after}")
    )


def judge(store: Store, known: Known) -> tuple[str, str]:
    """Everything is read, then verified: what reading misses verifying must know, and the other way round."""
    outcomes, wrong = survey(store, known)
    try:
        complaint = checks.verify(store)
    except EXPECTED as error:
        complaint = str(error)
    if wrong:
        return "WRONG", "; ".join(wrong)
    if complaint is None and set(outcomes) != {"same"}:
        return "WRONG", f"verify says nothing, reading: {outcomes}"
    if "said" in outcomes:
        return "said", ""
    if complaint is not None:
        return "verify", complaint
    return "same", ""


def try_pack_flip(flip: Flip, store: Store, known: Known, packs: PackFlips) -> tuple[str, str]:
    """In the packs of an open store."""
    flip.apply(store.directory)
    try:
        return packs.judge(flip.file, flip.offset, lambda: judge(store, known))
    finally:
        flip.apply(store.directory)


# --- Many ------------------------------------------------------------------------------------------------------------


def run_flips(laboratory: Laboratory, flips: list[Flip], tally: collections.Counter[str]) -> list[str]:
    """All of them, some hundred per child process; what must not be."""
    findings: list[str] = []
    position = shown = 0
    while position < len(flips):
        batch = flips[position : position + FLIPS_PER_CHILD]
        child = Child(lambda said, batch=batch: _run_batch(laboratory, batch, said))
        done = 0
        while (message := child.receive(time.monotonic() + FLIP_SECONDS)) is not None:
            if message[0] == "raised":
                tally["UNDOCUMENTED"] += 1
                findings.append(f"{batch[done]}: UNDOCUMENTED {message[1]}")
                done += 1
                break
            _, flip, verdict, detail = message
            tally[f"{flip.scene} {verdict}"] += 1
            if verdict in FINDINGS:
                findings.append(f"{flip}: {verdict} {detail}")
            done += 1
        if done < len(batch) and message is None:
            flip, status = batch[done], child.wait(5) if child.ended else None
            verdict, detail = "DIED", "hangs" if status is None else f"status {status}"
            if status is not None and -status in CRASHES:
                verdict, detail = _rebuilt(laboratory, flip)
            tally[f"{flip.scene} {verdict}"] += 1
            if verdict in FINDINGS:
                findings.append(f"{flip}: {verdict} {detail}")
            done += 1
        child.end()
        position += done
        for finding in findings[shown:]:
            print(finding[:200], finding[-500:] if len(finding) > 200 else "", file=sys.stderr, flush=True)
        shown = len(findings)
    return findings


def _rebuilt(laboratory: Laboratory, flip: Flip) -> tuple[str, str]:
    """LMDB has crashed the process: as the supervisor does, have it rebuilt, and nothing may be missing."""

    def run(said: Said) -> None:
        victim = laboratory.folder / "victim"
        source, known = laboratory.source(flip.scene)
        bring_back(source, victim)
        flip.apply(victim)
        set_poison(victim, CRASHED, FileOps())
        with Store.open(victim, kind="worker") as store:
            said("verdict", *judge(store, known))

    child = Child(run)
    message = child.receive(time.monotonic() + FLIP_SECONDS)
    child.end()
    if message is None or message[0] == "raised":
        return "DIED", f"after the rebuild: {message}"
    return ("rebuilt", "") if message[1] == "same" else ("WRONG", f"after the rebuild: {message[1:]}")


def _run_batch(laboratory: Laboratory, batch: list[Flip], said: Said) -> None:
    victim = laboratory.folder / "victim"
    store = None
    for flip in batch:
        if flip.scene == "packs":
            if store is None:
                bring_back(laboratory.source("packs")[0], victim)
                store = Store.open(victim, kind="worker")
                packs = PackFlips(store, EXPECTED)
            said("flip", flip, *try_pack_flip(flip, store, laboratory.source("packs")[1], packs))
        else:
            if store is not None:
                store.close()
                store = None
            source, known = laboratory.source(flip.scene)
            said("flip", flip, *try_flip(flip, source, victim, known))


def choose(files: list[tuple[Scene, str, int]], seeds: range, shuffle: int = 0) -> list[Flip]:
    """Those bytes, of all in a shuffled order; sorted by scene, so that an open store serves many."""
    starts = [0]
    for _, _, length in files:
        starts.append(starts[-1] + length)
    total = starts[-1]
    order = random.Random(shuffle).sample(range(total), total) if len(seeds) < total else range(total)
    flips = []
    for seed in seeds:
        if seed >= total:
            break
        position = order[seed]
        scene, name, _ = files[bisect_right(starts, position) - 1]
        offset = position - starts[bisect_right(starts, position) - 1]
        flips.append(Flip(scene, name, offset, (offset * 7 + seed) % 8))
    return sorted(flips, key=lambda flip: (flip.scene, flip.file, flip.offset))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.bit_flips", description=__doc__)
    parser.add_argument("--seeds", type=results.parse_seeds, default=range(300))
    parser.add_argument("--all", action="store_true", help="every byte")
    parser.add_argument("--store", choices=sorted(STEPS), default="small")
    parser.add_argument("--scene", choices=SCENES)
    parser.add_argument("--file", default="", help="only files whose name holds this")
    parser.add_argument(
        "--directory", type=Path, help="where the stores are made (default: a temporary directory)"
    )
    parser.add_argument("--mutant", choices=sorted(mutants.BY_NAME))
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    workload.shrink()
    workload.one_thread()
    gc.freeze()
    began = time.monotonic()
    tally: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="vaultaire-flips-", dir=options.directory) as folder:
        laboratory = Laboratory.prepare(Path(folder), options.store)
        if options.mutant is not None:
            mutants.BY_NAME[options.mutant].install()
        files = laboratory.bytes_of((options.scene,) if options.scene else SCENES, options.file)
        total = sum(length for _, _, length in files)
        seeds = range(total) if options.all else options.seeds
        flips = choose(files, seeds)
        findings = run_flips(laboratory, flips, tally)
    print(f"{len(flips):,} flips of {total:,} bytes, {len(findings)} findings: {dict(sorted(tally.items()))}")
    print(f"{(time.monotonic() - began) / max(len(flips), 1) * 1000:.1f} ms per flip")
    if options.record:
        narrowed = "".join(
            f" --{name} {getattr(options, name)}" for name in ("scene", "file") if getattr(options, name)
        )
        command = f"python -m tests.crash.bit_flips --store {options.store}{narrowed}"
        command += " --all" if options.all else f" --seeds {seeds.start}-{seeds.stop - 1}"
        what = f"bit flips, {options.store} store" + (f", {options.scene}" if options.scene else "")
        counts = f"{len(flips):,} flips of {total:,} bytes"
        results.record(results.Run(what, seeds, counts, len(findings), command))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
