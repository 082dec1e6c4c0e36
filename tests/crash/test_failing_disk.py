"""A disk whose flushes fail: nothing is acknowledged that was not stored, reading goes on, and the operator ends it.

The failures are injected into a running server's system calls by strace, so that Python and LMDB alike get them. All of
it: python -m pytest -m "full or not full" tests/crash/test_failing_disk.py
"""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.s3.conftest import make_caller
from tests.s3.harness import Server
from tests.s3.wire import assert_error

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 30.0


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    made = Server(tmp_path / "data", workers=2, arguments=("--grace", "2"))
    try:
        yield made.start()
    finally:
        made.close()
        print(made.log_text()[-6000:])  # shown if the test fails


@contextmanager
def failing(server: Server, calls: str, error: str = "EIO") -> Iterator[None]:
    """Every one of these system calls fails, in all processes of the server and in those that it starts meanwhile."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert server.process is not None
    pids = [server.process.pid, *(process.pid for process in server.descendants())]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:error={error}", *(f"--attach={pid}" for pid in pids)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        for pid in pids:
            wait_until(lambda: is_traced(pid) or tracer.poll() is not None)  # noqa: B023
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            said = tracer.stderr.read().decode(errors="replace").strip()
            assert "not permitted" in said, said
            pytest.skip(f"this machine lets nobody trace: {said}")
        yield
    finally:
        tracer.terminate()  # strace lets go of all first
        tracer.communicate()


def is_traced(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as status:
        return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in status)


def wait_until(claim) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def status_of(caller, method: str, path: str, **rest) -> int:
    """0: the connection broke (a worker that ends)."""
    try:
        return caller.call(method, path, **rest).status
    except OSError:
        return 0


def message_of(caller, method: str, path: str, **rest) -> str:
    """As `status_of`; nothing if the connection broke, or it was no error."""
    try:
        answer = caller.call(method, path, **rest)
    except OSError:
        return ""
    return answer.text("Message") if answer.status >= 400 else ""


def assert_read_only(server, caller, stored) -> None:
    assert_error(caller.call("PUT", "/disk/new", body=b"new"), 503, "ServiceUnavailable")
    assert_error(caller.call("DELETE", "/disk/0"), 503, "ServiceUnavailable")
    assert "read-only" in caller.call("PUT", "/disk/new", body=b"new").text("Message")
    ready = caller.anonymous("GET", "/-/readyz")
    assert ready.status == 503
    assert b"read-only" in ready.body
    assert caller.anonymous("GET", "/-/healthz").status == 200
    for name, body in stored.items():
        assert caller.call("GET", name).body == body
    keys = caller.call("GET", "/disk", query="list-type=2").texts("Key")
    assert keys == sorted(name[6:] for name in stored)
    wait_until(lambda: "CRITICAL" in server.log_text())


def assert_works(caller, stored) -> None:
    for name, body in stored.items():
        assert caller.call("GET", name).body == body
    stored["/disk/again"] = b"again" * 30_000
    assert caller.call("PUT", "/disk/again", body=stored["/disk/again"]).status == 200
    assert caller.call("GET", "/disk/again").body == stored["/disk/again"]
    assert caller.anonymous("GET", "/-/readyz").status == 200


def store_some(caller, rng) -> dict[str, bytes]:
    stored = {f"/disk/{n}": rng.randbytes(size) for n, size in enumerate((100, 100_000, 300_000))}
    assert caller.call("PUT", "/disk").status == 200
    for name, body in stored.items():
        assert caller.call("PUT", name, body=body).status == 200
    return stored


def test_packs_that_cannot_be_flushed_make_the_store_read_only(server, rng):
    caller = make_caller(server)
    stored = store_some(caller, rng)
    workers = server.worker_pids()
    with failing(server, "fdatasync"):
        for n in range(100):
            answer = caller.call("PUT", f"/disk/lost{n}", body=rng.randbytes(100_000))
            assert answer.status in (500, 503)
            if "read-only" in answer.text("Message"):
                break
        assert_read_only(server, caller, stored)
    assert_read_only(server, caller, stored)  # the disk is said to work again: only the operator can know
    assert server.worker_pids() == workers, "nobody had to start again"
    server.restart()
    assert_works(caller, stored)


def test_a_journal_that_cannot_be_flushed_leaves_a_store_that_can_be_read(server, rng):
    caller = make_caller(server)
    stored = store_some(caller, rng)
    with failing(server, "fdatasync,fsync"):
        assert caller.call("PUT", "/disk/lost", body=b"lost").status >= 500
        # All processes start anew, find that the disk takes no writes, and serve what there is.
        wait_until(lambda: status_of(caller, "GET", "/disk/0") == 200)
        wait_until(lambda: status_of(caller, "PUT", "/disk/lost", body=b"lost") == 503)
        wait_until(lambda: "read-only" in message_of(caller, "PUT", "/disk/lost", body=b"lost"))
        assert_read_only(server, caller, stored)
    server.restart()
    assert_works(caller, stored)
    assert caller.call("GET", "/disk/lost").status == 404


@pytest.mark.full
def test_the_second_failure_of_the_journal_makes_the_store_read_only(server, rng):
    caller = make_caller(server)
    stored = store_some(caller, rng)
    (server.data / "run" / "poisoned.before").write_text("a sync failed some minutes ago\n")
    workers = server.worker_pids()
    with failing(server, "fdatasync"):
        assert caller.call("PUT", "/disk/lost", body=b"lost").status == 503
    assert_read_only(server, caller, stored)
    assert server.worker_pids() == workers
    server.kill()
    server.start()  # it is the operator who starts it
    assert_works(make_caller(server), stored)


def test_unreadable_sectors_cut_a_download_or_refuse_it_and_nothing_else(server, rng):
    caller = make_caller(server)
    stored = store_some(caller, rng)
    with failing(server, "pread64"):
        answer = caller.call("GET", "/disk/1")
        assert_error(answer, 500, "InternalError")
        assert caller.call("GET", "/disk/0").body == stored["/disk/0"], "it is kept with the metadata"
        assert caller.call("PUT", "/disk/more", body=b"more").status == 200
    stored["/disk/more"] = b"more"
    assert_works(caller, stored)
