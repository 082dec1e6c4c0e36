"""What happens to one process, or to the clock, does not reach the requests of the others.

All of it: python -m pytest -m "full or not full" tests/crash/test_server_under_load.py
"""

from __future__ import annotations

import datetime
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.s3.conftest import make_caller
from tests.s3.harness import Server
from tests.s3.wire import UNSIGNED, assert_error

if TYPE_CHECKING:
    from collections.abc import Iterator

YEAR = datetime.timedelta(days=365)
UPLOADS = 24


@pytest.fixture
def make_server(tmp_path) -> Iterator:
    made: list[Server] = []

    def make(**settings) -> Server:
        made.append(Server(tmp_path / "data", **settings))
        return made[-1].start()

    yield make
    for server in made:
        server.close()
        print(server.log_text()[-6000:])  # shown if the test fails


def sockets_of(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(path)
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def inode_of(client_port: int) -> str:
    """The server's end of a connection on this machine."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == client_port and fields[9] != "0":
            return fields[9]
    return ""


def test_requests_of_other_workers_survive_the_end_of_one(make_server, rng):
    server = make_server(workers=3)
    caller = make_caller(server)
    caller.call("PUT", "/load")
    bodies = [rng.randbytes(200_000) for _ in range(UPLOADS)]
    with ExitStack() as held:
        running = []
        for number, body in enumerate(bodies):
            request = caller.sign("PUT", f"/load/{number}", payload=UNSIGNED, length=len(body))
            connection = held.enter_context(caller.connect())
            connection.send(request.head() + body[:100_000])
            running.append(connection)
        # One request more on each: all have been accepted by some worker then.
        ports = [connection.socket.getsockname()[1] for connection in running]
        owners = {
            pid: {n for n, port in enumerate(ports) if inode_of(port) in sockets_of(pid)}
            for pid in server.worker_pids()
        }
        victim = max(owners, key=lambda pid: len(owners[pid]))
        lost = owners[victim]
        assert lost
        os.kill(victim, 9)
        for number in set.union(*owners.values()) - lost:
            running[number].send(bodies[number][100_000:])
        for number in set.union(*owners.values()) - lost:
            assert running[number].answer("PUT").status == 200
            assert caller.call("GET", f"/load/{number}").body == bodies[number]
        for number in lost:
            assert running[number].closed()
            assert caller.call("GET", f"/load/{number}").status == 404
            assert caller.call("PUT", f"/load/{number}", body=bodies[number]).status == 200


@pytest.mark.parametrize("direction", [1, pytest.param(-1, marks=pytest.mark.full)], ids=["ahead", "back"])
def test_a_clock_that_jumps_by_a_year_stops_nothing(make_server, tmp_path, rng, direction):
    setting = tmp_path / "clock"
    folder = Path(__file__).parent / "jumping_clock"
    server = make_server(environment={"PYTHONPATH": str(folder), "VAULTAIRE_TEST_CLOCK": str(setting)})
    caller = make_caller(server)
    caller.call("PUT", "/clock")
    body = rng.randbytes(100_000)
    assert caller.call("PUT", "/clock/before", body=body).status == 200
    setting.write_text(str(direction * YEAR.total_seconds()))
    assert_error(caller.call("PUT", "/clock/k", body=b"x"), 403, "RequestTimeTooSkewed")
    then = datetime.datetime.now(datetime.UTC) + direction * YEAR
    assert caller.call("PUT", "/clock/during", body=body, date=then).status == 200
    assert caller.call("GET", "/clock/before", date=then).body == body
    setting.write_text("0")
    assert caller.call("PUT", "/clock/after", body=body).status == 200
    keys = ["after", "before", "during"]
    assert caller.call("GET", "/clock", query="list-type=2").texts("Key") == keys
    server.kill()
    server.start()  # the journal's times do not ascend
    for key in keys:
        assert caller.call("GET", f"/clock/{key}").body == body
    assert "Traceback" not in server.log_text()
