"""One connection over a socket pair, under a clock that jumps: deadlines, back-pressure, what an app may do wrong."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypercorn.config import Config

from vaultaire import connection as module
from vaultaire.config import ServeConfig
from vaultaire.connection import KEEP_ALIVE_SECONDS, LINGER_SECONDS, Connection, Worker
from vaultaire.exchange import PIECE_BYTES
from vaultaire.server import watch
from vaultaire.transport import PeerGone

CONFIG = ServeConfig(data=Path("/unused"), stall_timeout_seconds=30, head_timeout_seconds=15)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def tcp_pair():
    """Like socket.socketpair, but with TCP's idea of what has been taken by the peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        theirs.connect(listener.getsockname())
        return listener.accept()[0], theirs


@asynccontextmanager
async def connected(app, *, max_connections=10, pair=socket.socketpair):
    """(the client's end, the worker): one connection that serves `app`."""
    ours, theirs = pair()
    worker = Worker(CONFIG, max_connections)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, worker)
        nursery.start_soon(Connection(app, Config(), worker, {"from": "lifespan"}, ours).run)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as client:
            yield client, worker
        nursery.cancel_scope.cancel()


async def read_all(client):
    data = b""
    async for piece in client:
        data += piece
    return data


async def respond(send, body=b"", headers=()):
    await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body})


async def hello(scope, receive, send):
    await respond(send, b"hello")


def put(length, body=b"", *fields):
    return (
        b"\r\n".join((b"PUT /b/k HTTP/1.1", b"Host: h", b"Content-Length: %d" % length, *fields, b"", b""))
        + body
    )


# -- deadlines


async def test_idle_connection_ends_after_the_keep_alive_time(autojump_clock):
    async with connected(hello) as (client, _):
        await client.send_all(GET)
        await client.receive_some()
        begin = trio.current_time()
        assert await read_all(client) == b""
        assert KEEP_ALIVE_SECONDS <= trio.current_time() - begin < KEEP_ALIVE_SECONDS + 2


async def drip(client):
    while True:
        await client.send_all(b"G")
        await trio.sleep(2)


async def test_deadline_of_a_head_is_not_renewed_by_its_bytes(autojump_clock):
    async with connected(hello) as (client, _):
        begin = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await drip(client)
        assert CONFIG.head_timeout_seconds <= trio.current_time() - begin < CONFIG.head_timeout_seconds + 4


async def test_stalled_upload_is_cancelled_and_a_slow_one_is_not(autojump_clock):
    ended = []

    async def app(scope, receive, send):
        try:
            while (await receive())["more_body"]:
                pass
        finally:
            ended.append(trio.current_time())

    async with connected(app) as (client, _):
        await client.send_all(put(100, b"a"))
        for _ in range(4):
            await trio.sleep(CONFIG.stall_timeout_seconds - 2)
            await client.send_all(b"b")
        begin = trio.current_time()
        assert await read_all(client) == b""
        assert CONFIG.stall_timeout_seconds <= ended[0] - begin < CONFIG.stall_timeout_seconds + 2


async def test_no_deadline_runs_while_the_app_works(autojump_clock):
    async def app(scope, receive, send):
        await receive()
        await trio.sleep(1_000)
        await respond(send, b"late")

    async with connected(app) as (client, _):
        await client.send_all(put(1, b"a"))
        assert (await client.receive_some()).endswith(b"late")


async def test_reader_that_stops_is_dropped_and_one_that_is_slow_is_not(autojump_clock):
    outcome = []

    async def app(scope, receive, send):
        try:
            await respond(send, memoryview(bytes(8 << 20)))
        finally:
            outcome.append(trio.current_time())

    async with connected(app, pair=tcp_pair) as (client, _):
        await client.send_all(GET)
        for _ in range(6):
            await trio.sleep(CONFIG.stall_timeout_seconds - 5)
            assert await client.receive_some(1 << 17)
        assert not outcome
        await trio.sleep(CONFIG.stall_timeout_seconds * 3)
        assert outcome


