"""A thousand system calls and some deaths per seed: see `tests.crash.sim.simulation`, and the proof that it can fail."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.crash.results import REPOSITORY

pytest.importorskip("greenlet")


def laboratory(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the simulation takes the place of the operating system in the store's modules."""
    command = [sys.executable, "-m", "tests.crash.sim.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_simulated_stores_lose_nothing():
    """As many seeds as fit in ten seconds; the same ones first in every run."""
    run = laboratory("--seeds", "0-9999", "--seconds", "10")
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant",
    ["no-pack-sync", "no-journal-sync", "no-pack-folder-sync", "no-segment-folder-sync"],
)
def test_a_store_that_breaks_a_rule_is_found_within_some_seeds(mutant):
    run = laboratory("--seeds", "0-99", "--mutant", mutant)
    assert run.returncode == 1, run.stdout + run.stderr


@pytest.mark.slow
def test_a_seed_is_the_same_history_every_time():
    first, second = (laboratory("--seed", "7").stdout.partition(";")[0] for _ in range(2))
    assert first == second
    assert "system calls" in first
