"""A sample of flipped bits, and the proof that it can fail. More: python -m tests.crash.bit_flips."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.crash.results import REPOSITORY, found_something

pytestmark = pytest.mark.slow


def laboratory(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.crash.bit_flips", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=7200, check=False)


def test_flipped_bits_are_seen_or_harmless():
    run = laboratory("--seeds", "0-29")
    assert run.returncode == 0, run.stdout + run.stderr


def test_unverified_chunks_are_found():
    run = laboratory("--scene", "packs", "--seeds", "0-5", "--mutant", "unverified-chunks")
    assert found_something(run.stdout), run.stdout + run.stderr
    assert run.returncode == 1, run.stdout + run.stderr


@pytest.mark.full
def test_every_flipped_byte_of_a_small_store_is_seen_or_harmless():
    """One bit of every byte, some hours: python -m tests.crash.bit_flips --all"""
    run = laboratory("--all")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.full
def test_flipped_bits_of_a_larger_store_are_seen_or_harmless():
    """python -m tests.crash.bit_flips --store large --seeds 0-99999"""
    run = laboratory("--store", "large", "--seeds", "0-99999")
    assert run.returncode == 0, run.stdout + run.stderr
