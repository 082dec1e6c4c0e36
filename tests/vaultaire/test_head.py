"""The request head: what is refused, what is kept, and that whatever is accepted has the reading h11 gives it."""

from __future__ import annotations

import h11
import pytest
from h11._connection import _body_framing
from hypothesis import given
from hypothesis import strategies as st

from vaultaire.head import MAX_HEAD_BYTES, MAX_TARGET_BYTES, Head, Refused, take_head

PLAIN = b"GET /b/k?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"


def head_of(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def with_fields(*fields: bytes) -> bytes:
    return head_of(b"PUT /b/k HTTP/1.1", b"Host: h", *fields)


def test_head_is_taken_apart_without_touching_path_query_and_values():
    data = head_of(
        b"PUT //b/%2e%2E/k%ff?a=%20+&&b HTTP/1.1", b"HOST:h:9000", b"X-Amz-Meta-A: \tb  c\xff ", b"X-Empty:"
    )
    head = take_head(data + b"body")
    assert isinstance(head, Head)
    assert (head.method, head.raw_path, head.query_string) == ("PUT", b"//b/%2e%2E/k%ff", b"a=%20+&&b")
    assert head.headers == [(b"host", b"h:9000"), (b"x-amz-meta-a", b"b  c\xff"), (b"x-empty", b"")]
    assert head.size == len(data)
    assert not head.has_body


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, with_fields(b"Content-Length: 4", b"Transfer-Encoding: chunked")),
        (400, with_fields(b"Content-Length: 4", b"Content-Length: 4")),
        (400, with_fields(b"Content-Length: 4, 4")),
        (400, with_fields(b"Content-Length: +4")),
        (400, with_fields(b"Content-Length: -1")),
        (400, with_fields(b"Content-Length: 4_0")),
        (400, with_fields(b"Content-Length:")),
        (400, with_fields(b"Content-Length: " + b"9" * 20)),
        (501, with_fields(b"Transfer-Encoding: gzip, chunked")),
        (501, with_fields(b"Transfer-Encoding: xchunked")),
        (501, with_fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
        (400, head_of(b"PUT / HTTP/1.0", b"Transfer-Encoding: chunked")),
        (400, with_fields(b" folded")),
        (400, with_fields(b"A: b", b"\tfolded: yes")),
        (400, with_fields(b"A : b")),
        (400, with_fields(b"A")),
        (400, with_fields(b": b")),
        (400, with_fields(b"A: b\x00c")),
        (400, with_fields(b"A: b\x7fc")),
        (400, with_fields(b"A: b\x0bc")),
        (400, with_fields(b"A: b\rc")),
        (400, with_fields(b"A: b\nc: d")),
        (400, with_fields(b"A\x80: b")),
        (400, with_fields(b"Host: i")),
        (400, head_of(b"GET / HTTP/1.1", b"Host: a/b")),
        (400, head_of(b"GET / HTTP/1.1", b"Host: a b")),
        (400, head_of(b"GET / HTTP/1.1", b"A: b")),
        (400, head_of(b"get / HTTP/1.1", b"Host: h")),
        (400, head_of(b"G\xc3T / HTTP/1.1", b"Host: h")),
        (400, head_of(b"CONNECT h:443 HTTP/1.1", b"Host: h")),
        (400, head_of(b"GET http://h/ HTTP/1.1", b"Host: h")),
        (400, head_of(b"OPTIONS * HTTP/1.1", b"Host: h")),
        (400, head_of(b"GET  / HTTP/1.1", b"Host: h")),
        (400, head_of(b"GET /a b HTTP/1.1", b"Host: h")),
        (400, head_of(b"GET /\xff HTTP/1.1", b"Host: h")),
        (400, head_of(b"GET /\t HTTP/1.1", b"Host: h")),
        (400, head_of(b"GET /", b"Host: h")),
        (400, head_of(b"GET / http/1.1", b"Host: h")),
        (505, head_of(b"GET / HTTP/1.2", b"Host: h")),
        (505, head_of(b"PRI / HTTP/2.0", b"Host: h")),
        (400, b"\x16\x03\x01\x02\x00\x01"),
        (400, b" GET"),
        (400, b"\r\n\r\n\r\n"),
        (400, b"GET / HTTP/1.1\nHost: h\n\n"),
        (414, head_of(b"GET /" + b"k" * MAX_TARGET_BYTES + b" HTTP/1.1", b"Host: h")),
        (431, with_fields(b"A: " + b"b" * MAX_HEAD_BYTES)),
        (431, b"GET /" + b"k" * MAX_HEAD_BYTES),
    ],
)
def test_head_with_two_readings_or_none_is_refused(status, data):
    verdict = take_head(data)
    assert isinstance(verdict, Refused)
    assert verdict.status == status
    assert verdict.reason


