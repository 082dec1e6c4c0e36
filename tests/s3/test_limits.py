"""Memory is bounded, stalled clients are dropped, and SIGTERM ends the server whatever its clients do."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.s3.conftest import make_boto_client, make_caller
from tests.s3.crowd import Crowd, CrowdPlan
from tests.s3.wire import UNSIGNED, Connection

MIB = 1 << 20
WORKER_BOUND = 256 * MIB  # RssAnon of one worker
CLIENTS = 200


def begin_upload(caller, path: str, body: bytes, promised: int) -> Connection:
    """An upload that sends the head and a part of its body, and then nothing more."""
    request = caller.sign("PUT", path, payload=UNSIGNED, length=promised)
    connection = caller.connect()
    connection.send(request.head() + body)
    return connection


class PeakMemory:
    """The largest RssAnon of any worker while the block runs."""

    def __init__(self, server) -> None:
        self.server = server
        self.bytes = 0
        self._over = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.bytes = max(self.bytes, self.server.anonymous_bytes())


def wait_until(claim, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.05)
    return claim()


@pytest.mark.subset
def test_200_stalled_uploads_stay_within_the_memory_bound_and_starve_nobody(new_server, rng):
    with (
        new_server("--stall-timeout", "60", "--grace", "3") as server,
        ExitStack() as held,
        PeakMemory(server) as peak,
    ):
        caller = make_caller(server)
        assert caller.call("PUT", "/stalled").status == 200
        piece = rng.randbytes(MIB)
        uploads = []
        for n in range(CLIENTS):
            connection = begin_upload(caller, f"/stalled/k{n}", b"", 256 * MIB)
            uploads.append(held.enter_context(connection))
            connection.socket.settimeout(0.02)
            with suppress(TimeoutError):  # as much as the server takes; its back-pressure ends this
                connection.socket.sendall(piece)
        body = rng.randbytes(8 * MIB)
        began = time.monotonic()
        assert caller.call("PUT", "/stalled/normal", body=body).status == 200
        assert caller.call("GET", "/stalled/normal").body == body
        assert time.monotonic() - began < 15
        assert caller.call("GET", "/stalled").texts("Key") == ["normal"]
        assert server.stop() < 3 + 20  # far below the stall timeout, on a busy machine too
    assert 0 < peak.bytes < WORKER_BOUND, f"{peak.bytes / MIB:.0f} MiB"


def stay_within_memory_beside_a_crowd(server, rng, clients: int, bound: int) -> None:
    """As many slow uploads as slow downloads, and one normal client that is served all the same."""
    caller = make_caller(server)
    caller.call("PUT", "/crowd")
    assert caller.call("PUT", "/crowd/large", body=rng.randbytes(8 * MIB)).status == 200
    plan = CrowdPlan(
        server.url, server.access_key, server.secret_key, "crowd", "large", uploads=clients, readers=clients
    )
    body = rng.randbytes(64 << 10)
    with PeakMemory(server) as peak, Crowd(plan):
        # Who is slow shows after some seconds: until then there may be no room for one more.
        assert wait_until(lambda: is_stored(caller, "/crowd/normal", body), 60)
        for n in range(20):
            # Now and then it is told to come back, as every client does, until somebody slow has made room.
            assert wait_until(lambda n=n: is_stored(caller, f"/crowd/normal{n}", body), 60)
            assert wait_until(lambda n=n: caller.call("GET", f"/crowd/normal{n}").body == body, 60)
    assert 0 < peak.bytes < bound, f"{peak.bytes / MIB:.0f} MiB"


def is_stored(caller, path: str, body: bytes) -> bool:
    with suppress(OSError):
        return caller.call("PUT", path, body=body).status == 200
    return False


def needs_plain_http(variant) -> None:
    if variant.tls:
        pytest.skip("the crowd speaks plain http")


def test_200_slow_clients_stay_within_a_small_budget_and_starve_nobody(new_server, rng, variant):
    needs_plain_http(variant)
    with new_server("--memory-budget", "16MiB", workers=1) as server:
        stay_within_memory_beside_a_crowd(server, rng, 100, 112 * MIB)


@pytest.mark.full
def test_2000_slow_clients_stay_within_256_mib_and_starve_nobody(new_server, rng, variant):
    """python -m pytest -m full tests/s3/test_limits.py -k 2000"""
    needs_plain_http(variant)
    with new_server(workers=1) as server:
        stay_within_memory_beside_a_crowd(server, rng, 1000, 256 * MIB)


def test_8_parallel_uploads_stay_within_the_memory_bound(new_server, rng):
    with new_server() as server, PeakMemory(server) as peak:
        s3 = make_boto_client(server)
        s3.create_bucket(Bucket="parallel")
        bodies = [rng.randbytes(32 * MIB) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: s3.put_object(Bucket="parallel", Key=f"k{n}", Body=bodies[n]), range(8)))
        s3.close()
    assert 0 < peak.bytes < WORKER_BOUND, f"{peak.bytes / MIB:.0f} MiB"


class Slow:
    """A body of `length` bytes, nothing of which was there before, made as it is read."""

    def __init__(self, rng, length: int) -> None:
        self._random = random.Random(rng.getrandbits(64))
        self._left = length

    def __iter__(self):
        while self._left:
            piece = self._random.randbytes(min(MIB, self._left))
            self._left -= len(piece)
            yield piece


def upload_8_to_a_slow_disk(new_server, rng, length: int) -> int:
    """Peak RssAnon of the worker while 8 uploads run at once into packs that take 20 MB/s."""
    environment = {
        "PYTHONPATH": str(Path(__file__).parent / "slow_disk"),
        "VAULTAIRE_TEST_PACK_BYTES_PER_SECOND": "20e6",
    }
    with new_server(environment=environment) as server, PeakMemory(server) as peak:
        caller = make_caller(server)
        assert caller.call("PUT", "/slow").status == 200

        def put(body: Slow, name: str) -> int:
            request = caller.sign("PUT", f"/slow/{name}", payload=UNSIGNED, length=length)
            with caller.connect() as connection:
                connection.socket.settimeout(120)  # eight share the disk
                connection.send(request.head())
                for piece in body:
                    connection.send(piece)
                return connection.answer("PUT").status

        with ThreadPoolExecutor(8) as pool:
            bodies = [Slow(rng, length) for _ in range(8)]
            statuses = list(pool.map(put, bodies, [f"k{n}" for n in range(8)]))
        assert statuses == [200] * 8
    return peak.bytes


def test_8_uploads_to_a_slow_disk_stay_within_the_memory_bound(new_server, rng):
    peak = upload_8_to_a_slow_disk(new_server, rng, 24 * MIB)
    assert 0 < peak < WORKER_BOUND, f"{peak / MIB:.0f} MiB"


@pytest.mark.full
def test_8_uploads_of_1_gib_to_a_slow_disk_stay_within_the_memory_bound(new_server, rng):
    peak = upload_8_to_a_slow_disk(new_server, rng, 1024 * MIB)
    assert 0 < peak < WORKER_BOUND, f"{peak / MIB:.0f} MiB"


@pytest.mark.subset
def test_a_stalled_upload_is_dropped_and_leaves_nothing(new_server):
    with new_server("--stall-timeout", "1") as server:
        caller = make_caller(server)
        caller.call("PUT", "/stall")
        began = time.monotonic()
        with begin_upload(caller, "/stall/k", b"x" * 100_000, 200_000) as connection:
            assert connection.closed(10)
        assert 0.8 < time.monotonic() - began < 6
        assert caller.call("GET", "/stall").texts("Key") == []


def test_a_slow_upload_that_makes_progress_is_not_dropped(new_server):
    with new_server("--stall-timeout", "1") as server:
        caller = make_caller(server)
        caller.call("PUT", "/slow")
        request = caller.sign("PUT", "/slow/k", body=b"x" * 8)
        with caller.connect() as connection:
            connection.send(request.head())
            for _ in range(8):
                time.sleep(0.4)
                connection.send(b"x")
            assert connection.answer("PUT").status == 200


def test_a_stalled_reader_is_dropped(new_server, rng):
    with new_server("--stall-timeout", "1") as server:
        caller = make_caller(server)
        caller.call("PUT", "/stall")
        size = 64 * MIB
        caller.call("PUT", "/stall/k", body=rng.randbytes(MIB) * 64)
        with caller.connect() as connection:
            connection.send(caller.sign("GET", "/stall/k").encode())
            time.sleep(5)
            assert count_received(connection) < size, "the rest was to be dropped"


def count_received(connection: Connection) -> int:
    received = 0
    try:
        while piece := connection.socket.recv(1 << 20):
            received += len(piece)
    except OSError:
        pass
    return received


def test_a_dripping_head_is_dropped(new_server):
    with (
        new_server("--head-timeout", "1", "--stall-timeout", "30") as server,
        make_caller(server).connect() as connection,
    ):
        began = time.monotonic()
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100:
            connection.send(bytes([byte]))
            if connection.closed(0.25):
                break
        assert time.monotonic() - began < 8


@pytest.mark.subset
def test_sigterm_ends_the_server_within_its_grace_despite_stalled_clients(new_server, rng):
    with new_server("--grace", "2", "--stall-timeout", "60") as server, ExitStack() as held:
        caller = make_caller(server)
        caller.call("PUT", "/stall")
        caller.call("PUT", "/stall/k", body=rng.randbytes(MIB) * 32)
        for _ in range(5):
            reader = held.enter_context(caller.connect())
            reader.send(caller.sign("GET", "/stall/k").encode())
            held.enter_context(begin_upload(caller, "/stall/up", b"x" * 1000, 100_000))
            held.enter_context(caller.connect())
            half = held.enter_context(caller.connect())
            half.send(b"GET / HT")
        time.sleep(0.5)
        assert server.stop() < 2 + 20  # likewise


def test_sigterm_with_idle_connections_ends_the_server_at_once(new_server):
    with new_server("--grace", "10") as server:
        caller = make_caller(server)
        with caller.connect() as connection:
            connection.send(caller.sign("GET", "/").encode())
            assert connection.answer().status == 200
            assert server.stop() < 9  # it does not wait for its grace


def test_sigterm_lets_a_running_upload_finish(new_server, rng):
    with new_server("--grace", "10") as server:
        caller = make_caller(server)
        caller.call("PUT", "/running")
        body = rng.randbytes(2 * MIB)
        request = caller.sign("PUT", "/running/k", body=body)
        with caller.connect() as connection:
            connection.send(request.head() + body[:MIB])
            time.sleep(0.3)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            time.sleep(0.5)
            connection.send(body[MIB:])
            assert connection.answer("PUT").status == 200
            stopping.join(15)
        server.start()
        assert caller.call("GET", "/running/k").body == body


def test_a_worker_that_is_killed_is_replaced(new_server):
    with new_server(workers=2) as server:
        caller = make_caller(server)
        caller.call("PUT", "/replaced")
        before = server.worker_pids()
        assert len(before) == 2
        gone = server.kill_worker()
        assert wait_until(lambda: len(server.worker_pids()) == 2 and gone not in server.worker_pids(), 10)
        for n in range(20):
            assert caller.call("PUT", f"/replaced/k{n}", body=b"x").status == 200


def test_the_workers_end_when_the_supervisor_is_killed(new_server):
    with new_server(workers=2) as server:
        server.kill_supervisor(timeout_seconds=5)
        server.start()
        assert make_caller(server).call("GET", "/").status == 200
