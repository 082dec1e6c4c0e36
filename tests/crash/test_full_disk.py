"""A server on a disk that is really full: reading and deleting go on, writing says 507, and goes on when there is room.

100 cycles: python -m pytest -m full tests/crash/test_full_disk.py
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.crash.disks import small_disk
from tests.s3.conftest import make_caller
from tests.s3.harness import Server
from tests.s3.wire import UNSIGNED, assert_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.disks import SmallDisk

MIB = 1 << 20
DISK_MIB = 96


@dataclass(frozen=True, slots=True)
class Full:
    """A server, and the small disk that its store has for itself."""

    disk: SmallDisk
    server: Server


@contextmanager
def running_on_small_disk(directory: Path) -> Iterator[Full]:
    with small_disk(directory, DISK_MIB) as disk:
        server = LoggingElsewhere(disk.root / "data", workers=2)
        try:
            yield Full(disk, server.start())
        finally:
            server.close()
            print(server.log_text()[-6000:])  # shown if the test fails


@pytest.fixture
def full(tmp_path) -> Iterator[Full]:
    with running_on_small_disk(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory) -> Iterator[Full]:
    with running_on_small_disk(tmp_path_factory.mktemp("full")) as made:
        yield made


@pytest.fixture
def shared(one_for_all) -> Iterator[Full]:
    """For tests that leave nothing behind but a bucket."""
    yield one_for_all
    one_for_all.disk.relieve()


class LoggingElsewhere(Server):
    """Its log is not on the disk that is to be full."""

    @property
    def log_path(self):
        return self.data.parent.with_name("stderr")


def put(caller, path: str, body: bytes):
    return caller.call("PUT", path, body=body)


def assert_full(answer) -> None:
    assert_error(answer, 507, "InsufficientStorage")
    needed, free = int(answer.text("BytesNeeded")), int(answer.text("BytesFree"))
    assert needed > free >= 0
    assert re.search(rf"\b{needed} bytes .* {free} ", answer.text("Message"))


def fill_by_uploads(caller, rng) -> dict[str, bytes]:
    """Uploads of 2 MiB until one does not fit."""
    stored: dict[str, bytes] = {}
    for number in range(DISK_MIB):
        name, body = f"/full/{number:03}", rng.randbytes(2 * MIB)
        answer = put(caller, name, body)
        if answer.status != 200:
            assert_full(answer)
            return stored
        stored[name] = body
    raise AssertionError("the disk never became full")


def assert_readable(caller, stored: dict[str, bytes]) -> None:
    for name, body in stored.items():
        assert caller.call("GET", name).body == body
    assert caller.call("GET", "/full", query="list-type=2").texts("Key") == [n[6:] for n in sorted(stored)]


def test_a_disk_filled_by_clients_and_then_by_others_still_serves(full, rng):
    disk, server = full.disk, full.server
    caller = make_caller(server)
    assert caller.call("PUT", "/full").status == 200
    stored = fill_by_uploads(caller, rng)
    assert disk.free() > 0, "something is kept back from clients"
    small = {f"/full/s{n:03}": rng.randbytes(3000) for n in range(20)}
    # What is small may still fit; nothing of it is refused later than by its head.
    stored |= {name: body for name, body in small.items() if put(caller, name, body).status == 200}
    disk.fill()
    assert disk.free() == 0
    assert_full(put(caller, "/full/small", b"x"))
    assert_full(caller.call("PUT", "/another"))
    assert_readable(caller, stored)
    for name in list(stored)[::2]:
        del stored[name]
        assert caller.call("DELETE", name).status == 204
    assert_readable(caller, stored)
    assert_full(put(caller, "/full/small", b"x"))
    disk.relieve()
    assert put(caller, "/full/small", b"x").status == 200, "without a restart"
    stored["/full/small"] = b"x"
    assert_readable(caller, stored)
    assert "Traceback" not in server.log_text()


def test_collection_gives_room_back_on_a_disk_without_a_free_byte(full, rng):
    disk, server = full.disk, full.server
    caller = make_caller(server)
    assert caller.call("PUT", "/full").status == 200
    stored = fill_by_uploads(caller, rng)
    disk.fill()
    for name in stored:
        assert caller.call("DELETE", name).status == 204
    server.restart()  # seals the packs that were being filled
    disk.fill()
    assert_full(put(caller, "/full/more", rng.randbytes(2 * MIB)))
    collected = server.cli("gc")
    body = rng.randbytes(2 * MIB)
    assert put(caller, "/full/more", body).status == 200, collected
    assert_readable(caller, {"/full/more": body})


def test_an_upload_that_cannot_fit_is_refused_before_its_body(shared):
    disk, server = shared.disk, shared.server
    caller = make_caller(server)
    caller.call("PUT", "/full")
    disk.fill(leave=24 * MIB)
    request = caller.sign(
        "PUT", "/full/k", payload=UNSIGNED, length=64 * MIB, unsigned=[("Expect", "100-continue")]
    )
    with caller.connect() as connection:
        connection.send(request.head())
        assert_full(connection.answer("PUT"))
    initiated = caller.call("POST", "/full/m", query="uploads=").text("UploadId")
    part = caller.sign(
        "PUT", "/full/m", query=f"partNumber=1&uploadId={initiated}", payload=UNSIGNED, length=64 * MIB
    )
    with caller.connect() as connection:
        connection.send(part.head())
        assert_full(connection.answer("PUT"))


def test_restart_on_a_disk_without_a_free_byte(full, rng):
    disk, server = full.disk, full.server
    caller = make_caller(server)
    caller.call("PUT", "/full")
    stored = {f"/full/{n}": rng.randbytes(300_000) for n in range(10)}
    for name, body in stored.items():
        assert put(caller, name, body).status == 200
    for end in (server.stop, server.kill):
        disk.fill()
        end()
        disk.fill()  # also what the end set free
        assert disk.free() == 0
        server.start()
        caller = make_caller(server)
        assert_readable(caller, stored)
        assert_full(put(caller, "/full/more", b"x"))
        name, _ = stored.popitem()
        assert caller.call("DELETE", name).status == 204
        disk.relieve()
        assert put(caller, "/full/more", b"x").status == 200
        stored["/full/more"] = b"x"
        assert_readable(caller, stored)


def cycle(disk, server, caller, rng, number: int) -> None:
    stored = {f"/full/{number}-{n}": rng.randbytes(size) for n, size in enumerate((10, 4000, 40_000))}
    for name, body in stored.items():
        assert put(caller, name, body).status == 200
    disk.fill()
    assert_full(put(caller, "/full/more", rng.randbytes(5000)))
    if number % 10 == 9:
        server.kill_worker()
    elif number % 10 == 4:
        server.kill()
        server.start()
    for name, body in stored.items():
        assert caller.call("GET", name).body == body
        assert caller.call("DELETE", name).status == 204
    assert caller.call("GET", "/full", query="list-type=2").texts("Key") == []
    disk.relieve()


def run_cycles(disk, server, rng, count: int) -> None:
    caller = make_caller(server)
    caller.call("PUT", "/full")
    for number in range(count):
        cycle(disk, server, caller, rng, number)
    assert put(caller, "/full/last", b"x").status == 200


def test_3_cycles_of_a_full_disk(shared, rng):
    run_cycles(shared.disk, shared.server, rng, 3)


@pytest.mark.full
def test_100_cycles_of_a_full_disk(full, rng):
    run_cycles(full.disk, full.server, rng, 100)
