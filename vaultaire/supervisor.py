"""The supervisor: binds the port, starts the workers and the maintenance process, replaces what dies, stops them all.

What it guarantees:
- A killed worker is replaced in well under a second; meanwhile the others, or the queue of the listening socket, take
  its connections. The server does not end because one process did.
- After SIGTERM or SIGINT everything has ended within the grace plus one second: what has not is killed. A second
  signal kills at once.
- A child that leaves with EX_TEMPFAIL found the store poisoned (a failed fsync): all are stopped, then all started.
- A child that crashes (SIGBUS, SIGSEGV, SIGABRT) has most likely walked a damaged page of LMDB, or one that the disk cannot read,
  and would again: LMDB is rebuilt, but not twice within an hour. That rebuilds too much after other crashes, never too
  little.
- If the workers cannot be started at all, the server ends with an error instead of trying for ever.
- If the supervisor itself is killed, its children end by themselves (vaultaire.child).

It reads no data, imports little but the standard library, and so can hardly fail; and it starts children at once, never
after a fork: they share nothing with it but pipes and the bound sockets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from index.fileops import FileOps
from index.poison import CRASHED, earlier_poison_path, set_poison
from vaultaire.child import EX_CONFIG, EX_TEMPFAIL, Orders

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from vaultaire.config import ServeConfig

BIND_SECONDS = 2.0  # how long a predecessor may hold the port
BIND_PAUSE_SECONDS = 0.05
KILL_SECONDS = 1.0  # beyond the grace
FIRST_ATTEMPTS = 3  # crashes before a child was ever ready
CRASHES = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)  # the last: its assertions
STEADY_SECONDS = 10.0  # a child that ran so long starts with a clean record
# Seconds before the next start, by failures in a row. Below a second for a worker, whatever happens.
WORKER_PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8)
MAINTENANCE_PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0)

# glibc makes a heap for each of many threads, and keeps in each what was once needed there (see vaultaire.allocator).
HEAPS = "2"

APP = "vaultaire.application:build_app"
WORKER = "vaultaire.worker"
MAINTENANCE = "vaultaire.maintenance"


class Verdict(Enum):
    """What to do about a child that has ended."""

    START_AGAIN = "start it again"
    RESTART_ALL = "stop all processes, then start all"
    GIVE_UP = "the server cannot be started"


@dataclass
class Child:
    """One place in the server, and the process that fills it now."""

    module: str
    essential: bool  # the server is ready, or can be started at all, only with it
    failures: int = 0  # in a row
    was_ready: bool = False  # ever
    due: float | None = 0.0  # when to start it; None while it runs
    process: subprocess.Popen[bytes] | None = None
    ready_pipe: int = -1
    started: float = 0.0
    is_ready: bool = False


def judge_end(child: Child, exit_code: int, *, serving: bool) -> Verdict:
    """`serving`: the server as a whole has been ready since it, or all of it again, was started."""
    if exit_code == EX_TEMPFAIL:
        return Verdict.RESTART_ALL
    hopeless = exit_code == EX_CONFIG or child.failures + 1 >= FIRST_ATTEMPTS
    if child.essential and not serving and not child.was_ready and hopeless:
        return Verdict.GIVE_UP
    return Verdict.START_AGAIN


def pause_before_start(child: Child, lived_seconds: float) -> float:
    """Seconds to wait; counts the failure."""
    if lived_seconds >= STEADY_SECONDS:
        child.failures = 0
    pauses = WORKER_PAUSES if child.essential else MAINTENANCE_PAUSES
    pause = pauses[min(child.failures, len(pauses) - 1)]
    child.failures += 1
    return pause


def run(
    config: ServeConfig,
    *,
    prepare: Callable[[], None] | None = None,
    on_ready: Callable[[str, int], None] | None = None,
    app: str = APP,
    maintenance: str | None = MAINTENANCE,
) -> int:
    """Serve until told to stop; returns the exit code of the whole. Call it in the main thread.

    `prepare` runs once, after the port was bound and before any child may touch the store; meanwhile the workers
    already load their modules, which takes longer than everything else of a start. What it raises ends the start.

    `on_ready(host, port)` is called whenever all workers have become ready: at the start, and again after all were
    restarted. Raises OSError, with the address, if the port cannot be bound.
    """
    raise_descriptor_limit()
    sockets = bind(config.host, config.port)
    try:
        keeps_logs = config.access_log is not None or config.audit_log is not None
        with _Signals(ignore_hangup=keeps_logs) as signals:
            return _Supervisor(config, sockets, signals, app, maintenance).run(prepare, on_ready)
    finally:
        for sock in sockets:
            sock.close()


def raise_descriptor_limit() -> None:
    """One connection is one descriptor; the soft limit is a default for programs that use select()."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS names a hard limit it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bind(host: str, port: int) -> list[socket.socket]:
    """Bound, inheritable sockets for every address of `host` ("": all interfaces), all with the same port.

    They listen only once a worker is ready, so that an early client is refused rather than left waiting.
    """
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            return _bind_all(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
        time.sleep(BIND_PAUSE_SECONDS)


def _bind_all(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        try:
            sockets.append(_bind_one(family, (address[0], port, *address[2:]), only_v6=len(addresses) > 1))
        except OSError as error:
            missing = OSError(error.errno, f"cannot listen on {address[0]} port {port}: {error.strerror}")
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
            continue  # "localhost" names ::1 too where IPv6 is switched off
        port = sockets[0].getsockname()[1]
    else:
        if sockets:
            return sockets
    for sock in sockets:
        sock.close()
    raise missing or OSError(errno.EADDRNOTAVAIL, f"{host} has no address")


def _bind_one(family: int, address: tuple[str | int, ...], *, only_v6: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and only_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


class _Signals:
    """SIGTERM and SIGINT as a count, and as bytes on a socket that a selector can wait for.

    With `ignore_hangup` SIGHUP does nothing, to the children either: tools that rotate logs send it, and it would end all.
    """

    def __init__(self, *, ignore_hangup: bool) -> None:
        self.count = 0
        self._ignore_hangup = ignore_hangup

    def __enter__(self) -> Self:
        self.wake, self._write = socket.socketpair()
        self.wake.setblocking(False)
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno())
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        if self._ignore_hangup:
            self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self.wake.close()
        self._write.close()


class _Supervisor:
    def __init__(
        self,
        config: ServeConfig,
        sockets: list[socket.socket],
        signals: _Signals,
        app: str,
        maintenance: str | None,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._signals = signals
        self._app = app
        self._children = [Child(WORKER, essential=True) for _ in range(config.workers)]
        if maintenance is not None:
            self._children.append(Child(maintenance, essential=False, due=None))
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals.wake, selectors.EVENT_READ)
        self._environment = child_environment()
        self._serving = False
        self._exit_code = 0

    def run(self, prepare: Callable[[], None] | None, on_ready: Callable[[str, int], None] | None) -> int:
        try:
            if prepare is not None:
                self._start_after(prepare)
            while self._serve_until_end(on_ready):
                self._stop_all()
                for child in self._children:
                    child.due, child.was_ready = 0.0 if child.essential else None, False
                self._serving = False
        finally:
            self._stop_all()
            self._selector.close()
        return self._exit_code

    def _serve_until_end(self, on_ready: Callable[[str, int], None] | None) -> bool:
        """True: start everything again."""
        while not self._signals.count:
            now = time.monotonic()
            for child in self._children:
                if child.due is not None and child.due <= now:
                    self._start(child)
            for child in self._wait(min((c.due for c in self._children if c.due is not None), default=None)):
                verdict = self._attend(child)
                if verdict is Verdict.RESTART_ALL:
                    say("the store asked for a restart of all processes")
                    return True
                if verdict is Verdict.GIVE_UP:
                    return False
            if not self._serving and all(c.is_ready for c in self._children if c.essential):
                self._serving = True
                for child in self._children:
                    if child.process is None and child.due is None:
                        child.due = 0.0  # maintenance: not before, it would only slow the workers' start
                if on_ready is not None:
                    on_ready(*self._sockets[0].getsockname()[:2])
        return False

    def _start_after(self, prepare: Callable[[], None]) -> None:
        waiting = [(child, self._spawn(child)) for child in self._children if child.essential]
        prepare()
        for child, orders in waiting:
            self._order(child, orders)

    def _start(self, child: Child) -> None:
        self._order(child, self._spawn(child))

    def _spawn(self, child: Child) -> Orders:
        """Start the process; it loads its modules and waits for its orders."""
        # Both pipes are close-on-exec, but for the child's end of the ready pipe: no child can hold another's life.
        read_ready, write_ready = os.pipe()
        sockets = tuple(sock.fileno() for sock in self._sockets) if child.essential else ()
        preload = [self._app.partition(":")[0]] if child.essential else []
        child.process = subprocess.Popen(
            [sys.executable, "-P", "-m", child.module, *preload],
            stdin=subprocess.PIPE,
            pass_fds=(*sockets, write_ready),
            env=self._environment,
        )
        os.close(write_ready)
        child.ready_pipe, child.due = read_ready, None
        child.started, child.is_ready = time.monotonic(), False
        self._selector.register(read_ready, selectors.EVENT_READ, child)
        return Orders(self._config, self._app, sockets, write_ready, os.getpid())

    def _order(self, child: Child, orders: Orders) -> None:
        assert child.process is not None
        assert child.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead already; its pipe will say so
            child.process.stdin.write(orders.to_line())
            child.process.stdin.flush()

    def _wait(self, due: float | None) -> list[Child]:
        """Children whose ready pipe has something to say. Returns early for a signal, and when a start is due."""
        timeout = None if due is None else max(0.0, due - time.monotonic())
        children = []
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Child):
                children.append(key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._signals.wake.recv(64)
        return children

    def _attend(self, child: Child) -> Verdict | None:
        """Note that `child` is ready, or decide what follows from its end."""
        if os.read(child.ready_pipe, 1):
            child.is_ready = child.was_ready = True
            return None
        exit_code = self._bury(child)
        verdict = judge_end(child, exit_code, serving=self._serving)
        if verdict is Verdict.START_AGAIN and -exit_code in CRASHES and self._give_up_metadata(exit_code):
            verdict = Verdict.RESTART_ALL
        lived = time.monotonic() - child.started
        say(f"{child.module} ended with {exit_code} after {lived:.1f} s: {verdict.value}")
        child.due = time.monotonic() + pause_before_start(child, lived)
        if verdict is Verdict.GIVE_UP:
            self._exit_code = exit_code if exit_code > 0 else 1
        return verdict

    def _give_up_metadata(self, exit_code: int) -> bool:
        """Let whoever opens the store next rebuild LMDB. False: that was done a short while ago, or cannot be."""
        directory = self._config.data
        if earlier_poison_path(directory).exists():
            return False
        name = signal.Signals(-exit_code).name
        try:
            set_poison(directory, f"{CRASHED} ({name}): LMDB may be damaged", FileOps())
        except OSError as error:
            say(f"LMDB should be rebuilt, and cannot: {error}")
            return False
        return True

    def _bury(self, child: Child) -> int:
        """Free what a dead child leaves; returns its exit code (negative: the signal)."""
        assert child.process is not None
        assert child.process.stdin is not None
        self._selector.unregister(child.ready_pipe)
        os.close(child.ready_pipe)
        with contextlib.suppress(BrokenPipeError):
            child.process.stdin.close()
        try:
            exit_code = child.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its pipe but lives on
            child.process.kill()
            exit_code = child.process.wait()
        child.process, child.is_ready = None, False
        return exit_code

    def _stop_all(self) -> None:
        """End every child: asked to, then killed after the grace or at a second signal."""
        deadline = time.monotonic() + self._config.grace_seconds + KILL_SECONDS
        living = [child for child in self._children if child.process is not None]
        for child in living:
            assert child.process is not None
            child.process.terminate()
        while living and self._signals.count < 2 and time.monotonic() < deadline:
            for child in self._wait(deadline):
                if not os.read(child.ready_pipe, 1):
                    self._bury(child)
                    living.remove(child)
        for child in living:
            assert child.process is not None
            say(f"{child.module} did not end in time: killed")
            child.process.kill()
            self._bury(child)


def child_environment() -> dict[str, str]:
    """The environment for children: they find the same packages, nothing of the current directory, and have few heaps.

    `-P` keeps the current directory out of their path, where a folder named "index" would stand in for ours; a
    checkout that is not installed has to be named.
    """
    root = Path(__file__).resolve().parent.parent
    environment = {"MALLOC_ARENA_MAX": HEAPS, **os.environ}
    if root.name not in ("site-packages", "dist-packages"):
        paths = [str(root), *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def say(text: str) -> None:
    print(f"vaultaire: {text}", file=sys.stderr, flush=True)
