"""A child's side of the bargain with the supervisor: orders on stdin, a byte when ready, an end when it is alone.

What it guarantees: a child never outlives its supervisor for longer than the grace, even with a blocked event loop,
and however the supervisor ended (a pipe that closes with it; on Linux the kernel's own signal besides). Otherwise
orphans would hold the port and the store against the next start.

    stdin        one line of JSON (Orders), then nothing; its end means that the supervisor is gone
    ready pipe   one byte from the child once it does its work; its end means that the child is gone
    exit code    0 after a stop that was asked for; 75 (EX_TEMPFAIL): restart every process of the store;
                 78 (EX_CONFIG): starting again would not help, the reason is on stderr

Imports only what the standard library has: the supervisor starts in milliseconds because of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass

from vaultaire.config import ServeConfig

EX_TEMPFAIL = os.EX_TEMPFAIL
EX_CONFIG = os.EX_CONFIG
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Orders:
    """What the supervisor tells a child. Never by command line: everybody can read that."""

    config: ServeConfig
    app: str  # "module:function", what a worker serves
    sockets: tuple[int, ...]  # descriptors of bound sockets, inherited
    ready: int  # descriptor of the ready pipe, inherited
    supervisor: int  # its process id

    def to_line(self) -> bytes:
        fields = {name: value for name, value in asdict(self).items() if name != "config"}
        return json.dumps({**fields, "config": self.config.to_json()}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Orders:
        fields = json.loads(line)
        fields["config"] = ServeConfig.from_json(fields["config"])
        fields["sockets"] = tuple(fields["sockets"])
        return cls(**fields)

    def report_ready(self) -> None:
        os.write(self.ready, b"+")


def take_orders() -> Orders:
    """Read the orders from stdin and tie this process's life to the supervisor's. Call it once, first of all."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)  # unbuffered: the pipe's end must stay to be seen
        if not byte:
            sys.exit(EX_CONFIG)
        line += byte
    orders = Orders.from_line(line)
    for descriptor in (*orders.sockets, orders.ready):
        os.set_inheritable(descriptor, False)
    _end_with_parent(orders)
    return orders


def _end_with_parent(orders: Orders) -> None:
    if sys.platform == "linux":
        import ctypes  # only children need it, and it is slow to load

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    grace = orders.config.grace_seconds + 1
    threading.Thread(target=_watch_life, args=(grace,), name="life", daemon=True).start()


def _watch_life(grace: float) -> None:
    # A thread, not a task: it must work when the event loop hangs.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(EX_TEMPFAIL)
