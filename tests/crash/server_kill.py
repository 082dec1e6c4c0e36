"""SIGKILL at random moments under parallel uploads: what was acknowledged stays, what is listed can be read.

    python -m tests.crash.server_kill --seeds 0-9 [--kills 10] [--workers 1] [--objects 0] [--record]

A seed is one server over one data directory, killed `--kills` times. `--objects` are stored beforehand, to see what a
restart costs then. Each round: clients put, copy, complete multipart uploads and delete, each on keys of its own; at a random moment the
supervisor alone, one worker alone, or the whole group is killed; the server is started again over the same directory
and everything is compared with what the clients know. A request that was under way when the server died may have
happened or not, but nothing else: its key holds the state before it or the state after it, whole.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from index import buckets
from index.records import ObjectRecord
from index.versions import Change, put_object
from tests.crash import results
from tests.s3.harness import Server, cpu_seconds
from tests.s3.wire import Caller, Connection, md5
from vaultaire.store import Store

if TYPE_CHECKING:
    from index.kv import Transaction
    from tests.s3.wire import Answer, Request

BUCKET = "crash"
CLIENTS = 4
KEYS_PER_CLIENT = 12
WAYS = ("group", "supervisor", "worker")
SIZES = (0, 1, 500, 4096, 5000, 60_000, 300_000, 1_500_000)
PATIENCE_SECONDS = 120.0
GONE = None  # the state of a key that holds no object
NOT_ANSWERED = (OSError, http.client.HTTPException)


@dataclass(slots=True)
class Key:
    """One key and what it may hold: the MD5s of the bodies that an honest server could still show."""

    name: str
    states: set[str | None] = field(default_factory=lambda: {GONE})

    @property
    def path(self) -> str:
        return f"/{BUCKET}/{quote(self.name)}"


class PatientCaller(Caller):
    """Outlasts the restart of a worker on a busy machine.

    A request that waits in the socket's backlog when its client gives up is carried out by the next worker, at a
    moment that nobody can know any more.
    """

    def connect(self, timeout: float = PATIENCE_SECONDS) -> Connection:
        return super().connect(timeout)


class Client(threading.Thread):
    """Writes to its own keys until the server is gone; `error` is an answer that should not have come."""

    def __init__(
        self, caller: Caller, number: int, seed: int, keys: list[Key], hold: threading.Event
    ) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.caller = caller
        self.rng = random.Random(seed)
        self.keys = keys
        self.hold = hold
        self.acknowledged = 0
        self.error: str | None = None

    def run(self) -> None:
        with suppress(*NOT_ANSWERED):
            while not self.hold.is_set():
                self.step()

    def step(self) -> None:
        key = self.rng.choice(self.keys)
        action = self.rng.choices([self.put, self.copy, self.upload, self.delete], weights=[6, 2, 2, 2])[0]
        action(key)

    def put(self, key: Key) -> None:
        body = self.body()
        self.change(key, md5(body), self.caller.sign("PUT", key.path, body=body), 200)

    def copy(self, key: Key) -> None:
        source = self.rng.choice(self.keys)
        if source is key or len(source.states) > 1 or GONE in source.states:
            return
        headers = [("x-amz-copy-source", source.path)]
        (state,) = source.states
        self.change(key, state, self.caller.sign("PUT", key.path, headers=headers), 200)

    def upload(self, key: Key) -> None:
        """A multipart upload of one part; only its completion changes the key."""
        body = self.body()
        begun = self.caller.call("POST", key.path, query="uploads")
        if not self.expected(begun, 200):
            return
        upload = begun.text("UploadId")
        part = self.caller.call("PUT", key.path, query=f"partNumber=1&uploadId={upload}", body=body)
        if not self.expected(part, 200):
            return
        document = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{part.headers['etag']}</ETag></Part></CompleteMultipartUpload>"
        ).encode()
        request = self.caller.sign("POST", key.path, query=f"uploadId={upload}", body=document)
        self.change(key, md5(body), request, 200)

    def delete(self, key: Key) -> None:
        self.change(key, GONE, self.caller.sign("DELETE", key.path), 204)

    def change(self, key: Key, state: str | None, request: Request, status: int) -> None:
        """Until the answer is here, both states are possible; after it, only the new one."""
        key.states.add(state)
        if self.expected(self.caller.exchange(request), status):
            key.states.clear()
            key.states.add(state)
            self.acknowledged += 1

    def expected(self, answer: Answer, status: int) -> bool:
        if answer.status == status:
            return True
        if answer.status != 503:  # a server that is about to end may refuse
            self.error = f"{answer.status} {answer.body[:300]!r}"
            self.hold.set()
        return False

    def body(self) -> bytes:
        """Half of them of a few bodies that everybody uses: dedup against uploads that may yet die."""
        size = self.rng.choice(SIZES)
        source = random.Random(size) if self.rng.random() < 0.5 else self.rng
        return source.randbytes(size)


@dataclass(slots=True)
class Crash:
    """A server that is killed again and again, and all that its clients know."""

    server: Server
    rng: random.Random
    keys: list[list[Key]]
    acknowledged: int = 0
    restarts: list[float] = field(default_factory=list)  # seconds until ready, as clients see it
    restart_cpu: list[float] = field(default_factory=list)  # CPU seconds of all its processes until then

    def caller(self) -> Caller:
        ca = str(self.server.certificate.cert) if self.server.certificate else None
        return PatientCaller(self.server.url, self.server.access_key, self.server.secret_key, ca=ca)

    def round(self, number: int, way: str) -> None:
        hold = threading.Event()
        clients = [
            Client(self.caller(), n, self.rng.randrange(1 << 60), keys, hold)
            for n, keys in enumerate(self.keys)
        ]
        for client in clients:
            client.start()
        time.sleep(self.rng.uniform(0.05, 1.0))
        self.kill(way)
        if way == "worker":
            hold.wait(0.3)  # the clients of the others go on
            hold.set()
        for client in clients:
            client.join(1.5 * PATIENCE_SECONDS)
            assert not client.is_alive(), "a client hangs"
            assert client.error is None, f"round {number} ({way}): {client.error}"
        self.acknowledged += sum(client.acknowledged for client in clients)
        self.restart(way)
        self.verify(number, way)

    def kill(self, way: str) -> None:
        if way == "group":
            self.server.kill()
        elif way == "supervisor":
            self.server.kill_supervisor()
        else:
            self.server.kill_worker(self.rng.randrange(8))

    def restart(self, way: str) -> None:
        if way == "worker":
            self.wait_answering()
        else:
            self.server.start()
            self.restarts.append(self.server.started_seconds)
            assert self.server.process is not None
            pids = [self.server.process.pid, *(process.pid for process in self.server.descendants())]
            self.restart_cpu.append(sum(map(cpu_seconds, pids)))

    def wait_answering(self) -> None:
        """The supervisor replaces the worker by itself."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with suppress(*NOT_ANSWERED):
                if self.caller().call("GET", "/").status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the worker was not replaced:\n{self.server.log_text()[-3000:]}")

    def verify(self, number: int, way: str) -> None:
        listed = self.listed()
        known = {key.name: key for keys in self.keys for key in keys}
        assert set(listed) <= set(known)
        with self.caller().connect() as connection:
            for key in known.values():
                connection.send(self.caller().sign("GET", key.path).encode())
                answer = connection.answer()
                assert answer.status in (200, 404), f"round {number} ({way}): {key.name}: {answer}"
                state = md5(answer.body) if answer.status == 200 else GONE
                assert state in key.states, f"round {number} ({way}): {key.name} is not what it was"
                assert (key.name in listed) == (state is not GONE), (
                    f"round {number} ({way}): {key.name} is listed wrongly"
                )
                key.states = {state}

    def listed(self) -> list[str]:
        answer = self.caller().call("GET", f"/{BUCKET}", query="list-type=2")
        assert answer.status == 200
        return answer.texts("Key")


