"""A short run of the kill laboratory, and the proof that it can fail. Long runs: python -m tests.crash.store_kill."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.crash.results import REPOSITORY, found_something

MUTANTS = [
    "answer-early",
    "no-journal",
    "no-replay",
    "lost-frames",
    "short-seal",
    "early-unlink",
    "no-row-check",
]


def laboratory(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: it forks, which a test process with threads must not."""
    command = [sys.executable, "-m", "tests.crash.store_kill", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_kills_of_a_store_process_lose_nothing_acknowledged():
    run = laboratory("--seeds", "0-1", "--kills", "15")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("30 kills")


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_store_is_found(mutant):
    run = laboratory("--seeds", "0-40", "--kills", "25", "--mutant", mutant)
    assert found_something(run.stdout), run.stdout + run.stderr
    assert run.returncode == 1, run.stdout + run.stderr
