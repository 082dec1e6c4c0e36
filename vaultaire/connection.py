"""One HTTP/1.1 connection: heads in, ASGI calls, and what becomes of the connection afterwards.

What it guarantees:
- One task: it reads a head, awaits the app, and reads the next head. Nothing is queued, so there is nothing to leak
  when a client leaves.
- Deadlines, kept as plain numbers that the worker's watchdog compares (a cancel scope per read and write costs a
  third of a small request): from the first byte of a head to its last, absolute; while idle; while the body or the
  response makes no progress. None runs while the app works.
- After an answer that leaves the client's upload unread the connection ends slowly: half-closed, reading on for a
  while, since a plain close would send a reset that overtakes the answer.
- Where the next request begins is known exactly, or the connection ends.
- No exception of one connection reaches another; every one that is not just a client leaving is logged.

A client that leaves is noticed when the app reads or writes (PeerGone), not while it computes.

Hypercorn's TCPServer, H11Protocol and HTTPStream are replaced as a whole by this class; it stays a TCPServer so that
Hypercorn's own plumbing (configuration, lifespan, worker context) fits.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import parse_socket_addr

from vaultaire.exchange import Exchange
from vaultaire.head import Head, Refused, take_head
from vaultaire.response import plain_response
from vaultaire.transport import PeerGone, TlsTransport, Transport, Wire

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, MutableMapping

    from hypercorn.config import Config

    from vaultaire.config import ServeConfig

    AsgiApp = Callable[
        [
            MutableMapping[str, Any],
            Callable[[], Awaitable[MutableMapping[str, Any]]],
            Callable[[MutableMapping[str, Any]], Awaitable[None]],
        ],
        Awaitable[None],
    ]

HEAD_READ_BYTES = 64 * 1024  # a head and a small body in one call; more makes small requests no faster
KEEP_ALIVE_SECONDS = 60.0  # longer than the pools of the common SDKs keep an idle connection in use
ADDRESS_SHARE = 0.75  # of all connections may come from one address: it may be a proxy, but not everybody
LINGER_BYTES = 4 << 20
LINGER_SECONDS = 2.0

log = logging.getLogger("vaultaire.connection")


class Worker(WorkerContext):
    """What all connections of a process share."""

    def __init__(self, config: ServeConfig, max_connections: int) -> None:
        super().__init__(None)
        self.config = config
        self.max_connections = max_connections
        self.connections: set[Connection] = set()
        self.stopping = False
        self._addresses: dict[str, int] = {}  # connections per client address

    def arrive(self, address: str) -> bool:
        """Count a connection; False: one more than there may be, in all or from this address. `leave` undoes it."""
        count = self._addresses[address] = self._addresses.get(address, 0) + 1
        return len(self.connections) <= self.max_connections and count <= self.max_connections * ADDRESS_SHARE

    def leave(self, address: str) -> None:
        left = self._addresses.pop(address) - 1
        if left:
            self._addresses[address] = left

    def end_overdue(self) -> None:
        """Cancel every connection whose peer let a deadline pass."""
        now = trio.current_time()
        for connection in list(self.connections):
            if connection.wire.is_stalled(now):
                connection.drop()
            elif connection.deadline < now:
                connection.cancel_scope.cancel()

    def end_idle(self) -> None:
        """Cancel every connection that waits for a request, and let the others end with their answer."""
        self.stopping = True
        for connection in [c for c in self.connections if c.waiting]:
            connection.cancel_scope.cancel()


class Connection(TCPServer):
    """Awaiting it serves the connection to its end and closes the socket."""

    def __init__(
        self,
        app: AsgiApp,
        config: Config,
        worker: Worker,
        state: dict[str, Any],
        sock: socket.socket,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.wire = Wire(sock, worker.config.stall_timeout_seconds)
        self.transport: Transport = self.wire if tls is None else TlsTransport(self.wire, tls)
        # Hypercorn's narrower types: an app wrapper and trio's own streams, of which nothing is used here.
        super().__init__(cast("Any", app), config, worker, state, cast("Any", self.transport))
        self.worker = worker
        self._asgi = app
        self.scheme = "http" if tls is None else "https"
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.cancel_scope = trio.CancelScope()
        self.deadline = inf  # of what the connection reads now; writing has its own, in the wire
        self.waiting = True  # no request is under way
        self.ahead = b""  # received, but of the next request
        self.eof = False  # the client has closed its side

    async def run(self) -> None:
        self.worker.connections.add(self)
        try:
            with self.cancel_scope:
                await self._serve()
        except Exception as error:  # one connection's fault must not end the worker
            _report(error)
        except BaseExceptionGroup as group:
            # The app failed while it was being cancelled from further up.
            cancelled, failures = group.split(trio.Cancelled)
            if failures is not None:
                _report(failures)
            if cancelled is not None:
                raise cancelled from None
        finally:
            self.worker.connections.discard(self)
            self.wire.close()

    def drop(self) -> None:
        """End it now, whatever goes on; the client sees a reset."""
        self.wire.drop_unsent()
        self.cancel_scope.cancel()

    async def _serve(self) -> None:
        sock = self.wire.sock
        try:
            self.client = parse_socket_addr(sock.family, sock.getpeername())
            self.server = parse_socket_addr(sock.family, sock.getsockname())
        except OSError:
            return  # gone before it was looked at
        address = self.client[0] if self.client is not None else ""
        welcome = self.worker.arrive(address)
        try:
            self.deadline = trio.current_time() + self.worker.config.head_timeout_seconds
            await self.transport.open()
            if not welcome:
                await self._answer(503, "too many connections", extra=b"retry-after: 1\r\n")
                return
            while await self._one_request():
                pass
        finally:
            self.worker.leave(address)

    async def _one_request(self) -> bool:
        """Serve one request; True if another may follow."""
        self.waiting = True
        head = await self._next_head()
        self.deadline = inf
        self.waiting = False
        if head is None:
            return False
        if type(head) is Refused:
            await self._answer(head.status, head.reason)
            return False
        assert type(head) is Head
        exchange = Exchange(self, head)
        failed = False
        try:
            await self._asgi(exchange.scope(), exchange.receive, exchange.send)
        except Exception as error:  # answered below, in the client's protocol
            failed = True
            _report(error)
        if exchange.complete and not exchange.close:
            return True
        await self._end(exchange, head, failed=failed)
        return False

    async def _next_head(self) -> Head | Refused | None:
        """None: the client has closed, or the server stops."""
        data, self.ahead = self.ahead, b""
        if self.worker.stopping or self.eof:
            return None
        if data:
            # A client that sends many requests ahead must not keep the others waiting.
            await trio.lowlevel.checkpoint()
        self.deadline = trio.current_time() + KEEP_ALIVE_SECONDS
        searched = 0
        while not data or (head := take_head(data, searched)) is None:
            if data and not searched:  # the rest of this head must come within a time that nothing renews
                self.deadline = trio.current_time() + self.worker.config.head_timeout_seconds
            searched = len(data)
            more = await self.transport.receive_some(HEAD_READ_BYTES)
            if not more:
                return None
            data += more
        if type(head) is Head:
            self.ahead = data[head.size :]
        return head

    async def _end(self, exchange: Exchange, head: Head, *, failed: bool) -> None:
        """The last word on a connection that cannot go on after `exchange`."""
        if exchange.gone:
            return
        if exchange.complete:
            await self._linger()
        elif exchange.started:
            if not failed and not self.eof:  # an app that sees its client leave (a probe of readyz) stops too
                log.error("%s %r: the app broke its response off", head.method, head.raw_path)
            if exchange.ends_with_connection:
                self.wire.drop_unsent()
        elif exchange.bad_body is not None:
            await self._answer(400, exchange.bad_body)
        elif not self.eof:
            if not failed:
                log.error("%s %r: the app sent no response", head.method, head.raw_path)
            await self._answer(500, "internal error", method=head.method)

    async def _answer(self, status: int, reason: str, *, method: str = "GET", extra: bytes = b"") -> None:
        await self.transport.send_all(plain_response(status, reason, method=method, extra=extra))
        await self._linger()

    async def _linger(self) -> None:
        self.deadline = inf
        with trio.move_on_after(LINGER_SECONDS):
            await self.transport.say_goodbye()
            await self.wire.discard(LINGER_BYTES)


def _report(error: BaseException) -> None:
    """Log what is more than a client that left."""
    if isinstance(error, PeerGone):
        return
    if isinstance(error, BaseExceptionGroup):
        _, rest = error.split((PeerGone, trio.Cancelled))
        if rest is None:
            return
        error = rest
    log.error("error in a connection", exc_info=error)