async def test_lingering_ends_with_a_client_that_never_closes(autojump_clock):
    async with connected(hello) as (client, worker):
        await client.send_all(GET[:-2] + b"Connection: close\r\n\r\n")
        assert (await read_all(client)).endswith(b"hello")
        await trio.sleep(LINGER_SECONDS + 0.1)
        assert not worker.connections


# -- the body is pulled


async def test_nothing_is_read_before_the_app_asks():
    release = trio.Event()

    async def app(scope, receive, send):
        await release.wait()
        first = await receive()
        assert len(first["body"]) <= PIECE_BYTES
        while (await receive())["more_body"]:
            pass
        await respond(send)

    async with connected(app) as (client, worker), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, put(4 << 20, bytes(4 << 20)))
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = worker.connections
        assert len(connection.ahead) < 1 << 17
        release.set()
        assert b"200 OK" in await client.receive_some()


async def test_body_is_handed_over_byte_for_byte_and_the_next_request_untouched():
    bodies = []

    async def app(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        bodies.append(body)
        await respond(send)

    chunked = b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
    async with connected(app) as (client, _):
        await client.send_all(put(3, b"123") + chunked + GET + put(0) + put(2, b"xy", b"Connection: close"))
        await read_all(client)
    assert bodies == [b"123", b"abcd", b"", b"", b"xy"]


async def test_client_that_leaves_in_the_body_is_a_disconnect():
    seen = []

    async def app(scope, receive, send):
        while True:
            seen.append((await receive())["type"])
            if seen[-1] == "http.disconnect":
                seen.append((await receive())["type"])
                return

    async with connected(app) as (client, _):
        await client.send_all(put(100, b"abc"))
        await client.send_eof()
        assert await read_all(client) == b""
    assert seen == ["http.request", "http.disconnect", "http.disconnect"]


async def test_bad_chunks_are_a_disconnect_to_the_app_and_a_400_to_the_client():
    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    async with connected(app) as (client, _):
        await client.send_all(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc")
        await client.send_eof()
        assert (await read_all(client)).startswith(b"HTTP/1.1 400 ")


async def test_receive_after_the_body_waits_for_the_client_and_keeps_what_it_sends_ahead():
    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await respond(send, scope["raw_path"])
            nursery.cancel_scope.cancel()

    async with connected(app) as (client, _):
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(b"GET /second HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert (await read_all(client)).endswith(b"/second")


async def test_task_that_outlives_its_request_cannot_touch_the_next():
    stray = []

    async def app(scope, receive, send):
        for call in stray:
            with pytest.raises(RuntimeError):
                await call({"type": "http.response.body", "body": b"stray"})
        stray.append(send)
        await respond(send, b"mine")

    async with connected(app) as (client, _):
        await client.send_all(GET + GET[:-2] + b"Connection: close\r\n\r\n")
        assert b"stray" not in await read_all(client)
    assert len(stray) == 2


# -- what the app sees and may send


async def test_scope_says_what_was_on_the_wire():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await respond(send)

    async with connected(app) as (client, worker):
        await client.send_all(b"GET //b/%C3%A4%2F%80?x=%20& HTTP/1.1\r\nHost: h\r\nX-A: \t b  c \r\n\r\n")
        await client.receive_some()
        (scope,) = scopes
        assert (scope["raw_path"], scope["query_string"]) == (b"//b/%C3%A4%2F%80", b"x=%20&")
        assert scope["path"] == "//b/ä/\ufffd"
        assert scope["headers"] == [(b"host", b"h"), (b"x-a", b"b  c")]
        assert (scope["type"], scope["method"], scope["scheme"], scope["http_version"]) == (
            "http",
            "GET",
            "http",
            "1.1",
        )
        assert scope["state"] == {"from": "lifespan", "connection": next(iter(worker.connections))}


async def test_head_and_first_piece_leave_in_one_write(monkeypatch):
    writes = []
    send_all = module.Wire.send_all

    async def note(self, data):
        writes.append(bytes(data))
        await send_all(self, data)

    monkeypatch.setattr(module.Wire, "send_all", note)
    async with connected(hello) as (client, _):
        await client.send_all(GET)
        await client.receive_some()
    assert [data[-5:] for data in writes] == [b"hello"]


async def test_pieces_of_any_kind_and_size_are_sent():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (
            b"a" * 100_000,
            memoryview(b"bb")[1:],
            bytearray(b"c"),
            b"",
            memoryview(bytes(8)).cast("Q"),
        ):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async with connected(app) as (client, _):
        await client.send_all(GET[:-2] + b"Connection: close\r\n\r\n")
        _, _, body = (await read_all(client)).partition(b"\r\n\r\n")
    assert (
        body == b"186a0\r\n" + b"a" * 100_000 + b"\r\n1\r\nb\r\n1\r\nc\r\n8\r\n" + bytes(8) + b"\r\n0\r\n\r\n"
    )


async def test_client_that_left_is_noticed_by_the_next_write_and_not_before(caplog):
    finished = []

    async def app(scope, receive, send):
        await trio.testing.wait_all_tasks_blocked()
        finished.append("computed")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(PeerGone):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        with pytest.raises(PeerGone):
            await send({"type": "http.response.body", "body": b""})
        finished.append("told")
        raise PeerGone

    async with connected(app) as (client, worker):
        await client.send_all(GET)
        await client.aclose()
        while worker.connections:
            await trio.testing.wait_all_tasks_blocked()
    assert finished == ["computed", "told"]
    assert not caplog.records


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), ExceptionGroup("several", [ValueError("x"), PeerGone()])]
)
async def test_fault_of_the_app_is_logged_answered_and_ends_the_connection(error, caplog):
    async def app(scope, receive, send):
        raise error

    async with connected(app) as (client, _):
        await client.send_all(GET + GET)
        await client.send_eof()
        answer = await read_all(client)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_fault_while_being_cancelled_ends_neither_worker_nor_cancellation(caplog):
    async def fail():
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async def app(scope, receive, send):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    async with connected(app) as (client, worker):
        await client.send_all(GET)
        while not any(not c.waiting for c in worker.connections):
            await trio.testing.wait_all_tasks_blocked()
    assert [record.message for record in caplog.records] == ["error in a connection"]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 200}] * 2,
        [{"type": "http.response.push"}],
        [
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]},
            {"type": "http.response.body"},
        ],
        [
            {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\nc")]},
            {"type": "http.response.body"},
        ],
    ],
)
async def test_responses_that_make_no_sense_become_a_500(messages, caplog):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    async with connected(app) as (client, _):
        await client.send_all(GET)
        await client.send_eof()
        assert (await read_all(client)).startswith(b"HTTP/1.1 500 ")
    assert len(caplog.records) == 1


# -- the worker's hand on its connections


async def test_stop_ends_idle_connections_and_lets_others_end_with_their_answer():
    release = trio.Event()

    async def app(scope, receive, send):
        await release.wait()
        await respond(send, b"done")

    async with connected(app) as (busy, worker):
        await busy.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        worker.end_idle()
        release.set()
        answer = await read_all(busy)
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b"done")
    async with connected(app) as (idle, worker):
        await trio.testing.wait_all_tasks_blocked()
        worker.end_idle()
        assert await read_all(idle) == b""


def test_one_address_does_not_take_all_connections():
    worker = Worker(CONFIG, max_connections=8)
    assert all(worker.arrive("192.0.2.1") for _ in range(6))
    assert not worker.arrive("192.0.2.1")
    assert worker.arrive("192.0.2.2"), "there is room for others"
    worker.leave("192.0.2.1")
    worker.leave("192.0.2.1")
    assert worker.arrive("192.0.2.1")


async def test_connection_over_the_limit_is_told_so():
    async with connected(hello, max_connections=0) as (client, _):
        await client.send_eof()
        assert (await read_all(client)).startswith(b"HTTP/1.1 503 ")
