"""A crowd of slow clients, in a process of its own: uploads and downloads that make a little progress every second.

They are alive by any stall timeout, and hold what a server is willing to hold for a client. Plain http only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.s3.harness import REPOSITORY
from tests.s3.wire import UNSIGNED, Caller

if TYPE_CHECKING:
    from types import TracebackType

ROUND_SECONDS = 1.0
SLICES = 200  # of a round: the crowd is spread over it, for clients elsewhere do not speak in chorus
DRIP_BYTES = 1024
FIRST_BYTES = 128 << 10  # what an upload sends at once
UPLOAD_BYTES = 64 << 20  # what it promises


@dataclass(frozen=True, slots=True)
class CrowdPlan:
    url: str
    access_key: str
    secret_key: str
    bucket: str
    key: str  # what is downloaded
    uploads: int
    readers: int


class Crowd:
    """`with Crowd(plan):` they are all connected inside, and gone outside."""

    def __init__(self, plan: CrowdPlan) -> None:
        self._plan = plan
        self.refused = 0  # answered at once instead of being served; known after the end

    def __enter__(self) -> Self:
        plan = self._plan
        words = [f"--{name.replace('_', '-')}={getattr(plan, name)}" for name in CrowdPlan.__slots__]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3.crowd", *words],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the crowd did not come")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            said, _ = self._process.communicate(b"", timeout=30)
            self.refused = json.loads(said or b"{}").get("refused", 0)
        finally:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in CrowdPlan.__annotations__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int if kind == "int" else str, required=True)
    plan = CrowdPlan(**vars(parser.parse_args()))
    caller = Caller(plan.url, plan.access_key, plan.secret_key)
    uploads = [_connect(caller, upload_head(caller, plan, n)) for n in range(plan.uploads)]
    readers = [_connect(caller, download(caller, plan), 4096) for _ in range(plan.readers)]
    first = bytes(range(256)) * (FIRST_BYTES // 256)
    for sock in uploads:
        with contextlib.suppress(OSError):
            sock.send(first)
    print("ready", flush=True)
    sys.stdin.close() if _drip_until_told(uploads, readers) else None
    refused = sum(_is_answered(sock) for sock in uploads)
    print(json.dumps({"refused": refused}), flush=True)


def upload_head(caller: Caller, plan: CrowdPlan, number: int) -> bytes:
    request = caller.sign("PUT", f"/{plan.bucket}/slow{number}", payload=UNSIGNED, length=UPLOAD_BYTES)
    return request.head()


def download(caller: Caller, plan: CrowdPlan) -> bytes:
    return caller.sign("GET", f"/{plan.bucket}/{plan.key}").encode()


def _connect(caller: Caller, first: bytes, receive_buffer: int = 0) -> socket.socket:
    parts = urlsplit(caller.url)
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect((parts.hostname, parts.port))
    sock.sendall(first)
    sock.setblocking(False)
    return sock


def _drip_until_told(uploads: list[socket.socket], readers: list[socket.socket]) -> bool:
    import select

    drop = b"x" * DRIP_BYTES
    while True:
        for part in range(SLICES):
            began = time.monotonic()
            for sock in uploads[part::SLICES]:
                with contextlib.suppress(OSError):
                    sock.send(drop)
            for sock in readers[part::SLICES]:
                with contextlib.suppress(OSError):
                    sock.recv(DRIP_BYTES)
            left = ROUND_SECONDS / SLICES - (time.monotonic() - began)
            if select.select([0], [], [], max(0.0, left))[0]:
                return True


def _is_answered(sock: socket.socket) -> bool:
    """A served upload has no answer yet."""
    with contextlib.suppress(OSError):
        return bool(sock.recv(1))
    return False


if __name__ == "__main__":
    main()
