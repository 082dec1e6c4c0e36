"""Compression hurries while the machine is short of CPU, and takes its time where that is free."""

from __future__ import annotations

import random

import pytest

from cas.frame import HURRIED, NORMAL, THOROUGH, decode_header
from cas.pack import PackKind
from tests.cas.support import REAL, Rig
from vaultaire.effort import (
    HURRY_AFTER_SECONDS,
    QUEUE_PER_CORE,
    RELAX_AFTER_SECONDS,
    UploadEffort,
    collection_effort,
)


def prose(length: int, seed: int = 0) -> bytes:
    """Words, the commoner the shorter, in no order."""
    rng = random.Random(seed)
    words = [rng.randbytes(3 + n % 7).hex().encode() for n in range(3000)]
    picked = (words[int(2999 * rng.random() ** 3)] for _ in range(length // 4))
    return b" ".join(picked)[:length]


MANY = 2 * QUEUE_PER_CORE


class Machine:
    def __init__(self) -> None:
        self.now = 100.0
        self.waiting = 0
        self.effort = UploadEffort(lambda: self.waiting, 2, lambda: self.now)

    def after(self, seconds: float, waiting: int):
        self.now += seconds
        self.waiting = waiting
        return self.effort()


def test_it_hurries_only_while_the_queue_stays_long_and_relaxes_later():
    machine = Machine()
    assert machine.after(0, MANY - 1) is NORMAL
    assert machine.after(100, MANY) is NORMAL
    assert machine.after(HURRY_AFTER_SECONDS / 2, MANY) is NORMAL
    assert machine.after(0, 0) is NORMAL  # it was short for a moment: from the start
    assert machine.after(0, MANY) is NORMAL
    assert machine.after(HURRY_AFTER_SECONDS, MANY) is HURRIED
    assert machine.after(100, MANY // 2) is HURRIED
    assert machine.after(0, MANY // 2 - 1) is HURRIED
    assert machine.after(RELAX_AFTER_SECONDS / 2, MANY) is HURRIED
    assert machine.after(0, 0) is HURRIED
    assert machine.after(RELAX_AFTER_SECONDS, 0) is NORMAL


@pytest.mark.parametrize(
    ("load", "cores", "wanted"), [(1.2, 2, THOROUGH), (1.6, 2, NORMAL), (2.5, 8, THOROUGH)]
)
def test_collection_is_thorough_where_the_machine_is_idle(load, cores, wanted):
    assert collection_effort(lambda: load, cores) is wanted


def test_an_unknown_load_is_not_taken_for_idleness(monkeypatch):
    def unknown():
        raise OSError

    monkeypatch.setattr("os.getloadavg", unknown)
    assert collection_effort() is NORMAL


def test_uploads_follow_what_it_says_now():
    rig = Rig(REAL)
    text = prose(1 << 20)
    rig.store.effort = lambda: HURRIED
    _, hurried = rig.put(text)
    _, normal = Rig(REAL).put(text)
    assert hurried.new_stored_bytes > normal.new_stored_bytes
    _, ingest = rig.put(text[:400_000] + b"new" + text[400_000:])
    rig.store.effort = lambda: NORMAL
    _, later = rig.put(text[:700_000] + b"new" + text[700_000:])
    assert later.new_stored_bytes < ingest.new_stored_bytes / 2  # who hurries tries no bases


def test_thorough_copies_are_larger_frames_and_fewer_bytes():
    text = prose(3 << 20)
    stored = {}
    for effort in (NORMAL, THOROUGH):
        rig = Rig(REAL)
        relocation = rig.store.relocation(PackKind.DATA, effort)
        pieces = [text[at : at + 30_000] for at in range(0, len(text), 30_000)]
        relocation.take([rig.store._hasher.chunk_id(piece) for piece in pieces], pieces)
        rig.commit(relocation.publication())
        rig.store.close()
        (pack,) = rig.packs.packs()
        stored[effort] = relocation.new_stored_bytes
        header = decode_header(rig.packs.read(pack, [(92, 65_536)])[0])
        assert effort.frame_bytes - 30_000 < header.raw_length <= effort.frame_bytes
    assert stored[THOROUGH] < stored[NORMAL]
