"""A sample of failing system calls, and the proof that it can fail. All: python -m tests.crash.syscall_faults."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.crash.results import REPOSITORY, found_something

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def laboratory(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.crash.syscall_faults", *arguments]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=7200, check=False)
    if "could not attach" in run.stderr and "not permitted" in run.stderr:
        pytest.skip("this machine lets nobody trace")
    return run


def test_failing_system_calls_lose_nothing_acknowledged():
    run = laboratory("--every", "1300", "--offset", "7")
    assert run.returncode == 0, run.stdout + run.stderr


def test_errors_that_are_not_noticed_are_found():
    run = laboratory(
        "--script", "new", "--calls", "pwritev2,pwritev", "--kinds", "EIO", "--numbers", "2", "--mutant", "careless-packs"
    )  # fmt: skip
    assert found_something(run.stdout), run.stdout + run.stderr
    assert run.returncode == 1, run.stdout + run.stderr


@pytest.mark.full
def test_every_failing_system_call_loses_nothing_acknowledged():
    """All N of the workload, some hours on two cores: python -m tests.crash.syscall_faults"""
    run = laboratory()
    assert run.returncode == 0, run.stdout + run.stderr
