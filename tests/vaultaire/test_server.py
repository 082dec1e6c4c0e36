"""A worker from inside: it is ready when the app is, it ends when the app's lifespan does, and stops when told to."""

from __future__ import annotations

import errno
import socket
from functools import partial
from pathlib import Path

import pytest
import trio

from vaultaire.config import ServeConfig
from vaultaire.server import AppFailed, Stop, accept, request_grace, serve_worker

CONFIG = ServeConfig(data=Path("/unused"), grace_seconds=4)


def lifespan_app(*, during=None, events=None):
    """An app that answers every request with 200, and awaits `during` as long as it is up."""
    events = events if events is not None else []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"up"})
            return
        await receive()
        events.append("startup")
        await send({"type": "lifespan.startup.complete"})
        async with trio.open_nursery() as nursery:
            if during is not None:
                nursery.start_soon(during)
            await receive()
            nursery.cancel_scope.cancel()
        events.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    return app


@pytest.fixture
def listener():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


async def test_worker_is_ready_when_the_app_has_started_and_the_port_answers(listener):
    events, stop = [], Stop()
    app = lifespan_app(events=events)

    def ready():
        events.append("ready")
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        nursery.start_soon(ask, listener.getsockname())

    async def ask(address):
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            data = b"".join([piece async for piece in stream])
        assert data.endswith(b"up")
        events.append("answered")
        stop.request(75)

    async with trio.open_nursery() as nursery:
        assert await serve_worker(app, CONFIG, [listener], ready=ready, stop=stop) == 75
    assert events == ["startup", "ready", "answered", "shutdown"]


async def failing():
    raise RuntimeError("a background task failed")


async def silent(scope, receive, send):
    return


async def says_so(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the disk is full"})


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (lifespan_app(during=failing), "unhandled errors|Exceptions from Trio nursery"),
        (silent, "ended without having started"),
        (says_so, "^the disk is full$"),
    ],
)
async def test_worker_does_not_outlive_the_lifespan_of_its_app(app, message, listener):
    ready = []
    with pytest.RaisesGroup(pytest.RaisesExc(AppFailed, match=message), flatten_subgroups=True):
        await serve_worker(app, CONFIG, [listener], ready=partial(ready.append, True))
    assert ready == ([True] if "errors" in message else [])


async def test_request_that_does_not_end_has_no_more_than_the_grace(listener, autojump_clock):
    stop, started = Stop(), trio.Event()

    async def app(scope, receive, send):
        if scope["type"] == "http":
            started.set()
            await trio.sleep_forever()
        await lifespan_app()(scope, receive, send)

    async def ask():
        async with await trio.open_tcp_stream(*listener.getsockname()) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await started.wait()
            stop.request()
            begin = trio.current_time()
            assert await stream.receive_some() == b""
            assert trio.current_time() - begin == pytest.approx(request_grace(CONFIG.grace_seconds))

    async with trio.open_nursery() as nursery:
        ready = partial(nursery.start_soon, ask)
        assert await serve_worker(app, CONFIG, [listener], ready=ready, stop=stop) == 0


class FaultyListener:
    """Accepts as told by a list of errors and sockets; cancels `scope` after the last."""

    def __init__(self, listener, outcomes, scope):
        self.fileno = listener.fileno
        self.outcomes = outcomes
        self.scope = scope

    def accept(self):
        if not self.outcomes:
            self.scope.cancel()
            raise BlockingIOError
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, None


async def test_accepting_survives_clients_that_leave_and_a_lack_of_descriptors(
    listener, autojump_clock, caplog
):
    class Idle:
        connections = frozenset()
        max_connections = 1

    listener.listen()
    accepted = []
    outcomes = [
        ConnectionAbortedError(),
        OSError(errno.EMFILE, "too many"),
        "a",
        OSError(errno.EHOSTUNREACH, ""),
        "b",
    ]
    with socket.create_connection(listener.getsockname()), trio.CancelScope() as scope:
        await accept(FaultyListener(listener, outcomes, scope), Idle, accepted.append)
    assert accepted == ["a", "b"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
