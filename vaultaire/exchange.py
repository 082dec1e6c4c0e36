"""One request and its response, as ASGI shows them to the app: `scope()`, `receive`, `send`.

What it guarantees:
- The body is pulled: nothing is read from the socket but when the app asks, so a slow app slows its client down and
  at most one piece (256 KiB; 32 among many connections) is held here. "100 Continue" goes out with the first such
  read, never before, so a request that is refused by its head costs its client no upload.
- A read of the body ends when no byte comes for the stall time; while the app works there is no deadline.
- What leaves is one well-formed response or is cut short visibly: an app that sends less or more than its own
  Content-Length gets a RuntimeError, and the connection ends.
- `receive` after the body waits for the client to leave. Requests that a client sends ahead are kept for later.
- After its app has returned an exchange is dead: a stray task that still holds it cannot touch the next request.

Left to vaultaire.connection: the request's head, what happens to the connection afterwards.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import trio

from vaultaire.chunked import ChunkedDecoder, ChunkedError
from vaultaire.response import Framing, response_head
from vaultaire.transport import PeerGone

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from vaultaire.connection import Connection
    from vaultaire.head import Head

PIECE_BYTES = 256 * 1024  # 64 KiB costs twice the CPU, 1 MiB no less than this
CROWD_PIECE_BYTES = 32 * 1024
CROWD_CONNECTIONS = 256  # with more than these, what one read may take in is no longer small change
JOIN_BYTES = (
    64 * 1024
)  # a response head is copied together with at most so much of its body: one packet train
DRAIN_BYTES = 64 * 1024  # so much unread body is swallowed rather than lose the connection
AHEAD_BYTES = 64 * 1024  # so much of further requests is taken in while an app waits for the client to leave

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WRONG_LENGTH = "the response's body does not have the length its Content-Length says"
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Exchange:
    """What the flags mean is said at their assignment; only the connection reads them."""

    __slots__ = (
        "_connection",
        "_decoder",
        "_end_told",
        "_expects_continue",
        "_finished",
        "_framing",
        "_head",
        "_left",
        "_reading",
        "_response_left",
        "_start",
        "bad_body",
        "body_read",
        "close",
        "complete",
        "gone",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head
        self._expects_continue = head.expects_continue
        self._left = head.content_length or 0
        self._decoder = ChunkedDecoder() if head.chunked else None
        self._reading = False
        self._end_told = False  # the app has seen more_body=False
        self._start: MutableMapping[str, Any] | None = None  # the app's response start, not yet sent
        self._framing: Framing | None = None  # None: the response has not begun
        self._response_left = 0
        self._finished: trio.Event | None = None
        self.body_read = not head.has_body  # the socket is at the next request
        self.bad_body: str | None = None  # why the body cannot be understood
        self.gone = False  # the client cannot be written to any more
        self.complete = False  # the whole response is with the kernel
        self.close = False  # the connection ends with this response

    @property
    def started(self) -> bool:
        """Bytes of the response may have left."""
        return self._framing is not None

    @property
    def ends_with_connection(self) -> bool:
        return self._framing is Framing.CLOSE

    def scope(self) -> dict[str, Any]:
        head, connection = self._head, self._connection
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.http_version,
            "method": head.method,
            "scheme": connection.scheme,
            "path": unquote(head.raw_path.decode("ascii")),
            "raw_path": head.raw_path,
            "query_string": head.query_string,
            "root_path": "",
            "headers": head.headers,
            "client": connection.client,
            "server": connection.server,
            "state": {**connection.state, "connection": connection},
            "extensions": {},
        }

    # -- the request's body

    async def receive(self) -> dict[str, Any]:
        """The next piece of the body, or http.disconnect: the client left, or sent a body that is none."""
        if self.body_read:
            if self._end_told:
                return await self._wait_for_disconnect()
            self._end_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._expects_continue and self._framing is None:
            self._expects_continue = False
            if not self._connection.ahead and not await self._say_continue():
                return {"type": "http.disconnect"}
        piece = await self._body_piece()
        if piece is None:
            return {"type": "http.disconnect"}
        self._end_told = self.body_read
        return {"type": "http.request", "body": piece, "more_body": not self.body_read}

    async def _say_continue(self) -> bool:
        try:
            await self._connection.transport.send_all(_CONTINUE)
        except PeerGone:
            self.gone = True
        return not self.gone

    async def _body_piece(self) -> bytes | None:
        while self.bad_body is None:
            data = self._from_ahead() or await self._from_socket()
            if not data:
                self._connection.eof = True
                return None
            piece = self._take_in(data)
            if piece or self.body_read:
                return piece
        return None

    def _from_ahead(self) -> bytes:
        connection = self._connection
        limit = PIECE_BYTES if self._decoder else self._left
        data, connection.ahead = connection.ahead[:limit], connection.ahead[limit:]
        return data

    async def _from_socket(self) -> bytes:
        connection = self._connection
        if connection.eof:
            return b""
        self._reading = True
        connection.deadline = trio.current_time() + connection.worker.config.stall_timeout_seconds
        try:
            return await connection.transport.receive_some(self._wanted())
        finally:
            connection.deadline = inf
            self._reading = False

    def _wanted(self) -> int:
        """Never a byte of the next request, where the length tells."""
        crowded = len(self._connection.worker.connections) > CROWD_CONNECTIONS
        most = CROWD_PIECE_BYTES if crowded else PIECE_BYTES
        return most if self._decoder else min(self._left, most)

    def _take_in(self, data: bytes) -> bytes:
        """Body bytes in `data`, which came next. Sets `bad_body` where there is no making sense of them."""
        if self._decoder is None:
            self._left -= len(data)
            self.body_read = not self._left
            return data
        try:
            piece = self._decoder.feed(data)
        except ChunkedError as error:
            self.bad_body = str(error)
            return b""
        if self._decoder.done:
            self.body_read = True
            self._connection.ahead = self._decoder.unused + self._connection.ahead
        return piece

    def _swallow_rest(self) -> bool:
        """Take in and forget what is left of the body if it is small and here already; True if all of it was.

        Not while another task reads it, nor where the client waits for our word before it sends.
        """
        budget = DRAIN_BYTES
        connection = self._connection
        while not self.body_read and self.bad_body is None:
            if self._reading or self._expects_continue or self._left > budget or budget <= 0:
                return False
            data = self._from_ahead() or connection.transport.receive_nowait(self._wanted())
            if not data:
                return False
            budget -= len(data)
            self._take_in(data)
        return self.body_read

    async def _wait_for_disconnect(self) -> dict[str, Any]:
        connection = self._connection
        while not (connection.eof or self.gone or self.complete):
            if len(connection.ahead) >= AHEAD_BYTES:
                self._finished = self._finished or trio.Event()
                await self._finished.wait()
                break
            data = await connection.transport.receive_some(AHEAD_BYTES)
            connection.ahead += data
            connection.eof = not data
        return {"type": "http.disconnect"}

    # -- the response

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Raises PeerGone (an OSError, as ASGI wants it) when the client is gone, RuntimeError for what makes no sense.

        The head leaves with the first piece of the body, in one write.
        """
        if self.gone:
            raise PeerGone("the client is gone")
        kind = message["type"]
        if kind == "http.response.body" and not self.complete:
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start" and self._start is None and self._framing is None:
            self._start = message
        else:
            raise RuntimeError(f"{kind} makes no sense here")

    async def _send_body(self, body: bytes | memoryview, *, more: bool) -> None:
        if type(body) is not bytes:
            body = memoryview(body).cast("B")
        prefix = b"" if self._framing else self._begin(None if more else len(body))
        suffix = b""
        if self._framing is Framing.LENGTH:
            self._count(len(body), more=more)
        elif self._framing is Framing.NONE:
            body = b""
        elif self._framing is Framing.CHUNKED:
            prefix, suffix = _chunk_marks(prefix, len(body), more=more)
        try:
            await self._write(prefix, body, suffix)
        except PeerGone:
            self.gone = True
            raise
        if more:
            # A fast reader never makes a write wait: without this one download could keep all others waiting.
            await trio.lowlevel.checkpoint()
        else:
            self.complete = True
            if self._finished:
                self._finished.set()

    def _begin(self, whole_length: int | None) -> bytes:
        """The response's head; from now on the response has started."""
        if self._start is None:
            raise RuntimeError("http.response.body before http.response.start")
        connection = self._connection
        ends = not self._head.keep_alive or connection.eof or connection.worker.stopping
        # Only for a response that ends here: later on the app may still want to read the body.
        settled = self.body_read or (whole_length is not None and self._swallow_rest())
        planned = response_head(
            self._start["status"],
            self._start.get("headers", ()),
            method=self._head.method,
            http_version=self._head.http_version,
            whole_length=whole_length,
            close=ends or not settled,
        )
        if planned.framing is Framing.LENGTH and whole_length not in (None, planned.left):
            raise RuntimeError(_WRONG_LENGTH)  # while an error can still be answered
        self._framing, self._response_left, self.close = planned.framing, planned.left, planned.close
        if self._expects_continue and not planned.close:
            # There was no body to ask for. botocore takes a final answer without the interim one as said for good, and
            # reads the head of the connection's next answer as a body, until it times out.
            return _CONTINUE + planned.data
        return planned.data

    def _count(self, size: int, *, more: bool) -> None:
        self._response_left -= size
        if self._response_left < 0 or (self._response_left and not more):
            raise RuntimeError(_WRONG_LENGTH)

    async def _write(self, prefix: bytes, body: bytes | memoryview, suffix: bytes) -> None:
        send_all = self._connection.transport.send_all
        if len(body) <= JOIN_BYTES:
            await send_all(b"".join((prefix, body, suffix)) if prefix or suffix else body)
            return
        view = memoryview(body)
        if prefix:
            await send_all(b"".join((prefix, view[:JOIN_BYTES])))
            view = view[JOIN_BYTES:]
        await send_all(view)
        if suffix:
            await send_all(suffix)


def _chunk_marks(prefix: bytes, size: int, *, more: bool) -> tuple[bytes, bytes]:
    """What goes before and after a piece in the chunked coding; an empty chunk would end the body too early."""
    before = prefix + b"%x\r\n" % size if size else prefix
    after = b"\r\n" if size else b""
    return before, after if more else after + b"0\r\n\r\n"
