"""What is compared: a Vaultaire server through S3, repositories of restic and Borg, and fixed blocks as a model.

Each keeps every version of a corpus. `add` stores the folder as it is now and returns when that is durable; `close` says what
all versions take. CPU seconds are user and system time of the store's own processes: of the server (of all its processes) while
requests are served, of restic and Borg for `backup` and `create` less what opening the repository takes (their key derivation
and imports are a fixed cost that would weigh on small corpora), of the model for its thread. Not the client that uploads.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import blake3
import boto3
import zstandard
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from tests.s3.harness import REGION, Server, cpu_seconds
from tools.bench.savings.corpus import MIB
from tools.bench.servers import ACCESS_KEY, SECRET_KEY, tool

if TYPE_CHECKING:
    import resource
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BUCKET = "savings"
STREAMS = 8  # uploads at a time, as clients make them
ROW_BYTES, REFERENCE_BYTES = 100, 36  # of the model's metadata: for each block, for each use of one
SETTLE_SECONDS = 20.0
COMMAND_SECONDS = 600.0  # a hang is a failure


@dataclass(frozen=True, slots=True)
class Stored:
    stored_bytes: int
    cpu_seconds: float
    chunks_per_mib: float = 0.0  # of unique data; 0: not known
    collected_bytes: int = 0  # given back by `vaultaire gc`
    database_bytes: int = 0  # of the stored ones: rows, and objects that are small enough to live in them


class Store(Protocol):
    def add(self, folder: Path, version: int) -> None: ...
    def close(self) -> Stored: ...
    def end(self) -> None:
        """End its processes, if any. Idempotent; after `close`, or instead of it."""


class Vaultaire:
    """A server with one worker and without parity, which the others have not; one object for each file, in one PUT each.

    `policy`: settings of the server by name (see docs/configuration.md); an unknown one is refused when it starts.
    `prefixes`: of the bucket. `recompress`: `vaultaire gc --recompress` and `vaultaire rebuild` at the end, not only `gc`.
    """

    def __init__(self, work: Path, policy: Mapping[str, str], prefixes: str, *, recompress: bool) -> None:
        environment = {f"VAULTAIRE_{name.upper()}": value for name, value in policy.items()}
        self._recompress = recompress
        self._server = Server(
            work / "vaultaire",
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            arguments=("--parity", "0"),
            environment=environment,
        ).start()
        self._s3 = boto3.client(
            "s3",
            endpoint_url=self._server.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(max_pool_connections=STREAMS, read_timeout=COMMAND_SECONDS),
        )
        self._s3.create_bucket(Bucket=BUCKET)
        self._server.cli("bucket", "prefixes", BUCKET, prefixes)
        self._transfer = TransferConfig(multipart_threshold=1 << 32, use_threads=False)
        self._began = self._settled()

    def add(self, folder: Path, version: int) -> None:
        def put(path: Path) -> None:
            key = f"{version:02}/{path.relative_to(folder)}"
            self._s3.upload_file(str(path), BUCKET, key, Config=self._transfer)

        with ThreadPoolExecutor(STREAMS) as pool:
            list(pool.map(put, sorted(path for path in folder.rglob("*") if path.is_file())))

    def close(self) -> Stored:
        spent = self._cpu() - self._began
        self._server.stop(COMMAND_SECONDS)
        collected = json.loads(
            self._server.cli(
                "gc", "--json", *["--recompress"] * self._recompress, timeout_seconds=COMMAND_SECONDS
            ).stdout
        )
        if self._recompress:
            self._server.cli("rebuild", timeout_seconds=COMMAND_SECONDS)  # full pages
        totals = self._server.stats()
        stored = int(totals["stored_bytes"])
        packs = sum(path.stat().st_size for path in self._server.data.rglob("*.pack"))
        return Stored(
            stored,
            spent,
            totals["chunks"] * MIB / max(1, totals["unique_bytes"]),
            int(collected["freed_bytes"]),
            stored - packs,
        )

    def end(self) -> None:
        self._server.close()

    def _settled(self) -> float:
        """CPU seconds when they no longer grow: after it is ready, a server still loads what its first requests need."""
        self._s3.put_object(Bucket=BUCKET, Key="first", Body=bytes(8192))
        self._s3.delete_object(Bucket=BUCKET, Key="first")
        before, now = -1.0, self._cpu()
        deadline = time.monotonic() + SETTLE_SECONDS
        while now - before > 0.02 and time.monotonic() < deadline:
            time.sleep(0.5)
            before, now = now, self._cpu()
        return now

    def _cpu(self) -> float:
        assert self._server.process is not None
        pids = {self._server.process.pid, *(process.pid for process in self._server.descendants())}
        return sum(map(cpu_seconds, pids))


class _Repository:
    """Of a program that is called for each version."""

    def __init__(self, work: Path, environment: Mapping[str, str]) -> None:
        self._folder = work
        self._environment = os.environ | environment
        self._spent = 0.0

    def _call(self, command: Sequence[str], folder: Path) -> float:
        """CPU seconds of the command."""
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        with process.stdout as lines:
            said = lines.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command}: {process.returncode}: {said.decode(errors='replace')}")
        return _seconds(usage)

    def end(self) -> None:
        pass


class Restic(_Repository):
    def __init__(self, work: Path) -> None:
        self._program = tool("restic")
        repository = work / "restic"
        super().__init__(
            repository,
            {"RESTIC_REPOSITORY": str(repository), "RESTIC_PASSWORD": "savings", "TMPDIR": str(work)},
        )
        self._call(self._command("init"), work)
        self._opening = self._call(self._command("snapshots"), work)

    def _command(self, *arguments: str) -> list[str]:
        return [self._program, "--no-cache", "--quiet", *arguments]

    def add(self, folder: Path, version: int) -> None:
        del version  # each snapshot is kept
        self._spent += max(0.0, self._call(self._command("backup", "."), folder) - self._opening)

    def close(self) -> Stored:
        return Stored(_size(self._folder), self._spent)


class Borg(_Repository):
    """With zstd 3: its default (lz4) stores more."""

    def __init__(self, work: Path) -> None:
        self._program = tool("borg")
        repository = work / "borg"
        environment = {
            "BORG_REPO": str(repository),
            "BORG_BASE_DIR": str(work / "borg-home"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        super().__init__(repository, environment)
        self._call([self._program, "init", "--encryption", "none"], work)
        self._opening = self._call([self._program, "list"], work)

    def add(self, folder: Path, version: int) -> None:
        command = [self._program, "create", "--compression", "zstd,3", f"::{version:02}", "."]
        self._spent += max(0.0, self._call(command, folder) - self._opening)

    def close(self) -> Stored:
        return Stored(_size(self._folder), self._spent)


class Fixed:
    """Blocks of 1 MiB, each once, with zstd 1 where it helps, and the metadata that such a store needs; no files."""

    def __init__(self, work: Path) -> None:
        del work
        self._known: set[bytes] = set()
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._stored = 0
        self._spent = 0.0

    def add(self, folder: Path, version: int) -> None:
        del version
        began = time.thread_time()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with open(path, "rb") as file:
                while block := file.read(MIB):
                    self._block(block)
        self._spent += time.thread_time() - began

    def _block(self, block: bytes) -> None:
        self._stored += REFERENCE_BYTES
        name = blake3.blake3(block).digest()
        if name not in self._known:
            self._known.add(name)
            self._stored += ROW_BYTES + min(len(block), len(self._compressor.compress(block)))

    def close(self) -> Stored:
        return Stored(self._stored, self._spent)

    def end(self) -> None:
        pass


PEERS = {"restic": Restic, "borg": Borg, "fixed": Fixed}


def version_of(peer: str) -> str:
    """What the program says of itself; of the model, what it is. Raises FileNotFoundError."""
    if peer == "fixed":
        return "blocks of 1 MiB, zstd 1 (a model)"
    command = [tool("restic"), "version"] if peer == "restic" else [tool("borg"), "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return " ".join(said[:2])


def _size(folder: Path) -> int:
    """Of the files alone: folders are the file system's."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime
