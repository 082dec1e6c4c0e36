"""Children by fork: a process that has imported everything and opened nothing has children that start in milliseconds.

What it guarantees: a child that is gone took nothing of the parent with it; what it said before its death was either
received whole or not at all; `Child.end` leaves no process behind. The parent must have no threads and no open LMDB
environment (neither survives a fork), so a laboratory runs as a process of its own: the tests start it by its command.

Children speak through a socket: `send` there is no `write`, so faults injected into `write` do not touch it.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = struct.Struct("<I")
_BLOCK_BYTES = 1 << 16


class Said:
    """The child's end: what it says arrives whole or not at all. Thread-safe."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()

    def __call__(self, *message: Any) -> None:
        data = pickle.dumps(message)
        with self._lock:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def wait(self) -> None:
        """Until the parent says `go`."""
        self._socket.recv(1)


class Child:
    """A forked child that runs `work(said)` and ends. What it raises is said as ("raised", traceback)."""

    def __init__(self, work: Callable[[Said], None]) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            _run(work, Said(theirs))
        theirs.close()
        self._socket = ours
        self._received = bytearray()
        self.ended = False  # it will say nothing more
        self.status: int | None = None  # exit code, or minus the signal

    def go(self) -> None:
        self._socket.send(b"g")

    def kill(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def receive(self, deadline: float) -> tuple[Any, ...] | None:
        """The next message; None at the deadline (`time.monotonic`), or when there are no more (`ended`)."""
        while True:
            message = self._take()
            if message is not None or self.ended:
                return message
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return None
            try:
                data = self._socket.recv(_BLOCK_BYTES)
            except ConnectionResetError:
                data = b""
            self._received += data
            self.ended = not data

    def end(self) -> int:
        """Kill it if need be and reap it; its exit code, or minus the signal."""
        if self.status is None:
            self.kill()
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        self._socket.close()
        return self.status

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or minus the signal; None if it still runs after that time."""
        deadline = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= deadline:
                return None
            else:
                time.sleep(0.001)
        return self.status

    def _take(self) -> tuple[Any, ...] | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        message = pickle.loads(bytes(self._received[_LENGTH.size : end]))
        del self._received[:end]
        return message


def _run(work: Callable[[Said], None], said: Said) -> None:
    code = 1
    try:
        work(said)
        code = 0
    except BaseException:
        said("raised", traceback.format_exc())
    finally:
        os._exit(code)  # nothing of the parent's (buffers, atexit) is ours to end
