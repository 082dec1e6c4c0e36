"""What an analysis meets: files that cannot be read, are none, or go; streams; servers that fail; Ctrl-C."""

from __future__ import annotations

import array
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.moving.foreign import KEYS, Answer, foreign_server
from vaultaire.analyze.running import Analysis, Options
from vaultaire.analyze.sources import Carries, File, Folder, Item, Stream, Unread
from vaultaire.cli import main
from vaultaire.moving.places import PlaceError
from vaultaire.moving.report import Report as Notes


def analyze(*arguments, status=0):
    result = CliRunner().invoke(main, ["analyze", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout), result.stderr


def find(source, notes=None, **options):
    stop = threading.Event()
    return Analysis(source, notes or Notes("", ""), Options(2, 1, **options), stop).run()


class Scripted:
    """Objects by name; an exception among their blocks is raised there."""

    url = "scripted"

    def __init__(self, objects, failure=None):
        self.objects = objects
        self.failure = failure

    def items(self):
        for key in self.objects:
            yield Item(key.encode(), 0)
        if self.failure is not None:
            raise self.failure

    def blocks(self, item, told):
        for block in self.objects[item.key.decode()]:
            if isinstance(block, BaseException):
                raise block
            told or told.append(Carries())
            yield block

    def part(self, item, start, length):
        return b"".join(self.objects[item.key.decode()])[start : start + length]


# --- files ---


def test_links_and_special_files_are_counted_and_not_read(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x" * 10_000)
    (tmp_path / "folder" / "link").symlink_to("file")
    (tmp_path / "folder" / "loop").symlink_to(".")
    (tmp_path / "folder" / "away").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "folder" / "pipe")
    os.link(tmp_path / "folder" / "file", tmp_path / "folder" / "second name")
    told, _ = analyze(tmp_path / "folder")
    assert (told["objects"], told["logical_bytes"], told["unique_bytes"]) == (2, 20_000, 10_000)
    assert told["notes"] == {
        "symbolic links, not followed": 3,
        "sockets, pipes and devices": 1,
        "files with several hard links, each an object of its own": 2,
    }
    assert told["complete"]


def test_names_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "fine").write_bytes(b"x")
    with open(os.path.join(os.fsencode(tmp_path), b"\xff\xfe"), "wb") as file:
        file.write(b"y")
    told, errors = analyze(tmp_path, status=1)
    assert (told["objects"], told["failed"], told["complete"]) == (1, 1, False)
    assert told["failures"][0]["key"] == "\\xff\\xfe"
    assert "make them readable" in errors


def test_what_cannot_be_read_is_named_and_the_rest_is_counted(tmp_path):
    notes = Notes("", "")
    whole, broken = b"a" * 9000, [b"b" * 50_000, Unread("it cannot be read: I/O error")]
    found = find(
        Scripted({"d/whole": [whole], "d/broken": broken, "gone": [Unread("gone", passing=True)]}), notes
    )
    assert [failed.key for failed in notes.failures] == ["d/broken"]
    assert notes.notes == {"objects that were not read: gone": 1}
    assert found.total.objects == 2
    assert found.total.logical_bytes == 59_000  # what was read of it counts
    assert found.total.data.raw_bytes == 59_000


def test_a_file_that_went_a_pipe_that_came_and_one_that_grew(tmp_path):
    notes = Notes("", "")
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x" * 5000)
    source = Folder(str(tmp_path), notes)
    a, b, c = source.items()
    (tmp_path / "a").unlink()
    (tmp_path / "b").unlink()
    os.mkfifo(tmp_path / "b")
    for item in (a, b):
        with pytest.raises(Unread) as caught:
            list(source.blocks(item, []))
        assert caught.value.passing
    blocks = source.blocks(c, [])
    assert len(next(blocks)) == 5000
    with open(tmp_path / "c", "ab") as file:
        file.write(b"more")
    assert len(b"".join(bytes(block) for block in blocks)) <= 4
    assert notes.notes == {"files that changed while they were read": 1}


def test_folders_in_each_other_without_end_and_keys_that_are_too_long(tmp_path, monkeypatch):
    """Deeper than Python's stack."""
    notes = Notes("", "")
    monkeypatch.chdir(tmp_path)
    for depth in range(1100):
        if depth in (3, 450):
            Path("file").write_bytes(b"x")
        os.mkdir("d")
        os.chdir("d")
    Path("file").write_bytes(b"x")
    os.chdir(tmp_path)
    found = find(Folder(str(tmp_path), notes))
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # pytest's own removal recurs
    assert found.total.objects == 2
    assert [failed.key for failed in notes.failures] == ["d/" * 1100 + "file"]
    assert "1,024" in notes.failures[0].why


