"""Collection beside a real server: nothing fails, nothing is lost, and the space comes back.

The long one: python -m pytest -m full tests/s3/test_collection.py (tests/crash/test_gc_race.py does more of it, sooner)
"""

from __future__ import annotations

import json
import random
import threading
from typing import TYPE_CHECKING

import pytest

from tests.s3.harness import Server
from tests.s3.wire import Caller, md5

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
ROUNDS = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", workers=3) as server:
        yield server


def caller_of(server: Server) -> Caller:
    return Caller(server.url, server.access_key, server.secret_key)


def collect(server: Server) -> dict:
    told: dict = json.loads(server.cli("gc", "--json").stdout)
    return told


class Client(threading.Thread):
    """Puts, overwrites, deletes and reads its own keys for as long as it is asked to; remembers what must be there."""

    def __init__(self, server: Server, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.caller = caller_of(server)
        self.rng = random.Random(number)
        self.stop = stop
        self.number = number
        self.bodies: dict[str, str] = {}
        self.requests = 0
        self.errors: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set() and not self.errors:
            path = f"/gcb/{self.number}/k{self.rng.randrange(8)}"
            try:
                self.rng.choice([self.put, self.put, self.get, self.get, self.delete])(path)
            except Exception as error:
                self.errors.append(repr(error))
            self.requests += 1

    def put(self, path: str) -> None:
        size = self.rng.choice([5_000, 300_000, 900_000])
        # Every other body is one that all clients upload: now stored, now dead, now needed again.
        source = random.Random(size + self.rng.randrange(3)) if self.rng.random() < 0.5 else self.rng
        body = source.randbytes(size)
        self.expect(self.caller.call("PUT", path, body=body), 200)
        self.bodies[path] = md5(body)

    def get(self, path: str) -> None:
        answer = self.caller.call("GET", path)
        self.expect(answer, 200 if path in self.bodies else 404)
        if path in self.bodies and md5(answer.body) != self.bodies[path]:
            self.errors.append(f"{path} has other bytes")

    def delete(self, path: str) -> None:
        self.expect(self.caller.call("DELETE", path), 204)
        self.bodies.pop(path, None)

    def expect(self, answer, status: int) -> None:
        if answer.status != status:
            self.errors.append(f"{answer.status} instead of {status}: {answer.body[:300]!r}")


@pytest.mark.full
def test_nothing_fails_while_gc_runs_again_and_again(server):
    caller = caller_of(server)
    assert caller.call("PUT", "/gcb").status == 200
    part = random.Random(7).randbytes(2 * MIB)
    upload = caller.call("POST", "/gcb/long", query="uploads").text("UploadId")
    answer = caller.call("PUT", "/gcb/long", query=f"partNumber=1&uploadId={upload}", body=part)
    etag = answer.headers["etag"]
    slow_body = random.Random(8).randbytes(32 * MIB)
    assert caller.call("PUT", "/gcb/slow", body=slow_body).status == 200
    stop = threading.Event()
    clients = [Client(server, number, stop) for number in range(3)]
    for client in clients:
        client.start()
    told: list[dict] = []
    # A GET that is read only after collection has begun, which has to wait for it. What the kernel buffers is less.
    with caller.connect(timeout=120) as connection:
        connection.send(caller.sign("GET", "/gcb/slow").encode())
        received = bytearray(connection.socket.recv(1000))
        assert caller.call("DELETE", "/gcb/slow").status == 204
        collecting = threading.Thread(target=lambda: told.append(collect(server)), daemon=True)
        collecting.start()
        collecting.join(3)
        assert not told, "collection did not wait for a running GET"
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < len(slow_body):
            piece = connection.socket.recv(1 << 20)
            assert piece, "the slow answer was cut short"
            received += piece
        assert received.partition(b"\r\n\r\n")[2] == slow_body
    collecting.join(60)
    assert told
    told += [collect(server) for _ in range(ROUNDS)]
    stop.set()
    for client in clients:
        client.join(60)
        assert client.errors == []
        assert client.requests > 0
    assert len(told) == ROUNDS + 1
    assert all(progress["complete"] and not progress["kept_packs"] for progress in told)
    document = (
        f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
        "</CompleteMultipartUpload>"
    ).encode()
    assert caller.call("POST", "/gcb/long", query=f"uploadId={upload}", body=document).status == 200
    assert caller.call("GET", "/gcb/long").body == part
    for client in clients:
        for path, digest in client.bodies.items():
            assert md5(caller.call("GET", path).body) == digest


@pytest.mark.slow
def test_after_everything_was_deleted_nothing_is_left(server):
    caller = caller_of(server)
    assert caller.call("PUT", "/gcb").status == 200
    rng = random.Random(1)
    for number in range(6):
        assert caller.call("PUT", f"/gcb/k{number}", body=rng.randbytes(4 * MIB)).status == 200
    server.restart()  # what is open gets sealed
    caller = caller_of(server)
    peak = server.stats()["stored_bytes"]
    for number in range(6):
        assert caller.call("DELETE", f"/gcb/k{number}").status == 204
    # The maintenance process may be at it already: whatever it has begun is taken over.
    collect(server)
    assert server.stats()["stored_bytes"] < 0.01 * peak
    assert not list((server.data / "packs").glob("*/*.pack"))
