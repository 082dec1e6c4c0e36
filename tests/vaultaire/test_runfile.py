"""Run files: a process shows a lower bound of its oldest operation's epoch, and its death by its lock."""

import os
import signal
import subprocess
import sys

import pytest

from vaultaire.runfile import IDLE, RunFile, RunFiles, dead_writers


class Clock:
    """The collection epoch, as the store would tell it."""

    epoch = 7

    def __call__(self):
        return self.epoch


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run_file(tmp_path, clock):
    run_file = RunFile(tmp_path, "worker", 1, clock)
    yield run_file
    run_file.close()


def published(run_file):
    return int.from_bytes(run_file.path.read_bytes(), "little")


def test_a_process_without_operations_shows_idle(run_file):
    assert published(run_file) == IDLE


def test_an_operation_is_visible_before_begin_returns(run_file):
    run_file.begin()
    assert published(run_file) == 7


def test_the_value_stays_at_the_oldest_operation_until_that_one_ends(run_file, clock):
    old = run_file.begin()
    clock.epoch = 9
    run_file.tick()
    young = run_file.begin()
    assert run_file.tick() == 7
    run_file.end(old)
    assert run_file.tick() == 9
    run_file.end(young)
    assert run_file.tick() == IDLE == published(run_file)


def test_between_ticks_the_value_is_never_above_a_running_operation(run_file, clock):
    run_file.end(run_file.begin())
    clock.epoch = 12
    run_file.begin()
    assert published(run_file) <= 12
    assert run_file.tick() == 7  # it may have read 7: nobody can tell


def test_the_file_of_a_live_process_is_never_taken_for_dead(run_file, tmp_path):
    assert list(dead_writers(tmp_path)) == []


def test_a_closed_file_is_gone(run_file, tmp_path):
    run_file.close()
    run_file.close()
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys, pathlib
from vaultaire.runfile import RunFile
held = RunFile(pathlib.Path(sys.argv[1]), "worker", 0x2a, lambda: 1)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_is_known_by_its_released_lock_and_a_stopped_one_is_not(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        os.kill(process.pid, signal.SIGSTOP)
        assert list(dead_writers(tmp_path)) == []
        process.kill()
        process.wait()
        assert [writer for writer, _ in dead_writers(tmp_path)] == [0x2A]


@pytest.mark.parametrize(
    "name", ["worker-00000002~", "worker-xyz", "worker-", "-00000002", ".worker-00000002", "poisoned"]
)
def test_a_strange_file_is_not_taken_for_a_process(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert list(dead_writers(tmp_path)) == []
    assert RunFiles(tmp_path).writers() == set()
    assert (tmp_path / name).exists()


def test_the_oldest_operation_of_all_processes_is_seen(tmp_path, clock):
    files = [RunFile(tmp_path, "worker", writer, clock) for writer in (1, 2)]
    seen = RunFiles(tmp_path)
    assert seen.oldest() is None
    old = files[0].begin()
    clock.epoch = 9
    files[1].tick()
    files[1].begin()
    assert seen.oldest() == 7
    files[0].end(old)
    assert seen.oldest() == 7  # until it says so
    files[0].tick()
    assert seen.oldest() == 9
    for file in files:
        file.close()
    assert seen.oldest() is None


def test_a_process_that_is_gone_is_not_waited_for(tmp_path, clock):
    file = RunFile(tmp_path, "worker", 1, clock)
    file.begin()
    file.close(remove=False)
    (tmp_path / "collector.lock").touch()
    (tmp_path / "poisoned").touch()
    assert RunFiles(tmp_path).oldest() is None
    assert RunFiles(tmp_path).writers() == {1}
