"""The servers that are measured, each over a plain directory of its own, and what /proc says of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.s3.harness import REPOSITORY, Server, anonymous_bytes, cpu_seconds
from tests.s3.wire import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCESS_KEY = "BENCHACCESSKEY1"  # `rclone serve s3` refuses keys of some other lengths
SECRET_KEY = "bench-secret-key-0123456789"
WAIT_SECONDS = 30.0


class Measured:
    """A running server: where it is, and which processes it is made of."""

    def __init__(self, name: str, url: str, pid: int) -> None:
        self.name = name
        self.caller = Caller(url, ACCESS_KEY, SECRET_KEY)
        self.pid = pid

    @property
    def url(self) -> str:
        return self.caller.url

    def pids(self) -> list[int]:
        return [self.pid, *_children(self.pid)]

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids())

    def make_bucket(self, name: str) -> None:
        answer = self.caller.call("PUT", f"/{name}")
        if answer.status not in (200, 409):
            raise RuntimeError(f"{self.name} does not make a bucket: {answer}")


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [p for child in map(int, listed) for p in (child, *_children(child))]


@contextmanager
def vaultaire(data: Path, *, workers: int = 1) -> Iterator[Measured]:
    with Server(data, workers=workers, access_key=ACCESS_KEY, secret_key=SECRET_KEY) as server:
        assert server.process is not None
        yield Measured("vaultaire", server.url, server.process.pid)


@contextmanager
def rclone(data: Path) -> Iterator[Measured]:
    data.mkdir(exist_ok=True)
    port = free_port()
    command = [tool("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--no-cleanup"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", os.devnull, str(data)]
    with _process(command, data.parent / "rclone.log") as process:
        _wait_listening(port, process)
        yield Measured("rclone", f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def baseline(data: Path) -> Iterator[Measured]:
    """The same store behind a Quart route under Hypercorn as shipped (see `tools.bench.baseline`)."""
    port = free_port()
    command = [sys.executable, "-m", "tools.bench.baseline", str(data), str(port)]
    with _process(command, data.parent / "baseline.log") as process:
        _wait_listening(port, process)
        yield Measured("quart+hypercorn", f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "ab") as said:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=_environment()
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RCLONE_", "VAULTAIRE_"))}


def _wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tool(name: str) -> str:
    """The path of a program, beside this Python or on the search path. Raises FileNotFoundError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


class Watch:
    """CPU seconds, wall seconds and peak anonymous memory of a server while the block runs."""

    def __init__(self, server: Measured) -> None:
        self._server = server
        self._over = threading.Event()
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        os.sync()  # what an earlier step left to be written is not this one's cost
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._cpu = self._server.cpu_seconds()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.cpu = self._server.cpu_seconds() - self._cpu
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, *map(anonymous_bytes, self._server.pids()))
            if self._over.wait(0.1):
                return
