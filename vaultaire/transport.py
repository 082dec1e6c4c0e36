"""The bytes of one accepted connection, in clear (Wire) or under TLS (TlsTransport).

What it guarantees: a write takes any contiguous buffer without copying it (in clear), waits for the peer without
holding anything else up, and while it waits `is_stalled` tells whether the peer has taken a single byte lately. There
is no cancel scope and no task per read or write: whoever watches the connections (vaultaire.server) asks `is_stalled`
now and then and cancels the connection. Reads have no deadline of their own; the connection knows why it reads.

Plain sockets are driven by trio's `wait_readable` and `wait_writable` and nothing above them, which is a third of the
cost of a trio SocketStream per request. TLS is trio's SSLStream over such a socket, ALPN http/1.1.

One reader and one writer at a time, which may be two tasks.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    import ssl

# One send() never takes more: a step is the unit of fairness among connections, and under TLS of memory.
SEND_STEP_BYTES = 1 << 20
# Bytes the kernel takes from us beyond what the peer lets it send. Without it a thousand readers that stopped hold
# 4 MiB of kernel memory each.
UNSENT_BYTES = 512 * 1024
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)


class PeerGone(ConnectionError):  # a condition, not a fault
    """The client is gone; nothing more can be sent to it. An app lets it pass."""


class Transport(Protocol):
    """What a connection reads and writes through."""

    async def open(self) -> None:
        """Make it ready for the first byte. Raises PeerGone."""

    async def receive_some(self, max_bytes: int, /) -> bytes:
        """At most `max_bytes`; empty when the peer has closed or is gone. A cancelled read loses nothing."""

    def receive_nowait(self, max_bytes: int, /) -> bytes | None:
        """What can be had without waiting; None when that is nothing; empty as for `receive_some`."""

    async def send_all(self, data: bytes | memoryview, /) -> None:
        """All of `data` (a memoryview: of bytes), handed to the kernel. Raises PeerGone."""

    async def say_goodbye(self) -> None:
        """Tell the peer that nothing more will come. Never raises PeerGone."""


class Wire(trio.abc.Stream):
    """A connected TCP socket. Also a trio Stream, to carry SSLStream; it is closed by `close` only."""

    def __init__(self, sock: socket.socket, stall_seconds: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self._stall_seconds = stall_seconds
        self._write_deadline = inf
        self._unsent = 0  # what the kernel still held when progress was last seen
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _TCP_NOTSENT_LOWAT is not None:
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def open(self) -> None:
        return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        limit = max_bytes or 1 << 16
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            data = self.receive_nowait(limit)
            if data is not None:
                return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        try:
            return self.sock.recv(max_bytes)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As Transport says; does not yield when the kernel takes everything at once."""
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise PeerGone("the client is gone") from error
        if sent != len(data):
            await self._send_rest(memoryview(data)[sent:])

    async def _send_rest(self, view: memoryview) -> None:
        self._renew()
        try:
            while view:
                await trio.lowlevel.wait_writable(self.fd)
                with contextlib.suppress(BlockingIOError, InterruptedError):
                    view = view[self.sock.send(view[:SEND_STEP_BYTES]) :]
                    self._renew()
        except OSError as error:
            raise PeerGone("the client is gone") from error
        finally:
            self._write_deadline = inf

    def _renew(self) -> None:
        self._write_deadline = trio.current_time() + self._stall_seconds
        self._unsent = self._kernel_unsent()

    def is_stalled(self, now: float) -> bool:
        """True if a write waits and the peer has taken nothing for the stall time.

        The kernel wakes a writer only when a good part of its buffer is free, which a slow reader may not manage in
        the stall time: so its count of unacknowledged bytes is asked before anybody is called stalled.
        """
        if now < self._write_deadline:
            return False
        left = self._kernel_unsent()
        if left >= self._unsent:
            return True
        self._unsent = left
        self._write_deadline = now + self._stall_seconds
        return False

    def _kernel_unsent(self) -> int:
        if sys.platform != "linux":  # elsewhere only a wake-up of the writer counts as progress
            return 0
        try:
            return int(struct.unpack("i", fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
        except OSError:
            return 0

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self.fd)

    async def say_goodbye(self) -> None:
        self.end_writing()

    def end_writing(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def discard(self, limit: int) -> None:
        """Throw away what still arrives until the peer closes, at most `limit` bytes."""
        while limit > 0:
            data = await self.receive_some()
            if not data:
                return
            limit -= len(data)

    async def aclose(self) -> None:
        """Nothing: SSLStream calls it after its farewell, when answers may still be on their way."""
        await trio.lowlevel.checkpoint()

    def drop_unsent(self) -> None:
        """Make the coming close a reset: the kernel frees what the peer has not taken, and the peer sees an error.

        Else the kernel would offer it to a peer that stopped reading for minutes; and an answer whose end is told by
        nothing but the close would look complete.
        """
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.fd)
            self.sock.close()


class TlsTransport:
    """TLS over a wire that its owner closes."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        # Not https_compatible: we do send close_notify, and map a peer that leaves without one to an end ourselves.
        # Every body is delimited by HTTP, so an attacker who cuts the connection cannot make it look complete.
        self._tls = trio.SSLStream(wire, context, server_side=True)

    async def open(self) -> None:
        try:
            await self._tls.do_handshake()
        except trio.BrokenResourceError as error:
            raise PeerGone("no TLS connection came about") from error

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self._tls.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return b""

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return None  # what has arrived is ciphertext, and may be less than a record

    async def send_all(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            for start in range(0, len(view), SEND_STEP_BYTES):
                await self._tls.send_all(view[start : start + SEND_STEP_BYTES])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerGone("the client is gone") from error

    async def say_goodbye(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, OSError):
            await self._tls.aclose()
        self._wire.end_writing()