def test_bounds_are_inclusive():
    target = b"/" + b"k" * (MAX_TARGET_BYTES - 1)
    assert isinstance(take_head(head_of(b"GET " + target + b" HTTP/1.1", b"Host: h")), Head)
    longest = with_fields(b"A: " + b"b" * (MAX_HEAD_BYTES - len(with_fields(b"A: "))))
    assert len(longest) == MAX_HEAD_BYTES
    assert isinstance(take_head(longest), Head)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (with_fields(), {"content_length": None, "chunked": False, "has_body": False, "keep_alive": True}),
        (with_fields(b"Content-Length: 0"), {"content_length": 0, "has_body": False}),
        (with_fields(b"Content-Length: 007"), {"content_length": 7, "has_body": True}),
        (with_fields(b"Transfer-Encoding: Chunked"), {"chunked": True, "has_body": True}),
        (with_fields(b"Expect: 100-Continue"), {"expects_continue": True}),
        (
            head_of(b"PUT / HTTP/1.0", b"Expect: 100-continue"),
            {"expects_continue": False, "keep_alive": False},
        ),
        (with_fields(b"Connection: a, Close"), {"keep_alive": False}),
        (with_fields(b"Connection: keep-alive", b"Connection: close"), {"keep_alive": False}),
        (b"\r\n" + PLAIN, {"raw_path": b"/b/k", "size": len(PLAIN) + 2}),
        (head_of(b"GET / HTTP/1.1", b"Host: [::1]:9000"), {"raw_path": b"/"}),
        (head_of(b"GET / HTTP/1.1", b"Host:"), {"raw_path": b"/"}),
    ],
)
def test_framing_is_read_off_the_fields(data, expected):
    head = take_head(data)
    assert isinstance(head, Head), head
    assert {name: getattr(head, name) for name in expected} == expected


def test_incomplete_head_waits():
    for cut in range(len(PLAIN)):
        assert take_head(PLAIN[:cut]) is None


# Whole heads of plausible lines, then broken by a few bytes: most are refused, a good part is accepted.
_LINES = [
    b"Host: h",
    b"A: b",
    b"A:  b\tc ",
    b"B:",
    b"a:b:c",
    b"A: \xff\x80",
    b"Content-Length: 3",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Expect: 100-continue",
    b"Content-Length: 3, 3",
    b" c: d",
    b"A : b",
]
_CRUMBS = b"GET|PUT|/|/b/k?q|*|http://h/|HTTP/1.1|HTTP/1.0| |  |\t|:|\r\n|\n|\r|\xff|\x00|\x0b|\x85|x".split(
    b"|"
)
_lines = st.sampled_from(_LINES)
_words = st.sampled_from([*_LINES, *_CRUMBS])
_heads = st.builds(
    lambda first, fields: head_of(first, *fields),
    st.sampled_from(
        [b"GET / HTTP/1.1", b"PUT /b/k?a HTTP/1.1", b"GET / HTTP/1.0", b"get / HTTP/1.1", b"GET * HTTP/1.1"]
    ),
    st.lists(_lines, max_size=4).map(lambda lines: [b"Host: h", *lines]),
)


@st.composite
def _mutated(draw):
    data = draw(_heads)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(_words) + data[at + draw(st.integers(0, 2)) :]
    return data + draw(st.sampled_from([b"", b"abc", PLAIN]))


_anything = st.one_of(_mutated(), st.lists(_words, max_size=12).map(b"".join))


@given(_anything)
def test_what_is_accepted_h11_reads_the_same_way(data):
    head = take_head(data)
    if not isinstance(head, Head):
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data[head.size - len(data[: head.size].removeprefix(b"\r\n")) :])
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert request.method.decode() == head.method
    assert request.target.partition(b"?")[::2] == (head.raw_path, head.query_string)
    assert request.http_version.decode() == head.http_version
    assert [(name, value) for name, value in request.headers if name != b"transfer-encoding"] == [
        (name, value) for name, value in head.headers if name != b"transfer-encoding"
    ]
    assert connection.they_are_waiting_for_100_continue == head.expects_continue
    assert connection.trailing_data[0] == data[head.size :]
    if head.chunked:
        assert _body_framing(request.method, request) == ("chunked", ())
    else:
        assert _body_framing(request.method, request) == ("content-length", (head.content_length or 0,))


@given(_anything, st.lists(st.integers(0, 200), max_size=5))
def test_verdict_does_not_depend_on_how_the_bytes_arrive(data, cuts):
    at_once = take_head(data)
    searched, verdict = 0, None
    for end in (*sorted(min(cut, len(data)) for cut in cuts), len(data)):
        verdict = take_head(data[:end], searched)
        if verdict is not None:
            break
        searched = end
    if isinstance(verdict, Head):
        assert verdict == at_once
    else:
        assert type(verdict) is type(at_once)
