"""A thousand system calls and some deaths per seed: see `tests.crash.sim.simulation`, and the proof that it can fail."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.crash.results import REPOSITORY
from tests.crash.sim import mutants


def laboratory(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the simulation takes the place of the operating system in the store's modules."""
    command = [sys.executable, "-m", "tests.crash.sim.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.mark.slow
def test_simulated_stores_lose_nothing():
    """As many seeds as fit in eight seconds; the same ones first in every run."""
    run = laboratory("--seeds", "0-9999", "--seconds", "8")
    assert run.returncode == 0, run.stderr


def found(seeds: int, *mutants: str) -> None:
    arguments = [argument for mutant in mutants for argument in ("--mutant", mutant)]
    run = laboratory("--seeds", f"0-{seeds - 1}", *arguments)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_a_broken_rule_is_found_within_some_seeds():
    found(100, "no-pack-sync", "no-journal-sync", "unmarked", "no-wait-before-mark")


@pytest.mark.full
@pytest.mark.parametrize("mutant", sorted(mutants.BY_NAME))
def test_every_broken_rule_is_found(mutant):
    """pytest -m full tests/crash/test_simulation.py; a minute or two each for the rarest"""
    found(400, mutant)


@pytest.mark.full
def test_a_thousand_simulated_histories_lose_nothing():
    run = laboratory("--seeds", "0-999")
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_a_seed_is_the_same_history_every_time():
    first, second = (laboratory("--seed", "7").stdout.partition(";")[0] for _ in range(2))
    assert first == second
    assert "system calls" in first
