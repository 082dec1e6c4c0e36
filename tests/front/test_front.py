"""What a client sees of the front, byte by byte: in clear and under TLS, against real processes."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from tests.front.conftest import GRACE_SECONDS, HEAD_SECONDS, STALL_SECONDS
from tests.front.harness import eventually, is_alive

GET = "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"


def connections(front):
    return int(front.get("/connections").body)


# -- 100 Continue


def test_continue_is_sent_when_the_app_reads(front):
    with front.connect() as client:
        client.send("PUT /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.response().status == 100
        answer = client.request(b"abc")
        assert (answer.status, answer.body) == (200, b"abc")
        assert client.request(GET).status == 200


def test_refusal_takes_the_place_of_continue(front):
    with front.connect() as client:
        client.send("PUT /refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        answer = client.response()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert client.is_closed()


def test_no_continue_for_a_body_that_is_here_already(front):
    with front.connect() as client:
        client.send("PUT /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
        assert client.response().body == b"abc"


@pytest.mark.parametrize(("path", "status"), [("/echo", 200), ("/refuse", 403)])
def test_continue_precedes_the_answer_of_a_connection_that_goes_on(front, path, status):
    """Without it botocore takes its next request on this connection for answered, and waits for the end of time."""
    with front.connect() as client:
        for _ in range(2):
            client.send(
                f"PUT {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
            )
            assert client.response().status == 100
            answer = client.response()
            assert (answer.status, answer.headers.get("connection")) == (status, None)
        assert client.request(GET).status == 200


# -- early answers


@pytest.mark.parametrize("attempt", range(5))
def test_early_answer_arrives_before_three_unread_megabytes_are_cut_off(front, attempt):
    with front.connect() as client:
        client.send("PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
        client.send(bytes(3_000_000))
        answer = client.response()
        assert (answer.status, answer.body, answer.headers["connection"]) == (403, b"<Error/>", "close")
        assert client.is_closed()


def test_clients_that_leave_after_an_early_answer_leave_nothing_behind(front):
    before = int(front.get("/descriptors").body)
    for _ in range(20):
        with front.connect() as client:
            client.send("PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + "x" * 1000)
            client.response()
    eventually(lambda: int(front.get("/descriptors").body) <= before)
    eventually(lambda: connections(front) == 1)


def test_small_body_left_unread_does_not_cost_the_connection(front):
    with front.connect() as client:
        answer = client.request("PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd")
        assert answer.status == 403
        assert "connection" not in answer.headers
        assert client.request(GET).status == 200


def test_small_chunked_body_left_unread_does_not_cost_the_connection(front):
    with front.connect() as client:
        head = "PUT /refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = client.request(head + "4\r\nabcd\r\n0\r\n\r\n" + GET)
        assert answer.status == 403
        assert client.response().body == b"xxxxx"


# -- deadlines


def test_stalled_upload_ends(front):
    with front.connect() as client:
        client.send("PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        begin = time.monotonic()
        assert client.is_closed()
        assert STALL_SECONDS * 0.9 < time.monotonic() - begin < STALL_SECONDS + 2


def test_slow_app_is_not_cut_by_the_stall_timeout(front):
    with front.connect() as client:
        answer = client.request(f"GET /slow?seconds={STALL_SECONDS * 1.6} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.body == b"slow"
        assert client.request(GET).status == 200


def test_stalled_reader_is_dropped(front):
    with front.connect(receive_buffer=8192) as client:
        client.send("GET /big?mib=64 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: connections(front) == 2)
        eventually(lambda: connections(front) == 1)


def test_head_that_drips_in_must_be_complete_in_time(front):
    begin = time.monotonic()
    with front.connect() as client:
        client.send("GET /plain HTTP/1.1\r\nHost: ")
        client.sock.settimeout(0.05)  # the pause between two bytes, unless the server closes
        while True:
            client.send("x")
            try:
                closed = client.is_closed()
            except TimeoutError:
                assert time.monotonic() - begin < HEAD_SECONDS + 3
            else:
                assert closed
                break
    assert time.monotonic() - begin > HEAD_SECONDS * 0.9


# -- stopping


def test_stalled_reader_does_not_delay_the_stop_beyond_the_grace(start_front):
    with start_front() as front, front.connect(receive_buffer=8192) as client:
        client.send("GET /big?mib=64 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: connections(front) == 2)
        children = front.children()
        code, seconds = front.stop()
        assert code == 0
        assert seconds < GRACE_SECONDS + 2  # a stop that waits for the client never ends
        assert not any(map(is_alive, children))


def test_stop_closes_idle_connections_at_once_and_lets_running_requests_end(start_front):
    with start_front(grace_seconds=10) as front, front.connect() as idle, front.connect() as busy:
        assert idle.request(GET).status == 200
        busy.send("GET /slow?seconds=1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: connections(front) == 3)
        begin = time.monotonic()
        front.process.terminate()
        assert idle.is_closed()
        assert time.monotonic() - begin < 1
        answer = busy.response()
        assert (answer.body, answer.headers["connection"]) == (b"slow", "close")
        assert busy.is_closed()
        busy.sock.close()
        assert front.process.wait(5) == 0


# -- heads with more than one reading


REFUSED = {
    "length and chunked": (
        400,
        "PUT /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": (
        400,
        "PUT /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    ),
    "the same length twice": (
        400,
        "PUT /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    "two codings": (
        501,
        "PUT /plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    "absolute form": (400, "GET http://evil/plain HTTP/1.1\r\nHost: x\r\n\r\n"),
    "CONNECT": (400, "CONNECT evil:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "bare LF": (400, "GET /plain HTTP/1.1\nHost: x\n\n"),
    "bare LF inside": (400, "GET /plain HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"),
    "folded line": (400, "GET /plain HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
    "control byte": (400, "GET /plain HTTP/1.1\r\nHost: x\r\nA: b\x01c\r\n\r\n"),
    "target of 20 KB": (414, f"GET /{'k' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n"),
    "head of 40 KB": (431, f"GET /plain HTTP/1.1\r\nHost: x\r\nA: {'b' * 40_000}\r\n\r\n"),
    "no Host": (400, "GET /plain HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, "GET /plain HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
    "lower-case method": (400, "get /plain HTTP/1.1\r\nHost: x\r\n\r\n"),
    "space before the colon": (400, "GET /plain HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"),
    "HTTP/2": (505, "GET /plain HTTP/2.0\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_head_with_two_readings_is_refused_and_nothing_behind_it_runs(front, case):
    status, request = REFUSED[case]
    with front.connect() as client:
        answer = client.request(request + GET)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert client.is_closed()


def test_bad_chunks_are_answered_and_nothing_behind_them_runs(front):
    with front.connect() as client:
        answer = client.request(
            "PUT /drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n" + GET
        )
        assert answer.status in (200, 400)  # 200: this app takes a disconnect for the end
        assert answer.headers["connection"] == "close"
        assert client.is_closed()


# -- bodies, pipelining, connections that go on


def test_chunked_body_may_come_byte_by_byte(front):
    with front.connect() as client:
        for byte in "PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n":
            client.send(byte)
        assert client.response().body == b"abcde"
        assert client.request(GET).status == 200


def test_requests_sent_ahead_are_answered_in_order(front):
    with front.connect() as client:
        put = "PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
        ours = "GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        client.send(GET + put + "abc" + ours + GET + put + "def")
        assert [client.response().body for _ in range(5)] == [b"xxxxx", b"abc", b"ok\n", b"xxxxx", b"def"]


def test_large_bodies_arrive_whole(front):
    data = bytes(range(256)) * 20_000
    with front.connect() as client:
        head = f"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        assert client.request(head + data).body == data
        assert client.request("GET /big?mib=3&chunked HTTP/1.1\r\nHost: x\r\n\r\n").body == bytes(3 << 20)
        assert client.request("GET /big?mib=3&piece=1048576 HTTP/1.1\r\nHost: x\r\n\r\n").body == bytes(
            3 << 20
        )
        assert client.request(GET).status == 200


def test_head_keeps_the_length_and_sends_no_body(front):
    with front.connect() as client:
        answer = client.request("HEAD /plain?size=1234 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.headers["content-length"] == "1234"
        assert client.request(GET).body == b"xxxxx"


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_have_none(front, status):
    with front.connect() as client:
        assert client.request(f"GET /no-body?status={status} HTTP/1.1\r\nHost: x\r\n\r\n").status == status
        assert client.request(GET).body == b"xxxxx"


def test_raw_path_and_query_arrive_untouched(front):
    with front.connect() as client:
        answer = client.request("GET /path HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.body == b"/path?"
        answer = client.request("GET //path/?a=%2f&b=+&&c HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.body == b"//path/?a=%2f&b=+&&c"


def test_date_is_told_but_not_the_software(front):
    headers = front.get("/plain").headers
    assert "date" in headers
    assert "server" not in headers


def test_old_clients_are_answered_and_the_connection_ends(front):
    for request, size in (
        ("GET /plain HTTP/1.0\r\n\r\n", 5),
        ("GET /big?mib=1&chunked HTTP/1.0\r\n\r\n", 1 << 20),
    ):
        with front.connect() as client:
            answer = client.request(request)
            assert (answer.status, len(answer.body)) == (200, size)
            assert answer.headers["connection"] == "close"
            assert client.is_closed()


def test_close_is_done_when_asked_for(front):
    with front.connect() as client:
        answer = client.request("GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET)
        assert (answer.body, answer.headers["connection"]) == (b"xxxxx", "close")
        assert client.is_closed()


# -- faults of the app


@pytest.mark.parametrize("path", ["crash", "injected", "wrong-length?more=20", "wrong-length?more=1"])
def test_fault_of_the_app_ends_its_connection_and_no_other(front, path):
    with front.connect() as other:
        assert other.request(GET).status == 200
        with front.connect() as client:
            client.send(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
            if path.startswith("wrong-length"):
                with pytest.raises(EOFError):
                    client.response()
            else:
                answer = client.response()
                assert (answer.status, answer.headers["connection"]) == (500, "close")
                assert "set-cookie" not in answer.headers
            client.buffer = b""
            assert client.is_closed()
        assert other.request(GET).status == 200


def test_client_that_resets_in_the_middle_harms_nobody(front):
    for request in (
        "GET /big?mib=64 HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
    ):
        with front.connect() as client:
            client.send(request)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: connections(front) == 1)


# -- our own pages


def test_pages_of_ours_go_through_quart(front):
    assert front.get("/-/healthz").body == b"ok\n"
    assert front.get("/-/readyz").body == b"ready\n"
    assert front.get("/-/nothing").status == 404


def test_pages_of_ours_take_no_body(front):
    with front.connect() as client:
        answer = client.request("GET /-/healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
        assert answer.status == 413
        assert client.is_closed()