def test_one_file_and_a_stream_are_what_the_folder_is(tmp_path):
    data = bytes(range(256)) * 40_000
    (tmp_path / "one").write_bytes(data)
    whole = find(Folder(str(tmp_path), Notes("", ""))).total
    assert find(File(str(tmp_path / "one"), Notes("", ""))).total.data == whole.data
    reader, writer = os.pipe()

    def write():
        with open(writer, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    total = find(Stream(reader)).total
    thread.join()
    os.close(reader)
    assert total.data == whole.data
    assert total.logical_bytes == len(data)


def test_a_folder_that_is_not_there_says_what_to_do():
    result = CliRunner().invoke(main, ["analyze", "/no/such/folder"])
    assert result.exit_code == 1
    assert "name one that exists" in result.stderr
    assert not result.stdout


def test_options_of_servers_go_with_servers(tmp_path):
    assert CliRunner().invoke(main, ["analyze", str(tmp_path), "--profile", "p"]).exit_code == 2
    assert CliRunner().invoke(main, ["analyze", "s3://"]).exit_code == 2
    for wrong in ("0", "2", "x", "1/0", "200%"):
        assert CliRunner().invoke(main, ["analyze", str(tmp_path), "--sample", wrong]).exit_code == 2


# --- when there is too much ---


def test_a_full_set_goes_over_to_a_sample_and_is_not_far_off():
    draw = random.Random(8)
    one = [draw.randbytes(60) * 800 + draw.randbytes(60) for _ in range(500)]
    objects = {f"{n}": [block] for n, block in enumerate([*one, *one[:250]])}
    exact, sampled = find(Scripted(objects)), find(Scripted(objects), limit_ids=200)
    assert exact.level == 0
    assert sampled.level > 0
    from vaultaire.analyze.tally import new_bytes

    truth, _ = new_bytes(exact.total, exact.spread.new_squares, 0)
    told, error = new_bytes(sampled.total, sampled.spread.new_squares, sampled.level)
    assert error > 0
    assert abs(told - truth) < 3 * error


def test_folders_beyond_the_bound_are_taken_together(monkeypatch):
    monkeypatch.setattr("vaultaire.analyze.running.MAX_PARTS", 3)
    found = find(Scripted({f"folder{n}/x": [b"x"] for n in range(9)}))
    assert len(found.folders) == 4
    assert sum(part.objects for part in found.folders.values()) == 9


# --- servers ---


@pytest.fixture
def foreign(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("AWS_", "VAULTAIRE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with foreign_server() as foreign:
        yield foreign


def test_a_bucket_is_read_with_what_its_objects_carry(foreign):
    client = foreign.client()
    client.create_bucket(Bucket="photos")
    for n in range(5):
        client.put_object(
            Bucket="photos", Key=f"in/{n % 2}/{n}.txt", Body=b"%d" % n * 9000, Metadata={"by": "x" * 500}
        )
    told, _ = analyze("s3://photos/in/", "--endpoint-url", foreign.url)
    assert (told["objects"], told["logical_bytes"]) == (5, 45_000)
    assert {group["name"] for group in told["folders"]} == {"0/", "1/"}
    bare, _ = analyze("s3://photos/in/0/", "--endpoint-url", foreign.url)
    assert bare["source"] == "s3://photos/in/0"


def test_a_server_that_breaks_off_midway_leaves_what_was_read(foreign):
    client = foreign.client()
    client.create_bucket(Bucket="photos")
    for n in range(4):
        client.put_object(Bucket="photos", Key=f"{n}", Body=b"%d" % n * 9000)
    refused = Answer.error("403 Forbidden", "AccessDenied")
    foreign.fault = lambda request, answer: refused if request.path.endswith("/2") else answer
    told, errors = analyze("s3://photos", "--endpoint-url", foreign.url, "--parallel", "1", status=1)
    assert (told["objects"], told["failed"]) == (3, 1)
    assert "AccessDenied" in errors


def test_a_source_that_fails_as_a_whole_leaves_what_was_read():
    found = find(Scripted({"a": [b"x" * 5000]}, PlaceError("the server is gone; start it")))
    assert found.failure == "the server is gone; start it"
    assert not found.interrupted


def test_a_defect_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        find(Scripted({"a": [ZeroDivisionError()]}))


# --- Ctrl-C ---


def _wait_until_read(pipe):
    """Nothing of what was written is left in it."""
    left = array.array("i", [1])
    deadline = time.monotonic() + 60
    while left[0]:
        assert time.monotonic() < deadline
        fcntl.ioctl(pipe, termios.FIONREAD, left)
        time.sleep(0.02)


def test_interrupted_it_tells_what_it_knows(tmp_path):
    reader, writer = os.pipe()
    words = [sys.executable, "-m", "vaultaire", "analyze", "-", "--json"]
    with subprocess.Popen(words, stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(reader)
        os.write(writer, b"x" * 60_000)
        # It waits in a read for the rest of its block; the end of the pipe comes after the signal.
        _wait_until_read(writer)
        process.send_signal(signal.SIGINT)
        os.close(writer)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    told = json.loads(out)
    assert told["interrupted"]
    assert not told["complete"]
    assert b"Interrupted" in err
    assert b"Traceback" not in err
