"""One worker process from inside: lifespan, listeners, TLS, signals, the watchdog, the graceful stop. No HTTP.

What it guarantees: `ready` is called once the app has started up and every socket listens; from the stop on (SIGTERM,
SIGINT or `Stop.request`) no connection is accepted, idle ones close at once, running requests have until shortly
before the grace ends, and then everything is cancelled, whatever a client does. An error in one connection ends
that connection only.

Left to others: the process around it (vaultaire.worker), the requests (vaultaire.connection).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import signal
from math import inf
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.utils import LifespanFailureError

from vaultaire.connection import Connection, Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Sequence

    from vaultaire.config import ServeConfig
    from vaultaire.connection import AsgiApp

BACKLOG = 1024
# Descriptors kept for everything that is no connection: packs, LMDB, listeners, pipes.
RESERVED_DESCRIPTORS = 256
# An idle connection costs about 8 KiB, so that many stay below the memory of one upload budget.
MAX_CONNECTIONS = 16 * 1024
# Beyond the limit this many more are told so; any further one is just closed.
REFUSALS_AT_ONCE = 64
ACCEPTS_IN_A_ROW = 64
WATCHDOG_SECONDS = 1.0

log = logging.getLogger("vaultaire.server")


class Stop:
    """Whether, and with which exit code, the worker shall stop. May be made before trio runs; used in its thread."""

    def __init__(self) -> None:
        self.exit_code = 0
        self._requested = trio.Event()

    def request(self, exit_code: int = 0) -> None:
        """Stop gracefully. 75 (EX_TEMPFAIL) makes the supervisor restart all processes of the store."""
        self.exit_code = max(self.exit_code, exit_code)
        self._requested.set()

    async def wait(self) -> None:
        await self._requested.wait()


async def serve_worker(
    app: AsgiApp,
    config: ServeConfig,
    sockets: Sequence[socket.socket],
    *,
    ready: Callable[[], None],
    stop: Stop | None = None,
) -> int:
    """Serve `app` on the bound `sockets` (closed on return) until stopped; returns the exit code.

    Must run in the main thread, for the signals. Raises AppFailed, in a group, if the app does not start up or its
    lifespan does not last.
    """
    stop = stop or Stop()
    hypercorn = hypercorn_config(config)
    tls = hypercorn.create_ssl_context()
    state: dict[str, Any] = {}
    lifespan = StrictLifespan(app, hypercorn, state)
    worker = Worker(config, connection_limit())
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as life:
            life.start_soon(_stop_on_signal, signals, stop)
            await life.start(lifespan.handle_lifespan)
            await lifespan.wait_for_completed_startup()
            for listener in sockets:
                listener.setblocking(False)
                listener.listen(BACKLOG)

            def connect(sock: socket.socket) -> None:
                connections.start_soon(Connection(app, hypercorn, worker, state, sock, tls).run)

            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(watch, worker)
                    for listener in sockets:
                        accepting.start_soon(accept, listener, worker, connect)
                    ready()
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                for listener in sockets:
                    listener.close()
                worker.end_idle()
                connections.cancel_scope.deadline = trio.current_time() + request_grace(config.grace_seconds)
            await lifespan.wait_for_shutdown()
            life.cancel_scope.cancel()
    return stop.exit_code


class AppFailed(LifespanFailureError):
    """The app did not start up, or its lifespan ended with an error; its text is the app's own message.

    A subclass, as Hypercorn lets none but that pass.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StrictLifespan(Lifespan):
    """Hypercorn's, but an app is served only after it said it has started up, and only while its lifespan lasts.

    Hypercorn's own goes on without lifespan if an app raises there, now or later (its background tasks would be gone
    without a word); and after a failed startup its waiter wakes up before the failure arrives, which is long enough
    to report a worker as ready that is about to end.
    """

    def __init__(self, app: AsgiApp, config: Config, state: dict[str, Any]) -> None:
        super().__init__(cast("Any", self._run_app), config, state)
        self._asgi = app
        self._completed = False

    async def _run_app(self, scope: Any, receive: Any, send: Any, *_: Any) -> None:  # noqa: ANN401  # Hypercorn's unions
        try:
            await self._asgi(scope, receive, send)
        except Exception as error:
            if _has_failure(error):
                raise
            raise AppFailed("serving" if self._completed else "startup", str(error)) from error
        if not self._completed:
            raise AppFailed("startup", "the app ended without having started")

    async def asgi_send(self, message: Any) -> None:  # noqa: ANN401  # likewise
        if message["type"] == "lifespan.startup.complete":
            self._completed = True
        if message["type"] == "lifespan.startup.failed":
            raise AppFailed("startup", message.get("message", ""))
        await super().asgi_send(message)

    async def wait_for_completed_startup(self) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            await self.wait_for_startup()
        if not self._completed:
            await trio.sleep_forever()  # the failure is on its way and cancels us


def _has_failure(error: Exception) -> bool:
    """The app has said itself what is wrong (Hypercorn raises that inside the app)."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(AppFailed) is not None
    return isinstance(error, AppFailed)


async def _stop_on_signal(signals: AsyncIterator[int], stop: Stop) -> None:
    # To the very end: a second signal must not find the default handler and kill us in the middle.
    async for _ in signals:
        stop.request()


async def watch(worker: Worker) -> None:
    """The one place where deadlines of connections are looked at: a request sets numbers, never timers."""
    config = worker.config
    pause = min(WATCHDOG_SECONDS, config.stall_timeout_seconds / 4, config.head_timeout_seconds / 4)
    while True:
        await trio.sleep(pause)
        worker.end_overdue()


async def accept(listener: socket.socket, worker: Worker, connect: Callable[[socket.socket], None]) -> None:
    """Hand every new connection to `connect`, for ever."""
    while True:
        await trio.lowlevel.wait_readable(listener.fileno())
        for _ in range(ACCEPTS_IN_A_ROW):
            try:
                sock, _address = listener.accept()
            except (BlockingIOError, InterruptedError):
                break  # another worker was faster, or that was all
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error("cannot accept connections: %s", error)
                    await trio.sleep(0.1)  # it stays readable: without a pause this is a busy loop
                    break
                continue  # that one client left again; the listener is sound
            if len(worker.connections) >= worker.max_connections + REFUSALS_AT_ONCE:
                sock.close()
                continue
            connect(sock)


def hypercorn_config(config: ServeConfig) -> Config:
    """Hypercorn's part of the settings. Its own timeouts are not used: they do not know who is waiting for whom."""
    hypercorn = Config()
    hypercorn.alpn_protocols = ["http/1.1"]
    hypercorn.certfile = str(config.tls_cert) if config.tls_cert else None
    hypercorn.keyfile = str(config.tls_key) if config.tls_key else None
    hypercorn.errorlog = None  # what it would log we raise
    hypercorn.startup_timeout = inf  # rebuilding a large index takes as long as it takes
    hypercorn.shutdown_timeout = inf  # the supervisor ends what outlasts the grace
    return hypercorn


def connection_limit() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, soft - RESERVED_DESCRIPTORS))


def request_grace(grace_seconds: float) -> float:
    """What running requests get of the grace: a little is left for the app to shut down."""
    return grace_seconds - min(1.0, grace_seconds / 4)
