"""Many mixed requests beside a collector that never rests: none fails, no byte is lost, and the space comes back.

    python -m tests.crash.server_churn --seeds 0-9 [--requests 50000] [--clients 8] [--workers 3] [--record]

A seed is one server over one new data directory. Clients, each with keys of its own, put, copy, read, list, delete, keep
versions and leave multipart uploads open for a while, and know what every answer has to be; half of the bodies are taken
from a few that everybody uses, so that chunks die and are needed again. Beside them the maintenance process collects as
it always does, and `vaultaire gc` runs again and again; packs are small, so that both find work. What must hold:

* every answer has the status and, byte for byte, the body that the client's own history calls for;
* at the end everything is read once more, and `verify --read-data` finds nothing;
* after all was deleted and collected, stored bytes are under 1 % of the largest figure seen.

The server is never killed (`server_kill` does that): here every refusal is a finding. Counted are requests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.crash import mutants, results
from tests.s3.harness import REPOSITORY, Server
from tests.s3.wire import Caller, Connection, content_md5

if TYPE_CHECKING:
    from tests.s3.wire import Answer, Pairs

PLAIN, VERSIONED = "/plain", "/versioned"
KEYS_PER_CLIENT = 240  # of objects; a quarter as many have versions
SIZES = (0, 1, 700, 3000, 5000, 20_000, 60_000, 300_000, 1_500_000)
SIZE_WEIGHTS = (1, 2, 10, 10, 12, 4, 1.5, 0.6, 0.05)
SHARED_BODIES = 60  # of each size
OPEN_UPLOADS = 3  # of each client
REQUESTS_PER_CONNECTION = 500  # then another worker may get the client
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = 2.0  # of the collector
LOOK_EVERY = 4  # rounds
PACK_BYTES = 1 << 20  # so that there are dozens of packs, and many are sealed, emptied and removed
LEFT_OVER = 0.01


class Finding(Exception):
    """Something that must not be."""


@dataclass(frozen=True, slots=True)
class Body:
    """Made again whenever it is needed: what a client remembers is small."""

    seed: int
    size: int

    def data(self) -> bytes:
        return random.Random(self.seed).randbytes(self.size)


@dataclass(slots=True)
class Upload:
    """A multipart upload that is open, and the parts it has."""

    path: str
    id: str
    parts: list[tuple[str, Body]] = field(default_factory=list)  # (ETag, body)

    def query(self) -> str:
        return f"uploadId={quote(self.id, safe='')}"


class Session:
    """One client's requests over a connection that it keeps for a while."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.requests = 0
        self._connection: Connection | None = None

    def ask(
        self, method: str, path: str, status: int, *, query: str = "", headers: Pairs = (), body: bytes = b""
    ) -> Answer:
        """Raises Finding for another status; OSError if the server does not answer."""
        if self._connection is None or self.requests % REQUESTS_PER_CONNECTION == 0:
            self.close()
            self._connection = self.caller.connect(PATIENCE_SECONDS)
        self.requests += 1
        self._connection.send(
            self.caller.sign(method, path, query=query, headers=headers, body=body).encode()
        )
        answer = self._connection.answer(method)
        if answer.status != status:
            raise Finding(f"{method} {path}?{query}: {answer.status} for {status}: {answer.body[:300]!r}")
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Client(threading.Thread):
    """`requests` requests on its own keys, all that they must come to known; `finding` is why it ended early."""

    def __init__(self, caller: Caller, number: int, seed: str, requests: int) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.prefix = f"c{number}/"
        self.session = Session(caller)
        self.rng = random.Random(seed)
        self.wanted = requests
        self.objects: dict[str, Body] = {}
        self.versions: dict[tuple[str, str], Body] = {}  # (path, version id)
        self.uploads: list[Upload] = []
        self.finding: str | None = None

    def run(self) -> None:
        try:
            while self.session.requests < self.wanted:
                self.step()
            self.read_everything()
        except Exception as error:  # whatever it is, the run is over and says so
            self.finding = f"{self.name} after {self.session.requests:,} requests: {error!r}"
        finally:
            self.session.close()

    def step(self) -> None:
        actions = (self.put, self.get, self.get_range, self.head, self.delete, self.copy, self.list)
        weights = (30, 30, 5, 4, 12, 6, 1)
        rarer = (self.upload, self.put_version, self.get_version, self.delete_version, self.delete_many)
        rarer_weights = (6, 5, 4, 3, 0.3)
        (action,) = self.rng.choices(actions + rarer, weights + rarer_weights)
        action()

    # -- objects

    def put(self) -> None:
        path, body = self.any_path(), self.any_body()
        self.session.ask("PUT", path, 200, body=body.data())
        self.objects[path] = body

    def get(self) -> None:
        path = self.any_path()
        self.read(path, self.objects.get(path))

    def read(self, path: str, body: Body | None, query: str = "") -> None:
        answer = self.session.ask("GET", path, 404 if body is None else 200, query=query)
        if body is not None and answer.body != body.data():
            raise Finding(f"{path}?{query} has other bytes")

    def get_range(self) -> None:
        path = self.any_path()
        body = self.objects.get(path)
        if body is None or not body.size:
            return
        first = self.rng.randrange(body.size)
        last = self.rng.randrange(first, body.size)
        answer = self.session.ask("GET", path, 206, headers=[("range", f"bytes={first}-{last}")])
        if answer.body != body.data()[first : last + 1]:
            raise Finding(f"{path} has other bytes in {first}-{last}")

    def head(self) -> None:
        path = self.any_path()
        body = self.objects.get(path)
        answer = self.session.ask("HEAD", path, 404 if body is None else 200)
        if body is not None and answer.headers["content-length"] != str(body.size):
            raise Finding(f"{path} has another length")

    def delete(self) -> None:
        path = self.any_path()
        self.session.ask("DELETE", path, 204)
        self.objects.pop(path, None)

    def copy(self) -> None:
        source, path = self.any_path(), self.any_path()
        if source in self.objects and source != path:
            self.session.ask("PUT", path, 200, headers=[("x-amz-copy-source", source)])
            self.objects[path] = self.objects[source]

    def delete_many(self) -> None:
        paths = self.rng.sample(sorted(self.objects), min(20, len(self.objects)))
        delete_objects(self.session, PLAIN, [(path, "") for path in paths])
        for path in paths:
            del self.objects[path]

    def list(self) -> None:
        answer = self.session.ask(
            "GET", PLAIN, 200, query=f"list-type=2&prefix={quote(self.prefix, safe='')}"
        )
        listed = [f"{PLAIN}/{key}" for key in answer.texts("Key")]
        if listed != sorted(self.objects):
            raise Finding(f"{self.prefix} lists {set(listed) ^ set(self.objects)} wrongly")

    # -- multipart uploads: begun, gone on with and completed or given up some time later

    def upload(self) -> None:
        if len(self.uploads) < OPEN_UPLOADS and self.rng.random() < 0.5:
            path = self.any_path()
            answer = self.session.ask("POST", path, 200, query="uploads")
            self.uploads.append(Upload(path, answer.text("UploadId")))
        elif self.uploads:
            upload = self.rng.choice(self.uploads)
            if not upload.parts:  # only the last part may be small
                self.add_part(upload, 5 << 20 if self.rng.random() < 0.02 else None)
            elif upload.parts[-1][1].size >= 5 << 20:
                self.add_part(upload, None)
            elif self.rng.random() < 0.5:
                self.end(upload)

    def add_part(self, upload: Upload, size: int | None) -> None:
        body = self.any_body() if size is None else Body(self.rng.randrange(SHARED_BODIES), size)
        query = f"partNumber={len(upload.parts) + 1}&{upload.query()}"
        answer = self.session.ask("PUT", upload.path, 200, query=query, body=body.data())
        upload.parts.append((answer.headers["etag"], body))

    def end(self, upload: Upload) -> None:
        """Completed, if it is one part; two are read there and then, and the object is deleted."""
        self.uploads.remove(upload)
        if self.rng.random() < 0.2:
            self.session.ask("DELETE", upload.path, 204, query=upload.query())
            return
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, (etag, _) in enumerate(upload.parts, 1)
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        self.session.ask("POST", upload.path, 200, query=upload.query(), body=document)
        if len(upload.parts) == 1:
            self.objects[upload.path] = upload.parts[0][1]
            return
        answer = self.session.ask("GET", upload.path, 200)
        if answer.body != b"".join(body.data() for _, body in upload.parts):
            raise Finding(f"{upload.path} has other bytes than its parts")
        self.session.ask("DELETE", upload.path, 204)
        self.objects.pop(upload.path, None)

    # -- versions

    def put_version(self) -> None:
        path, body = self.any_path(VERSIONED, KEYS_PER_CLIENT // 4), self.any_body()
        answer = self.session.ask("PUT", path, 200, body=body.data())
        self.versions[path, answer.headers["x-amz-version-id"]] = body

    def get_version(self) -> None:
        if self.versions:
            (path, id_), body = self.rng.choice(list(self.versions.items()))
            self.read(path, body, f"versionId={id_}")

    def delete_version(self) -> None:
        if self.versions:
            path, id_ = self.rng.choice(list(self.versions))
            self.session.ask("DELETE", path, 204, query=f"versionId={id_}")
            del self.versions[path, id_]

    # -- the end

    def read_everything(self) -> None:
        self.list()
        for path, body in self.objects.items():
            self.read(path, body)
        for (path, id_), body in self.versions.items():
            self.read(path, body, f"versionId={id_}")

    def delete_everything(self, session: Session) -> None:
        delete_objects(session, PLAIN, [(path, "") for path in self.objects])
        delete_objects(session, VERSIONED, list(self.versions))
        for upload in self.uploads:
            session.ask("DELETE", upload.path, 204, query=upload.query())

    def any_path(self, bucket: str = PLAIN, keys: int = KEYS_PER_CLIENT) -> str:
        return f"{bucket}/{self.prefix}k{self.rng.randrange(keys):04}"

    def any_body(self) -> Body:
        (size,) = self.rng.choices(SIZES, SIZE_WEIGHTS)
        shared = self.rng.random() < 0.5
        return Body(self.rng.randrange(SHARED_BODIES) if shared else self.rng.getrandbits(60), size)


def delete_objects(session: Session, bucket: str, versions: list[tuple[str, str]]) -> None:
    """By DeleteObjects, a thousand at a time; of a version whose id is empty, the object."""
    for first in range(0, len(versions), 1000):
        entries = "".join(
            f"<Object><Key>{path.removeprefix(bucket + '/')}</Key>"
            + f"<VersionId>{id_}</VersionId>" * bool(id_)
            + "</Object>"
            for path, id_ in versions[first : first + 1000]
        )
        document = f"<Delete><Quiet>true</Quiet>{entries}</Delete>".encode()
        headers = [("content-md5", content_md5(document))]
        answer = session.ask("POST", bucket, 200, query="delete", headers=headers, body=document)
        if b"<Error>" in answer.body:
            raise Finding(f"DeleteObjects: {answer.body[:300]!r}")


class CollectorLoop(threading.Thread):
    """`vaultaire gc` over and over beside the server; what it removed, and the largest store it saw."""

    def __init__(self, server: Server) -> None:
        super().__init__(name="collector", daemon=True)
        self.server = server
        self.over = threading.Event()
        self.rounds = self.removed_packs = self.peak_bytes = 0
        self.finding: str | None = None

    def run(self) -> None:
        try:
            while True:
                if self.rounds % LOOK_EVERY == 0:
                    self.look()
                self.collect()
                if self.over.wait(PAUSE_SECONDS):
                    break
        except Exception as error:
            self.finding = f"the collector: {error!r}"

    def look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, int(self.server.stats()["stored_bytes"]))

    def collect(self) -> None:
        told = json.loads(self.server.cli("gc", "--json", timeout_seconds=600).stdout)
        if not told["complete"] or told["errors"] or told["missing_chunks"]:
            raise Finding(f"collection: {told}")
        self.rounds += 1
        self.removed_packs += told["removed_packs"]