def new_crash(server: Server, seed: int | str) -> Crash:
    """Of a server that runs and is empty."""
    keys = [[Key(f"{client}/k{n}") for n in range(KEYS_PER_CLIENT)] for client in range(CLIENTS)]
    made = Crash(server, random.Random(seed), keys)
    assert made.caller().call("PUT", f"/{BUCKET}").status == 200
    return made


def crowding() -> float:
    """By how much a process must expect to wait for a core: 1 unless more wants to run than there are cores."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def fill(data: Path, objects: int) -> None:
    """A new store with so many small objects in a bucket of their own, as a server that was stopped leaves it."""
    with Store.open(data, kind="command", create=True) as store:
        change = Change(store.writer, 0, bytes(8))
        bucket = store.kv.commit(lambda txn: buckets.create_bucket(txn, "full", "nobody", 0))

        def put(number: int, txn: Transaction) -> None:
            record = ObjectRecord(20, 0, "0" * 32, "nobody", inline=b"%020d" % number)
            put_object(txn, bucket, b"folder/%08d" % number, record, change)

        for first in range(0, objects, 5000):

            def put_many(txn: Transaction, first: int = first) -> None:
                for number in range(first, min(first + 5000, objects)):
                    put(number, txn)

            store.kv.commit(put_many)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.server_kill", description=__doc__)
    parser.add_argument("--seeds", type=results.parse_seeds, default=range(2))
    parser.add_argument("--kills", type=int, default=10, help="per seed")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--objects", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md")
    options = parser.parse_args()
    kills = acknowledged = 0
    restarts: list[float] = []
    restart_cpu: list[float] = []
    findings: list[str] = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="vaultaire-server-") as folder:
            data = Path(folder) / "data"
            if options.objects:
                fill(data, options.objects)
            with Server(data, workers=options.workers) as server:
                crash = new_crash(server, seed)
                try:
                    for number in range(options.kills):
                        crash.round(number, WAYS[number % len(WAYS)])
                        kills += 1
                except Exception as error:  # whatever it is, the next seed is worth its run
                    findings.append(f"seed {seed}: {error!r}\n{server.log_text()[-2000:]}")
                    print(findings[-1], file=sys.stderr, flush=True)
                acknowledged += crash.acknowledged
                restarts += crash.restarts
                restart_cpu += crash.restart_cpu
    seen = f"restart {min(restarts):.2f} s at best, {statistics.median(restarts):.2f} s median"
    seen += f", {statistics.median(restart_cpu):.2f} s of CPU"
    counts = f"{kills:,} kills, {acknowledged:,} acknowledged"
    print(
        f"{counts}, {len(findings)} findings; {seen} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
    )
    if options.record:
        what = f"server kills, {options.workers} workers" + (
            f", {options.objects:,} objects" * bool(options.objects)
        )
        command = f"python -m tests.crash.server_kill --seeds {options.seeds.start}-{options.seeds.stop - 1} --kills {options.kills}"
        command += f" --workers {options.workers}" + f" --objects {options.objects}" * bool(options.objects)
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        results.record(results.Run(what, options.seeds, f"{counts}; {seen}; {load}", len(findings), command))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
