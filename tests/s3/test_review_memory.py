"""A worker's memory stays within its bound whatever its clients hold back, and they keep nobody else out."""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.s3.conftest import make_caller
from tests.s3.test_limits import MIB, WORKER_BOUND, PeakMemory, begin_upload
from tests.s3.wire import UNSIGNED, UNSIGNED_CHUNKS_TRAILER

pytestmark = pytest.mark.slow


@pytest.fixture
def crowd(new_server):
    """(caller of a server whose patience outlasts the test, stack for connections, peak of memory)."""
    with (
        new_server("--stall-timeout", "120", "--grace", "2", workers=1) as server,
        ExitStack() as held,
        PeakMemory(server) as peak,
    ):
        caller = make_caller(server)
        assert caller.call("PUT", "/crowd").status == 200
        yield caller, held, peak
    assert 0 < peak.bytes < WORKER_BOUND, f"{peak.bytes / MIB:.0f} MiB"


def send_what_is_taken(connection, data: bytes) -> None:
    connection.socket.settimeout(6)
    # SSLEOFError is what a reset is over https.
    with suppress(TimeoutError, ConnectionError, ssl.SSLEOFError):
        connection.socket.sendall(data)


def assert_serves(caller, rng) -> None:
    body = rng.randbytes(4 * MIB)
    began = time.monotonic()
    assert caller.call("PUT", "/crowd/normal", body=body).status == 200
    assert caller.call("GET", "/crowd/normal").body == body
    assert caller.call("GET", "/crowd").status == 200
    assert time.monotonic() - began < 15


def test_200_uploads_that_stall_after_some_blocks(crowd, rng):
    caller, held, _ = crowd
    pieces = [rng.randbytes(3 * MIB) for _ in range(20)]

    def begin(n: int) -> None:
        connection = held.enter_context(begin_upload(caller, f"/crowd/k{n}", b"", 256 * MIB))
        send_what_is_taken(connection, bytes([n]) + pieces[n % 20])

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(begin, range(200)))
    assert_serves(caller, rng)


def test_uploads_in_chunks_of_one_byte(crowd):
    caller, held, _ = crowd

    def begin(n: int) -> None:
        announced = [
            ("x-amz-decoded-content-length", str(64 * MIB)),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ]
        request = caller.sign(
            "PUT", f"/crowd/k{n}", headers=announced, payload=UNSIGNED_CHUNKS_TRAILER, length=400 * MIB
        )
        connection = held.enter_context(caller.connect())
        connection.send(request.head())
        send_what_is_taken(connection, b"1\r\nx\r\n" * MIB)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(begin, range(6)))


def test_200_stalled_documents(crowd, rng):
    caller, held, _ = crowd
    for n in range(200):
        request = caller.sign("POST", f"/crowd/k{n}", query="uploadId=x", payload=UNSIGNED, length=2 * MIB)
        connection = held.enter_context(caller.connect())
        connection.send(request.head())
        send_what_is_taken(connection, b" " * (2 * MIB - 1))
    assert_serves(caller, rng)


def test_600_slow_readers_are_all_served(crowd, rng):
    caller, held, _ = crowd
    assert caller.call("PUT", "/crowd/large", body=rng.randbytes(16 * MIB)).status == 200
    readers = []
    for _ in range(600):
        connection = held.enter_context(caller.connect())
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.send(caller.sign("GET", "/crowd/large").encode())
        readers.append(connection)
    assert all(reader.read_line() == b"HTTP/1.1 200 OK\r\n" for reader in readers)
    assert_serves(caller, rng)
