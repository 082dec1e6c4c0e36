"""Kill -9 at random moments: what was acknowledged is there, what is visible is whole, and packs explain themselves."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cas.adoption import inspect, placements
from cas.catalog import PLACEMENTS, PackState, iterate_packs, pack_of
from cas.manifest import Manifest

CHILD = Path(__file__).with_name("cas_child.py")
_spec = importlib.util.spec_from_file_location("cas_child", CHILD)
assert _spec is not None
assert _spec.loader is not None
child = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(child)


def run_and_kill(directory: Path, writer: int, seconds: float) -> set[int]:
    """Numbers that the child acknowledged before it was killed, `seconds` after it was ready."""
    process = subprocess.Popen(
        [sys.executable, str(CHILD), str(directory), str(writer)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == b"ready\n", first
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    lines = process.stdout.read().split(b"\n")
    process.stdout.close()
    assert process.wait() == -9
    timer.join()
    return {int(line) for line in lines[:-1]}  # the last one may be cut


def check(directory: Path, writer: int, acknowledged: dict[int, set[int]]) -> int:
    """Open as a new writer and look at everything; how many objects there are."""
    kv, store = child.open_store(directory, writer)
    with kv.snapshot() as reader:
        rows = dict(reader.scan(child.OBJECTS))
        packs = dict(iterate_packs(reader))
        known = dict(reader.scan(PLACEMENTS))
    found = {(int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")) for key in rows}
    lost = {(owner, number) for owner, numbers in acknowledged.items() for number in numbers} - found
    assert not lost
    for key, row in rows.items():
        manifest = Manifest.decode(row)
        pieces = [
            piece
            for spans in store.windows(manifest, 0, manifest.size, 1 << 20)
            for piece in store.read(spans)
        ]
        wanted = child.body(int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big"))
        assert b"".join(pieces) == wanted
    # Every dead writer's pack is sealed now, no file lacks a row, and the catalog is what the packs say.
    assert {row.state for row in packs.values()} <= {PackState.SEALED}
    assert set(store._packs.packs()) == set(packs)
    told: dict[int, set[tuple[bytes, bytes]]] = {}  # two uploads at once may each have stored one chunk
    for pack, row in packs.items():
        contents = inspect(store._packs, pack)
        assert contents.sealed
        assert (len(contents.frames), store._packs.length(pack)) == (row.frames, row.length)
        told[pack] = set(placements(pack, contents))
    assert all((chunk, row) in told[pack_of(row)] for chunk, row in known.items())
    store.close()
    kv.close()
    return len(rows)


def kills(directory: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    acknowledged: dict[int, set[int]] = {}
    for writer in range(1, rounds + 1):
        acknowledged[writer] = run_and_kill(directory, writer, rng.uniform(0.0, 0.4))
    assert check(directory, rounds + 1, acknowledged) >= sum(map(len, acknowledged.values())) > 0


@pytest.mark.slow
def test_killed_uploads_lose_nothing_acknowledged(tmp_path):
    kills(tmp_path, 6, seed=1)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_killed_uploads_lose_nothing_acknowledged_in_many_rounds(tmp_path, seed: int):
    kills(tmp_path, 40, seed + 100)