@dataclass(slots=True)
class Outcome:
    """Of one seed; collections are those beside the requests."""

    requests: int = 0
    rounds: int = 0
    removed_packs: int = 0
    left_over: float = 0.0
    findings: list[str] = field(default_factory=list)


def churn(server: Server, seed: int, clients: int, requests: int) -> Outcome:
    """Of a server that runs and is empty."""
    caller = Caller(server.url, server.access_key, server.secret_key)
    session = Session(caller)
    session.ask("PUT", PLAIN, 200)
    session.ask("PUT", VERSIONED, 200)
    document = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    session.ask("PUT", VERSIONED, 200, query="versioning", body=document)
    crowd = [Client(caller, n, f"{seed} {n}", requests // clients) for n in range(clients)]
    collector = CollectorLoop(server)
    for thread in (*crowd, collector):
        thread.start()
    for client in crowd:
        client.join()
    collector.over.set()
    collector.join()
    findings = [thread.finding for thread in (*crowd, collector) if thread.finding is not None]
    requests_made = sum(client.session.requests for client in crowd)
    outcome = Outcome(requests_made, collector.rounds, collector.removed_packs, findings=findings)
    if not findings:
        collector.look()
        outcome.left_over = end(server, crowd, collector)
        if outcome.left_over >= LEFT_OVER:
            findings.append(f"{outcome.left_over:.2%} of the peak are left")
    return outcome


def end(server: Server, crowd: list[Client], collector: CollectorLoop) -> float:
    """Verified, emptied and collected: the share of the peak that is left. Raises AssertionError if damaged."""
    server.cli("verify", "--read-data", timeout_seconds=600)
    session = Session(Caller(server.url, server.access_key, server.secret_key))
    for client in crowd:
        client.delete_everything(session)
    session.close()
    server.restart()  # what is open gets sealed
    collector.collect()
    return server.stats()["stored_bytes"] / collector.peak_bytes


def environment(mutant: str | None = None) -> dict[str, str]:
    """Of a server with small packs, whose processes are broken by this mutant."""
    path = f"{Path(__file__).parent / 'changed_server'}{os.pathsep}{REPOSITORY}"
    changed = {"PYTHONPATH": path, "VAULTAIRE_TEST_PACK_BYTES": str(PACK_BYTES)}
    return changed if mutant is None else {**changed, "VAULTAIRE_TEST_MUTANT": mutant}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.server_churn", description=__doc__)
    parser.add_argument("--seeds", type=results.parse_seeds, default=range(1))
    parser.add_argument("--requests", type=int, default=50_000, help="per seed")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where the stores are made")
    parser.add_argument("--mutant", choices=sorted(mutants.BY_NAME))
    parser.add_argument("--record", action="store_true", help="append a row to RESULTS.md per seed")
    options = parser.parse_args()
    bad = 0
    for seed in options.seeds:
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="vaultaire-churn-", dir=options.directory) as folder,
            Server(Path(folder) / "data", options.workers, environment=environment(options.mutant)) as server,
        ):
            try:
                outcome = churn(server, seed, options.clients, options.requests)
            except Exception as error:
                outcome = Outcome(findings=[repr(error)])
            if outcome.findings:
                print(f"seed {seed}: {outcome.findings}\n{server.log_text()[-3000:]}", file=sys.stderr)
        bad += len(outcome.findings)
        counts = f"{outcome.requests:,} requests beside {outcome.rounds:,} collections of "
        counts += f"{outcome.removed_packs:,} packs; {outcome.left_over:.2%} of the peak left at the end"
        seconds = time.monotonic() - began
        print(f"seed {seed}: {counts}, {len(outcome.findings)} findings, {seconds:.0f} s", flush=True)
        if options.record:
            command = f"python -m tests.crash.server_churn --seeds {seed} --requests {options.requests}"
            command += f" --clients {options.clients} --workers {options.workers}"
            counts += f", {seconds:.0f} s at load {os.getloadavg()[0]:.0f}"
            what = f"mixed requests, {options.workers} workers"
            results.record(results.Run(what, range(seed, seed + 1), counts, len(outcome.findings), command))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
