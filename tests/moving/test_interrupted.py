"""Moves that are killed, again and again: they go on, end identical, and send nothing again that was done.

The long one: timeout 900 python -m pytest -m full tests/moving/test_interrupted.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def start(subject, *arguments):
    command = [sys.executable, "-m", "vaultaire", *subject.arguments(*arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


class Killer:
    """Ends the running command by SIGKILL in the middle of its Nth transfer."""

    def __init__(self, foreign, is_transfer):
        self.process = None
        self.left = None
        self.is_transfer = is_transfer
        foreign.before = self

    def __call__(self, request):
        if self.left is None or not self.is_transfer(request):
            return
        self.left -= 1
        if self.left == 0:
            self.left = None
            os.kill(self.process.pid, signal.SIGKILL)

    def run(self, subject, arguments, after):
        self.process = None
        self.left = after
        self.process = start(subject, *arguments)
        output, _ = self.process.communicate(timeout=600)
        return self.process.returncode, output.decode()


def fill(foreign, bucket, count, seed):
    """`count` small objects; the model of them."""
    rng = random.Random(seed)
    foreign.client().create_bucket(Bucket=bucket)
    model = {}
    for number in range(count):
        key = f"{rng.randrange(7)}/{number:05d}"
        model[key] = rng.randbytes(rng.choice([0, 10, 3000, 9000]))
        foreign.backend.put_object(bucket, key, model[key])
    return model


def import_with_kills(foreign, subject, count, kills):
    model = fill(foreign, "old", count, seed=7)
    killer = Killer(foreign, lambda request: request.reads_body)
    arguments = ("import", "s3://old", "--parallel", "6")
    done: set[str] = set()
    for after in kills:
        status, output = killer.run(subject, arguments, after)
        assert status == -signal.SIGKILL, output
        now = {key.decode() for key in subject.objects("old")}
        assert done <= now, "what was done stays done"
        assert len(now) > len(done), "each run gets on"
        done = now
        foreign.log.clear()
    status, output = killer.run(subject, arguments, None)
    assert status == 0, output
    read = [path.removeprefix("/old/") for path in foreign.bodies_read()]
    assert not done & set(read), "nothing that was done is read again"
    assert sorted(read) == sorted(model.keys() - done)
    assert {key.decode(): body for key, (_, body) in subject.objects("old").items()} == model


def test_an_import_that_is_killed_three_times_reads_nothing_again(foreign, subject):
    import_with_kills(foreign, subject, 300, (60, 70, 50))


@pytest.mark.full
def test_an_import_of_ten_thousand_objects_that_is_killed_three_times(foreign, subject):
    """timeout 900 python -m pytest -m full tests/moving/test_interrupted.py -k ten_thousand"""
    import_with_kills(foreign, subject, 10_000, (2_500, 3_000, 2_000))


def test_an_export_that_is_killed_sends_nothing_again(foreign, subject):
    rng = random.Random(3)
    folder = subject.data.parent / "files"
    folder.mkdir()
    model = {f"{number:03d}": rng.randbytes(rng.choice([0, 100, 9000])) for number in range(90)}
    for name, body in model.items():
        (folder / name).write_bytes(body)
    subject.report("import", str(folder), "--into", "ours")
    killer = Killer(foreign, lambda request: request.sends_body)
    status, output = killer.run(subject, ("export", "s3://ours", "--parallel", "4"), 45)
    assert status == -signal.SIGKILL, output
    done = set(foreign.backend.buckets["ours"].keys)
    foreign.log.clear()
    report = subject.report("export", "s3://ours")
    sent = {path.removeprefix("/ours/") for path in foreign.bodies_sent()}
    assert not done & sent
    # The server may have finished what was under way after we looked at what was done.
    assert report["done_objects"] == len(model) - len(sent) >= len(done)
    keys = foreign.backend.buckets["ours"].keys
    assert {key: keys[key].value for key in keys} == model
