"""The internals of Hypercorn, h11, quart-trio and trio that the front relies on exist, with the expected shape.

They are pinned in pyproject.toml; this file says what to look at when a pin moves.
"""

from __future__ import annotations

import inspect

import h11
import pytest
import trio
from h11._connection import _body_framing
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import LifespanFailureError, parse_socket_addr
from quart.asgi import ASGIHTTPConnection
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (TCPServer, ["app", "config", "context", "state", "stream"]),
        (TCPServer.run, ["self"]),
        (TCPServer.__await__, ["self"]),
        (WorkerContext, ["max_requests"]),
        (Lifespan, ["app", "config", "state"]),
        (Lifespan.handle_lifespan, ["self", "task_status"]),
        (Lifespan.wait_for_startup, ["self"]),
        (Lifespan.wait_for_shutdown, ["self"]),
        (Lifespan.asgi_send, ["self", "message"]),
        (LifespanFailureError, ["stage", "message"]),
        (Config.create_ssl_context, ["self"]),
        (parse_socket_addr, ["family", "address"]),
        (TrioASGIHTTPConnection.__init__, ["self", "app", "scope"]),
        (TrioASGIHTTPConnection.__call__, ["self", "receive", "send"]),
        (ASGIHTTPConnection.__init__, ["self", "app", "scope"]),
        (QuartTrio.asgi_app, ["self", "scope", "receive", "send"]),
        (h11.Request.__init__, ["self", "method", "headers", "target", "http_version", "_parsed"]),
        (_body_framing, ["request_method", "event"]),
        (trio.SSLStream.do_handshake, ["self"]),
        (trio.lowlevel.wait_readable, ["fd"]),
        (trio.lowlevel.wait_writable, ["fd"]),
        (trio.lowlevel.notify_closing, ["fd"]),
    ],
)
def test_function_takes_what_we_give_it(function, expected):
    assert parameters(function) == expected


def test_server_settings_we_set_exist():
    for name in ("alpn_protocols", "certfile", "keyfile", "errorlog", "startup_timeout", "shutdown_timeout"):
        assert hasattr(Config, name)


def test_app_lets_us_choose_the_class_for_http():
    assert issubclass(QuartTrio.asgi_http_class, ASGIHTTPConnection)


def test_h11_still_judges_framing_and_host_of_a_parsed_request():
    def request(*headers):
        h11.Request(method=b"GET", target=b"/", http_version=b"1.1", headers=list(headers), _parsed=True)

    request((b"host", b"h"))
    for headers in (
        [],
        [(b"host", b"h"), (b"host", b"i")],
        [(b"host", b"h"), (b"content-length", b"x")],
        [(b"host", b"h"), (b"transfer-encoding", b"gzip")],
    ):
        with pytest.raises(h11.LocalProtocolError):
            request(*headers)


def test_h11_says_not_implemented_of_unknown_codings():
    with pytest.raises(h11.LocalProtocolError) as caught:
        h11.Request(
            method=b"GET",
            target=b"/",
            http_version=b"1.1",
            headers=[(b"host", b"h"), (b"transfer-encoding", b"gzip, chunked")],
            _parsed=True,
        )
    assert caught.value.error_status_hint == 501
