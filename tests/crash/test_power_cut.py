"""A short run of the power cut laboratory, and the proof that it can fail. Long runs: python -m tests.crash.power_cut."""

from __future__ import annotations

import random
import struct
import subprocess
import sys

import pytest

from tests.crash.blocklog import choose_survivors, last_flush, missing, read_log
from tests.crash.power_cut import UNAVAILABLE
from tests.crash.results import REPOSITORY, found_something


def laboratory(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: it forks, which a test process with threads must not."""
    command = [sys.executable, "-m", "tests.crash.power_cut", *arguments]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode == UNAVAILABLE:
        pytest.skip(f"power cuts: {run.stderr.strip()}")
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("filesystem", "seeds", "cuts"), [("ext4", "2-3", 8), ("xfs", "0", 4)])
def test_power_cuts_lose_nothing_acknowledged(filesystem, seeds, cuts):
    run = laboratory("--filesystem", filesystem, "--seeds", seeds, "--cuts", str(cuts))
    assert run.returncode == 0, run.stderr
    assert " 0 findings" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mutant", ["no-pack-sync", "no-journal-sync"])
def test_a_store_that_forgets_a_flush_is_found(mutant):
    run = laboratory("--seeds", "0-9", "--cuts", "20", "--mutant", mutant)
    assert found_something(run.stdout), run.stdout + run.stderr
    assert run.returncode == 1, run.stdout + run.stderr


@pytest.mark.full
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_many_power_cuts_lose_nothing_acknowledged(filesystem):
    """pytest -m full tests/crash/test_power_cut.py"""
    run = laboratory("--filesystem", filesystem, "--seeds", "1000-1009", "--cuts", "50")
    assert run.returncode == 0, run.stderr


def log_of(*entries: tuple[int, bytes] | None) -> bytes:
    """Writes as (offset, bytes), flushes as None."""
    records = [
        struct.pack("<BQI", 1, 0, 0) if e is None else struct.pack("<BQI", 0, e[0], len(e[1])) + e[1]
        for e in entries
    ]
    return b"".join(records)


def test_a_cut_never_touches_what_was_flushed_and_may_lose_or_tear_all_that_was_not():
    log = log_of((0, b"a" * 4096), None, (4096, b"b" * 8192), (0, b"c" * 1024))
    entries = read_log(log + b"\0" * 5)  # an entry that was not written whole is none
    assert [entry.flush for entry in entries] == [False, True, False, False]
    assert [last_flush(entries, cut) for cut in range(5)] == [0, 0, 2, 2, 2]
    images = set()
    for seed in range(300):
        disk = bytearray(b"a" * 4096 + bytes(8192))
        for offset, data, length in choose_survivors(entries, 4, random.Random(seed)):
            disk[offset : offset + length] = log[data : data + length]
        images.add(bytes(disk))
    sectors = [{image[at : at + 512] for image in images} for at in range(0, 12288, 512)]
    assert sectors[0] == {b"a" * 512, b"c" * 512}
    assert sectors[2] == {b"a" * 512}
    assert sectors[8] == sectors[23] == {bytes(512), b"b" * 512}
    assert any(image[4096:4608] != image[4608:5120] for image in images)  # torn at the sector
    assert any(image[:512] == b"c" * 512 and not any(image[4096:]) for image in images)  # out of order


def test_what_a_machine_lacks_is_said_in_words():
    assert missing("ext4") is None or " " in str(missing("ext4"))
